//! Visiting every node of a tree in key order, checking what no single node can
//! show: bounds, and the root's counts. For the checker and for opening a store.
//!
//! The walk does no I/O: [`Walk::next`] says which node it wants, the caller reads
//! and verifies it and hands it to [`Walk::enter`]; a node that cannot be read is
//! skipped with what is below it by asking for the next one. Memory is bounded by
//! height times fan-out, steps by the root's count of nodes.

use super::key::{Key, Span};
use super::layout::MAX_HEIGHT;
use super::node::Node;
use super::{Missing, Root};
use crate::format::Ptr;

/// What is wrong with a tree whose nodes are each good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A node holds keys that its parent does not lead to.
    #[error("node at block {block} lies outside the bounds its parent gives")]
    Bounds {
        /// Store block of the node.
        block: u64,
    },
    /// Not the node that was asked for.
    #[error("node at block {block} was not asked for")]
    Unasked {
        /// Store block of the node.
        block: u64,
    },
    /// The root claims more levels than a tree can have.
    #[error("the root claims {height} levels")]
    TooHigh {
        /// What it claims.
        height: u16,
    },
    /// The root's counts are not those of the tree.
    #[error(
        "the root counts {claimed_nodes} nodes, {claimed_leaves} leaves and {claimed_records} \
         records; found {nodes}, {leaves} and {records}"
    )]
    Counts {
        /// Nodes the root claims.
        claimed_nodes: u64,
        /// Leaves the root claims.
        claimed_leaves: u64,
        /// Records the root claims.
        claimed_records: u64,
        /// Nodes found.
        nodes: u64,
        /// Leaves found.
        leaves: u64,
        /// Records found.
        records: u64,
    },
}

/// A walk under way.
#[derive(Debug)]
pub struct Walk {
    root: Root,
    found: Root,
    stack: Vec<Missing>,
    wanted: Option<Missing>,
}

impl Walk {
    /// A walk over the tree at `root`.
    ///
    /// # Errors
    /// [`Fault::TooHigh`].
    pub fn new(root: Root) -> Result<Self, Fault> {
        if root.height > MAX_HEIGHT {
            return Err(Fault::TooHigh {
                height: root.height,
            });
        }
        let mut stack = Vec::new();
        if let Some(level) = root.height.checked_sub(1) {
            stack.push(Missing {
                ptr: root.ptr,
                level,
                span: Span::ALL,
            });
        }
        Ok(Self {
            root,
            found: Root::EMPTY,
            stack,
            wanted: None,
        })
    }

    /// The next node, parents before children, children in key order. `None`: the
    /// walk is over.
    #[allow(clippy::should_implement_trait)] // not an iterator: it waits for `enter`
    pub fn next(&mut self) -> Option<Missing> {
        self.wanted = None;
        // More nodes than the root counts: the counts are wrong, or it is not a tree.
        if self.found.nodes > self.root.nodes {
            return None;
        }
        self.wanted = self.stack.pop();
        self.wanted
    }

    /// The keys that the node last asked for is responsible for: from the first on, up
    /// to but not including the second.
    #[must_use]
    pub fn bounds(&self) -> (Key, Option<Key>) {
        let span = self.wanted.map_or(Span::ALL, |wanted| wanted.span);
        (span.low, span.up)
    }

    /// Enters the node last asked for.
    ///
    /// # Errors
    /// [`Fault::Bounds`]: what is below it is skipped.
    pub fn enter(&mut self, node: &Node) -> Result<(), Fault> {
        let block = node.ptr().block;
        let place = self.wanted.take().ok_or(Fault::Unasked { block })?;
        if (place.ptr, place.level) != (node.ptr(), node.level()) {
            return Err(Fault::Unasked { block });
        }
        self.found.nodes += 1;
        let last = node.key(node.len() - 1);
        if !place.span.covers(node.key(0)) || !place.span.covers(last) {
            return Err(Fault::Bounds { block });
        }
        if node.level() == 0 {
            self.found.leaves += 1;
            self.found.records += node.len() as u64;
            return Ok(());
        }
        let children = (0..node.len()).rev().map(|i| Missing {
            ptr: node.child(i),
            level: node.level() - 1,
            span: Span {
                low: node.key(i),
                up: if i + 1 < node.len() {
                    Some(node.key(i + 1))
                } else {
                    place.span.up
                },
            },
        });
        self.stack.extend(children);
        Ok(())
    }

    /// Compares what was entered with the root's counts.
    ///
    /// # Errors
    /// [`Fault::Counts`]; also when nodes were skipped.
    pub fn finish(self) -> Result<(), Fault> {
        let (root, found) = (self.root, self.found);
        let same =
            (root.nodes, root.leaves, root.records) == (found.nodes, found.leaves, found.records);
        if same && self.stack.is_empty() && (root.height > 0 || root.ptr == Ptr::NULL) {
            return Ok(());
        }
        Err(Fault::Counts {
            claimed_nodes: root.nodes,
            claimed_leaves: root.leaves,
            claimed_records: root.records,
            nodes: found.nodes,
            leaves: found.leaves,
            records: found.records,
        })
    }
}
