//! How many exceptions which snapshots share.
//!
//! The live snapshots in an exception's interval are a run `first ..= last` in
//! tag order; one counter is kept for each run that occurs. A snapshot's run of
//! itself alone is what only it holds. A delete moves the counters of the runs
//! that begin or end at it, so no operation looks at exceptions to count them. How
//! many exceptions begin and end at each snapshot is kept beside, so that telling what
//! every snapshot keeps looks at the snapshots only, however many runs there are.
//!
//! There can be as many runs as exceptions, all in memory: 16 bytes each, in one list
//! for each snapshot that runs end at. The few lists with a run that begins at some
//! snapshot are looked for, and no further than its exceptions reach.

use std::collections::BTreeMap;

use crate::ids::Tag;

/// The counters of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// By where they end: where they begin, ascending, and how many exceptions they have.
    runs: BTreeMap<Tag, Vec<(Tag, u64)>>,
    bounds: BTreeMap<Tag, Bounds>,
    /// Exceptions of all runs.
    total: u64,
    dirty: Vec<(Tag, Tag)>,
}

/// Exceptions whose runs begin, and end, at a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bounds {
    first: u64,
    last: u64,
}

impl Sharing {
    /// Sets a counter read from disk.
    pub fn load(&mut self, first: Tag, last: Tag, count: u64) {
        self.uncount(first, last);
        self.count(first, last, count);
    }

    /// Exceptions shared by exactly `first ..= last`.
    #[must_use]
    pub fn get(&self, first: Tag, last: Tag) -> u64 {
        let list = self.runs.get(&last).map_or(&[][..], Vec::as_slice);
        find(list, first).map_or(0, |at| list[at].1)
    }

    /// Exceptions that some snapshot needs.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many exceptions each of the live snapshots needs, alone or with others;
    /// `live` are all of them in ascending order.
    pub fn kept_by(&self, live: impl Iterator<Item = Tag>) -> impl Iterator<Item = (Tag, u64)> {
        let mut bounds = self.bounds.iter().peekable();
        let (mut open, mut ending) = (0u64, 0);
        live.map(move |tag| {
            while let Some((_, at)) = bounds.next_if(|(at, _)| **at <= tag) {
                open = open.saturating_sub(ending).saturating_add(at.first);
                ending = at.last;
            }
            let kept = open;
            open = open.saturating_sub(ending);
            ending = 0;
            (tag, kept)
        })
    }

