//! The log (`xfs_log_format.h`): only what a clean one holds, one record with an unmount.

use super::{U32, U64, on_disk, size};

/// A record's header.
pub const MAGIC: u32 = 0xfeed_babe;
/// Bytes a header's cycle words speak of (`XLOG_HEADER_CYCLE_SIZE`).
pub const RECORD_SIZE: u32 = 32 * 1024;
/// "Un": type of an unmount record.
pub const UNMOUNT_TYPE: u16 = 0x556e;
/// Format of the log's items: Linux, little-endian (`XLOG_FMT_LINUX_LE`).
pub const FORMAT_LINUX_LE: u32 = 1;
/// Client "transaction" in operations (`XFS_LOG`).
pub const CLIENT_LOG: u8 = 0xaa;
/// Operation flag: unmount (`XLOG_UNMOUNT_TRANS`).
pub const UNMOUNT: u8 = 0x20;

on_disk! {
    /// Header of a record (`struct xlog_rec_header`).
    pub struct RecordHeader {
        /// [`MAGIC`].
        pub magic: U32,
        /// How often the log went round, from 1.
        pub cycle: U32,
        /// 2.
        pub version: U32,
        /// Bytes after this header.
        pub length: U32,
        /// Cycle and block of this record.
        pub lsn: U64,
        /// Cycle and block of the oldest that counts.
        pub tail_lsn: U64,
        /// Checksum, or 0.
        pub crc: U32,
        /// Block of the previous record, or all ones.
        pub previous: U32,
        /// Operations.
        pub operations: U32,
        /// First words of the data's sectors, whose places hold the cycle.
        pub cycle_data: [U32; 64],
        /// Format of items.
        pub format: U32,
        /// Identity of the file system.
        pub uuid: [u8; 16],
        /// Bytes of the log's buffers.
        pub size: U32,
        /// Zero.
        pub pad: U32,
    }
}
size!(RecordHeader, 328);

on_disk! {
    /// An operation (`struct xlog_op_header`).
    pub struct Operation {
        /// Transaction.
        pub transaction: U32,
        /// Bytes of its data.
        pub length: U32,
        /// Who wrote it.
        pub client: u8,
        /// What it is.
        pub flags: u8,
        /// Zero.
        pub reserved: [u8; 2],
    }
}
size!(Operation, 12);
