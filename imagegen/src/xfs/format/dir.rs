//! Directories (`xfs_da_format.h`), always with checksums and the kind of file in entries.
//!
//! - *Short form*, inside the inode: [`ShortHeader`] (inode numbers of 4 or of 8 bytes),
//!   then entries: name length, 2 bytes of [offset](FIRST_OFFSET), name, kind, number.
//! - *Block*: one directory block of [`magic::BLOCK`]: header, entries, then the leaf
//!   entries and [`BlockTail`] at its end.
//! - *Leaf*: data blocks ([`magic::DATA`]) from offset 0, one leaf block
//!   ([`magic::LEAF1`]) at [`LEAF_OFFSET`] with the longest free space of every data
//!   block before a tail.
//! - *Node*: leaves ([`magic::LEAFN`]) below nodes ([`magic::NODE`]), the longest free
//!   spaces in blocks ([`magic::FREE`]) at [`FREE_OFFSET`].
//!
//! A data entry: 8 bytes of inode, name length, name, kind, padding, 2 bytes of its own
//! offset, in all a multiple of 8. An unused space begins with [`FREE_TAG`], its length,
//! and ends with its offset.

use super::{U16, U32, U64, on_disk, size};

/// Magic numbers of blocks.
pub mod magic {
    /// "XDB3": the only block, with its leaf.
    pub const BLOCK: u32 = 0x5844_4233;
    /// "XDD3": entries.
    pub const DATA: u32 = 0x5844_4433;
    /// "XDF3": longest free spaces.
    pub const FREE: u32 = 0x5844_4633;
    /// The only leaf.
    pub const LEAF1: u16 = 0x3df1;
    /// One of several leaves.
    pub const LEAFN: u16 = 0x3dff;
    /// A node above leaves, of directories and attributes alike.
    pub const NODE: u16 = 0x3ebe;
}

/// Where leaves begin, in bytes of the directory (`XFS_DIR2_LEAF_OFFSET`).
pub const LEAF_OFFSET: u64 = 1 << 35;
/// Where blocks of free spaces begin, in bytes of the directory (`XFS_DIR2_FREE_OFFSET`).
pub const FREE_OFFSET: u64 = 1 << 36;
/// An entry's address is its offset in the directory in units of 8 bytes.
pub const ADDRESS_UNIT: u64 = 8;
/// First two bytes of an unused space.
pub const FREE_TAG: u16 = 0xffff;
/// "No free space": a data block that does not exist (`NULLDATAOFF`).
pub const NULL_OFFSET: u16 = 0xffff;
/// Offset of the first entry's data in short form: what it would have in a block,
/// where `.` and `..` come first (`xfs_dir2_sf` offsets count the 64 byte header).
pub const FIRST_OFFSET: u16 = (size_of::<DataHeader>() as u16) + 16 + 16;

on_disk! {
    /// What a block of a directory says about itself (`struct xfs_dir3_blk_hdr`).
    pub struct BlockHeader {
        /// [`magic::BLOCK`], [`magic::DATA`] or [`magic::FREE`].
        pub magic: U32,
        /// Checksum.
        pub crc: [u8; 4],
        /// Own address in units of 512 bytes.
        pub daddr: U64,
        /// Sequence of the last write.
        pub lsn: U64,
        /// Identity of the file system.
        pub uuid: [u8; 16],
        /// The directory's inode.
        pub owner: U64,
    }
}
size!(BlockHeader, 48);
/// Where the checksum lies in blocks that begin with [`BlockHeader`].
pub const CRC_AT: usize = 4;

on_disk! {
    /// One of the three longest free spaces of a data block.
    pub struct BestFree {
        /// Where, in bytes.
        pub offset: U16,
        /// Bytes.
        pub length: U16,
    }
}
size!(BestFree, 4);

on_disk! {
    /// Header of a data block (`struct xfs_dir3_data_hdr`).
    pub struct DataHeader {
        /// What it is.
        pub block: BlockHeader,
        /// Its longest free spaces, longest first.
        pub best_free: [BestFree; 3],
        /// Zero.
        pub pad: U32,
    }
}
size!(DataHeader, 64);

