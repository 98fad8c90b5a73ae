//! How a node looks on disk.
//!
//! ```text
//!  0..32  block header: checksum, kind, address, store, generation
//! 32..64  node header: level, count, value_len, a
//! 64..    count records in ascending key order; the rest is zero
//!
//! leaf      b u64 | c u64 | value [value_len]               key = (header.a, b, c)
//! interior  a u64 | b u64 | c u64 | block u64 | generation u64        header.a = 0
//! ```
//!
//! `value_len` counts the bytes after the key, so it is [`PTR_LEN`] above the
//! leaves and the two sorts of node are read by the same code.

use std::mem::offset_of;

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::block::BLOCK_SIZE;
use crate::format::{DiskPtr, HEADER_LEN, Kind};

/// Levels a tree may have. A full tree of this height exceeds any device; more is
/// damage.
pub const MAX_HEIGHT: u16 = 12;
/// Bytes before the first record of a node.
pub const NODE_HEADER_LEN: usize = 64;
/// Bytes of a pointer in an interior record.
pub const PTR_LEN: usize = 16;
/// Smallest value a leaf record may have, bytes.
pub const MIN_VALUE_LEN: usize = 8;
/// Largest value a leaf record may have, bytes: three records fit a leaf.
pub const MAX_VALUE_LEN: usize = 1080;

/// Bytes 32..64 of a node.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct NodeHeader {
    pub(crate) level: U16,
    pub(crate) count: U16,
    pub(crate) value_len: U16,
    pub(crate) reserved: U16,
    pub(crate) a: U64,
    pub(crate) reserved2: [u8; 16],
}

/// What a leaf record begins with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LeafKey {
    pub(crate) b: U64,
    pub(crate) c: U64,
}

/// What an interior record begins with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct InteriorKey {
    pub(crate) a: U64,
    pub(crate) b: U64,
    pub(crate) c: U64,
}

const _: () = {
    assert!(HEADER_LEN + size_of::<NodeHeader>() == NODE_HEADER_LEN);
    assert!(offset_of!(NodeHeader, a) == 8);
    assert!(size_of::<LeafKey>() == 16);
    assert!(size_of::<InteriorKey>() == 24);
    assert!(size_of::<DiskPtr>() == PTR_LEN);
    assert!((BLOCK_SIZE - NODE_HEADER_LEN) / (size_of::<LeafKey>() + MAX_VALUE_LEN) == 3);
};

/// What the nodes of one tree have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Block type of its nodes.
    pub kind: Kind,
    /// Bytes of a record's value, [`MIN_VALUE_LEN`] to [`MAX_VALUE_LEN`].
    pub value_len: usize,
    /// Low 64 bits of the store's UUID.
    pub store: u64,
}

impl Shape {
    /// Bytes after the key of a record at `level`.
    #[must_use]
    pub const fn value_len_at(&self, level: u16) -> usize {
        if level == 0 { self.value_len } else { PTR_LEN }
    }

    /// Records a node of `level` has room for.
    #[must_use]
    pub const fn capacity(&self, level: u16) -> usize {
        (BLOCK_SIZE - NODE_HEADER_LEN) / (key_len(level) + self.value_len_at(level))
    }
}

/// Bytes of a key in a record at `level`.
pub(super) const fn key_len(level: u16) -> usize {
    if level == 0 {
        size_of::<LeafKey>()
    } else {
        size_of::<InteriorKey>()
    }
}
