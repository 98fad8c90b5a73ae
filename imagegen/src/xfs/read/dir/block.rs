//! Blocks that hold entries: those of several (`DATA`) and the only one (`BLOCK`).

use super::Entry;
use crate::xfs::format::U16;
use crate::xfs::format::dir::{
    BlockTail, CRC_AT, DataHeader, FREE_TAG, LeafEntry, file_type, magic,
};
use crate::xfs::geometry::Geometry;
use crate::xfs::read::block::Wanted;
use crate::xfs::read::{ForkMap, Label, Place, Reader, Result, Source, shape, take};
use zerocopy::FromBytes;

/// What lies in a data block, without gaps between.
#[derive(Debug)]
pub(crate) enum Item {
    Entry(Entry),
    /// Unused bytes: offset in the block and length.
    Unused(usize, usize),
}

/// A block with entries.
#[derive(Debug)]
pub(crate) struct DataBlock {
    pub(crate) header: DataHeader,
    pub(crate) items: Vec<Item>,
    /// Leaf entries with their tail, if it is the only block.
    pub(crate) leaf: Option<(Vec<LeafEntry>, BlockTail)>,
}

const NAME: &str = "directory block";

/// Bytes of a data entry whose name has `length` bytes (`xfs_dir2_data_entsize`).
pub(crate) fn entry_size(length: usize) -> usize {
    (8 + 1 + length + 1 + 2).next_multiple_of(8)
}

/// Why an entry cannot be.
pub(super) fn bad_entry(geometry: &Geometry, entry: &Entry) -> Option<&'static str> {
    let (ag, number) = geometry.inode_group(entry.ino);
    let block = number >> geometry.inodes_per_block_log();
    let inside = ag < geometry.ag_count.into() && block < geometry.group_blocks(ag as u32);
    if entry.name.is_empty() {
        Some("an empty name")
    } else if entry.name.contains(&b'/') || entry.name.contains(&0) {
        Some("a name with a slash or NUL")
    } else if !inside || entry.ino == 0 {
        Some("an inode number that cannot be")
    } else if !(file_type::REGULAR..=file_type::SYMLINK).contains(&entry.file_type) {
        Some("a kind of file that cannot be")
    } else {
        None
    }
}

impl DataBlock {
    /// Reads the directory block whose first block is `offset`.
    pub(crate) fn read<S: Source>(reader: &Reader<S>, map: &ForkMap, offset: u64) -> Result<Self> {
        let geometry = reader.geometry();
        let place = map.place(offset);
        let (bytes, daddr) = map.read(reader, offset, geometry.dir_block_blocks())?;
        let header: DataHeader = take(NAME, place, &bytes, 0)?;
        let label = Label {
            magic: header.block.magic.get(),
            uuid: header.block.uuid,
            daddr: Some(header.block.daddr.get()),
            owner: Some(header.block.owner.get()),
            lsn: header.block.lsn.get(),
        };
        let wanted = Wanted {
            structure: NAME,
            place,
            magic: &[magic::BLOCK, magic::DATA],
            crc_at: CRC_AT,
            daddr,
            owner: map.ino,
        };
        reader.verify(&bytes, &label, &wanted)?;
        let (end, leaf) = if label.magic == magic::BLOCK {
            if offset != 0 {
                return Err(shape(NAME, place, "an only block that is not the first"));
            }
            read_tail(place, &bytes)?
        } else {
            (bytes.len(), None)
        };
        let first = offset / geometry.dir_block_blocks() * bytes.len() as u64 / 8;
        let body = bytes.get(..end).unwrap_or_default();
        Ok(Self {
            header,
            items: parse(geometry, place, body, first)?,
            leaf,
        })
    }

    pub(crate) fn entries(self) -> Vec<Entry> {
        let entry = |item| match item {
            Item::Entry(entry) => Some(entry),
            Item::Unused(..) => None,
        };
        self.items.into_iter().filter_map(entry).collect()
    }
}

type Tail = Option<(Vec<LeafEntry>, BlockTail)>;

/// Where entries end in the only block, and its leaf.
fn read_tail(place: Place, bytes: &[u8]) -> Result<(usize, Tail)> {
    let tail_at = bytes.len() - size_of::<BlockTail>();
    let tail: BlockTail = take(NAME, place, bytes, tail_at)?;
    let size = size_of::<LeafEntry>();
    let count = tail.count.get() as usize;
    let room = (tail_at - size_of::<DataHeader>()) / size;
    if count > room || tail.stale.get() > tail.count.get() {
        let text = format!("{count} leaf entries, {} stale", tail.stale);
        return Err(shape(NAME, place, text));
    }
    let begin = tail_at - count * size;
    let entries = bytes.get(begin..tail_at).unwrap_or_default();
    let entries = entries.chunks_exact(size);
    let leaf = entries.filter_map(|bytes| LeafEntry::read_from_bytes(bytes).ok());
    Ok((begin, Some((leaf.collect(), tail))))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(U16::read_from_prefix(bytes.get(at..)?).ok()?.0.get())
}

/// All items of a block that begins at address `first`.
fn parse(geometry: &Geometry, place: Place, bytes: &[u8], first: u64) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut at = size_of::<DataHeader>();
    while at < bytes.len() {
        let unused = half(bytes, at) == Some(FREE_TAG);
        let item = if unused {
            read_unused(bytes, at)
        } else {
            read_entry(bytes, at, first)
        };
        let Some((item, length)) = item else {
            let text = format!("what lies at byte {at} cannot be");
            return Err(shape(NAME, place, text));
        };
        if let Item::Entry(entry) = &item
            && let Some(flaw) = bad_entry(geometry, entry)
        {
            let text = format!("entry \"{}\": {flaw}", entry.name.escape_ascii());
            return Err(shape(NAME, place, text));
        }
        let touching = matches!(items.last(), Some(Item::Unused(..)));
        if unused && touching {
            let text = format!("two unused spaces touch at byte {at}");
            return Err(shape(NAME, place, text));
        }
        items.push(item);
        at += length;
    }
    Ok(items)
}

fn read_unused(bytes: &[u8], at: usize) -> Option<(Item, usize)> {
    let length = usize::from(half(bytes, at + 2)?);
    let fits = length >= 8 && length.is_multiple_of(8) && at + length <= bytes.len();
    let tag = half(bytes, (at + length).checked_sub(2)?)?;
    (fits && usize::from(tag) == at).then_some((Item::Unused(at, length), length))
}

fn read_entry(bytes: &[u8], at: usize, first: u64) -> Option<(Item, usize)> {
    let number = bytes.get(at..at + 8)?;
    let ino = number
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte));
    let length = usize::from(*bytes.get(at + 8)?);
    let size = entry_size(length);
    let entry = bytes.get(at..at + size)?;
    let name = entry.get(9..9 + length)?;
    let file_type = *entry.get(9 + length)?;
    if usize::from(half(entry, size - 2)?) != at {
        return None;
    }
    let entry = Entry {
        name: name.to_vec(),
        ino,
        file_type,
        address: u32::try_from(first + at as u64 / 8).ok()?,
    };
    Some((Item::Entry(entry), size))
}
