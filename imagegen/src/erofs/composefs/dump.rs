//! A tree from a dump, whose object store need not be there. As `mkcomposefs --from-file`
//! takes it: the root first, directories before what is in them, hard links in any place.

use super::dialect::Dialect;
use super::tree::{Body, Digest, Entry, External, Number, Object, Tree};
use super::{ComposefsError, Format};
use crate::tree::dump::line::{self, Line, What};
use crate::tree::{TreeError, attributes, path};
use rustc_hash::FxHashMap;
use rustix::fs::FileType;
use std::collections::BTreeMap;
use std::io::Read;

/// Most bytes of a file in a line (`LCFS_INLINE_CONTENT_MAX`).
pub(super) const INLINE_MAX: usize = 5000;
/// Longest path of an object or target of a symbolic link (`PATH_MAX` less its zero byte).
pub(super) const PATH_MAX: usize = 4095;

/// The tree that the dump in `stream` describes, for an image of `format`, whose own program
/// decides what a line may say; `name` is what errors call it.
///
/// # Errors
/// If it cannot be read, or a line is malformed or describes what cannot be: with the
/// line's number.
pub fn read(stream: impl Read, name: &[u8], format: Format) -> Result<Tree, ComposefsError> {
    let dialect = Dialect::of(format);
    let mut filler = Filler {
        dialect,
        tree: None,
        links: Vec::new(),
        // Where a name stands whose object is known only at the end.
        pending: FxHashMap::default(),
    };
    line::each(stream, name, |text, line| {
        dialect.check(text, &line)?;
        filler.line(line)
    })?;
    let resolved = filler.resolve();
    let missing = || TreeError::invalid(name, "no line, so there is no root");
    match resolved.map_err(|reason| TreeError::invalid(name, reason))? {
        Some(tree) => Ok(tree),
        None => Err(missing().into()),
    }
}

struct Filler {
    dialect: Dialect,
    tree: Option<Tree>,
    links: Vec<Link>,
    /// Index into `links` by where the link's name stands.
    pending: FxHashMap<(Number, Vec<u8>), usize>,
}

/// A further name.
struct Link {
    parent: Number,
    name: Vec<u8>,
    target: Vec<u8>,
}

impl Filler {
    fn line(&mut self, line: Line) -> Result<(), String> {
        let names = path::names(&line.path)?;
        let Some((name, parents)) = names.split_last() else {
            return self.root(line.what);
        };
        let Some(tree) = &mut self.tree else {
            return Err("the first line must be that of the root, /".into());
        };
        let parent = tree
            .find(parents)
            .ok_or("the directory it lies in has no line before it")?;
        let taken = tree.entries(parent).is_some_and(|e| e.contains_key(*name));
        let key = (parent, name.to_vec());
        if taken || self.pending.contains_key(&key) {
            return Err("there is something of that path before it".into());
        }
        match line.what {
            What::Link(target) => {
                if self.dialect == Dialect::Crate && !self.knows(&target)? {
                    let target = target.escape_ascii();
                    return Err(format!(
                        "a hard link to {target}, which version 2 wants in a line before it"
                    ));
                }
                self.pending.insert(key, self.links.len());
                self.links.push(Link {
                    parent,
                    name: name.to_vec(),
                    target,
                });
                Ok(())
            }
            What::Object(told) => {
                let object = tree.add(object(told, self.dialect)?)?;
                let first = true;
                tree.name(parent, name, Entry { object, first })
            }
        }
    }

    fn root(&mut self, what: What) -> Result<(), String> {
        match what {
            What::Object(told) if told.kind == FileType::Directory => {
                if self.tree.is_some() {
                    return Err("there is a root before it".into());
                }
                self.tree = Some(Tree::new(object(told, self.dialect)?));
                Ok(())
            }
            _ => Err("the root of a tree can be a directory only".into()),
        }
    }

    /// Whether there was a line of that path.
    fn knows(&self, path: &[u8]) -> Result<bool, String> {
        let (names, Some(tree)) = (path::names(path)?, &self.tree) else {
            return Ok(false);
        };
        let link = |(name, parents): (&&[u8], &[&[u8]])| {
            let key = (tree.find(parents)?, name.to_vec());
            self.pending.contains_key(&key).then_some(())
        };
        Ok(tree.find(&names).is_some() || names.split_last().and_then(link).is_some())
    }

    /// Names what has further names.
    fn resolve(self) -> Result<Option<Tree>, String> {
        let Some(mut tree) = self.tree else {
            return Ok(None);
        };
        for link in &self.links {
            let about = |reason: &str| {
                let name = link.name.escape_ascii();
                let target = link.target.escape_ascii();
                format!("a hard link {name} to {target}, {reason}")
            };
            let object = follow(&tree, &self.links, &self.pending, link).map_err(about)?;
            let first = false;
            let named = tree.name(link.parent, &link.name, Entry { object, first });
            named.map_err(|reason| about(&reason))?;
        }
        Ok(Some(tree))
    }
}

