//! A tree in memory, into which what archives hold is put entry by entry.
//!
//! It is compact: a name costs its bytes and about 25 more, an object about 60; contents
//! are references into archives and object stores. Nothing is ever taken out: what is
//! replaced is no longer reached from the root. So a directory that becomes empty gets a
//! new object, and the names in the old one go with it.
//!
//! [`Arena`] is filled, [`Tree`] is walked.

mod walk;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::{FxHashMap, FxHasher};

use super::{Device, Meta, Time, Xattr, path};

pub(super) use walk::Tree;

/// Index of an object.
type Number = u32;
/// The root's.
const ROOT: Number = 0;
/// Of a name that was removed.
const NONE: Number = u32::MAX;

/// A name in a directory.
#[derive(Debug)]
struct Entry {
    parent: Number,
    /// Where in [`Arena::names`] its length stands, and after that itself.
    name: u32,
    object: Number,
}

/// What an object is, and where its contents are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body {
    Directory,
    /// `size` bytes at `at` of an archive.
    File {
        archive: u32,
        size: u64,
        at: u64,
    },
    /// Index into [`Arena::sparse`].
    Sparse(u32),
    /// A file whose bytes are [`Arena::texts`].
    Inline(Text),
    /// A file of this size in the store of objects, by its path there.
    Stored {
        size: u64,
        path: Text,
    },
    Symlink(Text),
    CharDevice(Device),
    BlockDevice(Device),
    Fifo,
    Socket,
}

/// A stretch of [`Arena::texts`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Text {
    at: u32,
    length: u32,
}

/// A file of which only some ranges are in an archive.
#[derive(Debug)]
pub(super) struct Sparse {
    pub(super) archive: u32,
    pub(super) size: u64,
    /// Ranges of the file, and where in the archive the bytes of each begin.
    pub(super) pieces: Vec<(Range<u64>, u64)>,
}

/// Owner and permissions: few different ones in a tree of many objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Owner {
    mode: u16,
    uid: u32,
    gid: u32,
    project: u32,
}

#[derive(Debug)]
struct Object {
    body: Body,
    mtime: (i64, u32),
    /// Index into [`Arena::owners`].
    owner: u32,
    /// Index into [`Arena::ctimes`], or that it is as `mtime`.
    ctime: u32,
    /// Index into [`Arena::xattrs`]; 0 for none.
    xattrs: u32,
    /// How many names it has or once had.
    links: u32,
}

/// What shall happen to something on the way to a new object that is no directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnTheWay {
    /// It is an error.
    Refuse,
    /// A directory takes its place.
    Replace,
}

/// A tree that is being put together.
#[derive(Debug)]
pub(super) struct Arena {
    entries: Vec<Entry>,
    objects: Vec<Object>,
    /// Length in a byte, then the bytes, name after name.
    names: Vec<u8>,
    /// Entries by parent and name.
    index: HashTable<u32>,
    texts: Vec<u8>,
    owners: Vec<Owner>,
    owner_numbers: FxHashMap<Owner, u32>,
    ctimes: Vec<Time>,
    xattrs: Vec<Box<[Xattr]>>,
    sparse: Vec<Sparse>,
    archives: Vec<(Arc<File>, Arc<[u8]>)>,
    /// Where [`Body::Stored`] lie, and the path of that.
    store: Option<(OwnedFd, Box<[u8]>)>,
}

/// What a directory is that nobody described.
pub(super) const UNDESCRIBED: Meta = Meta {
    mode: 0o755,
    uid: 0,
    gid: 0,
    project: 0,
    mtime: EPOCH,
    ctime: EPOCH,
};

const EPOCH: Time = Time {
    seconds: 0,
    nanoseconds: 0,
};

impl Arena {
    /// A tree of a root alone.
    pub(super) fn new() -> Self {
        let mut arena = Self {
            entries: Vec::new(),
            objects: Vec::new(),
            names: Vec::new(),
            index: HashTable::new(),
            texts: Vec::new(),
            owners: Vec::new(),
            owner_numbers: FxHashMap::default(),
            ctimes: Vec::new(),
            xattrs: vec![Box::default()],
            sparse: Vec::new(),
            archives: Vec::new(),
            store: None,
        };
        // The first object always fits.
        let _ = arena.object(UNDESCRIBED, Vec::new(), Body::Directory);
        arena
    }

    /// Adds an archive for [`Body::File`] to lie in, `path` being what it is called.
    pub(super) fn archive(&mut self, file: Arc<File>, path: &[u8]) -> u32 {
        self.archives.push((file, path.into()));
        (self.archives.len() - 1) as u32
    }

