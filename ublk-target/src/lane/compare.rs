//! What changed since a snapshot, told by the engine chunk by chunk.

use snapstore::engine::Compare;
use snapstore::{Event, Tag};

use super::request::{Active, State};
use super::{Extent, Lane, Request, Target, Verb};

/// The answer as far as it has come: extents from the request's offset on.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    extents: Vec<Extent>,
    /// Bytes they are together.
    told: u64,
}

/// A part of it, as the engine describes it.
pub(super) struct Part {
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) differs: bool,
}

impl Lane {
    pub(super) fn ask_changed(&mut self, key: usize, since: Tag) {
        let owner = self.owner(key);
        let Some(request) = self.requests.get(key).map(|active| active.request) else {
            return;
        };
        let Some(volume) = self.volume(request.volume) else {
            return;
        };
        let to = match request.target {
            Target::Origin => None,
            Target::Snapshot { tag, .. } => Some(tag),
        };
        let (first, count) = volume.chunks(request.offset, request.end());
        let (store, volume) = (volume.store, volume.id);
        let ask = Event::Compare(Compare {
            owner,
            volume,
            from: since,
            to,
            first,
            count,
        });
        self.tell(store, ask);
    }

    /// The next part of the answer arrived.
    pub(super) fn compared(&mut self, key: usize, part: &Part, last: bool) {
        let Some(request) = self.requests.get(key).map(|active| active.request) else {
            return;
        };
        let chunk = self
            .volume(request.volume)
            .map(|volume| volume.chunk_size());
        let (
            Some(chunk),
            Some(Active {
                state: State::Compare(comparison),
                ..
            }),
        ) = (chunk, self.requests.get_mut(key))
        else {
            return;
        };
        let end = (part.first + part.count).saturating_mul(chunk);
        comparison.add(&request, end, part.differs);
        if last {
            let extents = std::mem::take(&mut comparison.extents);
            self.finish_with(key, Ok(()), extents);
        }
    }
}

impl Comparison {
    /// Everything up to byte `end` has changed or not; what lies beyond the older
    /// snapshot has, in any case.
    fn add(&mut self, request: &Request, end: u64, changed: bool) {
        let Verb::Changed { size, .. } = request.verb else {
            return;
        };
        let at = request.offset + self.told;
        let end = end.min(request.end());
        let border = size.clamp(at.min(end), end);
        self.push(border.saturating_sub(at), changed);
        self.push(end.saturating_sub(border.max(at)), true);
    }

    fn push(&mut self, len: u64, changed: bool) {
        self.told += len;
        match self.extents.last_mut() {
            _ if len == 0 => {}
            Some(last) if last.data == changed => last.len += len,
            _ => self.extents.push(Extent { len, data: changed }),
        }
    }
}
