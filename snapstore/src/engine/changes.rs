//! Which chunks changed between two snapshots, or since one.
//!
//! What a snapshot saw of a chunk was copied out by the first overwrite after it, under
//! the tag that was the newest then. So a chunk changed between `from` and `to` if
//! and only if the exception that covers `from` has a tag below `to`: the eras from
//! `from` to `to` are looked through, and nothing else. While that goes on the query
//! counts as a reader of `from`, so no purge takes away what is looked for.

use super::sweep::{Order, Sweep};
use super::{Changes, ChangesAt, CommandError, Effect, Effects, Engine, Reply, RequestError, Task};
use crate::ids::{CommandId, Tag, VolumeId};
use crate::tree::{Key, Missing};

/// Leaves looked through for one answer.
const WINDOWS: u32 = 64;
/// Most chunks of one answer.
const CHUNKS: usize = 16_384;

/// A query under way.
#[derive(Debug)]
pub(super) struct Query {
    id: CommandId,
    volume: VolumeId,
    from: Tag,
    pub(super) sweep: Sweep,
    chunks: Vec<u64>,
}

/// The eras that are asked for.
fn eras(volume: VolumeId, wanted: &Wanted) -> Sweep {
    let key = |tag: Tag, chunk| Key::new(volume.0.into(), tag.0, chunk);
    let begin = match wanted.after {
        Some(at) => key(at.tag, at.chunk),
        None => key(wanted.from, 0),
    };
    let end = key(wanted.to.unwrap_or(Tag(u64::MAX)), 0);
    Sweep::new(Order::Eras, begin, end)
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) from: Tag,
    pub(super) to: Option<Tag>,
    pub(super) after: Option<ChangesAt>,
}

impl Engine {
    pub(super) fn on_changes(
        &mut self,
        id: CommandId,
        volume: VolumeId,
        wanted: Wanted,
        out: &mut Effects,
    ) {
        if let Err(error) = self.admit_changes(volume, wanted) {
            let result = Err(error);
            return out.list.push(Effect::Reply { id, result });
        }
        self.reader_came(volume, wanted.from);
        let query = Query {
            id,
            volume,
            from: wanted.from,
            sweep: eras(volume, &wanted),
            chunks: Vec::new(),
        };
        let query = self.queries.insert(query);
        self.ready.push_back(Task::Query(query));
    }

    fn admit_changes(&self, volume: VolumeId, wanted: Wanted) -> Result<(), CommandError> {
        let Wanted { from, to, after } = wanted;
        self.accepts()?;
        for tag in [Some(from), to].into_iter().flatten() {
            self.volume(volume)?;
            let readable = self.readable(volume, tag);
            readable.map_err(|error| match error {
                RequestError::NoSnapshot(..) => CommandError::NoSnapshot(volume, tag),
                error => CommandError::Invalid(error.to_string()),
            })?;
        }
        let within = |at: ChangesAt| from <= at.tag && to.is_none_or(|to| at.tag < to);
        if to.is_some_and(|to| to <= from) {
            let text = "the second snapshot must be newer than the first";
            return Err(CommandError::Invalid(text.to_owned()));
        }
        if !after.is_none_or(within) {
            let text = "this is no place to go on between these snapshots";
            return Err(CommandError::Invalid(text.to_owned()));
        }
        Ok(())
    }

    pub(super) fn run_query(&mut self, id: usize, out: &mut Effects) {
        loop {
            let Some(query) = self.queries.get_mut(id) else {
                return;
            };
            let full = query.sweep.windows == WINDOWS || query.chunks.len() == CHUNKS;
            if full || query.sweep.is_over() {
                return self.answer_query(id, out);
            }
            if let Err(missing) = self.look_through(id) {
                return self.fetch(Order::Eras.tree(), missing, Task::Query(id), out);
            }
        }
    }

    /// The next leaf of eras.
    fn look_through(&mut self, id: usize) -> Result<(), Missing> {
        let eras = self.next_window(|engine| Some(&mut engine.queries.get_mut(id)?.sweep))?;
        let Some(query) = self.queries.get_mut(id) else {
            return Ok(());
        };
        for (key, place) in eras {
            if query.chunks.len() == CHUNKS {
                query.sweep.cursor = key;
                break;
            }
            if place.pred < query.from {
                query.chunks.push(key.c);
            }
        }
        Ok(())
    }

    fn answer_query(&mut self, id: usize, out: &mut Effects) {
        let Some(query) = self.queries.try_remove(id) else {
            return;
        };
        self.reader_left(query.volume, query.from);
        let sweep = &query.sweep;
        let at = ChangesAt {
            tag: Tag(sweep.cursor.b),
            chunk: sweep.cursor.c,
        };
        out.list.push(Effect::Reply {
            id: query.id,
            result: Ok(Reply::Changes(Changes {
                chunks: query.chunks,
                next: (!sweep.is_over()).then_some(at),
            })),
        });
    }

    /// What leads to the eras cannot be read.
    pub(super) fn fail_query(&mut self, id: usize, block: u64, reason: &str, out: &mut Effects) {
        let Some(query) = self.queries.try_remove(id) else {
            return;
        };
        self.reader_left(query.volume, query.from);
        let reason = reason.to_owned();
        out.list.push(Effect::Reply {
            id: query.id,
            result: Err(CommandError::Damaged { block, reason }),
        });
    }
}
