//! The allocator: which blocks of the store are in use.
//!
//! Two bitmaps, one bit per block of 4 KiB, 1 = in use:
//! - *durable* is exactly what the next checkpoint's image will say. Only
//!   [`Allocator::claim`] and [`Allocator::release`] change it, while a
//!   checkpoint is being built.
//! - *used* is what may not be handed out: every durable block, every block
//!   allocated since, and every block released by a checkpoint that is not yet
//!   complete.
//!
//! So durable is a subset of used, and nothing that the superblock on the device
//! can reach is overwritten: a released block becomes allocatable only in the
//! [`Allocator::complete`] of the image that leaves it out.
//!
//! | what happens to a block | call | durable | used |
//! |---|---|---|---|
//! | allocated | `alloc_block`, `alloc_chunks`, `mark_used` | 0 | 1 |
//! | never came to be referenced | `give_back` | 0 | 0 |
//! | referenced by the checkpoint being built | `claim` | 1 | 1 |
//! | no longer referenced by it | `release` | 0 | 1 |
//! | that checkpoint is complete | `complete` | 0 | 0 |
//! | new in a store that grows, until then | `grow` | 0 | 1 |
//!
//! A call that contradicts the table (a block freed twice, say) means that the
//! trees on the device are wrong or the engine is. It changes nothing and latches
//! a [`Fault`], with which every later [`Allocator::image`] fails: a checkpoint
//! built on it never becomes durable.

mod bits;
pub(crate) mod grow;
mod image;
mod load;
#[cfg(test)]
mod oracle;
mod pages;
mod slots;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

pub use image::{Image, ImageError};
pub use load::{LoadError, load};

use self::pages::Pages;
use self::slots::Slots;

/// Blocks given to [`Allocator::mark_used`] that are in use already, or not of
/// this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("of the {count} blocks at {block}, some are in use already or beyond the end of the store")]
pub struct AlreadyUsed {
    /// First block.
    pub block: u64,
    /// Number of blocks.
    pub count: u64,
}

/// A call that contradicts the state of its blocks: see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {operation} {count} blocks at {block}: {reason}; run `csnapctl store check`")]
pub struct Fault {
    /// The call.
    pub operation: &'static str,
    /// First block.
    pub block: u64,
    /// Number of blocks.
    pub count: u64,
    /// What is wrong with them.
    pub reason: &'static str,
}

/// A run of blocks.
#[derive(Clone, Copy, Debug)]
struct Run {
    block: u64,
    count: u64,
}

/// See the module.
#[derive(Clone)]
pub struct Allocator {
    /// Blocks of the store.
    blocks: u64,
    /// Blocks in a chunk.
    chunk_blocks: u64,
    used: Slots,
    durable: Pages,
    /// The directory blocks of the last image, in order.
    directory: Vec<u64>,
    /// Released since the last image was made.
    released: Vec<Run>,
    /// Released before it: free when it is complete.
    sealed: Vec<Run>,
    /// Blocks in both.
    releasing: u64,
    /// See `grow`.
    fresh: Range<u64>,
    /// They are being freed.
    opening: bool,
    fault: Option<Fault>,
}

impl Allocator {
    /// An allocator for a store of `blocks` blocks, all free, with `chunk_blocks`
    /// blocks (a power of two, 1 to 256) in a chunk.
    ///
    /// The caller claims the superblocks and the journal before anything else;
    /// block 0 must be among them, since a pointer to it means "nothing".
    #[must_use]
    pub fn new(blocks: u64, chunk_blocks: u32) -> Self {
        Self {
            blocks,
            chunk_blocks: u64::from(chunk_blocks),
            used: Slots::new(blocks, chunk_blocks),
            durable: Pages::new(blocks),
            directory: Vec::new(),
            released: Vec::new(),
            sealed: Vec::new(),
            releasing: 0,
            fresh: 0..0,
            opening: false,
            fault: None,
        }
    }

    /// Blocks of the store.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Blocks that can be allocated now.
    #[must_use]
    pub fn free_blocks(&self) -> u64 {
        self.used.free_blocks()
    }

    /// Whole chunks that can be allocated now. The free blocks beyond
    /// `free_chunks * chunk_blocks` are good for metadata only.
    #[must_use]
    pub fn free_chunks(&self) -> u64 {
        self.used.free_slots()
    }

    /// Blocks that were released and come back at a later [`Self::complete`].
    #[must_use]
    pub fn releasing_blocks(&self) -> u64 {
        self.releasing
    }

    /// Allocates one block for metadata. Blocks that are no good for a chunk come
    /// first, then low addresses, so that chunks find long runs. `None`: no block
    /// is free.
    pub fn alloc_block(&mut self) -> Option<u64> {
        let block = self.used.find_block()?;
        self.used.set(block, 1);
        Some(block)
    }

