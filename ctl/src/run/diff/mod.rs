//! `csnapctl snapshot diff`

mod blocks;

use ublk_target::control::protocol::{
    Answer, ErrorCode, Failure, Request, SnapshotName, TakeTarget,
};
use ublk_target::control::views::RangeView;

use super::reading::{Moment, Reader};
use super::{snapshot, unexpected};
use crate::Done;
use crate::cli::DiffArgs;
use crate::session::Session;

pub(super) use blocks::unlike;

/// Lists what changed between two points in time of a volume.
pub(super) fn diff(
    session: &mut Session,
    from: SnapshotName,
    to: TakeTarget,
    how: DiffArgs,
) -> Done {
    if from.volume != to.volume {
        let message = format!("{} and {} are two volumes", from.volume, to.volume);
        return Err(Failure::new(ErrorCode::Usage, message)
            .next("name two snapshots of one volume, or one and its volume"));
    }
    session.check_fields::<RangeView>()?;
    if how.json_lines && !session.style.fields.is_empty() {
        let error = super::usage("--json-lines: a line has all fields");
        return Err(error.next("leave out -o, or take --json"));
    }
    let from = snapshot::exactly(session, from)?;
    let to = match to.name {
        Some(name) => {
            let (volume, tag) = (to.volume, None);
            let named = SnapshotName { volume, name, tag };
            Some(snapshot::exactly(session, named)?)
        }
        None => None,
    };
    let ranges = match (how.blocks, &to) {
        (false, _) => ranges(session, &from, to.as_ref())?,
        (true, Some(to)) => blocks(session, &from, to)?,
        (true, None) => Moment::with(session, &from.volume, |session, now| {
            blocks(session, &from, now)
        })?,
    };
    if !how.json_lines {
        return session.print(&ranges);
    }
    let mut text = String::new();
    for range in &ranges {
        let line = serde_json::to_string(range);
        text += &line.map_err(|error| Failure::new(ErrorCode::Error, error.to_string()))?;
        text.push('\n');
    }
    session.write(&text)
}

/// What changed from one snapshot to another, or until now, in order. Both are named
/// exactly: all parts are to be of the same two.
pub(super) fn ranges(
    session: &mut Session,
    from: &SnapshotName,
    to: Option<&SnapshotName>,
) -> Done<Vec<RangeView>> {
    if let Some(to) = to.filter(|to| to.tag <= from.tag) {
        let error = super::usage(format!("{to} is not newer than {from}"));
        return Err(error.next("name the older one first"));
    }
    let request = |after| Request::SnapshotDiff {
        from: from.clone(),
        to: to.map(|to| to.name.clone()),
        to_tag: to.and_then(|to| to.tag),
        after,
    };
    let parts = session.pages(request, |answer| match answer {
        Answer::Changes { items, next } => Ok((items, next)),
        other => Err(unexpected(&other)),
    });
    parts.map(joined)
}

/// The same, down to blocks: of what changed, what is not the same.
fn blocks(session: &mut Session, from: &SnapshotName, to: &SnapshotName) -> Done<Vec<RangeView>> {
    let ranges = ranges(session, from, Some(to))?;
    let reader = Reader::new(session, 2, None)?;
    let older = reader.open(session, from)?;
    let newer = reader.open(session, to)?;
    blocks::differing(&older, &newer, &ranges)
}

/// In order, those that touch as one.
fn joined(mut ranges: Vec<RangeView>) -> Vec<RangeView> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, range| {
        let end = range.start.saturating_add(range.length);
        if next.start > end {
            return false;
        }
        let last = next.start.saturating_add(next.length).max(end);
        range.length = last - range.start;
        true
    });
    ranges
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_or_overlap_become_one() {
        let ranges = |all: &[(u64, u64)]| -> Vec<RangeView> {
            let range = |(start, length): &(u64, u64)| RangeView {
                start: *start,
                length: *length,
            };
            all.iter().map(range).collect()
        };
        let found = joined(ranges(&[
            (90, 10),
            (95, 35),
            (0, 10),
            (10, 5),
            (40, 1),
            (20, 5),
        ]));
        assert_eq!(found, ranges(&[(0, 15), (20, 5), (40, 1), (90, 40)]));
    }
}
