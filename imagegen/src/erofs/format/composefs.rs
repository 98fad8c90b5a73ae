//! What composefs puts before an EROFS superblock (`struct lcfs_erofs_header_s` of
//! libcomposefs).

use super::{U32, on_disk, size};

/// At byte 0 of an image.
pub const MAGIC: u32 = 0xD078_629A;
/// The only version of the header itself.
pub const HEADER_VERSION: u32 = 1;
/// Bit of [`Header::flags`]: some object has an ACL.
pub const HAS_ACL: u32 = 1;

on_disk! {
    /// The header.
    pub struct Header {
        /// [`MAGIC`].
        pub magic: U32,
        /// [`HEADER_VERSION`].
        pub version: U32,
        /// [`HAS_ACL`].
        pub flags: U32,
        /// Version of the format: 0, 1 or 2.
        pub composefs_version: U32,
        /// Zero.
        pub unused: [u8; 16],
    }
}
size!(Header, 32);
