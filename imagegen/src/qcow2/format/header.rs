//! The header (specification: "Header"), at byte 0.

use super::{U32, U64, on_disk, size};

/// "QFI\xfb".
pub const MAGIC: u32 = 0x5146_49fb;
/// Bytes of version 2's header: up to `incompatible`.
pub const LENGTH_V2: u32 = 72;
/// Bytes of version 3's header without the fields that came later.
pub const LENGTH_V3: u32 = 104;
/// With the compression type, padded to 8 bytes.
pub const LENGTH_WITH_COMPRESSION: u32 = 112;

on_disk! {
    /// The header. Of version 2 only what is before `incompatible` is there.
    pub struct Header {
        /// [`MAGIC`].
        pub magic: U32,
        /// 2 or 3.
        pub version: U32,
        /// Byte of the backing file's name; 0: there is none.
        pub backing_file_offset: U64,
        /// Bytes of that name.
        pub backing_file_size: U32,
        /// log2 of a cluster's bytes.
        pub cluster_bits: U32,
        /// Bytes of the disk.
        pub size: U64,
        /// 0: none; 1: AES; 2: LUKS.
        pub crypt_method: U32,
        /// Entries of the active level 1 table.
        pub l1_size: U32,
        /// Its byte.
        pub l1_table_offset: U64,
        /// Byte of the refcount table.
        pub refcount_table_offset: U64,
        /// Its clusters.
        pub refcount_table_clusters: U32,
        /// Internal snapshots.
        pub nb_snapshots: U32,
        /// Byte of their table.
        pub snapshots_offset: U64,
        /// [`Incompatible`] bits.
        pub incompatible: U64,
        /// [`Compatible`] bits.
        pub compatible: U64,
        /// [`Autoclear`] bits.
        pub autoclear: U64,
        /// log2 of a refcount's bits.
        pub refcount_order: U32,
        /// Bytes of the header.
        pub header_length: U32,
        /// [`CompressionType`].
        pub compression_type: u8,
        /// Zero.
        pub padding: [u8; 7],
    }
}
size!(Header, LENGTH_WITH_COMPRESSION as usize);

/// Bits whoever does not know them must not read past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incompatible {
    /// Refcounts may be wrong.
    Dirty = 0,
    /// Something is known to be damaged.
    Corrupt = 1,
    /// Clusters of the guest lie in another file.
    ExternalData = 2,
    /// Compressed clusters are not deflate.
    CompressionType = 3,
    /// Level 2 entries have subclusters.
    ExtendedL2 = 4,
}

/// Bits that do not matter to whoever does not know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compatible {
    /// Refcounts are brought up to date late.
    LazyRefcounts = 0,
}

/// Bits that whoever does not know them clears when writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Autoclear {
    /// The bitmaps are consistent with the contents.
    Bitmaps = 0,
    /// The external data file can be read as a raw image.
    RawExternal = 1,
}

macro_rules! masks {
    ($($kind:ident)*) => {$(
        impl $kind {
            /// The bit in its field.
            #[must_use]
            pub const fn mask(self) -> u64 {
                1 << self as u32
            }
        }
    )*};
}
masks!(Incompatible Compatible Autoclear);

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionType {
    /// Raw deflate with a window of 4 KiB (`zlib` in QEMU).
    Deflate = 0,
    /// A zstd frame, which need not tell its size.
    Zstd = 1,
}

impl CompressionType {
    /// By its number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Deflate),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// As QEMU calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deflate => "zlib",
            Self::Zstd => "zstd",
        }
    }
}
