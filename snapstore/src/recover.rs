//! Opening a store: superblocks, tables, journal; then recovery, which ends in
//! a durable checkpoint before the engine serves anything.
//!
//! [`load`] reads and verifies without writing: the newest valid superblock, the
//! tables, the bitmap, and the journal from the superblock's position on, replayed
//! in memory. [`Loaded::recover`] then
//! 1. flushes the store, so that what was read is also what stays (hazard 7);
//! 2. re-reads the data of exceptions whose commit was not known flushed: if the
//!    data does not match its checksums, the origin write it protected was never
//!    issued, so the exception is dropped when the origin still matches them, and
//!    LOST when not (hazard 3);
//! 3. writes a checkpoint (hazard 5).
//!
//! What a broken journal block means is a table in `replay.rs`.

use crate::alloc::{Allocator, LoadError};
use crate::block::Block;
use crate::device::{BlockDevice, IoError, Origins};
use crate::drive::checkpoint;
use crate::engine::{
    Config, Engine, Geometry, Parts, Roots, SnapshotInfo, TreeId, VolumeInfo, root_of,
};
use crate::format::Damage;
use crate::format::exception::{Crcs, LOST};
use crate::format::journal::Record;
use crate::format::superblock::{FLAG_CLEAN, Superblock, store_id};
use crate::format::tables::{SnapshotPhase, SnapshotRecord, VolumeRecord};
use crate::ids::{Tag, VolumeId};
use crate::replay::{self, Replay};
use crate::state::State;
use crate::tree::{Key, Node, Shape, Walk};

use zerocopy::FromBytes;

#[cfg(test)]
mod tests;

/// Why a store cannot be made, opened or checked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Neither superblock carries csnap's magic.
    #[error("this is not a csnap store: neither superblock carries its magic")]
    NotAStore,
    /// Both superblocks are damaged.
    #[error("both superblocks are damaged: the first: {first}; the last: {last}")]
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
    #[error(
        "{what}, block {block}: {damage}; restore the store from a copy, or detach it and use the origins alone"
    )]
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
    let roots = roots_of(&superblock);
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
    let mut state = load_tables(dev, &geometry, &roots, &superblock)?;
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

/// Reads the volume table, the snapshot table and the sharing counters.
fn load_tables(
    dev: &mut impl BlockDevice,
    geometry: &Geometry,
    roots: &Roots,
    superblock: &Superblock,
) -> Result<State, OpenError> {
    let mut state = State::new(u64::from(superblock.chunk_size.get()));
    state.next_tag = superblock.next_tag.get();
    state.next_volume = superblock.next_volume.get();
    for tree in [TreeId::Volumes, TreeId::Snapshots, TreeId::Sharing] {
        walk(dev, geometry, roots, tree, &mut |node, index| {
            load_record(&mut state, tree, node.key(index), node.value(index))
        })?;
    }
    Ok(state)
}

/// Adds one record of the volume table, the snapshot table or the sharing counters.
pub(crate) fn load_record(
    state: &mut State,
    tree: TreeId,
    key: Key,
    value: &[u8],
) -> Result<(), Damage> {
    let short = Damage::Field("a table record is too short");
    let number = if tree == TreeId::Volumes {
        key.b
    } else {
        key.a
    };
    let unknown = Damage::Field("a table record's volume number is out of range");
    let volume = VolumeId(u32::try_from(number).map_err(|_| unknown)?);
    match tree {
        TreeId::Volumes => {
            let record = VolumeRecord::read_from_bytes(value).map_err(|_| short)?;
            state.load_volume(volume, record)
        }
        TreeId::Snapshots => {
            let record = SnapshotRecord::read_from_bytes(value).map_err(|_| short)?;
            state.load_snapshot(volume, Tag(key.b), record)
        }
        _ => {
            let count = <[u8; 8]>::try_from(value).map_err(|_| short)?;
            let count = u64::from_le_bytes(count);
            state.load_sharing(volume, Tag(key.b), Tag(key.c), count)
        }
    }
}

/// Visits every record of a tree in key order.
fn walk(
    dev: &mut impl BlockDevice,
    geometry: &Geometry,
    roots: &Roots,
    tree: TreeId,
    each: &mut dyn FnMut(&Node, usize) -> Result<(), Damage>,
) -> Result<(), OpenError> {
    let what = tree.name();
    let shape: Shape = geometry.shape(tree);
    let root = *roots.get(tree);
    let fault = |block, damage: String| OpenError::Damaged {
        what,
        block,
        damage,
    };
    let mut walk = Walk::new(root).map_err(|f| fault(root.ptr.block, f.to_string()))?;
    while let Some(missing) = walk.next() {
        let at = missing.ptr.block;
        let block = read_block(dev, at, what)?;
        let node = Node::verify(block.into(), missing.ptr, &shape, missing.level)
            .map_err(|d| fault(at, d.to_string()))?;
        walk.enter(&node).map_err(|f| fault(at, f.to_string()))?;
        if missing.level == 0 {
            for index in 0..node.len() {
                each(&node, index).map_err(|d| fault(at, d.to_string()))?;
            }
        }
    }
    walk.finish()
        .map_err(|f| fault(root.ptr.block, f.to_string()))
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
        let mut data = vec![Block::zeroed(); crcs.as_slice().len()];
        if dev.read(*block, &mut data).is_err() {
            // Unreadable is not unwritten: keep it, reads will say so.
            return Ok(());
        }
        let checksum = self.geometry.checksum;
        let found = data.iter().map(|b| checksum.of(&b.0));
        if found.eq(crcs.as_slice().iter().copied()) {
            // Written again: a flush that failed before the stop may have left it where
            // no later flush reaches it (hazard 9).
            return dev.write(*block, &data).map_err(|error| OpenError::Device {
                what: "store",
                error,
            });
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
            origins.chunk_checksums(self.geometry.checksum, id, chunk, size, &mut now)?;
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

pub(crate) fn state_error(damage: Damage) -> OpenError {
    OpenError::Damaged {
        what: "journal",
        block: 0,
        damage: damage.to_string(),
    }
}
