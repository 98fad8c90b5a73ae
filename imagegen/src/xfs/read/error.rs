//! What a reader finds wrong: which structure, where, and why. Never a panic.

use crate::xfs::geometry::Refusal;
use std::fmt;
use std::io;

/// Something that cannot be read, or is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The device does not give its bytes.
    #[error("cannot read {length} bytes at byte {offset}: {cause}")]
    Io {
        /// First byte wanted.
        offset: u64,
        /// Bytes wanted.
        length: usize,
        /// Why not.
        cause: io::Error,
    },
    /// The superblock gives no geometry.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A structure is damaged.
    #[error("{structure} of {place}: {flaw}")]
    Damaged {
        /// Which, in words: "AGF", "free space B-tree by block".
        structure: &'static str,
        /// Where.
        place: Place,
        /// What is wrong.
        flaw: Flaw,
    },
}

/// Where a structure lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The whole file system.
    Everywhere,
    /// A group.
    Group(u32),
    /// A block of a group.
    Block(u32, u32),
    /// An inode.
    Inode(u64),
    /// A block of an inode's fork: inode, attribute fork or not, offset in blocks.
    Fork(u64, bool, u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere => write!(f, "the file system"),
            Self::Group(ag) => write!(f, "group {ag}"),
            Self::Block(ag, block) => write!(f, "group {ag} block {block}"),
            Self::Inode(ino) => write!(f, "inode {ino}"),
            Self::Fork(ino, false, at) => write!(f, "inode {ino} offset {at}"),
            Self::Fork(ino, true, at) => write!(f, "inode {ino} attribute offset {at}"),
        }
    }
}

/// What is wrong with a structure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Its checksum is not that of its bytes.
    #[error("the checksum does not hold")]
    Checksum,
    /// Another magic number.
    #[error("magic number {0:#x}")]
    Magic(u32),
    /// The identity of another file system.
    #[error("it belongs to another file system (uuid)")]
    Uuid,
    /// It was written for another place.
    #[error("it says it lies at {0:#x}")]
    Address(u64),
    /// It belongs to another owner.
    #[error("it says it belongs to {0}")]
    Owner(u64),
    /// It was changed after the end of the log.
    #[error("changed at {0:#x}, after the end of the log")]
    Newer(u64),
    /// A field that cannot be.
    #[error("{0}")]
    Shape(String),
}

/// Results of reading.
pub type Result<T> = std::result::Result<T, ReadError>;

/// The error that `structure` at `place` has `flaw`.
pub(crate) fn damaged(structure: &'static str, place: Place, flaw: Flaw) -> ReadError {
    ReadError::Damaged {
        structure,
        place,
        flaw,
    }
}

/// The error that a field of `structure` cannot be as it is.
pub(crate) fn shape(structure: &'static str, place: Place, text: impl Into<String>) -> ReadError {
    damaged(structure, place, Flaw::Shape(text.into()))
}
