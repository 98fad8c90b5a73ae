//! Turning an old tree and a batch of changes into a new tree.
//!
//! Level by level from the leaves: the next change of the batch leads down the
//! **old** tree to the node that covers it; all changes below that node's upper
//! bound are merged with its records into new nodes ([`Group`]); what this does to
//! the separators becomes a change in the batch of the level above. At the top,
//! levels grow until one node remains, or shrink while a node has one child. The
//! first batch on an empty tree is the same thing with no old node.
//!
//! - The old tree is only read. A replaced node is given to [`Space::free`] once,
//!   after the nodes that replace it exist.
//! - A step of [`Merge::advance`] visits or writes at most `budget` nodes and keeps
//!   its state: nothing is lost or done twice when it misses, runs out of budget or
//!   of space. Memory is bounded by the batch.
//! - Changes that change nothing rewrite nothing.
//! - *Loose* leaves ([`Node::made`]) stand nowhere, so no new node may point to one:
//!   a change of one rewrites all that hang below the same parent.

use std::sync::Arc;

use super::changes::Changes;
use super::descend::{Held, Path, Place, descend};
use super::group::{Group, Old};
use super::key::{Key, Span};
use super::layout::{MAX_HEIGHT, PTR_LEN, Shape};
use super::node::{Builder, Node};
use super::{Missing, Nodes, Root};
use crate::format::{DiskPtr, Ptr};

/// Blocks that [`Progress::Need`] names at most.
const LOOK_AHEAD: usize = 16;
/// Descents made to find them, at most.
const LOOK_AHEAD_DESCENTS: usize = 64;

/// Where new nodes go.
pub trait Space {
    /// A free block, never 0 and never one that a tree still readable refers to.
    fn alloc(&mut self) -> Option<u64>;
    /// The new tree does not refer to `block`. The old one still may: its reuse
    /// waits until the new tree is durable.
    fn free(&mut self, block: u64);
}

/// How far a merge has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Finished: the new tree, whose nodes have all been put out.
    Done(Root),
    /// The budget is used up: call again.
    More,
    /// These nodes must be readable when called again, at least the first one;
    /// the others will be wanted soon. Never empty.
    Need(Vec<Missing>),
}

/// Why a merge cannot go on. After [`MergeError::NoSpace`] it may be called again
/// when there is space; after the others it must be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// No block for a new node: less was reserved than `worst_case_nodes` says.
    #[error("no free block for a tree node, although space should have been reserved")]
    NoSpace,
    /// The old tree is damaged.
    #[error("tree node at block {block} lies outside the bounds its parent gives; check the store")]
    Disorder {
        /// Store block of the node.
        block: u64,
    },
    /// The root claims more levels than a tree can have.
    #[error("a tree cannot have {height} levels; check the store")]
    TooHigh {
        /// What it claims.
        height: u16,
    },
    /// The changes were made for another tree.
    #[error("changes with values of {changes} bytes for a tree with values of {tree} bytes")]
    ValueLength {
        /// Bytes of the values in the batch.
        changes: usize,
        /// Bytes of the values in the tree.
        tree: usize,
    },
}

/// A merge under way.
#[derive(Debug)]
pub struct Merge {
    shape: Shape,
    generation: u64,
    old: Root,
    /// Counts of the new tree so far.
    counts: Root,
    level: u16,
    /// Changes of this level, and the first not taken yet.
    batch: Changes,
    next: usize,
    /// Changes of the level above, so far.
    above: Changes,
    stage: Stage,
    path: Path,
    /// The last node written at each level.
    newest: Path,
}

#[derive(Debug)]
enum Stage {
    /// Look for the next node to rewrite.
    Gather,
    /// Absorb siblings while the group is poor.
    Absorb(Group),
    /// Write the group's nodes.
    Write(Group),
    /// This node covers everything; skip tops with a single child.
    Crown {
        ptr: Ptr,
        height: u16,
    },
    Done(Root),
}

/// What one step came to, if it did not fail.
enum Step {
    On(Stage),
    /// Keep this stage until the nodes are there.
    Wait(Stage, Vec<Missing>),
}

