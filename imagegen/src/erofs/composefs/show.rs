//! A tree as text, as `composefs-info` shows it: a dump (composefs-dump(5)), a list, the
//! paths of its objects.

use super::tree::{Body, Number, Object, ROOT, Tree, object_path};
use rustc_hash::FxHashMap;
use rustix::fs::FileType;
use std::collections::BTreeSet;
use std::io::{self, Write};

/// What besides bytes that are no letters is escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    /// Nothing.
    Standard,
    /// A dash that is all there is.
    LoneDash,
    /// `=`.
    Equals,
    /// Nothing, and spaces neither.
    NotSpace,
}

/// What one name stands for.
struct Visit<'a> {
    path: &'a [u8],
    object: &'a Object,
    /// The path of its first name, if this is a further one.
    of: Option<&'a [u8]>,
}

impl Tree {
    /// Writes a dump of which the same tree can be read.
    ///
    /// # Errors
    /// What `out` says.
    pub fn dump(&self, out: &mut dyn Write) -> io::Result<()> {
        self.visit(&mut |visit| {
            let object = visit.object;
            escape(visit.path, Escape::Standard, out)?;
            let link = if visit.of.is_some() { "@" } else { "" };
            let mode = kind(&object.body).as_raw_mode() | u32::from(object.mode);
            let rdev = match object.body {
                Body::CharDevice(device) | Body::BlockDevice(device) => device,
                _ => 0,
            };
            let (nlink, uid, gid) = (object.nlink, object.uid, object.gid);
            let time = object.mtime;
            write!(
                out,
                " {} {link}{mode:o} {nlink} {uid} {gid} {rdev} {}.{} ",
                object.size, time.seconds, time.nanoseconds
            )?;
            let external = external(&object.body);
            let payload = match (visit.of, &object.body) {
                (Some(path), _) => Some(path.to_vec()),
                (None, Body::Symlink(target)) => Some(target.to_vec()),
                _ => external.and_then(|file| file.path()),
            };
            optional(payload.as_deref(), out)?;
            write!(out, " ")?;
            match &object.body {
                Body::Inline(bytes) if !bytes.is_empty() => optional(Some(bytes), out)?,
                _ => optional(None, out)?,
            }
            let digest = external.and_then(|file| file.digest.as_ref());
            match digest.map(object_path) {
                Some(path) => write!(out, " {}", path.replace('/', ""))?,
                None => write!(out, " -")?,
            }
            for xattr in &object.xattrs {
                write!(out, " ")?;
                escape(&xattr.name, Escape::Equals, out)?;
                write!(out, "=")?;
                escape(&xattr.value, Escape::Equals, out)?;
            }
            writeln!(out)
        })
    }

    /// Writes all paths, with targets of symbolic links and paths of objects.
    ///
    /// # Errors
    /// What `out` says.
    pub fn list(&self, out: &mut dyn Write) -> io::Result<()> {
        self.visit(&mut |visit| {
            if visit.path == b"/" {
                return Ok(());
            }
            escape(visit.path, Escape::NotSpace, out)?;
            let payload = external(&visit.object.body).and_then(|file| file.path());
            match (&visit.object.body, payload) {
                _ if visit.of.is_some() => {}
                (Body::Directory(_), _) => write!(out, "/\t")?,
                (Body::Symlink(target), _) => {
                    write!(out, "\t-> ")?;
                    escape(target, Escape::Standard, out)?;
                }
                (_, Some(payload)) => {
                    write!(out, "\t@ ")?;
                    escape(&payload, Escape::Standard, out)?;
                }
                _ => {}
            }
            writeln!(out)
        })
    }

    /// The paths of all objects in the store.
    pub fn payloads(&self) -> BTreeSet<Vec<u8>> {
        let files = self.objects().filter_map(|object| external(&object.body));
        files.filter_map(|file| file.path()).collect()
    }

    /// Every name, a directory before what is in it.
    fn visit(&self, each: &mut dyn FnMut(Visit<'_>) -> io::Result<()>) -> io::Result<()> {
        let mut paths: FxHashMap<Number, Vec<u8>> = FxHashMap::default();
        let mut stack: Vec<(Number, Vec<u8>, bool)> = vec![(ROOT, Vec::new(), true)];
        while let Some((number, path, first)) = stack.pop() {
            let Some(object) = self.object(number) else {
                continue;
            };
            let of = paths.get(&number).map(Vec::as_slice).filter(|_| !first);
            let shown = if path.is_empty() { b"/" } else { &*path };
            let visit = Visit {
                path: shown,
                object,
                of,
            };
            each(visit)?;
            if first && object.names > 1 {
                paths.insert(number, path.clone());
            }
            let entries = self.entries(number).into_iter().flatten().rev();
            stack.extend(entries.map(|(name, entry)| {
                let path = [&*path, b"/", name].concat();
                (entry.object, path, entry.first)
            }));
        }
        Ok(())
    }
}

fn external(body: &Body) -> Option<&super::tree::External> {
    match body {
        Body::External(file) => Some(file),
        _ => None,
    }
}

fn kind(body: &Body) -> FileType {
    match body {
        Body::Directory(_) => FileType::Directory,
        Body::Inline(_) | Body::External(_) => FileType::RegularFile,
        Body::Symlink(_) => FileType::Symlink,
        Body::CharDevice(_) => FileType::CharacterDevice,
        Body::BlockDevice(_) => FileType::BlockDevice,
        Body::Fifo => FileType::Fifo,
        Body::Socket => FileType::Socket,
    }
}

fn optional(field: Option<&[u8]>, out: &mut dyn Write) -> io::Result<()> {
    match field {
        None => write!(out, "-"),
        Some(bytes) => escape(bytes, Escape::LoneDash, out),
    }
}

fn escape(bytes: &[u8], how: Escape, out: &mut dyn Write) -> io::Result<()> {
    if how == Escape::LoneDash && bytes == b"-" {
        return write!(out, "\\x2d");
    }
    for &byte in bytes {
        match byte {
            b'\\' => write!(out, "\\\\")?,
            b'\n' => write!(out, "\\n")?,
            b'\r' => write!(out, "\\r")?,
            b'\t' => write!(out, "\\t")?,
            b'=' if how == Escape::Equals => write!(out, "\\x3d")?,
            b' ' if how == Escape::NotSpace => write!(out, " ")?,
            byte if byte.is_ascii_graphic() => out.write_all(&[byte])?,
            byte => write!(out, "\\x{byte:02x}")?,
        }
    }
    Ok(())
}
