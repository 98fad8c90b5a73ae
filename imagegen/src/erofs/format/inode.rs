//! Inodes (`struct erofs_inode_compact`, `struct erofs_inode_extended`).
//!
//! After the inode come its attributes, then what its layout keeps there: an inline tail,
//! chunk indexes or the map of its compressed clusters.

use super::{U16, U32, U64, on_disk, size};

/// Bytes of a compact inode.
pub const COMPACT: usize = 32;
/// Bytes of an extended inode.
pub const EXTENDED: usize = 64;

on_disk! {
    /// The short form: the superblock's time, ids of 16 bits, contents below 4 GiB.
    pub struct Compact {
        /// [`mod@format`].
        pub format: U16,
        /// Attributes' room: 0, or 1 and the units of 4 bytes after their header.
        pub xattr_count: U16,
        /// Kind and permissions, as `st_mode`.
        pub mode: U16,
        /// Links; with [`format::NLINK_1`] the upper half of blocks or of the first block.
        pub nlink_or_high: U16,
        /// Bytes of contents.
        pub size: U32,
        /// Seconds since the superblock's epoch (with 48 bits; before that 0).
        pub mtime: U32,
        /// By layout and kind: [`super::inode`] data word.
        pub data: U32,
        /// A number for programs that know 32 bits.
        pub ino: U32,
        /// Owner.
        pub uid: U16,
        /// Group.
        pub gid: U16,
        /// Zero.
        pub reserved: U32,
    }
}
size!(Compact, COMPACT);

on_disk! {
    /// The whole form.
    pub struct Extended {
        /// [`mod@format`].
        pub format: U16,
        /// Attributes' room: 0, or 1 and the units of 4 bytes after their header.
        pub xattr_count: U16,
        /// Kind and permissions, as `st_mode`.
        pub mode: U16,
        /// Upper half of blocks or of the first block, with 48 bits; else 0.
        pub high: U16,
        /// Bytes of contents.
        pub size: U64,
        /// Flat: first block, or all ones. Compressed: blocks. Special: device number.
        /// Chunks: [`super::chunk::format`].
        pub data: U32,
        /// A number for programs that know 32 bits.
        pub ino: U32,
        /// Owner.
        pub uid: U32,
        /// Group.
        pub gid: U32,
        /// Seconds since 1970; may be negative.
        pub mtime: U64,
        /// Nanoseconds.
        pub mtime_nanoseconds: U32,
        /// Links.
        pub nlink: U32,
        /// Zero.
        pub reserved: [u8; 16],
    }
}
size!(Extended, EXTENDED);

/// Bits of `format`.
pub mod format {
    /// The form: set for an extended inode.
    pub const EXTENDED: u16 = 1;
    /// Where the layout stands.
    pub const LAYOUT_SHIFT: u16 = 1;
    /// The layout's bits, shifted.
    pub const LAYOUT_MASK: u16 = 7;
    /// A compact inode that is no directory has one link, and its field holds something
    /// else (with 48 bits).
    pub const NLINK_1: u16 = 1 << 4;
    /// A directory has no entry for itself (with 48 bits).
    pub const DOT_OMITTED: u16 = 1 << 4;
    /// All bits that mean something.
    pub const ALL: u16 = (NLINK_1 << 1) - 1;
}

/// How contents lie (`EROFS_INODE_*`).
pub mod layout {
    /// In blocks that follow each other.
    pub const PLAIN: u16 = 0;
    /// Compressed, with indexes of 8 bytes or encoded extents.
    pub const COMPRESSED_FULL: u16 = 1;
    /// As [`PLAIN`], the tail after the inode.
    pub const INLINE: u16 = 2;
    /// Compressed, with compact indexes.
    pub const COMPRESSED_COMPACT: u16 = 3;
    /// In chunks.
    pub const CHUNKS: u16 = 4;
}

/// `data` of a flat inode none of whose bytes lie in blocks.
pub const NO_BLOCK: u32 = u32::MAX;
