//! A file's contents: how they lie, which blocks they get, and what of them lies beside the
//! inode.
//!
//! Here a file's bytes become a [`Body`]; where compressed clusters are made, they become
//! one as well, and the rest of the writer does not tell them apart.

use super::super::compress::choice::Fragments as Packs;
use super::super::compress::{Ahead, Packing, Plan, SegmentError};
use super::super::format::inode::{NO_BLOCK, layout};
use super::super::format::superblock::incompat;
use super::chunks::Chunks;
use super::clusters::{self, Shape};
use super::fault::Fault;
use super::fragments::Fragments;
use super::inode::Lying;
use super::options::Options;
use super::outlet::Outlet;
use super::space::Space;
use crate::medium::{Stretch, read_part, send};
use crate::tree::Content;
use std::sync::Arc;

/// What an inode says of its contents, and what follows it.
#[derive(Debug, Default)]
pub(crate) struct Body {
    pub(crate) lying: Lying,
    /// After the attributes, from a multiple of `map_align` bytes of the image on: indexes.
    pub(crate) map: Vec<u8>,
    /// 1, 4 or 8.
    pub(crate) map_align: usize,
    /// After that: the end of the contents.
    pub(crate) tail: Vec<u8>,
}

impl Body {
    /// Of something without contents in blocks: `data` is the inode's data word.
    pub(crate) fn without_blocks(data: u32) -> Self {
        Self {
            lying: Lying {
                data,
                ..Lying::default()
            },
            ..Self::default()
        }
    }

    /// Of contents that are there from block `block` on, and end with `tail`.
    pub(crate) fn flat(block: Option<u64>, tail: Vec<u8>) -> Self {
        let inline = !tail.is_empty();
        Self {
            lying: Lying {
                layout: if inline {
                    layout::INLINE
                } else {
                    layout::PLAIN
                },
                data: block.map_or(NO_BLOCK, |block| block as u32),
                high: block.map_or(0, |block| (block >> 32) as u16),
                numbers_block: block.is_some(),
            },
            tail,
            ..Self::default()
        }
    }

    /// Of contents without a byte. Where block numbers have 48 bits, so has that of none.
    fn empty(bit48: bool) -> Self {
        let mut body = Self::flat(None, Vec::new());
        body.lying.high = if bit48 { u16::MAX } else { 0 };
        body
    }

    /// Bytes of a slot for an inode of `inode` bytes with this body.
    pub(crate) fn slot(&self, inode: usize) -> usize {
        match self.map.len() {
            0 => inode + self.tail.len(),
            map => inode.next_multiple_of(self.map_align.max(1)) + map + self.tail.len(),
        }
    }
}

/// Where contents go.
pub(crate) struct Placing<'p, 'a, 'scope> {
    pub(crate) space: &'p mut Space,
    pub(crate) outlet: &'p mut Outlet<'a, 'scope>,
    /// Whether tails may lie beside inodes.
    pub(crate) inline: bool,
    /// Room beside the inode for a tail.
    pub(crate) room: usize,
}

/// What all files of an image have in common.
pub(crate) struct Contents {
    chunks: Chunks,
    fragments: Option<Fragments>,
    /// Whether files go into the packed inode as a whole.
    packs_all: bool,
    bit48: bool,
    /// Whether plain clusters of files wrap, and those of inodes that hold what belongs to
    /// files.
    interlaced: bool,
    interlaced_within: bool,
    /// Bits of `feature_incompat`.
    incompat: u32,
}

impl Contents {
    /// As the options say.
    pub(crate) fn new(options: &Options) -> Self {
        let compression = options.compression.as_ref();
        let plan = Plan::new(compression, options.block_size as usize, options.dedupe);
        let packs = compression.filter(|c| c.fragments != Packs::None);
        let flags = [
            (packs.is_some(), incompat::FRAGMENTS),
            (compression.is_some() && options.dedupe, incompat::DEDUPE),
        ];
        let flags = flags.iter().filter(|(set, _)| *set);
        Self {
            chunks: Chunks::new(options),
            fragments: packs.map(Fragments::new),
            packs_all: packs.is_some_and(|c| c.fragments == Packs::All),
            bit48: options.has_bit48(),
            interlaced: plan.interlaced,
            interlaced_within: plan.interlaced_within,
            incompat: flags.fold(0, |bits, (_, bit)| bits | bit),
        }
    }

    /// Bits of `feature_incompat` that readers of these contents need.
    pub(crate) fn incompat(&self) -> u32 {
        match self.chunks.any() {
            true => self.incompat | incompat::CHUNKED_FILE,
            false => self.incompat,
        }
    }

