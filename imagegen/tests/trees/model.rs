//! Trees in memory, as sources of images: what a test means, said once, so that neither
//! making nor judging an image of millions of entries needs a file system.
//!
//! Everything not said is filled in from the object's number, never with zeroes: owners,
//! modes and times differ from object to object, so that a mix-up shows.

use imagegen::tree::{
    Bytes, Content, Detail, Device, Event, Kind, Links, Meta, Node, Source, Time, TreeError, Walk,
    Xattr,
};
use sha2::{Digest, Sha256};
use std::collections::btree_map::{self, BTreeMap};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Number of an object in its tree; the root is 0.
pub(crate) type Id = usize;

/// A tree of files.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) objects: Vec<Object>,
}

/// Something with an inode.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) what: What,
    pub(crate) meta: Meta,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Names it is said to have beyond those in the tree.
    pub(crate) outside: u32,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Directory(BTreeMap<Vec<u8>, Id>),
    File(Data),
    Symlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
}

/// A file's contents; where data lies, its bytes are those of [`bytes_at`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Data {
    pub(crate) size: u64,
    pub(crate) ranges: Vec<Range<u64>>,
    pub(crate) seed: u64,
}

pub(crate) const ROOT: Id = 0;

/// After so many bytes contents repeat: prime, so that no two blocks near each other are
/// equal.
const PERIOD: u64 = 1_048_573;
/// A longer range of data cannot be had.
pub(crate) const LONGEST: u64 = 64 << 20;

fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let mut state = 0x5eed_u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as u8 | 1 // never zero: a hole cannot pass for data
        };
        (0..PERIOD).map(|_| next()).collect()
    })
}

/// A file of [`PERIOD`] + [`LONGEST`] bytes from which contents are copied.
fn pool() -> Arc<File> {
    static POOL: OnceLock<Arc<File>> = OnceLock::new();
    let make = || {
        let file = tempfile::tempfile().unwrap();
        let mut out = BufWriter::new(&file);
        for _ in 0..=LONGEST / PERIOD + 1 {
            out.write_all(pattern()).unwrap();
        }
        drop(out);
        Arc::new(file)
    };
    Arc::clone(POOL.get_or_init(make))
}

impl Data {
    /// Where in the pool the byte at `offset` lies.
    fn source(&self, offset: u64) -> u64 {
        (self.seed.wrapping_mul(7919).wrapping_add(offset)) % PERIOD
    }

    /// Adds the bytes of a range of data to `to`.
    pub(crate) fn bytes(&self, range: Range<u64>, to: &mut Vec<u8>) {
        let pattern = pattern();
        let mut at = self.source(range.start) as usize;
        let mut left = (range.end - range.start) as usize;
        while left > 0 {
            let now = left.min(pattern.len() - at);
            to.extend_from_slice(&pattern[at..at + now]);
            (at, left) = (0, left - now);
        }
    }

    fn content(&self, detail: Detail) -> Content {
        let length: u64 = self
            .ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum();
        let mut content = Content {
            size: self.size,
            data: self.ranges.clone(),
            bytes: Bytes::Unread,
            digests: Vec::new(),
        };
        match detail {
            Detail::Names => content.data = Vec::from_iter((length > 0).then_some(0..length)),
            Detail::Layout => {}
            Detail::Contents | Detail::Places => content.bytes = self.read(length),
            Detail::Digests => {
                content.bytes = self.read(length);
                content.digests = self.digests();
            }
        }
        content
    }

    /// Small files come with their bytes, others as places in the pool; which of the two
    /// is drawn in between.
    fn read(&self, length: u64) -> Bytes {
        if length < 4096 || (length < 1 << 20 && self.seed.is_multiple_of(2)) {
            let mut bytes = Vec::with_capacity(length as usize);
            for range in &self.ranges {
                self.bytes(range.clone(), &mut bytes);
            }
            return Bytes::Read(bytes);
        }
        Bytes::At {
            file: pool(),
            path: Arc::from(&b"pool"[..]),
            offsets: self
                .ranges
                .iter()
                .map(|range| self.source(range.start))
                .collect(),
            written: None,
        }
    }

    fn digests(&self) -> Vec<[u8; 16]> {
        let blocks = rounded(&self.ranges, 4096)
            .into_iter()
            .flat_map(|range| range.step_by(4096));
        let digest = |at| {
            let mut block = vec![0; 4096];
            for (offset, byte) in block.iter_mut().enumerate() {
                *byte = self.byte(at + offset as u64);
            }
            Sha256::digest(&block)[..16].try_into().unwrap()
        };
        blocks.map(digest).collect()
    }

