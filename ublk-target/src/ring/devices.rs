//! The devices of an I/O thread, by their place in the ring's table of files.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::stat::{SFlag, fstat};
use nix::unistd::fdatasync;

use super::{File, setup};
use crate::device::{self, Tally};
use crate::lane::{Completion, DeviceSlot, Extent};

/// Most extents told at once.
const EXTENTS: usize = 1024;

/// A device and what has to be known of it.
struct Entry {
    file: File,
    /// Which one of those that were in this place.
    number: u32,
    tally: Option<Arc<Tally>>,
    /// Set while it is not said yet that writes before it may be missing.
    unsure: Option<Arc<AtomicBool>>,
    block_device: bool,
    write_through: bool,
}

/// All devices of a thread.
pub(super) struct Devices {
    /// The thread.
    lane: u16,
    all: Vec<Option<Entry>>,
    /// Devices that were here so far.
    seen: u32,
}

impl Devices {
    /// None yet, of the thread of `lane`.
    pub(super) fn new(lane: u16) -> Self {
        Self {
            lane,
            all: Vec::new(),
            seen: 0,
        }
    }

    /// Counts what is written to a device, if it is to be counted.
    pub(super) fn count(&mut self, at: DeviceSlot, tally: Option<Arc<Tally>>) {
        if let Some(entry) = self.get_mut(at) {
            entry.tally = tally;
        }
    }

    /// The device in this place may have been away: if `unsure`, what was not durable
    /// then may be missing, which one flush of a user, on any thread, is to say.
    pub(super) fn doubt(&mut self, at: DeviceSlot, unsure: Arc<AtomicBool>) {
        if let Some(entry) = self.get_mut(at) {
            entry.unsure = Some(unsure);
        }
    }

    /// Whether a flush of a user that ended well must not say so.
    pub(super) fn is_in_doubt(&self, at: DeviceSlot) -> bool {
        let Some(entry) = self.get(at) else {
            return false;
        };
        let unsure = entry.unsure.as_ref();
        let owed = unsure.is_some_and(|unsure| unsure.swap(false, Ordering::Relaxed));
        if let Some(tally) = entry.tally.as_ref().filter(|_| owed) {
            tally.doubt(false);
        }
        owed
    }

    /// Whether this is still the device of that number.
    pub(super) fn is_still(&self, at: DeviceSlot, number: u32) -> bool {
        self.get(at).is_some_and(|entry| entry.number == number)
    }

    /// Puts a device into its place here and in the ring's table, or takes it out.
    pub(super) fn set(&mut self, ring: &io_uring::IoUring, at: DeviceSlot, file: Option<File>) {
        let fd = file.as_ref().map_or(-1, |file| file.as_fd().as_raw_fd());
        if let Err(error) = setup::set_file(ring, at.0, fd) {
            tracing::error!(%error, "cannot change the ring's table of files");
        }
        let index = at.0 as usize;
        if self.all.len() <= index {
            self.all.resize_with(index + 1, || None);
        }
        if let Some(place) = self.all.get_mut(index) {
            self.seen = self.seen.wrapping_add(1);
            *place = file.map(|file| Entry::new(file, self.seen));
        }
    }

    /// Whether it is a block device.
    pub(super) fn is_block_device(&self, at: DeviceSlot) -> bool {
        self.get(at).is_some_and(|entry| entry.block_device)
    }

    /// Whether it was a block device and has been taken away.
    pub(super) fn is_gone(&self, at: DeviceSlot) -> bool {
        self.get(at)
            .is_some_and(|entry| device::is_gone(entry.file.as_fd()))
    }

    /// Whether an operation that failed so says nothing of the device itself.
    pub(super) fn is_unreachable(&self, at: DeviceSlot, errno: i32) -> bool {
        self.get(at)
            .is_some_and(|entry| device::is_unreachable(entry.file.as_fd(), errno))
    }

    /// So many sectors are about to be written to it. Returns which device it is: when
    /// they are, another may have taken its place.
    pub(super) fn begin(&self, at: DeviceSlot, sectors: u64) -> u32 {
        let Some(entry) = self.get(at) else {
            return 0;
        };
        if let Some(tally) = entry.tally.as_ref().filter(|_| sectors > 0) {
            tally.begin(self.lane, sectors);
        }
        entry.number
    }

    /// They have been (`well`), or could not be.
    pub(super) fn end(&self, at: DeviceSlot, number: u32, sectors: u64, well: bool) {
        if let Some(tally) = self.tally_of(at, number)
            && sectors > 0
        {
            tally.end(self.lane, sectors, well);
        }
    }

    /// Sectors written so far, by any thread: a flush that begins now covers them.
    pub(super) fn landed(&self, at: DeviceSlot) -> u64 {
        let tally = self.get(at).and_then(|entry| entry.tally.as_ref());
        tally.map_or(0, |tally| tally.landed())
    }

    /// A flush ended well that covers so many.
    pub(super) fn flushed(&self, at: DeviceSlot, number: u32, landed: u64) {
        if let Some(tally) = self.tally_of(at, number) {
            tally.flushed(landed);
        }
    }

    fn tally_of(&self, at: DeviceSlot, number: u32) -> Option<&Tally> {
        let entry = self.get(at).filter(|entry| entry.number == number);
        entry.and_then(|entry| entry.tally.as_deref())
    }

    /// Flushes at once, if that takes no time: the kernel says that the device has
    /// no volatile cache, so its flush does nothing, and a ring would take it to
    /// another thread for that. If that changes meanwhile, the flush is a real one.
    pub(super) fn flush_at_once(&self, at: DeviceSlot) -> Option<Completion> {
        let entry = self.get(at).filter(|entry| entry.write_through)?;
        let landed = self.landed(at);
        let result = fdatasync(entry.file.as_fd()).map(|()| 0);
        if result.is_ok() {
            self.flushed(at, entry.number, landed);
        }
        Some(Completion::Moved(result.map_err(|errno| errno as i32)))
    }

    /// Data and holes: the one question rings do not answer; `lseek` on an open
    /// file is quick.
    pub(super) fn extents(&self, at: DeviceSlot, offset: u64, len: u64) -> Completion {
        let found = match self.get(at) {
            Some(entry) => device::extents(entry.file.as_fd(), offset, len, EXTENTS),
            None => vec![(len, true)],
        };
        let extents = found.into_iter().map(|(len, data)| Extent { len, data });
        Completion::Extents(extents.collect())
    }

    fn get(&self, at: DeviceSlot) -> Option<&Entry> {
        self.all.get(at.0 as usize)?.as_ref()
    }

    fn get_mut(&mut self, at: DeviceSlot) -> Option<&mut Entry> {
        self.all.get_mut(at.0 as usize)?.as_mut()
    }
}

impl Entry {
    fn new(file: File, number: u32) -> Self {
        let kind = fstat(file.as_fd()).map(|stat| SFlag::from_bits_truncate(stat.st_mode));
        let block_device = kind.is_ok_and(|kind| kind & SFlag::S_IFMT == SFlag::S_IFBLK);
        let write_through = block_device && device::is_write_through(file.as_fd());
        Self {
            file,
            number,
            tally: None,
            unsure: None,
            block_device,
            write_through,
        }
    }
}
