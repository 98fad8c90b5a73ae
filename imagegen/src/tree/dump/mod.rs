//! A composefs dump (composefs-dump(5)) with its object store as a source: a line for each
//! object, files inline or by their path in the store.
//!
//! The fs-verity digests that lines give are checked when the dump is opened, which reads
//! every object of the store that is used once.

#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashSet;
use rustix::fs::{CWD, FileType, Mode, OFlags, openat};

use super::arena::{Arena, Body, OnTheWay, Tree};
use super::{Detail, Device, Meta, Source, Time, TreeError, Walk, Xattr, attributes, path};
use crate::verity::{Algorithm, fs};

/// Longest line.
const LONGEST: u64 = 16 << 20;

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
        let mut parser = Parser {
            arena: Arena::new(),
            store: None,
            checked: FxHashSet::default(),
        };
        if let Some(store) = store {
            parser.open_store(store)?;
        }
        let mut stream = BufReader::with_capacity(256 << 10, stream);
        let mut line = Vec::new();
        for number in 1u64.. {
            line.clear();
            let length = stream.by_ref().take(LONGEST).read_until(b'\n', &mut line);
            let length = length.map_err(|cause| TreeError::io(name, "read", cause))?;
            if length == 0 {
                break;
            }
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let taken = match length as u64 == LONGEST {
                true => Err(format!("longer than {LONGEST} bytes")),
                false => parser.line(text),
            };
            taken.map_err(|reason| TreeError::invalid(name, format!("line {number}: {reason}")))?;
        }
        let tree = parser.arena.finish();
        Ok(Self { tree })
    }
}

impl Source for Dump {
    fn walk(&self, detail: Detail) -> Result<Walk<'_>, TreeError> {
        self.tree.walk(detail)
    }
}

struct Parser {
    arena: Arena,
    store: Option<PathBuf>,
    /// Objects whose digests were found right, with these.
    checked: FxHashSet<(Vec<u8>, Vec<u8>)>,
}

impl Parser {
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

    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let Some((fixed, xattrs)) = fields.split_first_chunk::<11>() else {
            return Err("fewer than the 11 fields of a composefs dump".into());
        };
        let [
            path,
            size,
            mode,
            _,
            uid,
            gid,
            rdev,
            mtime,
            payload,
            content,
            digest,
        ] = fixed;
        let path = unescape(path)?;
        if !path.starts_with(b"/") {
            return Err("a path that does not begin with a slash".into());
        }
        let about = |reason: String| format!("{}: {reason}", path.escape_ascii());
        let payload = optional(payload)?;
        if mode.starts_with(b"@") {
            let target = payload.ok_or_else(|| about("a hard link without payload".into()))?;
            return self
                .arena
                .link(&path, &target, OnTheWay::Refuse)
                .map_err(about);
        }
        let mode = octal(mode).ok_or_else(|| about("its mode is not an octal number".into()))?;
        let mtime =
            time(mtime).ok_or_else(|| about("its time is not SECONDS.NANOSECONDS".into()))?;
        let meta = Meta {
            mode: (mode & 0o7777) as u16,
            uid: number(uid, "owner").map_err(about)?,
            gid: number(gid, "group").map_err(about)?,
            project: 0,
            mtime,
            ctime: mtime,
        };
        let mut list = Vec::new();
        for field in xattrs.iter().filter(|field| !field.is_empty()) {
            xattr(field, &mut list).map_err(about)?;
        }
        let file = Contents {
            size: number(size, "size").map_err(about)?,
            payload,
            content: optional(content)?,
            digest: optional(digest)?,
        };
        let rdev: u64 = number(rdev, "device").map_err(about)?;
        let body = self.body(mode, file, rdev).map_err(about)?;
        self.arena
            .put(&path, meta, list, body, OnTheWay::Refuse)
            .map_err(about)
    }

    fn body(&mut self, mode: u32, file: Contents, rdev: u64) -> Result<Body, String> {
        Ok(match FileType::from_raw_mode(mode) {
            FileType::Directory => Body::Directory,
            FileType::RegularFile => self.file(file)?,
            FileType::Symlink => {
                let target = file.payload.unwrap_or_default();
                if target.is_empty() || target.len() > 4095 || target.contains(&0) {
                    return Err("a symbolic link whose target cannot be one".into());
                }
                Body::Symlink(self.arena.text(&target)?)
            }
            FileType::CharacterDevice => Body::CharDevice(device(rdev)?),
            FileType::BlockDevice => Body::BlockDevice(device(rdev)?),
            FileType::Fifo => Body::Fifo,
            FileType::Socket => Body::Socket,
            FileType::Unknown => return Err(format!("its mode {mode:o} is of no kind of object")),
        })
    }

    fn file(&mut self, file: Contents) -> Result<Body, String> {
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

/// What a line says of a regular file.
struct Contents {
    size: u64,
    payload: Option<Vec<u8>>,
    content: Option<Vec<u8>>,
    digest: Option<Vec<u8>>,
}

fn optional(field: &[u8]) -> Result<Option<Vec<u8>>, String> {
    match field {
        b"-" => Ok(None),
        _ => unescape(field).map(Some),
    }
}

/// Undoes `\\`, `\n`, `\r`, `\t` and `\x41`.
fn unescape(field: &[u8]) -> Result<Vec<u8>, String> {
    let mut found = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [b'n', after @ ..]) => (b'\n', after),
            (b'\\', [b'r', after @ ..]) => (b'\r', after),
            (b'\\', [b't', after @ ..]) => (b'\t', after),
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digit = |digit: &u8| char::from(*digit).to_digit(16);
                let (high, low) = digit(high)
                    .zip(digit(low))
                    .ok_or("an escape that is none")?;
                ((high * 16 + low) as u8, after)
            }
            (b'\\', _) => return Err("an escape that is none".into()),
            (byte, after) => (*byte, after),
        };
        found.push(byte);
        rest = after;
    }
    Ok(found)
}

fn number<T: std::str::FromStr>(field: &[u8], what: &str) -> Result<T, String> {
    let text = std::str::from_utf8(field)
        .ok()
        .filter(|text| !text.starts_with('+'));
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| format!("its {what} is not a number, or too large"))
}

fn octal(field: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(field).ok()?, 8).ok()
}

/// `1.1` is one second and one nanosecond.
fn time(field: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(field).ok()?;
    let (seconds, nanoseconds) = text.split_once('.').unwrap_or((text, "0"));
    let time = Time {
        seconds: seconds.parse().ok()?,
        nanoseconds: nanoseconds.parse().ok()?,
    };
    (time.nanoseconds < 1_000_000_000).then_some(time)
}

fn device(rdev: u64) -> Result<Device, String> {
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    match major < 1 << 12 && minor < 1 << 20 {
        true => Ok(Device { major, minor }),
        false => Err(format!("device {major}:{minor}, at most 4095:1048575 fit")),
    }
}

fn xattr(field: &[u8], list: &mut Vec<Xattr>) -> Result<(), String> {
    let equals = field.iter().position(|&byte| byte == b'=');
    let equals = equals.ok_or("an attribute without `=`")?;
    let (name, value) = (unescape(&field[..equals])?, unescape(&field[equals + 1..])?);
    if !attributes::kept(&name) {
        return Ok(());
    }
    match attributes::fault(&name, &value) {
        Some(fault) => Err(fault),
        None => {
            attributes::set(list, &name, &value);
            Ok(())
        }
    }
}
