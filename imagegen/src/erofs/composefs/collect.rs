//! A tree from any source: its files hashed, and kept in an object store if there is one.

use super::ComposefsError;
use super::measure::{Job, Shared, serve};
use super::store::{Store, source_failed};
use super::tree::{Body, Digest, Entry, External, Number, Object, Tree};
use crate::medium::read_part;
use crate::tree::{Detail, Device, Event, Kind, Node, Progress, Source, TreeError};
use crossbeam_channel::{Sender, bounded};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// Files up to this size are kept in the image (`LCFS_RECOMMENDED_INLINE_CONTENT_MAX`).
const INLINE: u64 = 64;
/// Files that may wait for each thread.
const WAITING: usize = 2;
/// More threads than this wait for what they read.
const MOST_THREADS: usize = 64;

/// What becomes of objects with several names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardLinks {
    /// They stay such.
    Keep,
    /// Every name gets an object of its own, as `mkcomposefs` does with a directory.
    Split,
}

/// How a tree is collected.
#[derive(Debug, Clone, Copy)]
pub struct Collect<'a> {
    /// What becomes of hard links.
    pub hard_links: HardLinks,
    /// Where contents are kept; nowhere if not given.
    pub store: Option<&'a Store>,
    /// Threads that hash; 0 for as many as there are processors.
    pub threads: usize,
}

/// The tree of a source, with the digests of its files.
///
/// # Errors
/// If it cannot be read or changes meanwhile, or the store cannot be written.
pub fn collect(
    source: &dyn Source,
    how: &Collect<'_>,
    progress: &Progress,
) -> Result<Tree, ComposefsError> {
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = match how.threads {
        0 => processors(),
        given => given,
    };
    let threads = threads.min(MOST_THREADS);
    let shared = Shared::default();
    let mut builder = std::thread::scope(|scope| {
        let (jobs, work) = bounded(WAITING * threads);
        for _ in 0..threads {
            let (work, shared) = (work.clone(), &shared);
            scope.spawn(move || serve(&work, shared, how.store));
        }
        drop(work);
        let mut builder = Builder::new(how.hard_links, &shared, jobs);
        for event in source.walk(Detail::Contents)? {
            progress.add(&event);
            builder.take(event?)?;
        }
        Ok::<_, ComposefsError>(builder.end())
    })?;
    let found = shared.finish()?;
    builder.digests(found);
    builder.finish()
}

/// Puts a tree together from events.
struct Builder<'a> {
    hard_links: HardLinks,
    shared: &'a Shared,
    jobs: Sender<Job>,
    built: Built,
}

/// As far as it is.
#[derive(Default)]
struct Built {
    tree: Option<Tree>,
    /// The directories on the path.
    open: Vec<Number>,
    /// Objects with several names, by their identity.
    linked: FxHashMap<u64, Number>,
    /// Objects made in place of further names, and of what.
    copies: Vec<(Number, Number)>,
}

impl<'a> Builder<'a> {
    fn new(hard_links: HardLinks, shared: &'a Shared, jobs: Sender<Job>) -> Self {
        Self {
            hard_links,
            shared,
            jobs,
            built: Built::default(),
        }
    }

    fn take(&mut self, event: Event) -> Result<(), ComposefsError> {
        if let Some(failure) = self.shared.failure() {
            return Err(failure);
        }
        match event {
            Event::Enter(node) => {
                let number = self.node(node)?;
                self.built.open.push(number);
            }
            Event::Node(node) => drop(self.node(node)?),
            Event::Link { name, id } => {
                let named = self.built.link(&name, id, self.hard_links);
                named.map_err(|reason| TreeError::invalid(&name, reason))?;
            }
            Event::Leave => drop(self.built.open.pop()),
        }
        Ok(())
    }

    fn node(&mut self, node: Node) -> Result<Number, ComposefsError> {
        let mut hashed = None;
        let mut size = 0;
        let body = match node.kind {
            Kind::Directory => Body::Directory(BTreeMap::new()),
            Kind::File(content) if content.size <= INLINE => {
                size = content.size;
                let bytes = read_part(&content, &(0..size)).map_err(source_failed)?;
                Body::Inline(bytes.into())
            }
            Kind::File(content) => {
                size = content.size;
                hashed = Some(content);
                Body::External(External::default())
            }
            Kind::Symlink(target) => {
                size = target.len() as u64;
                Body::Symlink(target)
            }
            Kind::CharDevice(device) => Body::CharDevice(number_of(device)),
            Kind::BlockDevice(device) => Body::BlockDevice(number_of(device)),
            Kind::Fifo => Body::Fifo,
            Kind::Socket => Body::Socket,
        };
        let object = Object {
            mode: node.meta.mode,
            uid: node.meta.uid,
            gid: node.meta.gid,
            mtime: node.meta.mtime,
            nlink: 1,
            names: 0,
            size,
            xattrs: node.xattrs,
            body,
        };
        let number = self.built.put(&node.name, object);
        let number = number.map_err(|reason| TreeError::invalid(&node.name, reason))?;
        if let Some(links) = node.links {
            self.built.linked.insert(links.id, number);
        }
        if let Some(content) = hashed {
            let object = number;
            // It fails only if all threads panicked, which the scope passes on.
            let _ = self.jobs.send(Job { object, content });
        }
        Ok(number)
    }

    /// Lets the threads end.
    fn end(self) -> Built {
        self.built
    }
}

impl Built {
    fn put(&mut self, name: &[u8], object: Object) -> Result<Number, String> {
        let (Some(tree), Some(&parent)) = (&mut self.tree, self.open.last()) else {
            self.tree = Some(Tree::new(object));
            return Ok(super::tree::ROOT);
        };
        let object = tree.add(object)?;
        let first = true;
        tree.name(parent, name, Entry { object, first })?;
        Ok(object)
    }

    fn link(&mut self, name: &[u8], id: u64, hard_links: HardLinks) -> Result<(), String> {
        let object = self.linked.get(&id).copied();
        let (Some(tree), Some(&parent), Some(object)) = (&mut self.tree, self.open.last(), object)
        else {
            return Err("a further name of what did not come".into());
        };
        let entry = match hard_links {
            HardLinks::Keep => Entry {
                object,
                first: false,
            },
            HardLinks::Split => {
                let Some(copy) = tree.object(object).cloned() else {
                    return Err("a further name of what did not come".into());
                };
                let copy = tree.add(Object { names: 0, ..copy })?;
                self.copies.push((copy, object));
                Entry {
                    object: copy,
                    first: true,
                }
            }
        };
        tree.name(parent, name, entry)
    }

    fn digests(&mut self, found: Vec<(Number, Digest)>) {
        let Some(tree) = &mut self.tree else {
            return;
        };
        for (number, digest) in found {
            if let Some(object) = tree.object_mut(number) {
                object.body = Body::External(External::by_digest(digest));
            }
        }
        for &(copy, original) in &self.copies {
            let body = tree.object(original).map(|object| object.body.clone());
            if let (Some(body), Some(object)) = (body, tree.object_mut(copy)) {
                object.body = body;
            }
        }
    }

    fn finish(self) -> Result<Tree, ComposefsError> {
        let mut tree = self
            .tree
            .ok_or_else(|| TreeError::invalid(b"", "a source without root"))?;
        tree.objects_mut()
            .for_each(|object| object.nlink = object.names.max(1));
        Ok(tree)
    }
}

/// As `st_rdev` holds it in 32 bits.
fn number_of(device: Device) -> u32 {
    let Device { major, minor } = device;
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}
