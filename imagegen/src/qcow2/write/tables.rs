//! Tables of both levels, of the disk and of each snapshot (a *view* each, the disk as it is
//! now being view 0), filled from the first cluster to the last. Of each view one table of
//! level 2 is open, all of them of the same clusters, so that views can share entries and
//! whole tables.

use super::WriteError;
use super::space::Space;
use crate::medium::Medium;
use crate::qcow2::format::{L1Entry, L2Entry, Subclusters, Width};

/// Of one view.
struct Table {
    l1: Vec<L1Entry>,
    /// The open table of level 2; empty if it says nothing.
    open: Vec<u8>,
}

pub(super) struct Tables<'a> {
    medium: &'a dyn Medium,
    width: Width,
    views: Vec<Table>,
    /// Which tables are open.
    index: u64,
}

/// Where a table of level 1 lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level1 {
    pub(super) offset: u64,
    pub(super) entries: u32,
}

const NO_TABLE: L1Entry = L1Entry {
    offset: 0,
    copied: false,
};

impl<'a> Tables<'a> {
    /// For views of so many bytes.
    pub(super) fn new(
        medium: &'a dyn Medium,
        width: Width,
        sizes: impl Iterator<Item = u64>,
    ) -> Self {
        let table = |size: u64| {
            // Where the disk has no bytes as well, so that the table's place is used.
            let entries = size.div_ceil(1 << width.table_bits()).max(1);
            Table {
                l1: vec![NO_TABLE; entries as usize],
                open: Vec::new(),
            }
        };
        Self {
            medium,
            width,
            views: sizes.map(table).collect(),
            index: 0,
        }
    }

    /// Opens the tables with the entry of `cluster`, and closes those before: what they lead
    /// to is not used again. To be called before room is asked for.
    pub(super) fn turn_to(
        &mut self,
        space: &mut Space<'_>,
        cluster: u64,
    ) -> Result<(), WriteError> {
        let index = cluster >> self.width.entries_bits();
        if index != self.index {
            self.close(space)?;
            self.index = index;
        }
        Ok(())
    }

    /// Where the entry of `cluster` stands in its table, which is opened.
    fn place(&mut self, space: &mut Space<'_>, cluster: u64) -> Result<usize, WriteError> {
        self.turn_to(space, cluster)?;
        let number = cluster & ((1 << self.width.entries_bits()) - 1);
        Ok((number * self.width.entry()) as usize)
    }

    /// The entry of a cluster of a view; in none of them a later table was begun.
    pub(super) fn set(
        &mut self,
        space: &mut Space<'_>,
        (view, cluster): (usize, u64),
        entry: L2Entry,
        subclusters: Subclusters,
    ) -> Result<(), WriteError> {
        let at = self.place(space, cluster)?;
        self.put(view, at, entry.encode(self.width));
        if self.width.extended {
            self.put(view, at + 8, subclusters.encode());
        }
        Ok(())
    }

    /// The entry of a cluster is the one that another view has, and what it leads to is
    /// used once more.
    pub(super) fn share(
        &mut self,
        space: &mut Space<'_>,
        (view, cluster): (usize, u64),
        with: usize,
    ) -> Result<(), WriteError> {
        let at = self.place(space, cluster)?;
        let raw = self.get(with, at);
        let subclusters = match self.width.extended {
            true => self.get(with, at + 8),
            false => 0,
        };
        if (raw, subclusters) == (0, 0) {
            return Ok(());
        }
        let mut shared = raw;
        if let Some(entry) = L2Entry::decode(raw, self.width) {
            if let Some(bytes) = entry.bytes(self.width) {
                space.count(bytes);
            }
            shared = entry.shared().encode(self.width);
        }
        self.put(with, at, shared);
        self.put(view, at, shared);
        if self.width.extended {
            self.put(view, at + 8, subclusters);
        }
        Ok(())
    }

    /// The open table of a view, if it says anything.
    fn open(&self, view: usize) -> Option<&Vec<u8>> {
        let table = self.views.get(view)?;
        (!table.open.is_empty()).then_some(&table.open)
    }

    fn get(&self, view: usize, at: usize) -> u64 {
        let bytes = self.open(view).and_then(|open| open.get(at..at + 8));
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_be_bytes)
    }

    fn put(&mut self, view: usize, at: usize, word: u64) {
        let Some(Table { open, .. }) = self.views.get_mut(view) else {
            return;
        };
        if open.is_empty() {
            open.resize(1 << self.width.cluster_bits, 0);
        }
        if let Some(room) = open.get_mut(at..at + 8) {
            room.copy_from_slice(&word.to_be_bytes());
        }
    }

    /// Writes the open tables, those of the same contents once.
    fn close(&mut self, space: &mut Space<'_>) -> Result<(), WriteError> {
        for view in 0..self.views.len() {
            let Some(open) = self.open(view) else {
                continue;
            };
            let same = (0..view).rev().find(|one| self.open(*one) == Some(open));
            let entry = match same.and_then(|one| self.entry(one)) {
                Some(entry) => {
                    entry.copied = false;
                    let entry = *entry;
                    space.count(entry.offset..entry.offset + 1);
                    entry
                }
                None => {
                    let offset = space.clusters(1)?;
                    if let Some(open) = self.open(view) {
                        self.medium.write(offset, open)?;
                    }
                    let copied = true;
                    L1Entry { offset, copied }
                }
            };
            if let Some(place) = self.entry(view) {
                *place = entry;
            }
        }
        for table in &mut self.views {
            table.open.clear();
        }
        space.settle()
    }

    /// The entry of level 1 for a view's open table.
    fn entry(&mut self, view: usize) -> Option<&mut L1Entry> {
        self.views.get_mut(view)?.l1.get_mut(self.index as usize)
    }

    /// Writes what is open, and level 1 of every view.
    pub(super) fn finish(mut self, space: &mut Space<'_>) -> Result<Vec<Level1>, WriteError> {
        self.close(space)?;
        let mut written = Vec::with_capacity(self.views.len());
        for Table { l1, .. } in &self.views {
            let raw = l1.iter().map(|entry| entry.encode().to_be_bytes());
            written.push(Level1 {
                offset: space.table(raw.flatten().collect())?,
                entries: l1.len() as u32,
            });
        }
        Ok(written)
    }
}
