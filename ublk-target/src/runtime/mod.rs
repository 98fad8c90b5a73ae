//! What the daemon's control side calls: start the I/O threads, attach stores
//! and origins, open exports, serve connections.
//!
//! Nothing here is on the path of a request. Calls may block for as long as a
//! lane takes to read its mail, so none of them is for I/O threads.
//!
//! Places in the lanes' tables are given here: those of volumes and stores are
//! never given twice, so a late message cannot reach a successor; those of
//! devices are given again once every lane has let go.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use snapstore::VolumeId;
use snapstore::engine::CommandError;

use crate::core::{AbortOnPanic, Core, Entry, Lanes, Mail, Stepper, StoreHandlers};
use crate::device::{DeviceError, StoreDevice};
use crate::export::{Export, ExportTarget};
use crate::lane::{DeviceSlot, StoreSlot};
use crate::nbd::{self, ExportInfo};
use crate::ring::{DEVICES, LEAST_BUFFERS, NewClient, Order, Thread, ThreadConfig};

mod block;
mod seats;
mod spread;
mod store;

use seats::Seats;

pub(crate) use block::MOST_BYTES;
pub use block::{Agreed, BlockDevice, BlockError, BlockOpen, BlockOptions, Removed};
pub use seats::Seat;
pub use spread::Spread;
pub use store::StoreHandle;

/// Between two ticks of the engines.
const TICK: Duration = Duration::from_millis(100);
/// How long every lane together may take over an order.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the I/O threads are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// I/O threads; 0 means one per processor, at most 8.
    pub lanes: usize,
    /// Submissions one thread can queue at once. Default 256.
    pub queue_depth: u32,
    /// Bytes of I/O buffers per thread. Default 32 MiB, at least 12 MiB.
    pub buffer_bytes: usize,
    /// Most NBD clients at once, however many the threads have room for. Default
    /// `usize::MAX`.
    pub clients: usize,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            lanes: 0,
            queue_depth: 256,
            buffer_bytes: 32 << 20,
            clients: usize::MAX,
        }
    }
}

/// Why the I/O threads did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system refused what every thread needs.
    #[error(
        "cannot start I/O thread {lane}: {source}; io_uring of Linux 6.1 or newer is needed and \
         must be allowed (/proc/sys/kernel/io_uring_disabled, seccomp)"
    )]
    Thread {
        /// Which.
        lane: usize,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Why a store, an origin or an export cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The store does not know the volume.
    #[error("volume {0} does not exist in this store")]
    NoVolume(VolumeId),
    /// The store does not know the snapshot.
    #[error("snapshot {1} of volume {0} does not exist")]
    NoSnapshot(VolumeId, snapstore::Tag),
    /// The origin is not attached.
    #[error("the origin of volume {0} is not attached")]
    NotAttached(VolumeId),
    /// The origin is attached already.
    #[error("the origin of volume {0} is attached already")]
    Attached(VolumeId),
    /// The origin is smaller than its volume.
    #[error("the origin of volume {volume} has {found} bytes, the volume {expected}: it shrank")]
    TooSmall {
        /// Which.
        volume: VolumeId,
        /// Bytes the volume has.
        expected: u64,
        /// Bytes the device has.
        found: u64,
    },
    /// Too many devices.
    #[error("{0} devices are attached already, and no more can be")]
    TooMany(u32),
    /// A device lies on another.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Requests did not finish, so nothing could be taken away.
    #[error("requests in flight did not finish in time; close its exports and try again")]
    Busy,
    /// Its size or block size cannot be exported.
    #[error(transparent)]
    Export(#[from] nbd::export::BadExportInfo),
}

/// Why a volume did not grow.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// Its origin is not attached, or the lanes were too slow to learn of it: the
    /// volume has grown then, and the same again finishes it.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The engine refused.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The origin ends before.
    #[error(
        "the origin {path} has {found} bytes, not {wanted}; extend it first, or resize to what it has"
    )]
    NotSoLarge {
        /// The origin.
        path: PathBuf,
        /// Bytes the volume was to have.
        wanted: u64,
        /// Bytes the device has.
        found: u64,
    },
    /// The device could not read or write its last bytes.
    #[error("{wanted} bytes are no multiple of the {block}-byte blocks of the origin {path}")]
    Unaligned {
        /// The origin.
        path: PathBuf,
        /// Bytes the volume was to have.
        wanted: u64,
        /// Bytes in a block.
        block: u32,
    },
}

