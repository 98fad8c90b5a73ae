//! Where an extraction is: the directory that is open, and those above it.
//!
//! Only one is held open, so that trees may be of any depth. The way back is `..`, and
//! whether that is where we came from is looked at.

use super::ExtractError;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, renameat,
    statat, unlinkat,
};
use rustix::io::Errno;
use std::cell::Cell;
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
    /// Names that were hidden.
    hidden: Cell<u64>,
}

/// Something that was made.
#[derive(Debug)]
pub(super) struct Made<T> {
    /// What making it gave.
    pub(super) value: T,
    /// Something is in the way of its name: until it is [settled](Place::settle) it has this
    /// one.
    pub(super) hidden: Option<Vec<u8>>,
}

/// Longest path that is opened in one go; the system takes 4,095 bytes.
const STEP: usize = 4000;

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
            hidden: Cell::new(0),
        })
    }

    /// The directory that is open.
    pub(super) fn here(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }

    /// Makes the directory `name` here and opens it; one that is there is taken with force.
    pub(super) fn enter(&mut self, name: &[u8]) -> io::Result<()> {
        let mode = Mode::from_raw_mode(0o700);
        match self.make(name, |here, name| mkdirat(here, name, mode)) {
            Ok(made) => {
                if let Some(hidden) = made.hidden {
                    // A directory takes no other object's name by itself.
                    let freed = unlinkat(&self.here, name, AtFlags::empty());
                    let named =
                        freed.and_then(|()| renameat(&self.here, &*hidden, &self.here, name));
                    if let Err(error) = named {
                        let _ = unlinkat(&self.here, &*hidden, AtFlags::REMOVEDIR);
                        return Err(error.into());
                    }
                }
            }
            Err(error) if self.force && error.kind() == io::ErrorKind::IsADirectory => {}
            Err(error) => return Err(error),
        }
        self.again(name)
    }

    /// Opens the directory `name`, which is here.
    pub(super) fn again(&mut self, name: &[u8]) -> io::Result<()> {
        let child = openat(&self.here, name, DIRECTORY, Mode::empty())?;
        self.above.push(identity(self.here.as_fd())?);
        self.here = child;
        Ok(())
    }

    /// Goes back to the directory above; gives the one that was left.
    pub(super) fn leave(&mut self) -> io::Result<OwnedFd> {
        let Some(wanted) = self.above.pop() else {
            return self.here.try_clone();
        };
        let parent = openat(&self.here, "..", DIRECTORY, Mode::empty())?;
        if identity(parent.as_fd())? != wanted {
            let text = "somebody moved the directory while it was filled";
            return Err(io::Error::other(text));
        }
        Ok(std::mem::replace(&mut self.here, parent))
    }

    /// Calls `make`, which makes an object of this name here; with force and something in
    /// the way, of a hidden name. A directory gives way to nothing: that is the error
    /// `IsADirectory`.
    pub(super) fn make<T>(
        &self,
        name: &[u8],
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
    ) -> io::Result<Made<T>> {
        match make(self.here(), name) {
            Err(Errno::EXIST) if self.force => {}
            done => {
                return Ok(Made {
                    value: done?,
                    hidden: None,
                });
            }
        }
        let there = statat(&self.here, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        loop {
            let number = self.hidden.replace(self.hidden.get() + 1);
            let hidden = format!(".imagegen-{}-{number}", std::process::id()).into_bytes();
            match make(self.here(), &hidden) {
                Err(Errno::EXIST) => {}
                done => {
                    return Ok(Made {
                        value: done?,
                        hidden: Some(hidden),
                    });
                }
            }
        }
    }

    /// Gives what was made its name, in place of what is in the way.
    pub(super) fn settle(&self, hidden: Option<&[u8]>, name: &[u8]) -> io::Result<()> {
        let Some(hidden) = hidden else { return Ok(()) };
        if let Err(error) = renameat(&self.here, hidden, &self.here, name) {
            self.discard(Some(hidden));
            return Err(error.into());
        }
        // Two names of one file: that rename does nothing.
        self.discard(Some(hidden));
        Ok(())
    }

    /// Removes what was made under a hidden name; what is in the way stays.
    pub(super) fn discard(&self, hidden: Option<&[u8]>) {
        if let Some(hidden) = hidden {
            // If it cannot be removed, that it was not wanted is said already.
            let _ = unlinkat(&self.here, hidden, AtFlags::empty());
        }
    }

    /// Opens the directory that holds `path`, which was made before, and gives the name in
    /// it. No link is followed on the way.
    pub(super) fn parent<'p>(&self, path: &'p [u8]) -> io::Result<(OwnedFd, &'p [u8])> {
        let (above, name) = split(path, path.len());
        let rules = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |from: BorrowedFd<'_>, path: &[u8]| {
            let path = if path.is_empty() { b"." } else { path };
            openat2(from, path, flags, Mode::empty(), rules)
        };
        let mut fd = open(self.root.as_fd(), b"")?;
        let mut rest = above;
        while rest.len() > STEP {
            let (near, far) = split(rest, STEP);
            if near.is_empty() {
                break; // a name that long, which the system refuses
            }
            fd = open(fd.as_fd(), near)?;
            rest = far;
        }
        let fd = open(fd.as_fd(), rest)?;
        Ok((fd, name))
    }
}

/// What is before the last slash of the first `most` bytes, and what is after it.
fn split(path: &[u8], most: usize) -> (&[u8], &[u8]) {
    let head = path.get(..most).unwrap_or(path);
    let slash = head.iter().rposition(|byte| *byte == b'/');
    let (before, after) = path.split_at(slash.unwrap_or(0));
    (before, after.strip_prefix(b"/").unwrap_or(after))
}

/// Device and inode of a file that is open.
pub(super) fn identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
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
