//! Finding the exception that covers a chunk: recent table, frozen table, tree.
//!
//! A lookup that lacks a tree node changes nothing: it is parked, the node is
//! read, and the lookup starts again from the top. The parked task keeps the
//! nodes it was given until it advances, so a cache of any size makes progress.
//! A node that cannot be used is read once more; what happens then is in `heal`.

use std::sync::Arc;

use super::{Effect, Effects, Engine, Io, Task};
use crate::block::Block;
use crate::device::IoError;
use crate::format::exception::{Crcs, Place, crcs_of};
use crate::ids::{Tag, VolumeId};
use crate::state::{Entry, MemTable};
use crate::tree::{Cache, Key, Missing, Node, Nodes, Ptr, Root, Shape, Span, neighbours};

/// Most nodes one parked task keeps.
const MAX_PINNED: usize = 64;

/// The trees as of the last durable checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roots {
    pub(crate) exceptions: Root,
    pub(crate) eras: Root,
    pub(crate) volumes: Root,
    pub(crate) snapshots: Root,
    pub(crate) sharing: Root,
}

/// Which tree a node belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TreeId {
    Exceptions,
    Eras,
    Volumes,
    Snapshots,
    Sharing,
}

impl TreeId {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Exceptions => "exception tree",
            Self::Eras => "era tree",
            Self::Volumes => "volume table",
            Self::Snapshots => "snapshot table",
            Self::Sharing => "sharing counters",
        }
    }
}

/// Every tree in the order checkpoints merge them.
pub(crate) const TREES: [TreeId; 5] = [
    TreeId::Exceptions,
    TreeId::Eras,
    TreeId::Volumes,
    TreeId::Snapshots,
    TreeId::Sharing,
];

impl Roots {
    pub(crate) fn get(&self, tree: TreeId) -> &Root {
        match tree {
            TreeId::Exceptions => &self.exceptions,
            TreeId::Eras => &self.eras,
            TreeId::Volumes => &self.volumes,
            TreeId::Snapshots => &self.snapshots,
            TreeId::Sharing => &self.sharing,
        }
    }

    pub(crate) fn set(&mut self, tree: TreeId, root: Root) {
        match tree {
            TreeId::Exceptions => self.exceptions = root,
            TreeId::Eras => self.eras = root,
            TreeId::Volumes => self.volumes = root,
            TreeId::Snapshots => self.snapshots = root,
            TreeId::Sharing => self.sharing = root,
        }
    }
}

/// Nodes a walk may use: the cache and what a parked task was given.
pub(super) struct Known<'a> {
    pub(super) cache: &'a mut Cache,
    pub(super) pinned: &'a [Arc<Node>],
}

impl Nodes for Known<'_> {
    fn get(&mut self, ptr: Ptr, level: u16) -> Option<Arc<Node>> {
        let pinned = self
            .pinned
            .iter()
            .find(|n| n.ptr() == ptr && n.level() == level);
        pinned
            .cloned()
            .or_else(|| self.cache.get(ptr).filter(|n| n.level() == level))
    }
}

/// What covers a snapshot's chunk.
#[derive(Debug)]
pub(super) enum Cover {
    /// This exception (its interval still to be checked against the snapshot).
    Exception { place: Place, crcs: Crcs },
    /// Nothing; the newest older exception has this tag (0: none).
    Origin { pred: Tag },
}

/// A tree node that somebody lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wanting {
    pub(super) tree: TreeId,
    pub(super) ptr: Ptr,
    pub(super) level: u16,
}

/// A node being read, and who waits for it.
#[derive(Debug)]
pub(super) struct Fetch {
    version: u64,
    span: Span,
    /// It is being read for the second time.
    again: bool,
    tasks: Vec<Task>,
}

impl Fetch {
    pub(super) fn awaited_by(&self, task: Task) -> bool {
        self.tasks.contains(&task)
    }
}

impl Engine {
    /// The exception with the smallest tag at or above `tag`, and beside it the
    /// leaf that proves it, if the tree was asked.
    pub(super) fn lookup(
        &mut self,
        volume: VolumeId,
        chunk: u64,
        tag: Tag,
        pinned: &[Arc<Node>],
    ) -> Result<(Cover, Option<Arc<Node>>), Missing> {
        let mut nodes = Known {
            cache: &mut self.cache,
            pinned,
        };
        let frozen = self.checkpoint.frozen.as_ref();
        let mut from = tag;
        let mut pred = None;
        loop {
            let key = Key {
                a: volume.0.into(),
                b: chunk,
                c: from.0,
            };
            let near = neighbours(&self.roots.exceptions, key, &mut nodes)?;
            let floor = near.floor.as_ref().map(|found| Tag(found.key.c));
            let pred = *pred.get_or_insert_with(|| {
                let recent = self.state.recent.floor(volume, chunk, tag);
                let frozen = frozen.and_then(|f| f.floor(volume, chunk, tag));
                recent.max(frozen).max(floor).unwrap_or_default()
            });
            let recent = self.state.recent.ceil(volume, chunk, from);
            let frozen = frozen.and_then(|f| f.ceil(volume, chunk, from));
            let tree = near.ceil.as_ref().map(|found| Tag(found.key.c));
            let best = [recent.map(|r| r.0), frozen.map(|f| f.0), tree]
                .into_iter()
                .flatten()
                .min();
            let Some(best) = best else {
                return Ok((Cover::Origin { pred }, near.leaf));
            };
            // The newest layer that knows this key has the last word.
            match [recent, frozen]
                .into_iter()
                .flatten()
                .find(|(t, _)| *t == best)
            {
                Some((_, Entry::Put { place, crcs })) => {
                    return Ok((
                        Cover::Exception {
                            place: *place,
                            crcs: crcs.clone(),
                        },
                        near.leaf,
                    ));
                }
                Some((_, Entry::Gone { .. })) => from = Tag(best.0 + 1),
                None => {
                    let value = near.ceil.as_ref().map_or(&[][..], |found| found.value());
                    let crcs: Vec<u32> = crcs_of(value).collect();
                    let place = Place::decode(value);
                    return Ok((
                        Cover::Exception {
                            place,
                            crcs: Crcs::new(&crcs),
                        },
                        near.leaf,
                    ));
                }
            }
        }
    }

