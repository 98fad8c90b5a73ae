//! `/dev/ublkcN`: the server's end of one device, and the map of its requests.
//!
//! The driver lets one process open it at a time, and one address space map it.
//! All queues of a device are mapped by the process that serves it, which must be
//! the one that opened it (no fork between).

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::UblkError;
use super::uapi::{IoDesc, MAX_QUEUE_DEPTH};

/// Between two attempts to open the node.
const STEP: Duration = Duration::from_millis(2);

/// Path of the server's end of device `id`.
#[must_use]
pub fn node(id: u32) -> PathBuf {
    PathBuf::from(format!("/dev/ublkc{id}"))
}

/// Path of the block device of device `id`.
#[must_use]
pub fn disk(id: u32) -> PathBuf {
    PathBuf::from(format!("/dev/ublkb{id}"))
}

/// The number in a name like `ublkc3`.
pub(super) fn number(name: &str) -> Option<u32> {
    name.strip_prefix("ublkc")?.parse().ok()
}

/// The server's end of one device. Closing the last descriptor of it tells the
/// driver that the server is gone.
#[derive(Debug)]
pub struct CharDevice {
    file: File,
    id: u32,
}

impl CharDevice {
    /// Opens the end of device `id`, trying for as long as `patience`: the node
    /// may come late, get its permissions late, and be held by udev for a moment.
    ///
    /// # Errors
    /// [`UblkError::NoDevice`], [`UblkError::NoNode`]; what opening gave last.
    pub fn open(id: u32, patience: Duration) -> Result<Self, UblkError> {
        let path = node(id);
        let began = Instant::now();
        loop {
            // Rust opens everything with O_CLOEXEC.
            let error = match File::options().read(true).write(true).open(&path) {
                Ok(file) => return Ok(Self { file, id }),
                Err(error) => error,
            };
            if !may_pass(&error) || began.elapsed() >= patience {
                return Err(failure(id, path, error));
            }
            std::thread::sleep(STEP);
        }
    }

    /// Which device.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The end of no device.
    #[cfg(test)]
    pub(crate) fn of_nothing() -> Self {
        let file = File::open("/dev/null").unwrap();
        Self { file, id: 0 }
    }
}

impl AsFd for CharDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn may_pass(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBUSY | libc::ENOENT | libc::EACCES | libc::EINTR)
    )
}

fn failure(id: u32, path: PathBuf, source: io::Error) -> UblkError {
    if source.kind() != io::ErrorKind::NotFound {
        let what = "open";
        return UblkError::Node { what, path, source };
    }
    let known = Path::new("/sys/class/ublk-char").join(format!("ublkc{id}"));
    if known.exists() {
        UblkError::NoNode { id, path }
    } else {
        UblkError::NoDevice(id)
    }
}

/// The requests of one queue, as the driver describes them. Read-only.
#[derive(Debug)]
pub struct Descriptors {
    base: NonNull<IoDesc>,
    depth: u16,
    len: usize,
}

// SAFETY: the map is only read, and the value owns it.
unsafe impl Send for Descriptors {}
// SAFETY: as above; reads of several threads do not disturb each other.
unsafe impl Sync for Descriptors {}

impl Descriptors {
    /// Maps `queue` of a device with `depth` tags a queue.
    ///
    /// # Errors
    /// What `mmap` gave: `EINVAL` where `depth` is not the device's, `EBUSY` for a
    /// second process.
    pub fn map(device: &CharDevice, queue: u16, depth: u16) -> Result<Self, UblkError> {
        let failed = |source| UblkError::Node {
            what: "map the requests of",
            path: node(device.id),
            source,
        };
        let (offset, len) = place(queue, depth, page_size());
        let size = NonZeroUsize::new(len)
            .ok_or_else(|| failed(io::Error::from_raw_os_error(libc::EINVAL)))?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
        // SAFETY: a new mapping at an address the kernel chooses touches no
        // existing memory.
        let base = unsafe { mmap(None, size, ProtFlags::PROT_READ, flags, device, offset) }
            .map_err(|errno| failed(errno.into()))?
            .cast();
        Ok(Self { base, depth, len })
    }

    /// The request of `tag`, whose completion has been seen; `None` beyond the
    /// queue. The driver does not change it before it is committed, but is not
    /// trusted with that: it is copied out once.
    #[must_use]
    pub fn get(&self, tag: u16) -> Option<IoDesc> {
        if tag >= self.depth {
            return None;
        }
        // SAFETY: the map holds `depth` records and `tag` is below that.
        let place = unsafe { self.base.add(usize::from(tag)) };
        // SAFETY: mapped for as long as `self` lives, page-aligned records of
        // integers; volatile, because the driver writes them.
        Some(unsafe { place.read_volatile() })
    }

    /// Tags of the queue.
    #[must_use]
    pub fn depth(&self) -> u16 {
        self.depth
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: this value owns the mapping and lends nothing of it.
        if let Err(error) = unsafe { munmap(self.base.cast(), self.len) } {
            tracing::error!(%error, "cannot unmap the requests of a ublk queue");
        }
    }
}

/// Offset and length of a queue's map: `ublk_ch_mmap` takes no others.
fn place(queue: u16, depth: u16, page: usize) -> (i64, usize) {
    let bytes = |records: u16| usize::from(records) * size_of::<IoDesc>();
    let whole = bytes(MAX_QUEUE_DEPTH).next_multiple_of(page);
    let offset = i64::from(queue) * whole as i64;
    (offset, bytes(depth).next_multiple_of(page))
}

/// Bytes of a page.
pub(crate) fn page_size() -> usize {
    // SAFETY: a question without arguments in memory.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096).max(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_lie_where_the_driver_looks_for_them() {
        assert_eq!(place(0, 128, 4096), (0, 4096));
        assert_eq!(place(3, 4096, 4096), (3 * 98_304, 98_304));
        assert_eq!(place(1, 171, 4096), (98_304, 8192));
        assert_eq!(place(1, 128, 65_536), (131_072, 65_536));
    }

    #[test]
    fn only_server_ends_have_numbers() {
        assert_eq!(number("ublkc12"), Some(12));
        assert_eq!(number("ublkb12"), None);
        assert_eq!(number("ublkc"), None);
        assert_eq!(number("ublkc99999999999"), None);
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let began = Instant::now();
        let error = CharDevice::open(4_000_000, Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, UblkError::NoDevice(4_000_000)), "{error}");
        assert!(began.elapsed() >= Duration::from_millis(20));
    }
}
