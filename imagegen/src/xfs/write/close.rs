//! A group is complete: its B-trees and headers are written.

use super::super::format::btree::{
    FreeRecord, InodeRecord, RefcountRecord, RmapRecord, magic, owner, rmap_offset,
};
use super::super::format::group::{
    AGF_CRC_AT, AGF_MAGIC, AGFL_CRC_AT, AGFL_MAGIC, AGI_CRC_AT, AGI_MAGIC, Agf, Agfl, Agi, VERSION,
};
use super::super::format::superblock::{self, Superblock};
use super::super::format::{NULL_AG_BLOCK, NULL_AG_INODE, checksum};
use super::super::geometry::{CHUNK_INODES, Geometry};
use super::btree::{Place, Record, blocks_below_root, load};
use super::group::{Group, Run};
use super::refcounts;
use crate::medium::Medium;
use std::io;
use zerocopy::IntoBytes;

/// What the superblock counts of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) inodes: u64,
    pub(crate) free_inodes: u64,
    pub(crate) free_blocks: u64,
}

/// Records of every tree of a group, and where the trees lie.
struct Trees {
    free: Vec<FreeRecord>,
    chunks: Vec<InodeRecord>,
    free_chunks: Vec<InodeRecord>,
    rmaps: Vec<RmapRecord>,
    refcounts: Vec<RefcountRecord>,
    roots: Roots,
    below: Below,
}

/// Blocks of the roots, fixed by the geometry (`XFS_BNO_BLOCK` and so on).
struct Roots {
    bno: u32,
    cnt: u32,
    ino: u32,
    fino: u32,
    rmap: u32,
    refcount: u32,
}

/// First block below each root, and how many there are.
#[derive(Default)]
struct Below {
    bno: Run,
    cnt: Run,
    rmap: Run,
    ino: Run,
    fino: Run,
    refcount: Run,
}

impl Roots {
    fn of(geometry: &Geometry) -> Self {
        let bno = geometry.header_blocks();
        let ino = bno + 2;
        let fino = ino + u32::from(geometry.features.finobt);
        let rmap = fino + u32::from(geometry.features.rmapbt);
        let refcount = rmap + u32::from(geometry.features.reflink);
        Self {
            bno,
            cnt: bno + 1,
            ino,
            fino,
            rmap,
            refcount,
        }
    }
}

/// Writes everything of `group` that is not a file's, and says what it holds.
///
/// # Errors
/// If writing fails, or if its trees do not fit behind its contents.
pub(crate) fn close(
    geometry: &Geometry,
    mut group: Group,
    medium: &dyn Medium,
) -> io::Result<Totals> {
    let trees = Trees::of(geometry, &mut group)?;
    let agf_levels = trees.write(geometry, group.ag, medium)?;
    write_headers(geometry, &group, &trees, &agf_levels, medium)?;
    let free_inodes = trees
        .chunks
        .iter()
        .map(|chunk| u64::from(chunk.free_count))
        .sum();
    let free: u64 = trees
        .free
        .iter()
        .map(|free| u64::from(free.count.get()))
        .sum();
    Ok(Totals {
        inodes: trees.chunks.len() as u64 * u64::from(CHUNK_INODES),
        free_inodes,
        free_blocks: free + u64::from(group.agfl.count + trees.below.counted_free(geometry)),
    })
}

impl Below {
    /// Blocks of trees which the superblock counts as free (`agf_btreeblks`).
    fn counted_free(&self, geometry: &Geometry) -> u32 {
        let rmap = if geometry.features.rmapbt {
            self.rmap.count
        } else {
            0
        };
        self.bno.count + self.cnt.count + rmap
    }
}

