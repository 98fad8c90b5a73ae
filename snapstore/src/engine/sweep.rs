//! Going through a range of exceptions, one leaf of a tree at a time.
//!
//! A window is what one leaf says with what the tables above the tree say of the same
//! keys, which is newer and hides it. A sweep that lacks a node stays where it is and
//! keeps the nodes it was given, as every parked task does (see `lookup`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Engine;
use super::lookup::{Known, TreeId};
use crate::format::exception::Place;
use crate::state::MemTable;
use crate::tree::{Key, Missing, Node, scan};

/// In which order exceptions are gone through.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// By volume, chunk and tag.
    Chunks,
    /// By volume, tag and chunk.
    Eras,
}

impl Order {
    /// The tree that has them in this order.
    pub(super) fn tree(self) -> TreeId {
        match self {
            Self::Chunks => TreeId::Exceptions,
            Self::Eras => TreeId::Eras,
        }
    }

    /// What a table says of a range; `None`: the exception was purged.
    fn of(self, table: &MemTable, from: Key, to: Key) -> Vec<(Key, Option<Place>)> {
        match self {
            Self::Chunks => table.places(from, to).collect(),
            Self::Eras => table.eras(from, to).collect(),
        }
    }
}

/// Exceptions in order, and where the next ones begin; `None`: there are no more.
type Window = (Vec<(Key, Place)>, Option<Key>);

/// A range that is gone through.
#[derive(Debug)]
pub(super) struct Sweep {
    order: Order,
    /// What is left begins here.
    pub(super) cursor: Key,
    pub(super) end: Key,
    /// Windows read so far.
    pub(super) windows: u32,
    pub(super) pinned: Vec<Arc<Node>>,
}

impl Sweep {
    pub(super) fn new(order: Order, from: Key, end: Key) -> Self {
        Self {
            order,
            cursor: from,
            end,
            windows: 0,
            pinned: Vec::new(),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.cursor >= self.end
    }
}

impl Engine {
    /// The next window of the sweep that `of` finds; empty if it is gone.
    pub(super) fn next_window(
        &mut self,
        of: impl Fn(&mut Self) -> Option<&mut Sweep>,
    ) -> Result<Vec<(Key, Place)>, Missing> {
        let Some(sweep) = of(self) else {
            return Ok(Vec::new());
        };
        let (order, from, end) = (sweep.order, sweep.cursor, sweep.end);
        let pinned = std::mem::take(&mut sweep.pinned);
        let window = self.read_window(order, from, end, &pinned);
        let Some(sweep) = of(self) else {
            return Ok(Vec::new());
        };
        match window {
            Ok((exceptions, next)) => {
                sweep.cursor = next.unwrap_or(end);
                sweep.windows += 1;
                Ok(exceptions)
            }
            Err(missing) => {
                sweep.pinned = pinned;
                Err(missing)
            }
        }
    }

    /// The exceptions there are in `from..end`, as far as one leaf of the tree knows.
    fn read_window(
        &mut self,
        order: Order,
        from: Key,
        end: Key,
        pinned: &[Arc<Node>],
    ) -> Result<Window, Missing> {
        let mut nodes = Known {
            cache: &mut self.cache,
            pinned,
        };
        let (leaf, next) = scan(self.roots.get(order.tree()), from, end, &mut nodes)?;
        let to = next.unwrap_or(end);
        let mut found = BTreeMap::new();
        if let Some((leaf, range)) = leaf {
            found.extend(range.map(|i| (leaf.key(i), Some(Place::decode(leaf.value(i))))));
        }
        if let Some(frozen) = &self.checkpoint.frozen {
            found.extend(order.of(frozen, from, to));
        }
        found.extend(order.of(&self.state.recent, from, to));
        let there = found
            .into_iter()
            .filter_map(|(key, place)| Some((key, place?)));
        Ok((there.collect(), next))
    }
}
