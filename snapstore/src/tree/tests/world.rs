//! A tree on a pretended disk, with the books kept by hand.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::super::*;
use crate::block::Block;
use crate::format::{DiskPtr, Kind};

/// Numbers of loose nodes.
const LOOSE: u64 = 1 << 40;

pub(super) type Oracle = BTreeMap<Key, Vec<u8>>;
pub(super) type Batch = BTreeMap<Key, Option<Vec<u8>>>;

/// Blocks written, blocks in use, blocks given back.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) blocks: HashMap<u64, Arc<Block>>,
    pub(super) allocated: BTreeSet<u64>,
    pub(super) freed: BTreeSet<u64>,
    /// Allocations left before the disk is full.
    pub(super) room: u64,
}

impl Space for Disk {
    fn alloc(&mut self) -> Option<u64> {
        self.room = self.room.checked_sub(1)?;
        let block = 1 + self.allocated.len() as u64;
        assert!(self.allocated.insert(block));
        Some(block)
    }

    fn free(&mut self, block: u64) {
        if block >= LOOSE {
            return;
        }
        assert!(
            self.allocated.contains(&block),
            "freed {block}, never allocated"
        );
        assert!(self.freed.insert(block), "freed {block} twice");
    }
}

/// A cache, and what the last miss asked for.
pub(super) struct Reader {
    pub(super) cache: Cache,
    pub(super) pins: Vec<Arc<Node>>,
    pub(super) reads: usize,
}

impl Nodes for Reader {
    fn get(&mut self, ptr: Ptr, level: u16) -> Option<Arc<Node>> {
        let pinned = self
            .pins
            .iter()
            .find(|node| node.ptr() == ptr && node.level() == level);
        pinned
            .cloned()
            .or_else(|| Nodes::get(&mut self.cache, ptr, level))
    }
}

impl Reader {
    pub(super) fn new(cache: usize) -> Self {
        Self {
            cache: Cache::new(cache),
            pins: Vec::new(),
            reads: 0,
        }
    }

    pub(super) fn read(&mut self, missing: Missing, world: &World) -> Arc<Node> {
        let block = Arc::clone(&world.disk.blocks[&missing.ptr.block]);
        let node = Node::verify(block, missing.ptr, &world.shape, missing.level).unwrap();
        let node = Arc::new(node);
        self.reads += 1;
        self.cache.insert(Arc::clone(&node));
        node
    }

    /// Runs a probe until it misses nothing, pinning as a parked request does.
    pub(super) fn retry<T>(
        &mut self,
        world: &World,
        mut probe: impl FnMut(&mut Self) -> Result<T, Missing>,
    ) -> T {
        self.pins.clear();
        loop {
            match probe(self) {
                Ok(found) => return found,
                Err(missing) => {
                    let node = self.read(missing, world);
                    self.pins.push(node);
                    assert!(self.pins.len() < 40, "a probe that never ends");
                }
            }
        }
    }
}

pub(super) struct World {
    pub(super) shape: Shape,
    pub(super) disk: Disk,
    pub(super) root: Root,
    pub(super) generation: u64,
    pub(super) oracle: Oracle,
    /// Nodes made anew: used instead of what lies on the disk.
    made: Vec<Node>,
}

impl World {
    pub(super) fn new(value_len: usize) -> Self {
        Self {
            shape: Shape {
                kind: Kind::ExceptionNode,
                value_len,
                store: 0x5EED,
            },
            disk: Disk::default(),
            root: Root::EMPTY,
            generation: 0,
            oracle: Oracle::new(),
            made: Vec::new(),
        }
    }

    /// Makes a node above the leaves anew, and all leaves below it.
    pub(super) fn loosen(&mut self, which: usize) {
        let mut walk = Walk::new(self.root).unwrap();
        let mut reader = Reader::new(1);
        let mut found = Vec::new();
        while let Some(missing) = walk.next() {
            walk.enter(&reader.read(missing, self)).unwrap();
            if missing.level == 1 {
                found.push(missing);
            }
        }
        let Missing { ptr, span, .. } = found[which % found.len()];
        let inside = self.oracle.iter().filter(|(key, _)| span.covers(**key));
        let records: Vec<(Key, Vec<u8>)> = inside.map(|(k, v)| (*k, v.clone())).collect();
        let mut children = Vec::new();
        for run in records.chunk_by(|a, b| a.0.a == b.0.a) {
            for piece in run.chunks(self.shape.capacity(0)) {
                let child = Ptr {
                    block: LOOSE + children.len() as u64,
                    generation: ptr.generation,
                };
                let leaf = Node::made(&self.shape, 0, child, true, piece);
                self.made.push(leaf.expect("a leaf"));
                let value = zerocopy::IntoBytes::as_bytes(&DiskPtr::from(child)).to_vec();
                children.push((piece[0].0, value));
            }
        }
        let above = Node::made(&self.shape, 1, ptr, false, &children);
        self.made
            .push(above.expect("as many leaves at most as before"));
    }

