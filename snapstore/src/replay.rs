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
use crate::format::journal::{JournalBlock, Record};
use crate::format::superblock::{Superblock, store_id};
use crate::recover::{OpenError, state_error};
use crate::state::State;

/// Blocks read at once.
const PIECE: u64 = 256;

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

/// One valid block of the ring.
struct Found {
    block: JournalBlock,
    crc: u32,
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
    let tail = superblock.journal_tail.get();
    let ring = read_ring(dev, superblock)?;
    let crcs = superblock.chunk_blocks() as usize;
    let mut replay = Replay {
        chain: superblock.journal_chain.get(),
        ..Replay::default()
    };
    let mut seq = tail;
    let mut flushed = tail;
    let mut taken = Vec::new();
    while seq - tail < blocks {
        let Some(Some(found)) = ring.get((seq % blocks) as usize) else {
            break;
        };
        if found.block.seq != seq || found.block.chain != replay.chain {
            break;
        }
        replay.chain = found.crc;
        flushed = flushed.max(found.block.flushed);
        taken.push(found);
        seq += 1;
    }
    judge_break(&ring, first + seq % blocks, seq, generation)?;
    for found in taken {
        let at = first + found.block.seq % blocks;
        let records = found
            .block
            .decode_records(crcs)
            .map_err(|damage| OpenError::Damaged {
                what: "journal",
                block: at,
                damage: damage.to_string(),
            })?;
        if found.block.seq >= flushed {
            replay.unflushed.extend(records.iter().cloned());
        }
        replay.records.extend(records);
    }
    let newest = ring
        .iter()
        .flatten()
        .map(|f| f.block.seq)
        .max()
        .unwrap_or(0);
    replay.next = seq.max(newest.saturating_add(1));
    Ok(replay)
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
    let store = store_id(&superblock.uuid);
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
        for (index, block) in piece.iter().enumerate() {
            let slot = at + index as u64;
            let found = JournalBlock::decode(block, first + slot, store).ok();
            // A block in another slot than its sequence's is not of this ring.
            let found = found.filter(|(block, _)| block.seq % blocks == slot);
            ring.push(found.map(|(block, crc)| Found { block, crc }));
        }
        at += count as u64;
    }
    Ok(ring)
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
