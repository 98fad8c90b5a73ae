//! A file's contents: which blocks hold them, and how the bytes get there.

use super::super::format::extent::Extent;
use super::super::geometry::Geometry;
use super::dedupe::{Index, Segment};
use super::forks::append;
use super::outlet::Outlet;
use super::space::{For, Piece, Space, SpaceError};
use crate::medium::{Copy, Part};
use crate::tree::{Bytes, Content, Time};
use std::ops::Range;
use std::sync::Arc;

/// Bytes that one copy moves: files are cut, so that several threads share a large one.
const COPIED_AT_ONCE: u64 = 8 << 20;

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
) {
    match content.bytes {
        Bytes::Unread => {}
        Bytes::Read(bytes) => send_read(geometry, &content.data, &bytes, extents, outlet),
        Bytes::At {
            file,
            path,
            offsets,
            written,
        } => {
            let found = Plan::new(geometry, &content.data, &offsets, extents);
            for copy in found.copies(file, path, written) {
                outlet.copy(copy);
            }
        }
    }
}

/// Contents that were read already, extent by extent.
fn send_read(
    geometry: &Geometry,
    data: &[Range<u64>],
    bytes: &[u8],
    extents: &[Extent],
    outlet: &mut Outlet<'_, '_>,
) {
    if let ([range], [extent]) = (data, extents)
        && range.start == 0
    {
        let whole = bytes_of(geometry, extent);
        let (begin, end) = (whole.start as usize, (whole.end as usize).min(bytes.len()));
        return outlet.put(extent.block, &bytes[begin..end]);
    }
    for extent in extents {
        let whole = bytes_of(geometry, extent);
        let mut block = vec![0; (whole.end - whole.start) as usize];
        let mut at = 0; // where the range begins in `bytes`
        for range in data {
            let part = range.start.max(whole.start)..range.end.min(whole.end);
            if part.start < part.end {
                let from = at + (part.start - range.start) as usize;
                let length = (part.end - part.start) as usize;
                let to = (part.start - whole.start) as usize;
                block[to..to + length].copy_from_slice(&bytes[from..from + length]);
            }
            at += (range.end - range.start) as usize;
        }
        outlet.put(extent.block, &block);
    }
}

/// The bytes of the file that an extent holds.
fn bytes_of(geometry: &Geometry, extent: &Extent) -> Range<u64> {
    extent.offset << geometry.block_log..(extent.offset + extent.count) << geometry.block_log
}

/// What is to be copied where, with the bytes between that are zero.
#[derive(Default)]
struct Plan {
    parts: Vec<Part>,
}

impl Plan {
    fn new(geometry: &Geometry, data: &[Range<u64>], offsets: &[u64], extents: &[Extent]) -> Self {
        let mut plan = Self::default();
        let mut sources = data.iter().zip(offsets).peekable();
        for extent in extents {
            let whole = bytes_of(geometry, extent);
            let device = |at: u64| geometry.byte_of(extent.block) + (at - whole.start);
            let mut at = whole.start;
            while let Some((range, offset)) = sources.peek() {
                if range.end <= at {
                    sources.next(); // shared, so not written
                    continue;
                }
                let part = range.start.max(at)..range.end.min(whole.end);
                if part.start < part.end {
                    plan.zero(device(at), part.start - at);
                    plan.copy(
                        *offset + (part.start - range.start),
                        device(part.start),
                        part.end - part.start,
                    );
                    at = part.end;
                }
                if range.end > whole.end || range.start >= whole.end {
                    break; // the next extent goes on with it
                }
                sources.next();
            }
            plan.zero(device(at), whole.end - at);
        }
        plan
    }

    fn zero(&mut self, at: u64, length: u64) {
        if length > 0 {
            self.parts.push(Part {
                at,
                length,
                from: None,
            });
        }
    }

    fn copy(&mut self, from: u64, at: u64, length: u64) {
        let mut done = 0;
        while done < length {
            let now = (length - done).min(COPIED_AT_ONCE);
            self.parts.push(Part {
                at: at + done,
                length: now,
                from: Some(from + done),
            });
            done += now;
        }
    }

    /// In portions of about [`COPIED_AT_ONCE`] bytes.
    fn copies(self, file: Arc<std::fs::File>, path: Arc<[u8]>, written: Option<Time>) -> Vec<Copy> {
        let mut copies: Vec<Copy> = Vec::new();
        let mut held = COPIED_AT_ONCE;
        for part in self.parts {
            // Zeroes fill up a block, or lie between: they stay with what is before them.
            if copies.is_empty() || (part.from.is_some() && held + part.length > COPIED_AT_ONCE) {
                copies.push(Copy {
                    file: Arc::clone(&file),
                    path: Arc::clone(&path),
                    parts: Vec::new(),
                    written,
                });
                held = 0;
            }
            held += part.length;
            if let Some(copy) = copies.last_mut() {
                copy.parts.push(part);
            }
        }
        copies
    }
}
