//! Volumes of a lane, and the pause handshake.

use std::collections::VecDeque;
use std::sync::Arc;

use snapstore::ids::IoId;
use snapstore::{UniqueMap, VolumeId};

use super::{DeviceSlot, Lane, StoreSlot, VolumeSlot};

/// What a lane is told of a volume.
#[derive(Clone, Debug)]
pub struct VolumeConfig {
    /// Its store.
    pub store: StoreSlot,
    /// Its number there.
    pub volume: VolumeId,
    /// Its origin.
    pub device: DeviceSlot,
    /// Size in bytes.
    pub size: u64,
    /// Bytes in a chunk, a power of two.
    pub chunk_size: u32,
    /// The engine's fast-path map of it.
    pub unique: Arc<UniqueMap>,
}

#[derive(Debug)]
pub(super) struct Volume {
    pub(super) store: StoreSlot,
    pub(super) id: VolumeId,
    pub(super) device: DeviceSlot,
    pub(super) size: u64,
    chunk_shift: u32,
    pub(super) unique: Arc<UniqueMap>,
    /// Pauses that hold it.
    pauses: u32,
    /// Changes issued to the origin.
    pub(super) in_flight: u32,
    /// Requests and copies that refer to it.
    pub(super) users: u32,
    /// Changes waiting for the resume.
    pub(super) parked: VecDeque<usize>,
    pub(super) detaching: bool,
    /// The origin takes trims.
    pub(super) trims: bool,
    /// The origin can punch holes.
    pub(super) punches: bool,
    /// The origin can zero ranges.
    pub(super) zeroes: bool,
}

impl Volume {
    pub(super) fn is_paused(&self) -> bool {
        self.pauses > 0
    }

    pub(super) fn chunk_size(&self) -> u64 {
        1 << self.chunk_shift
    }

    /// First chunk and number of chunks that bytes `start .. end` touch.
    pub(super) fn chunks(&self, start: u64, end: u64) -> (u64, u64) {
        let first = start >> self.chunk_shift;
        (first, ((end - 1) >> self.chunk_shift) - first + 1)
    }

    /// Byte range of `count` chunks.
    pub(super) fn bytes(&self, first: u64, count: u32) -> Option<(u64, u64)> {
        let start = first.checked_mul(self.chunk_size())?;
        Some((
            start,
            start.checked_add(u64::from(count) << self.chunk_shift)?,
        ))
    }

    /// Whether bytes `start .. end` may be overwritten in place.
    pub(super) fn all_unique(&self, start: u64, end: u64) -> bool {
        let (first, count) = self.chunks(start, end);
        self.unique.all_unique(first, count)
    }

    /// The first of the bytes `start .. end` that may be overwritten in place, or `end`.
    pub(super) fn next_unique(&self, start: u64, end: u64) -> u64 {
        let first = start >> self.chunk_shift;
        let found = self
            .unique
            .next_unique(first, end.div_ceil(self.chunk_size()));
        (found << self.chunk_shift).clamp(start, end)
    }
}

/// A pause in force.
#[derive(Debug)]
pub(super) struct Pause {
    store: StoreSlot,
    io: IoId,
    volumes: Vec<VolumeId>,
    acknowledged: bool,
}

impl Pause {
    fn holds(&self, store: StoreSlot, volume: VolumeId) -> bool {
        self.store == store && self.volumes.contains(&volume)
    }
}

impl Lane {
    /// Makes a volume known.
    pub fn attach_volume(&mut self, slot: VolumeSlot, config: VolumeConfig) {
        let Some(store) = self.store(config.store) else {
            return;
        };
        store.volumes.insert(config.volume, slot);
        // One that arrives in the middle of a pause is paused too.
        let held = self
            .pauses
            .iter()
            .filter(|p| p.holds(config.store, config.volume))
            .count();
        let volume = Volume {
            store: config.store,
            id: config.volume,
            device: config.device,
            size: config.size,
            chunk_shift: config.chunk_size.trailing_zeros(),
            unique: config.unique,
            pauses: held as u32,
            in_flight: 0,
            users: 0,
            parked: VecDeque::new(),
            detaching: false,
            trims: true,
            punches: true,
            zeroes: true,
        };
        let index = slot.0 as usize;
        if self.volumes.len() <= index {
            self.volumes.resize_with(index + 1, || None);
        }
        if let Some(place) = self.volumes.get_mut(index) {
            *place = Some(volume);
        }
    }

