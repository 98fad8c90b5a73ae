//! How many exceptions which snapshots share.
//!
//! The live snapshots in an exception's interval are a run `first ..= last` in
//! tag order; one counter is kept for each run that occurs. A snapshot's run of
//! itself alone is what only it holds. A delete moves the counters of the runs
//! that begin or end at it, so no operation looks at exceptions to count them.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::Tag;

/// The counters of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    runs: BTreeMap<(Tag, Tag), u64>,
    /// The same runs by (last, first), to find those that end at a snapshot.
    ends: BTreeSet<(Tag, Tag)>,
    dirty: Vec<(Tag, Tag)>,
}

impl Sharing {
    /// Sets a counter read from disk.
    pub fn load(&mut self, first: Tag, last: Tag, count: u64) {
        self.runs.insert((first, last), count);
        self.ends.insert((last, first));
    }

    /// Exceptions shared by exactly `first ..= last`.
    #[must_use]
    pub fn get(&self, first: Tag, last: Tag) -> u64 {
        self.runs.get(&(first, last)).copied().unwrap_or(0)
    }

    /// All counters as ((first, last), count).
    pub fn iter(&self) -> impl Iterator<Item = ((Tag, Tag), u64)> + '_ {
        self.runs.iter().map(|(run, count)| (*run, *count))
    }

    /// Adds to a counter.
    pub fn add(&mut self, first: Tag, last: Tag, count: u64) {
        let counter = self.runs.entry((first, last)).or_default();
        *counter = counter.saturating_add(count);
        self.ends.insert((last, first));
        self.dirty.push((first, last));
    }

    /// One exception of this run is gone.
    pub fn sub(&mut self, first: Tag, last: Tag) {
        let count = self.take(first, last);
        if count > 1 {
            self.add(first, last, count - 1);
        }
    }

    /// `tag` is no longer live; `before` and `after` are its live neighbours.
    pub fn remove(&mut self, tag: Tag, before: Option<Tag>, after: Option<Tag>) {
        let begin: Vec<Tag> = self
            .runs
            .range((tag, Tag(0))..=(tag, Tag(u64::MAX)))
            .map(|((_, l), _)| *l)
            .collect();
        for last in begin {
            let count = self.take(tag, last);
            // A run of the snapshot alone is held by nobody now: it is purged.
            if let (true, Some(after)) = (last != tag, after) {
                self.add(after, last, count);
            }
        }
        let end: Vec<Tag> = self
            .ends
            .range((tag, Tag(0))..=(tag, Tag(u64::MAX)))
            .map(|(_, f)| *f)
            .collect();
        for first in end {
            let count = self.take(first, tag);
            if let Some(before) = before {
                self.add(first, before, count);
            }
        }
    }

    /// No snapshot is live any more.
    pub fn clear(&mut self) {
        self.dirty.extend(self.runs.keys());
        self.runs.clear();
        self.ends.clear();
    }

    /// Hands over the runs changed since the last call.
    pub fn take_dirty(&mut self, mut each: impl FnMut(Tag, Tag)) {
        self.dirty
            .drain(..)
            .for_each(|(first, last)| each(first, last));
    }

    fn take(&mut self, first: Tag, last: Tag) -> u64 {
        self.ends.remove(&(last, first));
        self.dirty.push((first, last));
        self.runs.remove(&(first, last)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Counts runs the slow way, from the exceptions themselves.
    fn naive(intervals: &[(u64, u64)], live: &BTreeSet<u64>) -> BTreeMap<(Tag, Tag), u64> {
        let mut runs = BTreeMap::new();
        for (pred, tag) in intervals {
            let mut inside = live.range(pred + 1..=*tag);
            if let Some(first) = inside.next() {
                let last = inside.next_back().unwrap_or(first);
                *runs.entry((Tag(*first), Tag(*last))).or_default() += 1;
            }
        }
        runs
    }

    #[test]
    fn clearing_names_every_run() {
        let mut sharing = Sharing::default();
        let runs = [(Tag(1), Tag(1)), (Tag(1), Tag(4)), (Tag(3), Tag(4))];
        runs.iter().for_each(|(f, l)| sharing.load(*f, *l, 2));
        sharing.clear();
        let mut changed = Vec::new();
        sharing.take_dirty(|first, last| changed.push((first, last)));
        assert_eq!((changed, sharing), (runs.to_vec(), Sharing::default()));
    }

    proptest! {
        #[test]
        fn deletes_keep_the_counters_exact(
            intervals in prop::collection::vec((0u64..12, 1u64..6), 0..60),
            deletes in prop::collection::vec(1u64..16, 0..12),
        ) {
            let intervals: Vec<_> = intervals.iter().map(|(p, n)| (*p, p + n)).collect();
            let mut live: BTreeSet<u64> = (1..16).collect();
            let mut sharing = Sharing::default();
            for ((first, last), count) in naive(&intervals, &live) {
                sharing.add(first, last, count);
            }
            for tag in deletes {
                if live.remove(&tag) {
                    let before = live.range(..tag).next_back().map(|t| Tag(*t));
                    let after = live.range(tag..).next().map(|t| Tag(*t));
                    sharing.remove(Tag(tag), before, after);
                    let counted: BTreeMap<_, _> = sharing.iter().collect();
                    prop_assert_eq!(counted, naive(&intervals, &live));
                }
            }
        }
    }
}