/// Why a store did not grow.
#[derive(Debug, thiserror::Error)]
pub enum ExtendError {
    /// The device is not larger and cannot be made so.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The engine refused.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// The export takes no more connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the export is being closed")]
pub struct ExportClosed;

/// What a client takes up as long as it is served, and gives back when it is dropped.
pub type Place = Box<dyn std::any::Any + Send>;

/// Where a client comes from.
#[derive(Default)]
pub struct Peer {
    /// Clients of one address have their turns together; `None` is this machine.
    pub address: Option<IpAddr>,
    /// What else it takes up.
    pub place: Option<Place>,
}

/// What handles and threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) lanes: Arc<Lanes>,
    slots: Mutex<Slots>,
    entries: Mutex<Entries>,
}

/// The engines that are told the time.
#[derive(Default)]
struct Entries(Vec<(StoreSlot, Arc<dyn Entry>)>);

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(slot, _)| slot))
            .finish()
    }
}

#[derive(Debug)]
struct Slots {
    next: u32,
    devices: Vec<DeviceSlot>,
}

impl Shared {
    /// A place for a store or a volume.
    fn next_slot(&self) -> u32 {
        let mut slots = self.slots.lock();
        slots.next += 1;
        slots.next - 1
    }

    fn take_device(&self) -> Result<DeviceSlot, AttachError> {
        self.slots
            .lock()
            .devices
            .pop()
            .ok_or(AttachError::TooMany(DEVICES))
    }

    fn give_device(&self, device: DeviceSlot) {
        self.slots.lock().devices.push(device);
    }

    /// Gives every lane an order and waits until all have carried it out.
    fn order_all(&self, order: impl Fn(mpsc::Sender<()>) -> Order) -> Result<(), AttachError> {
        let (done, all) = mpsc::channel();
        for lane in 0..self.lanes.count() {
            self.lanes.post(lane, Mail::Order(order(done.clone())));
        }
        drop(done);
        let until = Instant::now() + PATIENCE;
        for _ in 0..self.lanes.count() {
            let left = until.saturating_duration_since(Instant::now());
            all.recv_timeout(left).map_err(|_| AttachError::Busy)?;
        }
        Ok(())
    }
}

/// The I/O threads and what they serve. Dropping it ends them.
#[derive(Debug)]
pub struct Runtime {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    ticker: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
    next: AtomicU64,
    seats: Arc<Seats>,
    /// Block devices whose recovery failed half way.
    half_taken: Mutex<Vec<u32>>,
}

