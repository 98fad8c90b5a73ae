//! Why an image cannot be made: what cannot be said in XFS, sources, targets.

use crate::medium::Failure;
use crate::tree::{TreeError, show};
use std::io;

/// Contents that the format has no way to hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForkError {
    /// A name of an entry or attribute that is empty or too long.
    #[error("a name of {bytes} bytes where XFS allows 1 to 255")]
    NameLength {
        /// Its length.
        bytes: usize,
    },
    /// Two entries of a directory are called the same, where upper and lower case of
    /// ASCII count as the same if the file system says so.
    #[error("two entries of one directory are called {name:?}, or differ only in case")]
    Repeated {
        /// One of the names; bytes that are not printable ASCII are escaped.
        name: String,
    },
    /// Entries beyond the 32 GiB a directory can hold, or attributes beyond 16 GiB.
    #[error("too many {what} for one inode")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
    /// A value of an attribute that is too long.
    #[error("an attribute's value of {bytes} bytes where 65536 are the most")]
    ValueLength {
        /// Its length.
        bytes: usize,
    },
    /// A symbolic link's target that is empty or too long.
    #[error("a link's target of {bytes} bytes where XFS allows 1 to 1023")]
    TargetLength {
        /// Its length.
        bytes: usize,
    },
    /// An attribute in a namespace that XFS does not have.
    #[error(
        "attribute {name:?}: XFS keeps user.*, trusted.*, security.* and POSIX ACLs only; leave it out"
    )]
    Namespace {
        /// Its full name; bytes that are not printable ASCII are escaped.
        name: String,
    },
    /// An ACL the kernel would not accept.
    #[error("a POSIX ACL is not valid: {reason}")]
    Acl {
        /// What is wrong.
        reason: &'static str,
    },
    /// A map of extents for which the inode is too small.
    #[error("the inode's {space} bytes hold neither the extents nor the root of their tree")]
    NoRoom {
        /// Bytes there are.
        space: usize,
    },
    /// Fewer blocks than a tree of extents needs: a mistake of whoever allocates.
    #[error("a tree of extents needs more blocks than it was given")]
    TooFewBlocks,
}

/// Why an image could not be made. Nothing that was written is a file system then.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The source cannot be read, or holds what it must not.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The tree does not fit.
    #[error(
        "{path}: no space left in the image; make it larger (--size), or leave something out (--exclude)"
    )]
    Full {
        /// What there was no room for.
        path: String,
    },
    /// Something of the tree cannot be said in XFS.
    #[error("{path}: {reason}")]
    Invalid {
        /// Which object.
        path: String,
        /// Why not.
        reason: String,
    },
    /// Blocks cannot be shared in this file system.
    #[error(
        "blocks with the same contents can be shared only with blocks of 4096 bytes and the feature reflink; leave out --dedupe, or change these"
    )]
    NoDedupe,
    /// The target does not take what is written.
    #[error("cannot write: {0}")]
    Write(#[source] io::Error),
    /// A file cannot be copied.
    #[error("{path}: cannot copy it: {cause}")]
    Copy {
        /// Which file.
        path: String,
        /// Why not.
        cause: io::Error,
    },
}

impl WriteError {
    /// What went wrong in a thread that writes.
    pub(crate) fn failed(failure: Failure) -> Self {
        match failure {
            Failure::Write(cause) => Self::Write(cause),
            Failure::Changed { path } => TreeError::changed(&path, "it was written to").into(),
            Failure::Copy {
                path,
                cause: Some(cause),
            } => Self::Copy {
                path: show(&path),
                cause,
            },
            Failure::Copy { path, cause: None } => {
                TreeError::changed(&path, "it became shorter").into()
            }
        }
    }
}
