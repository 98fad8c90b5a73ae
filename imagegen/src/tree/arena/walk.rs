//! The walk through a tree in memory.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustc_hash::FxHashSet;
use rustix::fs::{Mode, OFlags, openat};

use super::{Arena, Body, Entry, NONE, Number, ROOT, Text, name_at};
use crate::tree::content::{self, SMALL, digests};
use crate::tree::{
    Bytes, Content, Detail, Event, Kind, Links, Meta, Node, Source, Time, TreeError, Walk,
};

/// A tree that is complete.
#[derive(Debug)]
pub(in crate::tree) struct Tree {
    arena: Arena,
    /// Entries by parent, then name.
    sorted: Vec<u32>,
}

impl Tree {
    pub(super) fn new(mut arena: Arena) -> Self {
        arena.index = hashbrown::HashTable::new();
        let live = |&entry: &u32| arena.entries[entry as usize].object != NONE;
        let mut sorted: Vec<u32> = (0..arena.entries.len() as u32).filter(live).collect();
        let key = |entry: &u32| {
            let Entry { parent, name, .. } = arena.entries[*entry as usize];
            (parent, name_at(&arena.names, name))
        };
        sorted.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        Self { arena, sorted }
    }

    /// Where in `sorted` what is in a directory stands.
    fn children(&self, directory: Number) -> Range<usize> {
        let parent = |entry: &u32| self.arena.entries[*entry as usize].parent;
        let begin = self
            .sorted
            .partition_point(|entry| parent(entry) < directory);
        let rest = &self.sorted[begin..];
        begin..begin + rest.partition_point(|entry| parent(entry) == directory)
    }
}

impl Source for Tree {
    fn walk(&self, detail: Detail) -> Result<Walk<'_>, TreeError> {
        Ok(Box::new(Steps {
            tree: self,
            detail,
            levels: Vec::new(),
            path: Vec::new(),
            seen: FxHashSet::default(),
            begun: false,
            ended: false,
        }))
    }
}

struct Steps<'a> {
    tree: &'a Tree,
    detail: Detail,
    /// What is left of each directory on the path.
    levels: Vec<Range<usize>>,
    /// Names on the path, for errors.
    path: Vec<&'a [u8]>,
    /// Objects with several names that came.
    seen: FxHashSet<Number>,
    begun: bool,
    ended: bool,
}

impl<'a> Steps<'a> {
    fn step(&mut self) -> Result<Option<Event>, TreeError> {
        if !self.begun {
            self.begun = true;
            return self.object(b"", ROOT).map(Some);
        }
        let Some(level) = self.levels.last_mut() else {
            return Ok(None);
        };
        let Some(next) = level.next() else {
            self.levels.pop();
            self.path.pop();
            return Ok(Some(Event::Leave));
        };
        let arena = &self.tree.arena;
        let Entry { name, object, .. } = arena.entries[self.tree.sorted[next] as usize];
        let name = name_at(&arena.names, name);
        if arena.objects[object as usize].links > 1 && !self.seen.insert(object) {
            let (name, id) = (name.into(), object.into());
            return Ok(Some(Event::Link { name, id }));
        }
        self.object(name, object).map(Some)
    }

    fn object(&mut self, name: &'a [u8], number: Number) -> Result<Event, TreeError> {
        let arena = &self.tree.arena;
        let object = &arena.objects[number as usize];
        if let Body::Directory = object.body {
            self.levels.push(self.tree.children(number));
            self.path.push(name);
            return Ok(Event::Enter(self.node(name, number, Kind::Directory)));
        }
        let kind = match object.body {
            Body::Symlink(_) if self.detail == Detail::Names => Kind::Symlink(Box::default()),
            Body::Symlink(text) => Kind::Symlink(self.text(text).into()),
            Body::CharDevice(device) => Kind::CharDevice(device),
            Body::BlockDevice(device) => Kind::BlockDevice(device),
            Body::Fifo => Kind::Fifo,
            Body::Socket => Kind::Socket,
            body => Kind::File(self.content(body, name)?),
        };
        Ok(Event::Node(self.node(name, number, kind)))
    }

    fn node(&self, name: &[u8], number: Number, kind: Kind) -> Node {
        let arena = &self.tree.arena;
        let object = &arena.objects[number as usize];
        let owner = arena.owners[object.owner as usize];
        let (seconds, nanoseconds) = object.mtime;
        let mtime = Time {
            seconds,
            nanoseconds,
        };
        let ctime = arena.ctimes.get(object.ctime as usize);
        let linked = object.links > 1 && !matches!(kind, Kind::Directory);
        Node {
            name: name.into(),
            kind,
            meta: Meta {
                mode: owner.mode,
                uid: owner.uid,
                gid: owner.gid,
                project: owner.project,
                mtime,
                ctime: ctime.copied().unwrap_or(mtime),
            },
            xattrs: match self.detail {
                Detail::Names => Vec::new(),
                _ => arena.xattrs[object.xattrs as usize].to_vec(),
            },
            links: linked.then(|| Links {
                id: number.into(),
                at_most: object.links,
            }),
        }
    }

