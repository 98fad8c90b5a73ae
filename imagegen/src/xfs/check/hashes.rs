//! The tree by hash of directories and attributes: nodes above leaves, checked level by
//! level, so that neighbours can be compared.

use super::problem::{Kind, Problems};
use crate::xfs::format::dir::NodeInfo;
use crate::xfs::read::ForkMap;
use crate::xfs::read::dir::leaf::Node;
use rustc_hash::FxHashSet;

/// A block of the tree, its contents already checked.
pub(super) enum Loaded {
    Node(Node),
    Leaf {
        info: NodeInfo,
        /// Its last hash; none if it is empty.
        last: Option<u32>,
    },
}

/// Walks the tree whose root is block `root` of the fork, leaves from left to right.
/// Returns the blocks that were reached, or nothing if some could not be read.
pub(super) fn walk(
    map: &ForkMap,
    root: u64,
    kind: Kind,
    problems: &mut Problems,
    mut load: impl FnMut(u64, &mut Problems) -> Option<Loaded>,
) -> Option<FxHashSet<u64>> {
    let mut reached = FxHashSet::default();
    let mut level: Vec<(u64, Option<u32>)> = vec![(root, None)];
    let mut whole = true;
    // Level of the blocks at hand; of the root it is not known before.
    let mut expected: Option<u16> = None;
    while !level.is_empty() {
        let mut below = Vec::new();
        let mut found_level = None;
        for (at, (offset, said)) in level.iter().enumerate() {
            let place = map.place(*offset);
            if !reached.insert(*offset) {
                problems.add(kind, place, "hash tree: a block that is reached twice");
                return None;
            }
            let Some(block) = load(*offset, problems) else {
                whole = false;
                continue;
            };
            let mut rule = |holds: bool, text: &str| {
                problems.expect(holds, kind, place, || format!("hash tree: {text}"));
            };
            let (info, last, height) = match block {
                Loaded::Leaf { info, last } => (info, last, 0),
                Loaded::Node(node) => {
                    let hashes = node.entries.windows(2);
                    let rising = hashes.into_iter().all(|two| two[0].hash <= two[1].hash);
                    rule(rising, "hashes out of order");
                    let children = node.entries.iter();
                    below.extend(
                        children
                            .map(|child| (u64::from(child.before.get()), Some(child.hash.get()))),
                    );
                    let last = node.entries.last().map(|child| child.hash.get());
                    (node.info, last, node.level)
                }
            };
            let right = expected.is_none_or(|expected| expected == height);
            rule(right, "a block of the wrong level");
            if !right {
                return None;
            }
            found_level = Some(height);
            rule(
                said.is_none() || *said == last,
                "the last hash is not what the parent says",
            );
            let neighbour = |index: Option<usize>| {
                let offset = index.and_then(|index| level.get(index));
                offset.map_or(0, |(offset, _)| *offset)
            };
            let (back, forward) = (neighbour(at.checked_sub(1)), neighbour(Some(at + 1)));
            let linked =
                u64::from(info.back.get()) == back && u64::from(info.forward.get()) == forward;
            rule(linked, "neighbours do not point to each other");
        }
        expected = found_level.and_then(|height: u16| height.checked_sub(1));
        if !below.is_empty() && expected.is_none() {
            return None;
        }
        level = below;
    }
    whole.then_some(reached)
}
