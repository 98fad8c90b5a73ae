//! Directories: entries in bytewise order, block by block.
//!
//! A directory's size follows from its names alone ([`Size`]), so that it is known before
//! the numbers are; [`Entries`] then makes the same blocks.

use super::super::format::directory::{ENTRY, Entry, kind};
use zerocopy::IntoBytes;

/// Names of the directory itself and the one above, in order.
const OWN: [&[u8]; 2] = [b".", b".."];

/// Bytes a directory will have, counted name by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    block: usize,
    bytes: u64,
}

impl Size {
    /// Of a directory without entries but its own.
    ///
    /// Its own names are counted where they sort, as every other.
    pub(crate) fn new(block: usize) -> Self {
        Self { block, bytes: 0 }
    }

    fn add(&mut self, name: &[u8]) {
        let entry = (ENTRY + name.len()) as u64;
        let block = self.block as u64;
        if self.bytes % block + entry > block {
            self.bytes = self.bytes.next_multiple_of(block);
        }
        self.bytes += entry;
    }
}

/// Puts a directory's own names where they belong among the others, which come in order.
#[derive(Debug, Clone, Copy, Default)]
struct Own {
    done: usize,
}

impl Own {
    /// The next of its own names, if it comes before `name`, or if no other comes.
    fn before(&mut self, name: Option<&[u8]>) -> Option<usize> {
        let own = OWN.get(self.done)?;
        if name.is_some_and(|name| name < *own) {
            return None;
        }
        self.done += 1;
        Some(self.done - 1)
    }
}

/// The size of a directory, from its names as they come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    size: Size,
    own: Own,
}

impl Measure {
    /// Of a directory in blocks of `block` bytes.
    pub(crate) fn new(block: usize) -> Self {
        let (size, own) = (Size::new(block), Own::default());
        Self { size, own }
    }

    /// One name more; they come in bytewise order.
    pub(crate) fn add(&mut self, name: &[u8]) {
        while let Some(own) = self.own.before(Some(name)) {
            self.size.add(OWN[own]);
        }
        self.size.add(name);
    }

    /// Bytes of the whole directory.
    pub(crate) fn finish(mut self) -> u64 {
        while let Some(own) = self.own.before(None) {
            self.size.add(OWN[own]);
        }
        self.size.bytes
    }
}

/// Makes a directory's blocks.
#[derive(Debug)]
pub(crate) struct Entries {
    block: usize,
    own: Own,
    /// Numbers of itself and of the one above.
    numbers: [u64; 2],
    /// Entries and names of the block in hand.
    entries: Vec<Entry>,
    names: Vec<u8>,
    /// Blocks that are full.
    done: Vec<u8>,
}

impl Entries {
    /// Of the directory `nid` in `parent`.
    pub(crate) fn new(block: usize, nid: u64, parent: u64) -> Self {
        Self {
            block,
            own: Own::default(),
            numbers: [nid, parent],
            entries: Vec::new(),
            names: Vec::new(),
            done: Vec::new(),
        }
    }

    /// One entry more; they come in bytewise order of their names.
    pub(crate) fn add(&mut self, name: &[u8], nid: u64, kind: u8) {
        while let Some(own) = self.own.before(Some(name)) {
            self.push(OWN[own], self.numbers[own], kind::DIRECTORY);
        }
        self.push(name, nid, kind);
    }

    fn push(&mut self, name: &[u8], nid: u64, kind: u8) {
        let used = self.entries.len() * ENTRY + self.names.len();
        if used + ENTRY + name.len() > self.block {
            self.end_block();
            self.done
                .resize(self.done.len().next_multiple_of(self.block), 0);
        }
        self.entries.push(Entry {
            nid: nid.into(),
            // Where it begins after the entries, until it is known how many these are.
            name_at: (self.names.len() as u16).into(),
            kind,
            reserved: 0,
        });
        self.names.extend_from_slice(name);
    }

    fn end_block(&mut self) {
        let entries = (self.entries.len() * ENTRY) as u16;
        for entry in &mut self.entries {
            entry.name_at = (entry.name_at.get() + entries).into();
        }
        self.done.extend_from_slice(self.entries.as_bytes());
        self.done.extend_from_slice(&self.names);
        self.entries.clear();
        self.names.clear();
    }

    /// Whole blocks made since this was asked last.
    pub(crate) fn take_blocks(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.done)
    }

    /// How many bytes [`Self::take_blocks`] would give.
    pub(crate) fn waiting(&self) -> usize {
        self.done.len()
    }

    /// What is left, when all entries have come: whole blocks, then a part of one.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        while let Some(own) = self.own.before(None) {
            self.push(OWN[own], self.numbers[own], kind::DIRECTORY);
        }
        self.end_block();
        self.done
    }
}
