//! Looking things up. Probing changes nothing, so a probe that misses is simply
//! started again when the node is there.
//!
//! There are no sibling pointers. When the answer may lie beyond a leaf, the
//! bounds collected on the way down say whether the neighbour can hold it at all,
//! and only then is it visited, by a second descent.

use std::ops::Range;
use std::sync::Arc;

use super::descend::descend;
use super::key::Key;
use super::node::Node;
use super::{Missing, Nodes, Root};

/// A record found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its key.
    pub key: Key,
    /// The leaf that holds it.
    pub node: Arc<Node>,
    /// Its index there.
    pub index: usize,
}

impl Found {
    /// Its value.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        self.node.value(self.index)
    }

    /// Record `index` of `node`, if it has the same `a` and `b` as `key`.
    fn in_list(node: &Arc<Node>, index: Option<usize>, key: &Key) -> Option<Self> {
        let index = index.filter(|&index| index < node.len())?;
        let found = node.key(index);
        found.same_list(key).then(|| Self {
            key: found,
            node: Arc::clone(node),
            index,
        })
    }
}

/// The records with the same `(a, b)` next to a key.
#[derive(Clone, Debug, Default)]
pub struct Neighbours {
    /// The greatest `c` below the key's.
    pub floor: Option<Found>,
    /// The smallest `c` at or above the key's.
    pub ceil: Option<Found>,
    /// The leaf covering the key, so that the caller can learn from its other
    /// records. `None`: the tree is empty.
    pub leaf: Option<Arc<Node>>,
}

/// Finds the records with the same `(a, b)` next to `key`.
///
/// # Errors
/// [`Missing`]: read that node and ask again.
pub fn neighbours(root: &Root, key: Key, nodes: &mut impl Nodes) -> Result<Neighbours, Missing> {
    if root.height == 0 {
        return Ok(Neighbours::default());
    }
    let place = descend(root, 0, &key, nodes)?;
    let at = place.node.lower_bound(&key);
    let mut floor = Found::in_list(&place.node, at.checked_sub(1), &key);
    let mut ceil = Found::in_list(&place.node, Some(at), &key);

    // The next leaf begins at `up`: it can only matter if `up` is of this list.
    if let Some(up) = place
        .up
        .filter(|up| at == place.node.len() && up.same_list(&key))
    {
        let next = descend(root, 0, &up, nodes)?.node;
        ceil = Found::in_list(&next, Some(next.lower_bound(&key)), &key);
    }
    // The previous leaf ends below `low`: likewise.
    if at == 0 && place.low.same_list(&key) && place.low.c > 0 {
        let below = Key {
            c: place.low.c - 1,
            ..place.low
        };
        let previous = descend(root, 0, &below, nodes)?.node;
        floor = Found::in_list(&previous, previous.lower_bound(&key).checked_sub(1), &key);
    }
    Ok(Neighbours {
        floor,
        ceil,
        leaf: Some(place.node),
    })
}

/// One leaf's worth of the records in `from..to`, and where to go on (`None`:
/// finished). A leaf without any gives no records but still says where to go on.
///
/// # Errors
/// [`Missing`]: read that node and ask again.
#[allow(clippy::type_complexity)] // a pair, named in the sentence above
pub fn scan(
    root: &Root,
    from: Key,
    to: Key,
    nodes: &mut impl Nodes,
) -> Result<(Option<(Arc<Node>, Range<usize>)>, Option<Key>), Missing> {
    if root.height == 0 || from >= to {
        return Ok((None, None));
    }
    let place = descend(root, 0, &from, nodes)?;
    let range = place.node.lower_bound(&from)..place.node.lower_bound(&to);
    let records = (!range.is_empty()).then_some((place.node, range));
    Ok((records, place.up.filter(|up| *up < to)))
}
