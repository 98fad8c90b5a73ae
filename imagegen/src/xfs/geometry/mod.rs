//! Where things lie in a file system: sizes, features, and the arithmetic of addresses.
//!
//! A [`Geometry`] is fixed before the first block is written, by `options` as mkfs.xfs
//! would choose it, or read from a superblock. Addresses come in four forms: a block of
//! a group (`u32`); an fsblock, group and block in it packed into one number; a byte of
//! the device; a daddr, that byte in units of 512. Inodes likewise: of a group (`u32`),
//! or of the file system (`u64`).

mod features;
mod groups;
mod kernels;
mod levels;
mod log;
mod options;
mod reserve;
mod superblock;
mod transactions;

pub use features::Features;
pub use kernels::Kernel;
pub use options::{Groups, LogSize, OptionError, Options, Stripe};
pub use reserve::{Levels, Used};
pub use superblock::Refusal;

use super::format::group;
use uuid::Uuid;

/// Sizes and features of a file system. Every combination that `options` yields or
/// that `Geometry::check` accepted keeps the arithmetic below free of overflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// What is switched on.
    pub features: Features,
    /// Identity.
    pub uuid: Uuid,
    /// Label, zero-padded.
    pub label: [u8; 12],
    /// log2 of a sector's bytes: 9 to 15.
    pub sector_log: u8,
    /// log2 of a block's bytes: 10 to 16.
    pub block_log: u8,
    /// log2 of an inode's bytes: 9 to 11.
    pub inode_log: u8,
    /// log2 of the blocks of a directory block.
    pub dir_block_log: u8,
    /// Blocks of the file system.
    pub blocks: u64,
    /// Groups.
    pub ag_count: u32,
    /// Blocks of every group but the last, which may be shorter.
    pub ag_blocks: u32,
    /// First fsblock of the log.
    pub log_start: u64,
    /// Blocks of the log.
    pub log_blocks: u32,
    /// Stripe unit of the log in bytes; 1 for none.
    pub log_unit: u32,
    /// Stripe unit of data in blocks; 0 for none.
    pub stripe_unit: u32,
    /// Stripe width of data in blocks.
    pub stripe_width: u32,
    /// Percent of space that inodes may take; 0 for all.
    pub imax_percent: u8,
    /// Alignment of inode chunks in blocks.
    pub inode_align: u32,
    /// Alignment of sparse inode chunks in blocks; 0 without them.
    pub sparse_align: u32,
}

/// Inodes of a chunk.
pub const CHUNK_INODES: u32 = 64;

impl Geometry {
    /// Bytes of a block.
    pub fn block_size(&self) -> usize {
        1 << self.block_log
    }

    /// Bytes of a sector.
    pub fn sector_size(&self) -> usize {
        1 << self.sector_log
    }

    /// Bytes of an inode.
    pub fn inode_size(&self) -> usize {
        1 << self.inode_log
    }

    /// Bytes of a directory block.
    pub fn dir_block_size(&self) -> usize {
        1 << (self.block_log + self.dir_block_log)
    }

    /// Blocks of a directory block.
    pub fn dir_block_blocks(&self) -> u64 {
        1 << self.dir_block_log
    }

    /// Blocks that `bytes` need.
    pub fn blocks_of(&self, bytes: u64) -> u64 {
        bytes.div_ceil(1 << self.block_log)
    }

    /// Bits of a block's number in its group.
    pub fn ag_block_bits(&self) -> u8 {
        (u32::BITS - (self.ag_blocks - 1).leading_zeros()) as u8
    }

    /// Blocks of group `ag`.
    pub fn group_blocks(&self, ag: u32) -> u32 {
        let begin = u64::from(ag) * u64::from(self.ag_blocks);
        (self.blocks - begin).min(self.ag_blocks.into()) as u32
    }

    /// Blocks at the beginning of every group for superblock, AGF, AGI and AGFL.
    pub fn header_blocks(&self) -> u32 {
        (4_u32 << self.sector_log).div_ceil(1 << self.block_log)
    }

    /// The fsblock of block `block` of group `ag`.
    pub fn fsblock(&self, ag: u32, block: u32) -> u64 {
        u64::from(ag) << self.ag_block_bits() | u64::from(block)
    }

    /// Group and block in it of an fsblock; the group may be one that does not exist.
    pub fn group_of(&self, fsblock: u64) -> (u64, u32) {
        let bits = self.ag_block_bits();
        (fsblock >> bits, (fsblock & ((1 << bits) - 1)) as u32)
    }

