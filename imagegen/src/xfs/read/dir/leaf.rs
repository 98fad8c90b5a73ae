//! Leaves and nodes of a directory, blocks of longest free spaces, and looking up a name
//! by its hash.

use super::{Entry, block::DataBlock, entry_at};
use crate::xfs::format::dir::{
    CRC_AT, FREE_OFFSET, FreeHeader, LEAF_OFFSET, LeafEntry, LeafHeader, NODE_CRC_AT, NodeEntry,
    NodeHeader, NodeInfo, magic,
};
use crate::xfs::format::{U16, U32};
use crate::xfs::read::block::Wanted;
use crate::xfs::read::{ForkMap, Label, Reader, Result, Source, Which, shape, take};
use zerocopy::FromBytes;

/// Address of a leaf entry that was removed (`XFS_DIR2_NULL_DATAPTR`).
pub(crate) const STALE: u32 = 0;
/// Most levels of nodes above leaves (`XFS_DA_NODE_MAXDEPTH`).
pub(crate) const MAX_DEPTH: u16 = 5;

/// A leaf of a directory.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) info: NodeInfo,
    pub(crate) stale: u16,
    pub(crate) entries: Vec<LeafEntry>,
    /// Longest free space of every data block, if it is the only leaf.
    pub(crate) bests: Option<Vec<u16>>,
}

/// A node above leaves of directories and attributes.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) info: NodeInfo,
    pub(crate) level: u16,
    pub(crate) entries: Vec<NodeEntry>,
}

/// A block of the tree by hash.
#[derive(Debug)]
pub(crate) enum HashBlock {
    Leaf(Leaf),
    Node(Node),
}

/// Reads and verifies a block that begins with [`NodeInfo`].
pub(crate) fn hash_block<S: Source>(
    reader: &Reader<S>,
    map: &ForkMap,
    offset: u64,
    structure: &'static str,
    allowed: &[u32],
) -> Result<(Vec<u8>, NodeInfo)> {
    let geometry = reader.geometry();
    let count = match map.which {
        Which::Data => geometry.dir_block_blocks(),
        Which::Attr => 1,
    };
    let place = map.place(offset);
    let (bytes, daddr) = map.read(reader, offset, count)?;
    let info: NodeInfo = take(structure, place, &bytes, 0)?;
    let label = Label {
        magic: info.magic.get().into(),
        uuid: info.uuid,
        daddr: Some(info.daddr.get()),
        owner: Some(info.owner.get()),
        lsn: info.lsn.get(),
    };
    let wanted = Wanted {
        structure,
        place,
        magic: allowed,
        crc_at: NODE_CRC_AT,
        daddr,
        owner: map.ino,
    };
    reader.verify(&bytes, &label, &wanted)?;
    Ok((bytes, info))
}

/// The node in `bytes`.
pub(crate) fn node(map: &ForkMap, offset: u64, bytes: &[u8]) -> Result<Node> {
    const NAME: &str = "hash node";
    let place = map.place(offset);
    let header: NodeHeader = take(NAME, place, bytes, 0)?;
    let (count, level) = (usize::from(header.count.get()), header.level.get());
    let entries = records::<NodeEntry>(bytes, size_of::<NodeHeader>(), count);
    match entries {
        Some(entries) if count > 0 && (1..=MAX_DEPTH).contains(&level) => Ok(Node {
            info: header.info,
            level,
            entries,
        }),
        _ => Err(shape(
            NAME,
            place,
            format!("{count} children of level {level}"),
        )),
    }
}

/// `count` records from byte `at` on; none if they do not fit.
pub(crate) fn records<T: FromBytes>(bytes: &[u8], at: usize, count: usize) -> Option<Vec<T>> {
    let length = count.checked_mul(size_of::<T>())?;
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    let records = bytes.chunks_exact(size_of::<T>());
    records
        .map(|bytes| T::read_from_bytes(bytes).ok())
        .collect()
}

