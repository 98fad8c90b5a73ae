//! Persistent bitmaps: their bits, tables and directory.

use super::WriteError;
use super::space::Space;
use crate::qcow2::format::{BitmapEntry, BitmapTableEntry};
use zerocopy::{FromZeros, IntoBytes};

/// A bitmap.
#[derive(Debug, Clone)]
pub struct Bits {
    /// Its name, of at most 1023 bytes.
    pub name: String,
    /// log2 of the bytes of the disk that a bit stands for, 9 to 31.
    pub granularity_bits: u8,
    /// [`BitmapFlag`](crate::qcow2::format::BitmapFlag) bits.
    pub flags: u32,
    /// The bits, the lowest of each byte first.
    pub bits: Vec<u8>,
}

/// Where bitmaps lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Directory {
    pub(super) count: u32,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Writes all of them; none if there are none.
pub(super) fn write(
    bitmaps: &[Bits],
    cluster_bits: u32,
    space: &mut Space<'_>,
) -> Result<Option<Directory>, WriteError> {
    let mut directory = Vec::new();
    for bitmap in bitmaps {
        one(&mut directory, bitmap, cluster_bits, space)?;
    }
    if bitmaps.is_empty() {
        return Ok(None);
    }
    let length = directory.len() as u64;
    Ok(Some(Directory {
        count: bitmaps.len() as u32,
        offset: space.table(directory)?,
        length,
    }))
}

fn one(
    directory: &mut Vec<u8>,
    bitmap: &Bits,
    cluster_bits: u32,
    space: &mut Space<'_>,
) -> Result<(), WriteError> {
    let mut table = Vec::new();
    for bits in bitmap.bits.chunks(1 << cluster_bits) {
        let entry = if bits.iter().all(|byte| *byte == 0) {
            BitmapTableEntry::Zeroes
        } else {
            BitmapTableEntry::At(space.table(bits.to_vec())?)
        };
        table.extend_from_slice(&entry.encode().to_be_bytes());
    }
    let name = bitmap.name.as_bytes();
    let mut entry = BitmapEntry::new_zeroed();
    entry.table_size = ((table.len() / 8) as u32).into();
    entry.table_offset = space.table(table)?.into();
    entry.flags = bitmap.flags.into();
    entry.kind = 1;
    entry.granularity_bits = bitmap.granularity_bits;
    entry.name_size = u16::try_from(name.len())
        .ok()
        .filter(|length| *length <= 1023)
        .ok_or(WriteError::Option(
            "the name of a bitmap has more than 1023 bytes",
        ))?
        .into();
    directory.extend_from_slice(entry.as_bytes());
    directory.extend_from_slice(name);
    directory.resize(directory.len().next_multiple_of(8), 0);
    Ok(())
}