    /// Says where [`Body::Stored`] lie.
    pub(super) fn store(&mut self, directory: OwnedFd, path: &[u8]) {
        self.store = Some((directory, path.into()));
    }

    /// Keeps `bytes` for a [`Body`] to name.
    pub(super) fn text(&mut self, bytes: &[u8]) -> Result<Text, String> {
        let at = index(self.texts.len())?;
        let length = index(bytes.len())?;
        self.texts.extend_from_slice(bytes);
        Ok(Text { at, length })
    }

    /// Keeps the pieces of a sparse file.
    pub(super) fn sparse(&mut self, sparse: Sparse) -> Result<Body, String> {
        self.sparse.push(sparse);
        Ok(Body::Sparse(index(self.sparse.len() - 1)?))
    }

    /// Puts an object at `path`, in place of what is there; a directory that is there
    /// keeps what is in it if the object is one as well. Directories missing on the way
    /// are made.
    ///
    /// # Errors
    /// If the path cannot be, or leads through what is no directory: the reason.
    pub(super) fn put(
        &mut self,
        path: &[u8],
        meta: Meta,
        xattrs: Vec<Xattr>,
        body: Body,
        on_the_way: OnTheWay,
    ) -> Result<(), String> {
        let names = path::names(path)?;
        let Some((name, parents)) = names.split_last() else {
            return match body {
                Body::Directory => self.describe(ROOT, meta, xattrs),
                _ => Err("the root of a tree can be a directory only".into()),
            };
        };
        let parent = self.parent(parents, on_the_way)?;
        let before = self
            .find(parent, name)
            .map(|entry| self.entries[entry as usize].object);
        if let (Some(before), Body::Directory) = (before, body)
            && self.is_directory(before)
        {
            return self.describe(before, meta, xattrs);
        }
        let object = self.object(meta, xattrs, body)?;
        self.name(parent, name, object)
    }

    /// Gives the object at `target` the further name `path`.
    ///
    /// # Errors
    /// If there is none, or it is a directory: the reason.
    pub(super) fn link(
        &mut self,
        path: &[u8],
        target: &[u8],
        on_the_way: OnTheWay,
    ) -> Result<(), String> {
        let shown = super::error::show(target);
        let object = match self.resolve(&path::names(target)?) {
            None => {
                return Err(format!(
                    "a hard link to {shown}, which is not in the source before it"
                ));
            }
            Some(object) if self.is_directory(object) => {
                return Err(format!("a hard link to {shown}, which is a directory"));
            }
            Some(object) => object,
        };
        let names = path::names(path)?;
        let Some((name, parents)) = names.split_last() else {
            return Err("the root of a tree can be a directory only".into());
        };
        let parent = self.parent(parents, on_the_way)?;
        if self.resolve(&names) == Some(object) {
            return Ok(()); // a link to itself, which some archives hold
        }
        let links = &mut self.objects[object as usize].links;
        *links = links.checked_add(1).ok_or("it has too many names")?;
        self.name(parent, name, object)
    }

    /// Removes what is at `path`, if there is something.
    pub(super) fn remove(&mut self, path: &[u8]) -> Result<(), String> {
        let names = path::names(path)?;
        if let Some((name, parents)) = names.split_last()
            && let Some(parent) = self.resolve(parents)
            && let Some(entry) = self.find(parent, name)
        {
            self.entries[entry as usize].object = NONE;
        }
        Ok(())
    }

    /// Empties the directory at `path`, if there is one.
    pub(super) fn empty(&mut self, path: &[u8]) -> Result<(), String> {
        let names = path::names(path)?;
        let Some(object) = self.resolve(&names) else {
            return Ok(());
        };
        if !self.is_directory(object) {
            return Ok(());
        }
        let Some((name, parents)) = names.split_last() else {
            for entry in self.entries.iter_mut().filter(|entry| entry.parent == ROOT) {
                entry.object = NONE;
            }
            return Ok(());
        };
        let Object {
            mtime,
            owner,
            ctime,
            xattrs,
            ..
        } = self.objects[object as usize];
        let fresh = index(self.objects.len())?;
        self.objects.push(Object {
            body: Body::Directory,
            mtime,
            owner,
            ctime,
            xattrs,
            links: 1,
        });
        match self.resolve(parents) {
            Some(parent) => self.name(parent, name, fresh),
            None => Ok(()),
        }
    }

