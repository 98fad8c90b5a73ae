//! Making a damaged store sound again. Nobody may serve it meanwhile.
//!
//! What can be derived is derived anew: the allocation bitmap from what uses a block,
//! the counters from the exceptions, the eras from the exceptions, a superblock from
//! the other one. What cannot is lost, and exactly that is said:
//!
//! | damaged | what is done |
//! |---|---|
//! | superblock | written anew from the other one and the journal |
//! | bitmap, sharing counters | counted anew |
//! | era tree | made anew from the exceptions |
//! | exception tree | the eras tell which exceptions are gone: each becomes LOST |
//! | both in the same place | the snapshots that may have needed it are dropped |
//! | snapshot table | the snapshots are gone, and what only they needed is given back |
//! | volume table | likewise its volumes; their origins are complete as they are |
//! | journal before its end | every snapshot is dropped: what is missing may concern it |
//! | chunk (`data`) | its exception becomes LOST |
//!
//! Before anything is given up, the checkpoint before is tried: with the journal that
//! followed it, it often tells all that the damaged one did.
//!
//! **Order.** `plan` only reads. Then trees are rebuilt in blocks that nothing good
//! uses, and an engine over the result writes a checkpoint as it always does, its
//! superblock last and not over the one relied upon. A second checkpoint replaces the
//! other superblock. A crash anywhere leaves the store as it was or repaired, but for
//! blocks that only a damaged node led to: the repair is done again.
//!
//! Memory: three bits per block of the store, the tables, the journal, 8 bytes per
//! tree node, and at most about a million lost exceptions (with more of them in a
//! volume its snapshots are dropped).

mod judge;
mod lost;
mod plan;
mod rebuild;
mod report;
pub(crate) mod scan;
mod tables;
#[cfg(test)]
mod tests;

pub use report::{Loss, Named, Repair};

use self::plan::{Plan, Verify, plan};
use self::rebuild::Builder;
use crate::check::{CheckOptions, check, newest_store, read_copy};
use crate::device::{BlockDevice, NoOrigins};
use crate::drive::checkpoint;
use crate::engine::{Config, TreeId};
use crate::format::exception::{ERA_LEN, Place};
use crate::recover::{Loaded, Newest, OpenError};
use crate::tree::{Key, Root};

/// How a store is repaired.
#[derive(Clone, Copy, Debug, Default)]
pub struct RepairOptions {
    /// Also read every kept chunk; damaged ones are lost.
    pub data: bool,
    /// Only find out what would be done.
    pub dry_run: bool,
}

