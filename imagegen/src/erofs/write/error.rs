//! Why an image cannot be made.

use super::super::compress::codec::CodecError;
use super::super::compress::index::IndexError;
use super::options::OptionError;
use crate::medium::Failure;
use crate::tree::{TreeError, show};
use std::io;

/// Why an image could not be made. Nothing that was written is a file system then.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// An option cannot be as it is.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The source cannot be read, or holds what it must not.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Something of the tree cannot be said in EROFS.
    #[error("{path}: {reason}")]
    Invalid {
        /// Which object.
        path: String,
        /// Why not.
        reason: String,
    },
    /// The target does not take what is written.
    #[error("cannot write: {0}")]
    Write(#[source] io::Error),
    /// A codec failed.
    #[error(transparent)]
    Compress(#[from] CodecError),
    /// No index tells where a file lies.
    #[error("{path}: {cause}")]
    Index {
        /// Which file.
        path: String,
        /// Why.
        cause: IndexError,
    },
    /// A file cannot be copied.
    #[error("{path}: cannot copy it: {cause}")]
    Copy {
        /// Which file.
        path: String,
        /// Why not.
        cause: io::Error,
    },
}

impl From<Failure> for WriteError {
    fn from(failure: Failure) -> Self {
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
