//! Reading a tree from end to end, over damaged nodes.

use super::Checker;
use super::owners::Owners;
use crate::device::BlockDevice;
use crate::engine::{Geometry, Roots, TreeId};
use crate::recover::read_block;
use crate::tree::{Missing, Node, Shape, Walk};

/// What a walk comes to.
#[derive(Debug)]
pub(super) enum Step {
    /// A good node.
    Node(Node),
    /// A node that is not, skipped with all below it.
    Bad {
        /// Where it should be.
        block: u64,
        /// What is wrong.
        reason: String,
    },
}

/// A walk over one tree in key order.
#[derive(Debug)]
pub(super) struct TreeWalk {
    pub(super) tree: TreeId,
    walk: Option<Walk>,
    shape: Shape,
    root: u64,
    blocks: u64,
    /// Nodes it may still ask for: a tree has no more than the store has blocks.
    left: u64,
    /// Why there is no walk at all.
    refused: Option<String>,
    skipped: bool,
}

impl TreeWalk {
    pub(super) fn new(geometry: &Geometry, roots: &Roots, tree: TreeId) -> Self {
        let root = *roots.get(tree);
        let (walk, refused) = match Walk::new(root) {
            Ok(walk) => (Some(walk), None),
            Err(fault) => (None, Some(fault.to_string())),
        };
        Self {
            tree,
            walk,
            shape: geometry.shape(tree),
            root: root.ptr.block,
            blocks: geometry.blocks,
            left: geometry.blocks,
            refused,
            skipped: false,
        }
    }

    /// The next node, parents before children. With `owners`, every node becomes
    /// the owner of its block, and one met again is bad.
    pub(super) fn next(
        &mut self,
        dev: &mut impl BlockDevice,
        owners: Option<&mut Owners>,
    ) -> Option<Step> {
        let found = match self.refused.take() {
            Some(reason) => Err((self.root, reason)),
            None => {
                self.left = self.left.checked_sub(1)?;
                let missing = self.walk.as_mut()?.next()?;
                self.read(dev, missing, owners)
                    .map_err(|reason| (missing.ptr.block, reason))
            }
        };
        Some(match found {
            Ok(node) => Step::Node(node),
            Err((block, reason)) => {
                self.skipped = true;
                Step::Bad { block, reason }
            }
        })
    }

    fn read(
        &mut self,
        dev: &mut impl BlockDevice,
        missing: Missing,
        owners: Option<&mut Owners>,
    ) -> Result<Node, String> {
        let at = missing.ptr.block;
        if at == 0 || at >= self.blocks {
            return Err("a pointer leads outside the store".to_owned());
        }
        if let Some(owners) = owners {
            owners.claim(at, 1).map_err(|clash| clash.to_string())?;
        }
        let block = read_block(dev, at, self.tree.name()).map_err(|e| e.to_string())?;
        let node = Node::verify(block.into(), missing.ptr, &self.shape, missing.level)
            .map_err(|damage| damage.to_string())?;
        if let Some(walk) = &mut self.walk {
            walk.enter(&node).map_err(|fault| fault.to_string())?;
        }
        Ok(node)
    }

    /// `Ok`: the whole tree was read and its root counts it right. `Err(None)`:
    /// what is wrong was met on the way.
    pub(super) fn finish(self) -> Result<(), Option<String>> {
        match self.walk {
            Some(walk) if !self.skipped => walk.finish().map_err(|fault| Some(fault.to_string())),
            _ => Err(None),
        }
    }
}

/// What a checked walk comes to.
pub(super) enum Leaf {
    /// A leaf.
    Node(Node),
    /// An unknown number of leaves could not be read.
    Hole,
}

impl<D: BlockDevice> Checker<'_, D> {
    pub(super) fn walk(&self, tree: TreeId) -> TreeWalk {
        TreeWalk::new(&self.geometry, &self.roots, tree)
    }

    /// The next leaf; what is wrong on the way there is reported.
    pub(super) fn next_leaf(&mut self, walk: &mut TreeWalk) -> Option<Leaf> {
        loop {
            let step = walk.next(self.dev, Some(&mut self.owners))?;
            self.report.blocks += 1;
            self.progress.step();
            match step {
                Step::Node(node) if node.level() == 0 => return Some(Leaf::Node(node)),
                Step::Node(_) => {}
                Step::Bad { block, reason } => {
                    self.problems.add(format_args!(
                        "{}, block {block}: {reason}",
                        walk.tree.name()
                    ));
                    return Some(Leaf::Hole);
                }
            }
        }
    }

    /// Ends a walk; whether it saw the whole tree.
    pub(super) fn finish_walk(&mut self, walk: TreeWalk) -> bool {
        let (tree, root) = (walk.tree, walk.root);
        match walk.finish() {
            Ok(()) => true,
            Err(reason) => {
                if let Some(reason) = reason {
                    self.problems
                        .add(format_args!("{}, block {root}: {reason}", tree.name()));
                }
                false
            }
        }
    }
}