/// The leaf or node at block `offset`.
pub(crate) fn read<S: Source>(reader: &Reader<S>, map: &ForkMap, offset: u64) -> Result<HashBlock> {
    const NAME: &str = "directory leaf";
    let allowed = [magic::LEAF1.into(), magic::LEAFN.into(), magic::NODE.into()];
    let (bytes, info) = hash_block(reader, map, offset, NAME, &allowed)?;
    let place = map.place(offset);
    if info.magic.get() == magic::NODE {
        return Ok(HashBlock::Node(node(map, offset, &bytes)?));
    }
    let header: LeafHeader = take(NAME, place, &bytes, 0)?;
    let (count, stale) = (usize::from(header.count.get()), header.stale.get());
    let bad = || shape(NAME, place, format!("{count} entries, {stale} stale"));
    let entries = records::<LeafEntry>(&bytes, size_of::<LeafHeader>(), count).ok_or_else(bad)?;
    if usize::from(stale) > count {
        return Err(bad());
    }
    let only = info.magic.get() == magic::LEAF1;
    let bests = if only {
        let used = size_of::<LeafHeader>() + count * size_of::<LeafEntry>();
        let tail_at = bytes.len() - 4;
        let tail: U32 = take(NAME, place, &bytes, tail_at)?;
        let length = (tail.get() as usize).checked_mul(2);
        let begin = length.and_then(|length| tail_at.checked_sub(length));
        let begin = begin.filter(|begin| *begin >= used).ok_or_else(bad)?;
        let bests = records::<U16>(&bytes, begin, tail.get() as usize).ok_or_else(bad)?;
        Some(bests.into_iter().map(U16::get).collect())
    } else {
        None
    };
    Ok(HashBlock::Leaf(Leaf {
        info,
        stale,
        entries,
        bests,
    }))
}

/// A block of longest free spaces: header and values.
pub(crate) fn read_free<S: Source>(
    reader: &Reader<S>,
    map: &ForkMap,
    offset: u64,
) -> Result<(FreeHeader, Vec<u16>)> {
    const NAME: &str = "directory free block";
    let place = map.place(offset);
    let (bytes, daddr) = map.read(reader, offset, reader.geometry().dir_block_blocks())?;
    let header: FreeHeader = take(NAME, place, &bytes, 0)?;
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
        magic: &[magic::FREE],
        crc_at: CRC_AT,
        daddr,
        owner: map.ino,
    };
    reader.verify(&bytes, &label, &wanted)?;
    let valid = header.valid.get() as usize;
    let values = records::<U16>(&bytes, size_of::<FreeHeader>(), valid)
        .ok_or_else(|| shape(NAME, place, format!("{valid} values")))?;
    Ok((header, values.into_iter().map(U16::get).collect()))
}

/// First block of the leaves.
pub(crate) fn leaf_offset<S: Source>(reader: &Reader<S>) -> u64 {
    LEAF_OFFSET >> reader.geometry().block_log
}

/// First block of the free blocks.
pub(crate) fn free_offset<S: Source>(reader: &Reader<S>) -> u64 {
    FREE_OFFSET >> reader.geometry().block_log
}

/// The entry called `name`, whose hash is `hash`.
pub(super) fn lookup<S: Source>(
    reader: &Reader<S>,
    map: &ForkMap,
    hash: u32,
    name: &[u8],
) -> Result<Option<Entry>> {
    let mut offset = leaf_offset(reader);
    if map.find(offset).is_none() {
        let block = DataBlock::read(reader, map, 0)?;
        let entry = block.entries().into_iter().find(|entry| entry.name == name);
        return Ok(entry);
    }
    let mut above = MAX_DEPTH + 1;
    let mut leaf = loop {
        match read(reader, map, offset)? {
            HashBlock::Leaf(leaf) => break leaf,
            HashBlock::Node(node) if node.level < above => {
                above = node.level;
                let after = node
                    .entries
                    .partition_point(|entry| entry.hash.get() < hash);
                match node.entries.get(after) {
                    Some(entry) => offset = entry.before.get().into(),
                    None => return Ok(None),
                }
            }
            HashBlock::Node(_) => {
                let place = map.place(offset);
                return Err(shape("hash node", place, "a child of the same level"));
            }
        }
    };
    // Equal hashes may go on in the next leaves; no more than there are blocks.
    for _ in 0..map.blocks() {
        for entry in &leaf.entries {
            if entry.hash.get() == hash && entry.address.get() != STALE {
                let found = entry_at(reader, map, entry.address.get())?;
                if let Some(found) = found.filter(|found| found.name == name) {
                    return Ok(Some(found));
                }
            }
        }
        let next = u64::from(leaf.info.forward.get());
        let more = leaf
            .entries
            .last()
            .is_some_and(|last| last.hash.get() == hash);
        if next <= leaf_offset(reader) || !more || next == offset {
            return Ok(None);
        }
        let HashBlock::Leaf(following) = read(reader, map, next)? else {
            return Ok(None);
        };
        if u64::from(following.info.back.get()) != offset {
            return Err(shape(
                "directory leaf",
                map.place(next),
                "its left neighbour is another",
            ));
        }
        (offset, leaf) = (next, following);
    }
    Err(shape(
        "directory leaf",
        map.place(offset),
        "the leaves form a ring",
    ))
}
