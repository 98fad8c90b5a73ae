//! B-trees of a group, made in one go from their sorted records.
//!
//! Records are spread evenly, so that every block but a lone root is at least half full
//! (what the kernel demands of a tree) and none is more than full.

use super::super::format::btree::{
    FreeRecord, InodeRecord, RefcountRecord, RmapKey, RmapRecord, SHORT_CRC_AT, ShortHeader, owner,
    rmap_offset,
};
use super::super::format::{NULL_AG_BLOCK, checksum};
use super::super::geometry::Geometry;
use zerocopy::{Immutable, IntoBytes};

/// A record of a tree, and what nodes hold of it.
pub(crate) trait Record: IntoBytes + Immutable {
    /// Bytes of what a node holds for a child: its lowest key, and in trees of
    /// overlapping intervals its highest.
    const KEYS: usize;

    /// The lowest key, as on disk.
    fn low(&self) -> Vec<u8>;

    /// The highest, in trees whose nodes hold it.
    fn high(&self) -> Option<RmapKey> {
        None
    }
}

/// Keys of a child of a node.
struct Keys {
    low: Vec<u8>,
    high: Option<RmapKey>,
}

impl Keys {
    fn of_records<R: Record>(records: &[R]) -> Self {
        Self {
            low: records.first().map(Record::low).unwrap_or_default(),
            high: records.iter().filter_map(Record::high).max_by_key(rank),
        }
    }

    fn of_children(children: &[(Self, u32)]) -> Self {
        Self {
            low: children
                .first()
                .map(|(keys, _)| keys.low.clone())
                .unwrap_or_default(),
            high: children
                .iter()
                .filter_map(|(keys, _)| keys.high)
                .max_by_key(rank),
        }
    }
}

/// Order of keys of reverse mappings.
fn rank(key: &RmapKey) -> (u32, u64, u64) {
    (key.start.get(), key.owner.get(), key.offset.get())
}

impl Record for FreeRecord {
    const KEYS: usize = 8;

