//! Exports: what a client is served, and who is being served.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use snapstore::{Tag, VolumeId};

use crate::core::{Lanes, Mail};
use crate::lane::{Target, VolumeSlot};
use crate::nbd::ExportInfo;
use crate::nbd::export::BadExportInfo;
use crate::ring::Order;

/// What is to be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportTarget {
    /// The live volume.
    Origin(VolumeId),
    /// One of its snapshots, read-only.
    Snapshot(VolumeId, Tag),
}

/// Clients were still connected when the time was over; they have been cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{connections} connections did not finish in time and were cut off")]
pub struct CutOff {
    /// How many.
    pub connections: usize,
    /// Of how many something is still under way: the others only left answers unread.
    pub unfinished: usize,
}

/// An export. Made by [`crate::runtime::Runtime::open_export`].
#[derive(Debug)]
pub struct Export {
    number: u64,
    volume: VolumeSlot,
    target: Target,
    info: Mutex<ExportInfo>,
    lanes: Arc<Lanes>,
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    connections: usize,
    closed: bool,
}

impl Export {
    pub(crate) fn new(
        number: u64,
        (volume, target): (VolumeSlot, Target),
        info: ExportInfo,
        lanes: Arc<Lanes>,
    ) -> Self {
        let state = Mutex::default();
        Self {
            number,
            volume,
            target,
            info: Mutex::new(info),
            lanes,
            state,
            left: Condvar::new(),
        }
    }

    /// What clients are told: size, block sizes, whether it is read-only. A
    /// connection keeps what it was told when it was made.
    #[must_use]
    pub fn info(&self) -> ExportInfo {
        *self.info.lock()
    }

    /// Tells later connections of another size.
    ///
    /// # Errors
    /// When it is no multiple of the block size.
    pub fn resize(&self, bytes: u64) -> Result<(), BadExportInfo> {
        let mut info = self.info.lock();
        *info = info.with_size(bytes)?;
        Ok(())
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.info().size()
    }

    /// Nothing may change it.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.info().read_only()
    }

    /// Connections being served.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.lock().connections
    }

    /// Takes no more connections, lets those there are finish what they have
    /// asked for, and disconnects them. Not for I/O threads.
    ///
    /// # Errors
    /// When some needed longer than `timeout`: those are cut off.
    pub fn close(&self, timeout: Duration) -> Result<(), CutOff> {
        self.state.lock().closed = true;
        self.order(false);
        let connections = self.wait_until_left(timeout);
        if connections == 0 {
            return Ok(());
        }
        self.order(true);
        // A connection goes when nothing of it is under way any more.
        let unfinished = self.wait_until_left(timeout.max(Duration::from_secs(1)));
        Err(CutOff {
            connections,
            unfinished,
        })
    }

    fn order(&self, abort: bool) {
        for lane in 0..self.lanes.count() {
            self.lanes.post(
                lane,
                Mail::Order(Order::CloseExport {
                    export: self.number,
                    abort,
                }),
            );
        }
    }

    /// Connections left when all have gone or the time is over.
    fn wait_until_left(&self, timeout: Duration) -> usize {
        let until = Instant::now() + timeout;
        let mut state = self.state.lock();
        while state.connections > 0 {
            if self.left.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.connections
    }

    /// One more connection; `false` if the export is closed. The lane gives it
    /// back with [`Self::release`].
    pub(crate) fn admit(&self) -> bool {
        let mut state = self.state.lock();
        if !state.closed {
            state.connections += 1;
        }
        !state.closed
    }

    /// Closed: a connection that comes to its lane only now has missed the order.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// One connection less.
    pub(crate) fn release(&self) {
        let mut state = self.state.lock();
        state.connections = state.connections.saturating_sub(1);
        if state.connections == 0 {
            self.left.notify_all();
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn volume(&self) -> VolumeSlot {
        self.volume
    }

    pub(crate) fn target(&self) -> Target {
        self.target
    }
}
