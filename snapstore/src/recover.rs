//! Opening a store: superblocks, tables, journal; then recovery, which ends in
//! a durable checkpoint before the engine serves anything.
//!
//! [`load`] reads and verifies without writing: the newest valid superblock, the
//! tables, the bitmap, the high nodes of the trees, and the journal from the superblock's
//! position on, replayed in memory. [`Loaded::recover`] then
//! 1. flushes the store, so that what was read is also what stays (hazard 7), and wipes
//!    what an extension that was cut off left at the device's end;
//! 2. re-reads the data of exceptions whose commit was not known flushed: if the
//!    data does not match its checksums, the origin write it protected was never
//!    issued, so the exception is dropped when the origin still matches them, and
//!    LOST when not (hazard 3);
//! 3. writes a checkpoint (hazard 5).
//!
//! What a broken journal block means is a table in `replay.rs`. Sharing counters that
//! cannot be read are counted anew: refusing a store for them would cost too much.

mod high;
mod tables;

use crate::alloc::{Allocator, LoadError};
use crate::block::Block;
use crate::checksum::Checksum;
use crate::device::{BlockDevice, IoError, Origins};
use crate::drive::checkpoint;
use crate::engine::{Config, Engine, Geometry, Parts, Roots, SnapshotInfo, VolumeInfo, root_of};
use crate::format::Damage;
use crate::format::exception::{Crcs, LOST};
use crate::format::journal::Record;
use crate::format::superblock::{FLAG_CLEAN, Superblock, store_id};
use crate::format::tables::SnapshotPhase;
use crate::ids::{Tag, VolumeId};
use crate::replay::{self, Replay};
use crate::state::State;
use crate::tree::Node;

use high::load_high;
pub(crate) use tables::load_record;
use tables::load_tables;

#[cfg(test)]
mod tests;

/// Why a store cannot be made, opened or checked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Neither superblock carries csnap's magic.
    #[error("this is not a csnap store: neither superblock carries its magic")]
    NotAStore,
    /// Both superblocks are damaged.
    #[error(
        "both superblocks are damaged: the first: {first}; the last: {last} (if the device became larger and \
         the store was not extended since, the last is not at its end: give it its old size)"
    )]
    Superblocks {
        /// What is wrong with the first.
        first: Damage,
        /// What is wrong with the last.
        last: Damage,
    },
    /// The device is smaller than the store.
    #[error(
        "the device holds {device} blocks of 4 KiB but the store has {store}: it was truncated or this is another device"
    )]
    Truncated {
        /// Blocks the device has.
        device: u64,
        /// Blocks the store has.
        store: u64,
    },
    /// A metadata block is damaged.
    #[error("{what}, block {block}: {damage}")]
    Damaged {
        /// What the block belongs to.
        what: &'static str,
        /// Which block.
        block: u64,
        /// What is wrong with it.
        damage: String,
    },
    /// The device failed.
    #[error("cannot access the {what}: {error}")]
    Device {
        /// What was being accessed.
        what: &'static str,
        /// What the device said.
        error: IoError,
    },
    /// An option makes no sense for this device.
    #[error("{0}")]
    Invalid(String),
    /// Recovery could not write its checkpoint.
    #[error("recovery could not write its checkpoint: {0}")]
    Checkpoint(String),
}

/// A store whose superblock, tables and journal have been read and verified, and
/// nothing written yet.
#[derive(Debug)]
pub struct Loaded {
    pub(crate) geometry: Geometry,
    pub(crate) generation: u64,
    pub(crate) state: State,
    pub(crate) roots: Roots,
    pub(crate) alloc: Allocator,
    pub(crate) replay: Replay,
    pub(crate) clean: bool,
    /// Nodes of the exceptions' trees that stay in memory.
    pub(crate) high: Vec<Node>,
    /// Damage got over: block and reason.
    pub(crate) damage: Vec<(u64, String)>,
}

/// What recovery did, for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last stop was orderly: the journal was empty.
    pub clean: bool,
    /// Records replayed from the journal.
    pub replayed: u64,
    /// Exceptions at the tail whose data had not reached the store, dropped
    /// because their origin write was never issued.
    pub dropped: u64,
    /// Exceptions at the tail whose data is lost.
    pub lost: u64,
}

/// The newest valid superblock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Newest {
    pub(crate) superblock: Superblock,
    pub(crate) generation: u64,
}

