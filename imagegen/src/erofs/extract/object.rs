//! Single objects: made, filled, and given owner, mode, attributes and times.

use super::place::Place;
use super::{ExtractError, Problem, Report};
use crate::erofs::read::{Image, Inode, ReadError, Where, kind, show};
use crate::medium::Source;
use crate::tree::Progress;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    linkat, lsetxattr, makedev, mknodat, openat, symlinkat, utimensat,
};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

/// Contents are written in pieces of so many bytes.
const PIECE: u64 = 1 << 20;

/// Makes objects in the directory that is open.
pub(super) struct Maker<'a, S> {
    image: &'a Image<S>,
    place: Place,
    progress: &'a Progress,
    pub(super) report: Report,
    /// Path of the object at hand.
    pub(super) path: Vec<u8>,
    /// Directories that are open, with the lengths of their paths.
    open: Vec<(Inode, usize)>,
    /// First path of each inode that says it has several.
    linked: HashMap<u64, Box<[u8]>, FxBuildHasher>,
}

type Done = Result<(), ExtractError>;

impl<'a, S: Source> Maker<'a, S> {
    pub(super) fn new(image: &'a Image<S>, place: Place, progress: &'a Progress) -> Self {
        Self {
            image,
            place,
            progress,
            report: Report::default(),
            path: Vec::new(),
            open: Vec::new(),
            linked: HashMap::default(),
        }
    }

    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    pub(super) fn damaged(&mut self, error: &ReadError) {
        self.report.damaged(&self.path, error);
    }

    fn name(&self) -> &[u8] {
        let slash = self.path.iter().rposition(|byte| *byte == b'/');
        let begin = slash.map_or(0, |at| at + 1);
        self.path.get(begin..).unwrap_or_default()
    }

    fn failed(&self, what: &'static str, cause: impl Into<io::Error>) -> ExtractError {
        ExtractError::Object {
            path: show(&self.path),
            what,
            cause: cause.into(),
        }
    }

    /// A directory that begins; false if its name is taken by another object of the image,
    /// which is said.
    pub(super) fn enter(&mut self, inode: Inode) -> Result<bool, ExtractError> {
        if self.open.is_empty() && self.path.is_empty() {
            self.open.push((inode, 0));
            return Ok(true);
        }
        let name = self.name().to_vec();
        match self.place.enter(&name) {
            Ok(()) => {}
            Err(error) if in_the_way(&error) => {
                self.taken(&error);
                return Ok(false);
            }
            Err(error) => return Err(self.failed("make the directory", error)),
        }
        self.open.push((inode, self.path.len()));
        self.report.objects += 1;
        Ok(true)
    }

    /// The directory that was entered last is full.
    pub(super) fn leave(&mut self) -> Done {
        let Some((inode, length)) = self.open.pop() else {
            return Ok(());
        };
        self.path.truncate(length);
        self.dress(&inode, b".")?;
        let done = self.place.leave();
        done.map_err(|error| self.failed("go back", error))
    }

    /// Anything but a directory.
    pub(super) fn node(&mut self, inode: &Inode) -> Done {
        if inode.links > 1 && self.link(inode)? {
            return Ok(());
        }
        let name = self.name().to_vec();
        let made = match inode.kind() {
            kind::FILE => self.file(inode, &name)?,
            kind::SYMLINK => self.symlink(inode, &name)?,
            _ => self.special(inode, &name)?,
        };
        if !made {
            return Ok(());
        }
        self.report.objects += 1;
        if inode.links > 1 {
            self.linked.insert(inode.nid, self.path.as_slice().into());
        }
        self.dress(inode, &name)
    }

    /// A further name of what was made already; false if it was not.
    fn link(&mut self, inode: &Inode) -> Result<bool, ExtractError> {
        let Some(first) = self.linked.get(&inode.nid) else {
            return Ok(false);
        };
        let parent = self.place.parent(first);
        let (parent, old) = parent.map_err(|error| self.failed("link to it", error))?;
        let made = self.place.make(self.name(), |here| {
            linkat(&parent, old, here, self.name(), AtFlags::empty())
        });
        self.made(made, "link to it").map(|_| true)
    }

    /// The result of making something, unless another object of the image has that name.
    fn made<T>(
        &mut self,
        made: io::Result<T>,
        what: &'static str,
    ) -> Result<Option<T>, ExtractError> {
        match made {
            Ok(made) => Ok(Some(made)),
            Err(error) if in_the_way(&error) => {
                self.taken(&error);
                Ok(None)
            }
            Err(error) => Err(self.failed(what, error)),
        }
    }

    fn taken(&mut self, error: &io::Error) {
        let text = format!("not made, because something of that name is there ({error})");
        self.report.damaged.push(Problem::new(&self.path, text));
    }

