//! From the root to the node that covers a key.

use std::sync::Arc;

use super::key::{Key, Span};
use super::layout::MAX_HEIGHT;
use super::node::Node;
use super::{Missing, Nodes, Root};
use crate::format::Ptr;

/// A node and the keys it is responsible for: `low` and up, below `up`.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) node: Arc<Node>,
    pub(super) low: Key,
    /// `None`: to the end.
    pub(super) up: Option<Key>,
    /// `None`: the node is the root.
    pub(super) parent: Option<Parent>,
}

/// Where a node hangs.
#[derive(Clone, Debug)]
pub(super) struct Parent {
    pub(super) node: Arc<Node>,
    /// Which of its children.
    pub(super) index: usize,
    /// The parent's own upper bound.
    pub(super) up: Option<Key>,
}

impl Parent {
    /// Upper bound of the child at `index`.
    pub(super) fn bound_after(&self, index: usize) -> Option<Key> {
        if index + 1 < self.node.len() {
            Some(self.node.key(index + 1))
        } else {
            self.up
        }
    }
}

/// Descends to the node of `level` covering `key`. `level < root.height`.
pub(super) fn descend(
    root: &Root,
    level: u16,
    key: &Key,
    nodes: &mut impl Nodes,
) -> Result<Place, Missing> {
    let (mut ptr, mut at) = (root.ptr, root.height.saturating_sub(1));
    let (mut low, mut up, mut parent) = (Key::MIN, None, None);
    loop {
        let Some(node) = nodes.get(ptr, at).filter(|node| node.level() == at) else {
            return Err(Missing {
                ptr,
                level: at,
                span: Span { low, up },
            });
        };
        if at <= level {
            return Ok(Place {
                node,
                low,
                up,
                parent,
            });
        }
        let index = node.child_for(key);
        if index > 0 {
            low = node.key(index);
        }
        ptr = node.child(index);
        at -= 1;
        let here = Parent { node, index, up };
        up = here.bound_after(index);
        parent = Some(here);
    }
}

/// The last node seen at each level: a merge in key order goes down the same path
/// again and again, and holding it guarantees progress whatever the cache drops.
#[derive(Clone, Debug, Default)]
pub(super) struct Path([Option<Arc<Node>>; MAX_HEIGHT as usize]);

impl Path {
    /// Holds `node` as the last one of its level.
    pub(super) fn set(&mut self, node: &Arc<Node>) {
        if let Some(slot) = self.0.get_mut(usize::from(node.level())) {
            *slot = Some(Arc::clone(node));
        }
    }

    /// The node held at `level`, if it is that one.
    pub(super) fn get(&self, ptr: Ptr, level: u16) -> Option<Arc<Node>> {
        let node = self.0.get(usize::from(level))?.as_ref()?;
        (node.ptr() == ptr).then(|| Arc::clone(node))
    }
}

/// [`Nodes`] that looks at a [`Path`] first and keeps it.
pub(super) struct Held<'a, N> {
    pub(super) path: &'a mut Path,
    pub(super) nodes: &'a mut N,
}

impl<N: Nodes> Nodes for Held<'_, N> {
    fn get(&mut self, ptr: Ptr, level: u16) -> Option<Arc<Node>> {
        if let Some(node) = self.path.get(ptr, level) {
            return Some(node);
        }
        let node = self.nodes.get(ptr, level)?;
        self.path.set(&node);
        Some(node)
    }
}
