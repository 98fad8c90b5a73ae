//! The allocation bitmap on disk: pages of bits, and the directory naming them.
//!
//! - One bit per block of 4 KiB of the store: block `32256 * page + 64 * word +
//!   bit` is bit `bit` (0 = least significant) of word `word` of page `page`.
//!   1 = in use.
//! - Bits beyond the end of the store are 0.
//! - The directory is a chain of blocks, in order; each holds 252 entries but
//!   the last. A null entry is a page without a bit set.
//! - Pages and directory blocks are in use themselves and their bits say so.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{DiskPtr, Header};
use crate::block::BLOCK_SIZE;

/// Words of 64 bits in a page.
pub const PAGE_WORDS: usize = 504;

/// Blocks of the store that a page speaks for.
pub const PAGE_BITS: u64 = PAGE_WORDS as u64 * 64;

/// Entries in a directory block.
pub const DIRECTORY_ENTRIES: usize = 252;

/// A page of the bitmap.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BitmapPage {
    /// The common header; [`Kind::BitmapPage`](super::Kind::BitmapPage).
    pub header: Header,
    /// The block of the store that the first bit speaks for.
    pub first_bit: U64,
    /// Zero.
    pub reserved: [u8; 24],
    /// The bits.
    pub words: [U64; PAGE_WORDS],
}

/// A block of the directory of bitmap pages.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BitmapDirectory {
    /// The common header; [`Kind::BitmapDirectory`](super::Kind::BitmapDirectory).
    pub header: Header,
    /// The next block of the chain; null in the last.
    pub next: DiskPtr,
    /// Position in the chain, from 0.
    pub index: U32,
    /// Entries in use.
    pub count: U32,
    /// Zero.
    pub reserved: [u8; 8],
    /// The pages `252 * index ..`; entries from `count` on are zero.
    pub entries: [DiskPtr; DIRECTORY_ENTRIES],
}

const _: () = assert!(size_of::<BitmapPage>() == BLOCK_SIZE);
const _: () = assert!(size_of::<BitmapDirectory>() == BLOCK_SIZE);

/// Pages for a store of this many blocks.
#[must_use]
pub const fn pages_for(blocks: u64) -> u64 {
    blocks.div_ceil(PAGE_BITS)
}

/// Directory blocks for this many pages: at least one.
#[must_use]
pub const fn directory_blocks_for(pages: u64) -> u64 {
    let blocks = pages.div_ceil(DIRECTORY_ENTRIES as u64);
    if blocks == 0 { 1 } else { blocks }
}
