//! One group while it is filled: which blocks are given out, and to whom.
//!
//! Blocks are given out from the front, so that what is written together lies together;
//! what alignment leaves out is a *gap*, used for small requests. Enough is left at the
//! end for the group's own B-trees and for what the kernel sets aside at a mount.

use super::super::format::btree::{FreeRecord, InodeRecord, RefcountRecord, RmapRecord, owner};
use super::super::geometry::{CHUNK_INODES, Geometry};
use super::btree::blocks_below_root;

/// A run of blocks of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) start: u32,
    pub(crate) count: u32,
}

impl Run {
    pub(crate) fn end(self) -> u32 {
        self.start + self.count
    }
}

/// A group that is being filled.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) ag: u32,
    pub(crate) length: u32,
    /// Everything from here on is free.
    pub(crate) next: u32,
    /// Free runs before `next`.
    pub(crate) gaps: Vec<Run>,
    pub(crate) agfl: Run,
    pub(crate) rmaps: Vec<RmapRecord>,
    pub(crate) chunks: Vec<InodeRecord>,
    /// How often an extent got one more owner.
    shares: usize,
    /// Blocks given out for the tree's files, so far.
    pub(crate) used: u32,
    /// Blocks that stay free for B-trees, whatever these need now.
    reserved: u32,
}

impl Group {
    /// A fresh group: headers, roots, AGFL and perhaps the log.
    pub(crate) fn fresh(geometry: &Geometry, ag: u32, reserved: u32) -> Self {
        let mut group = Self {
            ag,
            length: geometry.group_blocks(ag),
            next: geometry.root_blocks(),
            gaps: Vec::new(),
            agfl: Run { start: 0, count: 0 },
            rmaps: Vec::new(),
            chunks: Vec::new(),
            shares: 0,
            used: 0,
            reserved,
        };
        group.own_roots(geometry);
        let (log_ag, log_block) = geometry.group_of(geometry.log_start);
        let agfl = geometry.fresh_agfl_blocks();
        let log = (log_ag == u64::from(ag)).then_some(log_block);
        let agfl_first = log.is_none_or(|log| log >= group.next + agfl);
        if agfl_first {
            group.agfl = group.push(agfl, owner::AG);
        }
        if let Some(log) = log {
            group.skip_to(log);
            group.push(geometry.log_blocks, owner::LOG);
        }
        // A log may leave nothing for the AGFL: it is empty then, as mkfs.xfs leaves it.
        if !agfl_first && group.next + agfl < group.length {
            group.agfl = group.push(agfl, owner::AG);
        }
        group
    }

    fn own_roots(&mut self, geometry: &Geometry) {
        let features = &geometry.features;
        let headers = geometry.header_blocks();
        let inode_trees = 1 + u32::from(features.finobt);
        let mut at = 0;
        for (count, owner) in [
            (headers, owner::FS),
            (2, owner::AG),
            (inode_trees, owner::INOBT),
            (u32::from(features.rmapbt), owner::AG),
            (u32::from(features.reflink), owner::REFCOUNT),
        ] {
            if count > 0 {
                self.own(Run { start: at, count }, owner, 0);
            }
            at += count;
        }
    }

    /// Takes the next `count` blocks for `owner`, whatever is reserved.
    pub(crate) fn push(&mut self, count: u32, owner: u64) -> Run {
        let run = Run {
            start: self.next,
            count,
        };
        self.next += count;
        self.own(run, owner, 0);
        run
    }

    /// Leaves everything before `block` as a gap.
    pub(crate) fn skip_to(&mut self, block: u32) {
        if block > self.next {
            self.gaps.push(Run {
                start: self.next,
                count: block - self.next,
            });
            self.next = block;
        }
    }

    /// Records an owner of blocks; `offset` with its flags.
    pub(crate) fn own(&mut self, run: Run, owner: u64, offset: u64) {
        self.rmaps.push(RmapRecord {
            start: run.start.into(),
            count: run.count.into(),
            owner: owner.into(),
            offset: offset.into(),
        });
    }

