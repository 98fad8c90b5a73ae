//! Blocks with the same contents are kept once: whose block each content is.
//!
//! A block is shared with files that came before, never with the file itself, so that a
//! file which repeats one block is not cut into as many extents. Blocks of zeroes are not
//! shared for the same reason. Contents are the same if their digests are: 128 bits of
//! SHA-256.

use super::super::format::extent::MAX_LENGTH;
use super::super::geometry::Geometry;
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};
use std::ops::Range;

/// Bytes of a block that digests are made of.
pub(crate) const BLOCK: usize = 4096;

/// Digest of a block's contents.
type Sum = [u8; 16];

/// Which contents lie where.
pub(crate) struct Index {
    places: FxHashMap<Sum, u64>,
    zeroes: Sum,
}

/// A run of a file's blocks that are all new, or all there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Offset in the file in blocks.
    pub(crate) offset: u64,
    /// Blocks.
    pub(crate) count: u64,
    /// Where they lie, if they are there: fsblocks in a row.
    pub(crate) found: Option<u64>,
}

impl Index {
    /// Of nothing.
    pub(crate) fn new() -> Self {
        let mut zeroes = [0; 16];
        zeroes.copy_from_slice(&Sha256::digest([0; BLOCK])[..16]);
        Self {
            places: FxHashMap::default(),
            zeroes,
        }
    }

    /// Cuts a file's blocks, given as ranges, into what is there and what is new.
    pub(crate) fn segments(&self, ranges: &[Range<u64>], sums: &[Sum]) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::new();
        let offsets = ranges.iter().flat_map(Range::clone);
        let mut sums = sums.iter();
        for offset in offsets {
            let found = sums.next().and_then(|sum| self.places.get(sum)).copied();
            match segments.last_mut() {
                Some(last) if last.goes_on(offset, found) => last.count += 1,
                _ => segments.push(Segment {
                    offset,
                    count: 1,
                    found,
                }),
            }
        }
        segments
    }

    /// Remembers where new blocks were put: pairs of digest and fsblock.
    pub(crate) fn add(&mut self, placed: impl Iterator<Item = (Sum, u64)>) {
        for (sum, block) in placed {
            if sum != self.zeroes {
                self.places.entry(sum).or_insert(block);
            }
        }
    }
}

impl Segment {
    fn goes_on(&self, offset: u64, found: Option<u64>) -> bool {
        let next = match (self.found, found) {
            (None, None) => true,
            (Some(begin), Some(here)) => begin + self.count == here,
            _ => false,
        };
        // No longer than an extent: whoever shares it makes one of it.
        next && self.offset + self.count == offset && self.count < MAX_LENGTH
    }
}

/// Whether blocks of this file system are those that digests are made of.
pub(crate) fn is_possible(geometry: &Geometry) -> bool {
    geometry.block_size() == BLOCK && geometry.features.reflink
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(number: u8) -> Sum {
        [number; 16]
    }

    #[test]
    fn what_is_there_is_found_in_runs() {
        let mut index = Index::new();
        index.add([(sum(1), 100), (sum(2), 101), (sum(3), 200)].into_iter());
        let sums: Vec<Sum> = [9, 1, 2, 3, 1, 1, 9].map(sum).to_vec();
        let segments = index.segments(&[0..4, 10..13], &sums);
        let segment = |offset, count, found| Segment {
            offset,
            count,
            found,
        };
        assert_eq!(
            segments,
            [
                segment(0, 1, None),
                segment(1, 2, Some(100)),
                segment(3, 1, Some(200)),
                segment(10, 1, Some(100)),
                segment(11, 1, Some(100)),
                segment(12, 1, None),
            ]
        );
    }

    #[test]
    fn a_run_is_no_longer_than_an_extent() {
        let number = |block: u64| {
            let mut sum = [1; 16];
            sum[..8].copy_from_slice(&block.to_le_bytes());
            sum
        };
        let blocks = MAX_LENGTH + 10;
        let sums: Vec<Sum> = (0..blocks).map(number).collect();
        let mut index = Index::new();
        index.add(sums.iter().copied().zip(500..));
        let segments = index.segments(std::slice::from_ref(&(0..blocks)), &sums);
        let lengths: Vec<u64> = segments.iter().map(|segment| segment.count).collect();
        assert_eq!(lengths, [MAX_LENGTH, 10]);
        assert_eq!(segments[1].found, Some(500 + MAX_LENGTH));
    }

    #[test]
    fn blocks_of_zeroes_are_not_shared() {
        let mut index = Index::new();
        let zeroes = index.zeroes;
        index.add([(zeroes, 100)].into_iter());
        let segments = index.segments(std::slice::from_ref(&(0..1)), &[zeroes]);
        assert_eq!(segments[0].found, None);
    }
}
