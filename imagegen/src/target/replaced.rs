//! The file whose place another will take: nobody may be using it, and who may read it is
//! handed on.

use super::{TargetError, failed};
use crate::locks::is_locked;
use rustix::fs::{Gid, Mode, Uid, fchmod, fchown};
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The file, locked (`flock`) against others who would replace it.
#[derive(Debug)]
pub(super) struct Replaced(File);

impl Replaced {
    /// What is at `path`, if anything.
    ///
    /// # Errors
    /// If somebody uses it, or that cannot be seen.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, TargetError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(path, "see whether it is in use", error)),
        };
        let is_free = match file.try_lock() {
            Err(TryLockError::WouldBlock) => false,
            // Where there are no locks nobody has one.
            Ok(()) | Err(TryLockError::Error(_)) => !is_locked(&file),
        };
        match is_free {
            true => Ok(Some(Self(file))),
            false => Err(TargetError::InUse {
                path: path.to_owned(),
            }),
        }
    }

    /// Gives its owner and mode to `new`, before that holds anything.
    ///
    /// # Errors
    /// If they may not be given.
    pub(super) fn hand_on(&self, new: &File) -> io::Result<()> {
        let (old, now) = (self.0.metadata()?, new.metadata()?);
        let other = |old: u32, now: u32| (old != now).then_some(old);
        let owner = other(old.uid(), now.uid()).map(Uid::from_raw);
        let group = other(old.gid(), now.gid()).map(Gid::from_raw);
        if owner.is_some() || group.is_some() {
            fchown(new, owner, group)?;
        }
        Ok(fchmod(new, Mode::from_raw_mode(old.mode() & 0o777))?)
    }
}