    /// Records one more owner of blocks, if the trees have room for what that takes.
    pub(crate) fn share(&mut self, geometry: &Geometry, run: Run, owner: u64, offset: u64) -> bool {
        let left = self.length.saturating_sub(self.next);
        let fits = self.trees(geometry) + 2 * SLACK < left;
        if fits {
            self.own(run, owner, offset);
            self.shares += 1;
        }
        fits
    }

    /// Blocks that may still be given out from the end.
    pub(crate) fn room(&self, geometry: &Geometry) -> u32 {
        let left = self.length.saturating_sub(self.next);
        left.saturating_sub(self.trees(geometry).max(self.reserved) + SLACK)
    }

    /// Blocks the B-trees would take now, roots aside.
    fn trees(&self, geometry: &Geometry) -> u32 {
        let size = geometry.block_size();
        let free = self.gaps.len() + 2;
        let mut blocks = 2 * blocks_below_root::<FreeRecord>(free, size)
            + 2 * blocks_below_root::<InodeRecord>(self.chunks.len(), size);
        if geometry.features.rmapbt {
            blocks += blocks_below_root::<RmapRecord>(self.rmaps.len() + 3, size);
        }
        if geometry.features.reflink {
            blocks += blocks_below_root::<RefcountRecord>(2 * self.shares, size);
        }
        blocks as u32
    }

    /// Takes up to `count` blocks in one piece, at least one; none if the group is full.
    pub(crate) fn take_some(&mut self, geometry: &Geometry, count: u32) -> Option<Run> {
        let count = count.min(self.room(geometry));
        if count == 0 {
            return self.take_gap(1);
        }
        if count <= LARGEST_GAP_USE
            && let Some(run) = self.take_gap(count)
        {
            return Some(run);
        }
        Some(self.take_end(count))
    }

    /// Takes `count` blocks in one piece from a multiple of `align`.
    pub(crate) fn take(&mut self, geometry: &Geometry, count: u32, align: u32) -> Option<Run> {
        if align == 1
            && count <= LARGEST_GAP_USE
            && let Some(run) = self.take_gap(count)
        {
            return Some(run);
        }
        let start = self.next.next_multiple_of(align);
        if start - self.next + count > self.room(geometry) {
            return None;
        }
        self.skip_to(start);
        Some(self.take_end(count))
    }

    fn take_end(&mut self, count: u32) -> Run {
        let run = Run {
            start: self.next,
            count,
        };
        self.next += count;
        self.used += count;
        run
    }

    /// The newest gap that holds `count` blocks; old ones are not searched for long.
    fn take_gap(&mut self, count: u32) -> Option<Run> {
        let searched = self.gaps.len().saturating_sub(GAPS_SEARCHED);
        let found = self.gaps[searched..]
            .iter()
            .rposition(|gap| gap.count >= count)?
            + searched;
        let gap = &mut self.gaps[found];
        let run = Run {
            start: gap.start,
            count,
        };
        gap.start += count;
        gap.count -= count;
        if gap.count == 0 {
            self.gaps.swap_remove(found);
        }
        self.used += count;
        Some(run)
    }

    /// Gives back blocks that were taken and are not needed.
    pub(crate) fn give_back(&mut self, run: Run) {
        if run.count == 0 {
            return;
        }
        self.used -= run.count;
        if run.end() == self.next {
            self.next = run.start;
        } else {
            self.gaps.push(run);
        }
    }

    /// Adds a chunk of inodes that begins at inode `start` of the group, all free. Without
    /// sparse chunks `count` is part of a larger field of free inodes.
    pub(crate) fn add_chunk(&mut self, geometry: &Geometry, start: u32) {
        let sparse = geometry.features.sparse;
        self.chunks.push(InodeRecord {
            start: start.into(),
            count: if sparse { CHUNK_INODES as u8 } else { 0 },
            free_count: CHUNK_INODES as u8,
            free: u64::MAX.into(),
            ..InodeRecord::default()
        });
    }
}

/// Requests up to this many blocks are served from gaps.
const LARGEST_GAP_USE: u32 = 16;
/// How many of the newest gaps are looked at.
const GAPS_SEARCHED: usize = 8;
/// Blocks left over for what changes while a group is closed.
const SLACK: u32 = 8;
