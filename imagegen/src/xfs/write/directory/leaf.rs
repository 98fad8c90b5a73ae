//! Leaves: where the name with a hash lies; and blocks of free spaces, with the longest
//! one of each data block (`xfs_dir2_leaf.c`, `xfs_dir2_node.c`).

use super::data::Data;
use super::hash_tree::share;
use super::{FreeHeader, HashTree, LEAF_OFFSET, LeafEntry, LeafHeader, Shape};
use crate::xfs::format::dir::{CRC_AT, FREE_OFFSET, NODE_CRC_AT, magic};
use crate::xfs::format::{U16, U32, hash};
use crate::xfs::geometry::Geometry;
use crate::xfs::write::ForkError;
use crate::xfs::write::output::{Output, Siblings, put};
use std::ops::Range;

/// Hash and address of every entry, by hash and then by address: hash in the high half.
#[derive(Debug)]
pub(super) struct Index(Vec<u64>);

impl Index {
    /// The index of all entries; names compare without case if `folded`.
    pub(super) fn of(data: &Data, folded: bool) -> Result<Self, ForkError> {
        let count = (0..data.count()).map(|block| data.entries(block).count());
        let mut index = Vec::with_capacity(count.sum());
        for block in 0..data.count() {
            index.extend(data.entries(block).map(|entry| {
                let hash = hash::entry(entry.name, folded);
                u64::from(hash) << 32 | u64::from(data.address(block, entry.at))
            }));
        }
        index.sort_unstable();
        let index = Self(index);
        match index.repeated(data, folded) {
            Some(name) => Err(ForkError::Repeated { name }),
            None => Ok(index),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Some of the entries as they are on disk.
    pub(super) fn entries(&self, range: Range<usize>) -> impl Iterator<Item = LeafEntry> {
        self.0[range].iter().map(|&both| LeafEntry {
            hash: hash_of(both).into(),
            address: (both as u32).into(),
        })
    }

    /// A name that occurs twice, escaped. Only names with one hash are compared.
    fn repeated(&self, data: &Data, folded: bool) -> Option<String> {
        let runs = self.0.chunk_by(|a, b| hash_of(*a) == hash_of(*b));
        runs.filter(|run| run.len() > 1).find_map(|run| {
            let name = |both: &u64| match data.entry(*both as u32).name {
                name if folded => hash::folded(name),
                name => name.to_vec(),
            };
            let mut names: Vec<_> = run.iter().map(name).collect();
            names.sort_unstable();
            let twice = names.windows(2).find(|pair| pair[0] == pair[1])?;
            Some(twice[0].escape_ascii().to_string())
        })
    }
}

fn hash_of(both: u64) -> u32 {
    (both >> 32) as u32
}

/// Whether one leaf holds `entries` entries and the free spaces of `data` data blocks.
pub(super) fn fits_one(block_size: usize, entries: usize, data: usize) -> bool {
    let bytes = entries * size_of::<LeafEntry>() + data * size_of::<U16>();
    size_of::<LeafHeader>() + bytes + size_of::<U32>() <= block_size
}

/// The tree over as few leaves as hold the index.
pub(super) fn tree(geometry: &Geometry, index: &Index) -> HashTree {
    let block_size = geometry.dir_block_size();
    let most = (block_size - size_of::<LeafHeader>()) / size_of::<LeafEntry>();
    let leaves = index.len().div_ceil(most);
    let last = |leaf| index.0[share(index.len(), leaves, leaf).end - 1];
    let shape = Shape {
        block_size,
        unit: geometry.dir_block_blocks(),
        base: LEAF_OFFSET >> geometry.block_log,
    };
    HashTree::over((0..leaves).map(|leaf| hash_of(last(leaf))).collect(), shape)
}

/// Data blocks that one block of free spaces speaks of (`free_max_bests`).
fn free_per_block(block_size: usize) -> usize {
    (block_size - size_of::<FreeHeader>()) / size_of::<U16>()
}

/// Blocks of free spaces for `data` data blocks.
pub(super) fn free_blocks(block_size: usize, data: usize) -> usize {
    data.div_ceil(free_per_block(block_size))
}

/// Hands out the only leaf, with the free spaces of data blocks and their number at its
/// end.
pub(super) fn encode_one(
    index: &Index,
    free: impl ExactSizeIterator<Item = u16>,
    output: &mut Output<'_>,
) {
    let offset = LEAF_OFFSET >> output.geometry.block_log;
    let all = index.entries(0..index.len());
    let mut block = leaf(magic::LEAF1, offset, Siblings::default(), all, output);
    let tail = block.len() - size_of::<U32>();
    put(&mut block, tail, &U32::new(free.len() as u32));
    let mut at = tail - free.len() * size_of::<U16>();
    for length in free {
        put(&mut block, at, &U16::new(length));
        at += size_of::<U16>();
    }
    output.write(offset, &mut block, NODE_CRC_AT);
}

/// Hands out the leaves of a tree and its nodes.
pub(super) fn encode_tree(index: &Index, tree: &HashTree, output: &mut Output<'_>) {
    for number in 0..tree.leaves() {
        let offset = tree.leaf_offset(number);
        let entries = index.entries(share(index.len(), tree.leaves(), number));
        let siblings = tree.leaf_siblings(number);
        let mut block = leaf(magic::LEAFN, offset, siblings, entries, output);
        output.write(offset, &mut block, NODE_CRC_AT);
    }
    tree.encode_nodes(output);
}

/// Hands out the blocks of free spaces.
pub(super) fn encode_free(free: impl ExactSizeIterator<Item = u16>, output: &mut Output<'_>) {
    let size = output.geometry.dir_block_size();
    let free: Vec<U16> = free.map(U16::new).collect();
    let mut offset = FREE_OFFSET >> output.geometry.block_log;
    let mut first = 0;
    for lengths in free.chunks(free_per_block(size)) {
        let mut block = vec![0; size];
        let header = FreeHeader {
            block: output.block_header(magic::FREE, offset),
            first: first.into(),
            valid: (lengths.len() as u32).into(),
            used: (lengths.len() as u32).into(),
            ..FreeHeader::default()
        };
        put(&mut block, 0, &header);
        put(&mut block, size_of::<FreeHeader>(), lengths);
        output.write(offset, &mut block, CRC_AT);
        first += lengths.len() as u32;
        offset += output.geometry.dir_block_blocks();
    }
}

fn leaf(
    magic: u16,
    offset: u64,
    siblings: Siblings,
    entries: impl Iterator<Item = LeafEntry>,
    output: &Output<'_>,
) -> Vec<u8> {
    let mut block = vec![0; output.geometry.dir_block_size()];
    let mut count = 0;
    for entry in entries {
        let at = size_of::<LeafHeader>() + usize::from(count) * size_of::<LeafEntry>();
        put(&mut block, at, &entry);
        count += 1;
    }
    let header = LeafHeader {
        info: output.node_info(magic, offset, siblings),
        count: count.into(),
        ..LeafHeader::default()
    };
    put(&mut block, 0, &header);
    block
}
