//! What a reader finds wrong: which structure, where, and why. Never a panic.

use std::io;

/// Something that cannot be read, or is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file does not give its bytes.
    #[error("cannot read {length} bytes at byte {offset}: {cause}")]
    Io {
        /// First byte wanted.
        offset: u64,
        /// Bytes wanted.
        length: u64,
        /// Why not.
        cause: io::Error,
    },
    /// It is something else.
    #[error("no QCOW2: it begins with {0:#010x}, not \"QFI\\xfb\"")]
    Alien(u32),
    /// What this program does not know.
    #[error("{what}; only another program can read it")]
    Unknown {
        /// What is not known.
        what: String,
    },
    /// What it needs was not given.
    #[error("its {what} {name:?} was not given")]
    NotGiven {
        /// "backing file" or "data file".
        what: &'static str,
        /// As the image names it.
        name: String,
    },
    /// No snapshot is called so.
    #[error("there is no snapshot {0:?}; `imagegen qcow2 info` lists them")]
    NoSnapshot(String),
    /// A structure is damaged.
    #[error("{structure} at byte {at}: {flaw}")]
    Damaged {
        /// Which, in words: "level 2 table".
        structure: &'static str,
        /// Where it lies.
        at: u64,
        /// What is wrong.
        flaw: String,
    },
    /// More than is held in memory at a time.
    #[error("{what} have {bytes} bytes; no more than {} MiB are held", most >> 20)]
    TooLarge {
        /// What, in words: "the bitmaps".
        what: &'static str,
        /// Their bytes.
        bytes: u64,
        /// As many are held.
        most: u64,
    },
    /// In one of several files that a disk is made of.
    #[error("{name}: {cause}")]
    In {
        /// Which, as it may be shown.
        name: String,
        /// What is wrong with it.
        cause: Box<Self>,
    },
}

impl ReadError {
    /// What is wrong, in whatever file.
    #[must_use]
    pub fn root(&self) -> &Self {
        match self {
            Self::In { cause, .. } => cause.root(),
            cause => cause,
        }
    }
}

/// What reading gives.
pub type Result<T> = std::result::Result<T, ReadError>;

/// A damaged structure.
pub(crate) fn damaged(structure: &'static str, at: u64, flaw: impl Into<String>) -> ReadError {
    ReadError::Damaged {
        structure,
        at,
        flaw: flaw.into(),
    }
}

impl From<io::Error> for ReadError {
    fn from(cause: io::Error) -> Self {
        Self::Io {
            offset: 0,
            length: 0,
            cause,
        }
    }
}