    /// Another device is in this place: it may know what the last one did not.
    pub fn device_replaced(&mut self, device: DeviceSlot) {
        let volumes = self.volumes.iter_mut().flatten();
        for volume in volumes.filter(|volume| volume.device == device) {
            volume.trims = true;
            volume.punches = true;
            volume.zeroes = true;
        }
    }

    /// Admits requests up to the new size of a volume, in bytes.
    pub fn resize_volume(&mut self, slot: VolumeSlot, size: u64) {
        if let Some(volume) = self.volume(slot) {
            volume.size = size;
        }
    }

    /// Refuses new requests of a volume; [`super::Outbox::detached`] names it
    /// once nothing uses it any more.
    pub fn detach_volume(&mut self, slot: VolumeSlot) {
        match self.volume(slot) {
            Some(volume) => {
                volume.detaching = true;
                let (store, id) = (volume.store, volume.id);
                if let Some(store) = self.store(store) {
                    store.volumes.remove(&id);
                }
                self.release_volume(slot, 0);
            }
            None => self.out.detached.push(slot),
        }
    }

    /// `users` of the volume are through with it.
    pub(super) fn release_volume(&mut self, slot: VolumeSlot, users: u32) {
        let Some(volume) = self.volume(slot) else {
            return;
        };
        volume.users = volume.users.saturating_sub(users);
        if volume.detaching && volume.users == 0 {
            if let Some(place) = self.volumes.get_mut(slot.0 as usize) {
                *place = None;
            }
            self.out.detached.push(slot);
        }
    }

    /// Stops issuing changes of these volumes.
    pub fn pause(&mut self, store: StoreSlot, io: IoId, volumes: Vec<VolumeId>) {
        let pause = Pause {
            store,
            io,
            volumes,
            acknowledged: false,
        };
        for volume in self.volumes.iter_mut().flatten() {
            if pause.holds(volume.store, volume.id) {
                volume.pauses += 1;
            }
        }
        self.pauses.push(pause);
        self.acknowledge_pauses();
    }

    /// Ends a pause: what it parked is probed anew.
    pub fn resume(&mut self, store: StoreSlot, io: IoId) {
        let Some(at) = self
            .pauses
            .iter()
            .position(|p| p.store == store && p.io == io)
        else {
            return;
        };
        let pause = self.pauses.swap_remove(at);
        let mut again = VecDeque::new();
        for volume in self.volumes.iter_mut().flatten() {
            if pause.holds(volume.store, volume.id) {
                volume.pauses = volume.pauses.saturating_sub(1);
                if volume.pauses == 0 {
                    again.append(&mut volume.parked);
                }
            }
        }
        for request in again {
            self.advance_change(request);
        }
    }

    /// An operation on a device failed; if it is an origin, its users' owner should know.
    pub(super) fn note_error(&mut self, device: DeviceSlot, errno: i32) {
        // What a device cannot do is done another way.
        if matches!(errno, libc::EOPNOTSUPP | libc::ENOSYS) {
            return;
        }
        let failed = self.volumes.iter().flatten().find(|v| v.device == device);
        if let Some(volume) = failed {
            let error = (volume.store, volume.id, errno);
            self.out.origin_errors.push(error);
        }
    }

    /// One change of a volume's origin has completed.
    pub(super) fn change_landed(&mut self, slot: VolumeSlot) {
        let Some(volume) = self.volume(slot) else {
            return;
        };
        volume.in_flight = volume.in_flight.saturating_sub(1);
        if volume.in_flight == 0 && volume.pauses > 0 {
            self.acknowledge_pauses();
        }
    }

    fn acknowledge_pauses(&mut self) {
        for pause in self.pauses.iter_mut().filter(|pause| !pause.acknowledged) {
            let busy = self
                .volumes
                .iter()
                .flatten()
                .any(|volume| volume.in_flight > 0 && pause.holds(volume.store, volume.id));
            if !busy {
                pause.acknowledged = true;
                self.out.paused.push((pause.store, pause.io));
            }
        }
    }
}