    /// All counters as ((first, last), count).
    pub fn iter(&self) -> impl Iterator<Item = ((Tag, Tag), u64)> + '_ {
        let lists = self.runs.iter();
        lists.flat_map(|(last, list)| list.iter().map(|(first, count)| ((*first, *last), *count)))
    }

    /// Adds to a counter.
    pub fn add(&mut self, first: Tag, last: Tag, count: u64) {
        self.count(first, last, count);
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
        for last in self.ends_of_runs_from(tag) {
            let count = self.take(tag, last);
            // A run of the snapshot alone is held by nobody now: it is purged.
            if let (true, Some(after)) = (last != tag, after) {
                self.add(after, last, count);
            }
        }
        let end = self.runs.get(&tag).cloned().unwrap_or_default();
        for (first, count) in end {
            self.take(first, tag);
            if let Some(before) = before {
                self.add(first, before, count);
            }
        }
    }

    /// Where the runs end that begin at `tag`.
    fn ends_of_runs_from(&self, tag: Tag) -> Vec<Tag> {
        let mut left = self.bounds.get(&tag).map_or(0, |at| at.first);
        let mut ends = Vec::new();
        for (last, list) in self.runs.range(tag..) {
            if left == 0 {
                break;
            }
            if let Ok(at) = find(list, tag) {
                left = left.saturating_sub(list[at].1);
                ends.push(*last);
            }
        }
        ends
    }

    /// No snapshot is live any more.
    pub fn clear(&mut self) {
        let runs = std::mem::take(&mut self.runs).into_iter();
        let runs = runs.flat_map(|(last, list)| list.into_iter().map(move |(f, _)| (f, last)));
        self.dirty.extend(runs);
        self.bounds.clear();
        self.total = 0;
    }

    /// Hands over the runs changed since the last call.
    pub fn take_dirty(&mut self, mut each: impl FnMut(Tag, Tag)) {
        self.dirty
            .drain(..)
            .for_each(|(first, last)| each(first, last));
    }

    fn take(&mut self, first: Tag, last: Tag) -> u64 {
        self.dirty.push((first, last));
        self.uncount(first, last)
    }

    fn count(&mut self, first: Tag, last: Tag, count: u64) {
        // A counter read from a damaged store may be anything.
        let count = count.min(u64::MAX - self.total);
        let list = self.list(last);
        match find(list, first) {
            Ok(at) => list[at].1 += count,
            Err(at) => list.insert(at, (first, count)),
        }
        self.total += count;
        self.bounds.entry(first).or_default().first += count;
        self.bounds.entry(last).or_default().last += count;
    }

    /// The list of runs that end at `last`. A new one is the newest snapshot's: the one
    /// before it will hardly grow any more.
    fn list(&mut self, last: Tag) -> &mut Vec<(Tag, u64)> {
        if !self.runs.contains_key(&last)
            && let Some((_, before)) = self.runs.range_mut(..last).next_back()
        {
            before.shrink_to_fit();
        }
        self.runs.entry(last).or_default()
    }

    fn uncount(&mut self, first: Tag, last: Tag) -> u64 {
        let Some(list) = self.runs.get_mut(&last) else {
            return 0;
        };
        let count = find(list, first).map_or(0, |at| list.remove(at).1);
        if list.is_empty() {
            self.runs.remove(&last);
        }
        self.total -= count;
        self.unbound(first, |at| at.first -= count);
        self.unbound(last, |at| at.last -= count);
        count
    }

    fn unbound(&mut self, tag: Tag, change: impl FnOnce(&mut Bounds)) {
        let Some(at) = self.bounds.get_mut(&tag) else {
            return;
        };
        change(at);
        if *at == Bounds::default() {
            self.bounds.remove(&tag);
        }
    }
}

/// Where the run that begins at `first` is in a list, or belongs.
fn find(list: &[(Tag, u64)], first: Tag) -> Result<usize, usize> {
    list.binary_search_by_key(&first, |(first, _)| *first)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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

    /// What each live snapshot needs, from the exceptions themselves.
    fn naively_kept(intervals: &[(u64, u64)], live: &BTreeSet<u64>) -> Vec<(Tag, u64)> {
        let needs = |tag: u64| {
            let covering = |(pred, last): &&(u64, u64)| *pred < tag && tag <= *last;
            intervals.iter().filter(covering).count() as u64
        };
        live.iter().map(|tag| (Tag(*tag), needs(*tag))).collect()
    }

    #[test]
    fn counters_of_a_damaged_store_overflow_nothing() {
        let mut sharing = Sharing::default();
        for (first, last) in [(2, 2), (2, 5), (5, 2), (2, 2)] {
            sharing.load(Tag(first), Tag(last), u64::MAX);
            sharing.add(Tag(first), Tag(last), u64::MAX);
        }
        assert_eq!(sharing.total(), u64::MAX);
        let live = [2, 3, 5].map(Tag);
        assert_eq!(sharing.kept_by(live.into_iter()).count(), 3);
        sharing.remove(Tag(2), None, Some(Tag(3)));
        sharing.remove(Tag(5), Some(Tag(3)), None);
        assert_eq!(sharing.get(Tag(2), Tag(2)), 0);
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
                    let kept: Vec<_> = sharing.kept_by(live.iter().map(|t| Tag(*t))).collect();
                    prop_assert_eq!(kept, naively_kept(&intervals, &live));
                    let total: u64 = sharing.iter().map(|(_, count)| count).sum();
                    prop_assert_eq!(sharing.total(), total);
                }
            }
        }
    }
}
