//! Opening what a crash left, and what must hold of it whatever the crash was.

use snapstore::check::{CheckOptions, check};
use snapstore::engine::{self, Engine};
use snapstore::recover::{Recovered, load};
use snapstore::{BlockDevice, Tag, VolumeId};

use super::disk::SimDisk;
use super::disk::sync::SyncOrigins;
use super::oracle::ledger::origin_at;
use super::oracle::reconcile::Inventory;
use super::value::SECTOR;
use super::{Outcome, Violation};

/// A snapshot, as a list names it.
pub type Named = (VolumeId, Tag, String);

/// Loads and recovers a store.
///
/// # Errors
/// When it cannot be.
pub fn recover(
    store: &mut impl BlockDevice,
    origins: &[SimDisk],
    config: engine::Config,
) -> Outcome<(Engine, Recovered)> {
    let wrong = |what, error| Violation(format!("cannot {what} after a stop: {error}"));
    let loaded = load(store).map_err(|e| wrong("load", e))?;
    let chunk = u64::from(loaded.chunk_size()) / SECTOR as u64;
    let disk_of = |path: &str| origins.get(origin_at(path)?);
    let volumes = loaded.volumes();
    let disks = volumes
        .iter()
        .filter_map(|v| Some((v.id, disk_of(&v.origin)?)))
        .collect();
    let mut origins = SyncOrigins { disks, chunk };
    let recovered = loaded.recover(store, &mut origins, config);
    recovered.map_err(|e| wrong("recover", e))
}

/// The snapshots that a store says it holds before it is recovered.
///
/// # Errors
/// When it cannot be loaded.
pub fn listed(store: &mut impl BlockDevice) -> Outcome<Vec<Named>> {
    let loaded = load(store).map_err(|e| Violation(format!("cannot load: {e}")))?;
    let volumes = loaded.volumes();
    let live = volumes.iter().filter(|v| !v.deleting);
    let list = live.flat_map(|v| loaded.snapshots(v.id));
    Ok(list.map(|s| (s.volume, s.tag, s.name)).collect())
}

/// The snapshots that were found.
#[must_use]
pub fn named(found: &Inventory) -> Vec<Named> {
    let live = found.volumes.iter().filter(|v| !v.deleting);
    let list = live.filter_map(|v| found.snapshots.get(&v.id)).flatten();
    list.map(|s| (s.volume, s.tag, s.name.clone())).collect()
}

/// Loading and recovering must agree on what exists.
///
/// # Errors
/// When they do not.
pub fn same_things(listed: &[Named], found: &Inventory) -> Outcome {
    let list = named(found);
    if list == listed {
        return Ok(());
    }
    Err(Violation(format!("loaded {listed:?}, recovered {list:?}")))
}

/// Whether nothing had to be recovered.
#[must_use]
pub fn was_orderly(recovered: &Recovered) -> bool {
    recovered.clean && recovered.replayed == 0 && recovered.dropped == 0
}

/// Checks the whole store, data included.
///
/// # Errors
/// What is wrong with it.
pub fn must_be_sound(store: &mut impl BlockDevice, when: &str) -> Outcome {
    let report = check(store, CheckOptions { data: true }, &mut |_, _| {})
        .map_err(|e| Violation(format!("cannot check {when}: {e}")))?;
    if report.problems.is_empty() {
        return Ok(());
    }
    Err(Violation(format!("check {when}: {:#?}", report.problems)))
}