impl Merge {
    /// A merge of `changes` into `old`. New nodes carry `generation`, which is
    /// above that of every node of `old`.
    #[must_use]
    pub fn new(shape: Shape, old: Root, changes: Changes, generation: u64) -> Self {
        Self {
            shape,
            generation,
            old,
            counts: old,
            level: 0,
            batch: changes,
            next: 0,
            above: Changes::with_value_len(PTR_LEN),
            stage: Stage::Gather,
            path: Path::default(),
            newest: Path::default(),
        }
    }

    /// Goes on, visiting or writing at most `budget` nodes (at least 1). Finished
    /// nodes are pushed to `out`, sealed, to be written where their `ptr` says.
    ///
    /// # Errors
    /// [`MergeError`]; what was put out before stays valid.
    pub fn advance(
        &mut self,
        nodes: &mut impl Nodes,
        space: &mut impl Space,
        out: &mut Vec<Arc<Node>>,
        budget: usize,
    ) -> Result<Progress, MergeError> {
        self.admit()?;
        for _ in 0..budget.max(1) {
            let step = match std::mem::replace(&mut self.stage, Stage::Gather) {
                Stage::Gather => self.gather(nodes)?,
                Stage::Absorb(group) => self.absorb(group, nodes, space)?,
                Stage::Write(group) => self.write(group, space, out)?,
                Stage::Crown { ptr, height } => self.crown(ptr, height, nodes, space),
                Stage::Done(root) => Step::On(Stage::Done(root)),
            };
            match step {
                Step::On(Stage::Done(root)) => {
                    self.stage = Stage::Done(root);
                    return Ok(Progress::Done(root));
                }
                Step::On(stage) => self.stage = stage,
                Step::Wait(stage, missing) => {
                    self.stage = stage;
                    return Ok(Progress::Need(missing));
                }
            }
        }
        Ok(Progress::More)
    }

    fn admit(&self) -> Result<(), MergeError> {
        // Level `MAX_HEIGHT` is only where a single top node is recognised.
        let height = self.old.height.max(self.level);
        if height > MAX_HEIGHT {
            return Err(MergeError::TooHigh { height });
        }
        let (changes, tree) = (self.batch.value_len(), self.shape.value_len_at(self.level));
        if changes != tree {
            return Err(MergeError::ValueLength { changes, tree });
        }
        Ok(())
    }

    /// Whether this level has no level above it in the old tree.
    fn at_top(&self) -> bool {
        self.level + 1 >= self.old.height
    }

    /// Finds the node that the next change falls into and merges them.
    fn gather(&mut self, nodes: &mut impl Nodes) -> Result<Step, MergeError> {
        if self.next == self.batch.len() {
            return Ok(Step::On(self.next_level()));
        }
        if self.level >= self.old.height {
            let mut group = Group::new(Key::MIN, None, self.next);
            group.take(None, &self.batch, self.batch.len());
            return Ok(Step::On(Stage::Absorb(group)));
        }
        let Ok(place) = self.place(self.batch.key(self.next), nodes) else {
            return Ok(Step::Wait(Stage::Gather, self.look_ahead(nodes)));
        };
        let separator = place
            .parent
            .as_ref()
            .map(|parent| parent.node.key(parent.index));
        self.in_bounds(
            &place.node,
            separator.unwrap_or(place.low).max(place.low),
            place.up,
        )?;
        let mut group = Group::new(place.low, place.parent, self.next);
        let end = self.batch.below(self.next, place.up);
        let loose = place.node.is_loose();
        let old = Old {
            node: place.node,
            separator,
        };
        if group.take(Some(old), &self.batch, end) || loose {
            return Ok(Step::On(Stage::Absorb(group)));
        }
        self.next = end;
        Ok(Step::On(Stage::Gather))
    }

    /// The node of this level that `key` falls into; of loose ones the first.
    fn place(&mut self, key: Key, nodes: &mut impl Nodes) -> Result<Place, Missing> {
        let mut held = Held {
            path: &mut self.path,
            nodes,
        };
        let place = descend(&self.old, self.level, &key, &mut held)?;
        match &place.parent {
            Some(parent) if place.node.is_loose() => {
                descend(&self.old, self.level, &parent.node.key(0), &mut held)
            }
            _ => Ok(place),
        }
    }

