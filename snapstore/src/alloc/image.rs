//! Making the on-disk image of the bitmap.
//!
//! An image is written to free blocks, never over an older one, and its own
//! blocks are in the bitmap too: moving a page changes bits, perhaps of a page
//! that was clean. So pages are moved from a queue that grows meanwhile. A page
//! enters the queue at most once, hence it ends, and only then are the pages
//! encoded: they say exactly what is durable, this image's blocks included and
//! its predecessor's left out.
//!
//! The directory is written anew each time: 4 KiB per 32 GiB of store.

use std::sync::Arc;

use zerocopy::{FromZeros, transmute};

use super::{Allocator, Fault};
use crate::block::Block;
use crate::format::bitmap::{
    BitmapDirectory, BitmapPage, DIRECTORY_ENTRIES, PAGE_BITS, directory_blocks_for,
};
use crate::format::{Kind, Ptr, seal};

/// What to write so that a superblock may name the directory.
#[derive(Clone, Debug)]
pub struct Image {
    /// Blocks to write, in any order, all before the superblock.
    pub writes: Vec<(u64, Arc<Block>)>,
    /// The first directory block: for the superblock.
    pub directory: Ptr,
    /// How many of the writes are pages.
    pub pages: u64,
}

/// Why an image cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The space reserved for checkpoints was used for something else.
    #[error("the bitmap's image needs up to {need} free blocks and only {free} are free")]
    NoSpace {
        /// [`Allocator::worst_case_image_blocks`].
        need: u64,
        /// [`Allocator::free_blocks`].
        free: u64,
    },
    /// What the bitmap says cannot be relied on.
    #[error("the bitmap contradicts the trees: {0}")]
    Fault(#[from] Fault),
}

impl Allocator {
    /// Blocks that must be free for [`Self::image`] to succeed, whatever changed:
    /// every page and the directory.
    #[must_use]
    pub fn worst_case_image_blocks(&self) -> u64 {
        let pages = self.durable.len() as u64;
        pages + directory_blocks_for(pages)
    }

    /// Encodes what is durable: the pages changed since the last image, and the
    /// directory. The image's own blocks are claimed, its predecessor's released.
    ///
    /// # Errors
    /// [`ImageError`]. Nothing has changed when there is no space.
    pub fn image(&mut self, store: u64, generation: u64) -> Result<Image, ImageError> {
        if let Some(fault) = self.fault {
            return Err(fault.into());
        }
        let need = self.worst_case_image_blocks();
        let free = self.free_blocks() + self.fresh_blocks();
        if free < need {
            return Err(ImageError::NoSpace { need, free });
        }
        self.move_directory()?;
        self.move_dirty_pages(generation)?;
        if let Some(fault) = self.fault {
            return Err(fault.into());
        }
        let dirty = self.durable.clean();
        self.sealed.append(&mut self.released);
        let mut writes: Vec<_> = dirty
            .iter()
            .map(|&page| self.encode_page(page, store, generation))
            .collect();
        writes.extend(self.encode_directory(store, generation));
        let first = self.directory.first().copied().unwrap_or(0);
        Ok(Image {
            writes,
            directory: Ptr {
                block: first,
                generation,
            },
            pages: dirty.len() as u64,
        })
    }

    fn move_directory(&mut self) -> Result<(), ImageError> {
        for block in std::mem::take(&mut self.directory) {
            self.release(block, 1);
        }
        for _ in 0..directory_blocks_for(self.durable.len() as u64) {
            let block = self.claim_own()?;
            self.directory.push(block);
        }
        Ok(())
    }

    fn move_dirty_pages(&mut self, generation: u64) -> Result<(), ImageError> {
        let mut moved = 0;
        while let Some(page) = self.durable.dirty(moved) {
            let block = self.claim_own()?;
            let old = self.durable.move_copy(page, Ptr { block, generation });
            if !old.is_null() {
                self.release(old.block, 1);
            }
            moved += 1;
        }
        Ok(())
    }

    /// A block for the image itself. Cannot fail after `image`'s check.
    fn claim_own(&mut self) -> Result<u64, ImageError> {
        let need = self.worst_case_image_blocks();
        let block = self.fresh.next().or_else(|| self.alloc_block());
        let block = block.ok_or(ImageError::NoSpace { need, free: 0 })?;
        self.claim(block, 1);
        Ok(block)
    }

    fn encode_page(&self, page: usize, store: u64, generation: u64) -> (u64, Arc<Block>) {
        let mut out = BitmapPage::new_zeroed();
        out.first_bit = (page as u64 * PAGE_BITS).into();
        for (out, &word) in out.words.iter_mut().zip(self.durable.words(page)) {
            *out = word.into();
        }
        let at = self.durable.copy(page).block;
        let mut block = Block(transmute!(out));
        seal(&mut block, Kind::BitmapPage, at, store, generation);
        (at, Arc::new(block))
    }

    fn encode_directory(
        &self,
        store: u64,
        generation: u64,
    ) -> impl Iterator<Item = (u64, Arc<Block>)> {
        self.directory.iter().enumerate().map(move |(index, &at)| {
            let first = index * DIRECTORY_ENTRIES;
            let count = (self.durable.len() - first).min(DIRECTORY_ENTRIES);
            let mut out = BitmapDirectory::new_zeroed();
            if let Some(&block) = self.directory.get(index + 1) {
                out.next = Ptr { block, generation }.into();
            }
            out.index = (index as u32).into();
            out.count = (count as u32).into();
            for (offset, entry) in out.entries.iter_mut().take(count).enumerate() {
                *entry = self.durable.copy(first + offset).into();
            }
            let mut block = Block(transmute!(out));
            seal(&mut block, Kind::BitmapDirectory, at, store, generation);
            (at, Arc::new(block))
        })
    }
}
