//! How high the B-trees of a file system can grow, and how many blocks they can take.
//!
//! Computed as the kernel does (`xfs_btree.c`, `xfs_alloc.c`, `xfs_rmap_btree.c`,
//! `xfs_refcount_btree.c`, `xfs_ialloc.c`, `xfs_bmap.c`), because the smallest log and
//! the reservations of a group follow from it and the kernel checks them at mount.

use super::{CHUNK_INODES, Geometry};
use crate::xfs::format::btree::{LongHeader, ShortHeader};

/// How few entries a block of a tree can have: half of what fits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Least {
    leaf: u64,
    node: u64,
}

impl Least {
    /// Of blocks with `space` bytes for records of `record` bytes, or for branches of
    /// `branch` bytes: keys and a pointer.
    fn new(space: u64, record: u64, branch: u64) -> Self {
        Self {
            leaf: space / record / 2,
            node: space / branch / 2,
        }
    }

    /// Levels of a tree of `records` records (`xfs_btree_compute_maxlevels`).
    fn height(self, records: u64) -> u64 {
        let mut blocks = records.div_ceil(self.leaf);
        let mut height = 1;
        while blocks > 1 {
            blocks = blocks.div_ceil(self.node);
            height += 1;
        }
        height
    }

    /// Blocks of a tree of `records` records (`xfs_btree_calc_size`).
    pub(super) fn blocks(self, records: u64) -> u64 {
        let mut level = records.div_ceil(self.leaf);
        let mut blocks = level;
        while level > 1 {
            level = level.div_ceil(self.node);
            blocks += level;
        }
        blocks
    }

    /// Levels of a tree that fills `blocks` blocks (`xfs_btree_space_to_height`).
    fn height_filling(self, blocks: u64) -> u64 {
        let (mut level, mut left, mut height) = (2, blocks.saturating_sub(1), 1);
        while level < left {
            left -= level;
            level *= self.node;
            height += 1;
        }
        height
    }
}

/// Bytes for entries in a block of a group's tree.
fn short(geometry: &Geometry) -> u64 {
    geometry.block_size() as u64 - size_of::<ShortHeader>() as u64
}

/// Trees of free space.
fn free_space(geometry: &Geometry) -> Least {
    Least::new(short(geometry), 8, 12)
}

/// Trees of inodes and of free inodes.
pub(super) fn inodes(geometry: &Geometry) -> Least {
    Least::new(short(geometry), 16, 8)
}

/// Tree of reverse mappings, with two keys a branch.
pub(super) fn reverse(geometry: &Geometry) -> Least {
    Least::new(short(geometry), 24, 44)
}

/// Tree of reference counts.
pub(super) fn refcounts(geometry: &Geometry) -> Least {
    Least::new(short(geometry), 12, 8)
}

/// Greatest heights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heights {
    /// Of the trees of free space.
    pub(super) free_space: u64,
    /// Of the trees of inodes and free inodes.
    pub(super) inodes: u64,
    /// Of the tree of reverse mappings; 0 without.
    pub(super) reverse: u64,
    /// Of the tree of reference counts; 0 without.
    pub(super) refcounts: u64,
    /// Of a data fork.
    pub(super) data_fork: u64,
    /// Of an attribute fork.
    pub(super) attr_fork: u64,
}

impl Heights {
    pub(super) fn of(geometry: &Geometry) -> Self {
        let blocks = u64::from(geometry.ag_blocks);
        let features = &geometry.features;
        let inode_bits = geometry.ag_block_bits() + geometry.inodes_per_block_log();
        let large = features.nrext64;
        Self {
            free_space: free_space(geometry).height(blocks.div_ceil(2)),
            inodes: inodes(geometry).height((1 << inode_bits) / u64::from(CHUNK_INODES)),
            reverse: match (features.rmapbt, features.reflink) {
                (false, _) => 0,
                // Shared blocks have any number of owners, so only space limits it.
                (true, true) => reverse(geometry).height_filling(blocks),
                (true, false) => reverse(geometry).height(blocks),
            },
            refcounts: match features.reflink {
                true => refcounts(geometry).height(blocks),
                false => 0,
            },
            data_fork: fork(
                geometry,
                if large { (1 << 48) - 1 } else { (1 << 31) - 1 },
                3,
            ),
            attr_fork: fork(
                geometry,
                if large { (1 << 32) - 1 } else { (1 << 15) - 1 },
                2,
            ),
        }
    }
}

/// Levels of a fork of `extents` extents whose root in the inode has only room for
/// `root` branches (`xfs_bmap_compute_maxlevels`).
fn fork(geometry: &Geometry, extents: u64, root: u64) -> u64 {
    let space = geometry.block_size() as u64 - size_of::<LongHeader>() as u64;
    let least = Least::new(space, 16, 16);
    let mut blocks = extents.div_ceil(least.leaf);
    let mut height = 1;
    while blocks > 1 {
        blocks = if blocks <= root {
            1
        } else {
            blocks.div_ceil(least.node)
        };
        height += 1;
    }
    height
}

/// Extents by which the leaf of a tree of free space can grow before it is split, as
/// reservations count them (`XFS_MAX_CONTIG_EXTENTS_PER_BLOCK`).
pub(super) fn free_space_slack(geometry: &Geometry) -> u64 {
    let most = short(geometry) / 8;
    most - most / 2
}