    fn low(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl Record for InodeRecord {
    const KEYS: usize = 4;

    fn low(&self) -> Vec<u8> {
        self.start.as_bytes().to_vec()
    }
}

impl Record for RefcountRecord {
    const KEYS: usize = 4;

    fn low(&self) -> Vec<u8> {
        self.start.as_bytes().to_vec()
    }
}

impl Record for RmapRecord {
    const KEYS: usize = 40;

    fn low(&self) -> Vec<u8> {
        let offset = self.offset.get() & !rmap_offset::UNWRITTEN;
        RmapKey {
            start: self.start,
            owner: self.owner,
            offset: offset.into(),
        }
        .as_bytes()
        .to_vec()
    }

    fn high(&self) -> Option<RmapKey> {
        let offset = self.offset.get() & !rmap_offset::UNWRITTEN;
        let more = self.count.get() - 1;
        // Blocks which are nobody's file contents have no offset that moves on.
        let fixed = owner::is_special(self.owner.get()) || offset & rmap_offset::BMBT_BLOCK != 0;
        let last = if fixed {
            offset
        } else {
            offset + u64::from(more)
        };
        Some(RmapKey {
            start: (self.start.get() + more).into(),
            owner: self.owner,
            offset: last.into(),
        })
    }
}

/// How many blocks each level of a tree takes, leaves first; never empty, the last is 1.
pub(crate) fn shape<R: Record>(records: usize, block_size: usize) -> Vec<usize> {
    let room = block_size - size_of::<ShortHeader>();
    let mut levels = vec![records.div_ceil(room / size_of::<R>()).max(1)];
    while let Some(&below) = levels.last().filter(|&&blocks| blocks > 1) {
        levels.push(below.div_ceil(node_room::<R>(block_size)));
    }
    levels
}

/// Children a node can have.
fn node_room<R: Record>(block_size: usize) -> usize {
    (block_size - size_of::<ShortHeader>()) / (R::KEYS + 4)
}

/// Blocks of a tree besides its root.
pub(crate) fn blocks_below_root<R: Record>(records: usize, block_size: usize) -> usize {
    shape::<R>(records, block_size).iter().sum::<usize>() - 1
}

/// Where a tree lies: what its group needs to know of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) geometry: &'a Geometry,
    pub(crate) ag: u32,
    pub(crate) magic: u32,
    /// The root's block.
    pub(crate) root: u32,
    /// First of the blocks below the root, which lie in one piece.
    pub(crate) below: u32,
}

/// Makes the tree of `records`, in order, and hands each block to `sink` with its number
/// in the group. Returns the number of levels.
pub(crate) fn load<R: Record, E>(
    place: Place<'_>,
    records: &[R],
    mut sink: impl FnMut(u32, &[u8]) -> Result<(), E>,
) -> Result<u32, E> {
    let block_size = place.geometry.block_size();
    let levels = shape::<R>(records.len(), block_size);
    let mut first = place.below;
    let mut children: Vec<(Keys, u32)> = Vec::new();
    for (level, &count) in levels.iter().enumerate() {
        let begin = if count == 1 { place.root } else { first };
        let total = if level == 0 {
            records.len()
        } else {
            children.len()
        };
        let mut parents = Vec::with_capacity(count);
        for index in 0..count {
            let range = share(total, count, index);
            let mut block = Block::new(place, level as u16, index, count, begin, range.len());
            let number = begin + index as u32;
            let keys = if level == 0 {
                let these = &records[range];
                block.put_records(these);
                Keys::of_records(these)
            } else {
                let these = &children[range];
                block.put_children::<R>(these);
                Keys::of_children(these)
            };
            parents.push((keys, number));
            sink(number, &block.seal())?;
        }
        first += count as u32;
        children = parents;
    }
    Ok(levels.len() as u32)
}

/// The part of `total` things that the `index`th of `count` gets.
fn share(total: usize, count: usize, index: usize) -> std::ops::Range<usize> {
    total * index / count..total * (index + 1) / count
}

struct Block {
    bytes: Vec<u8>,
}

impl Block {
    fn new(
        place: Place<'_>,
        level: u16,
        index: usize,
        count: usize,
        begin: u32,
        held: usize,
    ) -> Self {
        let number = begin + index as u32;
        let header = ShortHeader {
            magic: place.magic.into(),
            level: level.into(),
            count: (held as u16).into(),
            left: if index == 0 {
                NULL_AG_BLOCK
            } else {
                number - 1
            }
            .into(),
            right: if index + 1 == count {
                NULL_AG_BLOCK
            } else {
                number + 1
            }
            .into(),
            daddr: (place.geometry.byte(place.ag, number) >> 9).into(),
            uuid: *place.geometry.uuid.as_bytes(),
            owner: place.ag.into(),
            ..ShortHeader::default()
        };
        let mut bytes = vec![0; place.geometry.block_size()];
        bytes[..size_of::<ShortHeader>()].copy_from_slice(header.as_bytes());
        Self { bytes }
    }

    fn put_records<R: Record>(&mut self, records: &[R]) {
        let bytes = records.as_bytes();
        self.bytes[size_of::<ShortHeader>()..][..bytes.len()].copy_from_slice(bytes);
    }

    fn put_children<R: Record>(&mut self, children: &[(Keys, u32)]) {
        let pointers_at = size_of::<ShortHeader>() + node_room::<R>(self.bytes.len()) * R::KEYS;
        for (index, (keys, child)) in children.iter().enumerate() {
            let key = &mut self.bytes[size_of::<ShortHeader>() + index * R::KEYS..][..R::KEYS];
            let (low, high) = key.split_at_mut(keys.low.len());
            low.copy_from_slice(&keys.low);
            if let Some(highest) = &keys.high {
                high.copy_from_slice(highest.as_bytes());
            }
            self.bytes[pointers_at + index * 4..][..4].copy_from_slice(&child.to_be_bytes());
        }
    }

    fn seal(mut self) -> Vec<u8> {
        checksum::seal(&mut self.bytes, SHORT_CRC_AT);
        self.bytes
    }
}