    /// What the next changes will want, in their order; the first is wanted now.
    fn look_ahead(&self, nodes: &mut impl Nodes) -> Vec<Missing> {
        let mut path = self.path.clone();
        let mut missing: Vec<Missing> = Vec::with_capacity(LOOK_AHEAD);
        let mut next = self.next;
        for _ in 0..LOOK_AHEAD_DESCENTS {
            if next == self.batch.len() || missing.len() == LOOK_AHEAD {
                break;
            }
            let mut held = Held {
                path: &mut path,
                nodes,
            };
            let up = match descend(&self.old, self.level, &self.batch.key(next), &mut held) {
                Ok(place) => place.up,
                Err(lack) => {
                    missing.push(lack);
                    lack.span.up
                }
            };
            next = self.batch.below(next, up);
        }
        missing
    }

    /// Absorbs the next sibling if that pays, else settles what becomes of the
    /// group.
    fn absorb(
        &mut self,
        mut group: Group,
        nodes: &mut impl Nodes,
        space: &mut impl Space,
    ) -> Result<Step, MergeError> {
        let capacity = self.shape.capacity(self.level);
        let sibling = if group.is_loose() {
            self.sibling(&group, None, nodes)
        } else if let Some(a) = group.poor_tail(self.level, capacity, &self.batch) {
            self.sibling(&group, Some(a), nodes)
        } else {
            Ok(None)
        };
        match sibling {
            Ok(None) => {}
            Ok(Some(sibling)) => {
                self.take_sibling(&mut group, sibling)?;
                return Ok(Step::On(Stage::Absorb(group)));
            }
            Err(missing) => return Ok(Step::Wait(Stage::Absorb(group), vec![missing])),
        }
        if self.at_top() && group.len() == 0 {
            self.release(&group, space);
            return Ok(Step::On(Stage::Done(Root::EMPTY)));
        }
        if self.at_top() && self.level > 0 && group.len() == 1 {
            self.release(&group, space);
            let ptr = group.ptr(0, &self.batch);
            return Ok(Step::On(Stage::Crown {
                ptr,
                height: self.level,
            }));
        }
        group.cut(self.level, capacity, &self.batch);
        Ok(Step::On(Stage::Write(group)))
    }

    /// The next sibling under the same parent, if its records can join a run of
    /// `a` (`None`: whatever they are).
    fn sibling(
        &self,
        group: &Group,
        a: Option<u64>,
        nodes: &mut impl Nodes,
    ) -> Result<Option<Arc<Node>>, Missing> {
        let Some(parent) = &group.parent else {
            return Ok(None);
        };
        let index = parent.index + 1;
        let a = a.filter(|_| self.level == 0);
        // A separator beyond `a` proves that the leaf has none: no need to read it.
        if index >= parent.node.len() || a.is_some_and(|a| parent.node.key(index).a > a) {
            return Ok(None);
        }
        let (ptr, level) = (parent.node.child(index), self.level);
        let (low, up) = (parent.node.key(index), parent.bound_after(index));
        let span = Span { low, up };
        let missing = Missing { ptr, level, span };
        let node = nodes.get(ptr, level).ok_or(missing)?;
        if level > 0 && leads_to_loose(&node, nodes) {
            return Ok(None);
        }
        Ok(Some(node).filter(|node| a.is_none_or(|a| node.a() == a)))
    }

    fn take_sibling(&self, group: &mut Group, node: Arc<Node>) -> Result<(), MergeError> {
        let Some(parent) = &mut group.parent else {
            return Ok(());
        };
        parent.index += 1;
        let (low, up) = (
            parent.node.key(parent.index),
            parent.bound_after(parent.index),
        );
        self.in_bounds(&node, low, up)?;
        let end = self.batch.below(group.end, up);
        group.take(
            Some(Old {
                node,
                separator: Some(low),
            }),
            &self.batch,
            end,
        );
        Ok(())
    }

    /// A node out of its parent's bounds would make the new tree wrong for good.
    fn in_bounds(&self, node: &Node, low: Key, up: Option<Key>) -> Result<(), MergeError> {
        let last = node.key(node.len() - 1);
        if node.level() == self.level && node.key(0) >= low && up.is_none_or(|up| last < up) {
            return Ok(());
        }
        Err(MergeError::Disorder {
            block: node.ptr().block,
        })
    }