/// The object behind a link, which may lead over others.
fn follow(
    tree: &Tree,
    links: &[Link],
    pending: &FxHashMap<(Number, Vec<u8>), usize>,
    link: &Link,
) -> Result<Number, &'static str> {
    let mut target = &link.target;
    // A chain longer than there are links comes back to itself.
    for _ in 0..=links.len() {
        let names = path::names(target).map_err(|_| "which is no path")?;
        let Some((name, parents)) = names.split_last() else {
            return Err("which is the root");
        };
        let parent = tree.find(parents).ok_or("which is not in the dump")?;
        let found = tree
            .entries(parent)
            .and_then(|entries| entries.get(*name))
            .map(|entry| entry.object);
        if let Some(object) = found {
            return match tree.entries(object) {
                Some(_) => Err("which is a directory"),
                None => Ok(object),
            };
        }
        let next = pending
            .get(&(parent, name.to_vec()))
            .and_then(|&at| links.get(at));
        target = &next.ok_or("which is not in the dump")?.target;
    }
    Err("which leads back to itself")
}

fn object(told: line::Object, dialect: Dialect) -> Result<Object, String> {
    let mut xattrs = Vec::with_capacity(told.xattrs.len());
    for (name, value) in &told.xattrs {
        if name.is_empty() {
            return Err("an attribute without name".into());
        }
        if let Some(fault) = attributes::fault(name, value) {
            return Err(fault);
        }
        attributes::set(&mut xattrs, name, value);
    }
    let (mode, uid, gid, mtime, nlink) = (told.mode, told.uid, told.gid, told.mtime, told.nlink);
    let mut size = told.size;
    let rdev = || u32::try_from(told.rdev).map_err(|_| "a device number above 32 bits".to_owned());
    let body = match told.kind {
        FileType::Directory => Body::Directory(BTreeMap::new()),
        FileType::RegularFile => file(told, dialect)?,
        FileType::Symlink => {
            let target = told.payload.unwrap_or_default();
            if target.is_empty() || target.len() > PATH_MAX || target.contains(&0) {
                return Err("a symbolic link whose target cannot be one".into());
            }
            size = target.len() as u64;
            Body::Symlink(target.into())
        }
        FileType::CharacterDevice => Body::CharDevice(rdev()?),
        FileType::BlockDevice => Body::BlockDevice(rdev()?),
        FileType::Fifo => Body::Fifo,
        FileType::Socket => Body::Socket,
        FileType::Unknown => return Err("of no kind of object".into()),
    };
    Ok(Object {
        mode,
        uid,
        gid,
        mtime,
        nlink,
        names: 0,
        size,
        xattrs,
        body,
    })
}

fn file(told: line::Object, dialect: Dialect) -> Result<Body, String> {
    // The crate reads no contents where there is a payload.
    let passed_over = dialect == Dialect::Crate && told.payload.is_some();
    if let Some(content) = told.content.filter(|_| !passed_over) {
        let length = content.len();
        if length as u64 != told.size {
            let size = told.size;
            return Err(format!("its size is {size}, but {length} bytes are inline"));
        }
        if length > INLINE_MAX {
            return Err(format!(
                "{length} bytes are inline, at most {INLINE_MAX} may be; put it into the object store"
            ));
        }
        return Ok(Body::Inline(content.into()));
    }
    let payload = told.payload.filter(|payload| !payload.is_empty());
    if payload
        .as_ref()
        .is_some_and(|p| p.len() > PATH_MAX || p.contains(&0))
    {
        return Err("its payload is no path of an object".into());
    }
    let digest = told.digest.as_deref().map(digest).transpose()?;
    if told.size == 0 && payload.is_none() {
        return Ok(Body::Inline(Box::default()));
    }
    let by_digest = false;
    let payload = payload.map(Vec::into_boxed_slice);
    Ok(Body::External(External {
        payload,
        digest,
        by_digest,
    }))
}

/// 64 digits.
fn digest(text: &[u8]) -> Result<Digest, String> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let bytes: Option<Vec<u8>> = text
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some((digit(high)? * 16 + digit(low)?) as u8),
            _ => None,
        })
        .collect();
    let digest = bytes.and_then(|bytes| Digest::try_from(bytes).ok());
    digest
        .ok_or_else(|| "its digest is not one: 64 hexadecimal digits of fs-verity's SHA-256".into())
}
