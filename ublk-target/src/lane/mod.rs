//! The data path of one I/O thread, as a pure state machine: no system calls,
//! no clock, no threads, no bytes. `csnapd` drives it from an io_uring ring, the
//! simulated world from a virtual disk.
//!
//! In: requests of the front ends ([`Lane::submit`]), completions of device
//! operations ([`Lane::complete`]), effects of the engines ([`Lane::effect`]),
//! pauses. Out: [`Lane::out`] (operations to submit, requests done, pauses
//! acknowledged) and, per store, events for its engine ([`Lane::events`]).
//!
//! Invariants:
//! - A change of an origin (write, zeroes, trim) is issued only while its volume
//!   is not paused, and either by the unique map looked at here and now or by a
//!   grant of the map's current epoch. Issued changes count in
//!   `Volume::in_flight`; parked ones and those the engine is asked about do not.
//! - A pause is acknowledged once, when no change of its volumes is in flight.
//!   A change that arrives meanwhile parks and is probed anew after the resume.
//! - A read grant is given back once, after the last of its operations completed.
//! - Buffers come with the request, so no read-lock is ever held while waiting
//!   for one. Copies have buffers of their own, metadata needs none: neither can
//!   wait for a request, nor a request for them.
//! - Everything that was issued completes through exactly one [`Token`]; short
//!   transfers are continued here.

use std::collections::BTreeMap;

use slab::Slab;
use snapstore::{Checksum, EventBatch, Owner, VolumeId};

mod compare;
mod copy;
mod request;
mod snapshot;
mod transfer;
mod types;
mod volume;
mod work;
mod write;

pub use types::{
    Action, BufferId, Completion, DeviceSlot, Done, Extent, GONE, Memory, Op, Outbox, Request,
    StoreSlot, Target, Token, UNREACHABLE, Verb, VolumeSlot,
};
pub use volume::VolumeConfig;

use copy::{Berths, CopyJob};
use request::Active;
use transfer::Transfer;
use volume::{Pause, Volume};

/// Where a lane's number begins in an [`Owner`].
const LANE_SHIFT: u32 = 48;

/// What a lane is made with.
#[derive(Clone, Debug)]
pub struct LaneConfig {
    /// Its number; owner tokens carry it.
    pub lane: u16,
    /// Buffers that only copies use: their length in bytes and which, ascending;
    /// the last as large as the largest copy (1 MiB).
    pub copy_buffers: Vec<(u32, Vec<BufferId>)>,
    /// A buffer of zeroes that is never written, and its length in bytes.
    pub zeroes: (BufferId, u32),
}

/// The data path of one I/O thread. See the module.
#[derive(Debug)]
pub struct Lane {
    lane: u16,
    zeroes: (BufferId, u32),
    stores: Vec<Option<Store>>,
    volumes: Vec<Option<Volume>>,
    requests: Slab<Active>,
    transfers: Slab<Transfer>,
    pauses: Vec<Pause>,
    copies: Slab<CopyJob>,
    berths: Vec<Berths>,
    scratch: Vec<u32>,
    /// What is to be done now. The driver empties it.
    pub out: Outbox,
}

/// What a lane knows of a store.
#[derive(Debug)]
struct Store {
    device: DeviceSlot,
    checksum: Checksum,
    volumes: BTreeMap<VolumeId, VolumeSlot>,
    events: EventBatch,
}

/// The lane a request's owner belongs to.
#[must_use]
pub fn lane_of(owner: Owner) -> u16 {
    (owner.0 >> LANE_SHIFT) as u16
}

impl Lane {
    /// A lane without stores and volumes.
    #[must_use]
    pub fn new(config: LaneConfig) -> Self {
        Self {
            lane: config.lane,
            zeroes: config.zeroes,
            stores: Vec::new(),
            volumes: Vec::new(),
            requests: Slab::with_capacity(256),
            transfers: Slab::with_capacity(512),
            pauses: Vec::new(),
            copies: Slab::with_capacity(64),
            berths: config.copy_buffers.into_iter().map(Berths::new).collect(),
            scratch: Vec::with_capacity(256),
            out: Outbox::default(),
        }
    }

    /// Makes a store known, whose device is `device` and whose data `checksum` covers.
    pub fn attach_store(&mut self, store: StoreSlot, device: DeviceSlot, checksum: Checksum) {
        let index = store.0 as usize;
        if self.stores.len() <= index {
            self.stores.resize_with(index + 1, || None);
        }
        if let Some(place) = self.stores.get_mut(index) {
            *place = Some(Store {
                device,
                checksum,
                volumes: BTreeMap::new(),
                events: EventBatch::default(),
            });
        }
    }

    /// Forgets a store. Its engine has closed, so nothing of it is in flight.
    pub fn detach_store(&mut self, store: StoreSlot) {
        if let Some(place) = self.stores.get_mut(store.0 as usize) {
            *place = None;
        }
    }

    /// The events gathered for a store's engine; the driver takes them away.
    pub fn events(&mut self, store: StoreSlot) -> Option<&mut EventBatch> {
        self.store(store).map(|store| &mut store.events)
    }

    /// Requests not yet done.
    #[must_use]
    pub fn requests_in_flight(&self) -> usize {
        self.requests.len()
    }

    fn store(&mut self, store: StoreSlot) -> Option<&mut Store> {
        self.stores.get_mut(store.0 as usize)?.as_mut()
    }

    fn volume(&mut self, volume: VolumeSlot) -> Option<&mut Volume> {
        self.volumes.get_mut(volume.0 as usize)?.as_mut()
    }

    /// Tells a store's engine something.
    fn tell(&mut self, store: StoreSlot, event: snapstore::Event) {
        if let Some(events) = self.events(store) {
            events.events.push(event);
        }
    }

    fn owner(&self, request: usize) -> Owner {
        Owner(u64::from(self.lane) << LANE_SHIFT | request as u64)
    }

    fn request_of(owner: Owner) -> usize {
        (owner.0 & ((1 << LANE_SHIFT) - 1)) as usize
    }
}

#[cfg(test)]
mod tests;
