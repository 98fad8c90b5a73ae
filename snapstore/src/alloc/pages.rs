//! "Durable": the bits that the next image will hold, cut into pages, with the
//! pages changed since the last image and where each page's copy lies.

use std::collections::TryReserveError;

use super::bits::{all_ones, all_zeroes, pieces};
use crate::format::Ptr;
use crate::format::bitmap::{PAGE_WORDS, pages_for};

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    words: Vec<u64>,
    /// Per page, its copy in the last image; null while it never had a bit set.
    copies: Vec<Ptr>,
    is_dirty: Vec<bool>,
    /// The pages whose `is_dirty` is set, in the order they became so.
    dirty: Vec<usize>,
}

impl Pages {
    /// No bit set.
    pub(super) fn new(blocks: u64) -> Self {
        let pages = pages_for(blocks) as usize;
        Self {
            words: vec![0; pages * PAGE_WORDS],
            copies: vec![Ptr::NULL; pages],
            is_dirty: vec![false; pages],
            dirty: Vec::new(),
        }
    }

    /// Makes room in memory for the pages of a store of `blocks` blocks.
    pub(super) fn reserve(&mut self, blocks: u64) -> Result<(), TryReserveError> {
        let pages = (pages_for(blocks) as usize).saturating_sub(self.len());
        self.words.try_reserve_exact(pages * PAGE_WORDS)?;
        self.copies.try_reserve_exact(pages)?;
        self.is_dirty.try_reserve_exact(pages)
    }

    /// The store has `blocks` blocks now, the new ones without a bit set.
    pub(super) fn grow(&mut self, blocks: u64) {
        self.lengthen(blocks, blocks);
        let pages = pages_for(blocks) as usize;
        self.copies.resize(pages, Ptr::NULL);
        self.is_dirty.resize(pages, false);
    }

    /// Fills in the words of at most about so many more blocks of those that `blocks`
    /// has. They belong to no page yet. True when there are as many.
    pub(super) fn lengthen(&mut self, blocks: u64, most: u64) -> bool {
        let (have, want) = (self.words.len(), pages_for(blocks) as usize * PAGE_WORDS);
        let words = want.min(have + most.div_ceil(64) as usize).max(have);
        self.words.resize(words, 0);
        words >= want
    }

    /// Number of pages.
    pub(super) fn len(&self) -> usize {
        self.copies.len()
    }

    pub(super) fn all_set(&self, first: u64, count: u64) -> bool {
        all_ones(&self.words, first, count)
    }

    pub(super) fn all_clear(&self, first: u64, count: u64) -> bool {
        all_zeroes(&self.words, first, count)
    }

    pub(super) fn set(&mut self, first: u64, count: u64) {
        for (word, mask) in pieces(first, count) {
            self.words[word] |= mask;
            self.touch(word / PAGE_WORDS);
        }
    }

    pub(super) fn clear(&mut self, first: u64, count: u64) {
        for (word, mask) in pieces(first, count) {
            self.words[word] &= !mask;
            self.touch(word / PAGE_WORDS);
        }
    }

    fn touch(&mut self, page: usize) {
        if !self.is_dirty[page] {
            self.is_dirty[page] = true;
            self.dirty.push(page);
        }
    }

    /// The `index`th page that became dirty since [`Self::clean`].
    pub(super) fn dirty(&self, index: usize) -> Option<usize> {
        self.dirty.get(index).copied()
    }

    /// The last image holds every change; returns the pages that had some.
    pub(super) fn clean(&mut self) -> Vec<usize> {
        let dirty = std::mem::take(&mut self.dirty);
        for &page in &dirty {
            self.is_dirty[page] = false;
        }
        dirty
    }

    /// The words of a page.
    pub(super) fn words(&self, page: usize) -> &[u64] {
        &self.words[page * PAGE_WORDS..(page + 1) * PAGE_WORDS]
    }

    /// The words of all pages.
    pub(super) fn all_words(&self) -> &[u64] {
        &self.words[..self.len() * PAGE_WORDS]
    }

    /// Where a page's copy lies.
    pub(super) fn copy(&self, page: usize) -> Ptr {
        self.copies[page]
    }

    /// A page's copy lies elsewhere from now on; returns where it lay.
    pub(super) fn move_copy(&mut self, page: usize, copy: Ptr) -> Ptr {
        std::mem::replace(&mut self.copies[page], copy)
    }

    /// Takes over a page as it was read, clean.
    pub(super) fn load(&mut self, page: usize, copy: Ptr, words: impl Iterator<Item = u64>) {
        let own = &mut self.words[page * PAGE_WORDS..(page + 1) * PAGE_WORDS];
        for (own, word) in own.iter_mut().zip(words) {
            *own = word;
        }
        self.copies[page] = copy;
    }

    /// The blocks of all copies.
    pub(super) fn copies(&self) -> impl Iterator<Item = u64> {
        self.copies
            .iter()
            .filter(|copy| !copy.is_null())
            .map(|copy| copy.block)
    }
}
