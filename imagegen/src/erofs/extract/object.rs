//! Single objects: made, filled, dressed (`dress`), and put in their places.

use super::dress::Handle;
use super::modes::Held;
use super::place::{Made, Place};
use super::{ExtractError, Report};
use crate::erofs::read::{Image, Inode, ReadError, Where, brief, kind};
use crate::medium::Source;
use crate::tree::Progress;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, linkat, makedev, mknodat, openat, symlinkat};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

/// Contents are written in pieces of so many bytes.
const PIECE: u64 = 1 << 20;

/// Makes objects in the directory that is open.
pub(super) struct Maker<'a, S> {
    pub(super) image: &'a Image<S>,
    pub(super) place: Place,
    progress: &'a Progress,
    pub(super) report: Report,
    /// Path of the object at hand.
    pub(super) path: Vec<u8>,
    /// Directories that are open, with the lengths of their paths.
    open: Vec<(Inode, usize)>,
    /// First path of each inode that says it has several.
    linked: HashMap<u64, Box<[u8]>, FxBuildHasher>,
    pub(super) held: Held,
}

/// What was made, if it was: a file to be filled, or none.
type Begun = Result<Option<Made<Option<File>>>, ExtractError>;

pub(super) type Done = Result<(), ExtractError>;

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
            held: Held::default(),
        }
    }

    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    pub(super) fn unread(&mut self, error: &ReadError) {
        self.report.unread(&self.path, error);
    }

    pub(super) fn skipped(&mut self, text: impl ToString) {
        self.report.skipped(&self.path, text);
    }

    pub(super) fn name(&self) -> &[u8] {
        let slash = self.path.iter().rposition(|byte| *byte == b'/');
        let begin = slash.map_or(0, |at| at + 1);
        self.path.get(begin..).unwrap_or_default()
    }

    pub(super) fn failed(&self, what: &'static str, cause: impl Into<io::Error>) -> ExtractError {
        ExtractError::Object {
            path: brief(&self.path),
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
        // First back: its mode may lock us out.
        let child = self.place.leave();
        let child = child.map_err(|error| self.failed("go back", error))?;
        self.close(&inode, child)
    }

    /// Anything but a directory.
    pub(super) fn node(&mut self, inode: &Inode) -> Done {
        if inode.links > 1 && self.link(inode)? {
            return Ok(());
        }
        let name = self.name().to_vec();
        let made = match inode.kind() {
            kind::FILE => self.file(&name)?,
            kind::SYMLINK => self.symlink(inode, &name)?,
            _ => self.special(inode, &name)?,
        };
        let Some(made) = made else { return Ok(()) };
        let hidden = made.hidden.as_deref();
        match self.finish(inode, &name, made.value, hidden) {
            Ok(true) => {}
            Ok(false) => {
                self.place.discard(hidden);
                self.skipped("what was there of that name stays");
                return Ok(());
            }
            Err(error) => {
                self.place.discard(hidden);
                return Err(error);
            }
        }
        self.report.objects += 1;
        if inode.links > 1 {
            self.linked.insert(inode.nid, self.path.as_slice().into());
        }
        Ok(())
    }

    /// Fills and dresses what was made, then gives it its name; false if that is another's,
    /// which is better than what could be made.
    fn finish(
        &mut self,
        inode: &Inode,
        name: &[u8],
        file: Option<File>,
        hidden: Option<&[u8]>,
    ) -> Result<bool, ExtractError> {
        let handle = match file {
            Some(file) => {
                if !self.fill(inode, &file)? && hidden.is_some() {
                    return Ok(false);
                }
                Handle::Open(file.into())
            }
            None => self.located(inode, hidden.unwrap_or(name))?,
        };
        self.dress(inode, &handle, 0)?;
        let settled = self.place.settle(hidden, name);
        settled.map_err(|error| self.failed("replace what is there", error))?;
        Ok(true)
    }

    /// A further name of what was made already; false if it was not.
    fn link(&mut self, inode: &Inode) -> Result<bool, ExtractError> {
        let Some(first) = self.linked.get(&inode.nid) else {
            return Ok(false);
        };
        let name = self.name();
        let made = self.place.parent(first).and_then(|(parent, old)| {
            let made = self.place.make(name, |here, name| {
                linkat(&parent, old, here, name, AtFlags::empty())
            })?;
            self.place.settle(made.hidden.as_deref(), name)
        });
        match made {
            Ok(()) => {}
            Err(error) if in_the_way(&error) => self.taken(&error),
            Err(error) if is_final(&error) => return Err(self.failed("link to it", error)),
            Err(error) => {
                let text = format!("no link to {}: {error}", brief(first));
                self.report.failed(&self.path, text);
            }
        }
        Ok(true)
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
        self.report.damaged(&self.path, text);
    }

    fn file(&mut self, name: &[u8]) -> Begun {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let opened = self
            .place
            .make(name, |here, name| openat(here, name, flags, mode));
        let made = self.made(opened, "make the file")?;
        Ok(made.map(|made| Made {
            value: Some(File::from(made.value)),
            hidden: made.hidden,
        }))
    }

    /// Writes the contents, holes left out; whether all are there.
    fn fill(&mut self, inode: &Inode, file: &File) -> Result<bool, ExtractError> {
        let whole = match self.copy(inode, file) {
            Ok(Err(error)) => {
                self.unread(&error);
                false
            }
            Ok(Ok(())) => true,
            Err(error) => return Err(self.failed("write to it", error)),
        };
        match file.set_len(inode.size) {
            // No file can be so long.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                let text = format!("a size of {} bytes: {error}", inode.size);
                self.report.damaged(&self.path, text);
                Ok(false)
            }
            Err(error) => Err(self.failed("set its size", error)),
            Ok(()) => Ok(whole),
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

    fn symlink(&mut self, inode: &Inode, name: &[u8]) -> Begun {
        let target = match self.image.link(inode) {
            Ok(target) => target,
            Err(error) => {
                self.unread(&error);
                return Ok(None);
            }
        };
        let made = self
            .place
            .make(name, |here, name| symlinkat(&*target, here, name));
        self.unfilled(made, "make the symbolic link")
    }

    fn special(&mut self, inode: &Inode, name: &[u8]) -> Begun {
        let kind = FileType::from_raw_mode(inode.kind().into());
        let mode = Mode::from_raw_mode(0o600);
        let number = inode
            .device()
            .map_or(0, |device| makedev(device.major, device.minor));
        let made = self
            .place
            .make(name, |here, name| mknodat(here, name, kind, mode, number));
        match made {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.skipped(format!("not made: {error}; only root makes devices"));
                Ok(None)
            }
            made => self.unfilled(made, "make the special file"),
        }
    }

    fn unfilled(&mut self, made: io::Result<Made<()>>, what: &'static str) -> Begun {
        let made = self.made(made, what)?;
        Ok(made.map(|made| Made {
            value: None,
            hidden: made.hidden,
        }))
    }
}

fn in_the_way(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory
    )
}

/// Whether nothing else would go better.
fn is_final(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
    )
}
