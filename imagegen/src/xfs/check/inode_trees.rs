//! AGI, inode B-tree and free inode B-tree of every group: which inodes there are.

use super::problem::{Kind, Problems};
use super::space::Use;
use crate::xfs::format::NULL_AG_INODE;
use crate::xfs::format::btree::{InodeRecord, owner};
use crate::xfs::format::group::Agi;
use crate::xfs::read::btree::Visit;
use crate::xfs::read::{Place, Reader, Source, existing};

/// What the inode B-trees of all groups say.
pub(super) struct InodeTrees {
    pub(super) groups: Vec<Inodes>,
    /// Inodes allocated, and of these free ones.
    pub(super) count: u64,
    pub(super) free: u64,
    /// Every tree could be read to its end.
    pub(super) complete: bool,
}

/// Those of one group.
#[derive(Default)]
pub(super) struct Inodes {
    pub(super) agi: Option<Agi>,
    /// By number, without overlap.
    pub(super) chunks: Vec<InodeRecord>,
    /// Blocks of both trees.
    pub(super) blocks: Vec<Use>,
}

pub(super) fn check<S: Source>(reader: &Reader<S>, problems: &mut Problems) -> InodeTrees {
    let mut trees = InodeTrees {
        groups: Vec::new(),
        count: 0,
        free: 0,
        complete: true,
    };
    for ag in 0..reader.geometry().ag_count {
        let group = check_group(reader, ag, &mut trees, problems);
        trees.groups.push(group);
    }
    trees
}

fn check_group<S: Source>(
    reader: &Reader<S>,
    ag: u32,
    trees: &mut InodeTrees,
    problems: &mut Problems,
) -> Inodes {
    let Some(agi) = problems.ok(Kind::GroupHeader, reader.agi(ag)) else {
        trees.complete = false;
        return Inodes::default();
    };
    let mut group = Inodes::default();
    let before = problems.found();
    let mut blocks = 0_u32;
    for visit in reader.inobt(ag, &agi, 0..u64::MAX) {
        match problems.ok(Kind::InodeTree, visit) {
            Some(Visit::Block { fsblock, .. }) => {
                blocks += 1;
                group.blocks.push(tree_block(reader, fsblock));
            }
            Some(Visit::Record(record)) => take_chunk(reader, ag, &mut group, record, problems),
            None => {}
        }
    }
    let complete = problems.found() == before;
    trees.complete &= complete;
    let free_blocks = check_free(reader, ag, &agi, &mut group, complete, problems);
    let sum = |part: fn(&InodeRecord) -> u32| group.chunks.iter().map(part).sum::<u32>();
    let (count, free) = (sum(|chunk| existing(chunk).count_ones()), sum(free_inodes));
    let mut compare = |known: bool, name: &str, said: u32, found: u32| {
        let text = || format!("AGI: {name} is {said}, but there are {found}");
        problems.expect(
            !known || said == found,
            Kind::GroupHeader,
            Place::Group(ag),
            text,
        );
    };
    compare(complete, "count", agi.count.get(), count);
    compare(complete, "freecount", agi.free_count.get(), free);
    if reader.geometry().features.inobtcount {
        compare(complete, "iblocks", agi.iblocks.get(), blocks);
        compare(
            free_blocks.is_some(),
            "fblocks",
            agi.fblocks.get(),
            free_blocks.unwrap_or(0),
        );
    }
    check_hints(reader, ag, &agi, problems);
    trees.count += u64::from(count);
    trees.free += u64::from(free);
    group.agi = Some(agi);
    group
}

fn free_inodes(chunk: &InodeRecord) -> u32 {
    (existing(chunk) & chunk.free.get()).count_ones()
}

fn tree_block<S: Source>(reader: &Reader<S>, fsblock: u64) -> Use {
    let (_, block) = reader.geometry().group_of(fsblock);
    Use::special(block, 1, owner::INOBT)
}

/// Keeps a chunk unless it overlaps the one before.
fn take_chunk<S: Source>(
    reader: &Reader<S>,
    ag: u32,
    group: &mut Inodes,
    record: InodeRecord,
    problems: &mut Problems,
) {
    let place = Place::Group(ag);
    let start = record.start.get();
    let last = group
        .chunks
        .last()
        .map(|chunk| u64::from(chunk.start.get()) + 64);
    if last.is_some_and(|last| last > start.into()) {
        let text = format!("inode B-tree: chunk {start} overlaps the one before");
        problems.add(Kind::InodeTree, place, text);
        return;
    }
    let geometry = reader.geometry();
    let block = start >> geometry.inodes_per_block_log();
    let align = match record.hole_mask.get() {
        0 => geometry.inode_align,
        _ => geometry.sparse_align,
    };
    let aligned = align <= 1 || block.is_multiple_of(align) || geometry.chunk_blocks() == 1;
    let text = || format!("inode B-tree: chunk {start} is not aligned");
    problems.expect(aligned, Kind::InodeTree, place, text);
    group.chunks.push(record);
}

/// The free inode B-tree against the chunks with free inodes; returns its blocks.
fn check_free<S: Source>(
    reader: &Reader<S>,
    ag: u32,
    agi: &Agi,
    group: &mut Inodes,
    complete: bool,
    problems: &mut Problems,
) -> Option<u32> {
    if !reader.geometry().features.finobt {
        return None;
    }
    let before = problems.found();
    let (mut blocks, mut free) = (0, Vec::new());
    for visit in reader.finobt(ag, agi, 0..u64::MAX) {
        match problems.ok(Kind::FreeInodeTree, visit) {
            Some(Visit::Block { fsblock, .. }) => {
                blocks += 1;
                group.blocks.push(tree_block(reader, fsblock));
            }
            Some(Visit::Record(record)) => free.push(record),
            None => {}
        }
    }
    if problems.found() != before {
        return None;
    }
    let wanted = group.chunks.iter().filter(|chunk| free_inodes(chunk) > 0);
    if complete && !wanted.eq(free.iter()) {
        let text = "free inode B-tree: not the chunks of the inode B-tree with free inodes";
        problems.add(Kind::FreeInodeTree, Place::Group(ag), text);
    }
    Some(blocks)
}

/// The newest chunk is a hint that may outlive its chunk, but names a place in the group.
fn check_hints<S: Source>(reader: &Reader<S>, ag: u32, agi: &Agi, problems: &mut Problems) {
    let geometry = reader.geometry();
    for (name, number) in [("newino", agi.new_ino.get()), ("dirino", agi.dir_ino.get())] {
        let block = number >> geometry.inodes_per_block_log();
        let fits = number == NULL_AG_INODE || block < geometry.group_blocks(ag);
        let text = || format!("AGI: {name} is {number}");
        problems.expect(fits, Kind::GroupHeader, Place::Group(ag), text);
    }
}
