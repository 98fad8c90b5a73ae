//! A file in parts, each compressed by one thread: of a [segment's](SEGMENT) size, or so
//! many pieces of the file as that.

use std::ops::Range;

use super::ahead::{Packed, SegmentError};
use super::algorithm::Algorithm;
use super::dedupe::{self, Pieces, Reader, Step};
use super::pool::Codecs;
use super::segment::{Cut, SEGMENT};

/// A part of a file, which begins at a block of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Where it begins.
    pub(super) begin: u64,
    /// What it consists of.
    steps: Vec<Step>,
}

impl Part {
    /// Bytes of the file.
    pub(super) fn range(&self) -> Range<u64> {
        let length: u64 = self.steps.iter().map(|step| step.length).sum();
        self.begin..self.begin + length
    }

    /// Compresses it.
    pub(super) fn pack(
        &self,
        algorithm: Algorithm,
        pieces: &Pieces,
        cut: &Cut,
        codecs: &mut Codecs,
        read: Reader<'_>,
    ) -> Result<Packed, SegmentError> {
        let codec = codecs.get(algorithm, cut.cluster as u32); // as it was given
        let codec = codec.map_err(SegmentError::Compress)?;
        let segment = dedupe::compress(&self.steps, self.begin, pieces, cut, codec, read)?;
        Ok(Packed {
            segment,
            algorithm: Some(algorithm),
        })
    }
}

/// Parts of a file of `size` bytes.
pub(super) fn of_size(size: u64) -> Vec<Part> {
    let whole = Step {
        length: size,
        piece: None,
    };
    of_steps(&[whole], 1)
}

/// Parts of a file that consists of `steps`, in blocks of `block` bytes. Parts end where a
/// block does, and in no piece: a piece too many in a row is not used as one there.
pub(super) fn of_steps(steps: &[Step], block: usize) -> Vec<Part> {
    let block = block as u64;
    let mut parts = Vec::new();
    let mut part = Part {
        begin: 0,
        steps: Vec::new(),
    };
    let mut at = 0;
    for step in steps {
        let length = at - part.begin;
        if step.piece.is_some() && length + step.length <= 2 * SEGMENT {
            part.steps.push(*step);
            at += step.length;
            continue;
        }
        let end = at + step.length;
        while at < end {
            let border = (part.begin + SEGMENT).max(at + 1).next_multiple_of(block);
            let now = border.min(end);
            part.steps.push(Step {
                length: now - at,
                piece: None,
            });
            at = now;
            if at == border {
                let next = Part {
                    begin: at,
                    steps: Vec::new(),
                };
                parts.push(std::mem::replace(&mut part, next));
            }
        }
    }
    if !part.steps.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(parts: &[(u64, Option<u32>)]) -> Vec<Step> {
        let step = |&(length, piece): &(u64, Option<u32>)| Step { length, piece };
        parts.iter().map(step).collect()
    }

    #[test]
    fn parts_are_cut_at_blocks() {
        assert_eq!(of_size(3 * SEGMENT).len(), 3);
        let sizes = of_size(2 * SEGMENT + 1)
            .iter()
            .map(|part| part.range().end - part.begin)
            .collect::<Vec<_>>();
        assert_eq!(sizes, [SEGMENT, SEGMENT, 1]);
        let parts = of_steps(
            &steps(&[(1000, None), (5000, Some(0)), (9 << 20, None)]),
            4096,
        );
        assert_eq!(parts[0].steps[..2], steps(&[(1000, None), (5000, Some(0))]));
        assert!(parts.iter().all(|part| part.begin % 4096 == 0));
        let total: u64 = parts.iter().map(|part| part.range().end - part.begin).sum();
        assert_eq!(total, 6000 + (9 << 20));
    }

    /// However many pieces stand in a row, a part is not much larger than a segment.
    #[test]
    fn rows_of_pieces_end() {
        let row: Vec<_> = (0..30).map(|piece| (1_000_001, Some(piece))).collect();
        let parts = of_steps(&steps(&row), 4096);
        assert!(parts.len() > 3);
        for part in &parts {
            let range = part.range();
            assert!(range.end - range.start <= 2 * SEGMENT + 4096);
            assert!(range.end == 30_000_030 || range.end % 4096 == 0);
        }
    }
}
