//! The whole-store checker and the dump. Read only; nobody may serve the store.
//!
//! The checkpoint that the newest superblock names is checked in full: every
//! metadata block as itself and as what its pointer promised, then what no block
//! can show alone. The journal on top of it is checked for being readable and for
//! replaying cleanly.
//!
//! | file | what it checks |
//! |---|---|
//! | `superblocks` | both copies, and that they are of the same store |
//! | `tables` | volumes and snapshots: fields, numbers, names |
//! | `exceptions` | intervals, counts, chunks and their data |
//! | `eras` | that the era tree holds exactly the exceptions |
//! | `bitmap` | that exactly what is referred to is in use, by one owner each |
//! | `journal` | that it reads and replays |
//! | `dump` | nothing: it writes all of that as text |
//!
//! A damaged block is one problem line and the check goes on behind it; what
//! would only follow from that hole (counts, unreferenced blocks) is not reported.
//! Nothing read is trusted: no bytes on the device make the checker panic.
//!
//! Memory: three bits per block of the store, the tables, and what the journal
//! holds; never all exceptions.

mod bitmap;
mod dump;
mod eras;
mod exceptions;
mod journal;
mod owners;
mod problems;
mod superblocks;
mod tables;
#[cfg(test)]
pub(crate) mod tests;
mod trees;

pub use dump::{Item as DumpItem, Structure, dump, items, write_item};
pub(crate) use eras::{Groups, Item, ItemKey};
pub(crate) use superblocks::read_copy;

use self::owners::Owners;
use self::problems::Problems;
use crate::alloc::Allocator;
use crate::device::BlockDevice;
use crate::engine::{Geometry, Roots, TREES};
use crate::recover::{Newest, OpenError, geometry_of, newest_superblock, roots_of};
use crate::state::State;

/// What to check.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Also read every copied-out chunk and verify its checksums.
    pub data: bool,
}

/// What the checker found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// One line per problem, naming the block and the reason. Empty: sound.
    pub problems: Vec<String>,
    /// Volumes.
    pub volumes: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Exceptions.
    pub exceptions: u64,
    /// Metadata blocks read.
    pub blocks: u64,
    /// Journal records not yet in a checkpoint.
    pub journal_records: u64,
    /// Chunks whose data was verified.
    pub chunks_verified: u64,
    /// Blocks of the device behind the end of the store: it may be extended by them.
    pub unused: u64,
}

/// Checks a store that nobody serves. `progress` is called with (done, of).
///
/// # Errors
/// When the store cannot be read far enough to be checked at all.
pub fn check(
    dev: &mut impl BlockDevice,
    options: CheckOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, OpenError> {
    let newest = newest_store(dev)?;
    let mut checker = Checker::new(dev, options, &newest, progress);
    checker.report.unused = checker.dev.blocks() - checker.geometry.blocks;
    checker.check_superblocks();
    checker.load_bitmap();
    checker.load_tables();
    let mut groups = Groups::new();
    let exceptions = checker.check_exceptions(&mut groups);
    let eras = checker.check_eras(&mut groups);
    if exceptions && eras {
        checker.compare_eras(&groups);
    }
    checker.compare_bitmap(exceptions && eras);
    checker.check_journal();
    Ok(checker.finish())
}

/// The newest superblock of a store that fits its device.
pub(crate) fn newest_store(dev: &mut impl BlockDevice) -> Result<Newest, OpenError> {
    let newest = newest_superblock(dev)?;
    let store = newest.superblock.blocks.get();
    if store > dev.blocks() {
        return Err(OpenError::Truncated {
            device: dev.blocks(),
            store,
        });
    }
    Ok(newest)
}

/// A check under way.
struct Checker<'a, D> {
    dev: &'a mut D,
    options: CheckOptions,
    newest: Newest,
    geometry: Geometry,
    roots: Roots,
    problems: Problems,
    progress: Progress<'a>,
    report: Report,
    /// The tables of the checkpoint.
    state: State,
    /// What was read of volumes and snapshots is all of them.
    tables_whole: bool,
    /// What was read of the sharing counters is all of them.
    sharing_whole: bool,
    /// Every table was read in full.
    nodes_whole: bool,
    /// Blocks that something read so far refers to.
    owners: Owners,
    /// The bitmap, if it could be read.
    alloc: Option<Allocator>,
}

impl<'a, D: BlockDevice> Checker<'a, D> {
    fn new(
        dev: &'a mut D,
        options: CheckOptions,
        newest: &Newest,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Self {
        let superblock = &newest.superblock;
        let (geometry, roots) = (geometry_of(superblock), roots_of(superblock));
        let mut state = State::new(superblock.chunk_size.get().into());
        state.next_tag = superblock.next_tag.get();
        state.next_volume = superblock.next_volume.get();
        let nodes = TREES.iter().map(|tree| roots.get(*tree).nodes);
        let mut of = nodes.fold(0, u64::saturating_add);
        if options.data {
            of = of.saturating_add(roots.exceptions.records);
        }
        Self {
            dev,
            options,
            newest: *newest,
            geometry,
            roots,
            problems: Problems::default(),
            progress: Progress {
                tell: progress,
                done: 0,
                of,
            },
            report: Report::default(),
            state,
            tables_whole: true,
            sharing_whole: true,
            nodes_whole: true,
            owners: Owners::new(geometry.blocks),
            alloc: None,
        }
    }

    fn finish(mut self) -> Report {
        self.report.problems = self.problems.into_lines();
        self.report
    }
}

/// Tells how far the check has come.
struct Progress<'a> {
    tell: &'a mut dyn FnMut(u64, u64),
    done: u64,
    of: u64,
}

impl Progress<'_> {
    /// One more node, or one more chunk.
    fn step(&mut self) {
        // A damaged root may count too little.
        self.done = self.of.min(self.done.saturating_add(1));
        (self.tell)(self.done, self.of);
    }
}
