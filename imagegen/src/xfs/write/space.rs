//! Gives out blocks and inodes, group after group, and closes groups that are full.
//!
//! Groups are filled in order. Where it is known about how much will come, each is filled
//! to its share only, so that free space is spread over all of them.

use super::super::format::btree::{InodeRecord, owner};
use super::super::format::extent;
use super::super::geometry::{CHUNK_INODES, Geometry, Used};
use super::close::{Totals, close};
use super::group::{Group, Run};
use super::refcounts;
use crate::medium::Medium;
use std::io;

/// Why no blocks could be given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpaceError {
    #[error("no space left")]
    Full,
    #[error(transparent)]
    Io(#[from] io::Error),
}

type Result<T> = std::result::Result<T, SpaceError>;

/// Blocks in one piece: first fsblock and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) block: u64,
    pub(crate) count: u64,
}

/// Whom blocks are for, as the reverse mappings say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct For {
    /// Inode or special owner.
    pub(crate) owner: u64,
    /// Offset in the fork in blocks, with flags.
    pub(crate) offset: u64,
    /// Whether the offset grows with the blocks: file contents, not B-tree blocks.
    pub(crate) moves: bool,
}

/// Inodes that were allocated together on disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    /// The first inode.
    pub(crate) first: u64,
    /// Inodes.
    pub(crate) count: u32,
}

/// All the space there is.
pub(crate) struct Space<'a> {
    geometry: &'a Geometry,
    medium: &'a dyn Medium,
    group: Group,
    /// Full groups that are closed at the end only, because blocks in them may get further
    /// owners.
    full: Vec<Group>,
    keep: bool,
    /// How much of every group shall be filled, in 1/1024.
    share: u64,
    clump: Clump,
    totals: Totals,
}

/// Room for inodes in one piece, used bit by bit.
#[derive(Default)]
struct Clump {
    room: Run,
    /// Inodes left in the unit begun last: next one and the end.
    next: u32,
    end: u32,
}

/// Units of inodes that room is taken for at once.
const CLUMP_UNITS: u32 = 16;

impl<'a> Space<'a> {
    /// An empty file system of which about `expected` blocks will be used. With `keep`
    /// every group can get further owners until the end, at the cost of memory.
    pub(crate) fn new(
        geometry: &'a Geometry,
        medium: &'a dyn Medium,
        expected: Option<u64>,
        keep: bool,
    ) -> Self {
        let mut group = Group::fresh(geometry, 0, reserve(geometry, 0));
        group.skip_to(geometry.first_chunk_block());
        let share = expected.map_or(1024, |expected| share_of(expected, geometry.blocks));
        Self {
            geometry,
            medium,
            group,
            full: Vec::new(),
            keep,
            share,
            clump: Clump::default(),
            totals: Totals::default(),
        }
    }

    /// `count` blocks in as few pieces as possible, each a multiple of `granule` blocks
    /// and none longer than an extent may be.
    pub(crate) fn blocks(&mut self, count: u64, granule: u32, whom: For) -> Result<Vec<Piece>> {
        let mut pieces = Vec::with_capacity(1);
        let mut done = 0;
        while done < count {
            let longest = extent::MAX_LENGTH - extent::MAX_LENGTH % u64::from(granule);
            let want = (count - done).min(longest) as u32;
            let run = self.run(want, granule)?;
            let offset = if whom.moves {
                whom.offset + done
            } else {
                whom.offset
            };
            self.group.own(run, whom.owner, offset);
            let block = self.geometry.fsblock(self.group.ag, run.start);
            pieces.push(Piece {
                block,
                count: run.count.into(),
            });
            done += u64::from(run.count);
        }
        Ok(pieces)
    }

    fn run(&mut self, want: u32, granule: u32) -> Result<Run> {
        loop {
            if !self.has_its_share() {
                let taken = if granule == 1 {
                    self.group.take_some(self.geometry, want)
                } else {
                    self.take_granules(want, granule)
                };
                if let Some(run) = taken {
                    return Ok(run);
                }
            }
            self.advance()?;
        }
    }

    fn take_granules(&mut self, want: u32, granule: u32) -> Option<Run> {
        let room = self.group.room(self.geometry);
        let fits = want.min(room - room % granule);
        (fits > 0)
            .then(|| self.group.take(self.geometry, fits, 1))
            .flatten()
    }

    /// Whether the group has what is meant for it, and others still come.
    fn has_its_share(&self) -> bool {
        let others = self.group.ag + 1 < self.geometry.ag_count;
        others && u64::from(self.group.used) * 1024 >= u64::from(self.group.length) * self.share
    }

    /// Records one more owner of blocks that were given out, if there is room for that;
    /// whether there is.
    pub(crate) fn share(&mut self, piece: Piece, whom: For) -> bool {
        let (ag, start) = self.geometry.group_of(piece.block);
        let run = Run {
            start,
            count: piece.count as u32,
        };
        let group = if u64::from(self.group.ag) == ag {
            Some(&mut self.group)
        } else {
            self.full.get_mut(ag as usize)
        };
        group.is_some_and(|group| group.share(self.geometry, run, whom.owner, whom.offset))
    }

