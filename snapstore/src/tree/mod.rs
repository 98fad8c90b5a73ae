//! The shadow-paged B-tree under every map of the store.
//!
//! A node is immutable once written. A checkpoint turns an old tree and a sorted
//! batch of changes into a new tree ([`Merge`]) and writes only new nodes, at
//! newly allocated blocks; readers keep probing the old root until the superblock
//! that names the new one is durable. So nothing is ever updated in place, and
//! the cache is a plain cache of immutable nodes.
//!
//! Invariants of a tree:
//! - A node at level `n` has children at level `n - 1` only; leaves are level 0,
//!   so a walk is at most [`MAX_HEIGHT`] steps and a cycle cannot be followed.
//! - No node is empty; the records of a leaf share one `a`.
//! - Child `i` of an interior node covers the keys from separator `i` up to, not
//!   including, separator `i + 1`; the first reaches down to the node's own lower
//!   bound, the last up to the node's own upper bound. Separator `i` is never
//!   above a key of child `i`.
//! - A pointer names block **and** generation, so a lost write is seen.
//!
//! A walk never does I/O: what it lacks it returns as [`Missing`]; the caller
//! reads and verifies the block and starts again from the top.

mod bound;
mod cache;
mod changes;
mod descend;
mod group;
mod key;
mod layout;
mod merge;
mod node;
mod probe;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::Arc;

pub use crate::format::Ptr;
pub use bound::worst_case_nodes;
pub use cache::Cache;
pub(crate) use cache::HIGH;
pub use changes::{BadChange, Changes};
pub use key::{Key, Span};
#[cfg(test)]
pub(crate) use layout::{InteriorKey, LeafKey, NodeHeader};
pub use layout::{MAX_HEIGHT, MAX_VALUE_LEN, MIN_VALUE_LEN, NODE_HEADER_LEN, PTR_LEN, Shape};
pub use merge::{Merge, MergeError, Progress, Space};
pub use node::Node;
pub use probe::{Found, Neighbours, neighbours, scan};
pub use walk::{Fault, Walk};

/// A tree: where its top node is and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Root {
    /// The top node; null when the tree is empty.
    pub ptr: Ptr,
    /// Levels: 0 is an empty tree, 1 a single leaf.
    pub height: u16,
    /// Nodes of every level.
    pub nodes: u64,
    /// Nodes of level 0.
    pub leaves: u64,
    /// Records in the leaves.
    pub records: u64,
}

impl Root {
    /// A tree without records. It occupies no block.
    pub const EMPTY: Self = Self {
        ptr: Ptr::NULL,
        height: 0,
        nodes: 0,
        leaves: 0,
        records: 0,
    };
}

/// What a walk lacks: read this block, verify it as a node of `level`, start
/// again from the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The node.
    pub ptr: Ptr,
    /// Its level: what [`Node::verify`] must be told.
    pub level: u16,
    /// The keys that are found through it.
    pub span: Span,
}

/// Where a walk finds verified nodes: a cache, and whatever a parked request has
/// pinned so that starting again makes progress.
pub trait Nodes {
    /// The node, or `None` when its block must be read first.
    fn get(&mut self, ptr: Ptr, level: u16) -> Option<Arc<Node>>;
}
