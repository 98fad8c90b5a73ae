//! How volumes and snapshots look to people: what the store knows of them, and how
//! they are served.

use snapstore::engine::{SnapshotInfo, SnapshotState, VolumeInfo};
use uuid::Uuid;

use super::Daemon;
use super::exports::Served;
use super::origin_errors::Errors;
use super::revive;
use super::store::{Store, export_name};
use crate::control::views::{AgreedView, SnapshotStateName, SnapshotView, VolumeState, VolumeView};
use crate::ublk::Openers;

/// What is served under a name, for a view.
#[derive(Default)]
struct Ways {
    device: Option<String>,
    link: Option<String>,
    agreed: Option<AgreedView>,
    export: Option<String>,
    clients: u64,
}

impl Daemon {
    fn ways(&self, name: &str) -> Ways {
        let visitors = self.visits.clients(name);
        let Some(served) = self.exports.get(name) else {
            return Ways {
                clients: visitors,
                ..Ways::default()
            };
        };
        let Served { device, nbd, .. } = &served;
        let device = device.as_ref().zip(self.devices.as_ref());
        let link = device.and_then(|(device, devices)| devices.link_of(device));
        Ways {
            device: device.map(|(device, _)| device.path().display().to_string()),
            link: link.map(|path| path.display().to_string()),
            agreed: device.map(|(device, _)| device.agreed()),
            export: nbd.as_ref().map(|_| name.to_owned()),
            clients: served.clients() + visitors,
        }
    }

    /// How a volume looks.
    pub(super) fn volume_view(&self, store: &Store, info: VolumeInfo) -> VolumeView {
        let not_served = store.not_served.lock().get(&info.id).cloned();
        let errors = store.handlers.origin_errors.of(info.id);
        let state = match (&not_served, &errors) {
            (Some(not_served), _) => not_served.state,
            (None, Some(Errors { gone: true, .. })) => VolumeState::OriginMissing,
            (None, _) => VolumeState::Served,
        };
        let failed = errors.map(|errors| revive::problem(&errors, &info, store));
        let ways = self.ways(&info.name);
        VolumeView {
            device: ways.device,
            link: ways.link,
            agreed: ways.agreed,
            clients: ways.clients,
            uses: ways.clients,
            state,
            size: info.size,
            snapshots: info.snapshots,
            held_bytes: info.held_bytes,
            origin: info.origin,
            store: store.path.display().to_string(),
            policy: info.policy.into(),
            full_wait_s: info.full_wait_s,
            created_ms: info.created_ms,
            uuid: Uuid::from_bytes(info.uuid).to_string(),
            problem: not_served.map(|why| why.problem).or(failed),
            name: info.name,
        }
    }

    /// Adds to the uses of a volume those of its block device, after a look at the system.
    pub(super) fn count_openers_of(&self, view: &mut VolumeView) {
        let served = self.exports.get(&view.name);
        let device = served.and_then(|served| served.device);
        let Some(id) = device.map(|device| device.block().id()) else {
            return;
        };
        match Openers::of_all(&[id]) {
            Ok(openers) => view.uses += openers.iter().map(Openers::count).sum::<u64>(),
            Err(error) => tracing::warn!(%error, "uses of a block device are not counted"),
        }
    }

    /// How a snapshot of `volume` looks.
    pub(super) fn snapshot_view(&self, volume: &str, info: SnapshotInfo) -> SnapshotView {
        let (state, dropped) = match info.state {
            SnapshotState::Live => (SnapshotStateName::Live, None),
            SnapshotState::Dropped(reason) => {
                (SnapshotStateName::Dropped, Some(reason.to_string()))
            }
        };
        let ways = self.ways(&export_name(volume, &info.name));
        SnapshotView {
            volume: volume.to_owned(),
            name: info.name,
            tag: info.tag.0,
            created_ms: info.created_ms,
            size: info.size,
            exclusive_bytes: info.exclusive_bytes,
            shared_bytes: info.shared_bytes,
            priority: info.priority,
            state,
            dropped,
            mapped: info.mapped,
            held: info.held,
            device: ways.device,
            link: ways.link,
            agreed: ways.agreed,
            export: ways.export,
            clients: ways.clients,
            uses: ways.clients,
        }
    }

    /// Adds to the uses of snapshots those of their block devices, after one look at
    /// the system for all of them.
    pub(super) fn count_openers(&self, views: &mut [SnapshotView]) {
        let device_of = |view: &SnapshotView| {
            let served = self.exports.get(&export_name(&view.volume, &view.name))?;
            served.device.map(|device| device.block().id())
        };
        let devices: Vec<Option<u32>> = views.iter().map(device_of).collect();
        let ids: Vec<u32> = devices.iter().flatten().copied().collect();
        let openers = match Openers::of_all(&ids) {
            Ok(openers) => openers,
            Err(error) => return tracing::warn!(%error, "uses of block devices are not counted"),
        };
        let with_device = views.iter_mut().zip(devices).filter(|(_, id)| id.is_some());
        for ((view, _), openers) in with_device.zip(openers) {
            view.uses += openers.count();
        }
    }
}
