//! Blocks of the B-trees and their records (`xfs_format.h`, `xfs_btree.c`).
//!
//! A block is a header, then for leaves the records, for nodes all keys and then, at the
//! place where they begin if the node is full, all pointers. Trees of a group use short
//! headers and 4-byte pointers to blocks of the group; a fork's uses long headers and
//! 8-byte block numbers. Nodes of the reverse mapping tree hold two keys per child, the
//! lowest and the highest, because intervals overlap.

use super::{U16, U32, U64, on_disk, size};

/// Magic numbers of blocks with checksums.
pub mod magic {
    /// "AB3B": free space by block.
    pub const BNO: u32 = 0x4142_3342;
    /// "AB3C": free space by size.
    pub const CNT: u32 = 0x4142_3343;
    /// "IAB3": inodes.
    pub const INO: u32 = 0x4941_4233;
    /// "FIB3": free inodes.
    pub const FINO: u32 = 0x4649_4233;
    /// "RMB3": reverse mappings.
    pub const RMAP: u32 = 0x524d_4233;
    /// "R3FC": reference counts.
    pub const REFCOUNT: u32 = 0x5233_4643;
    /// "BMA3": extents of a fork.
    pub const BMAP: u32 = 0x424d_4133;
}

on_disk! {
    /// Header of a block of a group's tree (`struct xfs_btree_block_shdr`).
    pub struct ShortHeader {
        /// Which tree.
        pub magic: U32,
        /// 0 for leaves.
        pub level: U16,
        /// Records or keys.
        pub count: U16,
        /// Left neighbour, or all ones.
        pub left: U32,
        /// Right neighbour, or all ones.
        pub right: U32,
        /// Own address in units of 512 bytes.
        pub daddr: U64,
        /// Sequence of the last write.
        pub lsn: U64,
        /// Identity of the file system.
        pub uuid: [u8; 16],
        /// The group's number.
        pub owner: U32,
        /// Checksum.
        pub crc: [u8; 4],
    }
}
size!(ShortHeader, 56);
/// Where the checksum lies in a block with a short header.
pub const SHORT_CRC_AT: usize = 52;

on_disk! {
    /// Header of a block of a fork's tree (`struct xfs_btree_block_lhdr`).
    pub struct LongHeader {
        /// [`magic::BMAP`].
        pub magic: U32,
        /// 0 for leaves.
        pub level: U16,
        /// Records or keys.
        pub count: U16,
        /// Left neighbour, or all ones.
        pub left: U64,
        /// Right neighbour, or all ones.
        pub right: U64,
        /// Own address in units of 512 bytes.
        pub daddr: U64,
        /// Sequence of the last write.
        pub lsn: U64,
        /// Identity of the file system.
        pub uuid: [u8; 16],
        /// The inode.
        pub owner: U64,
        /// Checksum.
        pub crc: [u8; 4],
        /// Zero.
        pub pad: U32,
    }
}
size!(LongHeader, 72);
/// Where the checksum lies in a block with a long header.
pub const LONG_CRC_AT: usize = 64;

on_disk! {
    /// Root of a fork's tree inside the inode (`struct xfs_bmdr_block`); keys and pointers
    /// follow, placed as in a node that fills the fork.
    pub struct ForkRoot {
        /// Levels above the leaves; at least 1.
        pub level: U16,
        /// Keys.
        pub count: U16,
    }
}
size!(ForkRoot, 4);

on_disk! {
    /// A free extent: record and key of both free space trees.
    pub struct FreeRecord {
        /// First block of the group.
        pub start: U32,
        /// Blocks.
        pub count: U32,
    }
}
size!(FreeRecord, 8);

on_disk! {
    /// 64 inodes (`struct xfs_inobt_rec`, with sparse inodes).
    pub struct InodeRecord {
        /// First inode of the chunk, in the group.
        pub start: U32,
        /// Which runs of 4 inodes do not exist.
        pub hole_mask: U16,
        /// Inodes that exist.
        pub count: u8,
        /// Of these, free ones.
        pub free_count: u8,
        /// Bit per inode: free (or not existing).
        pub free: U64,
    }
}
size!(InodeRecord, 16);

on_disk! {
    /// Who owns an extent of a group (`struct xfs_rmap_rec`).
    pub struct RmapRecord {
        /// First block of the group.
        pub start: U32,
        /// Blocks.
        pub count: U32,
        /// Inode, or one of [`owner`].
        pub owner: U64,
        /// Offset in the fork in blocks with flags of [`rmap_offset`].
        pub offset: U64,
    }
}
size!(RmapRecord, 24);

on_disk! {
    /// Key of the reverse mapping tree (`struct xfs_rmap_key`).
    pub struct RmapKey {
        /// First block of the group.
        pub start: U32,
        /// Inode, or one of [`owner`].
        pub owner: U64,
        /// Offset with the flags for attribute fork and bmap block.
        pub offset: U64,
    }
}
size!(RmapKey, 20);

/// Flags in the offset of a reverse mapping.
pub mod rmap_offset {
    /// In the attribute fork.
    pub const ATTR_FORK: u64 = 1 << 63;
    /// A block of the fork's B-tree.
    pub const BMBT_BLOCK: u64 = 1 << 62;
    /// Not written yet. Not part of a key.
    pub const UNWRITTEN: u64 = 1 << 61;
    /// All flags.
    pub const FLAGS: u64 = ATTR_FORK | BMBT_BLOCK | UNWRITTEN;
    /// The offset itself.
    pub const MASK: u64 = (1 << 54) - 1;
}

/// Owners which are not inodes (`XFS_RMAP_OWN_*`).
pub mod owner {
    /// Nobody knows.
    pub const UNKNOWN: u64 = -2_i64 as u64;
    /// Superblock and headers of a group.
    pub const FS: u64 = -3_i64 as u64;
    /// The log.
    pub const LOG: u64 = -4_i64 as u64;
    /// B-trees of a group for space and reverse mappings, with the AGFL.
    pub const AG: u64 = -5_i64 as u64;
    /// Inode B-trees.
    pub const INOBT: u64 = -6_i64 as u64;
    /// Inodes.
    pub const INODES: u64 = -7_i64 as u64;
    /// Reference count B-tree.
    pub const REFCOUNT: u64 = -8_i64 as u64;
    /// Space set aside for copies on write.
    pub const COW: u64 = -9_i64 as u64;
    /// Whether an owner is no inode.
    pub const fn is_special(owner: u64) -> bool {
        owner >> 63 == 1
    }
}

on_disk! {
    /// An extent with more than one owner (`struct xfs_refcount_rec`).
    pub struct RefcountRecord {
        /// First block of the group; the highest bit marks space for copies on write.
        pub start: U32,
        /// Blocks.
        pub count: U32,
        /// Owners.
        pub references: U32,
    }
}
size!(RefcountRecord, 12);
/// Bit of [`RefcountRecord::start`] of space set aside for copies on write.
pub const REFCOUNT_COW: u32 = 1 << 31;
/// Highest count; a block with as many owners is never freed (`XFS_REFC_REFCOUNT_MAX`).
pub const REFCOUNT_MAX: u32 = u32::MAX;
