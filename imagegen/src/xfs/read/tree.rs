//! The seven kinds of B-tree: how each orders its records and what a record may be.

use crate::xfs::format::btree::{
    FreeRecord, InodeRecord, REFCOUNT_COW, RefcountRecord, RmapKey, RmapRecord, magic, owner,
    rmap_offset,
};
use crate::xfs::format::extent::{Extent, MAX_OFFSET, Packed};
use crate::xfs::format::{U32, U64};
use crate::xfs::geometry::{CHUNK_INODES, Geometry};
use std::fmt::Debug;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// A kind of B-tree.
pub trait Tree {
    /// What it is called.
    const NAME: &'static str;
    /// Magic number of its blocks.
    const MAGIC: u32;
    /// Long headers and pointers: a fork's tree.
    const LONG: bool = false;
    /// Bytes of one key.
    const KEY_SIZE: usize;
    /// Nodes hold a lowest and a highest key for each child.
    const OVERLAPS: bool = false;
    /// What its leaves hold.
    type Record: Copy + Debug + FromBytes + Immutable + KnownLayout + Unaligned;
    /// What orders them.
    type Key: Copy + Ord + Debug;

    /// The key in the first [`Tree::KEY_SIZE`] bytes.
    fn key(bytes: &[u8]) -> Option<Self::Key>;
    /// Lowest key of a record.
    fn low(record: &Self::Record) -> Self::Key;
    /// Highest key of a record.
    fn high(record: &Self::Record) -> Self::Key {
        Self::low(record)
    }
    /// Where a key lies, in the unit of range queries.
    fn at(key: &Self::Key) -> u64;
    /// First position of a record, and the one after its last.
    fn span(record: &Self::Record) -> (u64, u64);
    /// Why `record` cannot be in the tree of group `ag`.
    fn flaw(geometry: &Geometry, ag: u32, record: &Self::Record) -> Option<&'static str>;
}

/// Why a run of `count` blocks from `start` of group `ag` cannot be.
fn bad_run(geometry: &Geometry, ag: u32, start: u32, count: u32) -> Option<&'static str> {
    match start.checked_add(count) {
        _ if count == 0 => Some("without blocks"),
        Some(end) if end <= geometry.group_blocks(ag) => None,
        _ => Some("beyond the group"),
    }
}

fn free_span(record: &FreeRecord) -> (u64, u64) {
    let start = record.start.get().into();
    (start, start + u64::from(record.count.get()))
}

/// Free space by block.
#[derive(Debug)]
pub struct Bno;

impl Tree for Bno {
    const NAME: &'static str = "free space B-tree by block";
    const MAGIC: u32 = magic::BNO;
    const KEY_SIZE: usize = 8;
    type Record = FreeRecord;
    type Key = u32;

    fn key(bytes: &[u8]) -> Option<u32> {
        Some(FreeRecord::read_from_prefix(bytes).ok()?.0.start.get())
    }
    fn low(record: &FreeRecord) -> u32 {
        record.start.get()
    }
    fn at(key: &u32) -> u64 {
        (*key).into()
    }
    fn span(record: &FreeRecord) -> (u64, u64) {
        free_span(record)
    }
    fn flaw(geometry: &Geometry, ag: u32, record: &FreeRecord) -> Option<&'static str> {
        bad_run(geometry, ag, record.start.get(), record.count.get())
    }
}

/// Free space by size. Range queries are by size.
#[derive(Debug)]
pub struct Cnt;

impl Tree for Cnt {
    const NAME: &'static str = "free space B-tree by size";
    const MAGIC: u32 = magic::CNT;
    const KEY_SIZE: usize = 8;
    type Record = FreeRecord;
    type Key = (u32, u32);

    fn key(bytes: &[u8]) -> Option<(u32, u32)> {
        Some(Self::low(&FreeRecord::read_from_prefix(bytes).ok()?.0))
    }
    fn low(record: &FreeRecord) -> (u32, u32) {
        (record.count.get(), record.start.get())
    }
    fn at(key: &(u32, u32)) -> u64 {
        key.0.into()
    }
    fn span(record: &FreeRecord) -> (u64, u64) {
        let size = record.count.get().into();
        (size, size + 1)
    }
    fn flaw(geometry: &Geometry, ag: u32, record: &FreeRecord) -> Option<&'static str> {
        bad_run(geometry, ag, record.start.get(), record.count.get())
    }
}