    fn text(&self, text: Text) -> &'a [u8] {
        let at = text.at as usize;
        &self.tree.arena.texts[at..at + text.length as usize]
    }

    fn content(&self, body: Body, name: &[u8]) -> Result<Content, TreeError> {
        let (size, data, offsets) = self.layout(body);
        if self.detail == Detail::Names {
            let length = data.iter().map(|range| range.end - range.start).sum();
            return Ok(unread(size, content::whole(length)));
        }
        if self.detail == Detail::Layout || data.is_empty() {
            let mut content = unread(size, data);
            if self.detail != Detail::Layout {
                content.bytes = Bytes::Read(Vec::new());
            }
            return Ok(content);
        }
        let hash = self.detail == Detail::Digests;
        let held: u64 = data.iter().map(|range| range.end - range.start).sum();
        let (bytes, digests) = match body {
            Body::Inline(text) => {
                let bytes = self.text(text).to_vec();
                let digests = hash.then(|| digests::of_bytes(&data, &bytes));
                (Bytes::Read(bytes), digests)
            }
            _ => {
                let (file, path) = self.backing(body, name, size)?;
                if held <= SMALL && self.detail != Detail::Places {
                    let bytes = content::read_at(&file, &data, &offsets, &path)?;
                    let digests = hash.then(|| digests::of_bytes(&data, &bytes));
                    (Bytes::Read(bytes), digests)
                } else {
                    let written = content::written(&file).ok();
                    let digests = match hash {
                        true => Some(digests::of_file(&file, &data, &offsets, &path)?),
                        false => None,
                    };
                    let bytes = Bytes::At {
                        file,
                        path,
                        offsets,
                        written,
                    };
                    (bytes, digests)
                }
            }
        };
        let digests = digests.unwrap_or_default();
        Ok(Content {
            size,
            data,
            bytes,
            digests,
        })
    }

    /// Size, ranges of data, and where each lies in what holds it.
    fn layout(&self, body: Body) -> (u64, Vec<Range<u64>>, Vec<u64>) {
        let whole = |size, at| (size, content::whole(size), vec![at]);
        match body {
            Body::File { size, at, .. } => whole(size, at),
            Body::Stored { size, .. } => whole(size, 0),
            Body::Inline(text) => whole(text.length.into(), 0),
            Body::Sparse(index) => {
                let sparse = &self.tree.arena.sparse[index as usize];
                let (data, offsets) = sparse.pieces.iter().cloned().unzip();
                (sparse.size, data, offsets)
            }
            _ => whole(0, 0),
        }
    }

    /// What holds the bytes of `body`, and what that is called.
    fn backing(
        &self,
        body: Body,
        name: &[u8],
        size: u64,
    ) -> Result<(Arc<File>, Arc<[u8]>), TreeError> {
        let arena = &self.tree.arena;
        let archive = match body {
            Body::File { archive, .. } => Some(archive),
            Body::Sparse(index) => Some(arena.sparse[index as usize].archive),
            _ => None,
        };
        if let Some((file, path)) = archive.and_then(|index| arena.archives.get(index as usize)) {
            return Ok((Arc::clone(file), Arc::clone(path)));
        }
        let mine = self.path_of(name);
        let (Body::Stored { path, .. }, Some((store, store_path))) = (body, &arena.store) else {
            return Err(TreeError::invalid(
                &mine,
                "its contents are in no archive or store",
            ));
        };
        let relative = self.text(path);
        let path = [store_path, &b"/"[..], relative].concat();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let opened = openat(store.as_fd(), relative, flags, Mode::empty());
        let file = File::from(opened.map_err(|cause| {
            let cause = format!("contents of {}: {cause}", mine.escape_ascii());
            TreeError::io(&path, "open", std::io::Error::other(cause))
        })?);
        let about = file
            .metadata()
            .map_err(|cause| TreeError::io(&path, "stat", cause))?;
        if !about.is_file() || about.len() != size {
            let what = format!(
                "contents of {} should be a file of {size} bytes, this has {}",
                mine.escape_ascii(),
                about.len()
            );
            return Err(TreeError::invalid(&path, what));
        }
        Ok((Arc::new(file), path.into()))
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        [&self.path.join(&b'/'), &b"/"[..], name].concat()
    }
}

fn unread(size: u64, data: Vec<Range<u64>>) -> Content {
    Content {
        size,
        data,
        bytes: Bytes::Unread,
        digests: Vec::new(),
    }
}

impl Iterator for Steps<'_> {
    type Item = Result<Event, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}
