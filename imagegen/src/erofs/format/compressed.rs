//! Compressed files: after the inode's attributes, at a multiple of 8, a [`MapHeader`],
//! then indexes of logical clusters or encoded extents.
//!
//! - Full indexes ([`Index`], 8 bytes a logical cluster) begin 8 bytes after the header.
//! - Compact indexes begin right after it: packs of 2 indexes in 8 bytes up to the next
//!   multiple of 32, with [`advise::COMPACTED_2B`] packs of 16 in 32 bytes as long as there
//!   are that many, then packs of 2 again. A pack is the indexes bit by bit, lowest first,
//!   and a block number of 4 bytes at its end.
//! - Encoded extents ([`Extent`] or its first 4, 8 or 16 bytes) follow, aligned to their
//!   size, with [`advise::EXTENTS`].

use super::{U16, U32, on_disk, size};

/// Largest physical cluster, in bytes.
pub const CLUSTER_MAX: u32 = 1 << 20;
/// What a physical cluster may hold at most, in bytes.
pub const CLUSTER_DECODED_MAX: u32 = 12 << 20;
/// Alignment of the map header, in bytes.
pub const MAP_ALIGN: u64 = 8;

on_disk! {
    /// `struct z_erofs_map_header`.
    pub struct MapHeader {
        /// Where the fragment begins in the packed inode; or, in the upper half, the bytes
        /// of the inline tail; or the number of extents, low half. With
        /// [`WHOLE_IN_PACKED`] all 8 bytes less that bit are the fragment's place.
        pub word: U32,
        /// [`advise`].
        pub advise: U16,
        /// Algorithm of heads 1 (bits 0 to 3) and 2 (bits 4 to 7); or, with encoded
        /// extents, the number of extents, bits 32 to 39.
        pub algorithms: u8,
        /// Logical cluster's logarithm less the block's (bits 0 to 3), and
        /// [`WHOLE_IN_PACKED`]; or the number of extents, bits 40 to 47.
        pub cluster_bits: u8,
    }
}
size!(MapHeader, 8);

/// Bit of `cluster_bits`: the whole file is a fragment.
pub const WHOLE_IN_PACKED: u8 = 0x80;

/// Bits of `advise` (`Z_EROFS_ADVISE_*`).
pub mod advise {
    /// Compact indexes: packs of 2 bytes an index are used.
    pub const COMPACTED_2B: u16 = 1;
    /// Full layout: extents instead of indexes.
    pub const EXTENTS: u16 = 1;
    /// Clusters of head 1 may have several blocks.
    pub const BIG_CLUSTER_1: u16 = 2;
    /// Clusters of head 2 may have several blocks.
    pub const BIG_CLUSTER_2: u16 = 4;
    /// The last cluster lies after the indexes.
    pub const INLINE_CLUSTER: u16 = 8;
    /// Plain clusters begin in the middle of a block where the file does, and wrap.
    pub const INTERLACED: u16 = 16;
    /// The tail is a fragment.
    pub const FRAGMENT: u16 = 32;
    /// Where the logarithm of an extent's size less 2 stands.
    pub const EXTENT_SIZE_SHIFT: u16 = 1;
    /// Its bits, shifted.
    pub const EXTENT_SIZE_MASK: u16 = 3;
}

on_disk! {
    /// `struct z_erofs_lcluster_index`.
    pub struct Index {
        /// Kind in bits 0 and 1 ([`kind`]), [`PARTIAL`].
        pub advise: U16,
        /// Where in this logical cluster the extent begins.
        pub offset: U16,
        /// Heads: block number. Others: two halves, distance to the head before (or
        /// [`BLOCK_COUNT`] and the cluster's blocks) and to the next.
        pub value: U32,
    }
}
size!(Index, 8);

/// Bit of [`Index::advise`]: the extent is a part of what its cluster holds.
pub const PARTIAL: u16 = 1 << 15;
/// Bit of a distance: it is a count of blocks instead.
pub const BLOCK_COUNT: u16 = 1 << 11;

/// Kinds of a logical cluster (`Z_EROFS_LCLUSTER_TYPE_*`).
pub mod kind {
    /// An extent that is not compressed begins here.
    pub const PLAIN: u8 = 0;
    /// An extent of the first algorithm begins here.
    pub const HEAD1: u8 = 1;
    /// None begins here.
    pub const NONHEAD: u8 = 2;
    /// An extent of the second algorithm begins here.
    pub const HEAD2: u8 = 3;
}

on_disk! {
    /// `struct z_erofs_extent`.
    pub struct Extent {
        /// Encoded bytes (bits 0 to 20), [`EXTENT_PARTIAL`], and from bit 28 the algorithm
        /// plus 1, 0 for plain.
        pub length: U32,
        /// Where it lies, in bytes, low half.
        pub at_low: U32,
        /// Upper half.
        pub at_high: U32,
        /// Where it begins in the file, in bytes, low half.
        pub logical_low: U32,
        /// Upper half.
        pub logical_high: U32,
        /// Zero.
        pub reserved: [u8; 12],
    }
}
size!(Extent, 32);

/// Bit of [`Extent::length`]: the extent is a part of what its cluster holds.
pub const EXTENT_PARTIAL: u32 = 1 << 27;
/// Where in [`Extent::length`] the algorithm stands.
pub const EXTENT_FORMAT_SHIFT: u32 = 28;
/// Bits of [`Extent::length`] that are a length.
pub const EXTENT_LENGTH_MASK: u32 = (CLUSTER_MAX << 1) - 1;
