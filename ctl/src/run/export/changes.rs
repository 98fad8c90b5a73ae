//! What changed between two snapshots, as parts of an image.

use std::ops::Range;

use ublk_target::control::protocol::SnapshotName;
use ublk_target::control::views::RangeView;

use crate::Done;
use crate::run::diff;
use crate::session::Session;

/// What changed between two that are named exactly, in order, in bytes.
pub(super) fn changes(
    session: &mut Session,
    older: &SnapshotName,
    newer: &SnapshotName,
) -> Done<Vec<Range<u64>>> {
    let ranges = diff::ranges(session, older, Some(newer))?;
    let bytes = |range: &RangeView| range.start..range.start.saturating_add(range.length);
    Ok(ranges.iter().map(bytes).collect())
}

/// The clusters of a disk of `size` bytes that ranges in order are in: what is not in a
/// layer itself is read from the one below by whole clusters.
pub(super) fn whole_clusters(ranges: &[Range<u64>], cluster: u64, size: u64) -> Vec<Range<u64>> {
    let mut whole: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges.iter().filter(|range| range.start < size) {
        let begin = range.start - range.start % cluster;
        let end = range.end.next_multiple_of(cluster).min(size);
        match whole.last_mut() {
            Some(last) if last.end >= begin => last.end = end.max(last.end),
            _ => whole.push(begin..end),
        }
    }
    whole
}

/// Their bytes.
pub(super) fn bytes_of(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list of ranges is meant")]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_the_clusters_they_are_in() {
        let whole = |ranges: &[Range<u64>]| whole_clusters(ranges, 10, 45);
        assert!(whole(&[]).is_empty());
        assert_eq!(whole(&[3..4, 12..15, 31..32]).as_slice(), [0..20, 30..40]);
        assert_eq!(whole(&[9..11, 19..20, 44..45]).as_slice(), [0..20, 40..45]);
        assert_eq!(whole(&[39..47, 45..47, 80..90]).as_slice(), [30..45]);
        assert_eq!(bytes_of(&whole(&[9..11, 44..45])), 25);
    }
}
