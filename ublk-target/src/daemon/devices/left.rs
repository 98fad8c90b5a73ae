//! Devices that an earlier csnapd left and that are not served now: which wait for
//! what, and which go because nothing will ever serve them again.

use std::path::Path;

use snapstore::VolumeId;
use uuid::Uuid;

use super::{Devices, Found, Key};
use crate::control::protocol::Failure;
use crate::control::views::Level;
use crate::daemon::events::NewEvent;
use crate::daemon::failures::busy;
use crate::daemon::state::ListedDevice;
use crate::ublk::char::disk;

impl Devices {
    /// Removes devices of a store that nothing will serve again: `wanted` says no.
    /// Those that are served now are wanted.
    pub fn clean(&self, store: Uuid, wanted: impl Fn(Key) -> bool) {
        let listed = self.state.get().devices;
        let of_store = listed.iter().filter(|entry| entry.store == store);
        for entry in of_store.filter(|entry| !wanted(entry.key())) {
            if let Err(failure) = self.discard(entry, "what it served is gone") {
                let message = format!(
                    "the device of {}, which is gone, cannot be removed: {failure}",
                    entry.name
                );
                self.events
                    .add(NewEvent::new(Level::Error, "device-stuck", message));
            }
        }
    }

    /// Stops and removes a device that waits. Whoever has it open gets I/O errors.
    fn discard(&self, entry: &ListedDevice, why: &str) -> Result<(), Failure> {
        let id = match self.settled(entry.key())? {
            Found::Gone => {
                self.forget(entry.key());
                return Ok(());
            }
            Found::Dead(id) => {
                self.delete_dead(entry.key(), id)?;
                self.links.remove(&disk(id));
                self.forget(entry.key());
                return Ok(());
            }
            Found::Waiting(id) => id,
            Found::Served { id, pid } => {
                let path = disk(id);
                let message = format!("{} is served by process {pid}", path.display());
                return Err(busy(message, "end that process"));
            }
        };
        let path = disk(id);
        self.links.remove(&path);
        self.control.stop(id)?;
        // Somebody may have it open and hold on to it for long.
        self.control.delete_async(id)?;
        self.forget(entry.key());
        let message = format!("{} of {} was removed: {why}", path.display(), entry.name);
        self.events
            .add(NewEvent::new(Level::Warning, "device-removed", message));
        Ok(())
    }

    /// Devices of a store, of these names, that are in the kernel without anybody
    /// serving them.
    fn waiting_of(&self, store: Uuid, names: Option<&[String]>) -> Vec<ListedDevice> {
        let mut waiting = self.state.get().devices;
        waiting.retain(|entry| {
            entry.store == store
                && names.is_none_or(|names| names.contains(&entry.name))
                && matches!(self.found(entry.key()), Ok(Found::Waiting(_)))
        });
        waiting
    }

    /// Gives up devices of a store that wait, those of these names or all: what
    /// they serve is to be served no more.
    ///
    /// # Errors
    /// Without `force` refuses if there is one: somebody may have it open.
    pub fn give_up(
        &self,
        store: Uuid,
        names: Option<&[String]>,
        force: bool,
    ) -> Result<(), Failure> {
        for entry in self.waiting_of(store, names) {
            if !force {
                let message = format!(
                    "{} of {} waits with the I/O of its users",
                    entry.id.map_or("a device".into(), path_text),
                    entry.name
                );
                return Err(busy(
                    message,
                    "serve it again (csnapctl status says what it waits for); or use --force: its users get I/O errors",
                ));
            }
            self.discard(&entry, "it was given up")?;
        }
        Ok(())
    }

    /// Gives up what waits in devices of a volume, its snapshots' included: the origin
    /// is no more what they were made for.
    ///
    /// # Errors
    /// When one cannot be removed, or is served by another process.
    pub fn give_up_volume(&self, store: Uuid, volume: VolumeId) -> Result<(), Failure> {
        let listed = self.state.get().devices;
        let mut of_volume = listed.iter().filter(|entry| entry.is_of(store, volume));
        of_volume.try_for_each(|entry| self.discard(entry, "its origin was changed without csnap"))
    }

    /// Whether a device that is listed waits for us: also one that cannot be looked at.
    #[must_use]
    pub fn waits_for_us(&self, entry: &ListedDevice) -> bool {
        let me = i32::try_from(std::process::id()).unwrap_or_default();
        self.found(entry.key())
            .map_or(true, |found| found.waits_for(me))
    }

    /// Whether the kernel still has a device that is listed, and it started.
    #[must_use]
    pub fn waits(&self, entry: &ListedDevice) -> bool {
        !matches!(self.found(entry.key()), Ok(Found::Gone | Found::Dead(_)))
    }
}

fn path_text(id: u32) -> String {
    disk(id).display().to_string()
}

/// Whether the kernel has a device of this number, whosever it is: what can be
/// told without its driver.
#[must_use]
pub fn exists(id: u32) -> bool {
    Path::new(&format!("/sys/class/ublk-char/ublkc{id}")).exists()
}

/// The nodes of listed devices that the kernel still has, as far as can be told
/// without its driver.
#[must_use]
pub fn left_in_kernel(listed: &[ListedDevice]) -> Vec<String> {
    let ids = listed.iter().filter_map(|entry| entry.id);
    ids.filter(|id| exists(*id)).map(path_text).collect()
}
