//! A store as the daemon's control side has it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use snapstore::engine::{Command, CommandError, Engine, Reply};
use snapstore::{BLOCK_SIZE, Tag, VolumeId};

use super::{AttachError, ExtendError, ResizeError, Shared};
use crate::core::{Core, Stepper};
use crate::device::{OriginDevice, StoreDevice};
use crate::export::ExportTarget;
use crate::lane::{DeviceSlot, StoreSlot, Target, VolumeConfig, VolumeSlot};
use crate::ring::{File, Order};

/// An attached store. Made by [`super::Runtime::attach_store`].
pub struct StoreHandle<E: Stepper = Engine> {
    shared: Arc<Shared>,
    core: Arc<Core<E>>,
    slot: StoreSlot,
    device: DeviceSlot,
    store: Arc<StoreDevice>,
    origins: Mutex<HashMap<VolumeId, Attached>>,
}

/// An attached origin.
#[derive(Clone)]
struct Attached {
    slot: VolumeSlot,
    place: DeviceSlot,
    device: Arc<OriginDevice>,
}

/// What an export needs to be told.
pub(super) struct Facts {
    pub(super) size: u64,
    pub(super) read_only: bool,
    pub(super) block: u32,
    pub(super) chunk: u32,
}

impl<E: Stepper> std::fmt::Debug for StoreHandle<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreHandle")
            .field("path", &self.store.path())
            .finish_non_exhaustive()
    }
}

impl<E: Stepper> StoreHandle<E> {
    pub(super) fn new(
        shared: Arc<Shared>,
        core: Arc<Core<E>>,
        (slot, device): (StoreSlot, DeviceSlot),
        store: StoreDevice,
    ) -> Self {
        let store = Arc::new(store);
        Self {
            shared,
            core,
            slot,
            device,
            store,
            origins: Mutex::default(),
        }
    }

    pub(super) fn file(&self) -> File {
        Arc::new(Opened(self.store.clone()))
    }

    /// The device of the store.
    #[must_use]
    pub fn device(&self) -> &StoreDevice {
        &self.store
    }

    /// The origin of a volume, if it is attached.
    #[must_use]
    pub fn origin(&self, volume: VolumeId) -> Option<Arc<OriginDevice>> {
        self.origins
            .lock()
            .get(&volume)
            .map(|attached| attached.device.clone())
    }

    /// Gives the engine a command and waits for its reply.
    ///
    /// # Errors
    /// What the engine answers.
    pub fn command(&self, command: Command) -> Result<Reply, CommandError> {
        self.core.command(command)
    }

    /// Looks at the engine, briefly: requests wait meanwhile.
    pub fn query<T>(&self, look: impl FnOnce(&E) -> T) -> T {
        self.core.query(look)
    }

    /// Lets the lanes use the origin of a volume.
    ///
    /// # Errors
    /// When the store has no such volume, or the device does not fit it.
    pub fn attach_origin(
        &self,
        volume: VolumeId,
        device: Arc<OriginDevice>,
    ) -> Result<(), AttachError> {
        let mut origins = self.origins.lock();
        if origins.contains_key(&volume) {
            return Err(AttachError::Attached(volume));
        }
        device.must_not_share(&self.store)?;
        let known = self.query(|engine| {
            Some((
                engine.unique_map(volume)?,
                engine.volume_size(volume)?,
                engine.chunk_size(),
            ))
        });
        let (unique, size, chunk_size) = known.ok_or(AttachError::NoVolume(volume))?;
        if device.size() < size {
            let found = device.size();
            return Err(AttachError::TooSmall {
                volume,
                expected: size,
                found,
            });
        }
        let place = self.shared.take_device()?;
        let slot = VolumeSlot(self.shared.next_slot());
        let config = VolumeConfig {
            store: self.slot,
            volume,
            device: place,
            size,
            chunk_size,
            unique,
        };
        self.shared.order_all(|done| Order::AttachVolume {
            slot,
            config: config.clone(),
            file: Arc::new(Opened(device.clone())),
            tally: device.tally().cloned(),
            unsure: device.unsure().clone(),
            done,
        })?;
        origins.insert(
            volume,
            Attached {
                slot,
                place,
                device,
            },
        );
        Ok(())
    }

    /// Lets the lanes use `device` for an origin that is gone. Those who use the volume
    /// notice nothing but the errors of the time between.
    ///
    /// # Errors
    /// When the volume is not attached, or the device does not fit it.
    pub fn replace_origin(
        &self,
        volume: VolumeId,
        device: Arc<OriginDevice>,
    ) -> Result<(), AttachError> {
        let mut origins = self.origins.lock();
        let attached = origins
            .get_mut(&volume)
            .ok_or(AttachError::NotAttached(volume))?;
        device.must_not_share(&self.store)?;
        let expected = self.query(|engine| engine.volume_size(volume));
        let expected = expected.ok_or(AttachError::NoVolume(volume))?;
        if device.size() < expected {
            let found = device.size();
            return Err(AttachError::TooSmall {
                volume,
                expected,
                found,
            });
        }
        let place = attached.place;
        let old = attached.device.clone();
        let landed = || old.tally().map_or(0, |tally| tally.landed());
        let known = landed();
        if old.may_miss_writes() {
            device.doubt();
        }
        self.shared.order_all(|done| Order::ReplaceOrigin {
            device: place,
            file: Arc::new(Opened(device.clone())),
            tally: device.tally().cloned(),
            unsure: device.unsure().clone(),
            done,
        })?;
        // Threads may have learned of the end of writes until now; of the others a flush may
        // have told already.
        if landed() > known && old.may_miss_writes() {
            device.doubt();
        }
        attached.device = device;
        Ok(())
    }

