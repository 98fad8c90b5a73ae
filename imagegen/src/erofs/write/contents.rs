//! A file's contents: how they lie, which blocks they get, and what of them lies beside the
//! inode.
//!
//! Here a file's bytes become a [`Body`]; where compressed clusters are made, they become
//! one as well, and the rest of the writer does not tell them apart.

use super::super::format::inode::{NO_BLOCK, layout};
use super::chunks::Chunks;
use super::fault::Fault;
use super::inode::Lying;
use super::outlet::Outlet;
use super::space::Space;
use crate::medium::{Stretch, read_part, send};
use crate::tree::Content;

/// What an inode says of its contents, and what follows it.
#[derive(Debug, Default)]
pub(crate) struct Body {
    pub(crate) lying: Lying,
    /// First block if it is flat, for what it means to the inode's form; 0 for none.
    pub(crate) block: u64,
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
            },
            block: block.unwrap_or(0),
            tail,
            ..Self::default()
        }
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

/// Gives contents their places, and sends them there.
pub(crate) fn place(
    content: Content,
    chunks: &mut Chunks,
    placing: &mut Placing<'_, '_, '_>,
) -> Result<Body, Fault> {
    if let Some(body) = chunks.index(&content, placing.space) {
        return Ok(body);
    }
    match chunks.of(&content, placing.space) {
        Some(chunk_bits) => chunks.place(content, chunk_bits, placing),
        None => flat(content, placing),
    }
}

fn flat(content: Content, placing: &mut Placing<'_, '_, '_>) -> Result<Body, Fault> {
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
    let first = placing.space.take(count);
    let stretch = Stretch {
        file: 0..count * block,
        at: placing.space.byte_of(first),
    };
    // The tail of an inline file lies beyond the last of its blocks, so none is written twice.
    send(content, &[stretch], &mut placing.outlet.data)?;
    Ok(Body::flat(Some(first), tail))
}
