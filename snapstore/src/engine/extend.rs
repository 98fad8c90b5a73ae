//! A store that becomes as large as its device has become.
//!
//! The first superblock says how large the store is, and so where the last one lies:
//! the last one moves. In this order, each step durable before the next:
//!
//! 1. the device's last block is written with zeroes: it can be written, and nothing
//!    that was left there counts;
//! 2. a checkpoint is built whose bitmap speaks for the new size. Its own blocks may lie
//!    in the new part, nothing else may yet (`alloc/grow.rs`);
//! 3. its superblock is written into the new last block, under the next odd generation;
//! 4. the same superblock is written into the first block, under the generation after.
//!
//! Until 4 the first superblock is the old one and leads to the old last one: a crash
//! leaves the old size, and recovery wipes what 3 left. Should the first superblock be
//! lost meanwhile, the one at the device's end counts, and is as good, because nothing
//! that the old checkpoint reaches is reused before 4 is durable. After 4 the old last
//! block is free, and both superblocks are of the new size.

use super::{CommandError, Effect, Effects, Engine, Io, Notice, Reply};
use crate::block::{BLOCK_SIZE, Block};
use crate::device::IoError;
use crate::format::superblock::MAX_BLOCKS;
use crate::ids::CommandId;

/// Fewest blocks a store grows by, 1 MiB: what the bitmap grows by fits in.
pub(crate) const MIN_STEP: u64 = 256;

/// An extension under way.
#[derive(Debug)]
pub(super) struct Extension {
    id: CommandId,
    blocks: u64,
    /// The new last block was written.
    probed: bool,
    /// The bitmap is prepared as well: the next checkpoint is the one.
    ready: bool,
}

impl Engine {
    /// Begins to extend the store to `blocks` blocks; answered when that is durable.
    pub(super) fn extend_store(&mut self, id: CommandId, blocks: u64, out: &mut Effects) {
        if let Err(error) = self.may_extend(blocks) {
            let result = Err(error);
            return out.list.push(Effect::Reply { id, result });
        }
        self.extension = Some(Extension {
            id,
            blocks,
            probed: false,
            ready: false,
        });
        let io = self.new_io(Io::Probe);
        out.list.push(Effect::WriteBlock {
            io,
            block: blocks - 1,
            data: Block::zeroed().into(),
            fua: true,
        });
    }

    fn may_extend(&mut self, blocks: u64) -> Result<(), CommandError> {
        let old = self.geometry.blocks;
        let (store, device) = (bytes(old), bytes(blocks));
        if self.extension.is_some() {
            let text = "the store is being extended already".to_owned();
            return Err(CommandError::Busy(text));
        }
        if blocks < old {
            return Err(CommandError::StoreCutOff { store, device });
        }
        if blocks - old < MIN_STEP {
            let step = bytes(MIN_STEP);
            return Err(CommandError::NothingToExtend {
                store,
                device,
                step,
            });
        }
        if blocks > MAX_BLOCKS {
            let most = bytes(MAX_BLOCKS);
            return Err(CommandError::StoreTooLarge { device, most });
        }
        // Now: once the checkpoint has begun nothing may fail any more.
        let reserved = self.alloc.reserve(blocks);
        reserved.map_err(|_| CommandError::NoMemory { device })
    }

    /// The new last block was written, or could not be.
    pub(super) fn probed(&mut self, result: Result<(), IoError>, out: &mut Effects) {
        let Some(extension) = &mut self.extension else {
            return;
        };
        let Err(error) = result else {
            extension.probed = true;
            return;
        };
        let id = extension.id;
        self.extension = None;
        let result = Err(CommandError::NewEnd(error));
        out.list.push(Effect::Reply { id, result });
    }

    /// Prepares a piece of a longer bitmap, or frees a piece of what was added; true if
    /// more could be done at once.
    pub(super) fn step_extension(&mut self) -> bool {
        if self.alloc.open_some() {
            return true;
        }
        let Some(extension) = &mut self.extension else {
            return false;
        };
        if !extension.probed || extension.ready {
            return false;
        }
        extension.ready = self.alloc.prepare(extension.blocks);
        self.checkpoint.wanted |= extension.ready;
        true
    }

    /// Whether an extension is not ready for its checkpoint.
    pub(super) fn probing(&self) -> bool {
        self.extension.as_ref().is_some_and(|e| !e.ready)
    }

    /// Generation and size of a checkpoint that begins now.
    pub(super) fn next_checkpoint(&self) -> (u64, u64) {
        let next = self.checkpoint.generation + 1;
        match &self.extension {
            Some(Extension {
                blocks,
                ready: true,
                ..
            }) => (next | 1, *blocks),
            _ => (next, self.geometry.blocks),
        }
    }

    /// Step 4, if the superblock just written was step 3.
    pub(super) fn write_first_superblock(&mut self, out: &mut Effects) -> bool {
        let next = &mut self.checkpoint.next;
        let moved = next.blocks > self.geometry.blocks && !next.generation.is_multiple_of(2);
        if moved {
            next.generation += 1;
            self.write_superblock(out);
        }
        moved
    }

    /// A checkpoint is durable: perhaps the one that makes the store larger.
    pub(super) fn extended(&mut self, out: &mut Effects) {
        let (old, new) = (self.geometry.blocks, self.checkpoint.next.blocks);
        if new == old {
            return;
        }
        self.geometry.blocks = new;
        let (from, to) = (bytes(old), bytes(new));
        out.list
            .push(Effect::Notice(Notice::StoreExtended { from, to }));
        if let Some(Extension { id, .. }) = self.extension.take() {
            let result = Ok(Reply::Done);
            out.list.push(Effect::Reply { id, result });
        }
    }

    /// No checkpoint will ever be durable again.
    pub(super) fn abandon_extension(&mut self, why: &CommandError, out: &mut Effects) {
        if let Some(Extension { id, .. }) = self.extension.take() {
            let result = Err(why.clone());
            out.list.push(Effect::Reply { id, result });
        }
    }
}

fn bytes(blocks: u64) -> u64 {
    blocks.saturating_mul(BLOCK_SIZE as u64)
}
