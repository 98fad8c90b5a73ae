//! A clean log: one record that says the file system was unmounted, at its beginning;
//! the kernel takes zeroes behind it for a log that never went round
//! (`libxfs_log_header` in xfsprogs, `xlog_find_head` in the kernel).

use super::super::format::log::{
    CLIENT_LOG, FORMAT_LINUX_LE, MAGIC, Operation, RECORD_SIZE, RecordHeader, UNMOUNT, UNMOUNT_TYPE,
};
use super::super::geometry::Geometry;
use zerocopy::IntoBytes;

/// A basic block, the log's unit.
const SECTOR: usize = 512;
/// The only cycle so far.
const CYCLE: u32 = 1;
/// Transaction of the unmount operation; any would do.
const TRANSACTION: u32 = 0xb0c0_d0d0;

/// The record, to be written at the log's first byte.
pub(crate) fn clean(geometry: &Geometry) -> Vec<u8> {
    let unit = geometry.log_unit as usize;
    // One more header for every further 32 KiB of a record.
    let headers = unit.div_ceil(RECORD_SIZE as usize).max(1);
    let sectors = (unit / SECTOR).max(headers + 1);
    let lsn = u64::from(CYCLE) << 32;
    let mut header = RecordHeader {
        magic: MAGIC.into(),
        cycle: CYCLE.into(),
        version: 2.into(),
        length: ((sectors - headers) as u32 * SECTOR as u32).into(),
        lsn: lsn.into(),
        tail_lsn: lsn.into(),
        previous: u32::MAX.into(),
        operations: 1.into(),
        format: FORMAT_LINUX_LE.into(),
        uuid: *geometry.uuid.as_bytes(),
        size: geometry.log_unit.max(RECORD_SIZE).into(),
        ..RecordHeader::default()
    };
    // What the cycle hides of the operation.
    header.cycle_data[0] = TRANSACTION.into();

    let mut record = vec![0; sectors * SECTOR];
    for sector in record.chunks_exact_mut(SECTOR).skip(1) {
        sector[..4].copy_from_slice(&CYCLE.to_be_bytes());
    }
    record[..size_of::<RecordHeader>()].copy_from_slice(header.as_bytes());
    let unmount = &mut record[headers * SECTOR..][..SECTOR];
    let operation = Operation {
        transaction: CYCLE.into(),
        length: 8.into(),
        client: CLIENT_LOG,
        flags: UNMOUNT,
        reserved: [0; 2],
    };
    unmount[..12].copy_from_slice(operation.as_bytes());
    unmount[12..14].copy_from_slice(&UNMOUNT_TYPE.to_le_bytes());
    record
}
