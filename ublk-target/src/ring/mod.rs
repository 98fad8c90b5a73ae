//! The I/O thread: one ring, one lane, a share of the connections.
//!
//! Loop: reap every completion; submit at once what follows from them without the
//! engine, and reap that too; read the mail, let requests and engines go on until
//! they have nothing more to do, queue all submissions and enter the kernel. The
//! thread sleeps in that call and nowhere else.
//!
//! | module | what it holds |
//! |---|---|
//! | `setup` | making the ring, restricted to the operations used |
//! | `memory` | the buffers, registered once |
//! | `devices` | origins and stores, by their place in the ring's table |
//! | `submit` | operations as submissions, completions as the lane wants them |
//! | `thread` | the loop |
//! | `clients` | the NBD connections of the thread |
//! | `client` | one connection: receive, carry out, send |
//! | `line` | which connection gets the next buffer when there are too few |
//! | `block` | the block devices: tags fetched, carried out, committed |

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};

use snapstore::Checksum;

use crate::core::Entry;
use crate::device::Tally;
use crate::export::Export;
use crate::lane::{DeviceSlot, StoreSlot, VolumeConfig, VolumeSlot};
use crate::nbd;
use crate::runtime::{Peer, Seat};

mod block;
mod client;
mod clients;
mod devices;
mod line;
mod memory;
mod setup;
mod submit;
mod thread;

pub(crate) use block::{MOST_TAGS, Mode, Served, Serving};
pub(crate) use memory::LEAST as LEAST_BUFFERS;
pub(crate) use setup::{DEVICES, SOCKETS};
pub(crate) use thread::{Thread, ThreadConfig};

/// A device as the threads hold it open.
pub(crate) type File = Arc<dyn AsFd + Send + Sync>;

/// Told once the order has been carried out.
pub(crate) type Ack = mpsc::Sender<()>;

/// What the runtime tells an I/O thread.
pub enum Order {
    /// A store is there.
    AttachStore {
        /// Its place.
        slot: StoreSlot,
        /// Its engine.
        entry: Arc<dyn Entry>,
        /// The place of its device.
        device: DeviceSlot,
        /// The device.
        file: Arc<dyn AsFd + Send + Sync>,
        /// What its data is covered by.
        checksum: Checksum,
        /// To be told.
        done: mpsc::Sender<()>,
    },
    /// A store has closed.
    DetachStore {
        /// Its place.
        slot: StoreSlot,
        /// The place of its device.
        device: DeviceSlot,
        /// To be told.
        done: mpsc::Sender<()>,
    },
    /// An origin is there.
    AttachVolume {
        /// Its place.
        slot: VolumeSlot,
        /// What the lane needs to know.
        config: VolumeConfig,
        /// The origin.
        file: Arc<dyn AsFd + Send + Sync>,
        /// Where what is written to it is counted.
        tally: Option<Arc<Tally>>,
        /// Set if earlier writes may be missing, until a flush has said so.
        unsure: Arc<AtomicBool>,
        /// To be told.
        done: mpsc::Sender<()>,
    },
    /// An origin that had gone is back.
    ReplaceOrigin {
        /// Its place.
        device: DeviceSlot,
        /// As it was opened anew.
        file: Arc<dyn AsFd + Send + Sync>,
        /// Where what is written to it is counted.
        tally: Option<Arc<Tally>>,
        /// Set if earlier writes may be missing, until a flush has said so.
        unsure: Arc<AtomicBool>,
        /// To be told.
        done: mpsc::Sender<()>,
    },
    /// A volume has grown; its engine knows already.
    ResizeVolume {
        /// Its place.
        slot: VolumeSlot,
        /// Bytes.
        size: u64,
        /// To be told.
        done: mpsc::Sender<()>,
    },
    /// An origin goes, once nothing uses it any more.
    DetachVolume {
        /// Its place.
        slot: VolumeSlot,
        /// The place of its device.
        device: DeviceSlot,
        /// To be told.
        done: mpsc::Sender<()>,
    },
    /// Serve a connection.
    Serve(Box<NewClient>),
    /// Let the clients of an export go.
    CloseExport {
        /// Its number.
        export: u64,
        /// Do not even send what is owed.
        abort: bool,
    },
    /// Serve tags of a block device.
    ServeBlock(NewShare),
    /// Take no further request of a block device: it is left to a successor.
    StandAside {
        /// Its number.
        number: u64,
    },
    /// End the thread once the kernel holds nothing of it any more.
    Stop,
}

/// Tags of a block device, for one thread.
pub struct NewShare {
    pub(crate) served: Arc<Served>,
    /// Queues and tags.
    pub(crate) tags: Vec<(u16, u16)>,
    /// To be told when all are on their way to the driver.
    pub(crate) done: Ack,
}

/// A negotiated connection.
pub struct NewClient {
    pub(crate) socket: OwnedFd,
    pub(crate) export: Arc<Export>,
    /// What the client was told of it.
    pub(crate) info: nbd::ExportInfo,
    pub(crate) options: nbd::Options,
    /// Of the I/O thread.
    pub(crate) seat: Seat,
    /// Where it comes from.
    pub(crate) peer: Peer,
}