impl Trees {
    fn of(geometry: &Geometry, group: &mut Group) -> io::Result<Self> {
        let size = geometry.block_size();
        let mut chunks = std::mem::take(&mut group.chunks);
        chunks.sort_unstable_by_key(|chunk| chunk.start.get());
        let free_chunks: Vec<_> = chunks
            .iter()
            .filter(|chunk| chunk.free_count > 0)
            .copied()
            .collect();
        let refcounts = refcounts::of(&group.rmaps);

        let mut below = Below::default();
        let features = geometry.features;
        let free_runs = group.gaps.len() + 1;
        below.bno.count = blocks_below_root::<FreeRecord>(free_runs, size) as u32;
        below.cnt.count = below.bno.count;
        below.ino.count = blocks_below_root::<InodeRecord>(chunks.len(), size) as u32;
        if features.finobt {
            below.fino.count = blocks_below_root::<InodeRecord>(free_chunks.len(), size) as u32;
        }
        if features.reflink {
            below.refcount.count =
                blocks_below_root::<RefcountRecord>(refcounts.len(), size) as u32;
        }
        group.rmaps = merged(std::mem::take(&mut group.rmaps));
        if features.rmapbt {
            below.count_rmaps(group.rmaps.len(), size);
        }
        below.place(group);
        if group.next > group.length {
            return Err(io::Error::other(format!(
                "no room for the B-trees of group {}: {} blocks too few",
                group.ag,
                group.next - group.length
            )));
        }
        Ok(Self {
            free: free_extents(group),
            chunks,
            free_chunks,
            rmaps: in_order(std::mem::take(&mut group.rmaps)),
            refcounts,
            roots: Roots::of(geometry),
            below,
        })
    }

    /// Writes all trees; their levels in the order of `Levels`.
    fn write(&self, geometry: &Geometry, ag: u32, medium: &dyn Medium) -> io::Result<Levels> {
        let features = geometry.features;
        let place = |magic, root, below: Run| Place {
            geometry,
            ag,
            magic,
            root,
            below: below.start,
        };
        let (roots, below) = (&self.roots, &self.below);
        let mut by_size = self.free.clone();
        by_size.sort_unstable_by_key(|free| (free.count.get(), free.start.get()));
        let bno = place(magic::BNO, roots.bno, below.bno);
        let cnt = place(magic::CNT, roots.cnt, below.cnt);
        let ino = place(magic::INO, roots.ino, below.ino);
        let fino = place(magic::FINO, roots.fino, below.fino);
        let rmap = place(magic::RMAP, roots.rmap, below.rmap);
        let refcount = place(magic::REFCOUNT, roots.refcount, below.refcount);
        Ok(Levels {
            bno: put(bno, &self.free, medium, true)?,
            cnt: put(cnt, &by_size, medium, true)?,
            ino: put(ino, &self.chunks, medium, true)?,
            fino: put(fino, &self.free_chunks, medium, features.finobt)?,
            rmap: put(rmap, &self.rmaps, medium, features.rmapbt)?,
            refcount: put(refcount, &self.refcounts, medium, features.reflink)?,
        })
    }
}

struct Levels {
    bno: u32,
    cnt: u32,
    ino: u32,
    fino: u32,
    rmap: u32,
    refcount: u32,
}

/// Writes a tree if it is `there`; its levels, or 0.
fn put<R: Record>(
    place: Place<'_>,
    records: &[R],
    medium: &dyn Medium,
    there: bool,
) -> io::Result<u32> {
    if !there {
        return Ok(0);
    }
    load(place, records, |block, bytes| {
        medium.write(place.geometry.byte(place.ag, block), bytes)
    })
}

impl Below {
    /// Blocks for the tree of `records` reverse mappings and of those for the blocks placed
    /// here, its own among them.
    fn count_rmaps(&mut self, records: usize, block_size: usize) {
        let blocks = |records| blocks_below_root::<RmapRecord>(records, block_size) as u32;
        let others = usize::from(self.ino.count + self.fino.count > 0)
            + usize::from(self.refcount.count > 0);
        self.rmap.count = blocks(records + others);
        if self.bno.count + self.cnt.count + self.rmap.count > 0 {
            self.rmap.count = blocks(records + others + 1);
        }
    }

