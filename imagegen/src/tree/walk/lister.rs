//! Finds the objects of a tree in order: lists directories, sorts them, stats what is in
//! them. Everything else about an object is read later, elsewhere.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, Statx, StatxFlags, fstat, makedev, openat, statx,
};
use rustix::io::Errno;

use super::Shared;
use crate::tree::{Links, Time, TreeError};

/// How many directories on the path are kept open; those above are opened again by `..`.
const OPEN: usize = 64;
/// Bytes of directory entries taken from the kernel at a time.
const LISTING: usize = 128 << 10;

/// A directory that is open.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) fd: OwnedFd,
    /// From the root of this host or the working directory on.
    pub(super) path: Box<[u8]>,
    pub(super) shared: Arc<Shared>,
}

impl Place {
    /// The path of `name` in it.
    pub(super) fn join(&self, name: &[u8]) -> Vec<u8> {
        let slash = if self.path.ends_with(b"/") { "" } else { "/" };
        [&*self.path, slash.as_bytes(), name].concat()
    }

    /// A path by which the kernel finds `name` without following it, however long the
    /// path of this place is.
    pub(super) fn reach(&self, name: &[u8]) -> Vec<u8> {
        if self.shared.proc {
            let prefix = format!("/proc/self/fd/{}/", self.fd.as_raw_fd());
            [prefix.as_bytes(), name].concat()
        } else {
            self.join(name)
        }
    }
}

/// What `statx` said, as far as it is needed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stat {
    pub(super) kind: FileType,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) size: u64,
    /// Bytes allocated.
    pub(super) allocated: u64,
    pub(super) mtime: Time,
    pub(super) ctime: Time,
    /// Major and minor number of a device.
    pub(super) device: (u32, u32),
}

impl From<Statx> for Stat {
    fn from(from: Statx) -> Self {
        let time = |seconds, nanoseconds| Time {
            seconds,
            nanoseconds,
        };
        Self {
            kind: FileType::from_raw_mode(from.stx_mode.into()),
            mode: from.stx_mode & 0o7777,
            uid: from.stx_uid,
            gid: from.stx_gid,
            links: from.stx_nlink,
            dev: makedev(from.stx_dev_major, from.stx_dev_minor),
            ino: from.stx_ino,
            size: from.stx_size,
            allocated: from.stx_blocks.saturating_mul(512),
            mtime: time(from.stx_mtime.tv_sec, from.stx_mtime.tv_nsec),
            ctime: time(from.stx_ctime.tv_sec, from.stx_ctime.tv_nsec),
            device: (from.stx_rdev_major, from.stx_rdev_minor),
        }
    }
}

/// An object as it was found.
#[derive(Debug)]
pub(super) struct Object {
    /// The directory it lies in; for a directory, itself.
    pub(super) place: Arc<Place>,
    pub(super) name: Box<[u8]>,
    pub(super) stat: Stat,
    pub(super) links: Option<Links>,
}

impl Object {
    pub(super) fn path(&self) -> Vec<u8> {
        match self.stat.kind {
            FileType::Directory => self.place.path.to_vec(),
            _ => self.place.join(&self.name),
        }
    }
}

/// One step through the tree.
#[derive(Debug)]
pub(super) enum Found {
    Enter(Object),
    Object(Object),
    Link { name: Box<[u8]>, id: u64 },
    Leave,
}

/// The names in a directory, sorted, one after the other in one allocation.
#[derive(Debug, Default)]
struct Names {
    bytes: Vec<u8>,
    sorted: Vec<(u32, u8)>,
    next: usize,
}