    /// Writes the group's next node; after the last, passes its effects on.
    fn write(
        &mut self,
        mut group: Group,
        space: &mut impl Space,
        out: &mut Vec<Arc<Node>>,
    ) -> Result<Step, MergeError> {
        let done = group.written.len();
        let Some(&end) = group.cuts.get(done) else {
            return self.pass_on(&group, space).map(Step::On);
        };
        let Some(block) = space.alloc() else {
            self.stage = Stage::Write(group);
            return Err(MergeError::NoSpace);
        };
        let start = done.checked_sub(1).map_or(0, |last| group.cuts[last]);
        let mut builder = Builder::new(&self.shape, self.level);
        for i in start..end {
            let (key, value) = group.record(i, &self.batch);
            builder.push(key, value);
        }
        let ptr = Ptr {
            block,
            generation: self.generation,
        };
        let node = Arc::new(builder.finish(&self.shape, ptr));
        // The first covers down to where the old ones began.
        let separator = if start == 0 { group.low } else { node.key(0) };
        group.written.push((separator, ptr));
        self.counts.nodes += 1;
        self.counts.leaves += u64::from(self.level == 0);
        self.newest.set(&node);
        out.push(node);
        Ok(Step::On(Stage::Write(group)))
    }

    /// The group is written: its old nodes go, and the level above hears of it.
    fn pass_on(&mut self, group: &Group, space: &mut impl Space) -> Result<Stage, MergeError> {
        let disorder = MergeError::Disorder {
            block: group.olds.first().map_or(0, |old| old.node.ptr().block),
        };
        for (key, ptr) in group.effects() {
            let value = ptr.map(DiskPtr::from);
            let value = value.as_ref().map(zerocopy::IntoBytes::as_bytes);
            self.above.push(key, value).map_err(|_| disorder)?;
        }
        self.release(group, space);
        self.next = group.end;
        Ok(Stage::Gather)
    }

    fn release(&mut self, group: &Group, space: &mut impl Space) {
        for old in &group.olds {
            space.free(old.node.ptr().block);
        }
        let freed = group.olds.len() as u64;
        self.counts.nodes = self.counts.nodes.saturating_sub(freed);
        if self.level == 0 {
            self.counts.leaves = self.counts.leaves.saturating_sub(freed);
            let records = self.counts.records.saturating_add(group.inserted);
            self.counts.records = records.saturating_sub(group.deleted);
        }
    }

    /// The level is finished. Without effects nothing changed at all.
    fn next_level(&mut self) -> Stage {
        if self.above.is_empty() {
            return Stage::Done(self.old);
        }
        self.batch = std::mem::replace(&mut self.above, Changes::with_value_len(PTR_LEN));
        self.next = 0;
        self.level += 1;
        Stage::Gather
    }

    /// One node covers everything: it is the root, unless it has one child only.
    fn crown(
        &mut self,
        ptr: Ptr,
        height: u16,
        nodes: &mut impl Nodes,
        space: &mut impl Space,
    ) -> Step {
        let root = Root {
            ptr,
            height,
            ..self.counts
        };
        if height <= 1 {
            return Step::On(Stage::Done(root));
        }
        let level = height - 1;
        // Nodes of this merge may not be readable yet.
        let Some(node) = self
            .newest
            .get(ptr, level)
            .or_else(|| nodes.get(ptr, level))
        else {
            let (wait, span) = (Stage::Crown { ptr, height }, Span::ALL);
            return Step::Wait(wait, vec![Missing { ptr, level, span }]);
        };
        if node.len() > 1 || leads_to_loose(&node, nodes) {
            return Step::On(Stage::Done(root));
        }
        space.free(ptr.block);
        self.counts.nodes = self.counts.nodes.saturating_sub(1);
        Step::On(Stage::Crown {
            ptr: node.child(0),
            height: level,
        })
    }
}

/// Whether the children of `node` are loose: those are always at hand.
fn leads_to_loose(node: &Node, nodes: &mut impl Nodes) -> bool {
    let child = nodes.get(node.child(0), node.level() - 1);
    child.is_some_and(|child| child.is_loose())
}
