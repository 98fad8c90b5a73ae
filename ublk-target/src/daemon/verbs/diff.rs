//! `snapshot.diff`: what differs between two points in time of a volume.

use snapstore::Tag;
use snapstore::engine::{Changes, ChangesAt, Command, CommandError, Reply};

use super::matching;
use crate::control::protocol::{Answer, DiffCursor, Failure, SnapshotName};
use crate::control::views::RangeView;
use crate::daemon::Daemon;

impl Daemon {
    pub(in crate::daemon) fn snapshot_diff(
        &self,
        from: &SnapshotName,
        to: Option<(String, Option<u64>)>,
        after: Option<DiffCursor>,
    ) -> Result<Answer, Failure> {
        let (store, volume, older) = self.snapshot(from)?;
        let newer = match to {
            None => None,
            Some((name, tag)) => {
                let found = store.snapshot_named(volume.id, &name);
                let volume = from.volume.clone();
                Some(matching(&SnapshotName { volume, name, tag }, found)?)
            }
        };
        let size = newer.as_ref().map_or(volume.size, |newer| newer.size);
        let reply = store.handle.command(Command::Changes {
            volume: volume.id,
            from: older.tag,
            to: newer.map(|newer| newer.tag),
            after: after.map(|at| ChangesAt {
                tag: Tag(at.tag),
                chunk: at.chunk,
            }),
        })?;
        let Reply::Changes(changes) = reply else {
            let text = "the engine gave the answer to another question";
            return Err(CommandError::Invalid(text.to_owned()).into());
        };
        let chunk = store.handle.query(|engine| engine.chunk_size().into());
        Ok(answer(&changes, chunk, older.size, size))
    }
}

/// Ranges within the newer one's `size`. What lies beyond the older one's has changed, and
/// is named with the last part.
fn answer(changes: &Changes, chunk: u64, older: u64, size: u64) -> Answer {
    let mut items = Vec::new();
    let mut add = |start: u64, end: u64| {
        let end = end.min(size);
        if start < end {
            let length = end - start;
            items.push(RangeView { start, length });
        }
    };
    for run in changes.chunks.chunk_by(|one, two| one + 1 == *two) {
        let Some(first) = run.first() else { continue };
        let start = first.saturating_mul(chunk);
        add(start, start.saturating_add(run.len() as u64 * chunk));
    }
    let next = changes.next.map(|at| DiffCursor {
        tag: at.tag.0,
        chunk: at.chunk,
    });
    if next.is_none() {
        add(older, size);
    }
    Answer::Changes { items, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_become_ranges_of_the_newer_size() {
        let changes = |chunks: &[u64]| Changes {
            chunks: chunks.to_vec(),
            next: None,
        };
        let ranges = |chunks: &[u64], older, size| match answer(&changes(chunks), 10, older, size) {
            Answer::Changes { items, .. } => items
                .iter()
                .map(|range| (range.start, range.length))
                .collect::<Vec<_>>(),
            _ => Vec::new(),
        };
        assert_eq!(
            ranges(&[3, 4, 9, 1], 100, 100),
            [(30, 20), (90, 10), (10, 10)]
        );
        assert_eq!(ranges(&[9], 95, 95), [(90, 5)]);
        assert_eq!(ranges(&[9], 95, 130), [(90, 10), (95, 35)]);
        assert_eq!(ranges(&[], 100, 100), []);
        assert_eq!(ranges(&[u64::MAX], 100, 100), []);
    }
}
