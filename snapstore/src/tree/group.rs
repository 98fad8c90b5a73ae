//! The rewriting of neighbouring nodes: old records and changes in, new nodes out.
//!
//! A group begins as one old node and the changes that fall into its bounds. When
//! little is left it absorbs its next siblings (with their changes), then it is
//! cut into new nodes. Until the cuts are made it holds references only; no node
//! is allocated or freed.

use std::ops::Range;
use std::sync::Arc;

use super::changes::Changes;
use super::descend::Parent;
use super::key::Key;
use super::node::Node;
use crate::format::Ptr;

/// Where a record of the new nodes comes from.
#[derive(Clone, Copy, Debug)]
enum Entry {
    /// Record `index` of old node `node`.
    Old { node: u32, index: u32 },
    /// A put of the batch.
    New(u32),
}

/// An old node being replaced.
#[derive(Debug)]
pub(super) struct Old {
    pub(super) node: Arc<Node>,
    /// Its separator in the parent; `None`: it is the root.
    pub(super) separator: Option<Key>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Group {
    /// Lower bound of the first node.
    pub(super) low: Key,
    /// Where the last node hangs.
    pub(super) parent: Option<Parent>,
    /// First change of the batch beyond this group.
    pub(super) end: usize,
    pub(super) olds: Vec<Old>,
    pub(super) inserted: u64,
    pub(super) deleted: u64,
    /// Ends of the new nodes, in entries.
    pub(super) cuts: Vec<usize>,
    /// The new nodes so far, with the separators they get.
    pub(super) written: Vec<(Key, Ptr)>,
    entries: Vec<Entry>,
}

impl Group {
    /// A group of nothing yet, taking changes from `start` on.
    pub(super) fn new(low: Key, parent: Option<Parent>, start: usize) -> Self {
        Self {
            low,
            parent,
            end: start,
            olds: Vec::new(),
            inserted: 0,
            deleted: 0,
            cuts: Vec::new(),
            written: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Number of records of the new nodes together.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Merges an old node (or none) with the changes from where the group ends up
    /// to `end`. Returns whether they change anything: deleting what is absent and
    /// putting what is there already do not.
    pub(super) fn take(&mut self, old: Option<Old>, batch: &Changes, end: usize) -> bool {
        let at = self.olds.len() as u32;
        let len = old.as_ref().map_or(0, |old| old.node.len());
        let node = old.as_ref().map(|old| Arc::clone(&old.node));
        let mut changed = false;
        let mut index = 0;
        for change in self.end..end {
            let key = batch.key(change);
            let bound = node.as_ref().map_or(0, |node| node.lower_bound(&key));
            self.keep(at, index..bound);
            index = bound;
            let held = node
                .as_ref()
                .filter(|node| index < len && node.key(index) == key);
            match (batch.value(change), held) {
                (None, None) => {}
                (Some(value), Some(node)) if node.value(index) == value => {}
                (value, held) => {
                    changed = true;
                    index += usize::from(held.is_some());
                    self.deleted += u64::from(value.is_none());
                    self.inserted += u64::from(held.is_none());
                    if value.is_some() {
                        self.entries.push(Entry::New(change as u32));
                    }
                }
            }
        }
        self.keep(at, index..len);
        self.end = end;
        self.olds.extend(old);
        changed
    }

    /// Whether its last old node is a loose one: its siblings are, too.
    pub(super) fn is_loose(&self) -> bool {
        self.olds.last().is_some_and(|old| old.node.is_loose())
    }

    fn keep(&mut self, node: u32, range: Range<usize>) {
        self.entries.extend(range.map(|index| Entry::Old {
            node,
            index: index as u32,
        }));
    }

    /// Key and value of entry `i`.
    pub(super) fn record<'a>(&'a self, i: usize, batch: &'a Changes) -> (Key, &'a [u8]) {
        match self.entries[i] {
            Entry::Old { node, index } => {
                let node = &self.olds[node as usize].node;
                (node.key(index as usize), node.value(index as usize))
            }
            Entry::New(change) => {
                let change = change as usize;
                (batch.key(change), batch.value(change).unwrap_or_default())
            }
        }
    }

    fn key(&self, i: usize, batch: &Changes) -> Key {
        self.record(i, batch).0
    }

    /// The pointer that entry `i` of an interior group holds.
    pub(super) fn ptr(&self, i: usize, batch: &Changes) -> Ptr {
        let (_, value) = self.record(i, batch);
        Ptr::decode(value)
    }

    /// `a` of the last record if the run of records sharing it (leaves) or all the
    /// records (interior) would fill less than a quarter of a node. Absorbing the
    /// next sibling then pays: the result is one node, or two well filled ones.
    pub(super) fn poor_tail(&self, level: u16, capacity: usize, batch: &Changes) -> Option<u64> {
        let last = self.key(self.len().checked_sub(1)?, batch).a;
        let tail = if level > 0 {
            self.len()
        } else {
            let run = (0..self.len()).rev().take(capacity);
            run.take_while(|&i| self.key(i, batch).a == last).count()
        };
        (tail * 4 < capacity).then_some(last)
    }

    /// Decides where the records are cut into nodes: leaves where `a` changes, and
    /// every run into pieces that fit.
    pub(super) fn cut(&mut self, level: u16, capacity: usize, batch: &Changes) {
        let mut cuts = Vec::new();
        let mut start = 0;
        while start < self.len() {
            let mut end = self.len();
            if level == 0 {
                let a = self.key(start, batch).a;
                end = (start..end)
                    .find(|&i| self.key(i, batch).a != a)
                    .unwrap_or(end);
            }
            self.cut_run(start..end, capacity, &mut cuts);
            start = end;
        }
        self.cuts = cuts;
    }

    /// A run that grew at its end only is an ascending load: full nodes, which it
    /// leaves behind for good, and the rest. Others are cut evenly into nodes at
    /// most 7/8 full, so that the next few inserts do not split them again.
    fn cut_run(&self, run: Range<usize>, capacity: usize, cuts: &mut Vec<usize>) {
        let len = run.len();
        if len <= capacity {
            cuts.push(run.end);
        } else if self.grew_at_end(run.clone()) {
            cuts.extend((1..len.div_ceil(capacity)).map(|i| run.start + i * capacity));
            cuts.push(run.end);
        } else {
            let pieces = (len * 8).div_ceil(capacity * 7);
            cuts.extend((1..=pieces).map(|i| run.start + len * i / pieces));
        }
    }

    /// Whether the last records are new and all before them are old.
    fn grew_at_end(&self, run: Range<usize>) -> bool {
        let is_new = |entry: &Entry| matches!(entry, Entry::New(_));
        let entries = &self.entries[run];
        entries.last().is_some_and(is_new) && entries.is_sorted_by_key(is_new)
    }

    /// What the parent's level must change: the separators of the old nodes go,
    /// those of the new nodes come. Ascending.
    pub(super) fn effects(&self) -> Vec<(Key, Option<Ptr>)> {
        let gone = self
            .olds
            .iter()
            .filter_map(|old| old.separator)
            .map(|key| (key, None));
        let come = self.written.iter().map(|&(key, ptr)| (key, Some(ptr)));
        let mut effects: Vec<_> = come.chain(gone).collect();
        // Stable: where an old separator stays, the put is first and wins.
        effects.sort_by_key(|&(key, _)| key);
        effects.dedup_by_key(|&mut (key, _)| key);
        effects
    }
}
