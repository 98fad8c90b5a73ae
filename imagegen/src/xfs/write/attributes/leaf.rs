//! Leaves of attributes: entries by hash from the front, names and values from the back,
//! all free space between them (`xfs_attr_leaf.c`).

use super::record::Records;
use crate::xfs::format::attr::{FreeMap, LEAF_CRC_AT, LEAF_MAGIC, LeafEntry, LeafHeader};
use crate::xfs::geometry::Geometry;
use crate::xfs::write::hash_tree::{HashTree, Shape};
use crate::xfs::write::output::{Output, put};

/// For every leaf, which attribute is its first.
pub(super) type Starts = Vec<usize>;

/// Sorts the attributes and fills one leaf after the other with them.
pub(super) fn plan(geometry: &Geometry, records: &mut Records) -> (Starts, HashTree) {
    records.sort();
    let block_size = geometry.block_size();
    let (mut starts, mut hashes) = (vec![0], Vec::new());
    let (mut used, mut last) = (size_of::<LeafHeader>(), 0);
    for (number, indexed) in records.index().iter().enumerate() {
        let size = size_of::<LeafEntry>() + records.record(indexed).len();
        if used + size > block_size {
            starts.push(number);
            hashes.push(last);
            used = size_of::<LeafHeader>();
        }
        used += size;
        last = indexed.hash;
    }
    hashes.push(last);
    let shape = Shape {
        block_size,
        unit: 1,
        base: 0,
    };
    (starts, HashTree::over(hashes, shape))
}

/// Hands out all leaves and the nodes above them.
pub(super) fn encode(records: &Records, starts: &Starts, tree: &HashTree, output: &mut Output<'_>) {
    for (number, &start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied();
        let range = start..end.unwrap_or(records.index().len());
        leaf(records, range, number, tree, output);
    }
    tree.encode_nodes(output);
}

fn leaf(
    records: &Records,
    range: std::ops::Range<usize>,
    number: usize,
    tree: &HashTree,
    output: &mut Output<'_>,
) {
    let offset = tree.leaf_offset(number);
    let count = range.len();
    let mut block = vec![0; output.geometry.block_size()];
    let mut entry_at = size_of::<LeafHeader>();
    let mut first_used = block.len();
    for indexed in &records.index()[range] {
        let record = records.record(indexed);
        first_used -= record.len();
        put(&mut block, first_used, record);
        let entry = LeafEntry {
            hash: indexed.hash.into(),
            name_at: (first_used as u16).into(),
            flags: indexed.flags,
            pad: 0,
        };
        put(&mut block, entry_at, &entry);
        entry_at += size_of::<LeafEntry>();
    }
    let free = FreeMap {
        base: (entry_at as u16).into(),
        size: ((first_used - entry_at) as u16).into(),
    };
    let header = LeafHeader {
        info: output.node_info(LEAF_MAGIC, offset, tree.leaf_siblings(number)),
        count: (count as u16).into(),
        used: ((block.len() - first_used) as u16).into(),
        first_used: (first_used as u16).into(),
        free: [free, FreeMap::default(), FreeMap::default()],
        ..LeafHeader::default()
    };
    put(&mut block, 0, &header);
    output.write(offset, &mut block, LEAF_CRC_AT);
}
