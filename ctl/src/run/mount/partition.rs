//! Where a partition of a snapshot lies. The kernel does not look for partitions
//! on snapshots, lest it offer file systems a second time under the same UUIDs.
//!
//! Contract: the table is somebody's data; every number in it is checked, and what
//! comes out lies on the device.

use std::fs::File;

use ublk_target::control::protocol::{ErrorCode, Failure};

use super::content::Part;
use crate::Done;

/// Sizes of a logical block that partition tables are written for.
const BLOCKS: [u64; 2] = [512, 4096];

/// Least and greatest size of an entry of a GUID partition table.
const ENTRY: std::ops::RangeInclusive<u64> = 128..=4096;

/// DOS partition types that are a chain of further partitions.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// Partition `number` (from 1) of a device.
///
/// # Errors
/// When there is none, or the table makes no sense.
pub(super) fn find(device: &File, whole: Part, number: u32, name: &str) -> Done<Part> {
    let found = BLOCKS
        .into_iter()
        .find_map(|block| gpt(device, whole, number, block))
        .unwrap_or_else(|| dos(device, whole, number));
    let part = found.map_err(|why| {
        Failure::new(ErrorCode::Error, format!("{name}: {why}"))
            .next(format!("fdisk -l {name} shows the partitions"))
    })?;
    let fits = part.start.checked_add(part.len);
    if part.len == 0 || fits.is_none_or(|end| end > whole.len) {
        let message = format!("{name}: partition {number} does not lie on the device");
        return Err(Failure::new(ErrorCode::Error, message));
    }
    Ok(part)
}

type Found = Result<Part, String>;

/// By the GUID partition table (UEFI specification, chapter 5), if there is one
/// for logical blocks of `block` bytes.
fn gpt(device: &File, whole: Part, number: u32, block: u64) -> Option<Found> {
    let mut header = [0; 92];
    whole.read(device, block, &mut header).ok()?;
    if !header.starts_with(b"EFI PART") {
        return None;
    }
    Some(gpt_entry(device, whole, number, block, &header))
}

fn gpt_entry(device: &File, whole: Part, number: u32, block: u64, header: &[u8]) -> Found {
    let (count, size) = (u64::from(le32(header, 80)), u64::from(le32(header, 84)));
    let index = u64::from(number) - 1;
    if index >= count || !ENTRY.contains(&size) {
        return Err(format!("there is no partition {number}"));
    }
    let table = le64(header, 72).checked_mul(block);
    let at = table.and_then(|table| table.checked_add(index * size));
    let mut entry = [0; 48];
    let read = at.map(|at| whole.read(device, at, &mut entry));
    if !matches!(read, Some(Ok(()))) {
        return Err("the partition table cannot be read".to_owned());
    }
    if entry.iter().take(16).all(|&byte| byte == 0) {
        return Err(format!("there is no partition {number}"));
    }
    let (first, last) = (le64(&entry, 32), le64(&entry, 40));
    part(
        first,
        last.checked_sub(first).and_then(|n| n.checked_add(1)),
        block,
    )
}

/// By the DOS partition table; of its partitions the first four.
fn dos(device: &File, whole: Part, number: u32) -> Found {
    let mut sector = [0; 512];
    let read = whole.read(device, 0, &mut sector);
    if read.is_err() || !sector.ends_with(&[0x55, 0xaa]) {
        return Err("there is no partition table".to_owned());
    }
    if number > 4 {
        return Err(
            "only the four primary partitions of a DOS partition table are found; \
                    for others: losetup --read-only --partscan --find --show"
                .to_owned(),
        );
    }
    let entry = 446 + 16 * (number as usize - 1);
    let kind = sector.get(entry + 4).copied().unwrap_or(0);
    if EXTENDED.contains(&kind) {
        return Err(format!("partition {number} holds others, no file system"));
    }
    let (first, count) = (le32(&sector, entry + 8), le32(&sector, entry + 12));
    if kind == 0 || count == 0 {
        return Err(format!("there is no partition {number}"));
    }
    part(u64::from(first), Some(u64::from(count)), 512)
}

