//! Tables of entries of 8 bytes: what many name is walked once.

use crate::medium::Source;
use crate::qcow2::read::{Image, ReadError, numbers};
use std::ops::Range;

/// Cuts ranges where one of them begins or ends: the parts in order, and of each how many
/// ranges it is in.
pub(super) fn parts(ranges: &[Range<u64>]) -> Vec<(Range<u64>, u64)> {
    let there = ranges.iter().filter(|range| !range.is_empty());
    let mut edges: Vec<(u64, i64)> = there
        .flat_map(|range| [(range.start, 1), (range.end, -1)])
        .collect();
    edges.sort_unstable();
    let mut parts = Vec::new();
    let mut depth = 0;
    for (edge, next) in edges.iter().zip(edges.iter().skip(1)) {
        depth += edge.1;
        if depth > 0 && edge.0 < next.0 {
            parts.push((edge.0..next.0, depth.unsigned_abs()));
        }
    }
    parts
}

/// An entry of a table.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// Its byte.
    pub(super) at: u64,
    pub(super) raw: u64,
    /// How many tables have it.
    pub(super) times: u64,
}

/// `length` bytes at `at`.
pub(super) const fn bytes(at: u64, length: u64) -> Range<u64> {
    at..at.saturating_add(length)
}

/// Bytes that are read of a table at a time.
const PART: u64 = 1 << 20;

/// Gives the entries in these bytes that are in the file and in none of its holes.
pub(super) fn entries<S: Source>(
    image: &Image<S>,
    range: Range<u64>,
    give: &mut dyn FnMut(u64, u64) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut at = range.start;
    while at < range.end {
        let Some(data) = image.data_from(at)? else {
            break;
        };
        // A hole may end within an entry.
        let begin = at.max(data.start & !7);
        let end = data.end.next_multiple_of(8).min(range.end);
        let end = end.min(begin + PART);
        if begin >= end {
            break;
        }
        let part = image.padded(begin, end - begin)?;
        for (place, raw) in (begin..).step_by(8).zip(numbers(&part)) {
            give(place, raw)?;
        }
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_in_one_part_and_counted_as_often_as_it_is_named() {
        let ranges = [0..10, 5..20, 5..20, 30..40, 7..7, 40..50, 15..35];
        let parts = parts(&ranges);
        for byte in 0..60 {
            let named = ranges.iter().filter(|range| range.contains(&byte)).count();
            let mut found = parts.iter().filter(|(part, _)| part.contains(&byte));
            assert_eq!(found.next().map_or(0, |(_, times)| *times), named as u64);
            assert_eq!(found.next(), None, "byte {byte}");
        }
    }
}
