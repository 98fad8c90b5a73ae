//! Which chunks of a range changed between two snapshots, or since one.
//!
//! The same question as in `changes`, put the other way round: asked for a range, it is
//! answered in the order of the chunks, from the exceptions of that range alone. A chunk
//! changed if and only if the exception that covers `from` has a tag below `to`. While
//! it is looked for the asker counts as a reader of `from`, so no purge takes it away.

use super::sweep::{Order, Sweep};
use super::{Compare, Effect, Effects, Engine, RequestError, Task};
use crate::format::exception::Place;
use crate::ids::Tag;
use crate::tree::{Key, Missing};

/// Leaves looked through for one answer.
const WINDOWS: u32 = 64;
/// Chunks named in one answer.
const CHUNKS: usize = 4096;

/// A comparison under way.
#[derive(Debug)]
pub(super) struct Comparison {
    asked: Compare,
    pub(super) sweep: Sweep,
    /// Chunks that changed, in order.
    changed: Vec<u64>,
}

impl Comparison {
    /// Enough for one answer, or everything.
    fn is_done(&self) -> bool {
        let enough = self.sweep.windows >= WINDOWS || self.changed.len() >= CHUNKS;
        // An answer tells of one chunk at least.
        self.sweep.is_over() || (enough && self.sweep.cursor.b > self.asked.first)
    }

    /// Whether an exception of this tag is the one that says so.
    fn tells_of_change(&self, tag: Tag, place: Place) -> bool {
        let Compare { from, to, .. } = self.asked;
        place.pred < from && from <= tag && to.is_none_or(|to| tag < to)
    }
}

impl Engine {
    pub(super) fn on_compare(&mut self, asked: Compare, out: &mut Effects) {
        if let Err(error) = self.admit_compare(&asked) {
            let owner = asked.owner;
            return out.list.push(Effect::ReadFailed { owner, error });
        }
        self.reader_came(asked.volume, asked.from);
        let key = |chunk| Key::new(asked.volume.0.into(), chunk, 0);
        let (first, end) = (key(asked.first), key(asked.first + asked.count));
        let comparison = Comparison {
            asked,
            sweep: Sweep::new(Order::Chunks, first, end),
            changed: Vec::new(),
        };
        let id = self.comparisons.insert(comparison);
        self.ready.push_back(Task::Compare(id));
    }

    fn admit_compare(&self, asked: &Compare) -> Result<(), RequestError> {
        let &Compare {
            volume,
            from,
            to,
            first,
            count,
            ..
        } = asked;
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
                return self.fetch(Order::Chunks.tree(), missing, Task::Compare(id), out);
            }
        }
    }

    /// The next leaf of exceptions.
    fn compare_leaf(&mut self, id: usize) -> Result<(), Missing> {
        let exceptions =
            self.next_window(|engine| Some(&mut engine.comparisons.get_mut(id)?.sweep))?;
        let Some(comparison) = self.comparisons.get_mut(id) else {
            return Ok(());
        };
        for (key, place) in exceptions {
            if comparison.tells_of_change(Tag(key.c), place) {
                comparison.changed.push(key.b);
            }
        }
        Ok(())
    }

    /// Takes it off the list; its reader is gone.
    fn end_compare(&mut self, id: usize) -> Option<Comparison> {
        let comparison = self.comparisons.try_remove(id)?;
        self.reader_left(comparison.asked.volume, comparison.asked.from);
        Some(comparison)
    }

    /// Runs of chunks, changed and unchanged in turn, as far as it was looked.
    fn answer_compare(&mut self, id: usize, out: &mut Effects) {
        let Some(comparison) = self.end_compare(id) else {
            return;
        };
        let Compare {
            owner,
            first,
            count,
            ..
        } = comparison.asked;
        // The exceptions of one chunk may lie in two leaves: a chunk begun is not told of.
        let end = match &comparison.sweep {
            sweep if sweep.is_over() => first + count,
            sweep => sweep.cursor.b,
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
        if let Some(comparison) = self.end_compare(id) {
            let owner = comparison.asked.owner;
            out.list.push(Effect::ReadFailed { owner, error });
        }
    }
}
