//! The devices of an I/O thread, by their place in the ring's table of files.

use std::os::fd::{AsFd, AsRawFd};

use nix::sys::stat::{SFlag, fstat};
use nix::unistd::fdatasync;

use super::{File, setup};
use crate::device;
use crate::lane::{Completion, DeviceSlot, Extent};

/// Most extents told at once.
const EXTENTS: usize = 1024;

/// A device and what has to be known of it.
struct Entry {
    file: File,
    block_device: bool,
    write_through: bool,
}

/// All devices of a thread.
#[derive(Default)]
pub(super) struct Devices(Vec<Option<Entry>>);

impl Devices {
    /// Puts a device into its place here and in the ring's table, or takes it out.
    pub(super) fn set(&mut self, ring: &io_uring::IoUring, at: DeviceSlot, file: Option<File>) {
        let fd = file.as_ref().map_or(-1, |file| file.as_fd().as_raw_fd());
        if let Err(error) = setup::set_file(ring, at.0, fd) {
            tracing::error!(%error, "cannot change the ring's table of files");
        }
        let index = at.0 as usize;
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        if let Some(place) = self.0.get_mut(index) {
            *place = file.map(Entry::new);
        }
    }

    /// Whether it is a block device.
    pub(super) fn is_block_device(&self, at: DeviceSlot) -> bool {
        self.get(at).is_some_and(|entry| entry.block_device)
    }

    /// Flushes at once, if that takes no time: the kernel says that the device has
    /// no volatile cache, so its flush does nothing, and a ring would take it to
    /// another thread for that. If that changes meanwhile, the flush is a real one.
    pub(super) fn flush_at_once(&self, at: DeviceSlot) -> Option<Completion> {
        let entry = self.get(at).filter(|entry| entry.write_through)?;
        let result = fdatasync(entry.file.as_fd()).map(|()| 0);
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
        self.0.get(at.0 as usize)?.as_ref()
    }
}

impl Entry {
    fn new(file: File) -> Self {
        let kind = fstat(file.as_fd()).map(|stat| SFlag::from_bits_truncate(stat.st_mode));
        let block_device = kind.is_ok_and(|kind| kind & SFlag::S_IFMT == SFlag::S_IFBLK);
        let write_through = block_device && device::is_write_through(file.as_fd());
        Self {
            file,
            block_device,
            write_through,
        }
    }
}
