//! Reads what a walk wants of an object that was found: attributes, target, contents.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, OFlags, fstat, readlinkat};
use rustix::io::Errno;

use super::lister::{Found, Object, Stat, lost, open_quietly};
use super::xattrs;
use crate::tree::content::{self, SMALL, digests};
use crate::tree::{Bytes, Content, Detail, Device, Event, Kind, Meta, Node, TreeError, Xattr};

/// Files from this size on are asked for holes even if enough is allocated to them: what
/// is allocated may be unwritten.
const LARGE: u64 = 1 << 20;

/// What was found, with names and metadata only.
pub(super) fn named(found: Found) -> Event {
    plain(found, |object| {
        let allocated = object.stat.allocated.min(object.stat.size);
        Content {
            size: object.stat.size,
            data: content::whole(allocated),
            bytes: Bytes::Unread,
            digests: Vec::new(),
        }
    })
}

fn plain(found: Found, content: impl FnOnce(&Object) -> Content) -> Event {
    match found {
        Found::Leave => Event::Leave,
        Found::Link { name, id } => Event::Link { name, id },
        Found::Enter(object) => Event::Enter(node(object, Kind::Directory, Vec::new())),
        Found::Object(object) => {
            let (major, minor) = object.stat.device;
            let device = Device { major, minor };
            let kind = match object.stat.kind {
                FileType::RegularFile => Kind::File(content(&object)),
                FileType::Symlink => Kind::Symlink(Box::default()),
                FileType::CharacterDevice => Kind::CharDevice(device),
                FileType::BlockDevice => Kind::BlockDevice(device),
                FileType::Fifo => Kind::Fifo,
                _ => Kind::Socket,
            };
            Event::Node(node(object, kind, Vec::new()))
        }
    }
}

fn node(object: Object, kind: Kind, xattrs: Vec<Xattr>) -> Node {
    let stat = object.stat;
    Node {
        name: object.name,
        kind,
        meta: Meta {
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            project: 0,
            mtime: stat.mtime,
            ctime: stat.ctime,
        },
        xattrs,
        links: object.links,
    }
}

/// Reads objects; one for each thread.
pub(super) struct Reader {
    detail: Detail,
    /// For names and values of attributes.
    buffer: Vec<u8>,
}

impl Reader {
    pub(super) fn new(detail: Detail) -> Self {
        let buffer = Vec::new();
        Self { detail, buffer }
    }

    pub(super) fn read(&mut self, found: Found) -> Result<Event, TreeError> {
        let object = match found {
            Found::Enter(object) => return self.directory(object),
            Found::Object(object) => object,
            other => return Ok(named(other)),
        };
        if object.stat.kind == FileType::RegularFile {
            return self.file(object);
        }
        let target = match object.stat.kind {
            FileType::Symlink => Some(target(&object)?),
            _ => None,
        };
        let path = object.path();
        let reach = object.place.reach(&object.name);
        let xattrs = xattrs::read(xattrs::From::Named(&reach), &path, &mut self.buffer)?;
        let mut event = named(Found::Object(object));
        if let Event::Node(node) = &mut event {
            node.xattrs = xattrs;
            if let Some(target) = target {
                node.kind = Kind::Symlink(target);
            }
        }
        Ok(event)
    }

    fn directory(&mut self, object: Object) -> Result<Event, TreeError> {
        let from = xattrs::From::Open(object.place.fd.as_fd());
        let xattrs = xattrs::read(from, &object.place.path, &mut self.buffer)?;
        Ok(Event::Enter(node(object, Kind::Directory, xattrs)))
    }