fn part(first: u64, count: Option<u64>, block: u64) -> Found {
    let start = first.checked_mul(block);
    let len = count.and_then(|count| count.checked_mul(block));
    match (start, len) {
        (Some(start), Some(len)) => Ok(Part { start, len }),
        _ => Err("the partition table makes no sense".to_owned()),
    }
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    le64(bytes, at) as u32
}

/// Eight bytes, the least first; what is beyond the end counts as zero.
fn le64(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.iter().skip(at).take(8).rev();
    bytes.fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 64 << 20;

    fn device(writes: &[(u64, &[u8])]) -> (File, Part) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        for (at, bytes) in writes {
            file.write_all_at(bytes, *at).unwrap();
        }
        (
            file,
            Part {
                start: 0,
                len: SIZE,
            },
        )
    }

    fn dos_table(kind: u8, first: u32, count: u32) -> Vec<u8> {
        let mut sector = vec![0; 512];
        sector[446 + 16 + 4] = kind;
        sector[446 + 16 + 8..][..4].copy_from_slice(&first.to_le_bytes());
        sector[446 + 16 + 12..][..4].copy_from_slice(&count.to_le_bytes());
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    fn gpt_header(table: u64, count: u32, size: u32) -> Vec<u8> {
        let mut header = b"EFI PART".to_vec();
        header.resize(92, 0);
        header[72..80].copy_from_slice(&table.to_le_bytes());
        header[80..84].copy_from_slice(&count.to_le_bytes());
        header[84..88].copy_from_slice(&size.to_le_bytes());
        header
    }

    fn gpt_row(first: u64, last: u64) -> Vec<u8> {
        let mut entry = vec![0xaf; 16];
        entry.resize(128, 0);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
        entry
    }

    #[test]
    fn partitions_of_a_dos_table_are_found() {
        let (file, whole) = device(&[(0, &dos_table(0x83, 2048, 4096))]);
        let expected = Part {
            start: 2048 * 512,
            len: 4096 * 512,
        };
        assert_eq!(find(&file, whole, 2, "x").unwrap(), expected);
        for missing in [1, 3, 4, 5] {
            assert!(find(&file, whole, missing, "x").is_err());
        }
        for bad in [dos_table(0x05, 2048, 4096), dos_table(0x83, 2048, u32::MAX)] {
            let (file, whole) = device(&[(0, &bad)]);
            assert!(find(&file, whole, 2, "x").is_err());
        }
    }

    #[test]
    fn partitions_of_a_guid_table_are_found_for_both_sizes_of_blocks() {
        for block in BLOCKS {
            let (header, row) = (gpt_header(2, 4, 128), gpt_row(100, 199));
            let (file, whole) = device(&[(block, &header), (2 * block + 128, &row)]);
            let expected = Part {
                start: 100 * block,
                len: 100 * block,
            };
            assert_eq!(find(&file, whole, 2, "x").unwrap(), expected);
            assert!(find(&file, whole, 1, "x").is_err());
            assert!(find(&file, whole, 5, "x").is_err());
        }
    }

    proptest! {
        #[test]
        fn whatever_a_table_says_the_part_lies_on_the_device(
            table in prop_oneof![0..200u64, any::<u64>()],
            count: u32,
            size: u32,
            first in prop_oneof![0..300_000u64, any::<u64>()],
            last in prop_oneof![0..300_000u64, any::<u64>()],
            number in 1..=128u32,
        ) {
            let (header, row) = (gpt_header(table, count, size), gpt_row(first, last));
            let at = (table % 200) * 512 + (u64::from(number) - 1) * 128;
            let (file, whole) = device(&[(512, &header), (at.max(1024), &row)]);
            if let Ok(part) = find(&file, whole, number, "x") {
                prop_assert!(part.len > 0 && part.start + part.len <= SIZE);
            }
        }
    }
}