    /// Places the blocks below the roots behind the group's contents.
    fn place(&mut self, group: &mut Group) {
        let mut at = group.next;
        let mut put = |run: &mut Run| {
            run.start = at;
            at += run.count;
        };
        put(&mut self.bno);
        put(&mut self.cnt);
        put(&mut self.rmap);
        put(&mut self.ino);
        put(&mut self.fino);
        put(&mut self.refcount);
        for (count, owner) in [
            (self.bno.count + self.cnt.count + self.rmap.count, owner::AG),
            (self.ino.count + self.fino.count, owner::INOBT),
            (self.refcount.count, owner::REFCOUNT),
        ] {
            if count > 0 {
                group.push(count, owner);
            }
        }
    }
}

/// What is free, by block.
fn free_extents(group: &Group) -> Vec<FreeRecord> {
    let end = Run {
        start: group.next,
        count: group.length - group.next,
    };
    let mut runs: Vec<Run> = group.gaps.clone();
    runs.push(end);
    runs.retain(|run| run.count > 0);
    runs.sort_unstable_by_key(|run| run.start);
    runs.dedup_by(|next, run| {
        let touching = run.end() == next.start;
        if touching {
            run.count += next.count;
        }
        touching
    });
    let record = |run: &Run| FreeRecord {
        start: run.start.into(),
        count: run.count.into(),
    };
    runs.iter().map(record).collect()
}

/// Reverse mappings in the tree's order.
fn in_order(mut rmaps: Vec<RmapRecord>) -> Vec<RmapRecord> {
    rmaps.sort_unstable_by_key(|rmap| (rmap.start.get(), rmap.owner.get(), rmap.offset.get()));
    rmaps
}

/// Reverse mappings in order, those that continue each other as one: also where others
/// come between, because blocks have several owners.
fn merged(mut rmaps: Vec<RmapRecord>) -> Vec<RmapRecord> {
    rmaps.sort_unstable_by_key(|rmap| (rmap.owner.get(), line(rmap), rmap.start.get()));
    rmaps.dedup_by(|next, rmap| {
        let joins = continues(rmap, next);
        if joins {
            rmap.count += next.count;
        }
        joins
    });
    in_order(rmaps)
}

/// Whether the offset of an owner's next piece is greater: contents of a fork.
fn moves(rmap: &RmapRecord) -> bool {
    !owner::is_special(rmap.owner.get()) && rmap.offset.get() & rmap_offset::BMBT_BLOCK == 0
}

/// What pieces that continue each other have in common, and other pieces of the owner do
/// not, even if they lie on the same blocks.
fn line(rmap: &RmapRecord) -> u64 {
    match moves(rmap) {
        true => rmap.offset.get().wrapping_sub(rmap.start.get().into()),
        false => rmap.offset.get(),
    }
}

/// Whether `next` is the same owner's next piece.
fn continues(rmap: &RmapRecord, next: &RmapRecord) -> bool {
    rmap.owner == next.owner
        && rmap.start.get() + rmap.count.get() == next.start.get()
        && line(next) == line(rmap)
}

/// Superblock copy, AGF, AGI and AGFL.
fn write_headers(
    geometry: &Geometry,
    group: &Group,
    trees: &Trees,
    levels: &Levels,
    medium: &dyn Medium,
) -> io::Result<()> {
    let sector = geometry.sector_size();
    let mut bytes = vec![0; geometry.header_blocks() as usize * geometry.block_size()];
    let mut sectors = bytes.chunks_exact_mut(sector);
    let mut put = |header: &[u8], crc_at: usize| {
        if let Some(sector) = sectors.next() {
            sector[..header.len()].copy_from_slice(header);
            checksum::seal(sector, crc_at);
        }
    };
    put(geometry.superblock().as_bytes(), superblock::CRC_AT);
    put(agf(geometry, group, trees, levels).as_bytes(), AGF_CRC_AT);
    put(agi(geometry, group, trees, levels).as_bytes(), AGI_CRC_AT);
    put(&agfl(geometry, group), AGFL_CRC_AT);
    let mut at = geometry.byte(group.ag, 0);
    let mut rest = &bytes[..];
    if group.ag == 0 {
        // The one that counts comes last of all: until then this is no file system.
        at += sector as u64;
        rest = &rest[sector..];
    }
    medium.write(at, rest)
}

