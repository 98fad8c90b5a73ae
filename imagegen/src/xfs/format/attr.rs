//! Extended attributes (`xfs_da_format.h`, `xfs_attr_sf.h`, `xfs_attr_leaf.c`).
//!
//! - *Short form*, inside the inode: [`ShortHeader`], then [`ShortEntry`], name, value.
//! - *Leaf*: one block of [`LEAF_MAGIC`]: header, entries by hash, and from the end
//!   towards the front names with values ([`LocalName`]) or names with where the value
//!   lies ([`RemoteName`]), each a multiple of 4 bytes.
//! - *Node*: several leaves below nodes ([`super::dir::NodeHeader`]).
//! - Values too large for a leaf lie in blocks of their own, each with a
//!   [`RemoteHeader`].

use super::dir::NodeInfo;
use super::{U16, U32, U64, on_disk, size};

/// A leaf.
pub const LEAF_MAGIC: u16 = 0x3bee;
/// "XARM": a block of a remote value.
pub const REMOTE_MAGIC: u32 = 0x5841_524d;

/// Bits of an attribute's flags: namespace and place.
pub mod flags {
    /// The value lies in the leaf.
    pub const LOCAL: u8 = 1 << 0;
    /// `trusted.`; ACLs are `SGI_ACL_FILE` and `SGI_ACL_DEFAULT` here.
    pub const ROOT: u8 = 1 << 1;
    /// `security.`
    pub const SECURE: u8 = 1 << 2;
    /// A parent pointer.
    pub const PARENT: u8 = 1 << 3;
    /// Not complete: to be removed.
    pub const INCOMPLETE: u8 = 1 << 7;
    /// The bits that say the namespace.
    pub const NAMESPACE: u8 = ROOT | SECURE | PARENT;
}

on_disk! {
    /// Header of the short form (`struct xfs_attr_sf_hdr`).
    pub struct ShortHeader {
        /// Bytes, this header included.
        pub size: U16,
        /// Attributes.
        pub count: u8,
        /// Zero.
        pub pad: u8,
    }
}
size!(ShortHeader, 4);

on_disk! {
    /// An attribute of the short form; name and value follow without padding
    /// (`struct xfs_attr_sf_entry`).
    pub struct ShortEntry {
        /// Bytes of the name.
        pub name_length: u8,
        /// Bytes of the value.
        pub value_length: u8,
        /// [`flags`].
        pub flags: u8,
    }
}
size!(ShortEntry, 3);

on_disk! {
    /// Free space in a leaf (`struct xfs_attr_leaf_map`).
    pub struct FreeMap {
        /// Where, in bytes.
        pub base: U16,
        /// Bytes.
        pub size: U16,
    }
}
size!(FreeMap, 4);

on_disk! {
    /// Header of a leaf (`struct xfs_attr3_leaf_hdr`).
    pub struct LeafHeader {
        /// What it is.
        pub info: NodeInfo,
        /// Attributes.
        pub count: U16,
        /// Bytes used by names and values.
        pub used: U16,
        /// Where the first of these begins.
        pub first_used: U16,
        /// Whether there is space between them.
        pub holes: u8,
        /// Zero.
        pub pad1: u8,
        /// Its largest free spaces.
        pub free: [FreeMap; 3],
        /// Zero.
        pub pad2: U32,
    }
}
size!(LeafHeader, 80);
/// Where the checksum lies in a leaf.
pub const LEAF_CRC_AT: usize = super::dir::NODE_CRC_AT;

on_disk! {
    /// An attribute of a leaf (`struct xfs_attr_leaf_entry`).
    pub struct LeafEntry {
        /// Hash of its name.
        pub hash: U32,
        /// Where name and value lie.
        pub name_at: U16,
        /// [`flags`].
        pub flags: u8,
        /// Zero.
        pub pad: u8,
    }
}
size!(LeafEntry, 8);

on_disk! {
    /// What comes before a name whose value follows it (`struct xfs_attr_leaf_name_local`).
    pub struct LocalName {
        /// Bytes of the value.
        pub value_length: U16,
        /// Bytes of the name.
        pub name_length: u8,
    }
}
size!(LocalName, 3);

on_disk! {
    /// What comes before a name whose value lies elsewhere
    /// (`struct xfs_attr_leaf_name_remote`).
    pub struct RemoteName {
        /// Its first block in the attribute fork.
        pub value_block: U32,
        /// Bytes of the value.
        pub value_length: U32,
        /// Bytes of the name.
        pub name_length: u8,
    }
}
size!(RemoteName, 9);

on_disk! {
    /// Header of a block of a remote value (`struct xfs_attr3_rmt_hdr`).
    pub struct RemoteHeader {
        /// [`REMOTE_MAGIC`].
        pub magic: U32,
        /// Where in the value this block begins, in bytes.
        pub offset: U32,
        /// Bytes of the value here.
        pub bytes: U32,
        /// Checksum.
        pub crc: [u8; 4],
        /// Identity of the file system.
        pub uuid: [u8; 16],
        /// The inode.
        pub owner: U64,
        /// Own address in units of 512 bytes.
        pub daddr: U64,
        /// All ones: remote values are never in the log.
        pub lsn: U64,
    }
}
size!(RemoteHeader, 56);
/// Where the checksum lies in a block of a remote value.
pub const REMOTE_CRC_AT: usize = 12;

on_disk! {
    /// Value of a parent pointer (`struct xfs_parent_rec`); its name is the entry's.
    pub struct ParentRecord {
        /// The directory.
        pub ino: U64,
        /// Its generation.
        pub generation: U32,
    }
}
size!(ParentRecord, 12);

on_disk! {
    /// An entry of an ACL, which is the number of entries in 4 bytes and then these
    /// (`struct xfs_acl_entry` in `xfs_format.h`).
    pub struct AclEntry {
        /// Whom it is about, as `ACL_USER` of Linux.
        pub tag: U32,
        /// Which user or group; all ones if neither.
        pub id: U32,
        /// Read, write, execute: bits 2, 1, 0.
        pub permissions: U16,
        /// Zero.
        pub pad: U16,
    }
}
size!(AclEntry, 12);
