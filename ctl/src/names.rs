//! What a person typed: names and sizes, checked while the command line is read.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use snapstore::engine::{MAX_NAME, valid_name};
use ublk_target::control::protocol::{SnapshotName, TakeTarget};
use ublk_target::size::BadSize;
pub use ublk_target::size::ByteSize;

/// A volume, with or without a name for its snapshot: `vol` or `vol@name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetArg(pub TakeTarget);

/// A snapshot: `vol@name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotArg(pub SnapshotName);

/// A snapshot, or the directory it is mounted on: what has a slash, and what is no
/// snapshot's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotOrDir {
    /// A snapshot.
    Snapshot(SnapshotArg),
    /// A directory.
    Dir(PathBuf),
}

/// What a volume is to become: so many bytes, or `max`, all that its origin has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewSize {
    /// All that the origin has.
    Max,
    /// So many.
    Bytes(ByteSize),
}

impl NewSize {
    /// Bytes, unless it is up to the origin.
    #[must_use]
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::Max => None,
            Self::Bytes(ByteSize(bytes)) => Some(bytes),
        }
    }
}

/// Why text is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadText {
    /// Not a valid name.
    #[error(
        "{0:?} is not a valid name: use 1 to {MAX_NAME} letters, digits, '.', '_', '-', not beginning with '.' or '-'"
    )]
    Name(String),
    /// No `@`.
    #[error("{0:?} names no snapshot: write VOLUME@NAME")]
    NoSnapshot(String),
}

/// Checks the rules for names of volumes and snapshots.
///
/// # Errors
/// [`BadText::Name`].
pub fn check_name(name: &str) -> Result<(), BadText> {
    if valid_name(name) {
        Ok(())
    } else {
        Err(BadText::Name(name.to_owned()))
    }
}

impl FromStr for TargetArg {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let (volume, name) = match text.split_once('@') {
            Some((volume, name)) => (volume, Some(name)),
            None => (text, None),
        };
        check_name(volume)?;
        name.map_or(Ok(()), check_name)?;
        Ok(Self(TakeTarget {
            volume: volume.to_owned(),
            name: name.map(str::to_owned),
        }))
    }
}

impl FromStr for SnapshotArg {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let (volume, name) = text
            .split_once('@')
            .ok_or_else(|| BadText::NoSnapshot(text.to_owned()))?;
        check_name(volume)?;
        check_name(name)?;
        Ok(Self(SnapshotName {
            volume: volume.to_owned(),
            name: name.to_owned(),
            tag: None,
        }))
    }
}

impl FromStr for SnapshotOrDir {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        match text.parse() {
            Ok(snapshot) => Ok(Self::Snapshot(snapshot)),
            Err(_) if !text.is_empty() => Ok(Self::Dir(text.into())),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Display for TargetArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for SnapshotArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for NewSize {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, BadSize> {
        match text {
            "max" => Ok(Self::Max),
            text => text.parse().map(Self::Bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_a_volume_and_a_name() {
        let snapshot: SnapshotArg = "web@2026-11-20T22.15.03.123Z".parse().unwrap();
        assert_eq!(
            (&*snapshot.0.volume, &*snapshot.0.name),
            ("web", "2026-11-20T22.15.03.123Z")
        );
        for bad in [
            "web", "@a", "web@", "web@a@b", "we/b@a", "web@-a", "web@.a", "wéb@a",
        ] {
            assert!(bad.parse::<SnapshotArg>().is_err(), "{bad} was accepted");
        }
        assert_eq!("web".parse::<TargetArg>().unwrap().0.name, None);
        assert_eq!(
            "web@x".parse::<TargetArg>().unwrap().0.name.as_deref(),
            Some("x")
        );
        assert!("web@".parse::<TargetArg>().is_err());
        assert!(check_name(&"x".repeat(MAX_NAME)).is_ok());
        assert!(check_name(&"x".repeat(MAX_NAME + 1)).is_err());
    }

    #[test]
    fn a_new_size_is_a_number_or_max() {
        assert_eq!("max".parse(), Ok(NewSize::Max));
        assert_eq!("2G".parse(), Ok(NewSize::Bytes(ByteSize(2 << 30))));
        assert!("maximum".parse::<NewSize>().is_err());
    }
}