    fn file(&mut self, object: Object) -> Result<Event, TreeError> {
        let stat = &object.stat;
        let holes = stat.allocated < stat.size || stat.size >= LARGE;
        let path = object.path();
        if stat.size == 0 || (self.detail == Detail::Layout && !holes) {
            let reach = object.place.reach(&object.name);
            let xattrs = xattrs::read(xattrs::From::Named(&reach), &path, &mut self.buffer)?;
            let content = Content {
                size: stat.size,
                data: content::whole(stat.size),
                bytes: match self.detail {
                    Detail::Layout => Bytes::Unread,
                    _ => Bytes::Read(Vec::new()),
                },
                digests: Vec::new(),
            };
            return Ok(Event::Node(node(object, Kind::File(content), xattrs)));
        }
        let fd = open(&object, &path)?;
        let xattrs = xattrs::read(xattrs::From::Open(fd.as_fd()), &path, &mut self.buffer)?;
        let content = self.content(fd, stat, holes, path)?;
        Ok(Event::Node(node(object, Kind::File(content), xattrs)))
    }

    fn content(
        &self,
        fd: OwnedFd,
        stat: &Stat,
        holes: bool,
        path: Vec<u8>,
    ) -> Result<Content, TreeError> {
        let (file, size) = (File::from(fd), stat.size);
        let data = match holes {
            true => content::ranges(&file, size)
                .map_err(|cause| TreeError::io(&path, "find the holes of it", cause))?,
            false => content::whole(size),
        };
        let mut hashes = Vec::new();
        let bytes = match self.detail {
            Detail::Names | Detail::Layout => Bytes::Unread,
            _ if size <= SMALL => {
                let bytes = content::read(&file, &data, size, &path)?;
                unwritten(&file, stat, &path)?;
                if self.detail == Detail::Digests {
                    hashes = digests::of_bytes(&data, &bytes);
                }
                Bytes::Read(bytes)
            }
            _ => {
                let offsets: Vec<u64> = data.iter().map(|range| range.start).collect();
                if self.detail == Detail::Digests {
                    hashes = digests::of_file(&file, &data, &offsets, &path)?;
                }
                unwritten(&file, stat, &path)?;
                Bytes::At {
                    file: Arc::new(file),
                    path: path.into(),
                    offsets,
                    written: Some(stat.mtime),
                }
            }
        };
        Ok(Content {
            size,
            data,
            bytes,
            digests: hashes,
        })
    }
}

/// That nothing was written to a file since it was listed.
fn unwritten(file: &File, stat: &Stat, path: &[u8]) -> Result<(), TreeError> {
    match content::written(file) {
        Ok(now) if now == stat.mtime => Ok(()),
        Ok(_) => Err(TreeError::changed(path, "it was written to")),
        Err(cause) => Err(TreeError::io(path, "stat", cause)),
    }
}

fn target(object: &Object) -> Result<Box<[u8]>, TreeError> {
    let target = readlinkat(object.place.fd.as_fd(), &*object.name, Vec::new());
    let target = target.map_err(|cause| match cause {
        Errno::INVAL => TreeError::changed(&object.path(), "it is no symbolic link any more"),
        _ => lost(&object.path(), "read the target of it", cause),
    })?;
    Ok(target.into_bytes().into())
}

/// Opens a regular file. Whatever may have taken its name meanwhile is not waited for.
fn open(object: &Object, path: &[u8]) -> Result<OwnedFd, TreeError> {
    let (place, stat) = (&object.place, &object.stat);
    #[cfg(test)]
    if let Some(hook) = &place.shared.before_open {
        hook(path);
    }
    let owned = place.shared.owns(stat.uid);
    let fd = open_quietly(place.fd.as_fd(), &object.name, OFlags::NONBLOCK, owned)
        .map_err(|cause| lost(path, "open", cause))?;
    let now = fstat(&fd).map_err(|cause| TreeError::io(path, "stat", cause))?;
    let regular = FileType::from_raw_mode(now.st_mode) == FileType::RegularFile;
    if !regular || (now.st_dev, now.st_ino) != (stat.dev, stat.ino) {
        return Err(TreeError::changed(path, "another object has its name"));
    }
    if u64::try_from(now.st_size) != Ok(stat.size) {
        let what = format!("its size, from {} to {} bytes", stat.size, now.st_size);
        return Err(TreeError::changed(path, what));
    }
    Ok(fd)
}
