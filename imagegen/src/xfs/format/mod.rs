//! Every structure of XFS version 5 that csnap writes or reads, declared once.
//!
//! Names follow the kernel's headers (`fs/xfs/libxfs/xfs_format.h`, `xfs_da_format.h`,
//! `xfs_log_format.h`) without their prefixes. All integers are big-endian; every type
//! has alignment 1, so a structure can lie anywhere in a block. Sizes are asserted at
//! compile time. Nothing here decides anything: see `geometry`, `write`, `read`.

pub mod attr;
pub mod btree;
pub mod checksum;
pub mod dir;
pub mod extent;
pub mod group;
pub mod hash;
pub mod inode;
pub mod log;
pub mod superblock;
pub mod symlink;

pub(crate) use crate::on_disk::{on_disk, size};
pub use zerocopy::byteorder::big_endian::{U16, U32, U64};

/// No block of a group (`NULLAGBLOCK`).
pub const NULL_AG_BLOCK: u32 = u32::MAX;
/// No block of the file system (`NULLFSBLOCK`), for siblings in long B-tree blocks.
pub const NULL_FS_BLOCK: u64 = u64::MAX;
/// No inode of a group (`NULLAGINO`).
pub const NULL_AG_INODE: u32 = u32::MAX;
