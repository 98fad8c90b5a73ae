//! How much of the log a transaction may take, and the largest of all.
//!
//! The kernel refuses a log that is too small for its largest transactions, so the
//! arithmetic has to be its own (`xfs_trans_resv.c`, `xfs_trans_space.h`,
//! `xfs_log_rlimit.c` of Linux 6.10 and later). Of the realtime device nothing is
//! counted: there is none. Transactions that can never be the largest are left out.

use super::Geometry;
use super::levels::{Heights, free_space_slack};

/// Space in the log: bytes of one step, and steps of the whole transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    /// Bytes a step may take.
    pub(super) bytes: u64,
    /// Steps.
    pub(super) steps: u64,
}

/// Overhead of a logged buffer (`xfs_buf_log_overhead`).
const BUFFER: u64 = 128;
/// Header of an operation in the log (`struct xlog_op_header`).
pub(super) const OPERATION: u64 = 12;
/// Description of a logged inode (`struct xfs_inode_log_format`).
const INODE_FORMAT: u64 = 56;
/// Header of a block of a fork's tree.
const LONG_HEADER: u64 = 72;
/// Six quota records with their descriptions (`XFS_DQUOT_LOGRES`).
const QUOTA: u64 = 6 * (24 + 104);
/// Depth of a directory's or attribute fork's hash tree (`XFS_DA_NODE_MAXDEPTH`).
const HASH_DEPTH: u64 = 5;
/// Longest name (`MAXNAMELEN`).
const NAME: u64 = 256;
/// Longest symbolic link (`XFS_SYMLINK_MAXLEN`).
const SYMLINK: u64 = 1024;
/// An intent to change an attribute (`struct xfs_attri_log_format`) that is a parent
/// pointer, and the two halves of its replacement.
const PARENT_INTENT: u64 = 40 + PARENT_NAME_VALUE;
const PARENT_NAME_VALUE: u64 = 12 + NAME;
/// Height of the tree of reverse mappings that old kernels took for granted beside
/// shared blocks (`XFS_OLD_REFLINK_RMAP_MAXLEVELS`).
const OLD_REVERSE_HEIGHT: u64 = 9;
/// Steps that old kernels took for granted with shared blocks.
const OLD_STEPS: u64 = 8;

/// The largest transaction, as far as the smallest log follows from it
/// (`xfs_log_get_max_trans_res`).
pub(super) fn largest(geometry: &Geometry) -> Space {
    let costs = Costs::of(geometry);
    let attribute = costs.largest_attribute();
    let all = costs.all();
    let mut largest = all[0];
    for space in all {
        if space.bytes * space.steps > largest.bytes * largest.steps {
            largest = space;
        }
    }
    if attribute > largest.bytes * largest.steps {
        largest = Space {
            bytes: attribute,
            steps: ATTRIBUTE_STEPS,
        };
    }
    largest
}

/// Steps of setting or removing an attribute.
const ATTRIBUTE_STEPS: u64 = 3;

/// What transactions touch, in bytes of log. Names follow the kernel's functions
/// `xfs_calc_*_reservation`.
struct Costs<'a> {
    geometry: &'a Geometry,
    heights: Heights,
    /// Whether old kernels' larger estimates hold: for every set of features that such a
    /// kernel can mount, as it would refuse a smaller log (`xfs_want_minlogsize_fixes`).
    old: bool,
    block: u64,
    sector: u64,
}

fn buffers(count: u64, bytes: u64) -> u64 {
    count * (bytes + BUFFER)
}

impl<'a> Costs<'a> {
    fn of(geometry: &'a Geometry) -> Self {
        let mut heights = Heights::of(geometry);
        let old = !geometry.features.parent;
        if old && geometry.features.rmapbt && geometry.features.reflink {
            heights.reverse = OLD_REVERSE_HEIGHT;
        }
        Self {
            geometry,
            heights,
            old,
            block: geometry.block_size() as u64,
            sector: geometry.sector_size() as u64,
        }
    }

