//! Why nothing can be written there.

use std::io;
use std::path::PathBuf;

/// What is done once a file has its name.
pub(super) const LASTING: &str = "make its name durable";

/// A target that cannot be used, named with its path.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// There is a file of that name.
    #[error("{}: exists; choose another name, or replace it with --force", path.display())]
    Exists {
        /// The name.
        path: PathBuf,
    },
    /// It is neither a regular file nor a block device.
    #[error("{}: is {kind}; name a file to make or a block device", path.display())]
    Unsuitable {
        /// The name.
        path: PathBuf,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// Somebody else has it.
    #[error("{}: is mounted, locked or in use otherwise; free it first (see lsblk, lslocks)", path.display())]
    InUse {
        /// The device or file.
        path: PathBuf,
    },
    /// There is something on it.
    #[error("{}: holds {found}; if that can go, say --force", path.display())]
    Holds {
        /// The device or file.
        path: PathBuf,
        /// What was recognised.
        found: String,
    },
    /// It is too small.
    #[error("{}: has {capacity} bytes, {size} are needed; make the image smaller", path.display())]
    TooSmall {
        /// The device or file.
        path: PathBuf,
        /// Bytes it has.
        capacity: u64,
        /// Bytes that were asked for.
        size: u64,
    },
    /// The system refuses.
    #[error("{}: cannot {action}: {cause}", path.display())]
    Io {
        /// What it is about.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why not.
        cause: io::Error,
    },
}

impl TargetError {
    /// Whether the file has its name all the same, and only may lose it in a crash.
    #[must_use]
    pub fn is_named(&self) -> bool {
        matches!(self, Self::Io { action, .. } if *action == LASTING)
    }
}
