//! A group's headers and the B-trees below them, and then its space.

use super::inode_trees::InodeTrees;
use super::inodes::Scan;
use super::problem::{Kind, Problems};
use super::space::{self, Space, Use};
use crate::xfs::format::btree::{REFCOUNT_COW, RmapRecord, owner};
use crate::xfs::format::group::Agf;
use crate::xfs::read::btree::{Visit, Walk};
use crate::xfs::read::{Place, Reader, Source, Tree};
use std::collections::BTreeSet;

/// What all groups have together.
#[derive(Default)]
pub(super) struct Sums {
    /// Free blocks, with AGFL and B-trees, as the superblock counts.
    pub(super) free: u64,
    /// Some group could not be read.
    pub(super) incomplete: bool,
}

pub(super) fn check<S: Source>(
    reader: &Reader<S>,
    ag: u32,
    trees: &InodeTrees,
    scan: &mut Scan<'_, S>,
    sums: &mut Sums,
    problems: &mut Problems,
) {
    let Some(agf) = problems.ok(Kind::GroupHeader, reader.agf(ag)) else {
        sums.incomplete = true;
        return;
    };
    let mut group = Group {
        reader,
        ag,
        agf,
        space: Space::new(ag, reader.geometry().group_blocks(ag)),
        problems,
    };
    group.space.inodes_known = scan.forks_known;
    group.space.uses = scan.take_uses(ag);
    group.fixed(trees);
    group.agfl();
    let free = group.free_space();
    let rmaps = group.rmaps();
    let counts = group.refcounts();
    match free {
        Some(free) => sums.free += u64::from(free),
        None => sums.incomplete = true,
    }
    let Group {
        mut space,
        problems,
        ..
    } = group;
    space::check(reader, &mut space, rmaps, counts, scan, problems);
}

struct Group<'a, S> {
    reader: &'a Reader<S>,
    ag: u32,
    agf: Agf,
    space: Space,
    problems: &'a mut Problems,
}

impl<'a, S: Source> Group<'a, S> {
    fn place(&self) -> Place {
        Place::Group(self.ag)
    }

    fn compare(&mut self, name: &str, said: u32, found: u32) {
        let text = || format!("AGF: {name} is {said}, but there are {found}");
        let place = self.place();
        self.problems
            .expect(said == found, Kind::GroupHeader, place, text);
    }

    /// Headers, log, inodes and their trees.
    fn fixed(&mut self, trees: &InodeTrees) {
        let geometry = self.reader.geometry();
        let headers = geometry.header_blocks();
        self.space.uses.push(Use::special(0, headers, owner::FS));
        let (log_ag, log_block) = geometry.group_of(geometry.log_start);
        if log_ag == u64::from(self.ag) {
            let log = Use::special(log_block, geometry.log_blocks, owner::LOG);
            self.space.uses.push(log);
        }
        if let Some(inodes) = trees.groups.get(self.ag as usize) {
            self.space.uses.extend_from_slice(&inodes.blocks);
            for chunk in &inodes.chunks {
                space::chunk_blocks(geometry, chunk, &mut self.space.uses);
            }
            self.space.inodes_known &= inodes.agi.is_some();
        }
    }

    fn agfl(&mut self) {
        let agfl = self.reader.agfl(self.ag, &self.agf);
        let Some(agfl) = self.problems.ok(Kind::GroupHeader, agfl) else {
            self.space.trees_known = false;
            return;
        };
        let mut seen = BTreeSet::new();
        for block in agfl {
            if seen.insert(block) {
                self.space.uses.push(Use::special(block, 1, owner::AG));
            } else {
                let text = format!("AGFL: block {block} twice");
                self.problems.add(Kind::GroupHeader, self.place(), text);
            }
        }
    }

    /// Walks a tree, whose blocks belong to `whose`; returns its records and blocks, or
    /// nothing if part of it cannot be read.
    fn walk<T: Tree>(
        &mut self,
        walk: Walk<'a, S, T>,
        kind: Kind,
        whose: u64,
        mut record: impl FnMut(&mut Self, T::Record),
    ) -> Option<u32> {
        let mut blocks = 0;
        let mut whole = true;
        for visit in walk {
            match self.problems.ok(kind, visit) {
                Some(Visit::Block { fsblock, .. }) => {
                    blocks += 1;
                    let (_, block) = self.reader.geometry().group_of(fsblock);
                    self.space.uses.push(Use::special(block, 1, whose));
                }
                Some(Visit::Record(one)) => record(self, one),
                None => whole = false,
            }
        }
        self.space.trees_known &= whole;
        whole.then_some(blocks)
    }