    /// The byte at `at`, zero in holes and beyond the end.
    pub(crate) fn byte(&self, at: u64) -> u8 {
        let after = self.ranges.partition_point(|range| range.end <= at);
        match self.ranges.get(after) {
            Some(range) if range.start <= at => pattern()[self.source(at) as usize],
            _ => 0,
        }
    }
}

/// Ranges grown to multiples of `unit`, those that then touch joined.
pub(crate) fn rounded(ranges: &[Range<u64>], unit: u64) -> Vec<Range<u64>> {
    let mut grown: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        let (begin, end) = (range.start / unit * unit, range.end.div_ceil(unit) * unit);
        match grown.last_mut() {
            Some(last) if last.end >= begin => last.end = last.end.max(end),
            _ => grown.push(begin..end),
        }
    }
    grown
}

impl Tree {
    /// Nothing but a root.
    pub(crate) fn new() -> Self {
        let mut tree = Self {
            objects: Vec::new(),
        };
        tree.add(What::Directory(BTreeMap::new()));
        tree
    }

    fn add(&mut self, what: What) -> Id {
        let id = self.objects.len();
        self.objects.push(Object {
            what,
            meta: meta(id),
            xattrs: BTreeMap::new(),
            outside: 0,
        });
        id
    }

    fn put(&mut self, parent: Id, name: &[u8], what: What) -> Id {
        let id = self.add(what);
        self.link(parent, name, id);
        id
    }

    pub(crate) fn entries(&self, directory: Id) -> &BTreeMap<Vec<u8>, Id> {
        match &self.objects[directory].what {
            What::Directory(entries) => entries,
            other => panic!("{other:?} is no directory"),
        }
    }

    /// A further name.
    pub(crate) fn link(&mut self, parent: Id, name: impl AsRef<[u8]>, id: Id) {
        let name = name.as_ref();
        match &mut self.objects[parent].what {
            What::Directory(entries) => {
                let before = entries.insert(name.to_vec(), id);
                assert!(before.is_none(), "{} twice", name.escape_ascii());
            }
            other => panic!("{other:?} is no directory"),
        }
    }

    pub(crate) fn dir(&mut self, parent: Id, name: impl AsRef<[u8]>) -> Id {
        self.put(parent, name.as_ref(), What::Directory(BTreeMap::new()))
    }

    pub(crate) fn file(&mut self, parent: Id, name: impl AsRef<[u8]>, size: u64) -> Id {
        let ranges = Vec::from_iter((size > 0).then_some(0..size));
        self.sparse(parent, name, size, ranges)
    }

    pub(crate) fn sparse(
        &mut self,
        parent: Id,
        name: impl AsRef<[u8]>,
        size: u64,
        ranges: Vec<Range<u64>>,
    ) -> Id {
        assert!(
            ranges
                .iter()
                .all(|range| range.end <= size && range.end - range.start <= LONGEST)
        );
        let seed = self.objects.len() as u64;
        self.put(
            parent,
            name.as_ref(),
            What::File(Data { size, ranges, seed }),
        )
    }

    pub(crate) fn symlink(
        &mut self,
        parent: Id,
        name: impl AsRef<[u8]>,
        target: impl AsRef<[u8]>,
    ) -> Id {
        self.put(
            parent,
            name.as_ref(),
            What::Symlink(target.as_ref().to_vec()),
        )
    }

    pub(crate) fn special(&mut self, parent: Id, name: impl AsRef<[u8]>, what: What) -> Id {
        self.put(parent, name.as_ref(), what)
    }

    pub(crate) fn xattr(&mut self, id: Id, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let xattrs = &mut self.objects[id].xattrs;
        xattrs.insert(name.as_ref().to_vec(), value.as_ref().to_vec());
    }

    /// Every name: the path without a leading slash, and what it is a name of, in the order
    /// of a walk.
    pub(crate) fn paths(&self) -> Vec<(Vec<u8>, Id)> {
        let mut paths = vec![(Vec::new(), ROOT)];
        let mut stack = vec![(Vec::new(), self.entries(ROOT).iter())];
        while let Some((prefix, entries)) = stack.last_mut() {
            let Some((name, &id)) = entries.next() else {
                stack.pop();
                continue;
            };
            let mut path = prefix.clone();
            path.extend_from_slice(name);
            paths.push((path.clone(), id));
            if let What::Directory(children) = &self.objects[id].what {
                path.push(b'/');
                stack.push((path, children.iter()));
            }
        }
        paths
    }