impl Names {
    fn read(fd: BorrowedFd<'_>, buffer: &mut [MaybeUninit<u8>]) -> Result<Self, Errno> {
        let mut names = Self::default();
        let mut listing = RawDir::new(fd, buffer);
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let at = u32::try_from(names.bytes.len()).map_err(|_| Errno::OVERFLOW)?;
            let length = u8::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?;
            names.bytes.extend_from_slice(name);
            names.sorted.push((at, length));
        }
        let mut sorted = std::mem::take(&mut names.sorted);
        sorted.sort_unstable_by(|a, b| names.at(*a).cmp(names.at(*b)));
        // A name that is removed and made again while it is listed may be told twice.
        sorted.dedup_by(|a, b| names.at(*a) == names.at(*b));
        sorted.shrink_to_fit();
        names.bytes.shrink_to_fit();
        names.sorted = sorted;
        Ok(names)
    }

    fn at(&self, (at, length): (u32, u8)) -> &[u8] {
        let at = at as usize;
        &self.bytes[at..at + usize::from(length)]
    }

    fn next(&mut self) -> Option<Box<[u8]>> {
        let name = self.at(*self.sorted.get(self.next)?).into();
        self.next += 1;
        Some(name)
    }
}

/// A directory on the path.
#[derive(Debug)]
struct Level {
    /// Unset if it was closed because the path is long.
    place: Option<Arc<Place>>,
    dev: u64,
    ino: u64,
    names: Names,
}

/// The walk itself.
pub(super) struct Lister {
    shared: Arc<Shared>,
    levels: Vec<Level>,
    /// Where the root was opened, until it was entered.
    begin: Option<(Arc<Place>, Stat)>,
    links: Seen,
    root_dev: u64,
    buffer: Vec<MaybeUninit<u8>>,
    ended: bool,
}

/// Objects with several names of which some are still to come.
#[derive(Default)]
struct Seen {
    /// By device, then inode: its id, and how many names are to come.
    known: FxHashMap<u64, FxHashMap<u64, (u32, u32)>>,
    last: u32,
}

impl Seen {
    /// `Ok` if `stat` is an object that was not seen yet.
    fn see(&mut self, stat: &Stat) -> Result<Option<Links>, u64> {
        if stat.links < 2 {
            return Ok(None);
        }
        let objects = self.known.entry(stat.dev).or_default();
        if let Some((id, left)) = objects.get_mut(&stat.ino) {
            let id = *id;
            *left -= 1;
            if *left == 0 {
                objects.remove(&stat.ino);
            }
            return Err(id.into());
        }
        self.last += 1;
        objects.insert(stat.ino, (self.last, stat.links - 1));
        Ok(Some(Links {
            id: self.last.into(),
            at_most: stat.links,
        }))
    }
}

impl Lister {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, TreeError> {
        let path = shared.path.clone();
        let fd = open_directory(shared.root.as_fd(), b".", shared.owns(0))
            .map_err(|cause| TreeError::io(&path, "open", cause))?;
        let stat = stat_at(fd.as_fd(), b"").map_err(|cause| TreeError::io(&path, "stat", cause))?;
        let place = Place {
            fd,
            path,
            shared: Arc::clone(&shared),
        };
        Ok(Self {
            shared,
            levels: Vec::new(),
            begin: Some((Arc::new(place), stat)),
            links: Seen::default(),
            root_dev: stat.dev,
            buffer: vec![MaybeUninit::uninit(); LISTING],
            ended: false,
        })
    }