    /// Inodes of which some block has several owners, in order.
    pub(crate) fn sharers(&self) -> Vec<u64> {
        let groups = self.full.iter().chain([&self.group]);
        let of = |group: &Group| refcounts::sharers(&group.rmaps, &refcounts::of(&group.rmaps));
        let mut inodes: Vec<u64> = groups.flat_map(of).collect();
        inodes.sort_unstable();
        inodes.dedup();
        inodes
    }

    /// The next inode, and the unit it begins if it does.
    pub(crate) fn inode(&mut self) -> Result<(u64, Option<Unit>)> {
        let mut begun = None;
        if self.clump.next == self.clump.end {
            begun = Some(self.begin_unit()?);
        }
        let ino = self.clump.next;
        self.clump.next += 1;
        mark_used(&mut self.group.chunks, ino);
        Ok((self.geometry.inode(self.group.ag, ino), begun))
    }

    /// Allocates one more unit of inodes, all free.
    pub(crate) fn begin_unit(&mut self) -> Result<Unit> {
        let blocks = self.geometry.chunk_blocks();
        if self.clump.room.count < blocks {
            self.take_clump(blocks)?;
        }
        let start = self.clump.room.start;
        self.clump.room.start += blocks;
        self.clump.room.count -= blocks;
        self.group.own(
            Run {
                start,
                count: blocks,
            },
            owner::INODES,
            0,
        );
        let first = start << self.geometry.inodes_per_block_log();
        let count = blocks << self.geometry.inodes_per_block_log();
        for chunk in (first..first + count).step_by(CHUNK_INODES as usize) {
            self.group.add_chunk(self.geometry, chunk);
        }
        (self.clump.next, self.clump.end) = (first, first + count);
        Ok(Unit {
            first: self.geometry.inode(self.group.ag, first),
            count,
        })
    }

    fn take_clump(&mut self, unit: u32) -> Result<()> {
        self.return_clump();
        let align = self.geometry.inode_align.max(1);
        loop {
            let mut units = CLUMP_UNITS;
            while units > 0 && !self.has_its_share() {
                if let Some(room) = self.group.take(self.geometry, units * unit, align) {
                    self.clump.room = room;
                    return Ok(());
                }
                units /= 2;
            }
            self.advance()?;
        }
    }

    /// Gives back what no inode needed.
    fn return_clump(&mut self) {
        self.group.give_back(std::mem::take(&mut self.clump.room));
    }

    /// Goes on to the next group.
    fn advance(&mut self) -> Result<()> {
        let ag = self.group.ag + 1;
        if ag >= self.geometry.ag_count {
            return Err(SpaceError::Full);
        }
        self.return_clump();
        self.clump = Clump::default();
        let fresh = Group::fresh(self.geometry, ag, reserve(self.geometry, ag));
        let group = std::mem::replace(&mut self.group, fresh);
        if self.keep {
            self.full.push(group);
        } else {
            self.close(group)?;
        }
        Ok(())
    }

    fn close(&mut self, group: Group) -> Result<()> {
        let totals = close(self.geometry, group, self.medium)?;
        self.totals.inodes += totals.inodes;
        self.totals.free_inodes += totals.free_inodes;
        self.totals.free_blocks += totals.free_blocks;
        Ok(())
    }

    /// Closes all groups, those never used too.
    pub(crate) fn finish(mut self) -> Result<Totals> {
        while self.group.ag + 1 < self.geometry.ag_count {
            self.advance()?;
        }
        self.return_clump();
        for group in std::mem::take(&mut self.full) {
            self.close(group)?;
        }
        let fresh = Group::fresh(self.geometry, 0, 0);
        let last = std::mem::replace(&mut self.group, fresh);
        self.close(last)?;
        Ok(self.totals)
    }
}

/// Blocks of a group that stay free, for what the kernel sets aside at a mount: its own
/// B-trees are part of that.
fn reserve(geometry: &Geometry, ag: u32) -> u32 {
    let roots = Used {
        reverse: 1,
        refcounts: 1,
        free_inodes: 1,
    };
    geometry.reserve(ag, roots)
}

/// Marks an inode of a group as used; it lies in one of the newest chunks.
fn mark_used(chunks: &mut [InodeRecord], ino: u32) {
    let holds = |chunk: &&mut InodeRecord| {
        (chunk.start.get()..chunk.start.get() + CHUNK_INODES).contains(&ino)
    };
    if let Some(chunk) = chunks.iter_mut().rev().find(holds) {
        chunk.free = (chunk.free.get() & !(1 << (ino - chunk.start.get()))).into();
        chunk.free_count -= 1;
    }
}

/// The share of each group, in 1/1024, if `expected` of `blocks` will be used; a good deal
/// more than needed, because what comes is not known exactly.
fn share_of(expected: u64, blocks: u64) -> u64 {
    let share = (expected as u128 * 1024 / u128::from(blocks.max(1))) as u64;
    let generous = share + share / 4 + 16;
    if generous > 700 { 1024 } else { generous }
}
