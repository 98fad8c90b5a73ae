//! Directories: blocks of entries in bytewise order of their names, each block with its
//! entries first and the names after them (`struct erofs_dirent`).
//!
//! The first entry's `name_at` tells how many entries a block has. A name ends where the
//! next begins; the last at a zero byte or the end of the block.

use super::{U16, U64, on_disk, size};

/// Bytes of an entry.
pub const ENTRY: usize = 12;

on_disk! {
    /// An entry.
    pub struct Entry {
        /// Number of the inode; with a metabox, [`IN_METABOX`] says where it lies.
        pub nid: U64,
        /// Where in the block its name begins.
        pub name_at: U16,
        /// [`kind`].
        pub kind: u8,
        /// Zero.
        pub reserved: u8,
    }
}
size!(Entry, ENTRY);

/// Bit of an entry's `nid`: the inode lies in the metabox.
pub const IN_METABOX: u64 = 1 << 63;

/// Kinds of an entry (`EROFS_FT_*`, as those of `readdir`).
pub mod kind {
    /// Not told.
    pub const UNKNOWN: u8 = 0;
    /// Regular file.
    pub const FILE: u8 = 1;
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
