//! A file's contents: which blocks hold them, and how the bytes get there.

use super::super::format::extent::Extent;
use super::super::geometry::Geometry;
use super::dedupe::{Index, Segment};
use super::forks::append;
use super::outlet::Outlet;
use super::space::{For, Piece, Space, SpaceError};
use crate::medium::{self, Failure, Stretch};
use crate::tree::Content;
use std::ops::Range;

/// Blocks of the file that hold data, ranges that touch joined.
pub(crate) fn block_ranges(geometry: &Geometry, data: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut blocks: Vec<Range<u64>> = Vec::with_capacity(data.len());
    for range in data {
        let begin = range.start >> geometry.block_log;
        let end = geometry.blocks_of(range.end);
        match blocks.last_mut() {
            Some(last) if last.end >= begin => last.end = last.end.max(end),
            _ => blocks.push(begin..end),
        }
    }
    blocks
}

/// Where a file's data lies.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    /// All of it.
    pub(crate) extents: Vec<Extent>,
    /// What is to be written: the rest is shared with other files.
    pub(crate) new: Vec<Extent>,
}

/// Gives a file blocks for its data; what `index` has already is shared.
pub(crate) fn allocate(
    geometry: &Geometry,
    space: &mut Space<'_>,
    index: Option<&mut Index>,
    ino: u64,
    content: &Content,
) -> Result<Placed, SpaceError> {
    let ranges = block_ranges(geometry, &content.data);
    let mut placed = Placed::default();
    let segments = match &index {
        Some(index) => index.segments(&ranges, &content.digests),
        None => ranges.iter().map(whole).collect(),
    };
    for segment in segments {
        let whom = For {
            owner: ino,
            offset: segment.offset,
            moves: true,
        };
        if let Some(block) = segment.found {
            let piece = Piece {
                block,
                count: segment.count,
            };
            if space.share(piece, whom) {
                append(&mut placed.extents, segment.offset, &[piece]);
                continue;
            }
        }
        let pieces = space.blocks(segment.count, 1, whom)?;
        append(&mut placed.extents, segment.offset, &pieces);
        append(&mut placed.new, segment.offset, &pieces);
    }
    if let Some(index) = index {
        index.add(new_blocks(&ranges, &content.digests, &placed.new));
    }
    Ok(placed)
}

fn whole(range: &Range<u64>) -> Segment {
    Segment {
        offset: range.start,
        count: range.end - range.start,
        found: None,
    }
}

/// Digest and fsblock of every block in `new`.
fn new_blocks<'a>(
    ranges: &'a [Range<u64>],
    digests: &'a [[u8; 16]],
    new: &'a [Extent],
) -> impl Iterator<Item = ([u8; 16], u64)> + 'a {
    let mut extents = new.iter().peekable();
    let offsets = ranges.iter().flat_map(Range::clone).zip(digests);
    offsets.filter_map(move |(offset, digest)| {
        while extents
            .peek()
            .is_some_and(|extent| extent.offset + extent.count <= offset)
        {
            extents.next();
        }
        let extent = extents.peek().filter(|extent| extent.offset <= offset)?;
        Some((*digest, extent.block + (offset - extent.offset)))
    })
}

/// Sends the contents to their blocks. `extents` are those to be written, sorted.
pub(crate) fn send(
    geometry: &Geometry,
    content: Content,
    extents: &[Extent],
    outlet: &mut Outlet<'_, '_>,
) -> Result<(), Failure> {
    let stretch = |extent: &Extent| Stretch {
        file: extent.offset << geometry.block_log
            ..(extent.offset + extent.count) << geometry.block_log,
        at: geometry.byte_of(extent.block),
    };
    let stretches: Vec<Stretch> = extents.iter().map(stretch).collect();
    medium::send(content, &stretches, outlet)
}