impl Runtime {
    /// Starts the I/O threads.
    ///
    /// # Errors
    /// When the system refuses a ring, memory or a thread.
    pub fn start(config: RuntimeConfig) -> Result<Self, StartError> {
        let count = match config.lanes {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get().min(8)),
            count => count.min(64),
        };
        let failed = |lane| move |source| StartError::Thread { lane, source };
        let lanes = Arc::new(Lanes::new(count as u16).map_err(failed(0))?);
        let devices = (0..DEVICES).rev().map(DeviceSlot).collect();
        let shared = Arc::new(Shared {
            lanes,
            slots: Mutex::new(Slots { next: 0, devices }),
            entries: Mutex::default(),
        });
        let mut runtime = Self {
            shared,
            seats: Seats::new(count, config.clients),
            threads: Vec::new(),
            ticker: None,
            next: AtomicU64::new(0),
            half_taken: Mutex::default(),
        };
        for lane in 0..count {
            let config = ThreadConfig {
                lane: lane as u16,
                queue_depth: config.queue_depth,
                buffer_bytes: config.buffer_bytes.max(LEAST_BUFFERS),
            };
            let lanes = runtime.shared.lanes.clone();
            runtime
                .threads
                .push(spawn(config, lanes).map_err(failed(lane))?);
        }
        runtime.ticker = Some(start_ticker(runtime.shared.clone()).map_err(failed(0))?);
        Ok(runtime)
    }

    /// Lets the lanes serve a store whose engine has recovered.
    ///
    /// # Errors
    /// When too many devices are attached.
    pub fn attach_store<E: Stepper>(
        &self,
        engine: E,
        store: StoreDevice,
        handlers: Arc<dyn StoreHandlers>,
    ) -> Result<Arc<StoreHandle<E>>, AttachError> {
        let slot = StoreSlot(self.shared.next_slot());
        let device = self.shared.take_device()?;
        let checksum = engine.checksum();
        let core = Core::new(slot, engine, self.shared.lanes.clone(), handlers);
        let handle = StoreHandle::new(self.shared.clone(), core.clone(), (slot, device), store);
        self.shared.order_all(|done| Order::AttachStore {
            slot,
            entry: core.clone(),
            device,
            file: handle.file(),
            checksum,
            done,
        })?;
        self.shared.entries.lock().0.push((slot, core));
        Ok(Arc::new(handle))
    }

    /// Makes an export of a volume whose origin is attached.
    ///
    /// # Errors
    /// When there is no such volume or snapshot, or its origin is not attached.
    pub fn open_export<E: Stepper>(
        &self,
        store: &Arc<StoreHandle<E>>,
        target: ExportTarget,
    ) -> Result<Arc<Export>, AttachError> {
        let (volume, target, facts) = store.export_facts(target)?;
        let info = ExportInfo::new(
            facts.size,
            facts.read_only,
            facts.block,
            facts.chunk.max(facts.block),
            nbd::wire::MAX_PAYLOAD,
        )?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let lanes = self.shared.lanes.clone();
        Ok(Arc::new(Export::new(number, (volume, target), info, lanes)))
    }

    /// Room for a client, on the I/O thread that has most; `None` if none has any.
    #[must_use]
    pub fn seat(&self) -> Option<Seat> {
        self.seats.take()
    }

    /// Serves a connection, of which this was negotiated, until its client leaves or the
    /// export is closed; drops its place then. Returns at once.
    ///
    /// # Errors
    /// When the export is closed already; the socket is dropped.
    pub fn serve(
        &self,
        socket: OwnedFd,
        export: Arc<Export>,
        (info, options): (ExportInfo, nbd::Options),
        seat: Seat,
        peer: Peer,
    ) -> Result<(), ExportClosed> {
        if !export.admit() {
            return Err(ExportClosed);
        }
        let lane = seat.thread();
        let new = Box::new(NewClient {
            socket,
            export,
            info,
            options,
            seat,
            peer,
        });
        self.shared.lanes.post(lane, Mail::Order(Order::Serve(new)));
        Ok(())
    }

    /// Number of I/O threads.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.threads.len()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some((stop, ticker)) = self.ticker.take() {
            drop(stop);
            join(ticker);
        }
        for lane in 0..self.threads.len() as u16 {
            self.shared.lanes.post(lane, Mail::Order(Order::Stop));
        }
        self.threads.drain(..).for_each(join);
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread panicked");
    }
}

/// Starts an I/O thread and waits until its ring exists.
fn spawn(config: ThreadConfig, lanes: Arc<Lanes>) -> std::io::Result<JoinHandle<()>> {
    let (ready, started) = mpsc::channel();
    let name = format!("lane{}", config.lane);
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        // Before the ring: the kernel's own workers inherit it. Whether the process
        // may is said once, at the daemon's start.
        if let Err(error) = crate::reclaim::io_flusher() {
            tracing::debug!(%error, "an I/O thread is no I/O flusher");
        }
        let mut thread = match Thread::new(&config, lanes) {
            Ok(thread) => thread,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let _ = ready.send(Ok(()));
        // Dropped before the thread's memory, which the kernel may be using.
        let _whole = AbortOnPanic;
        if let Err(error) = thread.run() {
            // Requests would hang for ever. Ending the process is what the store
            // is made to survive, and what a supervisor notices.
            tracing::error!(lane = config.lane, %error, "an I/O thread failed: aborting");
            std::process::abort();
        }
    })?;
    match started.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(std::io::Error::other(
            "the thread ended before its ring existed",
        )),
    }
}

/// Tells the engines the time until the sender is dropped.
fn start_ticker(shared: Arc<Shared>) -> std::io::Result<(mpsc::Sender<()>, JoinHandle<()>)> {
    let (stop, stopped) = mpsc::channel::<()>();
    let tick = move || {
        while stopped.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
            let now_ms = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| {
                    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                });
            let entries: Vec<_> = shared
                .entries
                .lock()
                .0
                .iter()
                .map(|(_, entry)| entry.clone())
                .collect();
            for entry in entries {
                entry.tick(now_ms, Instant::now());
            }
        }
    };
    let ticker = std::thread::Builder::new()
        .name("ticker".into())
        .spawn(tick)?;
    Ok((stop, ticker))
}

#[cfg(test)]
mod tests;
