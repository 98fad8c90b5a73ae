//! Damage that must not pass for the journal's end: a block missing in its middle.

use snapstore::Block;
use snapstore::format::journal::JournalBlock;
use snapstore::format::superblock::{Superblock, store_id};
use snapstore::recover::load;

use super::{Outcome, Violation, World};
use crate::sim::daemon::Daemon;
use crate::sim::dice::Dice;
use crate::sim::disk::SimDisk;
use crate::sim::disk::sync::{SyncDisk, block_of};
use crate::sim::value::{Data, PER_BLOCK};

impl<D: Daemon> World<D> {
    /// Damages one journal block that a later one says was flushed: such a store must
    /// be refused. On a copy and with dice of its own, so the world lives on as it would.
    pub(super) fn refuses_a_gap(&self) -> Outcome {
        let store = &self.runtime.machine().store;
        let Some((at, seq)) = flushed_block(store) else {
            return Ok(());
        };
        let mut store = store.clone();
        store.plant(at * PER_BLOCK, Data::pattern(seq));
        let mut dice = Dice::new(seq);
        match load(&mut SyncDisk::new(&mut store, &mut dice, None)) {
            Err(_) => Ok(()),
            Ok(_) => Err(Violation(format!(
                "journal block {at} was flushed and is damaged, yet the store is opened without it"
            ))),
        }
    }
}

/// The last journal block after the checkpoint that another one says was flushed: its
/// address and sequence.
fn flushed_block(store: &SimDisk) -> Option<(u64, u64)> {
    let (_, superblock) = newest(store)?;
    let found = journal(store, &superblock);
    let flushed = found.iter().map(|(_, block)| block.flushed).max()?;
    let needed = superblock.journal_tail.get()..flushed;
    let places = found.iter().map(|(at, block)| (*at, block.seq));
    places
        .filter(|(_, seq)| needed.contains(seq))
        .max_by_key(|(_, seq)| *seq)
}

/// The newest superblock, and where it is.
pub(super) fn newest(store: &SimDisk) -> Option<(u64, Superblock)> {
    let superblock_at = |at| Superblock::decode(&block_at(store, at), at).ok();
    let first = superblock_at(0);
    // The device may have grown and the store not yet.
    let blocks = first.map_or(store.sectors() / PER_BLOCK, |(found, _)| found.blocks.get());
    let last = blocks.checked_sub(1)?;
    let both = [(0, first), (last, superblock_at(last))];
    let valid = both
        .into_iter()
        .filter_map(|(at, found)| Some((at, found?)));
    let (at, (superblock, _)) = valid.max_by_key(|(_, (_, generation))| *generation)?;
    Some((at, superblock))
}

/// The valid blocks of the journal's ring, and where they are.
pub(super) fn journal(store: &SimDisk, superblock: &Superblock) -> Vec<(u64, JournalBlock)> {
    let first = superblock.journal_first.get();
    let ring = first..first + superblock.journal_blocks.get();
    let id = store_id(&superblock.uuid);
    let blocks = ring.map(|at| (at, JournalBlock::decode(&block_at(store, at), at, id)));
    blocks
        .filter_map(|(at, block)| Some((at, block.ok()?.0)))
        .collect()
}

fn block_at(store: &SimDisk, at: u64) -> Block {
    let first = at * PER_BLOCK;
    let sectors = first..first + PER_BLOCK;
    block_of(&sectors.map(|s| store.visible(s)).collect::<Vec<Data>>())
}