/// Why a record of an inode tree cannot be. Without sparse inodes the field for inodes
/// that exist is part of a larger one and zero.
fn bad_inodes(geometry: &Geometry, ag: u32, record: &InodeRecord) -> Option<&'static str> {
    let (start, bits) = (u64::from(record.start.get()), existing(record));
    let per_block = 1_u32 << geometry.inodes_per_block_log();
    let last = start + u64::from(CHUNK_INODES - 1 - bits.leading_zeros().min(63));
    let free = record.free.get();
    let count = if geometry.features.sparse {
        bits.count_ones()
    } else {
        0
    };
    if !record
        .start
        .get()
        .is_multiple_of(CHUNK_INODES.min(per_block))
    {
        Some("not at the beginning of a block")
    } else if last >> geometry.inodes_per_block_log() >= geometry.group_blocks(ag).into() {
        Some("beyond the group")
    } else if bits == 0 || (bits != u64::MAX && !geometry.features.sparse) {
        Some("with holes that cannot be")
    } else if u32::from(record.count) != count {
        Some("with another number of inodes than its holes leave")
    } else if (free & bits).count_ones() != u32::from(record.free_count) || free | bits != u64::MAX
    {
        Some("with another number of free inodes than bits")
    } else {
        None
    }
}

/// A bit for each inode of the chunk that exists.
pub(crate) fn existing(record: &InodeRecord) -> u64 {
    let holes = record.hole_mask.get();
    (0..16)
        .filter(|bit| holes & (1 << bit) == 0)
        .fold(0, |bits, bit| bits | 0xf << (4 * bit))
}

/// Inodes.
#[derive(Debug)]
pub struct Inobt;
/// Chunks with free inodes.
#[derive(Debug)]
pub struct Finobt;

macro_rules! inode_tree {
    ($tree:ty, $name:expr, $magic:expr) => {
        impl Tree for $tree {
            const NAME: &'static str = $name;
            const MAGIC: u32 = $magic;
            const KEY_SIZE: usize = 4;
            type Record = InodeRecord;
            type Key = u32;

            fn key(bytes: &[u8]) -> Option<u32> {
                Some(U32::read_from_prefix(bytes).ok()?.0.get())
            }
            fn low(record: &InodeRecord) -> u32 {
                record.start.get()
            }
            fn at(key: &u32) -> u64 {
                (*key).into()
            }
            fn span(record: &InodeRecord) -> (u64, u64) {
                let start = u64::from(record.start.get());
                (start, start + u64::from(CHUNK_INODES))
            }
            fn flaw(geometry: &Geometry, ag: u32, record: &InodeRecord) -> Option<&'static str> {
                bad_inodes(geometry, ag, record)
            }
        }
    };
}
inode_tree!(Inobt, "inode B-tree", magic::INO);
inode_tree!(Finobt, "free inode B-tree", magic::FINO);

/// Reverse mappings.
#[derive(Debug)]
pub struct Rmap;

/// Block, owner, offset with the flags that count in a key.
pub(super) type RmapOrder = (u32, u64, u64);

impl Tree for Rmap {
    const NAME: &'static str = "reverse mapping B-tree";
    const MAGIC: u32 = magic::RMAP;
    const KEY_SIZE: usize = 20;
    const OVERLAPS: bool = true;
    type Record = RmapRecord;
    type Key = RmapOrder;

