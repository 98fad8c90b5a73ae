//! Block devices of the kernel: made, recovered, linked, handed over, removed.
//!
//! Order when one is made: listed in the state file, made, listed with its number
//! and announced to udev, started, linked. When it goes: the link, the device, the
//! listing. So after a kill at any point everything of ours that is in the kernel
//! is listed, and no link leads to what is not ours (`links`, `matching`). One
//! exception: a device whose making was given up stays listed, but if the driver
//! makes it only after another was made for the same thing, or after that thing is
//! gone, it is not. It never starts and holds nothing but its number. csnapd does
//! not look for such devices: they look like those of another csnapd that serves
//! a copy of the store.
//!
//! A device that an earlier csnapd left is recovered if what it serves is served
//! again, removed if that is gone for good, and otherwise left alone: its I/O
//! waits, and `Daemon::waiting` says for what.

mod identity;
mod left;
mod links;
mod matching;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use identity::Key;
pub use left::{exists, left_in_kernel};
pub use links::{DEFAULT_DIR, LinkError, Links};
pub use matching::{Found, find, is_dead};

use super::events::{Events, NewEvent};
use super::failures::busy;
use super::state::{ListedDevice, StateFile};
use super::store::Store;
use super::udev::Announcements;
use crate::control::protocol::Failure;
use crate::control::views::{AgreedView, Level};
use crate::export::ExportTarget;
use crate::runtime::{BlockDevice, BlockError, BlockOpen, BlockOptions, Removed, Runtime, Spread};
use crate::ublk::char::disk;
use crate::ublk::uapi::SECTOR;
use crate::ublk::{CharDevice, Control, UblkError, ZeroCopy};

/// How long a device of a csnapd that was killed may need to become free: until
/// the last I/O of the dead process has landed.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// How block devices are made.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// How data moves, where the kernel can.
    pub zero_copy: ZeroCopy,
    /// Requests each queue can hold.
    pub queue_depth: u16,
    /// Which I/O threads serve them.
    pub spread: Spread,
    /// Directory of the links.
    pub link_dir: PathBuf,
    /// The daemon's run directory: where udev's rules learn what a device is.
    pub run_dir: PathBuf,
}

/// A block device that is served.
#[derive(Debug)]
pub struct Device {
    key: Key,
    name: String,
    block: Arc<BlockDevice>,
}

impl Device {
    /// What it serves.
    #[must_use]
    pub fn key(&self) -> Key {
        self.key
    }

    /// Its path, `/dev/ublkbN`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.block.path()
    }

    /// The device itself.
    #[must_use]
    pub fn block(&self) -> &BlockDevice {
        &self.block
    }

    /// What was agreed with the kernel.
    #[must_use]
    pub fn agreed(&self) -> AgreedView {
        let agreed = self.block.agreed();
        AgreedView {
            zero_copy: agreed.zero_copy.into(),
            queues: agreed.queues,
            depth: agreed.depth,
            max_io_bytes: agreed.max_io_bytes,
            per_io_daemons: agreed.per_io,
            features: super::front::names(agreed.features),
        }
    }

    /// Refuses while somebody has it open, and says who.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`](crate::control::protocol::ErrorCode::Busy).
    pub fn must_be_idle(&self) -> Result<(), Failure> {
        match self.block.openers() {
            Ok(openers) if openers.is_empty() => Ok(()),
            Ok(openers) => Err(self.open(&openers)),
            // Nobody can say: the removal itself will find out.
            Err(_) => Ok(()),
        }
    }

    fn open(&self, by: &dyn std::fmt::Display) -> Failure {
        let (path, name) = (self.path(), &self.name);
        let message = format!("{} of {name} is open: {by}", path.display());
        busy(message, "unmount it or end what uses it; or use --force")
    }
}

/// csnapd was killed between the growth of a volume and that of its device.
fn fit(device: &Device) {
    let known = device.block.agreed().params.basic.dev_sectors;
    let size = device.block.size();
    if known != size / SECTOR
        && let Err(error) = device.block.resize(size)
    {
        tracing::warn!(device = %device.path().display(), %error, "it keeps its old size");
    }
}

/// Whether the driver may still make a device of which this is the failure: it is
/// then found by its identity when the same is served again.
fn made_late(error: &BlockError) -> bool {
    matches!(
        error,
        BlockError::Ublk(UblkError::TimedOut { id: None, .. })
    )
}

/// The number that is listed for `key`, unless it has become another's since.
fn only_of(key: Key, listed: &[ListedDevice]) -> Option<u32> {
    let id = listed.iter().find(|entry| entry.key() == key)?.id?;
    let mut others = listed.iter().filter(|entry| entry.key() != key);
    others.all(|entry| entry.id != Some(id)).then_some(id)
}

/// What became of a device at an orderly stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It is gone.
    Removed,
    /// It waits in the kernel for the next csnapd.
    HandedOver,
}

