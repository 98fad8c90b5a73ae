//! The log: of this file system, and written out (`xlog_find_tail` in
//! `xfs_log_recover.c`).
//!
//! Each sector of the log carries the number of the round it was written in. Those
//! before the head carry one more than those behind it, so the head is found by halving.

use super::problem::{Kind, Problems};
use crate::xfs::format::U32;
use crate::xfs::format::log::{MAGIC, Operation, RECORD_SIZE, RecordHeader, UNMOUNT};
use crate::xfs::read::{Place, Reader, Result, Source};
use zerocopy::FromBytes;

/// Sectors of the largest record, with its headers.
const RECORD_SECTORS: u64 = (256 * 1024 + 8 * 512) / 512;

/// Checks the log; returns the sequence number which nothing may exceed, if it is known.
pub(super) fn check<S: Source>(reader: &Reader<S>, problems: &mut Problems) -> Option<u64> {
    match find(reader, problems) {
        Ok(head) => head,
        Err(error) => {
            problems.read(Kind::Log, &error);
            None
        }
    }
}

fn sector<S: Source>(reader: &Reader<S>, index: u64) -> Result<Vec<u8>> {
    let begin = reader.geometry().byte_of(reader.geometry().log_start);
    reader.bytes(begin + index * 512, 512)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let rest = bytes.get(at..).unwrap_or_default();
    U32::read_from_prefix(rest).map_or(0, |(word, _)| word.get())
}

fn round<S: Source>(reader: &Reader<S>, index: u64) -> Result<u32> {
    let bytes = sector(reader, index)?;
    Ok(match word(&bytes, 0) {
        MAGIC => word(&bytes, 4),
        round => round,
    })
}

/// The first sector that will be written next.
fn head<S: Source>(reader: &Reader<S>, sectors: u64) -> Result<u64> {
    let first = round(reader, 0)?;
    if round(reader, sectors - 1)? == first {
        return Ok(0);
    }
    let (mut low, mut high) = (0, sectors - 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if round(reader, middle)? == first {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(high)
}

fn find<S: Source>(reader: &Reader<S>, problems: &mut Problems) -> Result<Option<u64>> {
    let geometry = reader.geometry();
    let sectors = u64::from(geometry.log_blocks) << (geometry.block_log - 9);
    let head = head(reader, sectors)?;
    let place = Place::Everywhere;
    // Backwards from the head, round the end if need be, to the last record.
    for back in 1..=RECORD_SECTORS.min(sectors) {
        let at = (head + sectors - back) % sectors;
        let bytes = sector(reader, at)?;
        if word(&bytes, 0) != MAGIC {
            continue;
        }
        let Ok((record, _)) = RecordHeader::read_from_prefix(&bytes) else {
            continue;
        };
        if record.uuid != reader.superblock().uuid {
            let text = "the log belongs to another file system (uuid); it will not mount";
            problems.add(Kind::Log, place, text);
        }
        check_record(&record, at, problems);
        if !is_unmount(reader, &record, at, head, sectors)? {
            let text = "the log was not written out: the file system is in use or crashed; \
                        what follows may be stale";
            problems.dirty_log(text);
            // It may still be written to: what is newer is no wonder.
            return Ok(None);
        }
        return Ok(Some(u64::from(record.cycle.get()) << 32 | at));
    }
    problems.add(Kind::Log, place, "the log holds no record before its head");
    Ok(None)
}

fn check_record(record: &RecordHeader, at: u64, problems: &mut Problems) {
    let mut rule = |holds, what: &str| {
        let text = || format!("the last record of the log, in sector {at}: {what}");
        problems.expect(holds, Kind::Log, Place::Everywhere, text);
    };
    let lsn = u64::from(record.cycle.get()) << 32 | at;
    rule(record.version.get() == 2, "not of version 2");
    rule(record.cycle.get() > 0, "of no round");
    rule(record.lsn.get() == lsn, "its sequence number is another");
    rule(
        record.tail_lsn.get() <= record.lsn.get(),
        "its tail lies after it",
    );
    rule(record.length.get() <= 256 * 1024, "its length cannot be");
}

/// Whether the last record, at sector `at`, is an unmount and the head follows it.
fn is_unmount<S: Source>(
    reader: &Reader<S>,
    record: &RecordHeader,
    at: u64,
    head: u64,
    sectors: u64,
) -> Result<bool> {
    let headers = u64::from(record.size.get())
        .div_ceil(RECORD_SIZE.into())
        .clamp(1, 8);
    let data = (at + headers) % sectors;
    let length = u64::from(record.length.get()).div_ceil(512);
    let follows = (data + length) % sectors == head;
    if record.operations.get() != 1 || !follows {
        return Ok(false);
    }
    let bytes = sector(reader, data)?;
    let operation = Operation::read_from_prefix(&bytes);
    Ok(operation.is_ok_and(|(operation, _)| operation.flags & UNMOUNT != 0))
}
