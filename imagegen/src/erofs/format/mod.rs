//! The disk format of EROFS (`fs/erofs/erofs_fs.h` of Linux 7.2 and erofs-utils 1.9):
//! structures as bytes, their constants, and nothing that reads or writes a device.
//!
//! All numbers are little-endian. A block is `1 << block_bits` bytes; an inode's number
//! ("nid") is its place after the metadata's first block in units of [`NID_UNIT`].

pub mod chunk;
pub mod composefs;
pub mod compressed;
pub mod directory;
pub mod inode;
pub mod superblock;
pub mod xattr;

pub(crate) use crate::on_disk::{on_disk, size};
pub use zerocopy::little_endian::{U16, U32, U64};

/// Bytes of a slot in which an inode may begin (`EROFS_ISLOTBITS` of 5).
pub const NID_UNIT: u64 = 32;
