//! Which blocks of chunks that changed are really others.

use std::ops::Range;

use imagegen::medium::Source;
use imagegen::tree::Progress;
use ublk_target::control::protocol::{ErrorCode, Failure};
use ublk_target::control::views::RangeView;

use crate::Done;
use crate::progress::watched;

/// Bytes of a block that is compared.
const BLOCK: usize = 4096;
/// Bytes that are read at a time.
const PIECE: u64 = 1 << 20;

/// Those blocks of `ranges` in which two versions are not the same, in order. What is
/// beyond the end of the older one is new.
pub(super) fn differing(
    older: &(impl Source + Sync),
    newer: &(impl Source + Sync),
    ranges: &[RangeView],
) -> Done<Vec<RangeView>> {
    let work = ranges.iter().map(|range| range.length).sum();
    let compare = |progress: &Progress| compare(older, newer, ranges, progress);
    watched("Comparing", 0, work, compare)
        .map_err(|error| Failure::new(ErrorCode::Error, format!("cannot compare them: {error}")))
}

fn compare(
    older: &impl Source,
    newer: &impl Source,
    ranges: &[RangeView],
    progress: &Progress,
) -> std::io::Result<Vec<RangeView>> {
    let common = older.size()?.min(newer.size()?);
    let mut found: Vec<RangeView> = Vec::new();
    for range in ranges {
        let end = range.start.saturating_add(range.length);
        let mut at = range.start;
        while at < end {
            let next = (at + PIECE - at % PIECE).min(end);
            for block in pieces(older, newer, at..next, common)? {
                add(&mut found, block);
            }
            let passed = next - at;
            progress
                .data
                .fetch_add(passed, std::sync::atomic::Ordering::Relaxed);
            at = next;
        }
    }
    Ok(found)
}

/// The blocks of a piece that differ; both have the bytes up to `common`.
fn pieces(
    older: &impl Source,
    newer: &impl Source,
    piece: Range<u64>,
    common: u64,
) -> std::io::Result<Vec<Range<u64>>> {
    let both = piece.start..piece.end.min(common);
    let mut found = Vec::new();
    if !both.is_empty() {
        let length = (both.end - both.start) as usize;
        let (mut one, mut two) = (vec![0; length], vec![0; length]);
        older.read_at(both.start, &mut one)?;
        newer.read_at(both.start, &mut two)?;
        let place = |at: usize| both.start + at as u64;
        let blocks = unlike(&one, &two).into_iter();
        found.extend(blocks.map(|blocks| place(blocks.start)..place(blocks.end)));
    }
    let beyond = piece.start.max(common)..piece.end;
    found.extend((!beyond.is_empty()).then_some(beyond));
    Ok(found)
}

/// Where two slices of one length have other blocks, neighbours as one.
pub(in crate::run) fn unlike(one: &[u8], two: &[u8]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let blocks = one.chunks(BLOCK).zip(two.chunks(BLOCK)).enumerate();
    for (number, (one, _)) in blocks.filter(|(_, (one, two))| one != two) {
        let begin = number * BLOCK;
        match found.last_mut() {
            Some(last) if last.end == begin => last.end += one.len(),
            _ => found.push(begin..begin + one.len()),
        }
    }
    found
}

/// At the end, joined with what it follows.
fn add(found: &mut Vec<RangeView>, block: Range<u64>) {
    let length = block.end - block.start;
    match found.last_mut() {
        Some(last) if last.start + last.length == block.start => last.length += length,
        _ => found.push(RangeView {
            start: block.start,
            length,
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_differ_are_one() {
        let old = vec![0; 5 * BLOCK + 512];
        let mut new = old.clone();
        assert!(unlike(&new, &old).is_empty());
        for at in [BLOCK, 3 * BLOCK - 1, 5 * BLOCK + 511] {
            new[at] = 1;
        }
        let expected = [BLOCK..3 * BLOCK, 5 * BLOCK..5 * BLOCK + 512];
        assert_eq!(unlike(&new, &old).as_slice(), expected);
    }

    #[test]
    fn only_blocks_that_differ_are_told() {
        let older = vec![1_u8; 3 << 20];
        let mut newer = older.clone();
        newer.extend([0; 512]);
        for at in [5000, 8192, (1 << 20) - 1, 1 << 20, (3 << 20) - 1] {
            newer[at] = 2;
        }
        let range = |start, length| RangeView { start, length };
        let all = [range(0, newer.len() as u64)];
        let found = differing(&older, &newer, &all).unwrap();
        let expected = [
            range(4096, 8192),
            range((1 << 20) - 4096, 8192),
            range((3 << 20) - 4096, 4096 + 512),
        ];
        assert_eq!(found, expected);
        let part = [range(0, 8192), range(2 << 20, 16384)];
        assert_eq!(
            differing(&older, &newer, &part).unwrap(),
            [range(4096, 4096)]
        );
    }
}
