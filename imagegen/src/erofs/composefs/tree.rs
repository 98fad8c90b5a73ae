//! The tree that goes into an image, all of it in memory but for contents.
//!
//! Objects are numbered in the order in which they came; 0 is the root. A name that is not
//! an object's first is a further name of it.

use super::ComposefsError;
use crate::tree::{NAME_MAX, Time, Xattr, show};
use std::collections::BTreeMap;

/// Number of an object.
pub(super) type Number = u32;
/// The root's.
pub(super) const ROOT: Number = 0;

/// An fs-verity digest, SHA-256.
pub(super) type Digest = [u8; 32];

/// A tree whose files lie in an object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    objects: Vec<Object>,
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    /// Permission bits.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    /// As the source tells it. What is counted are [`Object::names`].
    pub(super) nlink: u32,
    /// How many names it has in the tree.
    pub(super) names: u32,
    /// Bytes, as the source tells them; of files that many.
    pub(super) size: u64,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) body: Body,
}

/// What an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    Directory(BTreeMap<Box<[u8]>, Entry>),
    /// A file whose bytes are in the image.
    Inline(Box<[u8]>),
    /// A file whose bytes are not.
    External(External),
    Symlink(Box<[u8]>),
    /// Device number as `st_rdev`.
    CharDevice(u32),
    BlockDevice(u32),
    Fifo,
    Socket,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct External {
    /// Path in the object store; by the digest if there is none.
    pub(super) payload: Option<Box<[u8]>>,
    pub(super) digest: Option<Digest>,
    /// The path is the digest's, and not kept.
    pub(super) by_digest: bool,
}

impl External {
    /// A file that lies where its digest says.
    pub(super) fn by_digest(digest: Digest) -> Self {
        Self {
            payload: None,
            digest: Some(digest),
            by_digest: true,
        }
    }

    /// Path in the object store.
    pub(super) fn path(&self) -> Option<Vec<u8>> {
        match (self.by_digest, &self.digest, &self.payload) {
            (true, Some(digest), _) => Some(object_path(digest).into_bytes()),
            (_, _, payload) => payload.as_ref().map(|path| path.to_vec()),
        }
    }
}

/// Where an object of that digest lies in a store.
pub(super) fn object_path(digest: &Digest) -> String {
    let mut path = String::with_capacity(65);
    for (at, byte) in digest.iter().enumerate() {
        if at == 1 {
            path.push('/');
        }
        path.push_str(&format!("{byte:02x}"));
    }
    path
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) object: Number,
    /// Whether it is the name under which the object came.
    pub(super) first: bool,
}

impl Tree {
    /// Of a root alone.
    pub(super) fn new(root: Object) -> Self {
        let objects = vec![root];
        Self { objects }
    }

    /// How many objects there are.
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn object(&self, number: Number) -> Option<&Object> {
        self.objects.get(number as usize)
    }

    pub(super) fn object_mut(&mut self, number: Number) -> Option<&mut Object> {
        self.objects.get_mut(number as usize)
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter()
    }

    pub(super) fn objects_mut(&mut self) -> impl Iterator<Item = &mut Object> {
        self.objects.iter_mut()
    }

    /// What is in a directory.
    pub(super) fn entries(&self, number: Number) -> Option<&BTreeMap<Box<[u8]>, Entry>> {
        match &self.object(number)?.body {
            Body::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    /// Adds an object that has no name yet.
    ///
    /// # Errors
    /// If there are too many.
    pub(super) fn add(&mut self, object: Object) -> Result<Number, String> {
        let number = u32::try_from(self.objects.len())
            .map_err(|_| "the tree has more than 2^32 objects".to_owned())?;
        self.objects.push(object);
        Ok(number)
    }

    /// Gives an object a name in a directory.
    ///
    /// # Errors
    /// If the name cannot be one or is taken, or `parent` is no directory: why.
    pub(super) fn name(&mut self, parent: Number, name: &[u8], entry: Entry) -> Result<(), String> {
        check_name(name)?;
        let Some(Object {
            body: Body::Directory(entries),
            ..
        }) = self.object_mut(parent)
        else {
            return Err("its path leads through what is no directory".into());
        };
        if entries.contains_key(name) {
            return Err("there is something of that path before it".into());
        }
        entries.insert(name.into(), entry);
        if let Some(object) = self.object_mut(entry.object) {
            object.names += 1;
        }
        Ok(())
    }

    /// What lies at these names.
    pub(super) fn find(&self, names: &[&[u8]]) -> Option<Number> {
        names.iter().try_fold(ROOT, |at, name| {
            self.entries(at)?.get(*name).map(|entry| entry.object)
        })
    }

    /// A path of an object, for a person.
    pub(super) fn path_of(&self, number: Number) -> String {
        let mut parents = vec![None; self.len()];
        for parent in 0..self.len() as Number {
            for (name, entry) in self.entries(parent).into_iter().flatten() {
                if entry.first
                    && let Some(place) = parents.get_mut(entry.object as usize)
                {
                    *place = Some((parent, name));
                }
            }
        }
        let mut names = Vec::new();
        let mut at = number;
        while let Some(Some((parent, name))) = parents.get(at as usize) {
            names.push(&***name);
            at = *parent;
        }
        names.reverse();
        format!("/{}", show(&names.join(&b'/')))
    }

    /// That an object cannot be in an image.
    pub(super) fn forbidden(&self, number: Number, reason: impl Into<String>) -> ComposefsError {
        ComposefsError::Forbidden {
            path: self.path_of(number),
            reason: reason.into(),
        }
    }
}

fn check_name(name: &[u8]) -> Result<(), String> {
    let length = name.len();
    match name {
        b"" | b"." | b".." => Err("its name cannot be one".into()),
        _ if length > NAME_MAX => Err(format!(
            "its name has {length} bytes, at most {NAME_MAX} fit"
        )),
        _ if name.contains(&0) || name.contains(&b'/') => Err("its name cannot be one".into()),
        _ => Ok(()),
    }
}
