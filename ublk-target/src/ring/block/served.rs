//! A block device as the lanes and the control side share it.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::lane::{Target, VolumeSlot};
use crate::ublk::{CharDevice, Descriptors, uapi};

/// How the data of requests gets to where the lane works with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The driver puts a request's pages into the ring's table of buffers.
    Auto,
    /// Likewise, by a command for every request.
    Register,
    /// The driver copies to and from a buffer of the tag.
    Copy,
    /// The driver copies from a buffer of the pool: nothing is ever written.
    Pooled,
}

/// One block device, for every lane that serves tags of it.
#[derive(Debug)]
pub(crate) struct Served {
    /// Its number, for orders.
    pub(crate) number: u64,
    pub(crate) volume: VolumeSlot,
    pub(crate) target: Target,
    pub(crate) mode: Mode,
    /// Most bytes in a request.
    pub(crate) max_io_bytes: u32,
    /// One map for each queue. Dropped before the device.
    pub(crate) queues: Vec<Descriptors>,
    pub(crate) char: CharDevice,
    lanes: Mutex<usize>,
    left: Condvar,
}

/// What a device is and which `lanes` will serve it.
pub(crate) struct Serving {
    pub(crate) number: u64,
    pub(crate) volume: VolumeSlot,
    pub(crate) target: Target,
    pub(crate) mode: Mode,
    pub(crate) max_io_bytes: u32,
    pub(crate) lanes: usize,
}

impl Served {
    pub(crate) fn new(what: &Serving, queues: Vec<Descriptors>, char: CharDevice) -> Self {
        Self {
            number: what.number,
            volume: what.volume,
            target: what.target,
            mode: what.mode,
            max_io_bytes: what.max_io_bytes,
            queues,
            char,
            lanes: Mutex::new(what.lanes),
            left: Condvar::new(),
        }
    }

    /// The request the driver has put under a tag.
    pub(super) fn request(&self, queue: u16, tag: u16) -> Option<uapi::IoDesc> {
        self.queues.get(usize::from(queue))?.get(tag)
    }

    /// A lane has nothing to do with it any more.
    pub(super) fn release(&self) {
        let mut lanes = self.lanes.lock();
        *lanes = lanes.saturating_sub(1);
        if *lanes == 0 {
            self.left.notify_all();
        }
    }

    /// Waits until no lane serves it any more; `false`: not in time.
    pub(crate) fn wait_until_left(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut lanes = self.lanes.lock();
        while *lanes > 0 {
            if self.left.wait_until(&mut lanes, until).timed_out() {
                break;
            }
        }
        *lanes == 0
    }
}
