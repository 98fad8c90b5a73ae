//! What goes wrong below the builder, which knows the path it is about.

use super::super::compress::SegmentError;
use super::super::compress::index::IndexError;
use super::error::WriteError;
use crate::medium::Failure;
use crate::tree::TreeError;

/// Why something cannot be written.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The format does not allow it.
    Invalid(String),
    /// The tree is not as it was when it was looked at first.
    Changed(&'static str),
    /// No index tells where it lies.
    Index(IndexError),
    /// Reading, compressing or writing failed.
    Failed(WriteError),
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Invalid(reason)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.into())
    }
}

impl From<IndexError> for Fault {
    fn from(error: IndexError) -> Self {
        Self::Index(error)
    }
}

impl From<SegmentError> for Fault {
    fn from(error: SegmentError) -> Self {
        match error {
            SegmentError::Read(failure) => failure.into(),
            SegmentError::Compress(error) => Self::Failed(error.into()),
            // The pool passes the panic on.
            SegmentError::Lost => Self::Changed("a thread ended before its work"),
        }
    }
}

impl Fault {
    /// With the path it is about.
    pub(crate) fn at(self, path: &[u8]) -> WriteError {
        let path: &[u8] = if path.is_empty() { b"/" } else { path };
        match self {
            Self::Invalid(reason) => WriteError::Invalid {
                path: crate::tree::show(path),
                reason,
            },
            Self::Changed(what) => TreeError::changed(path, what).into(),
            Self::Index(cause) => WriteError::Index {
                path: crate::tree::show(path),
                cause,
            },
            Self::Failed(error) => error,
        }
    }
}