/// Reads one block.
pub(crate) fn read_block(
    dev: &mut impl BlockDevice,
    at: u64,
    what: &'static str,
) -> Result<Box<Block>, OpenError> {
    let mut block = Box::new(Block::zeroed());
    dev.read(at, std::slice::from_mut(&mut *block))
        .map_err(|error| OpenError::Device { what, error })?;
    Ok(block)
}

/// Finds the newest valid superblock.
pub(crate) fn newest_superblock(dev: &mut impl BlockDevice) -> Result<Newest, OpenError> {
    if dev.blocks() < 2 {
        return Err(OpenError::NotAStore);
    }
    let first = read_superblock(dev, 0, "first superblock");
    // Where the last one lies the first one says; else it is the device's end.
    let end = match &first {
        Ok((superblock, _)) => superblock.blocks.get(),
        Err(_) => dev.blocks(),
    };
    if end > dev.blocks() {
        return Err(OpenError::Truncated {
            device: dev.blocks(),
            store: end,
        });
    }
    let last = read_superblock(dev, end - 1, "last superblock");
    let valid = |(superblock, generation)| Newest {
        superblock,
        generation,
    };
    match (first, last) {
        (Ok(a), Ok(b)) if a.0.uuid == b.0.uuid => Ok(valid(if b.1 > a.1 { b } else { a })),
        (Ok(one), _) | (Err(_), Ok(one)) => Ok(valid(one)),
        (Err(Unusable::Unreadable(error)), _) | (_, Err(Unusable::Unreadable(error))) => Err(error),
        (
            Err(Unusable::Damaged {
                damage: first,
                foreign,
            }),
            Err(Unusable::Damaged {
                damage: last,
                foreign: both,
            }),
        ) => Err(if foreign && both {
            OpenError::NotAStore
        } else {
            OpenError::Superblocks { first, last }
        }),
    }
}

/// Why one superblock is of no use; the other may be.
enum Unusable {
    Unreadable(OpenError),
    Damaged { damage: Damage, foreign: bool },
}

fn read_superblock(
    dev: &mut impl BlockDevice,
    at: u64,
    what: &'static str,
) -> Result<(Superblock, u64), Unusable> {
    let block = read_block(dev, at, what).map_err(Unusable::Unreadable)?;
    Superblock::decode(&block, at).map_err(|damage| Unusable::Damaged {
        damage,
        foreign: !Superblock::has_magic(&block),
    })
}

pub(crate) fn geometry_of(superblock: &Superblock) -> Geometry {
    Geometry {
        uuid: superblock.uuid,
        store: store_id(&superblock.uuid),
        blocks: superblock.blocks.get(),
        chunk_blocks: superblock.chunk_blocks(),
        checksum: superblock.data_checksum(),
        created_ms: superblock.created_ms.get(),
        journal_first: superblock.journal_first.get(),
        journal_blocks: superblock.journal_blocks.get(),
    }
}

pub(crate) fn roots_of(superblock: &Superblock) -> Roots {
    Roots {
        exceptions: root_of(&superblock.exceptions),
        eras: root_of(&superblock.eras),
        volumes: root_of(&superblock.volumes),
        snapshots: root_of(&superblock.snapshots),
        sharing: root_of(&superblock.sharing),
    }
}

/// Reads a store without changing it.
///
/// # Errors
/// See [`OpenError`]: each names the block and the reason.
pub fn load(dev: &mut impl BlockDevice) -> Result<Loaded, OpenError> {
    let Newest {
        superblock,
        generation,
    } = newest_superblock(dev)?;
    let geometry = geometry_of(&superblock);
    if geometry.blocks > dev.blocks() {
        return Err(OpenError::Truncated {
            device: dev.blocks(),
            store: geometry.blocks,
        });
    }
    let mut roots = roots_of(&superblock);
    let mut alloc = crate::alloc::load(
        dev,
        geometry.store,
        superblock.bitmap.into(),
        geometry.blocks,
        geometry.chunk_blocks,
    )
    .map_err(bitmap_error)?;
    let (first, count) = (geometry.journal_first, geometry.journal_blocks);
    let journal = first..first + count;
    alloc.check_fixed(journal).map_err(bitmap_error)?;
    let mut damage = Vec::new();
    let mut state = load_tables(dev, &geometry, &mut roots, &superblock, &mut damage)?;
    let high = load_high(dev, &geometry, &roots)?;
    let replay = replay::read(dev, &superblock, generation)?;
    replay::apply(&replay, &geometry, &mut state, &mut alloc)?;
    let clean = superblock.flags.get() & FLAG_CLEAN != 0 && replay.records.is_empty();
    Ok(Loaded {
        geometry,
        generation,
        state,
        roots,
        alloc,
        replay,
        clean,
        high,
        damage,
    })
}