    /// What the tree holds, by what lies on the disk.
    pub(super) fn records(&self) -> Oracle {
        let mut walk = Walk::new(self.root).unwrap();
        let mut reader = Reader::new(1);
        let mut records = Oracle::new();
        while let Some(missing) = walk.next() {
            let node = reader.read(missing, self);
            walk.enter(&node).unwrap();
            let leaf = (0..node.len()).filter(|_| node.level() == 0);
            records.extend(leaf.map(|i| (node.key(i), node.value(i).to_vec())));
        }
        records
    }

    /// A value that depends on the key and a salt.
    pub(super) fn value(&self, key: Key, salt: u8) -> Vec<u8> {
        let mix = (key.a ^ key.b.rotate_left(20) ^ key.c.rotate_left(40)).wrapping_mul(0x9E37_79B9);
        let mut value = vec![salt; self.shape.value_len];
        value[..8].copy_from_slice(&mix.to_le_bytes());
        value[7] = salt;
        value
    }

    /// Merges `batch` in steps of `budget`, checks the reservation, the books and
    /// the whole new tree; the old one stays readable.
    pub(super) fn apply(&mut self, batch: &Batch, budget: usize, cache: usize) {
        let before = (self.root, std::mem::take(&mut self.oracle));
        self.oracle.clone_from(&before.1);
        let freed = self.disk.freed.len();
        let (written, _) = self.merge(batch, budget, cache);
        for (key, value) in batch {
            match value {
                Some(value) => drop(self.oracle.insert(*key, value.clone())),
                None => drop(self.oracle.remove(key)),
            }
        }
        if self.oracle == before.1 {
            assert_eq!(self.root, before.0, "nothing changed, but the root did");
            assert_eq!(
                (written, self.disk.freed.len()),
                (0, freed),
                "nothing changed"
            );
        }
        self.check(&before.0, &before.1);
        let live = self.check(&self.root, &self.oracle);
        // Every block ever allocated is either of this tree or freed, never both.
        let both: Vec<_> = live.intersection(&self.disk.freed).collect();
        assert!(both.is_empty(), "live and freed: {both:?}");
        assert_eq!(
            live.len() + self.disk.freed.len(),
            self.disk.allocated.len(),
            "lost blocks"
        );
    }

    /// Runs the merge alone; returns how many nodes it wrote and read.
    pub(super) fn merge(&mut self, batch: &Batch, budget: usize, cache: usize) -> (usize, usize) {
        let mut changes = Changes::new(&self.shape);
        for (key, value) in batch {
            changes.push(*key, value.as_deref()).unwrap();
        }
        let distinct = batch.keys().map(|key| key.a).collect::<BTreeSet<_>>().len();
        self.disk.room = worst_case_nodes(&self.root, batch.len(), distinct, &self.shape);
        self.disk.room += 2 * self.made.len() as u64;
        self.generation += 1;
        let mut merge = Merge::new(self.shape, self.root, changes, self.generation);
        let mut reader = Reader::new(cache);
        let made = std::mem::take(&mut self.made);
        made.into_iter().for_each(|node| reader.cache.keep(node));
        let mut written = 0;
        loop {
            let mut out = Vec::new();
            let progress = merge
                .advance(&mut reader, &mut self.disk, &mut out, budget)
                .unwrap();
            assert!(out.len() <= budget);
            written += out.len();
            for node in out {
                self.disk.blocks.insert(node.ptr().block, node.to_block());
            }
            match progress {
                Progress::Done(root) => {
                    self.root = root;
                    return (written, reader.reads);
                }
                Progress::More => {}
                Progress::Need(missing) => {
                    assert!(!missing.is_empty() && missing.len() <= 16);
                    reader.pins.clear();
                    for missing in missing {
                        let node = reader.read(missing, self);
                        reader.pins.push(node);
                    }
                }
            }
        }
    }

    /// The whole tree at `root` is sound and equals `oracle`. Returns its blocks.
    pub(super) fn check(&self, root: &Root, oracle: &Oracle) -> BTreeSet<u64> {
        let mut walk = Walk::new(*root).unwrap();
        let mut blocks = BTreeSet::new();
        let mut records = oracle.iter();
        let mut reader = Reader::new(1);
        while let Some(missing) = walk.next() {
            let node = reader.read(missing, self);
            assert!(blocks.insert(missing.ptr.block), "a block of two parents");
            walk.enter(&node).unwrap();
            for i in (0..node.len()).filter(|_| node.level() == 0) {
                let (key, value) = records.next().expect("a record too many");
                assert_eq!((node.key(i), node.value(i)), (*key, value.as_slice()));
                assert_eq!(key.a, node.a());
            }
            assert!(node.level() + 1 < root.height || node.level() == 0 || node.len() > 1);
        }
        assert_eq!(records.next(), None, "records missing");
        walk.finish().unwrap();
        blocks
    }
}
