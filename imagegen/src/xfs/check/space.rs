//! Who uses each block of a group: one sweep over all uses that were found, against what
//! the reverse mappings and the reference counts say.

use super::inodes::Scan;
use super::problem::{Kind, Problems};
use super::table::mark;
use crate::xfs::format::btree::{InodeRecord, RmapRecord, owner, rmap_offset};
use crate::xfs::geometry::Geometry;
use crate::xfs::read::{Place, Reader, Source, existing};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// "Owner" of free space (`XFS_RMAP_OWN_NULL`).
pub(super) const FREE: u64 = -1_i64 as u64;

/// A run of blocks and who uses it, in the words of the reverse mapping B-tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Use {
    pub(super) start: u32,
    pub(super) count: u32,
    pub(super) owner: u64,
    /// With flags.
    pub(super) offset: u64,
}

const FLAGS: u64 = rmap_offset::ATTR_FORK | rmap_offset::BMBT_BLOCK | rmap_offset::UNWRITTEN;

impl Use {
    pub(super) fn special(start: u32, count: u32, owner: u64) -> Self {
        Self {
            start,
            count,
            owner,
            offset: 0,
        }
    }

    fn end(&self) -> u32 {
        self.start.saturating_add(self.count)
    }

    /// Whether others may use it too: written contents of a file.
    fn shareable(&self) -> bool {
        !owner::is_special(self.owner) && self.offset & FLAGS == 0
    }

    /// What is equal for runs that may be one: owner, flags, offset less start.
    fn class(&self) -> (u64, u64, u64) {
        let fixed = owner::is_special(self.owner) || self.offset & rmap_offset::BMBT_BLOCK != 0;
        let delta = if fixed {
            0
        } else {
            (self.offset & rmap_offset::MASK).wrapping_sub(self.start.into())
        };
        (self.owner, self.offset & FLAGS, delta)
    }

    fn describe(&self) -> String {
        let (start, end) = (self.start, self.end());
        let offset = self.offset & rmap_offset::MASK;
        let what = match self.owner {
            FREE => "free space".to_owned(),
            owner::FS => "headers".to_owned(),
            owner::LOG => "the log".to_owned(),
            owner::AG => "the group".to_owned(),
            owner::INOBT => "inode B-trees".to_owned(),
            owner::INODES => "inodes".to_owned(),
            owner::REFCOUNT => "the reference count B-tree".to_owned(),
            owner::COW => "copies on write".to_owned(),
            ino if self.offset & rmap_offset::BMBT_BLOCK != 0 => {
                format!("the extent B-tree of inode {ino}")
            }
            ino if self.offset & rmap_offset::ATTR_FORK != 0 => {
                format!("attributes of inode {ino} from offset {offset}")
            }
            ino => format!("inode {ino} from offset {offset}"),
        };
        format!("blocks {start} to {end} of {what}")
    }
}

/// The space of a group.
pub(super) struct Space {
    ag: u32,
    blocks: u32,
    pub(super) uses: Vec<Use>,
    /// All uses by inodes are there.
    pub(super) inodes_known: bool,
    /// All uses by B-trees of the group and the AGFL are there.
    pub(super) trees_known: bool,
    /// All free space is there.
    pub(super) free_known: bool,
}

impl Space {
    pub(super) fn new(ag: u32, blocks: u32) -> Self {
        Self {
            ag,
            blocks,
            uses: Vec::new(),
            inodes_known: true,
            trees_known: true,
            free_known: true,
        }
    }
}

/// The blocks of a chunk of inodes; several chunks may lie in one large block.
pub(super) fn chunk_blocks(geometry: &Geometry, chunk: &InodeRecord, uses: &mut Vec<Use>) {
    let log = geometry.inodes_per_block_log();
    let start = chunk.start.get();
    let bits = existing(chunk);
    let per_block = 1_u32 << log;
    let first = start >> log;
    for block in 0..geometry.chunk_blocks() {
        let from = block * per_block;
        let mask = u64::MAX >> (64 - per_block.min(64)) << from;
        if bits & mask == 0 {
            continue;
        }
        let piece = Use::special(first + block, 1, owner::INODES);
        if uses.last() != Some(&piece) {
            uses.push(piece);
        }
    }
}

/// Compares everything. `rmaps` and `counts` are none if there are none or they could
/// not be read.
pub(super) fn check<S: Source>(
    reader: &Reader<S>,
    space: &mut Space,
    rmaps: Option<Vec<RmapRecord>>,
    counts: Option<Vec<(u32, u32, u32)>>,
    scan: &Scan<'_, S>,
    problems: &mut Problems,
) {
    space.uses.sort_unstable();
    let shared = sweep(space, scan, problems);
    let place = Place::Group(space.ag);
    if let Some(counts) = counts.filter(|_| space.inodes_known) {
        let counts = joined(counts);
        if let Some((said, found)) = first_difference(&counts, &shared) {
            let text = format!("reference counts: {said}, but files share {found}");
            problems.add(Kind::Refcount, place, text);
        }
    } else if !reader.geometry().features.reflink
        && let Some((start, count, _)) = shared.first()
    {
        let text = format!("blocks {start} and {count} more belong to several files");
        problems.add(Kind::Space, place, text);
    }
    if let Some(rmaps) = rmaps {
        compare_rmaps(space, rmaps, problems);
    }
}

type Counted = (u32, u32, u32);

/// Neighbours with the same count as one.
fn joined(counts: Vec<Counted>) -> Vec<Counted> {
    let mut all: Vec<Counted> = Vec::new();
    for (start, count, owners) in counts {
        match all.last_mut() {
            Some(last) if last.0 + last.1 == start && last.2 == owners => last.1 += count,
            _ => all.push((start, count, owners)),
        }
    }
    all
}

