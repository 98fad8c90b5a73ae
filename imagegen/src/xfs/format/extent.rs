//! An extent of a fork, packed into 16 bytes (`struct xfs_bmbt_rec`): unwritten flag 1
//! bit, offset in the file 54, block of the file system 52, length 21.

use super::{U64, on_disk, size};

/// Longest extent in blocks (`XFS_MAX_BMBT_EXTLEN`).
pub const MAX_LENGTH: u64 = (1 << 21) - 1;
/// Largest offset in a file in blocks (`BMBT_STARTOFF_MASK`).
pub const MAX_OFFSET: u64 = (1 << 54) - 1;

on_disk! {
    /// The record.
    pub struct Packed {
        /// Flag, offset and the 9 high bits of the block.
        pub l0: U64,
        /// The 43 low bits of the block, and the length.
        pub l1: U64,
    }
}
size!(Packed, 16);

/// An extent of a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    /// Offset in the file, in blocks.
    pub offset: u64,
    /// First block of the file system ("fsblock": group and block in it).
    pub block: u64,
    /// Blocks.
    pub count: u64,
    /// Allocated, but reads as zeroes.
    pub unwritten: bool,
}

impl Extent {
    /// Packed as on disk. Values beyond their bits are cut off: the writer makes none.
    pub fn pack(&self) -> Packed {
        debug_assert!(self.count <= MAX_LENGTH && self.offset <= MAX_OFFSET);
        let flag = u64::from(self.unwritten) << 63;
        let offset = (self.offset & MAX_OFFSET) << 9;
        Packed {
            l0: U64::new(flag | offset | ((self.block >> 43) & 0x1ff)),
            l1: U64::new((self.block << 21) | (self.count & MAX_LENGTH)),
        }
    }

    /// What a record says; nothing is checked.
    pub fn unpack(packed: &Packed) -> Self {
        let (l0, l1) = (packed.l0.get(), packed.l1.get());
        Self {
            offset: (l0 >> 9) & MAX_OFFSET,
            block: ((l0 & 0x1ff) << 43) | (l1 >> 21),
            count: l1 & MAX_LENGTH,
            unwritten: l0 >> 63 == 1,
        }
    }
}
