//! Compressed contents: clusters get their blocks, what is left its place beside the inode
//! or in the packed inode.

use super::super::compress::algorithm::Algorithm;
use super::super::compress::extent::{Extent, FileMap, Kind, Tail};
use super::super::compress::index::{self, Form};
use super::super::compress::segment::{Rest, Segment};
use super::super::compress::{Ahead, Packed, Packing, SegmentError};
use super::contents::{Body, Placing};
use super::fault::Fault;
use super::fragments::Fragments;
use super::inode::Lying;
use crate::medium::Sink;
use std::ops::Range;

/// Bytes that an index begins with.
const INDEX_BEGIN: u64 = 16;
/// Bytes of an index for each block.
const INDEX_ENTRY: u64 = 2;
/// Bytes of an encoded extent, in most files.
const ENCODED_EXTENT: usize = 16;

/// A compressed file whose segments have places.
#[derive(Debug, Default)]
pub(crate) struct Clusters {
    extents: Vec<Extent>,
    algorithm: Option<Algorithm>,
    rest: Option<Rest>,
    /// Others may use the same clusters.
    shares: bool,
}

/// What an image lets an index be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) bit48: bool,
    pub(crate) interlaced: bool,
    /// Clusters of the file may have more than a block.
    pub(crate) big: bool,
}

/// Gives a file's clusters their places as they come; none if it is not worth it.
pub(crate) fn place(
    packing: &Packing,
    ahead: &mut Ahead<'_, '_>,
    placing: &mut Placing<'_, '_, '_>,
) -> Result<Option<Clusters>, Fault> {
    let mut clusters = Clusters::default();
    for _ in 0..packing.segments {
        let packed = ahead.segment()?;
        if packing.segments == 1 && !is_worth_it(&packed.segment, packing.content.size, placing) {
            return Ok(None);
        }
        clusters.add(packed, ahead, placing)?;
    }
    Ok(Some(clusters))
}

/// Whether a file's only segment takes less than the file as it is.
fn is_worth_it(segment: &Segment, size: u64, placing: &Placing<'_, '_, '_>) -> bool {
    let block = placing.space.block_size() as u64;
    let inline = match &segment.rest {
        Some(Rest::Inline { bytes, .. }) => bytes.len() as u64,
        Some(Rest::Fragment(_)) => return true,
        None => 0,
    };
    let index = INDEX_BEGIN + size.div_ceil(block) * INDEX_ENTRY;
    let tail = size % block;
    let flat = match placing.inline && tail <= placing.room as u64 {
        true => size,
        false => size.next_multiple_of(block),
    };
    segment.gains() && segment.data.len() as u64 + inline + index < flat
}

impl Clusters {
    /// Gives a segment its blocks.
    pub(crate) fn add(
        &mut self,
        Packed {
            mut segment,
            algorithm,
        }: Packed,
        ahead: &Ahead<'_, '_>,
        placing: &mut Placing<'_, '_, '_>,
    ) -> Result<(), Fault> {
        self.algorithm = self.algorithm.or(algorithm);
        let at = put(&segment.data, placing)?;
        let mut own = 0;
        for borrowed in &segment.borrowed {
            let piece = ahead.place_piece(borrowed.piece, |data| put(data, placing))?;
            let piece = piece.ok_or(SegmentError::Lost)?;
            shift(&mut segment.extents, own..borrowed.extents.start, at);
            shift(&mut segment.extents, borrowed.extents.clone(), piece);
            own = borrowed.extents.end;
        }
        let all = segment.extents.len();
        shift(&mut segment.extents, own..all, at);
        self.extents.append(&mut segment.extents);
        self.rest = segment.rest;
        self.shares |= !segment.borrowed.is_empty();
        Ok(())
    }

    /// The segments of `later` follow.
    pub(crate) fn append(&mut self, mut later: Self) {
        self.extents.append(&mut later.extents);
        self.algorithm = self.algorithm.or(later.algorithm);
        self.rest = later.rest;
    }

    /// All segments are there: what the inode, `beside` bytes with its attributes, says.
    pub(crate) fn finish(
        mut self,
        shape: Shape,
        beside: usize,
        fragments: &mut Option<Fragments>,
        ahead: &Ahead<'_, '_>,
        placing: &mut Placing<'_, '_, '_>,
    ) -> Result<Body, Fault> {
        let rest = self.rest.take();
        let rest = match self.flat(rest, placing) {
            Ok(body) => return Ok(body),
            Err(rest) => rest,
        };
        match (rest, fragments) {
            (None, _) => self.body(shape, Tail::None, Vec::new(), beside, placing),
            (
                Some(Rest::Inline {
                    length,
                    kind,
                    bytes,
                }),
                _,
            ) => self.inline(shape, (length, kind, bytes), beside, placing),
            (Some(Rest::Fragment(bytes)), Some(fragments)) => {
                let tail = Tail::Fragment {
                    length: bytes.len() as u64,
                    at: fragments.add(bytes, ahead, placing)?,
                };
                self.body(shape, tail, Vec::new(), beside, placing)
            }
            (Some(Rest::Fragment(_)), None) => Err(Fault::Invalid(
                "it has a fragment in an image without; please report this".into(),
            )),
        }
    }