    fn key(bytes: &[u8]) -> Option<RmapOrder> {
        let key = RmapKey::read_from_prefix(bytes).ok()?.0;
        let offset = key.offset.get() & !rmap_offset::UNWRITTEN;
        Some((key.start.get(), key.owner.get(), offset))
    }
    fn low(record: &RmapRecord) -> RmapOrder {
        let offset = record.offset.get() & !rmap_offset::UNWRITTEN;
        (record.start.get(), record.owner.get(), offset)
    }
    /// The last block, with the last offset where there are offsets
    /// (`xfs_rmapbt_init_high_key_from_rec`).
    fn high(record: &RmapRecord) -> RmapOrder {
        let (start, whose, offset) = Self::low(record);
        let more = record.count.get().saturating_sub(1);
        let block = offset & rmap_offset::BMBT_BLOCK != 0;
        let moves = !owner::is_special(whose) && !block;
        let offset = if moves {
            offset.wrapping_add(more.into())
        } else {
            offset
        };
        (start.saturating_add(more), whose, offset)
    }
    fn at(key: &RmapOrder) -> u64 {
        key.0.into()
    }
    fn span(record: &RmapRecord) -> (u64, u64) {
        let start = u64::from(record.start.get());
        (start, start + u64::from(record.count.get()))
    }
    fn flaw(geometry: &Geometry, ag: u32, record: &RmapRecord) -> Option<&'static str> {
        let whose = record.owner.get();
        let offset = record.offset.get() & rmap_offset::MASK;
        if let Some(flaw) = bad_run(geometry, ag, record.start.get(), record.count.get()) {
            Some(flaw)
        } else if owner::is_special(whose) {
            let known = (owner::COW..=owner::FS).contains(&whose);
            (!known || record.offset.get() & !rmap_offset::UNWRITTEN != 0)
                .then_some("with an owner that cannot be")
        } else if geometry.inode_group(whose).0 >= geometry.ag_count.into() {
            Some("of an inode that cannot be")
        } else if record.offset.get() & !(rmap_offset::FLAGS | rmap_offset::MASK) != 0 {
            Some("with flags that are none")
        } else if offset + u64::from(record.count.get()) > MAX_OFFSET + 1 {
            Some("beyond the largest offset")
        } else {
            None
        }
    }
}

/// Reference counts. Space for copies on write comes after all shared space.
#[derive(Debug)]
pub struct Refcount;

impl Tree for Refcount {
    const NAME: &'static str = "reference count B-tree";
    const MAGIC: u32 = magic::REFCOUNT;
    const KEY_SIZE: usize = 4;
    type Record = RefcountRecord;
    type Key = u32;

    fn key(bytes: &[u8]) -> Option<u32> {
        Some(U32::read_from_prefix(bytes).ok()?.0.get())
    }
    fn low(record: &RefcountRecord) -> u32 {
        record.start.get()
    }
    fn at(key: &u32) -> u64 {
        (*key).into()
    }
    fn span(record: &RefcountRecord) -> (u64, u64) {
        let start = u64::from(record.start.get());
        (start, start + u64::from(record.count.get()))
    }
    fn flaw(geometry: &Geometry, ag: u32, record: &RefcountRecord) -> Option<&'static str> {
        let (start, references) = (record.start.get(), record.references.get());
        let right = match start & REFCOUNT_COW {
            0 => references >= 2,
            _ => references == 1,
        };
        let run = bad_run(geometry, ag, start & !REFCOUNT_COW, record.count.get());
        run.or((!right).then_some("with a count that cannot be"))
    }
}

/// Extents of a fork. Range queries are by offset in blocks.
#[derive(Debug)]
pub struct Bmap;

impl Tree for Bmap {
    const NAME: &'static str = "extent B-tree";
    const MAGIC: u32 = magic::BMAP;
    const LONG: bool = true;
    const KEY_SIZE: usize = 8;
    type Record = Packed;
    type Key = u64;

    fn key(bytes: &[u8]) -> Option<u64> {
        Some(U64::read_from_prefix(bytes).ok()?.0.get())
    }
    fn low(record: &Packed) -> u64 {
        Extent::unpack(record).offset
    }
    fn at(key: &u64) -> u64 {
        *key
    }
    fn span(record: &Packed) -> (u64, u64) {
        let extent = Extent::unpack(record);
        (extent.offset, extent.offset + extent.count)
    }
    fn flaw(geometry: &Geometry, _: u32, record: &Packed) -> Option<&'static str> {
        super::fork::bad_extent(geometry, &Extent::unpack(record))
    }
}
