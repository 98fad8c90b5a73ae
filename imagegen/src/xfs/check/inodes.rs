//! Every inode: its fields, its forks, and what of the device these use.

use super::attrs;
use super::inode_trees::InodeTrees;
use super::problem::{Kind, Problems};
use super::space::Use;
use super::table::{Table, mark};
use crate::xfs::format::NULL_AG_INODE;
use crate::xfs::format::btree::rmap_offset;
use crate::xfs::format::dir::{FREE_OFFSET, LEAF_OFFSET};
use crate::xfs::format::extent::{self, Extent};
use crate::xfs::format::inode::{flags, flags2, kind, time};
use crate::xfs::read::btree::Visit;
use crate::xfs::read::{Inode, Place, Reader, Source, Which};
use rustc_hash::FxHashSet;
use std::ops::Range;

/// A directory and where it says it lies.
pub(super) struct Directory {
    pub(super) ino: u64,
    pub(super) dotdot: u64,
    /// The directory with an entry for it; 0 before one is found.
    pub(super) parent: u64,
}

/// A pass over all inodes.
pub(super) struct Scan<'r, S> {
    reader: &'r Reader<S>,
    pub(super) trees: &'r InodeTrees,
    pub(super) table: Table,
    /// By number.
    pub(super) directories: Vec<Directory>,
    unlinked: FxHashSet<u64>,
    /// Groups whose uses are collected now.
    window: Range<u32>,
    uses: Vec<Vec<Use>>,
    held: usize,
    budget: usize,
    used: u64,
    /// All that inodes use is known.
    pub(super) forks_known: bool,
    /// All entries of directories are known.
    pub(super) entries_known: bool,
}