/// Why a store cannot be repaired.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepairError {
    /// It cannot even be checked, or its new checkpoint cannot be written.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The device gives other answers each time.
    #[error(transparent)]
    Unstable(#[from] Unstable),
    /// The two trees have little to do with each other.
    #[error(
        "exception tree and era tree differ in more than a million places; restore the store from a copy"
    )]
    TooDifferent,
    /// A tree cannot be built anew.
    #[error("the {what} cannot be built anew: {reason}")]
    Build {
        /// Which.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

/// A tree reads differently each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the device gives different answers when the {0} is read again; copy it to a good device first"
)]
pub struct Unstable(&'static str);

/// Repairs a store that nobody serves. `progress` is of the checks, before and after.
///
/// An exception at the journal's torn end is lost, since no origin is at hand to prove
/// that it never was needed: a store that can be opened is better opened.
///
/// # Errors
/// See [`RepairError`]. The store may then be repaired again.
pub fn repair(
    dev: &mut impl BlockDevice,
    options: RepairOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Repair, RepairError> {
    let checks = CheckOptions { data: options.data };
    let problems = check(dev, checks, progress)?.problems;
    let mut report = Repair {
        problems,
        ..Repair::default()
    };
    if report.problems.is_empty() {
        return Ok(report);
    }
    let plan = best_plan(dev, options.data, &mut report)?;
    report.chunk_size = plan.newest.superblock.chunk_size.get();
    report.losses = plan.losses.clone();
    report.rebuilt = rebuilt(&plan);
    if options.dry_run {
        return Ok(report);
    }
    carry_out(dev, plan)?;
    report.remaining = check(dev, checks, progress)?.problems;
    Ok(report)
}

/// The newest checkpoint, or the one before when only that one loses nothing.
fn best_plan(
    dev: &mut impl BlockDevice,
    data: bool,
    report: &mut Repair,
) -> Result<Plan, RepairError> {
    let newest = newest_store(dev)?;
    let verify = Verify {
        old: data,
        recent: data,
    };
    let best = plan(dev, &newest, verify)?;
    // A hole in the newest journal is one under the checkpoint before, too, even where
    // that one takes it for the end.
    if best.losses.is_empty() || best.journal_broken {
        return Ok(best);
    }
    let Some(before) = other(dev, &newest) else {
        return Ok(best);
    };
    // Recovery may have dropped exceptions without a record: their data does not match.
    let verify = Verify {
        recent: true,
        ..verify
    };
    let complete = plan(dev, &before, verify)?;
    // It must tell all that the newest checkpoint held, not only be without holes.
    let reaches = complete.journal_end >= newest.superblock.journal_tail.get();
    let whole = complete.losses.is_empty() && complete.trees.exceptions.holes.is_empty();
    if !whole || !reaches || complete.journal_broken {
        return Ok(best);
    }
    report.older_checkpoint = Some(before.generation);
    Ok(complete)
}

/// The checkpoint before, by the other superblock.
fn other(dev: &mut impl BlockDevice, newest: &Newest) -> Option<Newest> {
    let superblock = &newest.superblock;
    let at = match superblock.address(newest.generation) {
        0 => superblock.blocks.get() - 1,
        _ => 0,
    };
    let (other, generation) = read_copy(dev, at).ok()?;
    let same = other.uuid == superblock.uuid && other.blocks == superblock.blocks;
    (same && generation < newest.generation).then_some(Newest {
        superblock: other,
        generation,
    })
}

fn rebuilt(plan: &Plan) -> Vec<&'static str> {
    let mut rebuilt = vec!["superblocks", "allocation bitmap", "counters"];
    if !plan.trees.exceptions.whole() {
        rebuilt.push(TreeId::Exceptions.name());
    }
    if rebuild_eras(plan) {
        rebuilt.push(TreeId::Eras.name());
    }
    rebuilt
}

fn rebuild_eras(plan: &Plan) -> bool {
    plan.trees.eras_differ || !plan.trees.eras.whole()
}

fn carry_out(dev: &mut impl BlockDevice, mut plan: Plan) -> Result<(), RepairError> {
    // What was read is what stays.
    dev.flush().map_err(|error| OpenError::Device {
        what: "store",
        error,
    })?;
    let generation = next_generation(dev, &plan.newest);
    rebuild_trees(dev, &mut plan, generation)?;
    let Plan {
        geometry,
        mut roots,
        state,
        space,
        replay,
        ..
    } = plan;
    for table in [TreeId::Volumes, TreeId::Snapshots, TreeId::Sharing] {
        roots.set(table, Root::EMPTY);
    }
    let loaded = Loaded {
        geometry,
        generation: generation - 1,
        state,
        roots,
        alloc: space.alloc,
        replay,
        clean: false,
        high: Vec::new(),
        damage: Vec::new(),
    };
    let (mut engine, _) = loaded.write_checkpoint(dev, &mut NoOrigins, Config::default())?;
    // In the place of the other superblock, whatever that is.
    checkpoint(&mut engine, dev)?;
    Ok(())
}

/// Newer than both superblocks, and not in the place of the one relied upon.
fn next_generation(dev: &mut impl BlockDevice, relied: &Newest) -> u64 {
    let superblock = &relied.superblock;
    let last = superblock.blocks.get() - 1;
    let mut newest = relied.generation;
    let mut good = None;
    for at in [0, last] {
        if let Ok((copy, generation)) = read_copy(dev, at) {
            newest = newest.max(generation);
            if copy == *superblock && generation == relied.generation {
                good = Some(at);
            }
        }
    }
    let next = newest + 1;
    next + u64::from(Some(superblock.address(next)) == good)
}

/// Writes damaged trees anew; the others stay where they are.
fn rebuild_trees(
    dev: &mut impl BlockDevice,
    plan: &mut Plan,
    generation: u64,
) -> Result<(), RepairError> {
    let eras = rebuild_eras(plan);
    let (trees, alloc) = (&plan.trees, &mut plan.space.alloc);
    let mut result = Ok(());
    if !trees.exceptions.whole() {
        let mut builder = Builder::new(TreeId::Exceptions, &plan.geometry, alloc, generation);
        scan::revisit(
            dev,
            &plan.geometry,
            TreeId::Exceptions,
            &trees.exceptions,
            &mut |dev, node| {
                for index in 0..node.len() {
                    if result.is_ok() {
                        result = builder.push(dev, node.key(index), node.value(index));
                    }
                }
            },
        )?;
        result.clone()?;
        plan.roots.exceptions = builder.finish(dev)?;
    } else {
        let nodes = trees.exceptions.nodes.iter();
        nodes.for_each(|block| alloc.claim(*block, 1));
    }
    if eras {
        let mut builder = Builder::new(TreeId::Eras, &plan.geometry, alloc, generation);
        scan::revisit(
            dev,
            &plan.geometry,
            TreeId::Exceptions,
            &trees.exceptions,
            &mut |dev, node| {
                for index in 0..node.len() {
                    if result.is_ok() {
                        let (key, value) = era(node.key(index), node.value(index));
                        result = builder.push(dev, key, &value);
                    }
                }
            },
        )?;
        result?;
        plan.roots.eras = builder.finish(dev)?;
    } else {
        let nodes = trees.eras.nodes.iter();
        nodes.for_each(|block| alloc.claim(*block, 1));
    }
    Ok(())
}

/// The era of an exception.
fn era(key: Key, value: &[u8]) -> (Key, Vec<u8>) {
    let mut era = Vec::with_capacity(ERA_LEN);
    Place::decode(value).encode(&mut era);
    (Key::new(key.a, key.c, key.b), era)
}