    /// Names of every object that is no directory.
    fn names(&self) -> HashMap<Id, u32> {
        let mut names = HashMap::new();
        for object in &self.objects {
            if let What::Directory(entries) = &object.what {
                entries
                    .values()
                    .for_each(|id| *names.entry(*id).or_insert(0) += 1);
            }
        }
        names
    }
}

fn meta(id: Id) -> Meta {
    let mixed = (id as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29);
    Meta {
        mode: (mixed & 0o7777) as u16,
        uid: (mixed >> 12) as u32 & 0xf_ffff,
        gid: (mixed >> 20) as u32 & 0xfff_ffff,
        project: if id.is_multiple_of(5) {
            (mixed >> 7) as u32 & 0x1f_ffff
        } else {
            0
        },
        mtime: time(mixed),
        ctime: time(mixed ^ 0xabcd_ef01),
    }
}

/// Within what 32 bits of seconds hold, so that every feature set keeps it.
fn time(mixed: u64) -> Time {
    Time {
        seconds: i64::from((mixed >> 16) as u32 as i32),
        nanoseconds: (mixed % 1_000_000_000) as u32,
    }
}

impl Source for Tree {
    fn walk(&self, detail: Detail) -> Result<Walk<'_>, TreeError> {
        Ok(Box::new(Walking {
            tree: self,
            detail,
            names: self.names(),
            seen: HashSet::new(),
            stack: Vec::new(),
            begun: false,
        }))
    }
}

/// A walk, directories open on the path stacked.
struct Walking<'a> {
    tree: &'a Tree,
    detail: Detail,
    names: HashMap<Id, u32>,
    seen: HashSet<Id>,
    stack: Vec<btree_map::Iter<'a, Vec<u8>, Id>>,
    begun: bool,
}

impl Walking<'_> {
    fn node(&self, name: &[u8], id: Id, kind: Kind) -> Node {
        let object = &self.tree.objects[id];
        let names = self.names.get(&id).copied().unwrap_or(0) + object.outside;
        let directory = matches!(kind, Kind::Directory);
        let xattr = |(name, value): (&Vec<u8>, &Vec<u8>)| Xattr {
            name: name.as_slice().into(),
            value: value.as_slice().into(),
        };
        Node {
            name: name.into(),
            kind,
            meta: object.meta,
            xattrs: match self.detail {
                Detail::Names => Vec::new(),
                _ => object.xattrs.iter().map(xattr).collect(),
            },
            links: (!directory && names > 1).then_some(Links {
                id: id as u64,
                at_most: names,
            }),
        }
    }

    fn event(&mut self, name: &[u8], id: Id) -> Event {
        let tree = self.tree;
        let device = |major, minor| Device { major, minor };
        let kind = match &tree.objects[id].what {
            What::Directory(entries) => {
                self.stack.push(entries.iter());
                return Event::Enter(self.node(name, id, Kind::Directory));
            }
            _ if self.names[&id] > 1 && !self.seen.insert(id) => {
                return Event::Link {
                    name: name.into(),
                    id: id as u64,
                };
            }
            What::File(data) => Kind::File(data.content(self.detail)),
            What::Symlink(_) if self.detail == Detail::Names => Kind::Symlink(Box::default()),
            What::Symlink(target) => Kind::Symlink(target.as_slice().into()),
            What::Char(major, minor) => Kind::CharDevice(device(*major, *minor)),
            What::Block(major, minor) => Kind::BlockDevice(device(*major, *minor)),
            What::Fifo => Kind::Fifo,
            What::Socket => Kind::Socket,
        };
        Event::Node(self.node(name, id, kind))
    }
}

impl Iterator for Walking<'_> {
    type Item = Result<Event, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.begun {
            self.begun = true;
            return Some(Ok(self.event(b"", ROOT)));
        }
        let next = self.stack.last_mut()?.next();
        Some(Ok(match next {
            Some((name, &id)) => self.event(name, id),
            None => {
                self.stack.pop();
                Event::Leave
            }
        }))
    }
}