impl<'r, S: Source> Scan<'r, S> {
    pub(super) fn new(reader: &'r Reader<S>, trees: &'r InodeTrees, budget: usize) -> Self {
        let groups = reader.geometry().ag_count;
        Self {
            reader,
            trees,
            table: Table::new(trees, reader.geometry().features.parent),
            directories: Vec::new(),
            unlinked: FxHashSet::default(),
            window: 0..groups,
            uses: (0..groups).map(|_| Vec::new()).collect(),
            held: 0,
            budget,
            used: 0,
            forks_known: trees.complete,
            entries_known: trees.complete,
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    pub(super) fn window(&self) -> Range<u32> {
        self.window.clone()
    }

    pub(super) fn index(&self, ino: u64) -> Option<usize> {
        self.table.index(self.reader.geometry(), self.trees, ino)
    }

    pub(super) fn marks(&self, ino: u64) -> u8 {
        let index = self.index(ino);
        index
            .and_then(|index| self.table.marks.get(index))
            .copied()
            .unwrap_or(0)
    }

    /// What inodes use of group `ag`, which is in the window. Gives it away.
    pub(super) fn take_uses(&mut self, ag: u32) -> Vec<Use> {
        let uses = self
            .uses
            .get_mut(ag as usize)
            .map(std::mem::take)
            .unwrap_or_default();
        self.held -= uses.len().min(self.held);
        uses
    }

    fn keep(&mut self, ag: u32, piece: Use) {
        if !self.window.contains(&ag) {
            return;
        }
        if let Some(uses) = self.uses.get_mut(ag as usize) {
            uses.push(piece);
            self.held += 1;
        }
        while self.held > self.budget && self.window.len() > 1 {
            self.window.end -= 1;
            let _later = self.take_uses(self.window.end);
        }
    }

    /// Collects the uses of the groups that were left out; false if there are none.
    pub(super) fn next_pass(&mut self) -> bool {
        let groups = self.reader.geometry().ag_count;
        if self.window.end >= groups {
            return false;
        }
        self.window = self.window.end..groups;
        self.held = 0;
        let mut silent = Problems::default();
        self.each_inode(&mut silent, |scan, inode, silent| {
            for which in [Which::Data, Which::Attr] {
                scan.walk_fork(inode, which, silent);
            }
        });
        true
    }

    pub(super) fn first_pass(&mut self, problems: &mut Problems) {
        let sb = self.reader.superblock();
        let own = [
            sb.rbm_ino,
            sb.rsum_ino,
            sb.uquota_ino,
            sb.gquota_ino,
            sb.pquota_ino,
        ];
        for ino in own.map(|ino| ino.get()) {
            if let Some(index) = self.index(ino)
                && ino != 0
            {
                self.table.marks[index] |= mark::OWN;
            }
        }
        self.follow_unlinked(problems);
        self.each_inode(problems, |scan, inode, problems| {
            scan.check(inode, problems)
        });
        let root = sb.root_ino.get();
        let is_directory = self.marks(root) & mark::KIND == (kind::DIRECTORY >> 12) as u8;
        let text = || "the root is no directory".to_owned();
        problems.expect(is_directory, Kind::Connectivity, Place::Inode(root), text);
    }

    /// Calls `act` with every inode in use. Free ones are only compared with the tree.
    fn each_inode(
        &mut self,
        problems: &mut Problems,
        mut act: impl FnMut(&mut Self, &Inode, &mut Problems),
    ) {
        let (reader, trees) = (self.reader, self.trees);
        for (ag, group) in trees.groups.iter().enumerate() {
            for record in &group.chunks {
                let chunk = reader.chunk(ag as u32, record);
                let Some(chunk) = problems.ok(Kind::Inode, chunk) else {
                    self.forks_known = false;
                    self.entries_known = false;
                    continue;
                };
                for (ino, free) in chunk.numbers() {
                    match chunk.inode(reader, ino) {
                        Ok(inode) if inode.core.mode.get() != 0 && !free => {
                            act(self, &inode, problems);
                        }
                        Ok(inode) => self.check_free(&inode, free, problems),
                        Err(error) => {
                            problems.read(Kind::Inode, &error);
                            self.damaged(ino);
                        }
                    }
                }
            }
        }
    }

    fn damaged(&mut self, ino: u64) {
        self.forks_known = false;
        self.entries_known = false;
        if let Some(index) = self.index(ino) {
            self.table.marks[index] |= mark::DAMAGED;
        }
    }

    fn check_free(&mut self, inode: &Inode, free: bool, problems: &mut Problems) {
        let mode = inode.core.mode.get();
        let place = Place::Inode(inode.ino);
        if free && mode != 0 {
            let text = format!("free by the inode B-tree, but its mode is {mode:#o}");
            problems.add(Kind::Inode, place, text);
            self.damaged(inode.ino);
        } else if !free {
            problems.add(
                Kind::Inode,
                place,
                "in use by the inode B-tree, but its mode is 0",
            );
            self.damaged(inode.ino);
        }
    }

    fn check(&mut self, inode: &Inode, problems: &mut Problems) {
        self.used += 1;
        let Some(index) = self.index(inode.ino) else {
            return;
        };
        let core = &inode.core;
        self.table.marks[index] |= (core.mode.get() >> 12) as u8;
        if core.flags2.get() & flags2::REFLINK != 0 {
            self.table.marks[index] |= mark::REFLINK;
        }
        self.table.links[index] = self.table.links[index].wrapping_add(core.nlink.get());
        self.check_fields(inode, problems);
        self.check_forks(inode, problems);
        attrs::check(self.reader, inode, self, index, problems);
        match inode.kind() {
            kind::DIRECTORY => self.directories.push(Directory {
                ino: inode.ino,
                dotdot: 0,
                parent: 0,
            }),
            kind::SYMLINK => {
                if let Some(target) = problems.ok(Kind::Symlink, self.reader.read_link(inode)) {
                    let text = || "symbolic link: the target holds NUL".to_owned();
                    let holds = !target.contains(&0);
                    problems.expect(holds, Kind::Symlink, Place::Inode(inode.ino), text);
                }
            }
            _ => {}
        }
    }

    fn check_fields(&self, inode: &Inode, problems: &mut Problems) {
        let (core, features) = (&inode.core, &self.reader.geometry().features);
        let bits = core.flags2.get();
        let has = |bit| bits & bit != 0;
        let mut rule = |holds: bool, text: &str| {
            problems.expect(holds, Kind::Inode, Place::Inode(inode.ino), || {
                text.to_owned()
            });
        };
        let known = flags2::DAX
            | flags2::REFLINK
            | flags2::COW_EXTENT_SIZE
            | flags2::BIGTIME
            | flags2::NREXT64;
        rule(bits & !known == 0, "flags2 has bits that are not known");
        rule(
            !has(flags2::BIGTIME) || features.bigtime,
            "bigtime is not switched on",
        );
        rule(
            !has(flags2::NREXT64) || features.nrext64,
            "nrext64 is not switched on",
        );
        let regular = inode.kind() == kind::REGULAR;
        let sharing = features.reflink && regular;
        rule(
            !has(flags2::REFLINK) || sharing,
            "the reflink flag on what cannot share",
        );
        let directory = inode.kind() == kind::DIRECTORY;
        let sized = regular || directory || inode.kind() == kind::SYMLINK;
        rule(sized || core.size.get() == 0, "what has no data has a size");
        rule(
            !has(flags2::DAX) || regular || directory,
            "the DAX flag on what has no data",
        );
        let sb = self.reader.superblock();
        let realtime = [sb.rbm_ino.get(), sb.rsum_ino.get()].contains(&inode.ino);
        let empty = regular && core.size.get() == 0 && core.nlink.get() == 1;
        rule(
            !realtime || empty,
            "it belongs to a realtime device that does not exist, and is not empty",
        );
        rule(
            core.pad == [0; 12] && core.metatype.get() == 0,
            "padding is not zero",
        );
        let unused = if has(flags2::NREXT64) {
            core.small_anextents.get().into()
        } else {
            core.big_nextents.get()
        };
        rule(unused == 0, "the unused extent counter is not zero");
        let times = [core.atime, core.mtime, core.ctime, core.crtime];
        let big = has(flags2::BIGTIME);
        let sane = times
            .iter()
            .all(|value| time(*value, big).1 < 1_000_000_000);
        rule(sane, "a time with more nanoseconds than a second has");
        let unlinked = self.unlinked.contains(&inode.ino);
        rule(
            unlinked == (core.nlink.get() == 0),
            "link count and list of unlinked inodes differ",
        );
        let last = core.next_unlinked.get() == NULL_AG_INODE;
        rule(last || unlinked, "it points into a list of unlinked inodes");
        let least = if directory { 2 } else { 1 };
        rule(
            unlinked || core.nlink.get() >= least,
            "too few links for what it is",
        );
        self.check_flags(inode, problems);
    }

    /// Flags only on what they are for, and size hints with their flags only
    /// (`xfs_inode_validate_extsize` and its like in `xfs_inode_buf.c`).
    fn check_flags(&self, inode: &Inode, problems: &mut Problems) {
        let (core, bits) = (&inode.core, inode.core.flags.get());
        let mut rule = |holds: bool, text: &str| {
            problems.expect(holds, Kind::Inode, Place::Inode(inode.ino), || {
                text.to_owned()
            });
        };
        let of_directories = flags::REALTIME_INHERIT
            | flags::PROJECT_INHERIT
            | flags::NO_SYMLINKS
            | flags::EXTENT_SIZE_INHERIT;
        let directory = inode.kind() == kind::DIRECTORY;
        let regular = inode.kind() == kind::REGULAR;
        rule(
            bits & !flags::KNOWN == 0,
            "flags has bits that are not known",
        );
        rule(
            bits & flags::REALTIME == 0,
            "on a realtime device that does not exist",
        );
        rule(
            directory || bits & of_directories == 0,
            "flags that only directories have",
        );
        rule(
            regular || bits & flags::EXTENT_SIZE == 0,
            "flags that only files have",
        );
        let most = (self.reader.geometry().ag_blocks / 2).min(extent::MAX_LENGTH as u32);
        let fits = |flagged: bool, hint: u32| flagged == (hint != 0) && hint <= most;
        let flagged = bits & (flags::EXTENT_SIZE | flags::EXTENT_SIZE_INHERIT) != 0;
        rule(
            fits(flagged, core.extent_size.get()),
            "an extent size hint that cannot be",
        );
        let flagged = core.flags2.get() & flags2::COW_EXTENT_SIZE != 0;
        let able = self.reader.geometry().features.reflink && (regular || directory);
        let hint = core.cow_extent_size.get();
        let right = fits(flagged, hint) && (able || !flagged);
        rule(right, "a copy-on-write extent size hint that cannot be");
    }

    fn check_forks(&mut self, inode: &Inode, problems: &mut Problems) {
        let data = self.walk_fork(inode, Which::Data, problems);
        let attr = self.walk_fork(inode, Which::Attr, problems);
        let (Some(data), Some(attr)) = (data, attr) else {
            self.forks_known = false;
            return;
        };
        let place = Place::Inode(inode.ino);
        for (which, found) in [(Which::Data, data), (Which::Attr, attr)] {
            let said = inode.extent_count(which);
            let text = || {
                format!(
                    "{which} fork: {said} extents, but there are {}",
                    found.extents
                )
            };
            problems.expect(said == found.extents, Kind::Inode, place, text);
        }
        let (said, found) = (inode.core.nblocks.get(), data.blocks + attr.blocks);
        let text = || format!("nblocks is {said}, but it has {found} blocks");
        problems.expect(said == found, Kind::Inode, place, text);
    }

    /// Goes through a fork; none if it cannot be read to its end.
    fn walk_fork(
        &mut self,
        inode: &Inode,
        which: Which,
        problems: &mut Problems,
    ) -> Option<Walked> {
        let reader = self.reader;
        let extents = reader.extents(inode, which, 0..u64::MAX);
        let mut extents = problems.ok(Kind::Extents, extents)?;
        let attr = if which == Which::Attr {
            rmap_offset::ATTR_FORK
        } else {
            0
        };
        let mut walked = Walked::default();
        let mut whole = true;
        while let Some(visit) = extents.visit() {
            let (fsblock, count, offset) = match problems.ok(Kind::Extents, visit) {
                None => {
                    whole = false;
                    continue;
                }
                Some(Visit::Block { fsblock, .. }) => (fsblock, 1, rmap_offset::BMBT_BLOCK),
                Some(Visit::Record(extent)) => {
                    walked.extents += 1;
                    self.check_extent(inode, which, &extent, problems);
                    let unwritten = match extent.unwritten {
                        true => rmap_offset::UNWRITTEN,
                        false => 0,
                    };
                    (extent.block, extent.count, extent.offset | unwritten)
                }
            };
            walked.blocks += count;
            let (ag, block) = reader.geometry().group_of(fsblock);
            let piece = Use {
                start: block,
                count: count as u32,
                owner: inode.ino,
                offset: offset | attr,
            };
            self.keep(ag as u32, piece);
        }
        whole.then_some(walked)
    }

    fn check_extent(&self, inode: &Inode, which: Which, extent: &Extent, problems: &mut Problems) {
        let plain = which == Which::Data && inode.kind() == kind::REGULAR;
        let text = || format!("{which} fork: unwritten at offset {}", extent.offset);
        let place = Place::Inode(inode.ino);
        problems.expect(plain || !extent.unwritten, Kind::Extents, place, text);
        let log = self.reader.geometry().block_log;
        let limit = match (which, inode.kind()) {
            (Which::Attr, _) => 1 << 32,
            (_, kind::DIRECTORY) => (LEAF_OFFSET + FREE_OFFSET) >> log,
            (_, kind::SYMLINK) => 4,
            _ => (1 << 63) >> log,
        };
        let inside = extent.offset + extent.count <= limit;
        let text = || format!("{which} fork: an extent at offset {}", extent.offset);
        problems.expect(inside, Kind::Extents, place, text);
    }

    /// The lists of inodes without names that are still in use.
    fn follow_unlinked(&mut self, problems: &mut Problems) {
        let (reader, trees) = (self.reader, self.trees);
        for (ag, group) in trees.groups.iter().enumerate() {
            let Some(agi) = &group.agi else {
                continue;
            };
            for (bucket, head) in agi.unlinked.iter().enumerate() {
                let mut number = head.get();
                while number != NULL_AG_INODE {
                    let ino = reader.geometry().inode(ag as u32, number);
                    let place = Place::Inode(ino);
                    let Some(inode) = problems.ok(Kind::Links, reader.inode(ino)) else {
                        break;
                    };
                    let right = number as usize % agi.unlinked.len() == bucket;
                    if !right || !self.unlinked.insert(ino) {
                        let text = format!("in list {bucket} of unlinked inodes, wrongly");
                        problems.add(Kind::Links, place, text);
                        break;
                    }
                    number = inode.core.next_unlinked.get();
                }
            }
        }
    }
}

/// What a fork holds.
#[derive(Debug, Clone, Copy, Default)]
struct Walked {
    extents: u64,
    /// With those of its B-tree.
    blocks: u64,
}
