//! Reading a tree over its damaged nodes, saying which keys each of them covered.

use super::Unstable;
use super::tables::volume_number;
use crate::device::BlockDevice;
use crate::engine::{Geometry, TreeId};
use crate::recover::read_block;
use crate::tree::{Key, Missing, Node, Root, Span, Walk};

/// What a first pass over a tree finds.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The keys below nodes that cannot be used, in order.
    pub(crate) holes: Vec<Span>,
    /// Blocks of the good nodes.
    pub(super) nodes: Vec<u64>,
    /// What the good nodes come to.
    counted: Root,
    root: Root,
}

impl Survey {
    /// Whether the tree can stay as it is.
    pub(super) fn whole(&self) -> bool {
        let Root {
            nodes,
            leaves,
            records,
            ..
        } = self.root;
        let counted = &self.counted;
        self.holes.is_empty()
            && (nodes, leaves, records) == (counted.nodes, counted.leaves, counted.records)
    }

    pub(crate) fn in_hole(&self, key: Key) -> bool {
        self.holes.iter().any(|hole| hole.covers(key))
    }
}

/// Visits the good leaves of a tree in key order. One that is of no volume there can
/// be is not good: what it held belongs to others.
pub(super) fn survey<D: BlockDevice>(
    dev: &mut D,
    geometry: &Geometry,
    tree: TreeId,
    root: Root,
    leaf: &mut dyn FnMut(&mut D, &Node),
) -> Survey {
    survey_where(dev, geometry, tree, root, &|node| owned(tree, node), leaf)
}

fn owned(tree: TreeId, node: &Node) -> bool {
    node.level() > 0 || tree == TreeId::Volumes || volume_number(node.a()).is_some()
}

/// Visits the leaves that verify and are `good`, in key order.
pub(crate) fn survey_where<D: BlockDevice>(
    dev: &mut D,
    geometry: &Geometry,
    tree: TreeId,
    root: Root,
    good: &dyn Fn(&Node) -> bool,
    leaf: &mut dyn FnMut(&mut D, &Node),
) -> Survey {
    let mut found = Survey {
        root,
        ..Survey::default()
    };
    // A wrong count must not end the walk early.
    let unbounded = Root {
        nodes: geometry.blocks,
        ..root
    };
    let Ok(mut walk) = Walk::new(unbounded) else {
        found.holes.push(Span::ALL);
        return found;
    };
    while let Some(missing) = walk.next() {
        let (low, up) = walk.bounds();
        let node = read(dev, geometry, tree, missing);
        let Some(node) = node.filter(|node| good(node) && walk.enter(node).is_ok()) else {
            found.holes.push(Span { low, up });
            continue;
        };
        found.nodes.push(missing.ptr.block);
        found.counted.nodes += 1;
        if node.level() == 0 {
            found.counted.leaves += 1;
            found.counted.records += node.len() as u64;
            leaf(dev, &node);
        }
    }
    found
}

/// Visits the leaves again.
///
/// # Errors
/// [`Unstable`] when other nodes are good than before: what was decided is wrong then.
pub(super) fn revisit<D: BlockDevice>(
    dev: &mut D,
    geometry: &Geometry,
    tree: TreeId,
    before: &Survey,
    leaf: &mut dyn FnMut(&mut D, &Node),
) -> Result<(), Unstable> {
    let again = survey(dev, geometry, tree, before.root, leaf);
    if again.holes == before.holes && again.counted == before.counted {
        Ok(())
    } else {
        Err(Unstable(tree.name()))
    }
}

fn read(
    dev: &mut impl BlockDevice,
    geometry: &Geometry,
    tree: TreeId,
    missing: Missing,
) -> Option<Node> {
    let at = missing.ptr.block;
    if at == 0 || at >= geometry.blocks {
        return None;
    }
    let block = read_block(dev, at, tree.name()).ok()?;
    let shape = geometry.shape(tree);
    Node::verify(block.into(), missing.ptr, &shape, missing.level).ok()
}