    /// Whether an extent of `count` blocks at `fsblock` lies inside one group.
    pub fn holds(&self, fsblock: u64, count: u64) -> bool {
        let (ag, block) = self.group_of(fsblock);
        ag < self.ag_count.into()
            && count <= u64::from(self.ag_blocks)
            && u64::from(block) + count <= self.group_blocks(ag as u32).into()
    }

    /// First byte of block `block` of group `ag` on the device.
    pub fn byte(&self, ag: u32, block: u32) -> u64 {
        (u64::from(ag) * u64::from(self.ag_blocks) + u64::from(block)) << self.block_log
    }

    /// First byte of an fsblock on the device.
    pub fn byte_of(&self, fsblock: u64) -> u64 {
        let (ag, block) = self.group_of(fsblock);
        (ag * u64::from(self.ag_blocks) + u64::from(block)) << self.block_log
    }

    /// The daddr of an fsblock, as metadata blocks carry it.
    pub fn daddr(&self, fsblock: u64) -> u64 {
        self.byte_of(fsblock) >> 9
    }

    /// log2 of the inodes of a block.
    pub fn inodes_per_block_log(&self) -> u8 {
        self.block_log - self.inode_log
    }

    /// Blocks of a chunk of 64 inodes; 1 if a block holds more.
    pub fn chunk_blocks(&self) -> u32 {
        (CHUNK_INODES >> self.inodes_per_block_log()).max(1)
    }

    /// The inode of the file system that is `ino` of group `ag`.
    pub fn inode(&self, ag: u32, ino: u32) -> u64 {
        u64::from(ag) << (self.ag_block_bits() + self.inodes_per_block_log()) | u64::from(ino)
    }

    /// Group and inode in it; the group may be one that does not exist.
    pub fn inode_group(&self, ino: u64) -> (u64, u32) {
        let bits = self.ag_block_bits() + self.inodes_per_block_log();
        (ino >> bits, (ino & ((1 << bits) - 1)) as u32)
    }

    /// First byte of an inode on the device.
    pub fn inode_byte(&self, ino: u64) -> u64 {
        let (ag, ino) = self.inode_group(ino);
        let begin = (ag * u64::from(self.ag_blocks)) << self.block_log;
        begin + (u64::from(ino) << self.inode_log)
    }

    /// Bytes of an inode for its two forks.
    pub fn forks_size(&self) -> usize {
        self.inode_size() - super::format::inode::FORKS_AT
    }

    /// Slots of an AGFL.
    pub fn agfl_slots(&self) -> u32 {
        group::agfl_slots(1 << self.sector_log)
    }

    /// Root directory: the first inode of the first chunk after the group's own blocks,
    /// where xfs_repair expects it (`xfs_ialloc_calc_rootino` in `xfs_ialloc.c`).
    pub fn root_inode(&self) -> u64 {
        u64::from(self.first_chunk_block()) << self.inodes_per_block_log()
    }

    /// Block of group 0 where the first inode chunk lies.
    pub fn first_chunk_block(&self) -> u32 {
        let mut block = self.own_blocks();
        if self.has_log(0) {
            block += self.log_blocks;
        }
        block.next_multiple_of(self.chunk_align())
    }

    /// Alignment of inode chunks in blocks: the stripe unit where that keeps
    /// `inode_align` (`xfs_ialloc_setup_geometry`).
    pub fn chunk_align(&self) -> u32 {
        match self.inode_align {
            0 | 1 => 1,
            align if self.stripe_unit > 0 && self.stripe_unit & (align - 1) == 0 => {
                self.stripe_unit
            }
            align => align,
        }
    }

    /// Blocks at the beginning of a fresh group that belong to itself: headers, roots of
    /// B-trees, AGFL (`xfs_prealloc_blocks` plus the AGFL of a fresh group).
    pub fn own_blocks(&self) -> u32 {
        self.root_blocks() + self.fresh_agfl_blocks()
    }

    /// Blocks for headers and roots of B-trees (`xfs_prealloc_blocks`).
    pub fn root_blocks(&self) -> u32 {
        let features = &self.features;
        self.header_blocks()
            + 3
            + u32::from(features.finobt)
            + u32::from(features.rmapbt)
            + u32::from(features.reflink)
    }

    /// Blocks in the AGFL of a fresh group: two per tree it serves, none for a tree that
    /// never has more than its root.
    pub fn fresh_agfl_blocks(&self) -> u32 {
        self.agfl_least(Levels::FRESH)
    }

    /// A superblock of this geometry with all counters zero and no checksum.
    pub fn superblock(&self) -> super::format::superblock::Superblock {
        features::superblock(self)
    }
}
