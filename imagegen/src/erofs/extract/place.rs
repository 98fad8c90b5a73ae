//! Where an extraction is: the directory that is open, and those above it.
//!
//! Only one is held open, so that trees may be of any depth. The way back is `..`, and
//! whether that is where we came from is looked at.

use super::ExtractError;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, statat,
    unlinkat,
};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The target with the directory that is open.
#[derive(Debug)]
pub(super) struct Place {
    root: OwnedFd,
    here: OwnedFd,
    /// Device and inode of those above `here`.
    above: Vec<(u64, u64)>,
    force: bool,
}

impl Place {
    /// Opens `target`, or makes it.
    pub(super) fn open(target: &Path, force: bool) -> Result<Self, ExtractError> {
        let failed = |cause: Errno| ExtractError::Target {
            path: target.to_owned(),
            cause: cause.into(),
        };
        match mkdirat(CWD, target, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error)),
        }
        // Whoever gives the target may give a link to it.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, target, flags, Mode::empty()).map_err(failed)?;
        if !force && !is_empty(root.as_fd()).map_err(failed)? {
            return Err(ExtractError::NotEmpty(target.to_owned()));
        }
        let here = root.try_clone().map_err(|cause| ExtractError::Target {
            path: target.to_owned(),
            cause,
        })?;
        Ok(Self {
            root,
            here,
            above: Vec::new(),
            force,
        })
    }

    /// The directory that is open.
    pub(super) fn here(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }

    /// Makes the directory `name` here and opens it; one that is there is taken with force.
    pub(super) fn enter(&mut self, name: &[u8]) -> io::Result<()> {
        let made = self.make(name, |here| mkdirat(here, name, Mode::from_raw_mode(0o700)));
        match made {
            Ok(()) => {}
            Err(error) if self.force && error.kind() == io::ErrorKind::IsADirectory => {}
            Err(error) => return Err(error),
        }
        let child = openat(&self.here, name, DIRECTORY, Mode::empty())?;
        self.above.push(identity(self.here.as_fd())?);
        self.here = child;
        Ok(())
    }

    /// Goes back to the directory above.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        let Some(wanted) = self.above.pop() else {
            return Ok(());
        };
        let parent = openat(&self.here, "..", DIRECTORY, Mode::empty())?;
        if identity(parent.as_fd())? != wanted {
            let text = "somebody moved the directory while it was filled";
            return Err(io::Error::other(text));
        }
        self.here = parent;
        Ok(())
    }

    /// Calls `make`, which makes an object of this name here; with force what is in the way
    /// is removed first. A directory never is: that is the error `IsADirectory`.
    pub(super) fn make<T>(
        &self,
        name: &[u8],
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        match make(self.here()) {
            Err(Errno::EXIST) if self.force => {}
            done => return Ok(done?),
        }
        let there = statat(&self.here, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        unlinkat(&self.here, name, AtFlags::empty())?;
        Ok(make(self.here())?)
    }

    /// Opens the directory that holds `path`, which was made before, and gives the name in
    /// it. No link is followed on the way.
    pub(super) fn parent<'p>(&self, path: &'p [u8]) -> io::Result<(OwnedFd, &'p [u8])> {
        let slash = path.iter().rposition(|byte| *byte == b'/');
        let (above, name) = match slash {
            Some(at) => (
                path.get(..at).unwrap_or_default(),
                path.get(at + 1..).unwrap_or_default(),
            ),
            None => (&b"."[..], path),
        };
        let rules = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat2(&self.root, above, flags, Mode::empty(), rules)?;
        Ok((fd, name))
    }
}

fn identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn is_empty(fd: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    for entry in Dir::read_from(fd)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}
