//! What can go wrong with a tree that is read: always with the path it is about.

use std::io;

/// A source that cannot be read as it is.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Something of the source cannot be read.
    #[error("{path}: cannot {action}: {cause}")]
    Io {
        /// What was to be read; bytes that are not UTF-8 are shown escaped.
        path: String,
        /// What was tried, as "open", "list".
        action: &'static str,
        /// Why not.
        cause: io::Error,
    },
    /// It changed while it was read.
    #[error(
        "{path}: changed while it was read ({what}); make the tree still, or read a snapshot of it"
    )]
    Changed {
        /// Which object.
        path: String,
        /// What is not as it was.
        what: String,
    },
    /// It is not in the format it should be in, or cannot be represented.
    #[error("{path}: {reason}")]
    Invalid {
        /// Which object or archive, with the position in it.
        path: String,
        /// What is wrong and what can be done.
        reason: String,
    },
}

impl TreeError {
    /// That `action` on `path` failed with `cause`.
    pub(crate) fn io(path: &[u8], action: &'static str, cause: impl Into<io::Error>) -> Self {
        let (path, cause) = (show(path), cause.into());
        Self::Io {
            path,
            action,
            cause,
        }
    }

    /// That `path` is not as it was when it was looked at first.
    pub(crate) fn changed(path: &[u8], what: impl Into<String>) -> Self {
        let (path, what) = (show(path), what.into());
        Self::Changed { path, what }
    }

    /// That `path` cannot be taken, and why.
    pub(crate) fn invalid(path: &[u8], reason: impl Into<String>) -> Self {
        let (path, reason) = (show(path), reason.into());
        Self::Invalid { path, reason }
    }
}

/// `path` for a person: what is not UTF-8, and control characters, escaped.
pub(crate) fn show(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}