    /// The body of a file of which nothing was compressed, and whose blocks lie one after
    /// the other: it is flat as it is, and is read without an index. Else its rest.
    fn flat(
        &self,
        rest: Option<Rest>,
        placing: &Placing<'_, '_, '_>,
    ) -> Result<Body, Option<Rest>> {
        let block = placing.space.block_size() as u64;
        let Some((last, others)) = self.extents.split_last() else {
            return Err(rest);
        };
        let plain = |extent: &Extent| extent.kind == Kind::Plain && !extent.partial;
        let whole = |extent: &Extent| plain(extent) && u64::from(extent.length) == block;
        let first = self.extents.first().map_or(0, |extent| extent.at);
        let places = (first..).step_by(block as usize);
        let chained = self.extents.iter().zip(places).all(|(e, at)| e.at == at);
        // Flat contents of two files must not lie in the same blocks.
        if self.shares || !others.iter().all(whole) || !plain(last) || !chained {
            return Err(rest);
        }
        let number = Some(first / block);
        match rest {
            None => Ok(Body::flat(number, Vec::new())),
            Some(Rest::Inline {
                kind: Kind::Plain,
                bytes,
                ..
            }) if whole(last) && placing.inline && bytes.len() <= placing.room => {
                Ok(Body::flat(number, bytes))
            }
            rest => Err(rest),
        }
    }

    /// With a tail behind the index, if it fits into a block there and an index can tell
    /// where the rest lies.
    fn inline(
        mut self,
        shape: Shape,
        (length, kind, bytes): (u32, Kind, Vec<u8>),
        beside: usize,
        placing: &mut Placing<'_, '_, '_>,
    ) -> Result<Body, Fault> {
        let block = placing.space.block_size();
        let tail = Tail::Inline {
            length,
            size: bytes.len() as u16, // less than a block
            kind,
        };
        let mut cluster = bytes;
        if !index::is_far(&self.map(shape, tail), block_bits(placing)) {
            let size = cluster.len();
            let body = self.body(shape, tail, cluster, beside, placing)?;
            let fits = fits_behind(kind, size, body.slot(beside), block);
            // Encoded extents, of which none can tell of such a tail, may be that much smaller.
            let extents = (self.extents.len() + 2) * ENCODED_EXTENT;
            if fits && !(shape.bit48 && body.map.len() > block + extents) {
                return Ok(body);
            }
            cluster = body.tail;
        }
        let padding = block - cluster.len();
        match kind {
            Kind::Plain => cluster.resize(block, 0),
            _ => drop(cluster.splice(0..0, std::iter::repeat_n(0, padding))),
        }
        let at = put(&cluster, placing)?;
        self.extents.push(Extent {
            length,
            size: block as u32,
            at,
            kind,
            partial: false,
        });
        match self.flat(None, placing) {
            Ok(body) => Ok(body),
            Err(_) => self.body(shape, Tail::None, Vec::new(), beside, placing),
        }
    }

    fn map(&self, shape: Shape, tail: Tail) -> FileMap<'_> {
        FileMap {
            extents: &self.extents,
            tail,
            algorithms: [self.algorithm.map_or(0, Algorithm::number), 0],
            big: shape.big,
            interlaced: shape.interlaced,
        }
    }

    fn body(
        &self,
        shape: Shape,
        tail: Tail,
        bytes: Vec<u8>,
        beside: usize,
        placing: &Placing<'_, '_, '_>,
    ) -> Result<Body, Fault> {
        let form = Form {
            block_bits: block_bits(placing),
            bit48: shape.bit48,
        };
        let index = index::encode(&self.map(shape, tail), form, beside as u64)?;
        let sizes = self.extents.iter().map(|extent| u64::from(extent.size));
        let blocks = placing.space.blocks_of(sizes.sum());
        Ok(Body {
            lying: Lying {
                layout: index.layout,
                data: blocks as u32,
                high: (blocks >> 32) as u16,
                numbers_block: false,
            },
            map: index.bytes,
            map_align: 8,
            tail: bytes,
        })
    }
}

/// Whether a tail of `size` bytes may end a slot of `slot` bytes: it must lie in one block,
/// and if it is compressed, not begin there. Linux (6.18) looks for its first byte up to
/// where the first block of a page ends, and finds none if it begins just there.
fn fits_behind(kind: Kind, size: usize, slot: usize, block: usize) -> bool {
    // Slots of more than a block begin at one.
    let at = slot - size;
    let within = slot <= block || at / block == (slot - 1) / block;
    within && (kind == Kind::Plain || !at.is_multiple_of(block))
}

fn block_bits(placing: &Placing<'_, '_, '_>) -> u8 {
    placing.space.block_size().trailing_zeros() as u8 // at most 16
}

/// Extents whose places counted from `at`.
fn shift(extents: &mut [Extent], which: Range<usize>, at: u64) {
    let which = extents.get_mut(which).unwrap_or_default();
    which.iter_mut().for_each(|extent| extent.at += at);
}

/// What an inode says of contents that lie in the packed inode as a whole.
pub(crate) fn fragment(
    tail: Tail,
    bit48: bool,
    beside: usize,
    placing: &Placing<'_, '_, '_>,
) -> Result<Body, Fault> {
    let shape = Shape {
        bit48,
        interlaced: false,
        big: false,
    };
    Clusters::default().body(shape, tail, Vec::new(), beside, placing)
}

/// Gives whole blocks their place, in bytes of the image.
fn put(data: &[u8], placing: &mut Placing<'_, '_, '_>) -> Result<u64, Fault> {
    let first = placing
        .space
        .take(placing.space.blocks_of(data.len() as u64))?;
    let at = placing.space.byte_of(first);
    if !data.is_empty() {
        placing.outlet.data.put(at, data)?;
    }
    Ok(at)
}
