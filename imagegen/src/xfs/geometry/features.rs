//! What can be switched on and off in a file system, and the superblock's bits for it.

use super::Geometry;
use crate::xfs::format::superblock::{MAGIC, Superblock, features2, incompat, ro_compat, version};

/// Features of a file system of version 5, in the words of mkfs.xfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// B-tree of free inodes.
    pub finobt: bool,
    /// Blocks of inode B-trees are counted; needs `finobt`.
    pub inobtcount: bool,
    /// Sparse inode chunks.
    pub sparse: bool,
    /// B-tree of reverse mappings.
    pub rmapbt: bool,
    /// Shared blocks.
    pub reflink: bool,
    /// Times until 2486.
    pub bigtime: bool,
    /// Extent counters of 64 bits.
    pub nrext64: bool,
    /// Exchange of ranges.
    pub exchange: bool,
    /// Parent pointers.
    pub parent: bool,
    /// Names compare without case in ASCII.
    pub ascii_ci: bool,
}

/// The superblock of `geometry`, counters and checksum zero.
pub(super) fn superblock(geometry: &Geometry) -> Superblock {
    let features = &geometry.features;
    let root = geometry.root_inode();
    let per_block = geometry.inodes_per_block_log();
    Superblock {
        magic: MAGIC.into(),
        block_size: (1 << geometry.block_log).into(),
        dblocks: geometry.blocks.into(),
        uuid: *geometry.uuid.as_bytes(),
        log_start: geometry.log_start.into(),
        root_ino: root.into(),
        rbm_ino: (root + 1).into(),
        rsum_ino: (root + 2).into(),
        // 4 KiB (`XFS_MIN_RTEXTSIZE`), though there is no realtime device.
        rext_size: (4096_u32 >> geometry.block_log).max(1).into(),
        ag_blocks: geometry.ag_blocks.into(),
        ag_count: geometry.ag_count.into(),
        log_blocks: geometry.log_blocks.into(),
        version: version_bits(geometry).into(),
        sector_size: (1 << geometry.sector_log).into(),
        inode_size: (1 << geometry.inode_log).into(),
        inodes_per_block: (1 << per_block).into(),
        label: geometry.label,
        block_log: geometry.block_log,
        sector_log: geometry.sector_log,
        inode_log: geometry.inode_log,
        inopb_log: per_block,
        ag_block_log: geometry.ag_block_bits(),
        imax_percent: geometry.imax_percent,
        inode_align: geometry.inode_align.into(),
        unit: geometry.stripe_unit.into(),
        width: geometry.stripe_width.into(),
        dir_block_log: geometry.dir_block_log,
        log_sector_log: if geometry.sector_log == 9 {
            0
        } else {
            geometry.sector_log
        },
        log_sector_size: if geometry.sector_log == 9 {
            0
        } else {
            1 << geometry.sector_log
        }
        .into(),
        log_unit: geometry.log_unit.into(),
        features2: FEATURES2.into(),
        bad_features2: FEATURES2.into(),
        features_ro_compat: ro_compat_bits(features).into(),
        features_incompat: incompat_bits(features).into(),
        sparse_align: geometry.sparse_align.into(),
        ..Superblock::default()
    }
}

/// What every file system of version 5 has.
const FEATURES2: u32 =
    features2::LAZY_COUNT | features2::ATTR2 | features2::PROJID32 | features2::CRC;

fn version_bits(geometry: &Geometry) -> u16 {
    let mut bits = version::FIVE
        | version::ATTR
        | version::NLINK
        | version::ALIGN
        | version::LOG_V2
        | version::EXTFLG
        | version::DIR_V2
        | version::MORE;
    for (set, bit) in [
        (geometry.stripe_unit > 0, version::DALIGN),
        (geometry.sector_log > 9, version::SECTOR),
        (geometry.features.ascii_ci, version::BORG),
    ] {
        bits |= if set { bit } else { 0 };
    }
    bits
}

fn bits<const N: usize>(table: [(bool, u32); N]) -> u32 {
    table
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, bit)| bit)
        .sum()
}

fn ro_compat_bits(features: &Features) -> u32 {
    bits([
        (features.finobt, ro_compat::FINOBT),
        (features.rmapbt, ro_compat::RMAPBT),
        (features.reflink, ro_compat::REFLINK),
        (features.inobtcount, ro_compat::INOBT_COUNT),
    ])
}

fn incompat_bits(features: &Features) -> u32 {
    bits([
        (true, incompat::FTYPE),
        (features.sparse, incompat::SPARSE_INODES),
        (features.bigtime, incompat::BIGTIME),
        (features.nrext64, incompat::NREXT64),
        (features.exchange, incompat::EXCHANGE),
        (features.parent, incompat::PARENT),
    ])
}
