//! A store that becomes larger.
//!
//! Its new blocks are *fresh* until the image that speaks for them is complete: in use
//! for everybody but that image, whose own blocks come from them first. So nothing
//! that a crash must find in a store of the old size can lie in the new part, and a
//! full store has room for a longer bitmap.
//!
//! A TiB has 64 MiB of bits: they are filled in before and freed after in pieces, so
//! that nobody waits for all of it.

use std::collections::TryReserveError;

use super::Allocator;

/// Blocks dealt with at once: 256 KiB of bits. The tests' stores have several pieces too.
pub(crate) const PIECE: u64 = if cfg!(test) { 1 << 12 } else { 1 << 21 };

impl Allocator {
    /// Makes room in memory for a store of `blocks` blocks, so that [`Self::grow`]
    /// finds it.
    ///
    /// # Errors
    /// When there is not so much memory. Nothing has changed then.
    pub fn reserve(&mut self, blocks: u64) -> Result<(), TryReserveError> {
        self.used.reserve(blocks)?;
        self.durable.reserve(blocks)
    }

    /// Fills in a piece of what a store of `blocks` blocks needs; true when
    /// [`Self::grow`] finds all of it. Until then nothing shows of it.
    pub fn prepare(&mut self, blocks: u64) -> bool {
        let used = self.used.lengthen(blocks, PIECE);
        self.durable.lengthen(blocks, PIECE) && used
    }

    /// The next image is of a store of `blocks` blocks, more than now, and its last
    /// superblock lies at the new end. The new blocks can be allocated once that image
    /// is complete.
    pub fn grow(&mut self, blocks: u64) {
        let old = std::mem::replace(&mut self.blocks, blocks);
        self.used.grow(blocks);
        self.durable.grow(blocks);
        self.release(old - 1, 1);
        self.claim(blocks - 1, 1);
        self.fresh = old..blocks - 1;
    }

    /// Fresh blocks that no image has taken.
    pub(super) fn fresh_blocks(&self) -> u64 {
        self.fresh.end - self.fresh.start
    }

    /// The image that speaks for the fresh blocks is complete.
    pub(super) fn open_fresh(&mut self) {
        self.opening = self.fresh_blocks() > 0;
        self.open_some();
    }

    /// Whether some of the new blocks are still to be freed.
    #[must_use]
    pub fn is_opening(&self) -> bool {
        self.opening
    }

    /// Frees a piece of the blocks that are fresh no longer; false if there was none. A
    /// store may grow again only after that.
    pub fn open_some(&mut self) -> bool {
        if !self.opening {
            return false;
        }
        let first = self.fresh.start;
        let end = ((first + PIECE) / PIECE * PIECE).min(self.fresh.end);
        self.used.open(first, end - first);
        self.fresh.start = end;
        self.opening = self.fresh_blocks() > 0;
        true
    }
}
