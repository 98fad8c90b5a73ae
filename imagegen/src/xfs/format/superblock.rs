//! The superblock (`struct xfs_dsb` in `xfs_format.h`): sector 0 of every group, of which
//! the first counts and the others are copies for repair.

use super::{U16, U32, U64, on_disk, size};

/// "XFSB".
pub const MAGIC: u32 = 0x5846_5342;
/// Where the checksum lies in it.
pub const CRC_AT: usize = 224;

on_disk! {
    /// The superblock.
    pub struct Superblock {
        /// [`MAGIC`].
        pub magic: U32,
        /// Bytes of a block.
        pub block_size: U32,
        /// Blocks of the file system.
        pub dblocks: U64,
        /// Blocks of the realtime device.
        pub rblocks: U64,
        /// Extents of the realtime device.
        pub rextents: U64,
        /// Identity a person sees.
        pub uuid: [u8; 16],
        /// First block of an internal log.
        pub log_start: U64,
        /// Inode of the root directory.
        pub root_ino: U64,
        /// Inode of the realtime bitmap.
        pub rbm_ino: U64,
        /// Inode of the realtime summary.
        pub rsum_ino: U64,
        /// Blocks of a realtime extent.
        pub rext_size: U32,
        /// Blocks of a group; the last may be shorter.
        pub ag_blocks: U32,
        /// Groups.
        pub ag_count: U32,
        /// Blocks of the realtime bitmap.
        pub rbm_blocks: U32,
        /// Blocks of the log.
        pub log_blocks: U32,
        /// Version 5 and the oldest feature bits.
        pub version: U16,
        /// Bytes of a sector.
        pub sector_size: U16,
        /// Bytes of an inode.
        pub inode_size: U16,
        /// Inodes of a block.
        pub inodes_per_block: U16,
        /// Label.
        pub label: [u8; 12],
        /// log2 of `block_size`.
        pub block_log: u8,
        /// log2 of `sector_size`.
        pub sector_log: u8,
        /// log2 of `inode_size`.
        pub inode_log: u8,
        /// log2 of `inodes_per_block`.
        pub inopb_log: u8,
        /// log2 of `ag_blocks`, rounded up.
        pub ag_block_log: u8,
        /// log2 of realtime extents.
        pub rext_log: u8,
        /// Set while mkfs is at work.
        pub in_progress: u8,
        /// Percent of space inodes may take.
        pub imax_percent: u8,
        /// Inodes allocated.
        pub icount: U64,
        /// Of these, free ones.
        pub ifree: U64,
        /// Free blocks.
        pub fdblocks: U64,
        /// Free realtime extents.
        pub frextents: U64,
        /// Inode of user quota.
        pub uquota_ino: U64,
        /// Inode of group quota.
        pub gquota_ino: U64,
        /// Quota flags.
        pub quota_flags: U16,
        /// Flags.
        pub flags: u8,
        /// Unused.
        pub shared_version: u8,
        /// Alignment of inode chunks in blocks.
        pub inode_align: U32,
        /// Stripe unit in blocks.
        pub unit: U32,
        /// Stripe width in blocks.
        pub width: U32,
        /// log2 of blocks of a directory block.
        pub dir_block_log: u8,
        /// log2 of the log's sectors.
        pub log_sector_log: u8,
        /// Bytes of the log's sectors; 0 for 512.
        pub log_sector_size: U16,
        /// Stripe unit of the log in bytes; 1 for none.
        pub log_unit: U32,
        /// More feature bits.
        pub features2: U32,
        /// The same again.
        pub bad_features2: U32,
        /// Compatible features.
        pub features_compat: U32,
        /// Features that do not hinder reading.
        pub features_ro_compat: U32,
        /// Features one must know.
        pub features_incompat: U32,
        /// Features of the log one must know.
        pub features_log_incompat: U32,
        /// Checksum, at [`CRC_AT`].
        pub crc: [u8; 4],
        /// Alignment of sparse inode chunks in blocks.
        pub sparse_align: U32,
        /// Inode of project quota.
        pub pquota_ino: U64,
        /// Sequence of the last write.
        pub lsn: U64,
        /// Identity in metadata, if not `uuid`.
        pub meta_uuid: [u8; 16],
        /// Root of the metadata directory tree.
        pub metadir_ino: U64,
        /// Realtime groups.
        pub rg_count: U32,
        /// Realtime extents of a realtime group.
        pub rg_extents: U32,
        /// log2 of blocks of a realtime group.
        pub rg_block_log: u8,
        /// Zero.
        pub pad: [u8; 7],
    }
}
size!(Superblock, 288);

/// Bits of `version` (`XFS_SB_VERSION_*`).
pub mod version {
    /// The number itself.
    pub const FIVE: u16 = 5;
    /// Attributes in use.
    pub const ATTR: u16 = 0x0010;
    /// Link counts of 32 bits.
    pub const NLINK: u16 = 0x0020;
    /// Quotas.
    pub const QUOTA: u16 = 0x0040;
    /// Inode chunks are aligned.
    pub const ALIGN: u16 = 0x0080;
    /// Stripe alignment.
    pub const DALIGN: u16 = 0x0100;
    /// Log version 2.
    pub const LOG_V2: u16 = 0x0400;
    /// Sectors are not of 512 bytes.
    pub const SECTOR: u16 = 0x0800;
    /// Unwritten extents.
    pub const EXTFLG: u16 = 0x1000;
    /// Directories of version 2.
    pub const DIR_V2: u16 = 0x2000;
    /// Names compare without case in ASCII.
    pub const BORG: u16 = 0x4000;
    /// `features2` counts.
    pub const MORE: u16 = 0x8000;
}

/// Bits of `features2` (`XFS_SB_VERSION2_*`).
pub mod features2 {
    /// Lazy counters.
    pub const LAZY_COUNT: u32 = 0x02;
    /// Attributes of version 2.
    pub const ATTR2: u32 = 0x08;
    /// Project ids of 32 bits.
    pub const PROJID32: u32 = 0x80;
    /// Checksums.
    pub const CRC: u32 = 0x100;
}

/// Bits of `features_ro_compat`.
pub mod ro_compat {
    /// B-tree of free inodes.
    pub const FINOBT: u32 = 1;
    /// B-tree of reverse mappings.
    pub const RMAPBT: u32 = 2;
    /// Shared blocks.
    pub const REFLINK: u32 = 4;
    /// Blocks of inode B-trees are counted.
    pub const INOBT_COUNT: u32 = 8;
}

/// Bits of `features_incompat`.
pub mod incompat {
    /// Kind of file in directory entries.
    pub const FTYPE: u32 = 1;
    /// Sparse inode chunks.
    pub const SPARSE_INODES: u32 = 2;
    /// Identity in metadata differs from `uuid`.
    pub const META_UUID: u32 = 4;
    /// Times of 64 bits.
    pub const BIGTIME: u32 = 8;
    /// Repair needed before a mount.
    pub const NEEDS_REPAIR: u32 = 0x10;
    /// Extent counters of 64 bits.
    pub const NREXT64: u32 = 0x20;
    /// Exchange of ranges.
    pub const EXCHANGE: u32 = 0x40;
    /// Parent pointers.
    pub const PARENT: u32 = 0x80;
    /// Metadata directory tree.
    pub const METADIR: u32 = 0x100;
    /// Zoned realtime device.
    pub const ZONED: u32 = 0x200;
    /// Gaps between zones.
    pub const ZONE_GAPS: u32 = 0x400;
}