/// The block devices' side of the daemon.
#[derive(Debug)]
pub struct Devices {
    control: Arc<Control>,
    options: DeviceOptions,
    links: Links,
    udev: Announcements,
    runtime: Arc<Runtime>,
    state: Arc<StateFile>,
    events: Arc<Events>,
}

impl Devices {
    /// Devices made through `control`.
    #[must_use]
    pub fn new(
        control: Arc<Control>,
        options: DeviceOptions,
        runtime: Arc<Runtime>,
        (state, events): (Arc<StateFile>, Arc<Events>),
    ) -> Self {
        let links = Links::new(options.link_dir.clone());
        let udev = Announcements::new(&options.run_dir);
        let listed = state.get().devices;
        let numbers: Vec<u32> = listed.iter().filter_map(|entry| entry.id).collect();
        udev.keep_only(&numbers);
        Self {
            control,
            options,
            links,
            udev,
            runtime,
            state,
            events,
        }
    }

    /// Serves `target`: on the device that an earlier csnapd left for it, or on a
    /// new one.
    ///
    /// # Errors
    /// When the kernel refuses, or somebody else serves the device.
    pub fn open(
        &self,
        store: &Store,
        target: ExportTarget,
        name: &str,
    ) -> Result<Arc<Device>, Failure> {
        let key = Key::new(store.uuid, target);
        let how = self.settle(key, name)?;
        if how == BlockOpen::New {
            self.withdraw(key);
            let listed = ListedDevice::new(key, name, None);
            self.state.update(|state| state.list_device(listed))?;
        }
        let options = BlockOptions {
            identity: key.identity(),
            zero_copy: self.options.zero_copy,
            queue_depth: self.options.queue_depth,
            spread: self.options.spread,
            announce: &|id| self.announce(key, name, id),
        };
        let block = self
            .runtime
            .open_block(&self.control, &store.handle, target, how, &options)
            .map_err(|error| {
                if !made_late(&error) {
                    self.forget_if_gone(key);
                }
                Failure::from(error)
            })?;
        let name = name.to_owned();
        let device = Arc::new(Device { key, name, block });
        fit(&device);
        self.link(&device);
        self.say_served(store, &device, how);
        Ok(device)
    }

    /// Which device to be, once an earlier server has gone.
    fn settle(&self, key: Key, name: &str) -> Result<BlockOpen, Failure> {
        match self.settled(key)? {
            Found::Gone => Ok(BlockOpen::New),
            Found::Waiting(id) => Ok(BlockOpen::Recover { id }),
            Found::Dead(id) => {
                self.delete_dead(key, id)?;
                Ok(BlockOpen::New)
            }
            Found::Served { id, pid } => {
                let path = disk(id);
                let message = format!(
                    "{} of {name} is still served by process {pid}",
                    path.display()
                );
                Err(busy(message, "end that process, or wait for its last I/O"))
            }
        }
    }

    /// Deletes a device that never started, or stopped, unless somebody has its
    /// server's end: then it is another csnapd's, which serves a copy of the store.
    fn delete_dead(&self, key: Key, id: u32) -> Result<(), UblkError> {
        // Held until it is deleted, so that nobody begins to serve it meanwhile.
        let server = match CharDevice::open(id, PATIENCE) {
            Ok(server) => server,
            Err(error) => {
                tracing::warn!(id, %error, "a device that is not served is left alone");
                return Ok(());
            }
        };
        let deleted = match self.control.info(id) {
            Ok(now) if is_dead(key, &now) => self.control.delete_async(id),
            other => other.map(drop),
        };
        drop(server);
        match deleted {
            Err(UblkError::NoDevice(_)) => Ok(()),
            other => other,
        }
    }

