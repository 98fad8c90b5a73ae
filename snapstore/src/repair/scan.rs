//! Reading a tree over its damaged nodes, saying which keys each of them covered.

use super::Unstable;
use crate::device::BlockDevice;
use crate::engine::{Geometry, TreeId};
use crate::recover::read_block;
use crate::tree::{Key, Missing, Node, Root, Walk};

/// The keys below a node that cannot be used: from `low` up to, not including, `up`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) low: Key,
    pub(super) up: Option<Key>,
}

impl Hole {
    pub(super) fn covers(&self, key: Key) -> bool {
        self.low <= key && self.up.is_none_or(|up| key < up)
    }

    /// The last key it may have held.
    pub(super) fn last(&self) -> Key {
        let Some(up) = self.up else {
            return Key::MAX;
        };
        if up.c > 0 {
            Key { c: up.c - 1, ..up }
        } else if up.b > 0 {
            Key::new(up.a, up.b - 1, u64::MAX)
        } else {
            Key::new(up.a.saturating_sub(1), u64::MAX, u64::MAX)
        }
    }
}

/// What a first pass over a tree finds.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// In key order.
    pub(super) holes: Vec<Hole>,
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

    pub(super) fn in_hole(&self, key: Key) -> bool {
        self.holes.iter().any(|hole| hole.covers(key))
    }
}

/// Visits the good leaves of a tree in key order.
pub(super) fn survey<D: BlockDevice>(
    dev: &mut D,
    geometry: &Geometry,
    tree: TreeId,
    root: Root,
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
        found.holes.push(Hole {
            low: Key::MIN,
            up: None,
        });
        return found;
    };
    while let Some(missing) = walk.next() {
        let (low, up) = walk.bounds();
        let node = read(dev, geometry, tree, missing);
        let Some(node) = node.filter(|node| walk.enter(node).is_ok()) else {
            found.holes.push(Hole { low, up });
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