    fn file(&mut self, inode: &Inode, name: &[u8]) -> Result<bool, ExtractError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let opened = self
            .place
            .make(name, |here| openat(here, name, flags, mode));
        let Some(file) = self.made(opened, "make the file")? else {
            return Ok(false);
        };
        self.fill(inode, &File::from(file))?;
        Ok(true)
    }

    /// Writes the contents, holes left out.
    fn fill(&mut self, inode: &Inode, file: &File) -> Done {
        let written = self.copy(inode, file);
        match written {
            Ok(Err(error)) => self.damaged(&error),
            Ok(Ok(())) => {}
            Err(error) => return Err(self.failed("write to it", error)),
        }
        match file.set_len(inode.size) {
            // No file can be so long.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                let text = format!("a size of {} bytes: {error}", inode.size);
                self.report.damaged.push(Problem::new(&self.path, text));
                Ok(())
            }
            done => done.map_err(|error| self.failed("set its size", error)),
        }
    }

    fn copy(&mut self, inode: &Inode, file: &File) -> io::Result<Result<(), ReadError>> {
        let mut contents = match self.image.contents(inode) {
            Ok(contents) => contents,
            Err(error) => return Ok(Err(error)),
        };
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < inode.size {
            let extent = match contents.extent(at) {
                Ok(extent) => extent,
                Err(error) => return Ok(Err(error)),
            };
            if extent.place == Where::Hole {
                at = extent.end();
                continue;
            }
            let now = (extent.end() - at).min(PIECE) as usize;
            buffer.resize(now, 0);
            if let Err(error) = contents.read_exact_at(at, &mut buffer) {
                return Ok(Err(error));
            }
            file.write_all_at(&buffer, at)?;
            self.report.data += now as u64;
            self.progress.data.fetch_add(now as u64, Ordering::Relaxed);
            at += now as u64;
        }
        Ok(Ok(()))
    }

    fn symlink(&mut self, inode: &Inode, name: &[u8]) -> Result<bool, ExtractError> {
        let target = match self.image.link(inode) {
            Ok(target) => target,
            Err(error) => {
                self.damaged(&error);
                return Ok(false);
            }
        };
        let made = self
            .place
            .make(name, |here| symlinkat(&*target, here, name));
        Ok(self.made(made, "make the symbolic link")?.is_some())
    }

    fn special(&mut self, inode: &Inode, name: &[u8]) -> Result<bool, ExtractError> {
        let kind = FileType::from_raw_mode(inode.kind().into());
        let mode = Mode::from_raw_mode(0o600);
        let number = inode
            .device()
            .map_or(0, |device| makedev(device.major, device.minor));
        let made = self
            .place
            .make(name, |here| mknodat(here, name, kind, mode, number));
        match made {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.skipped(format!("not made: {error}; only root makes devices"));
                Ok(false)
            }
            made => Ok(self.made(made, "make the special file")?.is_some()),
        }
    }

    fn skipped(&mut self, text: String) {
        self.report.skipped.push(Problem::new(&self.path, text));
    }

    /// Gives `name` here all that is not contents. The owner comes first, because a change
    /// of it takes modes and capabilities away; times come last.
    fn dress(&mut self, inode: &Inode, name: &[u8]) -> Done {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let (uid, gid) = (Uid::from_raw(inode.uid), Gid::from_raw(inode.gid));
        let here = self.place.here();
        let owned = chownat(here, name, Some(uid), Some(gid), nofollow);
        let mode = Mode::from_raw_mode(u32::from(inode.mode & 0o7777));
        let moded = match inode.is_symlink() {
            true => Ok(()),
            // What it is was made a moment ago, by this name, in this directory.
            false => chmodat(here, name, mode, AtFlags::empty()),
        };
        self.allowed(owned, "owner")?;
        self.allowed(moded, "mode")?;
        self.xattrs(inode, name)?;
        let time = Timespec {
            tv_sec: inode.mtime.seconds,
            tv_nsec: inode.mtime.nanoseconds.into(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        let timed = utimensat(self.place.here(), name, &times, nofollow);
        self.allowed(timed, "times")
    }

    /// What the system may refuse for good reasons is said and passed over.
    fn allowed(&mut self, done: rustix::io::Result<()>, what: &str) -> Done {
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

    fn xattrs(&mut self, inode: &Inode, name: &[u8]) -> Done {
        let all = match self.image.xattrs(inode) {
            Ok(all) => all,
            Err(error) => {
                self.damaged(&error);
                return Ok(());
            }
        };
        // Links and devices cannot be opened, so by the way through `/proc`.
        let here = self.place.here().as_raw_fd();
        let path = [format!("/proc/self/fd/{here}/").as_bytes(), name].concat();
        for xattr in all.list {
            let Some(key) = xattr.name else { continue };
            let done = lsetxattr(&*path, &*key, &xattr.value, XattrFlags::empty());
            self.allowed(done, &format!("attribute {}", key.escape_ascii()))?;
        }
        Ok(())
    }
}

fn in_the_way(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory
    )
}
