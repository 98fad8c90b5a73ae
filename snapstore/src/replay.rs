//! Reading the journal back.
//!
//! From the superblock's tail on, blocks are taken while each has the expected
//! sequence and names the CRC of the one before. Where that ends, the whole ring
//! decides what the end means (hazard 4):
//!
//! | elsewhere in the ring there is | the break is |
//! |---|---|
//! | nothing with a sequence beyond the break | the end |
//! | blocks beyond the break, none of which says the break was flushed | the end: an unflushed tail, torn |
//! | a block that says the store was flushed beyond the break | damage: refuse |
//! | a block sealed under a newer checkpoint than the superblock's | an old superblock: refuse |
//!
//! The next sequence is above everything seen, so nothing of a torn tail can chain
//! to what is written later.

use crate::alloc::Allocator;
use crate::block::Block;
use crate::device::BlockDevice;
use crate::engine::Geometry;
use crate::format::exception::LOST;
use crate::format::journal::{JOURNAL_ROOM, JournalBlock, Record};
use crate::format::superblock::{FLAG_CLEAN, Superblock, store_id};
use crate::recover::{OpenError, state_error};
use crate::state::State;

/// Blocks read at once.
const PIECE: u64 = 256;
/// Records a block holds at most.
const MOST_RECORDS: u64 = JOURNAL_ROOM as u64 / 8;

/// What the journal holds beyond the checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// Every record, in order.
    pub(crate) records: Vec<Record>,
    /// Those of blocks not known to have been flushed.
    pub(crate) unflushed: Vec<Record>,
    /// Sequence for the next block to be written.
    pub(crate) next: u64,
    /// What that block names as its predecessor's CRC.
    pub(crate) chain: u32,
}

impl Replay {
    fn add(&mut self, records: Vec<Record>, flushed: bool) {
        if !flushed {
            self.unflushed.extend(records.iter().cloned());
        }
        self.records.extend(records);
    }
}

/// One valid block of the ring.
struct Found {
    block: JournalBlock,
    crc: u32,
}

/// Blocks that follow the superblock's checkpoint without a gap.
struct Chain<'a> {
    blocks: Vec<&'a Found>,
    /// Sequence where it ends.
    end: u64,
    /// CRC of its last block.
    crc: u32,
    /// Blocks with a lower sequence are known flushed.
    flushed: u64,
}

fn chain<'a>(ring: &'a [Option<Found>], superblock: &Superblock) -> Chain<'a> {
    let (tail, blocks) = (
        superblock.journal_tail.get(),
        superblock.journal_blocks.get(),
    );
    let mut chain = Chain {
        blocks: Vec::new(),
        end: tail,
        crc: superblock.journal_chain.get(),
        flushed: tail,
    };
    while chain.end - tail < blocks {
        let Some(Some(found)) = ring.get((chain.end % blocks) as usize) else {
            break;
        };
        if found.block.seq != chain.end || found.block.chain != chain.crc {
            break;
        }
        chain.crc = found.crc;
        chain.flushed = chain.flushed.max(found.block.flushed);
        chain.blocks.push(found);
        chain.end += 1;
    }
    chain
}

/// Above `end` and everything in the ring: the next sequence.
fn next_sequence(ring: &[Option<Found>], end: u64) -> u64 {
    let newest = ring.iter().flatten().map(|f| f.block.seq).max();
    end.max(newest.unwrap_or(0).saturating_add(1))
}

/// Reads the ring and finds what follows the superblock's checkpoint.
pub(crate) fn read(
    dev: &mut impl BlockDevice,
    superblock: &Superblock,
    generation: u64,
) -> Result<Replay, OpenError> {
    let (first, blocks) = (
        superblock.journal_first.get(),
        superblock.journal_blocks.get(),
    );
    let ring = read_ring(dev, superblock)?;
    let crcs = superblock.chunk_blocks() as usize;
    let chain = chain(&ring, superblock);
    judge_break(&ring, first + chain.end % blocks, chain.end, generation)?;
    let mut replay = Replay {
        next: next_sequence(&ring, chain.end),
        chain: chain.crc,
        ..Replay::default()
    };
    for found in chain.blocks {
        let at = first + found.block.seq % blocks;
        let records = found
            .block
            .decode_records(crcs)
            .map_err(|damage| OpenError::Damaged {
                what: "journal",
                block: at,
                damage: damage.to_string(),
            })?;
        replay.add(records, found.block.seq < chain.flushed);
    }
    Ok(replay)
}

/// What a repair makes of a journal.
#[derive(Debug, Default)]
pub(crate) struct Salvage {
    /// What comes before the first damage.
    pub(crate) replay: Replay,
    /// Sequence of the first block that is not part of it.
    pub(crate) end: u64,
    /// Records known to be missing behind it, and why.
    pub(crate) broken: Option<String>,
    /// What the blocks behind the damage hold. Only good for what no missing record
    /// can have changed.
    pub(crate) later: Vec<Record>,
    /// How many records can be missing at most.
    pub(crate) missing: u64,
}

