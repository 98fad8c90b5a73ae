//! Which chunks of a range changed between two snapshots, or since one.
//!
//! The same question as in `changes`, put the other way round: asked for a range, it is
//! answered in the order of the chunks, from the exceptions of that range alone. A chunk
//! changed if and only if the exception that covers `from` has a tag below `to`. While
//! it is looked for the asker counts as a reader of `from`, so no purge takes it away.

use std::sync::Arc;

use super::lookup::{Known, TreeId};
use super::{Effect, Effects, Engine, RequestError, Task};
use crate::format::exception::Place;
use crate::ids::{Owner, Tag, VolumeId};
use crate::tree::{Key, Missing, Node, scan};

/// Leaves looked through for one answer.
const WINDOWS: u32 = 64;
/// Chunks named in one answer.
const CHUNKS: usize = 4096;

/// Exceptions in order, and where the next ones begin.
type Window = (Vec<(Key, Place)>, Option<Key>);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) owner: Owner,
    pub(super) volume: VolumeId,
    pub(super) from: Tag,
    pub(super) to: Option<Tag>,
    pub(super) first: u64,
    pub(super) count: u64,
}

/// A comparison under way.
#[derive(Debug)]
pub(super) struct Comparison {
    range: Range,
    /// What is left to be looked through.
    cursor: Key,
    end: Key,
    /// Chunks that changed, in order.
    changed: Vec<u64>,
    windows: u32,
    pub(super) pinned: Vec<Arc<Node>>,
}

impl Comparison {
    /// Enough for one answer, or everything.
    fn is_done(&self) -> bool {
        let enough = self.windows >= WINDOWS || self.changed.len() >= CHUNKS;
        // An answer tells of one chunk at least.
        self.cursor >= self.end || (enough && self.cursor.b > self.range.first)
    }

    /// Whether an exception of this tag is the one that says so.
    fn tells_of_change(&self, tag: Tag, place: Place) -> bool {
        let Range { from, to, .. } = self.range;
        place.pred < from && from <= tag && to.is_none_or(|to| tag < to)
    }
}

impl Engine {
    pub(super) fn on_compare(&mut self, range: Range, out: &mut Effects) {
        if let Err(error) = self.admit_compare(&range) {
            let owner = range.owner;
            return out.list.push(Effect::ReadFailed { owner, error });
        }
        self.reader_came(range.volume, range.from);
        let key = |chunk| Key::new(range.volume.0.into(), chunk, 0);
        let comparison = Comparison {
            range,
            cursor: key(range.first),
            end: key(range.first + range.count),
            changed: Vec::new(),
            windows: 0,
            pinned: Vec::new(),
        };
        let id = self.comparisons.insert(comparison);
        self.ready.push_back(Task::Compare(id));
    }

    fn admit_compare(&self, range: &Range) -> Result<(), RequestError> {
        let &Range {
            volume,
            from,
            to,
            first,
            count,
            ..
        } = range;
        let last = first.saturating_add(count.saturating_sub(1));
        if let Some(to) = to.filter(|to| *to <= from) {
            return Err(RequestError::NotNewer(to, from));
        }
        // A range is sound if its ends are.
        self.admit(volume, first, 1)?;
        self.admit(volume, last, count.min(1) as u32)?;
        [Some(from), to]
            .into_iter()
            .flatten()
            .try_for_each(|tag| self.readable(volume, tag))
    }

    pub(super) fn run_compare(&mut self, id: usize, out: &mut Effects) {
        loop {
            match self.comparisons.get(id).map(Comparison::is_done) {
                None => return,
                Some(true) => return self.answer_compare(id, out),
                Some(false) => {}
            }
            if let Err(missing) = self.compare_leaf(id) {
                return self.fetch(TreeId::Exceptions, missing, Task::Compare(id), out);
            }
        }
    }

    /// The next leaf of exceptions.
    fn compare_leaf(&mut self, id: usize) -> Result<(), Missing> {
        let Some(comparison) = self.comparisons.get_mut(id) else {
            return Ok(());
        };
        let (cursor, end) = (comparison.cursor, comparison.end);
        let pinned = std::mem::take(&mut comparison.pinned);
        let window = self.exceptions_from(cursor, end, &pinned);
        let Some(comparison) = self.comparisons.get_mut(id) else {
            return Ok(());
        };
        let (exceptions, next) = match window {
            Ok(window) => window,
            Err(missing) => {
                comparison.pinned = pinned;
                return Err(missing);
            }
        };
        comparison.cursor = next.unwrap_or(end);
        comparison.windows += 1;
        for (key, place) in exceptions {
            if comparison.tells_of_change(Tag(key.c), place) {
                comparison.changed.push(key.b);
            }
        }
        Ok(())
    }

    /// The exceptions there are between two keys, as far as one leaf of the tree knows,
    /// and where the next begins.
    fn exceptions_from(
        &mut self,
        from: Key,
        end: Key,
        pinned: &[Arc<Node>],
    ) -> Result<Window, Missing> {
        let mut nodes = Known {
            cache: &mut self.cache,
            pinned,
        };
        let (leaf, next) = scan(&self.roots.exceptions, from, end, &mut nodes)?;
        let to = next.unwrap_or(end);
        let mut found = std::collections::BTreeMap::new();
        if let Some((leaf, range)) = leaf {
            found.extend(range.map(|i| (leaf.key(i), Some(Place::decode(leaf.value(i))))));
        }
        if let Some(frozen) = &self.checkpoint.frozen {
            found.extend(frozen.places(from, to));
        }
        found.extend(self.state.recent.places(from, to));
        let there = found
            .into_iter()
            .filter_map(|(key, place)| Some((key, place?)));
        Ok((there.collect(), next))
    }

    /// Runs of chunks, changed and unchanged in turn, as far as it was looked.
    fn answer_compare(&mut self, id: usize, out: &mut Effects) {
        let Some(comparison) = self.comparisons.try_remove(id) else {
            return;
        };
        let Range {
            owner,
            volume,
            from,
            first,
            count,
            ..
        } = comparison.range;
        self.reader_left(volume, from);
        // The exceptions of one chunk may lie in two leaves: a chunk begun is not told of.
        let end = match comparison.cursor {
            cursor if cursor >= comparison.end => first + count,
            cursor => cursor.b,
        };
        let mut tell = |first, count, differs, last| {
            if count > 0 {
                out.list.push(Effect::Compared {
                    owner,
                    first,
                    count,
                    differs,
                    last,
                });
            }
        };
        let mut at = first;
        for run in comparison.changed.chunk_by(|one, two| one + 1 == *two) {
            let Some(&begin) = run.first().filter(|begin| **begin < end) else {
                continue;
            };
            let next = (begin + run.len() as u64).min(end);
            tell(at, begin - at, false, false);
            tell(begin, next - begin, true, next == end);
            at = next;
        }
        tell(at, end - at, false, true);
    }

    /// It cannot be answered.
    pub(super) fn fail_compare(&mut self, id: usize, error: RequestError, out: &mut Effects) {
        let Some(comparison) = self.comparisons.try_remove(id) else {
            return;
        };
        let Range {
            owner,
            volume,
            from,
            ..
        } = comparison.range;
        self.reader_left(volume, from);
        out.list.push(Effect::ReadFailed { owner, error });
    }
}
