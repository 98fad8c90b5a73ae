//! Where an image goes, and what belongs to it: each to a place of its own, a device given up
//! only for what fits.

use super::{Failure, sources};
use imagegen::target::{Overwrite, Present, Target, TargetError, capacity};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A place where something will be made. Nothing of it is changed yet.
pub(crate) struct Destination<'a> {
    path: &'a Path,
    device: Option<Present>,
}

impl<'a> Destination<'a> {
    /// Looks at what is there; a device is held from now on.
    ///
    /// # Errors
    /// If it is taken, or no place for an image.
    pub(crate) fn open(path: &'a Path, overwrite: Overwrite) -> Result<Self, Failure> {
        let bytes = capacity(path)?;
        sources::check_target(path, bytes, overwrite)?;
        let device = bytes.map(|_| Present::open(path, overwrite));
        let device = device.transpose()?;
        Ok(Self { path, device })
    }

    /// Whether what goes there must be known before.
    pub(crate) fn is_device(&self) -> bool {
        self.device.is_some()
    }

    /// Bytes of the device, if it is one.
    pub(crate) fn capacity(&self) -> Option<u64> {
        self.device.as_ref().map(Present::size)
    }

    /// Whether `size` bytes have room; a file grows.
    ///
    /// # Errors
    /// If they have not.
    pub(crate) fn fits(&self, size: u64) -> Result<(), Failure> {
        match self.capacity() {
            Some(capacity) if size > capacity => Err(TargetError::TooSmall {
                path: self.path.to_owned(),
                capacity,
                size,
            }
            .into()),
            _ => Ok(()),
        }
    }

    /// Begins what has `size` bytes, if it is a device; else about `expected`.
    ///
    /// # Errors
    /// If they do not fit, or it cannot be made.
    pub(crate) fn begin(
        self,
        size: u64,
        expected: u64,
        overwrite: Overwrite,
    ) -> Result<Target, Failure> {
        self.fits(size)?;
        let Some(present) = self.device else {
            return Ok(Target::growing(self.path, expected, overwrite)?);
        };
        let capacity = present.size();
        Ok(present.begin(capacity)?)
    }
}

/// Refuses places, each with what it is for, of which two are one: the later would take
/// the place of the earlier.
pub(crate) fn apart(places: &[(&str, &Path)]) -> Result<(), Failure> {
    for (index, (what, path)) in places.iter().enumerate() {
        let same = places[..index].iter().find(|(_, other)| same(path, other));
        if let Some((other, _)) = same {
            return Err(Failure::usage(format!(
                "{}: this is {other} and {what}; give each a file of its own",
                path.display()
            )));
        }
    }
    Ok(())
}

fn same(one: &Path, other: &Path) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) if one.file_type().is_block_device() => {
            other.file_type().is_block_device() && one.rdev() == other.rdev()
        }
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        (Err(_), Err(_)) => {
            matches!((named(one), named(other)), (Some(one), Some(other)) if one == other)
        }
        _ => false,
    }
}

/// A name that is not there yet, whatever way leads to its directory.
fn named(path: &Path) -> Option<PathBuf> {
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    let parent = parent.unwrap_or(Path::new(".")).canonicalize().ok()?;
    Some(parent.join(path.file_name()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn one_file_is_recognised_under_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("below")).unwrap();
        fs::write(path("there"), "").unwrap();
        fs::hard_link(path("there"), path("again")).unwrap();
        let refused = |one: &str, other: &str| {
            let places = [("the image", &*path(one)), ("--blob", &*path(other))];
            apart(&places).is_err()
        };
        assert!(refused("there", "below/../again"));
        assert!(refused("new", "below/../new"));
        assert!(!refused("there", "new"));
        assert!(!refused("new", "below/new"));
        assert!(!refused("there", "nowhere/there"));
    }
}
