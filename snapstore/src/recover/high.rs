//! Reading the high nodes of the exceptions' two trees when a store is opened.

use super::OpenError;
use super::tables::read_twice;
use crate::device::BlockDevice;
use crate::engine::{Geometry, Roots, TreeId};
use crate::tree::{HIGH, Node, Walk};

/// Reads the nodes that stay in memory, of both trees: few, as each leads to a hundred
/// nodes that lead to a hundred leaves.
///
/// # Errors
/// [`OpenError::Damaged`] for one that is not good: what lies below it cannot be found
/// while the store is served, and a repair finds it at little or no cost.
pub(super) fn load_high(
    dev: &mut impl BlockDevice,
    geometry: &Geometry,
    roots: &Roots,
) -> Result<Vec<Node>, OpenError> {
    let mut high = Vec::new();
    for tree in [TreeId::Exceptions, TreeId::Eras] {
        let what = tree.name();
        let shape = geometry.shape(tree);
        let fault = |block, damage: String| OpenError::Damaged {
            what,
            block,
            damage,
        };
        let root = *roots.get(tree);
        let walk = Walk::new(root);
        let mut walk = walk.map_err(|f| fault(root.ptr.block, f.to_string()))?;
        while let Some(missing) = walk.next() {
            if missing.level >= HIGH {
                let node = read_twice(dev, what, &missing, &shape)?;
                let entered = walk.enter(&node);
                entered.map_err(|f| fault(missing.ptr.block, f.to_string()))?;
                high.push(node);
            }
        }
    }
    Ok(high)
}