    /// Allocates a contiguous run of up to `want` aligned chunks (at least one),
    /// beginning where the last run ended. Returns its first block and how many
    /// chunks it holds: fewer than `want` when no longer run is near. `None`: no
    /// chunk is free.
    pub fn alloc_chunks(&mut self, want: u32) -> Option<(u64, u32)> {
        let (block, chunks) = self.used.find_run(want.max(1))?;
        self.used.set(block, u64::from(chunks) * self.chunk_blocks);
        Some((block, chunks))
    }

    /// Takes back blocks that were allocated and that nothing durable refers to:
    /// they are free at once.
    pub fn give_back(&mut self, block: u64, count: u64) {
        const CALL: &str = "give back";
        if self.expect(CALL, block, count, "not allocated", |own| {
            own.used.all_used(block, count)
        }) && self.expect(CALL, block, count, "a checkpoint holds them", |own| {
            own.durable.all_clear(block, count)
        }) {
            self.used.clear(block, count);
        }
    }

    /// Allocates these very blocks: recovery, for what the journal refers to.
    ///
    /// # Errors
    /// [`AlreadyUsed`] when some of them are not free; nothing changes then.
    pub fn mark_used(&mut self, block: u64, count: u64) -> Result<(), AlreadyUsed> {
        if !self.in_range(block, count) || !self.used.all_free(block, count) {
            return Err(AlreadyUsed { block, count });
        }
        self.used.set(block, count);
        Ok(())
    }

    /// The checkpoint being built refers to these allocated blocks.
    pub fn claim(&mut self, block: u64, count: u64) {
        const CALL: &str = "claim";
        if self.expect(CALL, block, count, "not allocated", |own| {
            own.used.all_used(block, count)
        }) && self.expect(CALL, block, count, "claimed already", |own| {
            own.durable.all_clear(block, count)
        }) {
            self.durable.set(block, count);
        }
    }

    /// The checkpoint being built no longer refers to these claimed blocks. They
    /// stay used until the image that leaves them out is complete.
    pub fn release(&mut self, block: u64, count: u64) {
        let claimed = self.expect("release", block, count, "not in use", |own| {
            own.durable.all_set(block, count)
        });
        if !claimed || count == 0 {
            return;
        }
        self.durable.clear(block, count);
        self.releasing += count;
        match self.released.last_mut() {
            Some(last) if last.block + last.count == block => last.count += count,
            _ => self.released.push(Run { block, count }),
        }
    }

    /// The superblock that names the last image is durable: what was released
    /// before that image is free.
    pub fn complete(&mut self) {
        for Run { block, count } in std::mem::take(&mut self.sealed) {
            self.releasing -= count;
            if self.expect("free", block, count, "in another use meanwhile", |own| {
                own.used.all_used(block, count) && own.durable.all_clear(block, count)
            }) {
                self.used.clear(block, count);
            }
        }
        self.open_fresh();
    }

    /// The first call that contradicted the state of its blocks.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Whether a block may not be allocated. Blocks beyond the end may not.
    #[must_use]
    pub fn is_used(&self, block: u64) -> bool {
        block >= self.blocks || self.used.all_used(block, 1)
    }

    /// Whether the next image will say that a block is in use.
    #[must_use]
    pub fn is_durable(&self, block: u64) -> bool {
        block < self.blocks && self.durable.all_set(block, 1)
    }

    /// The blocks of the last image itself: directory and pages.
    pub fn image_blocks(&self) -> impl Iterator<Item = u64> {
        self.directory.iter().copied().chain(self.durable.copies())
    }

    /// The bits [`Self::is_durable`] tells, 64 blocks a word, for the checker.
    pub(crate) fn durable_words(&self) -> &[u64] {
        self.durable.all_words()
    }

    fn in_range(&self, block: u64, count: u64) -> bool {
        block
            .checked_add(count)
            .is_some_and(|end| end <= self.blocks)
    }

    /// Whether the range is of this store and `holds`; latches a fault if not.
    fn expect(
        &mut self,
        operation: &'static str,
        block: u64,
        count: u64,
        reason: &'static str,
        holds: impl FnOnce(&Self) -> bool,
    ) -> bool {
        let reason = if !self.in_range(block, count) {
            "beyond the end of the store"
        } else if !holds(self) {
            reason
        } else {
            return true;
        };
        self.fault.get_or_insert(Fault {
            operation,
            block,
            count,
            reason,
        });
        false
    }
}

impl fmt::Debug for Allocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocator")
            .field("blocks", &self.blocks)
            .field("chunk_blocks", &self.chunk_blocks)
            .field("free_blocks", &self.free_blocks())
            .field("free_chunks", &self.free_chunks())
            .field("releasing_blocks", &self.releasing_blocks())
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}
