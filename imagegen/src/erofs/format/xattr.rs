//! Extended attributes: a header after the inode (`struct erofs_xattr_ibody_header`), the
//! numbers of its shared entries, then its own entries (`struct erofs_xattr_entry`).
//!
//! An entry is followed by its name, less the prefix that its index stands for, and its
//! value, and filled up to 4 bytes. A shared entry's number is its place after the shared
//! attributes' first block in units of 4 bytes.

use super::{U16, U32, on_disk, size};

/// Entries begin at multiples of this many bytes, the unit of their numbers.
pub const ALIGN: usize = 4;
/// Bytes of [`Header`].
pub const HEADER: usize = 12;
/// Bytes of [`Entry`].
pub const ENTRY: usize = 4;

on_disk! {
    /// Before an inode's attributes.
    pub struct Header {
        /// Bit per hash of a name: 1 if none of that hash is there. 0 tells nothing.
        pub name_filter: U32,
        /// Numbers of shared entries that follow, 4 bytes each.
        pub shared: u8,
        /// Zero.
        pub reserved: [u8; 7],
    }
}
size!(Header, HEADER);

on_disk! {
    /// Before an attribute's name and value.
    pub struct Entry {
        /// Bytes of the name without prefix.
        pub name_length: u8,
        /// [`index`], or [`LONG_PREFIX`] and the number of a long prefix.
        pub index: u8,
        /// Bytes of the value.
        pub value_size: U16,
    }
}
size!(Entry, ENTRY);

/// Bit of an entry's `index`: it has a long prefix, whose number are the other bits.
pub const LONG_PREFIX: u8 = 0x80;
/// Seed of the name filter's hash (`EROFS_XATTR_FILTER_SEED`): the bit of a name is
/// `xxh32(name without prefix, seed + index) % 32`.
pub const FILTER_SEED: u32 = 0x25BB_E08F;

/// Prefixes of names (`EROFS_XATTR_INDEX_*`).
pub mod index {
    /// `user.`
    pub const USER: u8 = 1;
    /// `system.posix_acl_access`, whole
    pub const ACL_ACCESS: u8 = 2;
    /// `system.posix_acl_default`, whole
    pub const ACL_DEFAULT: u8 = 3;
    /// `trusted.`
    pub const TRUSTED: u8 = 4;
    /// `lustre.`
    pub const LUSTRE: u8 = 5;
    /// `security.`
    pub const SECURITY: u8 = 6;
}

/// Prefix and what it stands for.
pub const PREFIXES: [(u8, &[u8]); 6] = [
    (index::USER, b"user."),
    (index::ACL_ACCESS, b"system.posix_acl_access"),
    (index::ACL_DEFAULT, b"system.posix_acl_default"),
    (index::TRUSTED, b"trusted."),
    (index::LUSTRE, b"lustre."),
    (index::SECURITY, b"security."),
];
