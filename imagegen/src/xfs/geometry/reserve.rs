//! Space that has to stay free, so that a mounted file system can go on.
//!
//! At mount the kernel sets blocks of every group aside for B-trees that may grow without
//! notice (`xfs_ag_resv.c`); if they are not free it says so in its log and runs on
//! without. Of the whole file system it keeps some more (`xfs_alloc_set_aside`).

use super::Geometry;
use super::levels::{self, Heights};

/// Blocks that trees of a group take, roots included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// The tree of reverse mappings.
    pub reverse: u32,
    /// The tree of reference counts.
    pub refcounts: u32,
    /// The tree of free inodes.
    pub free_inodes: u32,
}

/// Levels of the trees that an AGFL serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// Of free space by block.
    pub by_block: u32,
    /// Of free space by size.
    pub by_size: u32,
    /// Of reverse mappings.
    pub reverse: u32,
}

impl Levels {
    /// Of a fresh group.
    pub const FRESH: Self = Self {
        by_block: 1,
        by_size: 1,
        reverse: 1,
    };
}

impl Geometry {
    /// Whether the log lies in group `ag`.
    pub fn has_log(&self, ag: u32) -> bool {
        self.log_blocks > 0 && self.group_of(self.log_start).0 == u64::from(ag)
    }

    /// Blocks of group `ag`, those of its AGFL included, that have to be free for what
    /// the kernel reserves at mount, if its trees take `used`.
    pub fn reserve(&self, ag: u32, used: Used) -> u32 {
        let mut blocks = u64::from(self.group_blocks(ag));
        if self.has_log(ag) {
            blocks -= u64::from(self.log_blocks);
        }
        let features = &self.features;
        let (mut shared, mut shared_used, mut reverse) = (0, 0, 0);
        if features.reflink {
            shared += levels::refcounts(self).blocks(blocks);
            shared_used += u64::from(used.refcounts);
        }
        if features.finobt {
            let chunks = (blocks << self.inodes_per_block_log()) / u64::from(super::CHUNK_INODES);
            shared += levels::inodes(self).blocks(chunks);
            shared_used += u64::from(used.free_inodes);
        }
        if features.rmapbt {
            let most = levels::reverse(self).blocks(blocks).max(blocks / 100);
            reverse = most.saturating_sub(used.reverse.into());
        }
        (shared.saturating_sub(shared_used) + reverse) as u32
    }

    /// Blocks that the kernel keeps from users for the whole file system
    /// (`xfs_alloc_set_aside`): four for a group's AGFL and four for a split.
    pub fn set_aside(&self) -> u64 {
        u64::from(self.ag_count) * 8
    }

    /// Fewest blocks of an AGFL beside trees of these levels (`xfs_alloc_min_freelist`
    /// of Linux 6.6 and later; older ones want less).
    pub fn agfl_least(&self, levels: Levels) -> u32 {
        let heights = Heights::of(self);
        let splits = |levels: u32, most: u64| 2 * (u64::from(levels) + 1).min(most) - 2;
        let mut blocks = splits(levels.by_block, heights.free_space)
            + splits(levels.by_size, heights.free_space);
        if self.features.rmapbt {
            blocks += splits(levels.reverse, heights.reverse);
        }
        blocks as u32
    }
}
