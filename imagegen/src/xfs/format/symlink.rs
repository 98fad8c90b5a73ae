//! Header of an extent that holds part of a symbolic link's target
//! (`struct xfs_dsymlink_hdr` in `xfs_format.h`). Blocks that lie together have one.

use super::{U32, U64, on_disk, size};

/// "XSLM".
pub const MAGIC: u32 = 0x5853_4c4d;
/// Where the checksum lies.
pub const CRC_AT: usize = 12;
/// Every target is shorter than this, in bytes (`XFS_SYMLINK_MAXLEN`).
pub const MAX_LENGTH: usize = 1024;

on_disk! {
    /// The header; target bytes follow.
    pub struct SymlinkHeader {
        /// [`MAGIC`].
        pub magic: U32,
        /// Where in the target this extent begins, in bytes.
        pub offset: U32,
        /// Bytes of the target here.
        pub bytes: U32,
        /// Checksum.
        pub crc: [u8; 4],
        /// Identity of the file system.
        pub uuid: [u8; 16],
        /// The inode.
        pub owner: U64,
        /// Own address in units of 512 bytes.
        pub daddr: U64,
        /// Sequence of the last write.
        pub lsn: U64,
    }
}
size!(SymlinkHeader, 56);
