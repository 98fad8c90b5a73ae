//! Snapshots that are read over NBD without being mapped: each is an export from the
//! moment somebody asks for it by name until its last reader has left. Nothing of it
//! outlasts csnapd, and no block device is made.
//!
//! Contract: a snapshot is deleted or renamed, and its volume or store let go, only when
//! nobody reads it so, or when the readers may be cut off (`Daemon::dismiss`). Whoever
//! opened an export before that and comes to use it after finds it closed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use snapstore::engine::{SnapshotInfo, SnapshotState, VolumeInfo};

use super::Daemon;
use super::failures::busy;
use super::store::{Store, export_name};
use super::withdraw::{FAREWELL, Leaving};
use crate::control::protocol::{ErrorCode, Failure, SnapshotName};
use crate::export::{Export, ExportTarget};
use crate::nbd::{ExportEntry, ExportInfo, Exports, Refusal, RefusalKind, Since};
use crate::runtime::Seat;

/// How long somebody who connects waits for a change of the store that is under way.
const PATIENCE: Duration = Duration::from_secs(5);

/// The exports of snapshots that are not mapped, by name.
#[derive(Debug, Default)]
pub struct Visits(Mutex<BTreeMap<String, Arc<Export>>>);

impl Visits {
    /// Clients that read the snapshot of this name so.
    #[must_use]
    pub fn clients(&self, name: &str) -> u64 {
        let visits = self.0.lock();
        visits.get(name).map_or(0, |e| e.connections() as u64)
    }

    /// All clients there are.
    #[must_use]
    pub fn all_clients(&self) -> u64 {
        let visits = self.0.lock();
        visits.values().map(|e| e.connections() as u64).sum()
    }

    fn get(&self, name: &str) -> Option<Arc<Export>> {
        self.0.lock().get(name).cloned()
    }

    /// Adds one, and forgets those that nobody uses.
    fn insert(&self, name: String, export: Arc<Export>) {
        let mut visits = self.0.lock();
        visits.retain(|_, export| export.connections() > 0 || Arc::strong_count(export) > 1);
        visits.insert(name, export);
    }

    /// Takes those out whose names are `wanted`.
    fn take(&self, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, Arc<Export>> {
        let mut visits = self.0.lock();
        let all = std::mem::take(&mut *visits);
        let (taken, left) = all.into_iter().partition(|(name, _)| wanted(name));
        *visits = left;
        taken
    }

    fn put_back(&self, taken: BTreeMap<String, Arc<Export>>) {
        self.0.lock().extend(taken);
    }
}

impl Daemon {
    /// Makes an end of all reading of snapshots that are called so, or whose volumes are.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`] when there are readers who may not be disturbed; nothing has
    /// changed then.
    pub(super) fn dismiss(&self, names: &[String], leaving: Leaving) -> Result<(), Failure> {
        let is_meant = |name: &str| {
            let volume = name.split_once('@').map_or(name, |(volume, _)| volume);
            names
                .iter()
                .any(|wanted| wanted == name || wanted == volume)
        };
        let taken = self.visits.take(is_meant);
        let read = taken.iter().find(|(_, export)| export.connections() > 0);
        if let (Some((name, export)), Leaving::Asking) = (read, leaving) {
            let message = match export.connections() {
                1 => format!("{name} is read by an NBD client"),
                count => format!("{name} is read by {count} NBD clients"),
            };
            self.visits.put_back(taken);
            return Err(busy(
                message,
                "wait until they have finished, or disconnect them",
            ));
        }
        // Together, so that one who does not read keeps nobody waiting for the others.
        std::thread::scope(|scope| {
            for (name, export) in &taken {
                scope.spawn(move || {
                    if let Err(cut) = export.close(FAREWELL) {
                        tracing::warn!(export = %name, "{cut}");
                    }
                });
            }
        });
        Ok(())
    }