on_disk! {
    /// End of the only block of a directory (`struct xfs_dir2_block_tail`).
    pub struct BlockTail {
        /// Leaf entries before it.
        pub count: U32,
        /// Of these, stale ones.
        pub stale: U32,
    }
}
size!(BlockTail, 8);

on_disk! {
    /// Where an entry lies (`struct xfs_dir2_leaf_entry`).
    pub struct LeafEntry {
        /// Hash of its name.
        pub hash: U32,
        /// Its address in units of [`ADDRESS_UNIT`].
        pub address: U32,
    }
}
size!(LeafEntry, 8);

on_disk! {
    /// What leaves and nodes of directories and attributes begin with
    /// (`struct xfs_da3_blkinfo`).
    pub struct NodeInfo {
        /// Right neighbour, in blocks of the fork, or 0.
        pub forward: U32,
        /// Left neighbour, in blocks of the fork, or 0.
        pub back: U32,
        /// Which kind of block.
        pub magic: U16,
        /// Zero.
        pub pad: U16,
        /// Checksum.
        pub crc: [u8; 4],
        /// Own address in units of 512 bytes.
        pub daddr: U64,
        /// Sequence of the last write.
        pub lsn: U64,
        /// Identity of the file system.
        pub uuid: [u8; 16],
        /// The inode.
        pub owner: U64,
    }
}
size!(NodeInfo, 56);
/// Where the checksum lies in blocks that begin with [`NodeInfo`].
pub const NODE_CRC_AT: usize = 12;

on_disk! {
    /// Header of a leaf of a directory (`struct xfs_dir3_leaf_hdr`).
    pub struct LeafHeader {
        /// What it is.
        pub info: NodeInfo,
        /// Entries.
        pub count: U16,
        /// Of these, stale ones.
        pub stale: U16,
        /// Zero.
        pub pad: U32,
    }
}
size!(LeafHeader, 64);

on_disk! {
    /// Header of a node of a directory or attribute fork (`struct xfs_da3_node_hdr`).
    pub struct NodeHeader {
        /// What it is.
        pub info: NodeInfo,
        /// Entries.
        pub count: U16,
        /// 1 above leaves.
        pub level: U16,
        /// Zero.
        pub pad: U32,
    }
}
size!(NodeHeader, 64);

on_disk! {
    /// A child of a node (`struct xfs_da_node_entry`).
    pub struct NodeEntry {
        /// Highest hash below it.
        pub hash: U32,
        /// Its block in the fork.
        pub before: U32,
    }
}
size!(NodeEntry, 8);

on_disk! {
    /// Header of a block of longest free spaces (`struct xfs_dir3_free_hdr`); two bytes
    /// for each data block follow.
    pub struct FreeHeader {
        /// What it is.
        pub block: BlockHeader,
        /// First data block it speaks of.
        pub first: U32,
        /// Entries.
        pub valid: U32,
        /// Of these, not [`NULL_OFFSET`].
        pub used: U32,
        /// Zero.
        pub pad: U32,
    }
}
size!(FreeHeader, 64);

on_disk! {
    /// Header of the short form, followed by the parent's number in 4 or 8 bytes
    /// (`struct xfs_dir2_sf_hdr`).
    pub struct ShortHeader {
        /// Entries.
        pub count: u8,
        /// Entries (with the parent) whose numbers need 8 bytes; if any does, all have 8.
        pub big: u8,
    }
}
size!(ShortHeader, 2);

/// Kinds of file in entries (`XFS_DIR3_FT_*`).
pub mod file_type {
    /// Regular file.
    pub const REGULAR: u8 = 1;
    /// Directory.
    pub const DIRECTORY: u8 = 2;
    /// Character device.
    pub const CHARACTER: u8 = 3;
    /// Block device.
    pub const BLOCK: u8 = 4;
    /// Named pipe.
    pub const FIFO: u8 = 5;
    /// Socket.
    pub const SOCKET: u8 = 6;
    /// Symbolic link.
    pub const SYMLINK: u8 = 7;
}
