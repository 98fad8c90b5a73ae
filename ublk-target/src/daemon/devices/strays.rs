//! Devices that the driver made after csnapd had given the ADD up: they never
//! started, are not listed, and carry the identity of something of ours.
//!
//! Another csnapd that serves a copy of the store makes devices of the same
//! identities. It has the server's end of such a device open, so one that can be
//! opened is nobody's.

use std::time::Duration;

use super::{Devices, Key, is_stray};
use crate::control::views::Level;
use crate::daemon::events::NewEvent;
use crate::daemon::store::{Store, export_name};
use crate::export::ExportTarget;
use crate::ublk::uapi::DevInfo;
use crate::ublk::{CharDevice, UblkError, char};

/// How long the server's end of a device may be held by udev.
const GLANCE: Duration = Duration::from_millis(200);

impl Devices {
    /// Removes those of a store. What fails is tried again when the next device is
    /// made.
    pub fn remove_strays(&self, store: &Store) {
        let result = self.strays(store).and_then(|strays| {
            let mut strays = strays.iter();
            strays.try_for_each(|(device, name)| self.remove_stray(device, name))
        });
        if let Err(error) = result {
            tracing::warn!(%error, "devices that never started may be left");
        }
    }

    /// Devices that may be strays, and what they were to serve.
    fn strays(&self, store: &Store) -> Result<Vec<(DevInfo, String)>, UblkError> {
        let listed = self.state.get().devices;
        let numbers: Vec<u32> = listed.iter().filter_map(|entry| entry.id).collect();
        // Almost always none is left, and the store need not be asked.
        let mut devices = self.control.devices_but(&numbers)?;
        devices.retain(|device| is_stray(&listed, device));
        if devices.is_empty() {
            return Ok(Vec::new());
        }
        let ours = identities(store);
        let named = devices.into_iter().filter_map(|device| {
            let of = ours.iter().find(|(id, _)| *id == device.ublksrv_flags);
            of.map(|(_, name)| (device, name.clone()))
        });
        Ok(named.collect())
    }

    fn remove_stray(&self, device: &DevInfo, name: &str) -> Result<(), UblkError> {
        let id = device.dev_id;
        let Ok(server) = CharDevice::open(id, GLANCE) else {
            return Ok(());
        };
        drop(server);
        // The number may have gone to another device since. One of our own is listed
        // before it is made: so look at the list last.
        let now = match self.control.info(id) {
            Err(UblkError::NoDevice(_)) => return Ok(()),
            other => other?,
        };
        let same = now.ublksrv_flags == device.ublksrv_flags;
        if !same || !is_stray(&self.state.get().devices, &now) {
            return Ok(());
        }
        self.control.delete_async(id)?;
        let path = char::node(id);
        let message = format!(
            "{}, made for {name} after csnapd had given up waiting for it, was removed",
            path.display()
        );
        self.events
            .add(NewEvent::new(Level::Warning, "device-removed", message));
        Ok(())
    }
}

/// The identity and the name of everything a store can serve.
fn identities(store: &Store) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    let identity = |target| Key::new(store.uuid, target).identity();
    for volume in store.volumes() {
        all.push((
            identity(ExportTarget::Origin(volume.id)),
            volume.name.clone(),
        ));
        for snapshot in store.snapshots(volume.id) {
            let target = ExportTarget::Snapshot(volume.id, snapshot.tag);
            all.push((identity(target), export_name(&volume.name, &snapshot.name)));
        }
    }
    all
}