fn agf(geometry: &Geometry, group: &Group, trees: &Trees, levels: &Levels) -> Agf {
    let features = geometry.features;
    let free = trees.free.iter().map(|free| free.count.get());
    let mut agf = Agf {
        magic: AGF_MAGIC.into(),
        version: VERSION.into(),
        seqno: group.ag.into(),
        length: group.length.into(),
        bno_root: trees.roots.bno.into(),
        cnt_root: trees.roots.cnt.into(),
        bno_level: levels.bno.into(),
        cnt_level: levels.cnt.into(),
        fl_first: 1.into(),
        fl_last: group.agfl.count.into(),
        fl_count: group.agfl.count.into(),
        free_blocks: free.clone().sum::<u32>().into(),
        longest: free.max().unwrap_or(0).into(),
        btree_blocks: trees.below.counted_free(geometry).into(),
        uuid: *geometry.uuid.as_bytes(),
        ..Agf::default()
    };
    if features.rmapbt {
        agf.rmap_root = trees.roots.rmap.into();
        agf.rmap_level = levels.rmap.into();
        agf.rmap_blocks = (trees.below.rmap.count + 1).into();
    }
    if features.reflink {
        agf.refcount_root = trees.roots.refcount.into();
        agf.refcount_level = levels.refcount.into();
        agf.refcount_blocks = (trees.below.refcount.count + 1).into();
    }
    agf
}

fn agi(geometry: &Geometry, group: &Group, trees: &Trees, levels: &Levels) -> Agi {
    let features = geometry.features;
    let free = |chunks: &[InodeRecord]| {
        chunks
            .iter()
            .map(|chunk| u32::from(chunk.free_count))
            .sum::<u32>()
    };
    let mut agi = Agi {
        magic: AGI_MAGIC.into(),
        version: VERSION.into(),
        seqno: group.ag.into(),
        length: group.length.into(),
        count: (trees.chunks.len() as u32 * CHUNK_INODES).into(),
        root: trees.roots.ino.into(),
        level: levels.ino.into(),
        free_count: free(&trees.chunks).into(),
        new_ino: trees
            .chunks
            .last()
            .map_or(NULL_AG_INODE.into(), |chunk| chunk.start),
        dir_ino: NULL_AG_INODE.into(),
        unlinked: [NULL_AG_INODE.into(); 64],
        uuid: *geometry.uuid.as_bytes(),
        ..Agi::default()
    };
    if features.finobt {
        agi.free_root = trees.roots.fino.into();
        agi.free_level = levels.fino.into();
    }
    if features.inobtcount {
        agi.iblocks = (trees.below.ino.count + 1).into();
        agi.fblocks = (trees.below.fino.count + 1).into();
    }
    agi
}

/// The AGFL's sector: its blocks from slot 1 on, as mkfs.xfs leaves it.
fn agfl(geometry: &Geometry, group: &Group) -> Vec<u8> {
    let header = Agfl {
        magic: AGFL_MAGIC.into(),
        seqno: group.ag.into(),
        uuid: *geometry.uuid.as_bytes(),
        ..Agfl::default()
    };
    let mut bytes = header.as_bytes().to_vec();
    for slot in 0..geometry.agfl_slots() {
        let held = slot >= 1 && slot <= group.agfl.count;
        let block = if held {
            group.agfl.start + slot - 1
        } else {
            NULL_AG_BLOCK
        };
        bytes.extend_from_slice(&block.to_be_bytes());
    }
    bytes
}

/// Writes the superblock that counts, which makes the file system one.
pub(crate) fn write_superblock(
    geometry: &Geometry,
    totals: Totals,
    medium: &dyn Medium,
) -> io::Result<()> {
    let superblock = Superblock {
        icount: totals.inodes.into(),
        ifree: totals.free_inodes.into(),
        fdblocks: totals.free_blocks.into(),
        ..geometry.superblock()
    };
    let mut sector = vec![0; geometry.sector_size()];
    sector[..size_of::<Superblock>()].copy_from_slice(superblock.as_bytes());
    checksum::seal(&mut sector, superblock::CRC_AT);
    medium.write(0, &sector)
}