    fn all(&self) -> [Space; 16] {
        let features = &self.geometry.features;
        let parent = if features.parent { ATTRIBUTE_STEPS } else { 0 };
        let (reflink, rmapbt) = (u64::from(features.reflink), u64::from(features.rmapbt));
        let intents = match (self.old, features.reflink, features.rmapbt) {
            (true, true, _) => OLD_STEPS - 2,
            (true, false, true) => 0,
            _ => reflink + rmapbt + reflink.max(rmapbt),
        };
        let space = |bytes, steps| Space { bytes, steps };
        [
            space(self.write(), 2 + intents),
            space(self.truncate(), 2 + intents),
            space(self.rename(), 2 + parent),
            space(self.link(), 2 + parent),
            space(self.remove(), 2 + parent),
            space(self.create() + buffers(1, SYMLINK), 3 + parent),
            space(self.create(), 2 + parent),
            space(QUOTA + self.allocate_inode() + self.unlink_add(), 2),
            space(self.create(), 3 + parent),
            space(self.free_inode(), 2),
            space(self.add_attribute_fork(), 2),
            space(self.invalidate_attributes(), 1),
            space(self.set_attribute(), ATTRIBUTE_STEPS),
            space(self.remove_attribute(), ATTRIBUTE_STEPS),
            space(self.write() + buffers(1, self.block - 1), 2 + intents),
            self.untorn_write(),
        ]
    }

    /// The end of an untorn write, which Linux counts since 6.16: as a truncation without
    /// what old kernels took for granted (`xfs_calc_default_atomic_ioend_reservation`).
    fn untorn_write(&self) -> Space {
        let features = &self.geometry.features;
        let intents = [
            features.reflink,
            features.rmapbt,
            features.reflink || features.rmapbt,
        ];
        let now = Self {
            heights: Heights::of(self.geometry),
            old: false,
            ..*self
        };
        Space {
            bytes: now.truncate(),
            steps: 2 + intents.map(u64::from).iter().sum::<u64>(),
        }
    }

    fn sectors(&self, count: u64) -> u64 {
        buffers(count, self.sector)
    }

    fn blocks(&self, count: u64) -> u64 {
        buffers(count, self.block)
    }

    fn inodes(&self, count: u64) -> u64 {
        count * (4 * OPERATION + INODE_FORMAT + self.geometry.inode_size() as u64 + 2 * LONG_HEADER)
    }

    /// Blocks of trees that `extents` allocated or freed extents change.
    fn free_space(&self, extents: u64) -> u64 {
        let mut blocks = 2 * (2 * self.heights.free_space - 1);
        if self.geometry.features.rmapbt {
            blocks += 2 * self.heights.reverse - 1;
        }
        self.blocks(extents * blocks)
    }

    /// Changes of the tree of reference counts.
    fn refcounts(&self, changes: u64) -> u64 {
        match self.geometry.features.reflink {
            true => self.blocks(changes * (2 * self.heights.refcounts - 1)),
            false => 0,
        }
    }

    fn write(&self) -> u64 {
        let allocate = self.inodes(1)
            + self.blocks(self.heights.data_fork)
            + self.sectors(3)
            + self.free_space(2);
        let free = self.sectors(5) + self.free_space(2);
        let most = allocate.max(free);
        QUOTA
            + match self.old {
                true => most + self.refcounts(2),
                false => most.max(self.deferred_refcounts(1)),
            }
    }

    fn truncate(&self) -> u64 {
        let map = self.inodes(1) + self.blocks(self.heights.data_fork + 1);
        let free = self.sectors(9) + self.free_space(4);
        QUOTA
            + match self.old {
                true => map.max(free + self.refcounts(4)),
                false => map.max(free).max(self.deferred_refcounts(2)),
            }
    }

    fn deferred_refcounts(&self, changes: u64) -> u64 {
        match self.geometry.features.reflink {
            true => self.sectors(changes) + self.refcounts(changes),
            false => 0,
        }
    }

    /// Blocks that a change of a directory touches (`XFS_DIROP_LOG_COUNT`).
    fn directory(&self) -> u64 {
        let blocks = self.geometry.dir_block_blocks();
        let depth = HASH_DEPTH + 2;
        depth * blocks + depth * self.map_directory_block() + 1
    }

    /// Blocks of the map of a directory for one more directory block.
    fn map_directory_block(&self) -> u64 {
        let blocks = self.geometry.dir_block_blocks();
        blocks.div_ceil(free_space_slack(self.geometry)) * (self.heights.data_fork - 1)
    }

    fn rename(&self) -> u64 {
        let change = self.inodes(5) + self.blocks(2 * self.directory());
        let free = self.sectors(7) + self.free_space(3);
        let replace = PARENT_INTENT + PARENT_NAME_VALUE;
        self.with_parent(
            change.max(free),
            self.set_attribute().max(self.remove_attribute()),
            (replace + 2 * PARENT_INTENT).max(2 * replace),
        )
    }