    /// The directory at these names, made as far as it is missing.
    fn parent(&mut self, names: &[&[u8]], on_the_way: OnTheWay) -> Result<Number, String> {
        let mut at = ROOT;
        for name in names {
            at = match self
                .find(at, name)
                .map(|entry| self.entries[entry as usize].object)
            {
                Some(object) if object != NONE && self.is_directory(object) => object,
                Some(object) if object != NONE && on_the_way == OnTheWay::Refuse => {
                    let shown = super::error::show(name);
                    return Err(format!(
                        "its path leads through {shown}, which is no directory"
                    ));
                }
                _ => {
                    let made = self.object(UNDESCRIBED, Vec::new(), Body::Directory)?;
                    self.name(at, name, made)?;
                    made
                }
            };
        }
        Ok(at)
    }

    fn resolve(&self, names: &[&[u8]]) -> Option<Number> {
        let mut at = ROOT;
        for name in names {
            at = self.entries[self.find(at, name)? as usize].object;
            if at == NONE {
                return None;
            }
        }
        Some(at)
    }

    fn is_directory(&self, object: Number) -> bool {
        let object = self.objects.get(object as usize);
        object.is_some_and(|object| matches!(object.body, Body::Directory))
    }

    /// The entry of that name, which may be one that was removed.
    fn find(&self, parent: Number, name: &[u8]) -> Option<u32> {
        let same = |&entry: &u32| {
            let entry = &self.entries[entry as usize];
            entry.parent == parent && name_at(&self.names, entry.name) == name
        };
        self.index.find(hash(parent, name), same).copied()
    }

    fn name(&mut self, parent: Number, name: &[u8], object: Number) -> Result<(), String> {
        if let Some(entry) = self.find(parent, name) {
            self.entries[entry as usize].object = object;
            return Ok(());
        }
        let at = index(self.names.len())?;
        let entry = index(self.entries.len())?;
        let length = u8::try_from(name.len()).map_err(|_| "its name is too long")?;
        self.names.push(length);
        self.names.extend_from_slice(name);
        self.entries.push(Entry {
            parent,
            name: at,
            object,
        });
        let (entries, names) = (&self.entries, &self.names);
        self.index
            .insert_unique(hash(parent, name), entry, |&entry| {
                let entry = &entries[entry as usize];
                hash(entry.parent, name_at(names, entry.name))
            });
        Ok(())
    }

    fn object(&mut self, meta: Meta, xattrs: Vec<Xattr>, body: Body) -> Result<Number, String> {
        let number = index(self.objects.len())?;
        self.objects.push(Object {
            body,
            mtime: (0, 0),
            owner: 0,
            ctime: NONE,
            xattrs: 0,
            links: 1,
        });
        self.describe(number, meta, xattrs)?;
        Ok(number)
    }

    fn describe(&mut self, number: Number, meta: Meta, xattrs: Vec<Xattr>) -> Result<(), String> {
        let Meta {
            mode,
            uid,
            gid,
            project,
            mtime,
            ctime,
        } = meta;
        let owner = Owner {
            mode,
            uid,
            gid,
            project,
        };
        let owner = match self.owner_numbers.get(&owner) {
            Some(&number) => number,
            None => {
                let number = index(self.owners.len())?;
                self.owners.push(owner);
                self.owner_numbers.insert(owner, number);
                number
            }
        };
        let ctime = match ctime == mtime {
            true => NONE,
            false => {
                self.ctimes.push(ctime);
                index(self.ctimes.len() - 1)?
            }
        };
        let xattrs = match xattrs.is_empty() {
            true => 0,
            false => {
                self.xattrs.push(xattrs.into());
                index(self.xattrs.len() - 1)?
            }
        };
        let object = &mut self.objects[number as usize];
        object.mtime = (mtime.seconds, mtime.nanoseconds);
        (object.owner, object.ctime, object.xattrs) = (owner, ctime, xattrs);
        Ok(())
    }

    /// The tree as it is now.
    pub(super) fn finish(self) -> Tree {
        Tree::new(self)
    }
}

/// The name whose length stands at `at`.
fn name_at(names: &[u8], at: u32) -> &[u8] {
    let at = at as usize;
    &names[at + 1..at + 1 + usize::from(names[at])]
}

fn hash(parent: Number, name: &[u8]) -> u64 {
    BuildHasherDefault::<FxHasher>::default().hash_one((parent, name))
}

/// A length as an index, of which the largest is [`NONE`].
fn index(length: usize) -> Result<u32, String> {
    match u32::try_from(length) {
        Ok(index) if index != NONE => Ok(index),
        _ => Err("the source holds more than fits: 4 GiB of names, or 2^32 objects".into()),
    }
}