    /// Makes a volume as large as `bytes` of its origin, which has at least as many
    /// already: durably, then for requests. Not below its size.
    ///
    /// # Errors
    /// When the device is not so large, or the engine refuses; nothing changed then,
    /// but see [`ResizeError::Attach`].
    pub fn resize_origin(&self, volume: VolumeId, bytes: u64) -> Result<(), ResizeError> {
        let origins = self.origins.lock();
        let attached = origins
            .get(&volume)
            .ok_or(AttachError::NotAttached(volume))?;
        let (device, wanted) = (&attached.device, bytes);
        let (path, block) = (device.path().to_owned(), device.logical_block());
        let found = device.measure().map_err(AttachError::Device)?;
        if found < wanted {
            return Err(ResizeError::NotSoLarge {
                path,
                wanted,
                found,
            });
        }
        if !wanted.is_multiple_of(block.into()) {
            return Err(ResizeError::Unaligned {
                path,
                wanted,
                block,
            });
        }
        self.command(Command::ResizeVolume {
            volume,
            size: wanted,
        })?;
        // Only now: what the lanes admit must be in the volume after any crash.
        self.shared.order_all(|done| Order::ResizeVolume {
            slot: attached.slot,
            size: wanted,
            done,
        })?;
        Ok(())
    }

    /// Makes the store as large as its device is now: durably, while it is served. A
    /// file is made `size` bytes long first, if that is said.
    ///
    /// # Errors
    /// When the file cannot be so long, or the engine refuses.
    pub fn extend(&self, size: Option<u64>) -> Result<(), ExtendError> {
        if let Some(size) = size {
            self.store.lengthen(size)?;
        }
        // Also for whoever reads beside the engine: known before it is used.
        let blocks = self.store.measure()? / BLOCK_SIZE as u64;
        self.command(Command::ExtendStore { blocks })?;
        Ok(())
    }

    /// Takes the origin of a volume off the lanes and lets go of the device. Its
    /// exports have been closed.
    ///
    /// # Errors
    /// When requests of it did not finish in time; it takes no new ones then.
    pub fn detach_origin(&self, volume: VolumeId) -> Result<(), AttachError> {
        let mut origins = self.origins.lock();
        let attached = origins
            .get(&volume)
            .cloned()
            .ok_or(AttachError::NotAttached(volume))?;
        let Attached { slot, place, .. } = attached;
        self.shared.order_all(|done| Order::DetachVolume {
            slot,
            device: place,
            done,
        })?;
        self.shared.give_device(place);
        origins.remove(&volume);
        Ok(())
    }

    /// Takes everything of this store off the lanes. The exports have been closed
    /// and [`Command::Close`] has been replied to.
    ///
    /// # Errors
    /// When requests did not finish in time.
    pub fn close(&self) -> Result<(), AttachError> {
        self.shared
            .entries
            .lock()
            .0
            .retain(|(slot, _)| *slot != self.slot);
        self.core.close();
        let volumes: Vec<_> = self.origins.lock().keys().copied().collect();
        for volume in volumes {
            self.detach_origin(volume)?;
        }
        let (slot, device) = (self.slot, self.device);
        self.shared
            .order_all(|done| Order::DetachStore { slot, device, done })?;
        self.shared.give_device(device);
        Ok(())
    }

    /// What an export of `target` is.
    pub(super) fn export_facts(
        &self,
        target: ExportTarget,
    ) -> Result<(VolumeSlot, Target, Facts), AttachError> {
        let (ExportTarget::Origin(volume) | ExportTarget::Snapshot(volume, _)) = target;
        let attached = self
            .origins
            .lock()
            .get(&volume)
            .cloned()
            .ok_or(AttachError::NotAttached(volume))?;
        let (size, chunk) = self.query(|engine| (engine.volume_size(volume), engine.chunk_size()));
        let volume_size = size.ok_or(AttachError::NoVolume(volume))?;
        let (target, size) = match target {
            ExportTarget::Origin(_) => (Target::Origin, volume_size),
            ExportTarget::Snapshot(_, tag) => {
                let size = self.snapshot_size(volume, tag)?;
                (Target::Snapshot { tag, size }, size)
            }
        };
        // A store with larger blocks asks for them of snapshots too, which read
        // whole 4 KiB blocks of it anyway.
        let block = attached.device.logical_block();
        let read_only = target != Target::Origin || attached.device.is_read_only();
        Ok((
            attached.slot,
            target,
            Facts {
                size,
                read_only,
                block,
                chunk,
            },
        ))
    }

    fn snapshot_size(&self, volume: VolumeId, tag: Tag) -> Result<u64, AttachError> {
        let size = self.query(|engine| engine.snapshot_size(volume, tag));
        size.ok_or(AttachError::NoSnapshot(volume, tag))
    }
}

/// A device shared between its handle and the lanes.
struct Opened<D>(Arc<D>);

impl<D: std::ops::Deref<Target = crate::device::Device>> std::os::fd::AsFd for Opened<D> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&**self.0)
    }
}