    fn step(&mut self) -> Result<Option<Found>, TreeError> {
        if let Some((place, stat)) = self.begin.take() {
            return self.enter(place, Box::default(), stat).map(Some);
        }
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.names.next() else {
                self.leave()?;
                return Ok(Some(Found::Leave));
            };
            let Some(place) = level.place.clone() else {
                return Err(TreeError::invalid(&name, "its directory is not open"));
            };
            let stat = stat_at(place.fd.as_fd(), &name)
                .map_err(|cause| lost(&place.join(&name), "stat", cause))?;
            let directory = stat.kind == FileType::Directory;
            if self.left_out(&place, &name, directory) {
                continue;
            }
            if directory {
                let inner = self.open(&place, &name, &stat)?;
                return self.enter(inner, name, stat).map(Some);
            }
            return Ok(Some(match self.links.see(&stat) {
                Ok(links) => Found::Object(Object {
                    place,
                    name,
                    stat,
                    links,
                }),
                Err(id) => Found::Link { name, id },
            }));
        }
        Ok(None)
    }

    fn left_out(&self, place: &Place, name: &[u8], directory: bool) -> bool {
        let excludes = &self.shared.excludes;
        if excludes.is_empty() {
            return false;
        }
        let path = place.join(name);
        let below = path.get(self.shared.path.len()..).unwrap_or(&path);
        excludes.matches(below.strip_prefix(b"/").unwrap_or(below), directory)
    }

    fn open(&self, place: &Place, name: &[u8], stat: &Stat) -> Result<Arc<Place>, TreeError> {
        let path = place.join(name);
        let fd = open_directory(place.fd.as_fd(), name, self.shared.owns(stat.uid))
            .map_err(|cause| lost(&path, "open", cause))?;
        same(&fd, stat.dev, stat.ino, &path)?;
        Ok(Arc::new(Place {
            fd,
            path: path.into(),
            shared: Arc::clone(&self.shared),
        }))
    }

    fn enter(
        &mut self,
        place: Arc<Place>,
        name: Box<[u8]>,
        stat: Stat,
    ) -> Result<Found, TreeError> {
        let elsewhere = self.shared.one_file_system && stat.dev != self.root_dev;
        let names = if elsewhere {
            Names::default()
        } else {
            Names::read(place.fd.as_fd(), &mut self.buffer)
                .map_err(|cause| lost(&place.path, "list", cause))?
        };
        self.levels.push(Level {
            place: Some(Arc::clone(&place)),
            dev: stat.dev,
            ino: stat.ino,
            names,
        });
        if let Some(far) = self.levels.len().checked_sub(OPEN + 1) {
            self.levels[far].place = None;
        }
        Ok(Found::Enter(Object {
            place,
            name,
            stat,
            links: None,
        }))
    }

    /// Leaves the directory entered last, and opens the one around it if it was closed.
    fn leave(&mut self) -> Result<(), TreeError> {
        let (Some(inner), Some(outer)) = (self.levels.pop(), self.levels.last_mut()) else {
            return Ok(());
        };
        let (Some(inner), None) = (inner.place, &outer.place) else {
            return Ok(());
        };
        let path = match inner.path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => &inner.path[..slash],
            None => &inner.path,
        };
        let fd = open_directory(inner.fd.as_fd(), b"..", self.shared.owns(0))
            .map_err(|cause| lost(path, "open again", cause))?;
        same(&fd, outer.dev, outer.ino, path)?;
        outer.place = Some(Arc::new(Place {
            fd,
            path: path.into(),
            shared: Arc::clone(&self.shared),
        }));
        Ok(())
    }
}

impl Iterator for Lister {
    type Item = Result<Found, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}

/// Stats `name` in `directory`, or that itself if the name is empty.
fn stat_at(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    statx(directory, name, flags, StatxFlags::BASIC_STATS).map(Stat::from)
}

fn open_directory(place: BorrowedFd<'_>, name: &[u8], owned: bool) -> Result<OwnedFd, Errno> {
    open_quietly(place, name, OFlags::DIRECTORY, owned)
}

/// Opens for reading without following a link, and, if it is `owned`, without touching
/// the time of last access where that is permitted.
pub(super) fn open_quietly(
    place: BorrowedFd<'_>,
    name: &[u8],
    flags: OFlags,
    owned: bool,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    if owned {
        match openat(place, name, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => {}
            other => return other,
        }
    }
    openat(place, name, flags, Mode::empty())
}

/// The error for a failed call on what was there a moment ago.
pub(super) fn lost(path: &[u8], action: &'static str, cause: Errno) -> TreeError {
    match cause {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE | Errno::NXIO => {
            TreeError::changed(path, format!("{action}: {cause}"))
        }
        _ => TreeError::io(path, action, cause),
    }
}

/// Checks that what was opened is the object that was found.
fn same(fd: &OwnedFd, dev: u64, ino: u64, path: &[u8]) -> Result<(), TreeError> {
    let stat = fstat(fd).map_err(|cause| TreeError::io(path, "stat", cause))?;
    if (stat.st_dev, stat.st_ino) == (dev, ino) {
        Ok(())
    } else {
        Err(TreeError::changed(path, "another directory has its name"))
    }
}
