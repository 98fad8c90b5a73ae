//! What an object has besides contents: owner, attributes, mode, times.
//!
//! All of it is given to the object that is open, not to whatever has its name by now.

use super::ExtractError;
use super::object::{Done, Maker};
use crate::erofs::read::Inode;
use crate::medium::Source;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmod,
    chownat, fchmod, fchown, fsetxattr, fstat, futimens, makedev, openat, setxattr, utimensat,
};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Set-id bits.
const SET_ID: u32 = 0o6000;
/// The number that means no user and no group.
const NOBODY: u32 = u32::MAX;

/// An object that is open.
#[derive(Debug)]
pub(super) enum Handle {
    /// A regular file or a directory.
    Open(OwnedFd),
    /// Anything else, which is only located: the way to it is through `/proc`.
    Located(OwnedFd),
}

impl Handle {
    fn chown(&self, uid: Option<Uid>, gid: Option<Gid>) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => fchown(fd, uid, gid),
            Self::Located(fd) => chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    fn chmod(&self, mode: Mode) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => fchmod(fd, mode),
            Self::Located(fd) => chmod(way(fd), mode),
        }
    }

    fn set(&self, key: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => fsetxattr(fd, key, value, XattrFlags::empty()),
            Self::Located(fd) => setxattr(way(fd), key, value, XattrFlags::empty()),
        }
    }

    fn touch(&self, times: &Timestamps) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => futimens(fd, times),
            Self::Located(fd) => utimensat(CWD, way(fd), times, AtFlags::empty()),
        }
    }
}

/// A link that leads to what is open, and no further.
fn way(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl<S: Source> Maker<'_, S> {
    /// Locates what was made of `inode` under `name` a moment ago, if it still is that.
    pub(super) fn located(&self, inode: &Inode, name: &[u8]) -> Result<Handle, ExtractError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(self.place.here(), name, flags, Mode::empty());
        let opened = opened.and_then(|fd| Ok((fstat(&fd)?, fd)));
        let (stat, fd) = opened.map_err(|error| self.failed("open it again", error))?;
        let kind = FileType::from_raw_mode(inode.kind().into());
        let number = inode.device();
        let number = number.map(|device| makedev(device.major, device.minor));
        let same = FileType::from_raw_mode(stat.st_mode) == kind
            && number.is_none_or(|number| stat.st_rdev == number)
            && stat.st_nlink == 1;
        match same {
            true => Ok(Handle::Located(fd)),
            false => {
                let error = io::Error::other("somebody put something else in its place");
                Err(self.failed("open it again", error))
            }
        }
    }

    /// Gives an object all that is not contents; says what mode it should have. The owner
    /// comes first, because a change of it takes modes and capabilities away; attributes
    /// before the mode, which may forbid them; times come last. `extra` bits of the mode are
    /// for the time being.
    pub(super) fn dress(
        &mut self,
        inode: &Inode,
        handle: &Handle,
        extra: u32,
    ) -> Result<u32, ExtractError> {
        let owned = self.own(inode, handle)?;
        self.xattrs(inode, handle)?;
        let mut mode = u32::from(inode.mode & 0o7777);
        if !owned && mode & SET_ID != 0 {
            mode &= !SET_ID;
            self.skipped("mode: not the set-id bits, because the owner is another");
        }
        if !inode.is_symlink() {
            let moded = handle.chmod(Mode::from_raw_mode(mode | extra));
            self.allowed(moded, "mode")?;
        }
        let time = Timespec {
            tv_sec: inode.mtime.seconds,
            tv_nsec: inode.mtime.nanoseconds.into(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        self.allowed(handle.touch(&times), "times")?;
        Ok(mode)
    }

    /// Whether the owner and the group could be restored.
    fn own(&mut self, inode: &Inode, handle: &Handle) -> Result<bool, ExtractError> {
        let (uid, gid) = (inode.uid, inode.gid);
        let numbers = uid != NOBODY && gid != NOBODY;
        if !numbers {
            self.skipped(format!(
                "owner: {uid}:{gid}: {NOBODY} is no number of anybody"
            ));
        }
        let owned = handle.chown(
            (uid != NOBODY).then(|| Uid::from_raw(uid)),
            (gid != NOBODY).then(|| Gid::from_raw(gid)),
        );
        self.allowed(owned, "owner")?;
        Ok(numbers && owned.is_ok())
    }

    fn xattrs(&mut self, inode: &Inode, handle: &Handle) -> Done {
        let all = match self.image.xattrs(inode) {
            Ok(all) => all,
            Err(error) => {
                self.unread(&error);
                return Ok(());
            }
        };
        if inode.is_file() && all.lead_elsewhere() {
            self.skipped("its contents are elsewhere, for composefs in the store of objects");
        }
        for xattr in all.list {
            let Some(key) = xattr.name else { continue };
            let done = handle.set(&key, &xattr.value);
            self.allowed(done, &format!("attribute {}", key.escape_ascii()))?;
        }
        Ok(())
    }

    /// What the system may refuse for good reasons is said and passed over.
    pub(super) fn allowed(&mut self, done: rustix::io::Result<()>, what: &str) -> Done {
        match done {
            Ok(()) => Ok(()),
            Err(
                error @ (Errno::PERM
                | Errno::ACCESS
                | Errno::NOTSUP
                | Errno::INVAL
                | Errno::NOSPC
                | Errno::TOOBIG
                | Errno::RANGE),
            ) => {
                self.skipped(format!("{what}: {error}"));
                Ok(())
            }
            Err(error) => Err(self.failed("restore what is not contents", error)),
        }
    }
}