    /// An export of a snapshot that is not mapped, or has a block device alone.
    fn visit(&self, name: &str) -> Result<Arc<Export>, Failure> {
        let Some((volume, snapshot)) = name.split_once('@') else {
            let message = format!("there is no export {name:?}");
            return Err(Failure::new(ErrorCode::NotFound, message)
                .next("csnapctl status shows the volumes, and why one is not served"));
        };
        let wanted = SnapshotName {
            volume: volume.to_owned(),
            name: snapshot.to_owned(),
            tag: None,
        };
        // One that was dismissed is closed, whoever still finds it.
        if let Some(export) = self.visits.get(name) {
            return Ok(export);
        }
        let (store, _) = self.volume(&wanted.volume)?;
        // Else it could be deleted before anybody knows of its reader.
        let Some(_changing) = store.changing.try_lock_for(PATIENCE) else {
            let message = format!("the store of {name} is being changed");
            return Err(busy(message, "connect again when that is done"));
        };
        let (now, volume, snapshot) = self.snapshot(&wanted)?;
        if !Arc::ptr_eq(&store, &now) {
            let message = format!("{name} has just moved to another store");
            return Err(busy(message, "connect again"));
        }
        if let Some(export) = self.visits.get(name) {
            return Ok(export);
        }
        must_be_readable(&store, &volume, &snapshot)?;
        let target = ExportTarget::Snapshot(volume.id, snapshot.tag);
        let export = self.runtime.open_export(&store.handle, target)?;
        self.visits.insert(name.to_owned(), export.clone());
        Ok(export)
    }
}

/// Refuses what was dropped, and whose origin is not at hand.
pub(super) fn must_be_readable(
    store: &Store,
    volume: &VolumeInfo,
    snapshot: &SnapshotInfo,
) -> Result<(), Failure> {
    if let SnapshotState::Dropped(reason) = snapshot.state {
        let name = export_name(&volume.name, &snapshot.name);
        let message = format!("snapshot {name} was dropped: {reason}");
        return Err(Failure::new(ErrorCode::Error, message)
            .next("its contents are gone; delete it: csnapctl snapshot delete"));
    }
    match store.not_served.lock().get(&volume.id) {
        None => Ok(()),
        Some(why) => {
            let message = format!("{} is not served: {}", volume.name, why.problem.message);
            Err(busy(message, &why.problem.next))
        }
    }
}

/// An export, and room for a client of it.
pub struct Seated {
    /// The export.
    pub export: Arc<Export>,
    /// The client's.
    pub seat: Seat,
}

/// Volumes and mapped snapshots where NBD is a front end, and every snapshot that can be
/// read, whatever the front end is.
impl Exports for Daemon {
    type Export = Seated;

    fn list(&self) -> Vec<ExportEntry> {
        let entry = |name, on_demand| ExportEntry { name, on_demand };
        let served = self.exports.names_with_nbd().into_iter();
        let mut entries: Vec<_> = served.map(|name| entry(name, false)).collect();
        for (store, volume) in self.volumes_by_name() {
            let snapshots = store.snapshots(volume.id);
            let readable = snapshots
                .iter()
                .filter(|snapshot| must_be_readable(&store, &volume, snapshot).is_ok());
            let names = readable.map(|snapshot| export_name(&volume.name, &snapshot.name));
            let others = names.filter(|name| !self.exports.has_nbd(name));
            entries.extend(others.map(|name| entry(name, true)));
        }
        entries
    }

    fn describe(&self, name: &str) -> String {
        let text = match (name.contains('@'), self.exports.has_nbd(name)) {
            (false, _) => "live origin",
            (true, true) => "snapshot (read-only)",
            (true, false) => "snapshot (read-only, not mapped)",
        };
        text.to_owned()
    }

    fn older(&self, name: &str) -> Vec<(String, Since)> {
        let (volume, snapshot) = match name.split_once('@') {
            Some((volume, snapshot)) => (volume, Some(snapshot)),
            None => (name, None),
        };
        let Some((store, volume)) = self.find_volume(volume) else {
            return Vec::new();
        };
        let snapshots = store.snapshots(volume.id);
        let own = snapshots.iter().find(|s| Some(s.name.as_str()) == snapshot);
        if snapshot.is_some() && own.is_none() {
            return Vec::new();
        }
        let own = own.map(|own| own.tag);
        let older = snapshots.into_iter().filter(|snapshot| {
            own.is_none_or(|own| snapshot.tag < own) && snapshot.state == SnapshotState::Live
        });
        let since = |snapshot: SnapshotInfo| Since {
            tag: snapshot.tag.0,
            size: snapshot.size,
        };
        older
            .map(|older| (older.name.clone(), since(older)))
            .collect()
    }

    fn open(&self, name: &str) -> Result<(Seated, ExportInfo), Refusal> {
        let seat = self.runtime.seat().ok_or_else(|| Refusal {
            kind: RefusalKind::Policy,
            message: "csnapd has as many connections as it takes; try again later".into(),
        })?;
        let export = match self.exports.open(name)? {
            Some(export) => export,
            None => self.visit(name).map_err(|failure| refusal(&failure))?,
        };
        let info = export.info();
        Ok((Seated { export, seat }, info))
    }
}

fn refusal(failure: &Failure) -> Refusal {
    Refusal {
        kind: match failure.code {
            ErrorCode::NotFound => RefusalKind::Unknown,
            _ => RefusalKind::Policy,
        },
        message: failure.to_string(),
    }
}
