//! A bounded cache of verified nodes.
//!
//! Nodes are immutable, so an entry is never stale: a block that was freed and
//! written again has another generation, and [`Cache::get`] compares it. The
//! replacement rule is CLOCK: a hit sets one flag, an insert moves a hand past
//! flagged entries. Both are O(1) amortised and allocate nothing once full.
//!
//! Beside these, until they are removed, stay nodes that cannot be read again (*kept*)
//! and the *high* ones, of level [`HIGH`] and above: what they lead to could not be found
//! any more should one of them go bad while the store is served.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::Nodes;
use super::node::Node;
use crate::format::Ptr;

/// Level of the lowest nodes that stay: there is one for some ten thousand leaves.
pub(crate) const HIGH: u16 = 2;

/// Nodes by block, at most as many as it was made for, and those that stay.
#[derive(Debug)]
pub struct Cache {
    slots: Vec<Slot>,
    by_block: HashMap<u64, usize, BuildHasherDefault<BlockHasher>>,
    empty: Vec<usize>,
    hand: usize,
    capacity: usize,
    kept: HashMap<u64, Arc<Node>, BuildHasherDefault<BlockHasher>>,
    high: HashMap<u64, Arc<Node>, BuildHasherDefault<BlockHasher>>,
}

#[derive(Debug)]
struct Slot {
    node: Option<Arc<Node>>,
    used: bool,
}

impl Cache {
    /// A cache of at most `capacity` nodes (at least 1).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            slots: Vec::with_capacity(capacity),
            by_block: HashMap::with_capacity_and_hasher(capacity, BuildHasherDefault::default()),
            empty: Vec::new(),
            hand: 0,
            capacity,
            kept: HashMap::default(),
            high: HashMap::default(),
        }
    }

    /// Nodes held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_block.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_block.is_empty()
    }

    /// The node at `ptr`, if it is held and of that generation.
    pub fn get(&mut self, ptr: Ptr) -> Option<Arc<Node>> {
        let Some(at) = self.by_block.get(&ptr.block) else {
            let staying = self.kept.get(&ptr.block);
            let staying = staying.or_else(|| self.high.get(&ptr.block));
            return staying.filter(|n| n.ptr() == ptr).cloned();
        };
        let slot = self.slots.get_mut(*at)?;
        let node = slot.node.as_ref().filter(|node| node.ptr() == ptr)?;
        slot.used = true;
        Some(Arc::clone(node))
    }

    /// Holds `node` until it is removed, whatever the capacity.
    pub(crate) fn keep(&mut self, node: Node) {
        let block = node.ptr().block;
        self.remove(block);
        self.kept.insert(block, Arc::new(node));
    }

    /// Nodes held until they are removed.
    pub(crate) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Holds `node`, instead of what was held for its block, dropping another
    /// when full, unless it is a high one.
    pub fn insert(&mut self, node: Arc<Node>) {
        let block = node.ptr().block;
        if node.level() >= HIGH {
            self.remove(block);
            self.high.insert(block, node);
            return;
        }
        let at = match self.by_block.get(&block) {
            Some(&at) => at,
            None => self.free_slot(),
        };
        if let Some(slot) = self.slots.get_mut(at) {
            // Not `used` yet: a block read once and never again goes first.
            *slot = Slot {
                node: Some(node),
                used: false,
            };
            self.by_block.insert(block, at);
        }
    }

    /// Forgets the node at `block`: it was freed.
    pub fn remove(&mut self, block: u64) {
        self.kept.remove(&block);
        self.high.remove(&block);
        if let Some(at) = self.by_block.remove(&block) {
            self.slots[at].node = None;
            self.empty.push(at);
        }
    }

    fn free_slot(&mut self) -> usize {
        if let Some(at) = self.empty.pop() {
            return at;
        }
        if self.slots.len() < self.capacity {
            self.slots.push(Slot {
                node: None,
                used: false,
            });
            return self.slots.len() - 1;
        }
        self.evict()
    }

    /// Every slot is taken: the first not used since the hand last passed goes.
    fn evict(&mut self) -> usize {
        loop {
            let at = self.hand;
            self.hand = (at + 1) % self.slots.len();
            let slot = &mut self.slots[at];
            if std::mem::take(&mut slot.used) {
                continue;
            }
            if let Some(node) = slot.node.take() {
                self.by_block.remove(&node.ptr().block);
            }
            return at;
        }
    }
}

impl Nodes for Cache {
    fn get(&mut self, ptr: Ptr, level: u16) -> Option<Arc<Node>> {
        Self::get(self, ptr).filter(|node| node.level() == level)
    }
}

/// Block numbers come from our own allocator: one multiplication spreads them.
#[derive(Debug, Default)]
struct BlockHasher(u64);

impl Hasher for BlockHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // The table indexes by low bits and tags by the highest seven.
        self.0 = mixed ^ (mixed >> 32);
    }
}