    /// What the kernel has of `key`, after patience with one that is served: its
    /// csnapd was killed and the kernel is still cleaning up after it.
    fn settled(&self, key: Key) -> Result<Found, UblkError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.found(key)?;
            let served = matches!(found, Found::Served { .. });
            if !served || Instant::now() >= deadline {
                return Ok(found);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// What the kernel has of `key` now.
    fn found(&self, key: Key) -> Result<Found, UblkError> {
        let listed = self.state.get().devices;
        let Some(entry) = listed.iter().find(|entry| entry.key() == key) else {
            return Ok(Found::Gone);
        };
        let devices = match entry.id {
            None => self.control.devices()?,
            Some(id) => match self.control.info(id) {
                Ok(info) => vec![info],
                Err(UblkError::NoDevice(_)) => Vec::new(),
                Err(error) => return Err(error),
            },
        };
        Ok(find(key, &listed, &devices))
    }

    /// The number of a device that nobody can see yet.
    fn announce(&self, key: Key, name: &str, id: u32) {
        let listed = ListedDevice::new(key, name, Some(id));
        // Without the number it is found by its identity alone.
        if let Err(error) = self.state.update(|state| state.list_device(listed)) {
            tracing::warn!(id, %error, "the number of a device is not kept");
        }
        let (volume, snapshot) = match name.split_once('@') {
            Some((volume, snapshot)) => (volume, Some(snapshot)),
            None => (name, None),
        };
        if let Err(error) = self.udev.announce(id, volume, snapshot) {
            tracing::warn!(id, %error, "udev is not told what a device is");
        }
    }

    fn link(&self, device: &Device) {
        if let Err(error) = self.links.set(&device.name, &device.path()) {
            let message = format!("{} has no link: {error}", device.path().display());
            self.events
                .add(NewEvent::new(Level::Warning, "no-link", message));
        }
    }

    /// The link that leads to a device.
    #[must_use]
    pub fn link_of(&self, device: &Device) -> Option<PathBuf> {
        self.links.get(&device.name, &device.path())
    }

    fn say_served(&self, store: &Store, device: &Device, how: BlockOpen) {
        let how = match how {
            BlockOpen::New => "serves",
            BlockOpen::Recover { .. } => "was recovered and serves",
        };
        let message = format!("{} {how} {}", device.path().display(), device.name);
        let event = NewEvent::new(Level::Info, "device-served", message);
        self.events.add(event.store(&store.path));
    }

    /// Removes a device. Without `force` refuses while somebody has it open.
    ///
    /// # Errors
    /// See [`BlockDevice::remove`]: then all is as before.
    pub fn remove(&self, device: &Device, force: bool) -> Result<(), BlockError> {
        self.links.remove(&device.path());
        let removed = device.block.remove(force);
        match removed {
            Ok(Removed::Gone) => self.forget(device.key),
            // It stays listed: the next who serves the same deletes it.
            Ok(Removed::Stopped) => {}
            Err(_) => self.link(device),
        }
        removed.map(drop)
    }

    /// As [`Self::remove`] without force, told to a person.
    ///
    /// # Errors
    /// Who has it open, or what failed.
    pub fn remove_idle(&self, device: &Device) -> Result<(), Failure> {
        self.remove(device, false).map_err(|error| {
            if !matches!(error, BlockError::Open { .. }) {
                return error.into();
            }
            match device.must_be_idle() {
                Err(open) => open,
                Ok(()) => device.open(&"by somebody who has left by now"),
            }
        })
    }

    /// Lets go of a device at an orderly stop: removes it if nobody has it open,
    /// else leaves it to the next csnapd.
    ///
    /// # Errors
    /// When its last writes may still be under way.
    pub fn leave(&self, device: &Device) -> Result<Left, BlockError> {
        match self.remove(device, false) {
            Ok(()) => return Ok(Left::Removed),
            Err(BlockError::Open { .. }) => {}
            Err(error) => {
                // What cannot be removed may still be handed over.
                tracing::warn!(device = %device.path().display(), %error, "it cannot be removed");
            }
        }
        if !device.block.hand_over()? {
            return Ok(Left::Removed);
        }
        let message = format!(
            "{} of {} is open: its I/O waits for the next csnapd",
            device.path().display(),
            device.name
        );
        self.events
            .add(NewEvent::new(Level::Info, "device-waits", message));
        Ok(Left::HandedOver)
    }

    /// Takes the announcement back of the number that is listed for `key`.
    fn withdraw(&self, key: Key) {
        let listed = self.state.get().devices;
        if let Some(id) = only_of(key, &listed) {
            self.udev.withdraw(id);
        }
    }

    fn forget(&self, key: Key) {
        self.withdraw(key);
        // It is found to be gone at the next start.
        if let Err(error) = self.state.update(|state| state.forget_device(key)) {
            tracing::warn!(%error, "a device that is gone stays listed");
        }
    }

    /// A device could not be made: it is not to be looked for, unless something of
    /// it is left in the kernel.
    fn forget_if_gone(&self, key: Key) {
        match self.found(key) {
            Ok(Found::Gone) => self.forget(key),
            Ok(Found::Dead(id)) if self.delete_dead(key, id).is_ok() => self.forget(key),
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_making_that_was_given_up_may_still_make_a_device() {
        let given_up = |command, id| {
            let after = PATIENCE;
            BlockError::Ublk(UblkError::TimedOut { command, id, after })
        };
        assert!(made_late(&given_up("make", None)));
        assert!(!made_late(&given_up("start", Some(3))));
        assert!(!made_late(&BlockError::Lanes(3)));
        let refused = UblkError::Unsupported { command: "make" };
        assert!(!made_late(&refused.into()));
    }

    #[test]
    fn a_number_that_another_device_has_by_now_is_not_taken_back() {
        let key = |volume| Key {
            store: uuid::Uuid::from_u128(1),
            volume,
            tag: None,
        };
        let listed = |volume, id| ListedDevice::new(key(volume), "web", id);
        let list = [listed(1, Some(3)), listed(2, None), listed(4, Some(5))];
        assert_eq!(only_of(key(1), &list), Some(3));
        assert_eq!(only_of(key(2), &list), None);
        assert_eq!(only_of(key(9), &list), None);
        let list = [listed(1, Some(3)), listed(2, Some(3))];
        assert_eq!(only_of(key(1), &list), None);
    }
}
