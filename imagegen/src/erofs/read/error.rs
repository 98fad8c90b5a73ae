//! What a reader finds wrong: which structure, where, and why. Never a panic.

use std::fmt;
use std::io;

/// Something that cannot be read, or is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A device does not give its bytes.
    #[error("cannot read {length} bytes at byte {offset} of {device}: {cause}")]
    Io {
        /// Which device.
        device: Device,
        /// First byte wanted.
        offset: u64,
        /// Bytes wanted.
        length: usize,
        /// Why not.
        cause: io::Error,
    },
    /// It is something else.
    #[error("no EROFS: magic number {0:#010x} at byte 1024, not 0xe0f5e1e2")]
    Alien(u32),
    /// What this program does not know.
    #[error("{structure} of {place}: {what}; only a newer program can read it")]
    Unknown {
        /// Which, in words.
        structure: &'static str,
        /// Where.
        place: Place,
        /// What is not known.
        what: String,
    },
    /// A device of the table was not given.
    #[error("{place}: its data lies on device {number} ({tag:?}), which was not given (--device)")]
    NoDevice {
        /// Whose data.
        place: Place,
        /// Number, 1 and up.
        number: u16,
        /// What the table calls it.
        tag: String,
    },
    /// More devices were given than the table has.
    #[error("{given} devices were given, but the image names {named}")]
    Devices {
        /// Given ones.
        given: usize,
        /// Those in the table.
        named: usize,
    },
    /// A path leads nowhere.
    #[error("{path}: {why}")]
    Path {
        /// The path, for people.
        path: String,
        /// Why it leads nowhere.
        why: &'static str,
    },
    /// A structure is damaged.
    #[error("{structure} of {place}: {flaw}")]
    Damaged {
        /// Which, in words: "directory", "attributes".
        structure: &'static str,
        /// Where.
        place: Place,
        /// What is wrong.
        flaw: String,
    },
}

/// A device of an image: 0 is the image itself, others are those of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device(pub u16);

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => write!(f, "the image"),
            number => write!(f, "device {number}"),
        }
    }
}

/// Where a structure lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A byte of the image.
    Byte(u64),
    /// A byte of the metabox inode's contents.
    Metabox(u64),
    /// An inode, by its number.
    Inode(u64),
    /// A byte of an inode's contents.
    Contents(u64, u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte(at) => write!(f, "byte {at}"),
            Self::Metabox(at) => write!(f, "byte {at} of the metabox"),
            Self::Inode(nid) => write!(f, "inode {}", Nid(*nid)),
            Self::Contents(nid, at) => write!(f, "inode {} offset {at}", Nid(*nid)),
        }
    }
}

/// An inode's number for people: `m` before those in the metabox.
#[derive(Debug, Clone, Copy)]
pub struct Nid(pub u64);

impl fmt::Display for Nid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bit = crate::erofs::format::directory::IN_METABOX;
        match self.0 & bit {
            0 => write!(f, "{}", self.0),
            _ => write!(f, "m{}", self.0 & !bit),
        }
    }
}

/// Results of reading.
pub type Result<T> = std::result::Result<T, ReadError>;

/// The error that `structure` at `place` has `flaw`.
pub(crate) fn damaged(structure: &'static str, place: Place, flaw: impl Into<String>) -> ReadError {
    ReadError::Damaged {
        structure,
        place,
        flaw: flaw.into(),
    }
}

/// The error that `what` in `structure` at `place` is not known.
pub(crate) fn unknown(structure: &'static str, place: Place, what: impl Into<String>) -> ReadError {
    ReadError::Unknown {
        structure,
        place,
        what: what.into(),
    }
}
