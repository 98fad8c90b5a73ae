//! The superblock (`struct erofs_super_block`), its configurations of algorithms
//! (`struct z_erofs_*_cfgs`) and the table of devices (`struct erofs_deviceslot`).

use super::{U16, U32, U64, on_disk, size};

/// At byte 0 of the superblock.
pub const MAGIC: u32 = 0xE0F5_E1E2;
/// Where the superblock lies, in bytes; nothing of EROFS lies before it.
pub const AT: u64 = 1024;
/// Bytes of a superblock without extension slots.
pub const SIZE: usize = 128;
/// Bytes of one extension slot.
pub const SLOT: usize = 16;

on_disk! {
    /// The superblock without its extension slots.
    pub struct Superblock {
        /// [`MAGIC`].
        pub magic: U32,
        /// CRC32C, not inverted at the end, of the first block from the superblock on,
        /// this field as zero; with [`compat::SB_CHKSUM`].
        pub checksum: U32,
        /// Features that a reader may ignore: [`compat`].
        pub feature_compat: U32,
        /// Logarithm of the block size: 9 to 16.
        pub block_bits: u8,
        /// Extension slots after these 128 bytes.
        pub extension_slots: u8,
        /// Root directory's number; with [`incompat::BIT48`] the block count's upper half.
        pub root_nid_or_blocks_high: U16,
        /// Inodes.
        pub inodes: U64,
        /// Base of the seconds of compact inodes, since 1970; may be negative.
        pub epoch: U64,
        /// Nanoseconds of compact inodes.
        pub fixed_nanoseconds: U32,
        /// Blocks of the primary device, low half.
        pub blocks_low: U32,
        /// First block of the metadata: nid 0 lies at its first byte.
        pub meta_block: U32,
        /// First block of the shared attributes.
        pub xattr_block: U32,
        /// Identity.
        pub uuid: [u8; 16],
        /// Label, filled up with zeroes.
        pub label: [u8; 16],
        /// Features that a reader must know: [`incompat`].
        pub feature_incompat: U32,
        /// Bit per algorithm, with [`incompat::COMPRESSION_CONFIGS`]; else LZ4's longest
        /// distance (0 for 65,535).
        pub algorithms_or_lz4_distance: U16,
        /// Devices besides the primary one.
        pub extra_devices: U16,
        /// Where the table of devices lies, in units of 128 bytes.
        pub device_table: U16,
        /// Directory block's logarithm less the block's: 0.
        pub directory_block_bits: u8,
        /// Long attribute name prefixes.
        pub xattr_prefixes: u8,
        /// Where they lie, in units of 4 bytes: in the packed inode, in the metabox or, with
        /// [`compat::PLAIN_XATTR_PREFIXES`], in the image.
        pub xattr_prefix_at: U32,
        /// Number of the packed inode, which holds fragments; 0 for none.
        pub packed_nid: U64,
        /// Not 0: the name filter is not to be used.
        pub xattr_filter_reserved: u8,
        /// Index of the long prefix of attributes that identify shared contents.
        pub share_xattr_prefix: u8,
        /// Zero.
        pub reserved: [u8; 2],
        /// Seconds from `epoch` to when the image was made.
        pub build_time: U32,
        /// Root directory's number with [`incompat::BIT48`].
        pub root_nid: U64,
        /// Zero.
        pub reserved2: U64,
    }
}
size!(Superblock, SIZE);

on_disk! {
    /// Extension slot 0.
    pub struct Slot0 {
        /// Number of the metabox inode, with [`incompat::METABOX`].
        pub metabox_nid: U64,
        /// Zero.
        pub reserved: U64,
    }
}
size!(Slot0, SLOT);

/// Bits of `feature_compat` (`EROFS_FEATURE_COMPAT_*`).
pub mod compat {
    /// The superblock has a checksum.
    pub const SB_CHKSUM: u32 = 1;
    /// Times are times of modification.
    pub const MTIME: u32 = 1 << 1;
    /// Attribute headers have a name filter.
    pub const XATTR_FILTER: u32 = 1 << 2;
    /// Shared attributes lie in the metabox.
    pub const SHARED_XATTRS_IN_METABOX: u32 = 1 << 3;
    /// Long prefixes lie in the image itself.
    pub const PLAIN_XATTR_PREFIXES: u32 = 1 << 4;
    /// Attributes say which contents are shared between images.
    pub const ISHARE_XATTRS: u32 = 1 << 5;
}

