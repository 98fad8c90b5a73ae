//! From an origin to its export, and of snapshots that are mapped.
//!
//! Contract: the store durably knows that an origin is being used (its fingerprint is
//! forgotten, for a number of this use), and so does the state file, before the first
//! client is admitted to it.

use std::sync::Arc;

use snapstore::VolumeId;
use snapstore::engine::{Command, DropReason, SnapshotInfo, SnapshotState, VolumeInfo};

use super::Daemon;
use super::devices::{self, Key};
use super::events::NewEvent;
use super::exports::Served;
use super::failures::busy;
use super::fingerprint;
use super::origin::{self, Betrayed, Consent, NotServed, Verdict};
use super::store::{Store, export_name};
use crate::control::protocol::Failure;
use crate::control::views::Level;
use crate::device::OriginDevice;
use crate::export::ExportTarget;
use crate::ublk::char;

impl Daemon {
    /// Serves a volume, or records why not.
    pub(super) fn serve_or_say_why(
        &self,
        store: &Arc<Store>,
        info: &VolumeInfo,
        origin: OriginDevice,
        consent: Consent<'_>,
    ) {
        let result = self.prepare(store, info, &origin, consent).and_then(|()| {
            let served = self.serve(store, info, origin);
            served.map_err(|failure| NotServed::failed(&failure, &store.path))
        });
        match result {
            Ok(()) => drop(store.not_served.lock().remove(&info.id)),
            Err(why) => drop(store.not_served.lock().insert(info.id, why)),
        }
    }

    /// Judges the origin; drops snapshots it betrayed, if that was accepted. So goes
    /// what waits in devices of the volume: it was meant for what the origin held
    /// before, and must not be written over what it holds now.
    fn prepare(
        &self,
        store: &Store,
        info: &VolumeInfo,
        origin: &OriginDevice,
        consent: Consent<'_>,
    ) -> Result<(), NotServed> {
        let failed = |failure: Failure| NotServed::failed(&failure, &store.path);
        // Before anything is forgotten that the next csnapd judges by.
        self.must_not_wait_elsewhere(store, &info.name, ExportTarget::Origin(info.id))
            .map_err(failed)?;
        let verdict = origin::judge(info, origin, &store.path)?;
        let evidence = consent.heard(&info.name, self.evidence(store.uuid, info, origin));
        let betrayed = Betrayed {
            snapshots: has_live_snapshots(store, info.id),
            waiting: self.volume_waits(store, info.id),
        };
        if (verdict == Verdict::Changed || evidence.any()) && betrayed.any() {
            if !consent.changed.contains(&info.name) {
                let remembered = self.remember_foreign(store, info.id, evidence.foreign);
                remembered.map_err(|error| failed(error.into()))?;
                return Err(origin::changed(info, &store.path, betrayed, evidence));
            }
            if let Some(devices) = &self.devices {
                devices
                    .give_up_volume(store.uuid, info.id)
                    .map_err(failed)?;
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
        // After a crash, too: another csnapd must not take this use of it for its own.
        let seal = Command::Seal {
            volume: info.id,
            seal: fingerprint::used(),
        };
        let sealed = store.handle.command(seal);
        sealed.map(drop).map_err(|error| failed(error.into()))
    }

    /// Gives the origin to the lanes and admits clients to it and to its mapped
    /// snapshots.
    pub(super) fn serve(
        &self,
        store: &Arc<Store>,
        info: &VolumeInfo,
        origin: OriginDevice,
    ) -> Result<(), Failure> {
        let origin = Arc::new(origin);
        let target = ExportTarget::Origin(info.id);
        let marked = self.mark_taken(store, info.id, &origin);
        let attached = marked.map_err(Failure::from).and_then(|()| {
            let attached = store.handle.attach_origin(info.id, origin.clone());
            attached.map_err(Failure::from)
        });
        let admitted = attached.and_then(|()| {
            store.handlers.watch(info.id, origin.clone());
            self.admit(store, info.name.clone(), target)
        });
        if let Err(failure) = admitted {
            self.let_go(store, info, &origin);
            return Err(failure);
        }
        let live = |snapshot: &SnapshotInfo| snapshot.state == SnapshotState::Live;
        for snapshot in store
            .snapshots(info.id)
            .iter()
            .filter(|s| s.mapped && live(s))
        {
            if let Err(failure) = self.serve_snapshot(store, info, snapshot) {
                let message = format!(
                    "mapped snapshot {}@{} cannot be served: {failure}",
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
    pub(super) fn serve_snapshot(
        &self,
        store: &Arc<Store>,
        volume: &VolumeInfo,
        snapshot: &SnapshotInfo,
    ) -> Result<(), Failure> {
        let target = ExportTarget::Snapshot(volume.id, snapshot.tag);
        self.admit(store, export_name(&volume.name, &snapshot.name), target)
    }

    /// Serves `target` in every way of the front end, or in none.
    pub(super) fn admit(
        &self,
        store: &Arc<Store>,
        name: String,
        target: ExportTarget,
    ) -> Result<(), Failure> {
        self.must_not_wait_elsewhere(store, &name, target)?;
        let nbd = self
            .choice
            .nbd()
            .then(|| self.runtime.open_export(&store.handle, target))
            .transpose()?;
        let device = match &self.devices {
            Some(devices) => Some(devices.open(store, target, &name)?),
            None => None,
        };
        let served = Served {
            target,
            device,
            nbd,
        };
        self.exports.insert(name, served);
        Ok(())
    }

    /// Refuses to serve over NBD alone what a block device of an earlier csnapd
    /// still has users for: their writes would come later, over what NBD clients
    /// wrote meanwhile.
    fn must_not_wait_elsewhere(
        &self,
        store: &Store,
        name: &str,
        target: ExportTarget,
    ) -> Result<(), Failure> {
        let key = Key::new(store.uuid, target);
        let listed = self.state.get().devices.into_iter();
        let id = listed
            .filter(|entry| entry.key() == key)
            .find_map(|entry| entry.id.filter(|id| devices::exists(*id)));
        match id.filter(|_| self.devices.is_none()) {
            None => Ok(()),
            Some(id) => {
                let path = char::disk(id);
                let message = format!(
                    "{} of {name} waits with the I/O of its users: it cannot be served over NBD as well",
                    path.display()
                );
                Err(busy(message, "start csnapd with --frontend ublk or both"))
            }
        }
    }
}

pub(super) fn has_live_snapshots(store: &Store, volume: VolumeId) -> bool {
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
