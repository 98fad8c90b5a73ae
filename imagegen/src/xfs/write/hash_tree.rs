//! The nodes above the leaves of a directory or attribute fork (`xfs_da_btree.c`).
//!
//! Blocks are numbered in the order of the fork: the root is block 0, whatever its
//! level, as the kernel has it; then the leaves in order of their hashes; then the nodes
//! of each level below the root, from the lowest. Every block knows its neighbours on
//! its level, and every node the highest hash below each of its children.

use super::output::{Output, Siblings, put};
use crate::xfs::format::dir::{NODE_CRC_AT, NodeEntry, NodeHeader, magic};
use std::ops::Range;

/// A tree over leaves.
#[derive(Debug)]
pub(super) struct HashTree {
    /// From the leaves to the root, which is the only block of its level.
    levels: Vec<Level>,
    /// Bytes of a block.
    block_size: usize,
    /// Blocks of the file system in a block of the tree.
    unit: u64,
    /// Where the tree begins in the fork, in blocks of the file system.
    base: u64,
}

#[derive(Debug)]
struct Level {
    /// Number of its first block.
    first: u64,
    /// Highest hash of each of its blocks.
    hashes: Vec<u32>,
}

/// Which blocks a tree has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Bytes of a block.
    pub(super) block_size: usize,
    /// Blocks of the file system in it.
    pub(super) unit: u64,
    /// Where the tree begins in the fork, in blocks of the file system.
    pub(super) base: u64,
}

impl HashTree {
    /// The tree over leaves whose highest hashes are `hashes`, at least one.
    pub(super) fn over(hashes: Vec<u32>, shape: Shape) -> Self {
        let fanout = (shape.block_size - size_of::<NodeHeader>()) / size_of::<NodeEntry>();
        let first = u64::from(hashes.len() > 1);
        let mut levels = Vec::new();
        let mut level = Level { first, hashes };
        while level.hashes.len() > 1 {
            let children = &level.hashes;
            let count = children.len().div_ceil(fanout);
            let above = Level {
                first: if count == 1 {
                    0
                } else {
                    level.first + children.len() as u64
                },
                hashes: (0..count)
                    .map(|index| children[share(children.len(), count, index).end - 1])
                    .collect(),
            };
            levels.push(std::mem::replace(&mut level, above));
        }
        levels.push(level);
        Self {
            levels,
            block_size: shape.block_size,
            unit: shape.unit,
            base: shape.base,
        }
    }

    /// How many leaves.
    pub(super) fn leaves(&self) -> usize {
        self.levels[0].hashes.len()
    }

    /// Blocks of leaves and nodes.
    pub(super) fn blocks(&self) -> u64 {
        self.levels
            .iter()
            .map(|level| level.hashes.len() as u64)
            .sum()
    }

    /// Where a leaf lies in the fork, in blocks of the file system.
    pub(super) fn leaf_offset(&self, index: usize) -> u64 {
        self.offset(0, index)
    }

    /// The neighbours of a leaf.
    pub(super) fn leaf_siblings(&self, index: usize) -> Siblings {
        self.siblings(0, index)
    }

    /// Hands out all nodes.
    pub(super) fn encode_nodes(&self, output: &mut Output<'_>) {
        let mut block = vec![0; self.block_size];
        for level in 1..self.levels.len() {
            for index in 0..self.levels[level].hashes.len() {
                self.node(level, index, &mut block, output);
            }
        }
    }

    fn node(&self, level: usize, index: usize, block: &mut [u8], output: &mut Output<'_>) {
        let below = &self.levels[level - 1];
        let children = share(below.hashes.len(), self.levels[level].hashes.len(), index);
        let offset = self.offset(level, index);
        block.fill(0);
        let header = NodeHeader {
            info: output.node_info(magic::NODE, offset, self.siblings(level, index)),
            count: (children.len() as u16).into(),
            level: (level as u16).into(),
            ..NodeHeader::default()
        };
        put(block, 0, &header);
        let mut at = size_of::<NodeHeader>();
        for child in children {
            let entry = NodeEntry {
                hash: below.hashes[child].into(),
                before: (self.offset(level - 1, child) as u32).into(),
            };
            put(block, at, &entry);
            at += size_of::<NodeEntry>();
        }
        output.write(offset, block, NODE_CRC_AT);
    }

    fn offset(&self, level: usize, index: usize) -> u64 {
        self.base + (self.levels[level].first + index as u64) * self.unit
    }

    fn siblings(&self, level: usize, index: usize) -> Siblings {
        let exists = |index: &usize| *index < self.levels[level].hashes.len();
        let offset = |index: usize| self.offset(level, index) as u32;
        Siblings {
            forward: Some(index + 1).filter(exists).map_or(0, offset),
            back: index.checked_sub(1).map_or(0, offset),
        }
    }
}

/// Which of `total` things fall to part `index` of `parts` as equal as can be. If no part
/// of the fewest parts may hold more than some limit, all hold at least half of it.
pub(super) fn share(total: usize, parts: usize, index: usize) -> Range<usize> {
    let begin = |index: usize| (total as u128 * index as u128 / parts as u128) as usize;
    begin(index)..begin(index + 1)
}