fn first_difference(said: &[Counted], found: &[Counted]) -> Option<(String, String)> {
    let show = |counted: Option<&Counted>| match counted {
        Some((start, count, owners)) => {
            let end = start + count;
            format!("blocks {start} to {end} of {owners} owners")
        }
        None => "nothing more".to_owned(),
    };
    let most = said.len().max(found.len());
    let at = (0..most).find(|at| said.get(*at) != found.get(*at))?;
    Some((show(said.get(at)), show(found.get(at))))
}

/// Goes over all uses by block: nothing used twice but what may be shared, nothing
/// unknown. Returns what is shared, with the number of owners.
fn sweep<S: Source>(space: &Space, scan: &Scan<'_, S>, problems: &mut Problems) -> Vec<Counted> {
    let place = Place::Group(space.ag);
    let mut shared = Vec::new();
    // Ends of the uses at hand, and which they are.
    let mut active: BinaryHeap<Reverse<(u32, usize)>> = BinaryHeap::new();
    let mut exclusive: Option<(u32, usize)> = None;
    // How far uses reach without a gap, and how far sharing was counted.
    let (mut covered, mut counted) = (0, 0);
    let all_known = space.inodes_known && space.trees_known && space.free_known;
    let gap = |from: u32, to: u32, problems: &mut Problems| {
        if to > from && all_known {
            let text = format!("blocks {from} to {to} are not known to anybody");
            problems.add(Kind::Space, place, text);
        }
    };
    for (index, piece) in space.uses.iter().enumerate() {
        close(&mut active, counted, piece.start, &mut shared);
        counted = piece.start;
        gap(covered, piece.start, problems);
        covered = covered.max(piece.end());
        let other = match exclusive {
            Some((end, other)) if end > piece.start => Some(other),
            _ if piece.shareable() => None,
            _ => active.peek().map(|Reverse((_, other))| *other),
        };
        if let Some(other) = other.and_then(|other| space.uses.get(other))
            && !(piece == other && piece.owner == owner::INODES)
        {
            let text = format!("{} are also {}", piece.describe(), other.describe());
            problems.add(Kind::Space, place, text);
        }
        if !piece.shareable() {
            if exclusive.is_none_or(|(end, _)| end < piece.end()) {
                exclusive = Some((piece.end(), index));
            }
            continue;
        }
        if let [Reverse((_, first))] = active.as_slice() {
            check_flag(space, *first, scan, problems);
        }
        if !active.is_empty() {
            check_flag(space, index, scan, problems);
        }
        active.push(Reverse((piece.end(), index)));
    }
    close(&mut active, counted, space.blocks, &mut shared);
    gap(covered, space.blocks, problems);
    joined(shared)
}

/// Ends what ends up to `to`, and notes what is shared between `at` and there.
fn close(
    active: &mut BinaryHeap<Reverse<(u32, usize)>>,
    mut at: u32,
    to: u32,
    shared: &mut Vec<Counted>,
) {
    while let Some(Reverse((end, _))) = active.peek().copied() {
        let until = end.min(to);
        if active.len() > 1 && until > at {
            shared.push((at, until - at, active.len() as u32));
        }
        at = at.max(until);
        if end > to {
            break;
        }
        active.pop();
    }
}

/// An inode that shares blocks says so.
fn check_flag<S: Source>(
    space: &Space,
    sharer: usize,
    scan: &Scan<'_, S>,
    problems: &mut Problems,
) {
    let Some(piece) = space.uses.get(sharer) else {
        return;
    };
    let flagged = scan.marks(piece.owner) & mark::REFLINK != 0;
    let text = || format!("it shares {}, but has no reflink flag", piece.describe());
    problems.expect(flagged, Kind::Inode, Place::Inode(piece.owner), text);
}

/// Runs that follow each other as one, by class and place.
fn merged(mut runs: Vec<Use>) -> Vec<Use> {
    runs.sort_unstable_by_key(|run| (run.class(), run.start));
    let mut all: Vec<Use> = Vec::new();
    for run in runs {
        match all.last_mut() {
            Some(last) if last.class() == run.class() && last.end() == run.start => {
                last.count = last.count.saturating_add(run.count);
            }
            // A block with two chunks of inodes.
            Some(last) if *last == run && run.owner == owner::INODES => {}
            _ => all.push(run),
        }
    }
    all
}

/// Most differences that are named for a group.
const NAMED: usize = 20;

fn compare_rmaps(space: &Space, rmaps: Vec<RmapRecord>, problems: &mut Problems) {
    let said = rmaps.iter().map(|record| Use {
        start: record.start.get(),
        count: record.count.get(),
        owner: record.owner.get(),
        offset: record.offset.get(),
    });
    let said = merged(said.collect());
    let used = space.uses.iter().filter(|piece| piece.owner != FREE);
    let used = merged(used.copied().collect());
    let place = Place::Group(space.ag);
    let key = |piece: &Use| (piece.class(), piece.start, piece.count);
    let (mut left, mut right) = (said.iter().peekable(), used.iter().peekable());
    let mut named = 0;
    let all_known = space.inodes_known && space.trees_known;
    while named < NAMED {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(left), Some(right)) => key(left).cmp(&key(right)),
        };
        let text = match order {
            std::cmp::Ordering::Equal => {
                left.next();
                right.next();
                continue;
            }
            std::cmp::Ordering::Less => {
                let said = left.next().map(Use::describe).unwrap_or_default();
                if !all_known {
                    continue;
                }
                format!("reverse mapping of {said}, which are not used so")
            }
            std::cmp::Ordering::Greater => {
                let used = right.next().map(Use::describe).unwrap_or_default();
                format!("no such reverse mapping of {used}")
            }
        };
        named += 1;
        problems.add(Kind::ReverseMap, place, text);
    }
}
