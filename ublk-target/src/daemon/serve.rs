//! From an origin to its export, and of snapshots that are mapped.
//!
//! Contract: the store durably knows that an origin is being used (its
//! fingerprint is forgotten) before the first client is admitted to it.

use std::sync::Arc;
use std::time::Duration;

use snapstore::VolumeId;
use snapstore::engine::{Command, DropReason, SnapshotInfo, SnapshotState, VolumeInfo};

use super::Daemon;
use super::events::NewEvent;
use super::failures::busy;
use super::origin::{self, NotServed, Verdict};
use super::store::{Store, export_name};
use crate::control::protocol::Failure;
use crate::control::views::Level;
use crate::device::OriginDevice;
use crate::export::{Export, ExportTarget};

/// How long clients may take to finish what they have asked for.
const FAREWELL: Duration = Duration::from_secs(5);

impl Daemon {
    /// Serves a volume, or records why not.
    pub(super) fn serve_or_say_why(
        &self,
        store: &Arc<Store>,
        info: &VolumeInfo,
        origin: OriginDevice,
        accepted: bool,
    ) {
        let result = self.prepare(store, info, &origin, accepted).and_then(|()| {
            let served = self.serve(store, info, origin);
            served.map_err(|failure| NotServed::failed(&failure, &store.path))
        });
        match result {
            Ok(()) => drop(store.not_served.lock().remove(&info.id)),
            Err(why) => drop(store.not_served.lock().insert(info.id, why)),
        }
    }

    /// Judges the origin; drops snapshots it betrayed, if that was accepted.
    fn prepare(
        &self,
        store: &Store,
        info: &VolumeInfo,
        origin: &OriginDevice,
        accepted: bool,
    ) -> Result<(), NotServed> {
        let failed = |failure: Failure| NotServed::failed(&failure, &store.path);
        let verdict = origin::judge(info, origin, &store.path)?;
        if verdict == Verdict::Changed && has_live_snapshots(store, info.id) {
            if !accepted {
                return Err(origin::changed(info, &store.path));
            }
            let reason = DropReason::OriginChanged;
            let drop_all = Command::DropSnapshots {
                volume: info.id,
                reason,
            };
            store
                .handle
                .command(drop_all)
                .map_err(|error| failed(error.into()))?;
        }
        if info.fingerprint.is_some() {
            let forget = Command::SetFingerprint {
                volume: info.id,
                fingerprint: None,
            };
            store
                .handle
                .command(forget)
                .map_err(|error| failed(error.into()))?;
        }
        Ok(())
    }

    /// Gives the origin to the lanes and admits clients to it and to its mapped
    /// snapshots.
    pub(super) fn serve(
        &self,
        store: &Arc<Store>,
        info: &VolumeInfo,
        origin: OriginDevice,
    ) -> Result<(), Failure> {
        store.handle.attach_origin(info.id, origin)?;
        let export = self
            .runtime
            .open_export(&store.handle, ExportTarget::Origin(info.id))?;
        self.exports.insert(info.name.clone(), export);
        let live = |snapshot: &SnapshotInfo| snapshot.state == SnapshotState::Live;
        for snapshot in store
            .snapshots(info.id)
            .iter()
            .filter(|s| s.mapped && live(s))
        {
            if let Err(failure) = self.export_snapshot(store, info, snapshot) {
                let message = format!(
                    "mapped snapshot {}@{} cannot be exported: {failure}",
                    info.name, snapshot.name
                );
                let event = NewEvent::new(Level::Error, "snapshot-not-mapped", message);
                self.events
                    .add(event.volume(&info.name).snapshot(&snapshot.name));
            }
        }
        Ok(())
    }

    /// Admits clients to a snapshot.
    pub(super) fn export_snapshot(
        &self,
        store: &Arc<Store>,
        volume: &VolumeInfo,
        snapshot: &SnapshotInfo,
    ) -> Result<(), Failure> {
        let target = ExportTarget::Snapshot(volume.id, snapshot.tag);
        let export = self.runtime.open_export(&store.handle, target)?;
        self.exports
            .insert(export_name(&volume.name, &snapshot.name), export);
        Ok(())
    }

    /// Takes exports away: admits nobody, disconnects who is there. Without
    /// `force` any client is a reason to leave all as it was. Returns the exports
    /// whose clients did not finish in time: their last writes may still be under
    /// way.
    pub(super) fn withdraw(&self, names: &[String], force: bool) -> Result<Vec<String>, Failure> {
        // Out of the table first, so that nobody connects after the count.
        let taken: Vec<(&String, Arc<Export>)> = names
            .iter()
            .filter_map(|name| Some((name, self.exports.remove(name)?)))
            .collect();
        let in_use = taken.iter().find(|(_, export)| export.connections() > 0);
        if let Some((name, export)) = in_use.filter(|_| !force) {
            let message = format!("{} clients are connected to {name}", export.connections());
            for (name, export) in &taken {
                self.exports.insert((*name).clone(), export.clone());
            }
            return Err(busy(message, "disconnect them first, or use --force"));
        }
        let mut cut_off = Vec::new();
        for (name, export) in taken {
            if let Err(cut) = export.close(FAREWELL) {
                tracing::warn!(export = %name, "{cut}");
                cut_off.push(name.clone());
            }
        }
        Ok(cut_off)
    }
}

fn has_live_snapshots(store: &Store, volume: VolumeId) -> bool {
    store
        .snapshots(volume)
        .iter()
        .any(|snapshot| snapshot.state == SnapshotState::Live)
}

/// The names of every export of a volume: its own and its snapshots'.
pub(super) fn export_names(store: &Store, info: &VolumeInfo) -> Vec<String> {
    let snapshots = store.snapshots(info.id);
    let mapped = snapshots.iter().filter(|snapshot| snapshot.mapped);
    let mut names: Vec<String> = mapped
        .map(|snapshot| export_name(&info.name, &snapshot.name))
        .collect();
    names.push(info.name.clone());
    names
}
