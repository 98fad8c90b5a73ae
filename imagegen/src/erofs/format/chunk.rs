//! Files in chunks: after the inode's attributes a table with one entry a chunk, block
//! numbers of 4 bytes or [`Index`]es of 8.

use super::{U16, U32, on_disk, size};

/// Bytes of an entry that is a block number alone.
pub const BLOCK_ENTRY: usize = 4;
/// Bytes of [`Index`].
pub const INDEX: usize = 8;
/// Block number of a chunk of zeroes, in entries of either kind.
pub const HOLE: u32 = u32::MAX;

on_disk! {
    /// `struct erofs_inode_chunk_index`.
    pub struct Index {
        /// First block, upper half, with 48 bits.
        pub block_high: U16,
        /// 0 for the primary device, else the number of a device slot from 1 on.
        pub device: U16,
        /// First block; [`HOLE`] for zeroes.
        pub block_low: U32,
    }
}
size!(Index, INDEX);

/// Bits of an inode's `data` word (`EROFS_CHUNK_FORMAT_*`).
pub mod format {
    /// Logarithm of blocks in a chunk.
    pub const BLOCK_BITS: u32 = 0x1f;
    /// Entries are [`super::Index`]es.
    pub const INDEXES: u32 = 0x20;
    /// Block numbers have 48 bits.
    pub const BIT48: u32 = 0x40;
    /// All bits that mean something.
    pub const ALL: u32 = (BIT48 << 1) - 1;
}