    /// What the table of devices says of the file that holds data besides the image.
    pub(crate) fn device(&self, options: &Options) -> Option<super::head::Device> {
        self.chunks.device(options)
    }

    /// Blocks that were not needed, because they are shared.
    pub(crate) fn shared(&self) -> u64 {
        self.chunks.shared()
    }

    /// Whether a file may come in chunks.
    pub(crate) fn expects_chunks(&self, content: &Content, space: &Space) -> bool {
        self.chunks.expects(content, space)
    }

    /// Gives contents their places, and sends them there; their inode has `beside` bytes
    /// with its attributes.
    pub(crate) fn place(
        &mut self,
        content: Content,
        packing: Option<Packing>,
        beside: usize,
        ahead: &mut Ahead<'_, '_>,
        placing: &mut Placing<'_, '_, '_>,
    ) -> Result<Body, Fault> {
        let Some(packing) = packing else {
            return self.place_plain(content, placing);
        };
        if packing.changed {
            return Err(Fault::Changed("it was written to"));
        }
        if let (true, Some(fragments)) = (self.packs_all, &mut self.fragments) {
            let rest = fragments.add_whole(&packing.content, ahead, placing)?;
            return clusters::fragment(rest, self.bit48, beside, placing);
        }
        if let Some(clusters) = clusters::place(&packing, ahead, placing)? {
            let shape = self.shape(packing.cluster, placing);
            let body = clusters.finish(shape, beside, &mut self.fragments, ahead, placing)?;
            self.note(&body);
            return Ok(body);
        }
        // Its only segment is done, so nobody else has it.
        match Arc::try_unwrap(packing.content) {
            Ok(content) => self.place_plain(content, placing),
            Err(_) => Err(SegmentError::Lost.into()),
        }
    }

    fn place_plain(
        &mut self,
        content: Content,
        placing: &mut Placing<'_, '_, '_>,
    ) -> Result<Body, Fault> {
        if let Some(body) = self.chunks.index(&content, placing.space) {
            return Ok(body);
        }
        match self.chunks.of(&content, placing.space) {
            Some(chunk_bits) => self.chunks.place(content, chunk_bits, placing),
            None => flat(content, self.bit48, placing),
        }
    }

    /// What the index of a file in clusters of up to `cluster` bytes may be.
    fn shape(&self, cluster: u32, placing: &Placing<'_, '_, '_>) -> Shape {
        Shape {
            bit48: self.bit48,
            interlaced: self.interlaced,
            big: cluster as usize > placing.space.block_size(),
        }
    }

    /// The same of an inode that holds what belongs to files.
    pub(crate) fn shape_within(&self, cluster: u32, placing: &Placing<'_, '_, '_>) -> Shape {
        Shape {
            interlaced: self.interlaced_within,
            ..self.shape(cluster, placing)
        }
    }

    /// All files are there: size and body of the packed inode, if there is one.
    pub(crate) fn finish(
        &mut self,
        beside: usize,
        ahead: &Ahead<'_, '_>,
        placing: &mut Placing<'_, '_, '_>,
    ) -> Result<Option<(u64, Body)>, Fault> {
        let Some(fragments) = self.fragments.take() else {
            return Ok(None);
        };
        let shape = self.shape_within(fragments.cluster(), placing);
        let packed = fragments.finish(shape, beside, ahead, placing)?;
        if let Some((_, body)) = &packed {
            self.note(body);
        }
        Ok(packed)
    }

    /// Notes what readers need for compressed contents that have this body.
    pub(crate) fn note(&mut self, body: &Body) {
        if !body.map.is_empty() && !body.tail.is_empty() {
            self.incompat |= incompat::ZTAILPACKING;
        }
    }
}

fn flat(content: Content, bit48: bool, placing: &mut Placing<'_, '_, '_>) -> Result<Body, Fault> {
    if content.size == 0 {
        return Ok(Body::empty(bit48));
    }
    let (size, block) = (content.size, placing.space.block_size() as u64);
    let beside = (size % block) as usize;
    let inline = placing.inline && beside > 0 && beside <= placing.room;
    let in_blocks = if inline { size - beside as u64 } else { size };
    let tail = match inline {
        true => read_part(&content, &(in_blocks..size))?,
        false => Vec::new(),
    };
    if in_blocks == 0 {
        return Ok(Body::flat(None, tail));
    }
    let count = placing.space.blocks_of(in_blocks);
    let first = placing.space.take(count)?;
    let stretch = Stretch {
        file: 0..count * block,
        at: placing.space.byte_of(first),
    };
    // The tail of an inline file lies beyond the last of its blocks, so none is written twice.
    send(content, &[stretch], &mut placing.outlet.data)?;
    Ok(Body::flat(Some(first), tail))
}
