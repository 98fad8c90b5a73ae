//! Building a tree anew in free blocks, with records in any order and little memory:
//! batches are merged into what is there, as checkpoints do it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::RepairError;
use crate::alloc::Allocator;
use crate::device::BlockDevice;
use crate::engine::{Geometry, TreeId};
use crate::recover::read_block;
use crate::tree::{self, Changes, Key, Merge, Node, Nodes, Progress, Ptr, Root, Shape};

/// Records merged at once.
const BATCH: usize = 1 << 18;
/// Nodes a merge visits in one call.
const BUDGET: usize = 256;

/// A tree being built.
pub(super) struct Builder<'a> {
    tree: TreeId,
    geometry: &'a Geometry,
    alloc: &'a mut Allocator,
    generation: u64,
    pending: BTreeMap<Key, Vec<u8>>,
    root: Root,
    nodes: BTreeSet<u64>,
}

struct Reader<'a, D> {
    dev: &'a mut D,
    shape: Shape,
    what: &'static str,
}

impl<D: BlockDevice> Nodes for Reader<'_, D> {
    fn get(&mut self, ptr: Ptr, level: u16) -> Option<Arc<Node>> {
        let block = read_block(self.dev, ptr.block, self.what).ok()?;
        let node = Node::verify(block.into(), ptr, &self.shape, level).ok()?;
        Some(Arc::new(node))
    }
}

struct Space<'a> {
    alloc: &'a mut Allocator,
    nodes: &'a mut BTreeSet<u64>,
}

impl tree::Space for Space<'_> {
    fn alloc(&mut self) -> Option<u64> {
        let block = self.alloc.alloc_block()?;
        self.nodes.insert(block);
        Some(block)
    }

    fn free(&mut self, block: u64) {
        // Only ever a node of this build: no superblock knows of it.
        self.nodes.remove(&block);
        self.alloc.give_back(block, 1);
    }
}

impl<'a> Builder<'a> {
    /// An empty tree, whose nodes will carry `generation`.
    pub(super) fn new(
        tree: TreeId,
        geometry: &'a Geometry,
        alloc: &'a mut Allocator,
        generation: u64,
    ) -> Self {
        Self {
            tree,
            geometry,
            alloc,
            generation,
            pending: BTreeMap::new(),
            root: Root::EMPTY,
            nodes: BTreeSet::new(),
        }
    }

    pub(super) fn push(
        &mut self,
        dev: &mut impl BlockDevice,
        key: Key,
        value: &[u8],
    ) -> Result<(), RepairError> {
        self.pending.insert(key, value.to_vec());
        if self.pending.len() < BATCH {
            return Ok(());
        }
        self.merge(dev)
    }

    /// Ends the build; the tree's blocks are claimed.
    pub(super) fn finish(mut self, dev: &mut impl BlockDevice) -> Result<Root, RepairError> {
        self.merge(dev)?;
        self.nodes
            .iter()
            .for_each(|block| self.alloc.claim(*block, 1));
        Ok(self.root)
    }

    fn merge(&mut self, dev: &mut impl BlockDevice) -> Result<(), RepairError> {
        let (shape, what) = (self.geometry.shape(self.tree), self.tree.name());
        let mut changes = Changes::new(&shape);
        let failed = |reason: String| RepairError::Build { what, reason };
        for (key, value) in std::mem::take(&mut self.pending) {
            changes
                .push(key, Some(&value))
                .map_err(|error| failed(error.to_string()))?;
        }
        let mut merge = Merge::new(shape, self.root, changes, self.generation);
        loop {
            let mut written = Vec::new();
            let mut space = Space {
                alloc: self.alloc,
                nodes: &mut self.nodes,
            };
            let mut reader = Reader { dev, shape, what };
            let progress = merge.advance(&mut reader, &mut space, &mut written, BUDGET);
            for node in written {
                let block = node.to_block();
                let block = std::slice::from_ref(&*block);
                dev.write(node.ptr().block, block)
                    .map_err(|error| failed(error.to_string()))?;
            }
            match progress {
                Ok(Progress::Done(root)) => {
                    self.root = root;
                    return Ok(());
                }
                Ok(Progress::More) => {}
                Ok(Progress::Need(missing)) => {
                    let at = missing.first().map_or(0, |missing| missing.ptr.block);
                    // Written in this very step, perhaps: then it is there now.
                    if !self.nodes.contains(&at) {
                        return Err(failed(format!("block {at} cannot be read")));
                    }
                    read_block(dev, at, what).map_err(|error| failed(error.to_string()))?;
                }
                Err(error) => return Err(failed(error.to_string())),
            }
        }
    }
}