    /// A change of names, which with parent pointers changes an attribute too.
    fn with_parent(&self, change: u64, attribute: u64, intents: u64) -> u64 {
        QUOTA
            + match self.geometry.features.parent {
                true => change.max(attribute) + intents,
                false => change,
            }
    }

    fn link(&self) -> u64 {
        let change = self.inodes(2) + self.blocks(self.directory());
        let free = self.sectors(3) + self.free_space(1);
        self.unlink_remove()
            + self.with_parent(change.max(free), self.set_attribute(), PARENT_INTENT)
    }

    fn remove(&self) -> u64 {
        let change = self.inodes(2) + self.blocks(self.directory());
        let free = self.sectors(4) + self.free_space(2);
        self.unlink_add()
            + self.with_parent(change.max(free), self.remove_attribute(), PARENT_INTENT)
    }

    fn unlink_add(&self) -> u64 {
        self.sectors(1) + self.inode_cluster()
    }

    fn unlink_remove(&self) -> u64 {
        self.sectors(1) + 2 * self.inode_cluster()
    }

    /// Bytes of inodes that are read and written at once (`xfs_ialloc_setup_geometry`).
    fn inode_cluster(&self) -> u64 {
        let large = 8192 * self.geometry.inode_size() as u64 / 256;
        let aligned = u64::from(self.geometry.inode_align) >= large / self.block;
        self.block.max(if aligned { large } else { 8192 })
    }

    fn create(&self) -> u64 {
        let change = self.inodes(2)
            + self.sectors(1)
            + self.block
            + self.blocks(self.directory())
            + self.free_inode_tree();
        self.with_parent(
            self.allocate_inode().max(change),
            self.set_attribute(),
            PARENT_INTENT,
        )
    }

    fn allocate_inode(&self) -> u64 {
        self.sectors(2)
            + self.sector
            + self.free_space(1)
            + self.inode_tree()
            + self.free_inode_tree()
    }

    fn inode_tree(&self) -> u64 {
        self.blocks(self.heights.inodes) + self.free_space(1)
    }

    fn free_inode_tree(&self) -> u64 {
        match self.geometry.features.finobt {
            true => self.inode_tree(),
            false => 0,
        }
    }

    fn free_inode(&self) -> u64 {
        let chunk_blocks = u64::from(self.geometry.chunk_blocks());
        QUOTA
            + self.inodes(1)
            + self.sectors(3)
            + self.unlink_remove()
            + self.free_space(1)
            + buffers(chunk_blocks, 0)
            + self.inode_tree()
            + self.free_inode_tree()
    }

    fn add_attribute_fork(&self) -> u64 {
        QUOTA
            + self.inodes(1)
            + self.sectors(2)
            + buffers(1, self.geometry.dir_block_size() as u64)
            + self.blocks(self.map_directory_block() + 1)
            + self.free_space(1)
    }

    fn invalidate_attributes(&self) -> u64 {
        let map = self.inodes(1) + self.blocks(self.heights.attr_fork);
        map.max(self.sectors(9) + self.free_space(4))
    }

    fn set_attribute(&self) -> u64 {
        QUOTA + self.inodes(1) + self.sectors(1) + self.blocks(HASH_DEPTH)
    }

    fn remove_attribute(&self) -> u64 {
        let change = self.inodes(1)
            + self.blocks(HASH_DEPTH)
            + self.block * self.heights.attr_fork
            + buffers(self.heights.data_fork, 0);
        QUOTA + change.max(self.sectors(5) + self.free_space(2))
    }

    /// Setting the largest attribute that fits a leaf (`xfs_log_calc_max_attrsetm_res`).
    fn largest_attribute(&self) -> u64 {
        let local = self.block / 2 + self.block / 4;
        let bytes = local - NAME - 1;
        let blocks = bytes.div_ceil(self.block);
        // The kernel once took these bytes for blocks; with old features it has to stay.
        let extents = if self.old { bytes } else { blocks };
        let map = |extents: u64| {
            extents.div_ceil(free_space_slack(self.geometry)) * (self.heights.attr_fork - 1)
        };
        let blocks = HASH_DEPTH + HASH_DEPTH * map(1) + blocks + map(extents);
        self.set_attribute() + blocks * (self.sectors(1) + self.blocks(self.heights.attr_fork))
    }
}
