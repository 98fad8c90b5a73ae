//! Origins and stores as the operating system has them: opened once, held
//! exclusively, and used only through that very open file description.
//!
//! - A block device is opened with `O_EXCL`, a regular file is locked with
//!   `flock`. Both belong to the open file description, so a dead daemon's
//!   in-flight I/O keeps them until it has landed: the next open says
//!   [`DeviceError::Busy`] meanwhile. POSIX locks are never used (any close of
//!   the file anywhere in the process would drop them).
//! - I/O is direct. A file system without direct I/O is used through the page
//!   cache, with a warning; flushes are `fdatasync` either way.
//! - The plain calls here ([`snapstore::BlockDevice`], [`snapstore::Origins`])
//!   serve creation, recovery, checking and fingerprints. Requests go through
//!   [`crate::ring`].
//! - Of origins that are block devices the writes are counted, ours ([`Tally`]) and
//!   everybody's ([`Written`]).

use std::path::PathBuf;

mod open;
mod origins;
mod plain;
mod plate;
mod reach;
mod stack;
mod sys;
mod tally;
mod written;

pub use open::{Device, Identity, OriginDevice, StoreDevice};
pub use origins::OriginSet;
pub use plate::Plate;
pub(crate) use reach::is_unreachable;
pub(crate) use sys::{direct_memory_alignment, extents, is_gone, is_write_through, queue};
pub use tally::{Tally, Totals};
pub use written::Written;

/// Why a device or file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It cannot be opened.
    #[error("cannot open {path}: {source}; check that it exists and that this user may use it")]
    Open {
        /// What was to be opened.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Somebody else holds it.
    #[error(
        "{path} is in use: it is mounted, part of another device, or held by another program \
         (I/O of a daemon that was killed may hold it for a moment); unmount or stop that, \
         then try again"
    )]
    Busy {
        /// What was to be opened.
        path: PathBuf,
    },
    /// Neither a block device nor a regular file.
    #[error("{path} is neither a block device nor a regular file")]
    WrongType {
        /// What was to be opened.
        path: PathBuf,
    },
    /// It was opened, but a question about it was not answered.
    #[error("cannot learn the {what} of {path}: {source}")]
    Query {
        /// What was asked.
        path: PathBuf,
        /// The question.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its size cannot be served.
    #[error(
        "{path} is {size} bytes long, which is not a positive multiple of its block of {block} \
         bytes; extend it with `truncate -s %{block} {path}`"
    )]
    Size {
        /// What was opened.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The multiple expected, in bytes.
        block: u32,
    },
    /// A block device was to be made larger.
    #[error(
        "{path} is a block device: make it larger with its own tool (lvextend, the array's), \
         then try again without a size"
    )]
    NotAFile {
        /// What was opened.
        path: PathBuf,
    },
    /// A file was to be made shorter.
    #[error("{path} has {has} bytes already and is not cut to {size}")]
    Shrinks {
        /// What was opened.
        path: PathBuf,
        /// Its size in bytes.
        has: u64,
        /// The size it was to have.
        size: u64,
    },
    /// A file could not be made longer.
    #[error("cannot make {path} {size} bytes long: {source}")]
    Lengthen {
        /// What was opened.
        path: PathBuf,
        /// The size it was to have.
        size: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// A device was to be used beneath or beside itself.
    #[error("{path} and {other} are the same storage; give each its own device")]
    Stacked {
        /// The one that was to be used.
        path: PathBuf,
        /// The one it lies on.
        other: PathBuf,
    },
}

impl DeviceError {
    /// Whether trying again in a moment may help.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }
}

#[cfg(test)]
mod tests;