    /// Whether memory alone proves that `chunk` has an exception at or above `tag`.
    pub(super) fn recently_copied(&self, volume: VolumeId, chunk: u64, tag: Tag) -> bool {
        let put = |table: &MemTable| {
            matches!(table.ceil(volume, chunk, tag), Some((_, Entry::Put { .. })))
        };
        put(&self.state.recent) || self.checkpoint.frozen.as_ref().is_some_and(put)
    }

    /// Reads a node for `task`, which will be run again when it is there.
    pub(super) fn fetch(&mut self, tree: TreeId, missing: Missing, task: Task, out: &mut Effects) {
        let wanting = Wanting {
            tree,
            ptr: missing.ptr,
            level: missing.level,
        };
        if let Some(fetch) = self.fetches.get_mut(&wanting) {
            fetch.tasks.push(task);
            return;
        }
        let fetch = Fetch {
            version: self.version,
            span: missing.span,
            again: false,
            tasks: vec![task],
        };
        self.fetches.insert(wanting, fetch);
        self.read_node(wanting, out);
    }

    /// Nothing is read for this any more: its number may be another's next.
    pub(super) fn forget_fetches(&mut self, task: Task) {
        for fetch in self.fetches.values_mut() {
            fetch.tasks.retain(|waiting| *waiting != task);
        }
        self.heals.forget(task);
    }

    fn read_node(&mut self, wanting: Wanting, out: &mut Effects) {
        self.counters.block_reads += 1;
        let block = wanting.ptr.block;
        let io = self.new_io(Io::Fetch(wanting));
        out.list.push(Effect::ReadBlock { io, block });
    }

    pub(super) fn fetched(
        &mut self,
        wanting: Wanting,
        result: Result<Arc<Block>, IoError>,
        out: &mut Effects,
    ) {
        let Some(mut fetch) = self.fetches.remove(&wanting) else {
            return;
        };
        let shape = self.geometry.shape(wanting.tree);
        let unreadable = result.is_err();
        let node = match result {
            Ok(block) => Node::verify(block, wanting.ptr, &shape, wanting.level)
                .map_err(|damage| damage.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match node {
            Ok(node) => {
                let node = Arc::new(node);
                self.cache.insert(node.clone());
                self.ready.extend(self.heals.not_needed(wanting));
                for task in fetch.tasks {
                    self.pin(task, &node);
                    self.ready.push_back(task);
                }
            }
            // The tree moved on and the block was reused: look again from the new root.
            Err(_) if fetch.version != self.version => self.ready.extend(fetch.tasks),
            // A fault on the way is not damage.
            Err(_) if !fetch.again => {
                fetch.again = true;
                self.fetches.insert(wanting, fetch);
                self.read_node(wanting, out);
            }
            Err(reason) => {
                let Fetch { span, tasks, .. } = fetch;
                let tasks = if unreadable {
                    self.come_again(wanting, &reason, tasks, out)
                } else {
                    tasks
                };
                if !tasks.is_empty() {
                    self.node_damaged(wanting, span, reason, tasks, out);
                }
            }
        }
    }

    fn pin(&mut self, task: Task, node: &Arc<Node>) {
        let pinned = match task {
            Task::Write(id) => self.writes.get_mut(id).map(|w| &mut w.pinned),
            Task::Read(id) => self.reads.get_mut(id).map(|r| &mut r.pinned),
            Task::Query(id) => self.queries.get_mut(id).map(|q| &mut q.sweep.pinned),
            Task::Compare(id) => self.comparisons.get_mut(id).map(|c| &mut c.sweep.pinned),
            Task::Purge => self.purge.as_mut().map(|p| &mut p.sweep.pinned),
            Task::Merge => Some(&mut self.checkpoint.pinned),
            Task::Heal => self.heals.pinned(),
        };
        if let Some(pinned) = pinned {
            if pinned.len() >= MAX_PINNED {
                pinned.clear();
            }
            pinned.push(node.clone());
        }
    }
}

/// The trees' shapes in a store.
impl super::Geometry {
    pub(crate) fn shape(&self, tree: TreeId) -> Shape {
        use crate::format::Kind;
        use crate::format::exception::{ERA_LEN, EXCEPTION_FIXED};
        use crate::format::tables::{SHARING_LEN, SNAPSHOT_LEN, VOLUME_LEN};
        let (kind, value_len) = match tree {
            TreeId::Exceptions => (
                Kind::ExceptionNode,
                EXCEPTION_FIXED + 4 * self.chunk_blocks as usize,
            ),
            TreeId::Eras => (Kind::EraNode, ERA_LEN),
            TreeId::Volumes => (Kind::VolumeNode, VOLUME_LEN),
            TreeId::Snapshots => (Kind::SnapshotNode, SNAPSHOT_LEN),
            TreeId::Sharing => (Kind::SharingNode, SHARING_LEN),
        };
        Shape {
            kind,
            value_len,
            store: self.store,
        }
    }
}
