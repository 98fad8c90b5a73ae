//! `csnapctl snapshot diff`

mod blocks;

use ublk_target::control::protocol::TakeTarget;
use ublk_target::control::protocol::{Answer, ErrorCode, Failure, Request, SnapshotName};
use ublk_target::control::views::RangeView;

use super::reading::{Moment, connect};
use super::{snapshot, unexpected};
use crate::Done;
use crate::cli::DiffArgs;
use crate::session::Session;

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
    let ranges = match (how.blocks, &to.name) {
        (false, _) => ranges(session, &from, &to)?,
        (true, Some(_)) => blocks(session, &from, &to)?,
        (true, None) => Moment::with(session, &to.volume, |session, now| {
            let now = TakeTarget {
                volume: now.volume.clone(),
                name: Some(now.name.clone()),
            };
            blocks(session, &from, &now)
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

/// What changed between two points in time of a volume, in order.
pub(super) fn ranges(
    session: &mut Session,
    from: &SnapshotName,
    to: &TakeTarget,
) -> Done<Vec<RangeView>> {
    // All parts are to be of the same two, whatever becomes of their names meanwhile.
    let from = exactly(session, from)?;
    let to = match &to.name {
        None => None,
        Some(name) => {
            let (volume, name) = (to.volume.clone(), name.clone());
            let to = SnapshotName {
                volume,
                name,
                tag: None,
            };
            Some(exactly(session, &to)?)
        }
    };
    Ok(joined(all(session, &from, to.as_ref())?))
}

/// The same, down to blocks: of what changed, what is not the same.
fn blocks(session: &mut Session, from: &SnapshotName, to: &TakeTarget) -> Done<Vec<RangeView>> {
    let ranges = ranges(session, from, to)?;
    let newer = to.name.iter().map(|name| (&to.volume, name));
    let both = [(&from.volume, &from.name)].into_iter().chain(newer);
    let names: Vec<String> = both
        .map(|(volume, name)| format!("{volume}@{name}"))
        .collect();
    match connect(session, &names, None)?.as_slice() {
        [older, newer] => blocks::differing(older, newer, &ranges),
        _ => Ok(ranges),
    }
}

/// A snapshot by its number as well.
fn exactly(session: &mut Session, wanted: &SnapshotName) -> Done<SnapshotName> {
    let snapshot = wanted.clone();
    let found = snapshot::one(session, Request::SnapshotShow { snapshot })?;
    Ok(SnapshotName {
        tag: Some(found.tag),
        ..wanted.clone()
    })
}

/// Every part.
fn all(
    session: &mut Session,
    from: &SnapshotName,
    to: Option<&SnapshotName>,
) -> Done<Vec<RangeView>> {
    let (mut ranges, mut after) = (Vec::new(), None);
    loop {
        let request = Request::SnapshotDiff {
            from: from.clone(),
            to: to.map(|to| to.name.clone()),
            to_tag: to.and_then(|to| to.tag),
            after,
        };
        match session.call(request)? {
            Answer::Changes { items, next } => {
                ranges.extend(items);
                match next {
                    Some(next) => after = Some(next),
                    None => return Ok(ranges),
                }
            }
            other => return Err(unexpected(&other)),
        }
    }
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