/// Reads what can be read of a journal. Under an older superblock than the newest
/// this gives all that happened since, if the ring still holds it.
pub(crate) fn salvage(
    dev: &mut impl BlockDevice,
    superblock: &Superblock,
    generation: u64,
) -> Salvage {
    let (first, blocks) = (
        superblock.journal_first.get(),
        superblock.journal_blocks.get(),
    );
    let (ring, unreadable) = read_ring_over_damage(dev, superblock);
    let crcs = superblock.chunk_blocks() as usize;
    let chain = chain(&ring, superblock);
    let (mut end, mut crc) = (chain.end, chain.crc);
    let mut replay = Replay::default();
    let mut broken = None;
    for found in chain.blocks {
        match found.block.decode_records(crcs) {
            Ok(records) => replay.add(records, found.block.seq < chain.flushed),
            Err(damage) => {
                (end, crc) = (found.block.seq, found.block.chain);
                broken = Some(format!("journal, block {}: {damage}", first + end % blocks));
                break;
            }
        }
    }
    let at = first + end % blocks;
    let beyond = ring.iter().flatten().map(|found| &found.block);
    let beyond = beyond.filter(|block| block.seq > end);
    let known = beyond
        .clone()
        .any(|block| block.flushed > end || block.generation > generation);
    // An unreadable block may be the last good one: only an orderly stop rules it out.
    let clean = superblock.flags.get() & FLAG_CLEAN != 0;
    if known || (!clean && unreadable.contains(&at)) {
        broken.get_or_insert(format!("journal, block {at}: sequence {end} is missing"));
    }
    let mut salvage = Salvage {
        missing: 0,
        later: Vec::new(),
        broken,
        replay,
        end,
    };
    if salvage.broken.is_some() {
        let mut beyond: Vec<_> = beyond.collect();
        beyond.sort_unstable_by_key(|block| block.seq);
        let newest = beyond.last().map_or(end, |block| block.seq);
        salvage.missing = (newest - end + 1).min(blocks) * MOST_RECORDS;
        let records = beyond.iter().map(|block| block.decode_records(crcs));
        salvage.later = records.flatten().flatten().collect();
    }
    salvage.replay.next = next_sequence(&ring, end);
    if !unreadable.is_empty() {
        // What cannot be read now may be readable tomorrow: a lap further on it cannot
        // be taken for what comes next.
        salvage.replay.next += blocks;
    }
    salvage.replay.chain = crc;
    salvage
}

/// Whether the break at `seq` is the journal's end or damage.
fn judge_break(
    ring: &[Option<Found>],
    at: u64,
    seq: u64,
    generation: u64,
) -> Result<(), OpenError> {
    let damaged = |damage: String| {
        Err(OpenError::Damaged {
            what: "journal",
            block: at,
            damage,
        })
    };
    for found in ring.iter().flatten() {
        let block = &found.block;
        if block.generation > generation {
            return damaged(format!(
                "block with sequence {} was written under checkpoint {}, but the newest readable superblock is of checkpoint {generation}",
                block.seq, block.generation
            ));
        }
        if block.seq > seq && block.flushed > seq {
            return damaged(format!(
                "sequence {seq} is missing, although sequence {} says it was flushed",
                block.seq
            ));
        }
    }
    Ok(())
}

fn read_ring(
    dev: &mut impl BlockDevice,
    superblock: &Superblock,
) -> Result<Vec<Option<Found>>, OpenError> {
    let (first, blocks) = (
        superblock.journal_first.get(),
        superblock.journal_blocks.get(),
    );
    let mut ring = Vec::new();
    let mut buffer = vec![Block::zeroed(); PIECE as usize];
    let mut at = 0;
    while at < blocks {
        let count = PIECE.min(blocks - at) as usize;
        let Some(piece) = buffer.get_mut(..count) else {
            break;
        };
        dev.read(first + at, piece)
            .map_err(|error| OpenError::Device {
                what: "journal",
                error,
            })?;
        let slots = (at..).zip(piece.iter());
        ring.extend(slots.map(|(slot, block)| found_in(superblock, slot, block)));
        at += count as u64;
    }
    Ok(ring)
}

/// The block of a slot, if it is a good one of this ring.
fn found_in(superblock: &Superblock, slot: u64, block: &Block) -> Option<Found> {
    let at = superblock.journal_first.get() + slot;
    let store = store_id(&superblock.uuid);
    let (block, crc) = JournalBlock::decode(block, at, store).ok()?;
    // A block in another slot than its sequence's is not of this ring.
    (block.seq % superblock.journal_blocks.get() == slot).then_some(Found { block, crc })
}

/// The ring with nothing where a block cannot be read, and where that is.
fn read_ring_over_damage(
    dev: &mut impl BlockDevice,
    superblock: &Superblock,
) -> (Vec<Option<Found>>, Vec<u64>) {
    let mut unreadable = Vec::new();
    let mut block = Box::<Block>::default();
    let slots = 0..superblock.journal_blocks.get();
    let ring = slots
        .map(|slot| {
            let at = superblock.journal_first.get() + slot;
            if dev.read(at, std::slice::from_mut(&mut *block)).is_err() {
                unreadable.push(at);
                return None;
            }
            found_in(superblock, slot, &block)
        })
        .collect();
    (ring, unreadable)
}

/// Applies the records to the state of the checkpoint.
pub(crate) fn apply(
    replay: &Replay,
    geometry: &Geometry,
    state: &mut State,
    alloc: &mut Allocator,
) -> Result<(), OpenError> {
    for record in &replay.records {
        if let Record::Exception { block, .. } = record
            && *block != LOST
        {
            alloc
                .mark_used(*block, geometry.chunk_blocks.into())
                .map_err(|error| OpenError::Damaged {
                    what: "journal",
                    block: *block,
                    damage: error.to_string(),
                })?;
        }
        state.apply(record).map_err(state_error)?;
    }
    Ok(())
}
