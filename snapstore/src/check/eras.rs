//! The era tree holds exactly the exceptions, in another order.
//!
//! Holding either tree in memory to compare them would cost too much. So each
//! record is hashed; by its key it belongs to one of 4096 groups, and a group
//! holds the sum of its exceptions' hashes minus that of its eras': 0 when they
//! are the same records, whatever their order. Only when a sum is not 0 a second
//! pass collects the records of such a group and names the culprits.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::Checker;
use super::trees::{Leaf, Step};
use crate::device::BlockDevice;
use crate::engine::TreeId;
use crate::format::exception::Place;
use crate::ids::Tag;
use crate::tree::Node;

/// Groups.
const GROUPS: usize = 4096;
/// Records of differing groups that the second pass looks at.
const COLLECT: usize = 100_000;

/// An exception, from either tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Item {
    pub(crate) volume: u64,
    pub(crate) chunk: u64,
    pub(crate) tag: u64,
    pub(crate) pred: u64,
    pub(crate) block: u64,
}

/// Volume, chunk, tag.
pub(crate) type ItemKey = (u64, u64, u64);

impl Item {
    pub(super) fn new(volume: u64, chunk: u64, tag: u64, place: Place) -> Self {
        let Place {
            pred: Tag(pred),
            block,
        } = place;
        Self {
            volume,
            chunk,
            tag,
            pred,
            block,
        }
    }

    /// Record `index` of a leaf of either tree.
    pub(crate) fn of(tree: TreeId, node: &Node, index: usize) -> Self {
        let (key, place) = (node.key(index), Place::decode(node.value(index)));
        if tree == TreeId::Eras {
            Self::new(key.a, key.c, key.b, place)
        } else {
            Self::new(key.a, key.b, key.c, place)
        }
    }

    pub(crate) fn key(&self) -> ItemKey {
        (self.volume, self.chunk, self.tag)
    }

    fn group(&self) -> usize {
        hash(0, &self.key()) as usize % GROUPS
    }

    fn hash(&self) -> u128 {
        u128::from(hash(1, self)) << 64 | u128::from(hash(2, self))
    }
}

fn hash(salt: u64, what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    salt.hash(&mut hasher);
    what.hash(&mut hasher);
    hasher.finish()
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Groups {
    sums: Vec<u128>,
}

impl Groups {
    pub(crate) fn new() -> Self {
        Self {
            sums: vec![0; GROUPS],
        }
    }

    /// Adds an exception.
    pub(crate) fn add(&mut self, item: &Item) {
        if let Some(sum) = self.sums.get_mut(item.group()) {
            *sum = sum.wrapping_add(item.hash());
        }
    }

    /// Takes an era away.
    pub(crate) fn subtract(&mut self, item: &Item) {
        if let Some(sum) = self.sums.get_mut(item.group()) {
            *sum = sum.wrapping_sub(item.hash());
        }
    }

    /// Whether all groups are the same.
    pub(crate) fn agree(&self) -> bool {
        self.sums.iter().all(|sum| *sum == 0)
    }

    /// Whether an item's group is not the same.
    pub(crate) fn differs(&self, item: &Item) -> bool {
        self.sums.get(item.group()).is_some_and(|sum| *sum != 0)
    }
}

impl<D: BlockDevice> Checker<'_, D> {
    /// Checks the era tree itself; whether it was read in full.
    pub(super) fn check_eras(&mut self, groups: &mut Groups) -> bool {
        let mut walk = self.walk(TreeId::Eras);
        while let Some(leaf) = self.next_leaf(&mut walk) {
            if let Leaf::Node(node) = leaf {
                (0..node.len())
                    .map(|index| Item::of(TreeId::Eras, &node, index))
                    .for_each(|item| groups.subtract(&item));
            }
        }
        self.finish_walk(walk)
    }

    /// Names the records that are not the same in both trees.
    pub(super) fn compare_eras(&mut self, groups: &Groups) {
        if groups.agree() {
            return;
        }
        let mut found = BTreeMap::new();
        let complete = [(0, TreeId::Exceptions), (1, TreeId::Eras)]
            .map(|(side, tree)| self.collect(tree, side, groups, &mut found));
        self.report_eras(&found, complete == [true, true]);
    }

    /// Collects a tree's records of the groups that differ; `false` when they
    /// were too many.
    fn collect(
        &mut self,
        tree: TreeId,
        side: usize,
        groups: &Groups,
        found: &mut BTreeMap<ItemKey, [Option<Item>; 2]>,
    ) -> bool {
        let mut complete = true;
        let mut walk = self.walk(tree);
        while let Some(step) = walk.next(self.dev, None) {
            let Step::Node(node) = step else {
                continue;
            };
            let leaf = if node.level() == 0 { node.len() } else { 0 };
            let items = (0..leaf).map(|index| Item::of(tree, &node, index));
            for item in items.filter(|item| groups.differs(item)) {
                let room = found.len() < COLLECT || found.contains_key(&item.key());
                complete &= room;
                if !room {
                    continue;
                }
                if let Some(place) = found.entry(item.key()).or_default().get_mut(side) {
                    *place = Some(item);
                }
            }
        }
        complete
    }

    fn report_eras(&mut self, found: &BTreeMap<ItemKey, [Option<Item>; 2]>, complete: bool) {
        for ((volume, chunk, tag), sides) in found {
            let reason = match sides {
                [Some(a), Some(b)] if a == b => continue,
                [Some(_), Some(_)] => "exception tree and era tree tell different places",
                [Some(_), None] => "it is missing in the era tree",
                _ => "the era tree tells of it, but it does not exist",
            };
            self.problems.add(format_args!(
                "exception of volume {volume}, chunk {chunk}, tag {tag}: {reason}"
            ));
        }
        if !complete {
            self.problems.add(format_args!(
                "more exceptions may differ between exception tree and era tree"
            ));
        }
    }
}