fn bitmap_error(error: LoadError) -> OpenError {
    match error {
        LoadError::Read { error, .. } => OpenError::Device {
            what: "allocation bitmap",
            error,
        },
        LoadError::Damaged { block, damage } => OpenError::Damaged {
            what: "allocation bitmap",
            block,
            damage: damage.to_string(),
        },
    }
}

impl Loaded {
    /// Bytes in a chunk.
    #[must_use]
    pub fn chunk_size(&self) -> u32 {
        self.geometry.chunk_blocks * crate::BLOCK_SIZE as u32
    }

    /// Identity of the store.
    #[must_use]
    pub fn uuid(&self) -> [u8; 16] {
        self.geometry.uuid
    }

    /// Whether the last stop was orderly.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.clean
    }

    /// The volumes, so that their origins can be opened.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeInfo> {
        crate::engine::volumes(&self.state, self.chunk_size().into())
    }

    /// The snapshots of a volume by ascending tag.
    #[must_use]
    pub fn snapshots(&self, volume: VolumeId) -> Vec<SnapshotInfo> {
        crate::engine::snapshots(&self.state, volume, self.chunk_size().into())
    }

    /// Recovers: flushes the store, verifies the journal's tail, writes a
    /// checkpoint, and returns the engine ready for its first event. Idempotent:
    /// a crash inside it is recovered by doing it again.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn recover(
        self,
        dev: &mut impl BlockDevice,
        origins: &mut impl Origins,
        config: Config,
    ) -> Result<(Engine, Recovered), OpenError> {
        let (mut engine, recovered) = self.write_checkpoint(dev, origins, config)?;
        engine.recovered();
        Ok((engine, recovered))
    }

    /// All of [`Self::recover`], but the engine commits nothing yet.
    pub(crate) fn write_checkpoint(
        mut self,
        dev: &mut impl BlockDevice,
        origins: &mut impl Origins,
        config: Config,
    ) -> Result<(Engine, Recovered), OpenError> {
        dev.flush().map_err(|error| OpenError::Device {
            what: "store",
            error,
        })?;
        wipe_leftover(dev, &self.geometry)?;
        let mut recovered = Recovered {
            clean: self.clean,
            replayed: self.replay.records.len() as u64,
            ..Recovered::default()
        };
        let tail = std::mem::take(&mut self.replay.unflushed);
        for record in &tail {
            self.verify_tail(dev, origins, record, &mut recovered)?;
        }
        self.undo_takes()?;
        let parts = Parts {
            geometry: self.geometry,
            state: self.state,
            roots: self.roots,
            alloc: self.alloc,
            generation: self.generation,
            journal: (self.replay.next, self.replay.chain),
            high: self.high,
            damage: self.damage,
        };
        let mut engine = Engine::new(parts, config);
        checkpoint(&mut engine, dev)?;
        Ok((engine, recovered))
    }

    /// Checks the data of one exception whose commit may not have been flushed.
    fn verify_tail(
        &mut self,
        dev: &mut impl BlockDevice,
        origins: &mut impl Origins,
        record: &Record,
        recovered: &mut Recovered,
    ) -> Result<(), OpenError> {
        let Record::Exception {
            volume,
            chunk,
            tag,
            pred,
            block,
            crcs,
        } = record
        else {
            return Ok(());
        };
        if *block == LOST || !self.state.recent.holds(*volume, *chunk, *tag, *block) {
            return Ok(());
        }
        match read_copy(dev, *block, crcs, self.geometry.checksum) {
            // Unreadable is not unwritten: keep it, reads will say so.
            Err(_) => return Ok(()),
            // Written again: a flush that failed before the stop may have left it where
            // no later flush reaches it (hazard 9).
            Ok(Some(data)) => {
                return dev.write(*block, &data).map_err(|error| OpenError::Device {
                    what: "store",
                    error,
                });
            }
            Ok(None) => {}
        }
        let unchanged = match self.is_unchanged(origins, (*volume, *chunk, *tag, *pred), crcs) {
            Ok(unchanged) => unchanged,
            // Unknown for now: keep the record; reads verify and refuse.
            Err(IoError::Absent) => return Ok(()),
            // Neither copy can be had: LOST, never dropped.
            Err(_) => false,
        };
        self.alloc
            .give_back(*block, self.geometry.chunk_blocks.into());
        if unchanged {
            recovered.dropped += 1;
            return self
                .state
                .forget(*volume, *chunk, *tag)
                .map_err(state_error);
        }
        recovered.lost += 1;
        self.state.lose(*volume, *chunk, *tag).map_err(state_error)
    }

    /// Whether the origin still holds what a copyout of `(volume, chunk, tag, pred)`
    /// read, as far as the snapshots it was made for reach. Where the last block they
    /// need was padded from depends on the size that the volume had when it was
    /// copied: theirs, or any up to now's if it has grown since.
    fn is_unchanged(
        &mut self,
        origins: &mut impl Origins,
        (id, chunk, tag, pred): (VolumeId, u64, Tag, Tag),
        crcs: &Crcs,
    ) -> Result<bool, IoError> {
        let chunk_size = u64::from(self.chunk_size());
        let volume = self.state.volume_mut(id).map_err(|_| IoError::Absent)?;
        let (reach, grown) = (volume.size_in(pred, tag), volume.record.size.get());
        let needed = reach.saturating_sub(chunk.saturating_mul(chunk_size));
        let needed = needed.div_ceil(crate::BLOCK_SIZE as u64) as usize;
        if needed == 0 {
            return Ok(true);
        }
        let mut now = vec![0; crcs.as_slice().len()];
        let mut size = reach;
        loop {
            let mut read =
                || origins.chunk_checksums(self.geometry.checksum, id, chunk, size, &mut now);
            read().or_else(|_| read())?;
            let mut pairs = now.iter().zip(crcs.as_slice()).take(needed);
            if pairs.all(|(now, then)| now == then) {
                return Ok(true);
            }
            if size >= grown || size.is_multiple_of(crate::BLOCK_SIZE as u64) {
                return Ok(false);
            }
            size += 512;
        }
    }

    /// A take without its commit record never was.
    fn undo_takes(&mut self) -> Result<(), OpenError> {
        let prepared: Vec<(VolumeId, Tag)> = self
            .state
            .volumes
            .values()
            .flat_map(|v| {
                v.snapshots
                    .iter()
                    .map(|(tag, record)| (v.id, *tag, record.phase()))
            })
            .filter(|(_, _, phase)| *phase == Some(SnapshotPhase::Prepared))
            .map(|(volume, tag, _)| (volume, tag))
            .collect();
        for (volume, tag) in prepared {
            let record = Record::SnapshotDeleted { volume, tag };
            self.state.apply(&record).map_err(state_error)?;
        }
        Ok(())
    }
}