/// Bits of `feature_incompat` (`EROFS_FEATURE_INCOMPAT_*`).
pub mod incompat {
    /// LZ4 data stands at the end of its cluster, zeroes before it.
    pub const LZ4_0PADDING: u32 = 1;
    /// Configurations of algorithms follow the superblock.
    pub const COMPRESSION_CONFIGS: u32 = 1 << 1;
    /// Physical clusters of more than a block: the same bit.
    pub const BIG_PCLUSTER: u32 = 1 << 1;
    /// Files in chunks.
    pub const CHUNKED_FILE: u32 = 1 << 2;
    /// A table of devices.
    pub const DEVICE_TABLE: u32 = 1 << 3;
    /// A second algorithm in one file: the same bit.
    pub const HEAD2: u32 = 1 << 3;
    /// Compressed tails beside the inode.
    pub const ZTAILPACKING: u32 = 1 << 4;
    /// Tails or files in the packed inode.
    pub const FRAGMENTS: u32 = 1 << 5;
    /// Extents that refer to a part of a cluster: the same bit.
    pub const DEDUPE: u32 = 1 << 5;
    /// Long attribute name prefixes.
    pub const XATTR_PREFIXES: u32 = 1 << 6;
    /// Block numbers of 48 bits, encoded extents.
    pub const BIT48: u32 = 1 << 7;
    /// Metadata in an inode of its own.
    pub const METABOX: u32 = 1 << 8;
    /// All of these.
    pub const ALL: u32 = (METABOX << 1) - 1;
}

/// Algorithms (`Z_EROFS_COMPRESSION_*`).
pub mod algorithm {
    /// LZ4 block format.
    pub const LZ4: u8 = 0;
    /// "MicroLZMA": LZMA whose first byte is the properties', inverted.
    pub const LZMA: u8 = 1;
    /// Raw DEFLATE.
    pub const DEFLATE: u8 = 2;
    /// Zstandard frames.
    pub const ZSTD: u8 = 3;
}

// Each configuration lies behind a `U16` with its length; they follow the superblock
// (and its slots) in the order of the algorithms' bits.

on_disk! {
    /// LZ4's configuration.
    pub struct Lz4Config {
        /// Longest distance, in bytes.
        pub max_distance: U16,
        /// Largest physical cluster, in blocks.
        pub max_cluster_blocks: U16,
        /// Zero.
        pub reserved: [u8; 10],
    }
}
size!(Lz4Config, 14);

on_disk! {
    /// LZMA's configuration.
    pub struct LzmaConfig {
        /// Dictionary, in bytes: at least 4096.
        pub dictionary: U32,
        /// 0.
        pub format: U16,
        /// Zero.
        pub reserved: [u8; 8],
    }
}
size!(LzmaConfig, 14);

/// LZMA's largest dictionary, in bytes.
pub const LZMA_DICTIONARY_MAX: u32 = 8 << 20;

on_disk! {
    /// DEFLATE's configuration.
    pub struct DeflateConfig {
        /// Logarithm of the window: 8 to 15.
        pub window_bits: u8,
        /// Zero.
        pub reserved: [u8; 5],
    }
}
size!(DeflateConfig, 6);

on_disk! {
    /// Zstandard's configuration.
    pub struct ZstdConfig {
        /// 0.
        pub format: u8,
        /// Logarithm of the window less 10.
        pub window_log: u8,
        /// Zero.
        pub reserved: [u8; 4],
    }
}
size!(ZstdConfig, 6);

/// Zstandard's largest window, in bytes.
pub const ZSTD_WINDOW_MAX: u32 = 1 << 20;

on_disk! {
    /// A device besides the primary one.
    pub struct DeviceSlot {
        /// What it is called: a digest, or any text.
        pub tag: [u8; 64],
        /// Its blocks, low half.
        pub blocks_low: U32,
        /// Its first block in the space that all devices share, low half; 0 for none.
        pub address_low: U32,
        /// Upper half of `blocks_low`.
        pub blocks_high: U16,
        /// Upper half of `address_low`.
        pub address_high: U16,
        /// Zero.
        pub reserved: [u8; 52],
    }
}
size!(DeviceSlot, 128);
