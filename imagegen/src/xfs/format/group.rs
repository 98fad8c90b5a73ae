//! Headers of an allocation group: AGF (free space), AGI (inodes), AGFL (blocks kept for
//! the group's own B-trees). Each fills a sector, after the superblock's (`xfs_format.h`).

use super::{U32, U64, on_disk, size};

/// "XAGF".
pub const AGF_MAGIC: u32 = 0x5841_4746;
/// "XAGI".
pub const AGI_MAGIC: u32 = 0x5841_4749;
/// "XAFL".
pub const AGFL_MAGIC: u32 = 0x5841_464c;
/// Version of AGF and AGI.
pub const VERSION: u32 = 1;
/// Where the checksum lies in the AGF.
pub const AGF_CRC_AT: usize = 216;
/// Where the checksum lies in the AGI.
pub const AGI_CRC_AT: usize = 312;
/// Where the checksum lies in the AGFL.
pub const AGFL_CRC_AT: usize = 32;

on_disk! {
    /// Free space of a group (`struct xfs_agf`).
    pub struct Agf {
        /// [`AGF_MAGIC`].
        pub magic: U32,
        /// [`VERSION`].
        pub version: U32,
        /// The group's number.
        pub seqno: U32,
        /// Blocks of the group.
        pub length: U32,
        /// Root of free space by block.
        pub bno_root: U32,
        /// Root of free space by size.
        pub cnt_root: U32,
        /// Root of reverse mappings.
        pub rmap_root: U32,
        /// Levels of free space by block.
        pub bno_level: U32,
        /// Levels of free space by size.
        pub cnt_level: U32,
        /// Levels of reverse mappings.
        pub rmap_level: U32,
        /// First used slot of the AGFL.
        pub fl_first: U32,
        /// Last used slot of the AGFL.
        pub fl_last: U32,
        /// Blocks in the AGFL.
        pub fl_count: U32,
        /// Free blocks, without AGFL.
        pub free_blocks: U32,
        /// Longest free extent.
        pub longest: U32,
        /// Blocks of the free space and reverse mapping B-trees, without their roots.
        pub btree_blocks: U32,
        /// Identity of the file system.
        pub uuid: [u8; 16],
        /// Blocks of the reverse mapping B-tree.
        pub rmap_blocks: U32,
        /// Blocks of the reference count B-tree.
        pub refcount_blocks: U32,
        /// Root of reference counts.
        pub refcount_root: U32,
        /// Levels of reference counts.
        pub refcount_level: U32,
        /// Zero.
        pub spare: [U64; 14],
        /// Sequence of the last write.
        pub lsn: U64,
        /// Checksum.
        pub crc: [u8; 4],
        /// Zero.
        pub spare2: U32,
    }
}
size!(Agf, 224);

on_disk! {
    /// Inodes of a group (`struct xfs_agi`).
    pub struct Agi {
        /// [`AGI_MAGIC`].
        pub magic: U32,
        /// [`VERSION`].
        pub version: U32,
        /// The group's number.
        pub seqno: U32,
        /// Blocks of the group.
        pub length: U32,
        /// Inodes allocated.
        pub count: U32,
        /// Root of the inode B-tree.
        pub root: U32,
        /// Its levels.
        pub level: U32,
        /// Of these inodes, free ones.
        pub free_count: U32,
        /// Newest inode chunk.
        pub new_ino: U32,
        /// Unused, all ones.
        pub dir_ino: U32,
        /// Heads of lists of unlinked inodes, all ones for empty.
        pub unlinked: [U32; 64],
        /// Identity of the file system.
        pub uuid: [u8; 16],
        /// Checksum.
        pub crc: [u8; 4],
        /// Zero.
        pub pad: U32,
        /// Sequence of the last write.
        pub lsn: U64,
        /// Root of the free inode B-tree.
        pub free_root: U32,
        /// Its levels.
        pub free_level: U32,
        /// Blocks of the inode B-tree.
        pub iblocks: U32,
        /// Blocks of the free inode B-tree.
        pub fblocks: U32,
    }
}
size!(Agi, 344);

on_disk! {
    /// Header of the AGFL (`struct xfs_agfl`); block numbers of 4 bytes follow to the
    /// sector's end.
    pub struct Agfl {
        /// [`AGFL_MAGIC`].
        pub magic: U32,
        /// The group's number.
        pub seqno: U32,
        /// Identity of the file system.
        pub uuid: [u8; 16],
        /// Sequence of the last write.
        pub lsn: U64,
        /// Checksum.
        pub crc: [u8; 4],
    }
}
size!(Agfl, 36);

/// Slots of an AGFL in a sector of `sector_size` bytes.
pub fn agfl_slots(sector_size: u32) -> u32 {
    (sector_size - size_of::<Agfl>() as u32) / 4
}