/// A copy, if it matches its checksums. One that does not, or cannot be read, is read once
/// more: what is made of that is for good.
fn read_copy(
    dev: &mut impl BlockDevice,
    block: u64,
    crcs: &Crcs,
    checksum: Checksum,
) -> Result<Option<Vec<Block>>, IoError> {
    let mut data = vec![Block::zeroed(); crcs.as_slice().len()];
    let mut read = || {
        dev.read(block, &mut data)?;
        let found = data.iter().map(|b| checksum.of(&b.0));
        Ok(found.eq(crcs.as_slice().iter().copied()))
    };
    let good = match read() {
        Ok(false) => matches!(read(), Ok(true)),
        result => result.or_else(|_| read())?,
    };
    Ok(good.then_some(data))
}

/// What an extension that was cut off wrote at the device's end is not to be taken for
/// this store's last superblock, should the first one ever be lost.
fn wipe_leftover(dev: &mut impl BlockDevice, geometry: &Geometry) -> Result<(), OpenError> {
    let what = "device's end";
    let Some(at) = leftover(dev, geometry) else {
        return Ok(());
    };
    dev.write(at, &[Block::zeroed()])
        .and_then(|()| dev.flush())
        .map_err(|error| OpenError::Device { what, error })
}

/// Where a superblock of this store lies that does not count: at the end of a device
/// that is larger than the store.
pub(crate) fn leftover(dev: &mut impl BlockDevice, geometry: &Geometry) -> Option<u64> {
    let at = dev.blocks().checked_sub(1)?;
    if at < geometry.blocks {
        return None;
    }
    let block = read_block(dev, at, "device's end").ok()?;
    let (copy, _) = Superblock::decode(&block, at).ok()?;
    (copy.uuid == geometry.uuid).then_some(at)
}

pub(crate) fn state_error(damage: Damage) -> OpenError {
    OpenError::Damaged {
        what: "journal",
        block: 0,
        damage: damage.to_string(),
    }
}
