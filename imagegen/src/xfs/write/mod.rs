//! Writing: from a tree of files to the bytes of an image.
//!
//! Data flows one way. A [walk](crate::tree) yields objects in order; the `builder` gives
//! each its inode and blocks out of `space`, which goes from group to group; contents and
//! finished blocks leave through an `outlet` to threads that write them, joined to large
//! pieces. A `group` that is full is closed: its B-trees are made in one go. The
//! superblock that makes all of it a file system is written last.
//!
//! The encoders of forks ([`directory`], [`attributes`], [`fork_map`], [`symlink`]) do no
//! input or output and allocate nothing. Each says which blocks of the fork it needs;
//! whoever allocates says where they lie, and takes the finished blocks.

pub mod attributes;
mod btree;
mod builder;
mod close;
mod contents;
mod dedupe;
pub mod directory;
mod error;
pub mod fork_map;
mod forks;
mod group;
mod hash_tree;
mod inode;
mod inodes;
mod log;
mod outlet;
mod output;
mod refcounts;
mod space;
pub mod symlink;

pub use builder::Counts;
pub use error::{ForkError, WriteError};
pub use output::{Place, Sink};

use super::geometry::Geometry;
use crate::medium::{Crew, Medium};
use crate::tree::{Event, TreeError, Xattr};
use builder::Builder;
use close::Totals;
use space::Space;

/// How an image is made.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// About how many blocks will be used, if that is known: free space is then spread
    /// over the groups.
    pub expected_blocks: Option<u64>,
    /// Attributes the root gets besides its own.
    pub root_xattrs: Vec<Xattr>,
    /// Threads that write; 0 for as many as there are processors.
    pub threads: usize,
    /// Inodes that shall be free at least.
    pub free_inodes: u64,
    /// Whether blocks with the same contents are kept once; the events must come with
    /// digests then.
    pub dedupe: bool,
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Objects and bytes.
    pub counts: Counts,
    /// Blocks that are free, as the superblock says.
    pub free_blocks: u64,
    /// Inodes that exist, free ones included.
    pub inodes: u64,
    /// Of these, free ones.
    pub free_inodes: u64,
}

/// Writes a file system of `geometry` that holds what `events` yield.
///
/// Until the very end `medium` is no file system; what an error leaves is none.
///
/// # Errors
/// If the tree cannot be read, does not fit or holds what XFS cannot, or if writing fails.
pub fn write(
    geometry: &Geometry,
    events: &mut dyn Iterator<Item = Result<Event, TreeError>>,
    medium: &dyn Medium,
    options: &WriteOptions,
) -> Result<Made, WriteError> {
    if options.dedupe && !dedupe::is_possible(geometry) {
        return Err(WriteError::NoDedupe);
    }
    let log = geometry.byte_of(geometry.log_start);
    let log_bytes = u64::from(geometry.log_blocks) << geometry.block_log;
    medium.zero(log, log_bytes).map_err(WriteError::Write)?;
    medium
        .write(log, &log::clean(geometry))
        .map_err(WriteError::Write)?;
    let (counts, totals) = std::thread::scope(|scope| {
        let crew = Crew::start(scope, medium, options.threads);
        let built = build(geometry, events, medium, options, &crew);
        // What a thread met goes first: the builder may have seen no more than that it ended.
        crew.finish().map_err(WriteError::failed)?;
        built
    })?;
    medium.barrier().map_err(WriteError::Write)?;
    close::write_superblock(geometry, totals, medium).map_err(WriteError::Write)?;
    Ok(Made {
        counts,
        free_blocks: totals.free_blocks,
        inodes: totals.inodes,
        free_inodes: totals.free_inodes,
    })
}

fn build(
    geometry: &Geometry,
    events: &mut dyn Iterator<Item = Result<Event, TreeError>>,
    medium: &dyn Medium,
    options: &WriteOptions,
    crew: &Crew<'_>,
) -> Result<(Counts, Totals), WriteError> {
    let space = Space::new(geometry, medium, options.expected_blocks, options.dedupe);
    let mut builder = Builder::new(geometry, space, crew, options);
    for event in events {
        builder.event(event?)?;
    }
    builder.finish(options.free_inodes, medium)
}
