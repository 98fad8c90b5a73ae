//! Devices that an earlier csnapd left: which will be served again, which wait for
//! a person, and which go because what they served is gone.

use std::sync::Arc;

use snapstore::engine::SnapshotState;
use snapstore::{Tag, VolumeId};

use super::Daemon;
use super::devices::{self, Key};
use super::state::ListedDevice;
use super::store::Store;
use crate::control::views::{Problem, WaitingView};
use crate::device::Identity;
use crate::ublk::char;

impl Daemon {
    /// Removes devices of a store of which the volume, or the mapped snapshot, is
    /// no more. Those that can be served again later stay.
    pub(super) fn clean_devices(&self, store: &Store) {
        let Some(devices) = &self.devices else {
            return;
        };
        let (volumes, exports) = (store.volumes(), &self.exports);
        let known = |key: Key| {
            let volume = VolumeId(key.volume);
            let readable = |tag: u64| {
                store.snapshots(volume).iter().any(|snapshot| {
                    snapshot.tag == Tag(tag)
                        && snapshot.mapped
                        && snapshot.state == SnapshotState::Live
                })
            };
            volumes.iter().any(|info| info.id == volume) && key.tag.is_none_or(readable)
        };
        devices.clean(store.uuid, |key| exports.has_device(key) || known(key));
    }

    /// Devices that are in the kernel, but not served, and what each waits for.
    pub(super) fn waiting(&self) -> Vec<WaitingView> {
        let mut waiting = self.state.get().devices;
        waiting.retain(|entry| !self.exports.has_device(entry.key()) && self.waits_for_us(entry));
        let view = |entry: &ListedDevice| WaitingView {
            device: entry.id.map(|id| char::disk(id).display().to_string()),
            name: entry.name.clone(),
            store: self.path_of(entry),
            problem: self.waits_for(entry),
        };
        waiting.iter().map(view).collect()
    }

    /// Whether a device of this volume, or of a snapshot of it, waits.
    pub(super) fn volume_waits(&self, store: &Store, volume: VolumeId) -> bool {
        let listed = self.state.get().devices;
        let mut of_volume = listed
            .iter()
            .filter(|entry| entry.is_of(store.uuid, volume));
        of_volume.any(|entry| self.is_there(entry))
    }

    fn waits_for_us(&self, entry: &ListedDevice) -> bool {
        match &self.devices {
            Some(devices) => devices.waits_for_us(entry),
            None => self.is_there(entry),
        }
    }

    fn is_there(&self, entry: &ListedDevice) -> bool {
        match &self.devices {
            Some(devices) => devices.waits(entry),
            None => entry.id.is_some_and(devices::exists),
        }
    }

    fn path_of(&self, entry: &ListedDevice) -> String {
        let stores = self.state.get().stores;
        let listed = stores.iter().find(|store| store.uuid == entry.store);
        listed.map_or_else(
            || entry.store.to_string(),
            |store| store.path.display().to_string(),
        )
    }

    fn waits_for(&self, entry: &ListedDevice) -> Problem {
        let problem = |why: String, next: String| Problem {
            message: format!("its device waits with the I/O of its users: {why}"),
            next,
        };
        if self.devices.is_none() {
            return problem(
                format!("csnapd serves NBD only ({})", self.choice.why),
                "start csnapd with --frontend ublk".to_owned(),
            );
        }
        let Some(store) = self.store_of(entry) else {
            let path = self.path_of(entry);
            let next = format!(
                "csnapctl store attach {path}; or give it up: csnapctl store detach --force {path}"
            );
            return problem(format!("store {path} is not attached"), next);
        };
        let not_served = store.not_served.lock();
        match (not_served.get(&VolumeId(entry.volume)), entry.tag) {
            (Some(why), _) => problem(why.problem.message.clone(), why.problem.next.clone()),
            (None, None) => problem(
                "it could not be recovered".to_owned(),
                format!("csnapctl store attach {}", store.path.display()),
            ),
            (None, Some(_)) => problem(
                "it could not be recovered; see csnapctl events".to_owned(),
                format!("csnapctl snapshot map {}", entry.name),
            ),
        }
    }

    fn store_of(&self, entry: &ListedDevice) -> Option<Arc<Store>> {
        let mut stores = self.stores().into_iter();
        stores.find(|store| store.uuid == entry.store)
    }

    /// The device of our own that `what` is or lies on, if any: used below csnap
    /// it would wait for itself.
    pub(super) fn own_device_below(&self, what: Identity) -> Option<ListedDevice> {
        let mut devices = self.state.get().devices.into_iter();
        devices.find(|entry| {
            let id = entry
                .id
                .filter(|_| self.is_there(entry) || self.exports.has_device(entry.key()));
            id.and_then(Identity::of_ublk)
                .is_some_and(|own| what.lies_on(own))
        })
    }
}