    /// Both free space trees; returns the free blocks as the superblock counts them.
    fn free_space(&mut self) -> Option<u32> {
        let (reader, ag, agf) = (self.reader, self.ag, self.agf);
        let mut by_block: Vec<(u32, u32)> = Vec::new();
        let bno = reader.bno(ag, &agf, 0..u64::MAX);
        let bno = self.walk(bno, Kind::FreeSpace, owner::AG, |group, record| {
            let (start, count) = (record.start.get(), record.count.get());
            // Neighbours would have been merged.
            let apart = by_block.last().is_none_or(|(from, of)| from + of < start);
            let text = || format!("free extent {start} touches or overlaps the one before");
            let place = group.place();
            group.problems.expect(apart, Kind::FreeSpace, place, text);
            by_block.push((start, count));
        });
        let mut by_size: Vec<(u32, u32)> = Vec::new();
        let cnt = reader.cnt(ag, &agf, 0..u64::MAX);
        let cnt = self.walk(cnt, Kind::FreeSpace, owner::AG, |_, record| {
            by_size.push((record.start.get(), record.count.get()));
        });
        self.space.free_known = bno.is_some();
        let uses = by_block
            .iter()
            .map(|(start, count)| Use::special(*start, *count, space::FREE));
        self.space.uses.extend(uses);
        let bno_blocks = bno?;
        let free: u32 = by_block.iter().map(|(_, count)| count).sum();
        let longest = by_block.iter().map(|(_, count)| *count).max().unwrap_or(0);
        self.compare("freeblks", agf.free_blocks.get(), free);
        self.compare("longest", agf.longest.get(), longest);
        let cnt_blocks = cnt?;
        by_size.sort_unstable();
        if by_size != by_block {
            let text = "the two free space B-trees hold different extents";
            self.problems.add(Kind::FreeSpace, self.place(), text);
        }
        let rmap = if reader.geometry().features.rmapbt {
            agf.rmap_blocks.get()
        } else {
            1
        };
        let blocks = (bno_blocks + cnt_blocks)
            .saturating_add(rmap)
            .saturating_sub(3);
        self.compare("btreeblks", agf.btree_blocks.get(), blocks);
        let sum = free.saturating_add(agf.fl_count.get());
        Some(sum.saturating_add(agf.btree_blocks.get()))
    }

    fn rmaps(&mut self) -> Option<Vec<RmapRecord>> {
        let (reader, ag, agf) = (self.reader, self.ag, self.agf);
        if !reader.geometry().features.rmapbt {
            return None;
        }
        let mut records = Vec::new();
        let walk = reader.rmap(ag, &agf, 0..u64::MAX);
        let blocks = self.walk(walk, Kind::ReverseMap, owner::AG, |_, record| {
            records.push(record)
        });
        let blocks = blocks?;
        self.compare("rmapblocks", agf.rmap_blocks.get(), blocks);
        Some(records)
    }

    /// Shared extents: start, count, owners. Space for copies on write becomes a use.
    fn refcounts(&mut self) -> Option<Vec<(u32, u32, u32)>> {
        let (reader, ag, agf) = (self.reader, self.ag, self.agf);
        if !reader.geometry().features.reflink {
            return None;
        }
        let mut shared: Vec<(u32, u32, u32)> = Vec::new();
        let mut last = 0;
        let walk = reader.refcount(ag, &agf, 0..u64::MAX);
        let blocks = self.walk(walk, Kind::Refcount, owner::REFCOUNT, |group, record| {
            let (start, count) = (record.start.get(), record.count.get());
            let text = || format!("shared extent {start} overlaps the one before");
            let place = group.place();
            group
                .problems
                .expect(start >= last, Kind::Refcount, place, text);
            last = start.saturating_add(count);
            if start & REFCOUNT_COW != 0 {
                let staged = Use::special(start & !REFCOUNT_COW, count, owner::COW);
                group.space.uses.push(staged);
            } else {
                shared.push((start, count, record.references.get()));
            }
        });
        let blocks = blocks?;
        self.compare("refcountblocks", agf.refcount_blocks.get(), blocks);
        Some(shared)
    }
}
