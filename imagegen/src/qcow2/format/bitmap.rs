//! Persistent dirty bitmaps (specification: "Bitmaps").

use super::{U16, U32, U64, on_disk, size};

on_disk! {
    /// Contents of the header extension.
    pub struct BitmapsExtension {
        /// How many.
        pub count: U32,
        /// Zero.
        pub reserved: U32,
        /// Bytes of the directory.
        pub directory_size: U64,
        /// Its byte, on a cluster.
        pub directory_offset: U64,
    }
}
size!(BitmapsExtension, 24);

on_disk! {
    /// What an entry of the directory begins with; extra data and the name follow, and
    /// padding to 8 bytes.
    pub struct BitmapEntry {
        /// Byte of the bitmap's table.
        pub table_offset: U64,
        /// Entries of that table.
        pub table_size: U32,
        /// [`BitmapFlag`] bits.
        pub flags: U32,
        /// 1: dirty tracking.
        pub kind: u8,
        /// log2 of the bytes a bit stands for.
        pub granularity_bits: u8,
        /// Bytes of the name.
        pub name_size: U16,
        /// Bytes of the extra data.
        pub extra_size: U32,
    }
}
size!(BitmapEntry, 24);

/// Bits of `flags`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitmapFlag {
    /// Was not stored whole: not to be relied on.
    InUse = 0,
    /// Goes on recording when the image is opened.
    Auto = 1,
    /// May be used without knowing its extra data.
    ExtraDataCompatible = 2,
}

impl BitmapFlag {
    /// The bit in its field.
    #[must_use]
    pub const fn mask(self) -> u32 {
        1 << self as u32
    }
}

/// An entry of a bitmap's table: a cluster of bits, or bits that are all alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitmapTableEntry {
    /// All clear.
    Zeroes,
    /// All set.
    Ones,
    /// In the cluster at this byte.
    At(u64),
}

const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

impl BitmapTableEntry {
    /// From the table; none if a reserved bit is set.
    #[must_use]
    pub const fn decode(raw: u64) -> Option<Self> {
        match (raw & OFFSET, raw & !OFFSET) {
            (0, 0) => Some(Self::Zeroes),
            (0, 1) => Some(Self::Ones),
            (offset, 0) => Some(Self::At(offset)),
            _ => None,
        }
    }

    /// For the table.
    #[must_use]
    pub const fn encode(self) -> u64 {
        match self {
            Self::Zeroes => 0,
            Self::Ones => 1,
            Self::At(offset) => offset,
        }
    }
}
