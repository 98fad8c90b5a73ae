//! How many blocks a merge may allocate: what must be reserved before it starts.
//!
//! At one level let `m` puts or deletes hit `t` nodes of capacity `c`, and let `r`
//! be the runs of a foreign `a` that changes bring into leaves.
//! - Each hit node is rewritten, and either splits or (when poor) absorbs siblings.
//!   Poor siblings absorbed on the way leave nothing extra; the one that ends the
//!   poverty is one node more, and the records of both, fewer than `5c/4` plus the
//!   changes, are cut into at most `ceil(8/7 * (5/4 + m/c)) <= 2 + 2m/c` nodes. A
//!   node that splits without absorbing has at most `c + m` records, hence no more
//!   than that either. (For `m < c/2` the ceiling is 2; beyond that, `2m/c` exceeds
//!   what is rounded.)
//! - Each foreign run is a node of its own and may split or absorb likewise.
//!
//! Together at most `2(t + r) + ceil(2m/c)` new nodes. `r` is at most `m`, and at
//! most twice the number of different `a`s: an `a` can be foreign only to the leaf
//! before and the leaf after those that hold it.
//!
//! One level up `m` is the number of new nodes (deletes make nothing grow), `r` is
//! 0, and `t` is at most the groups below, hence at most the `t` below. Interior
//! levels do not widen upwards, so level `n` has at most `interior / n` nodes.
//! Above the old root one fresh node per `c` records at 7/8 remains, less than
//! `ceil(2m/c)`.

use super::Root;
use super::layout::Shape;

/// An upper bound on the blocks a merge of `changes` changes into `root`
/// allocates. `distinct` is an upper bound on the different `a`s among them
/// (`changes` if unknown).
#[must_use]
pub fn worst_case_nodes(root: &Root, changes: usize, distinct: usize, shape: &Shape) -> u64 {
    let changes = changes as u64;
    let runs = (distinct as u64).saturating_mul(2).min(changes);
    let mut hit = root.leaves.min(changes);
    let mut fresh = level_bound(hit.saturating_add(runs), changes, shape.capacity(0));
    let mut total = fresh;
    let interior = root.nodes.saturating_sub(root.leaves);
    let mut level = 1;
    while fresh > 0 && (level < root.height || fresh > 1) {
        hit = hit.min(width(root, interior, level));
        fresh = level_bound(hit, fresh, shape.capacity(level));
        total = total.saturating_add(fresh);
        level += 1;
    }
    total
}

fn level_bound(hit: u64, changes: u64, capacity: usize) -> u64 {
    let grown = changes.saturating_mul(2).div_ceil(capacity.max(1) as u64);
    hit.saturating_mul(2).saturating_add(grown)
}

/// Nodes an interior level of the old tree has at most.
fn width(root: &Root, interior: u64, level: u16) -> u64 {
    match root.height.saturating_sub(level) {
        0 => 0,
        1 => 1,
        _ => (interior / u64::from(level)).max(1),
    }
}
