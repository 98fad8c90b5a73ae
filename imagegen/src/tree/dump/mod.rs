//! A composefs dump (composefs-dump(5)) with its object store as a source: a line for each
//! object, files inline or by their path in the store.
//!
//! The fs-verity digests that lines give are checked when the dump is opened, which reads
//! every object of the store that is used once.

pub(crate) mod line;

#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashSet;
use rustix::fs::{CWD, FileType, Mode, OFlags, openat};

use self::line::{Line, Object, What};
use super::arena::{Arena, Body, OnTheWay, Tree};
use super::{Detail, Device, Meta, Source, TreeError, Walk, Xattr, attributes, path};
use crate::verity::{Algorithm, fs};

/// A dump, to be walked.
#[derive(Debug)]
pub struct Dump {
    tree: Tree,
}

impl Dump {
    /// The dump at `path`, with the directory of objects that payloads are paths in.
    ///
    /// # Errors
    /// If one of them cannot be read, a line is malformed, or an object is not what its
    /// line says: with the number of the line.
    pub fn open(path: &Path, store: Option<&Path>) -> Result<Self, TreeError> {
        let name = path.as_os_str().as_encoded_bytes();
        let file = File::open(path).map_err(|cause| TreeError::io(name, "open", cause))?;
        Self::read(file, name, store)
    }

    /// The dump in `stream`; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Dump::open`].
    pub fn read(stream: impl Read, name: &[u8], store: Option<&Path>) -> Result<Self, TreeError> {
        let mut filler = Filler {
            arena: Arena::new(),
            store: None,
            checked: FxHashSet::default(),
        };
        if let Some(store) = store {
            filler.open_store(store)?;
        }
        line::each(stream, name, |_, line| filler.line(line))?;
        let tree = filler.arena.finish();
        Ok(Self { tree })
    }
}

impl Source for Dump {
    fn walk(&self, detail: Detail) -> Result<Walk<'_>, TreeError> {
        self.tree.walk(detail)
    }
}

struct Filler {
    arena: Arena,
    store: Option<PathBuf>,
    /// Objects whose digests were found right, with these.
    checked: FxHashSet<(Vec<u8>, Vec<u8>)>,
}

impl Filler {
    fn open_store(&mut self, store: &Path) -> Result<(), TreeError> {
        let name = store.as_os_str().as_encoded_bytes();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, store, flags, Mode::empty());
        let directory =
            directory.map_err(|cause| TreeError::io(name, "open it as a directory", cause))?;
        self.arena.store(directory, name);
        self.store = Some(store.to_owned());
        Ok(())
    }

    fn line(&mut self, line: Line) -> Result<(), String> {
        let object = match line.what {
            What::Link(target) => {
                return self.arena.link(&line.path, &target, OnTheWay::Refuse);
            }
            What::Object(object) => object,
        };
        let meta = Meta {
            mode: object.mode,
            uid: object.uid,
            gid: object.gid,
            project: 0,
            mtime: object.mtime,
            ctime: object.mtime,
        };
        let mut list = Vec::new();
        for (name, value) in &object.xattrs {
            keep(&mut list, name, value)?;
        }
        let body = self.body(object)?;
        self.arena
            .put(&line.path, meta, list, body, OnTheWay::Refuse)
    }

    fn body(&mut self, object: Object) -> Result<Body, String> {
        Ok(match object.kind {
            FileType::Directory => Body::Directory,
            FileType::RegularFile => self.file(object)?,
            FileType::Symlink => {
                let target = object.payload.unwrap_or_default();
                if target.is_empty() || target.len() > 4095 || target.contains(&0) {
                    return Err("a symbolic link whose target cannot be one".into());
                }
                Body::Symlink(self.arena.text(&target)?)
            }
            FileType::CharacterDevice => Body::CharDevice(device(object.rdev)?),
            FileType::BlockDevice => Body::BlockDevice(device(object.rdev)?),
            FileType::Fifo => Body::Fifo,
            FileType::Socket => Body::Socket,
            FileType::Unknown => return Err("of no kind of object".into()),
        })
    }

    fn file(&mut self, file: Object) -> Result<Body, String> {
        let size = file.size;
        if let Some(content) = file.content {
            let length = content.len();
            if length as u64 != size {
                return Err(format!("its size is {size}, but {length} bytes are inline"));
            }
            return Ok(Body::Inline(self.arena.text(&content)?));
        }
        let Some(payload) = file.payload else {
            return match size {
                0 => Ok(Body::Inline(self.arena.text(b"")?)),
                _ => Err("it has neither contents nor payload".into()),
            };
        };
        let names = path::names(&payload).map_err(|reason| format!("its payload: {reason}"))?;
        let relative = names.join(&b'/');
        self.check(&relative, size, file.digest.as_deref())?;
        let path = self.arena.text(&relative)?;
        Ok(Body::Stored { size, path })
    }

    /// Checks that an object is what its line says.
    fn check(&mut self, object: &[u8], size: u64, digest: Option<&[u8]>) -> Result<(), String> {
        let Some(store) = &self.store else {
            return Err("its contents are in an object store, which must be given too".into());
        };
        let path = store.join(OsStr::from_bytes(object));
        let shown = path.display();
        let failed = |cause: std::io::Error| format!("object {shown}: {cause}");
        let about = std::fs::metadata(&path).map_err(failed)?;
        if !about.is_file() || about.len() != size {
            let there = about.len();
            return Err(format!(
                "object {shown} should be a file of {size} bytes, it has {there}"
            ));
        }
        let Some(digest) = digest else {
            return Ok(());
        };
        let key = (object.to_vec(), digest.to_ascii_lowercase());
        if self.checked.contains(&key) {
            return Ok(());
        }
        let file = File::open(&path).map_err(failed)?;
        let (found, _) = fs::digest(file, Algorithm::Sha256).map_err(failed)?;
        if found.to_string().as_bytes() != key.1 {
            return Err(format!(
                "object {shown} does not match its digest; fetch it again"
            ));
        }
        self.checked.insert(key);
        Ok(())
    }
}

fn device(rdev: u64) -> Result<Device, String> {
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    match major < 1 << 12 && minor < 1 << 20 {
        true => Ok(Device { major, minor }),
        false => Err(format!("device {major}:{minor}, at most 4095:1048575 fit")),
    }
}

/// Puts an attribute into the list, if it belongs to the object.
fn keep(list: &mut Vec<Xattr>, name: &[u8], value: &[u8]) -> Result<(), String> {
    if !attributes::kept(name) {
        return Ok(());
    }
    if let Some(fault) = attributes::fault(name, value) {
        return Err(fault);
    }
    attributes::set(list, name, value);
    Ok(())
}
