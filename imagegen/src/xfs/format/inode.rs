//! The inode (`struct xfs_dinode` in `xfs_format.h`), version 3.
//!
//! After these 176 bytes comes the data fork, and at `fork_offset * 8` after them the
//! attribute fork, to the inode's end.

use super::{U16, U32, U64, on_disk, size};

/// "IN".
pub const MAGIC: u16 = 0x494e;
/// Where the checksum lies.
pub const CRC_AT: usize = 100;
/// Where the forks begin.
pub const FORKS_AT: usize = 176;

on_disk! {
    /// The inode's core.
    pub struct Inode {
        /// [`MAGIC`].
        pub magic: U16,
        /// Kind and permissions, as `st_mode`.
        pub mode: U16,
        /// 3.
        pub version: u8,
        /// Form of the data fork: [`mod@format`].
        pub format: u8,
        /// Metadata file type; else 0.
        pub metatype: U16,
        /// Owner.
        pub uid: U32,
        /// Group.
        pub gid: U32,
        /// Links.
        pub nlink: U32,
        /// Project id, low half.
        pub project_low: U16,
        /// Project id, high half.
        pub project_high: U16,
        /// Extents of the data fork, with nrext64; else zero and flush counter.
        pub big_nextents: U64,
        /// Last read.
        pub atime: U64,
        /// Contents changed.
        pub mtime: U64,
        /// Inode changed.
        pub ctime: U64,
        /// Bytes of contents.
        pub size: U64,
        /// Blocks in use: data, attributes and their B-trees.
        pub nblocks: U64,
        /// Extent size hint in blocks.
        pub extent_size: U32,
        /// Extents of the attribute fork with nrext64, else of the data fork.
        pub nextents: U32,
        /// Extents of the attribute fork without nrext64; else 0.
        pub small_anextents: U16,
        /// Where the attribute fork begins, in units of 8 bytes after the core; 0 for none.
        pub fork_offset: u8,
        /// Form of the attribute fork: [`mod@format`].
        pub attr_format: u8,
        /// Zero.
        pub dm_event_mask: U32,
        /// Zero.
        pub dm_state: U16,
        /// Flags: immutable and so on.
        pub flags: U16,
        /// Generation.
        pub generation: U32,
        /// Next unlinked inode, or all ones.
        pub next_unlinked: U32,
        /// Checksum.
        pub crc: [u8; 4],
        /// Changes so far.
        pub change_count: U64,
        /// Sequence of the last write.
        pub lsn: U64,
        /// More flags: [`flags2`].
        pub flags2: U64,
        /// Copy-on-write extent size hint.
        pub cow_extent_size: U32,
        /// Zero.
        pub pad: [u8; 12],
        /// Created.
        pub crtime: U64,
        /// Own number.
        pub ino: U64,
        /// Identity of the file system.
        pub uuid: [u8; 16],
    }
}
size!(Inode, FORKS_AT);

/// Forms of a fork (`enum xfs_dinode_fmt`).
pub mod format {
    /// A device number.
    pub const DEV: u8 = 0;
    /// The contents themselves.
    pub const LOCAL: u8 = 1;
    /// A list of extents.
    pub const EXTENTS: u8 = 2;
    /// The root of a B-tree of extents.
    pub const BTREE: u8 = 3;
}

/// Bits of `flags` (`XFS_DIFLAG_*`).
pub mod flags {
    /// The bitmap inode of the realtime device is new.
    pub const NEW_RT_BITMAP: u16 = 1 << 2;
    /// Contents lie on the realtime device.
    pub const REALTIME: u16 = 1 << 0;
    /// New files lie on the realtime device.
    pub const REALTIME_INHERIT: u16 = 1 << 8;
    /// New files inherit the project id.
    pub const PROJECT_INHERIT: u16 = 1 << 9;
    /// No symbolic links may be made here.
    pub const NO_SYMLINKS: u16 = 1 << 10;
    /// The extent size hint counts.
    pub const EXTENT_SIZE: u16 = 1 << 11;
    /// New files inherit the extent size hint.
    pub const EXTENT_SIZE_INHERIT: u16 = 1 << 12;
    /// All bits that mean something.
    pub const KNOWN: u16 = 0x7fff;
}

/// Bits of `flags2` (`XFS_DIFLAG2_*`).
pub mod flags2 {
    /// Wants direct access.
    pub const DAX: u64 = 1 << 0;
    /// Some blocks may be shared.
    pub const REFLINK: u64 = 1 << 1;
    /// The copy-on-write extent size hint counts.
    pub const COW_EXTENT_SIZE: u64 = 1 << 2;
    /// Times of 64 bits.
    pub const BIGTIME: u64 = 1 << 3;
    /// Extent counters of 64 bits.
    pub const NREXT64: u64 = 1 << 4;
}

/// Kinds of file in `mode` (`S_IFMT`).
pub mod kind {
    /// Mask of the kind.
    pub const MASK: u16 = 0o170_000;
    /// Socket.
    pub const SOCKET: u16 = 0o140_000;
    /// Symbolic link.
    pub const SYMLINK: u16 = 0o120_000;
    /// Regular file.
    pub const REGULAR: u16 = 0o100_000;
    /// Block device.
    pub const BLOCK: u16 = 0o060_000;
    /// Directory.
    pub const DIRECTORY: u16 = 0o040_000;
    /// Character device.
    pub const CHARACTER: u16 = 0o020_000;
    /// Named pipe.
    pub const FIFO: u16 = 0o010_000;
}

/// Seconds from the first time of `bigtime` to 1970 (`XFS_BIGTIME_EPOCH_OFFSET`).
const BIGTIME_OFFSET: i64 = 1 << 31;
/// Last second of `bigtime` (`XFS_BIGTIME_TIME_MAX` since 1970, in the year 2486).
pub const BIGTIME_LAST: i64 = ((u64::MAX / NANOSECONDS) & !3) as i64 - BIGTIME_OFFSET;
const NANOSECONDS: u64 = 1_000_000_000;

/// A time of 64 bits: nanoseconds since December 1901. What lies outside is moved to the
/// nearest that can be said.
pub fn big_time(seconds: i64, nanoseconds: u32) -> U64 {
    let seconds = seconds.clamp(-BIGTIME_OFFSET, BIGTIME_LAST);
    let since = (seconds + BIGTIME_OFFSET) as u64;
    U64::new(since * NANOSECONDS + u64::from(nanoseconds))
}

/// A time of the older form: 32 bits of seconds since 1970, 32 of nanoseconds.
pub fn small_time(seconds: i64, nanoseconds: u32) -> U64 {
    let seconds = seconds.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
    U64::new(u64::from(seconds as u32) << 32 | u64::from(nanoseconds))
}

/// Seconds and nanoseconds of a time, which is of 64 bits if `big`.
pub fn time(value: U64, big: bool) -> (i64, u32) {
    let value = value.get();
    if big {
        let seconds = (value / NANOSECONDS) as i64 - BIGTIME_OFFSET;
        (seconds, (value % NANOSECONDS) as u32)
    } else {
        (i64::from((value >> 32) as i32), value as u32)
    }
}

/// A device number as an inode holds it (`sysv_encode_dev`), 18 bits of minor below the
/// major; none if it does not fit. Of the major Linux reads 9 bits only, and refuses to
/// make others (`xfs_to_linux_dev_t`, `xfs_generic_create`).
pub fn device(major: u32, minor: u32) -> Option<U32> {
    (major < 1 << 9 && minor < 1 << 18).then(|| U32::new(major << 18 | minor))
}
