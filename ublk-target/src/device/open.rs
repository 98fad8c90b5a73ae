//! Opening, holding and identifying a device or file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::plate::Plate;
use super::{DeviceError, Tally, sys};

/// The smallest unit csnap addresses, in bytes.
const SECTOR: u32 = 512;

/// What a device is, whatever name it was opened by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A block device by its number (`st_rdev`).
    Block(u64),
    /// A regular file by the device it is on and its inode.
    File {
        /// `st_dev`.
        device: u64,
        /// `st_ino`.
        inode: u64,
    },
}

/// An open, exclusively held device or file. Dropping it lets go.
#[derive(Debug)]
pub struct Device {
    pub(super) file: File,
    pub(super) path: PathBuf,
    size: AtomicU64,
    identity: Identity,
    logical_block: u32,
    direct: bool,
    read_only: bool,
}

impl Device {
    fn open(path: &Path, read_only: bool) -> Result<Self, DeviceError> {
        let failed = |source| DeviceError::Open {
            path: path.to_owned(),
            source,
        };
        let path = path.canonicalize().map_err(failed)?;
        let kind = std::fs::metadata(&path).map_err(failed)?.file_type();
        if !kind.is_block_device() && !kind.is_file() {
            return Err(DeviceError::WrongType { path });
        }
        let exclusive = if kind.is_block_device() {
            libc::O_EXCL
        } else {
            0
        };
        let (file, direct) = open_direct(&path, read_only, exclusive)?;
        // Everything below is asked of the open file, which the path may no
        // longer name.
        let meta = file
            .metadata()
            .map_err(|source| query(&path, "type", source))?;
        let is_block = meta.file_type().is_block_device();
        if !is_block {
            lock(&file, &path)?;
        }
        let identity = if is_block {
            Identity::Block(meta.rdev())
        } else {
            Identity::File {
                device: meta.dev(),
                inode: meta.ino(),
            }
        };
        let size = size_of(&file, is_block).map_err(|source| query(&path, "size", source))?;
        let logical_block = match (is_block, direct) {
            (true, _) => sys::logical_block_size(&file),
            (false, true) => sys::direct_alignment(&file),
            (false, false) => Ok(SECTOR),
        }
        .map_err(|source| query(&path, "block size", source))?
        .max(SECTOR);
        Ok(Self {
            file,
            path,
            size: size.into(),
            identity,
            logical_block,
            direct,
            read_only,
        })
    }

    /// The canonical path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size in bytes, as it was when last asked for.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Asks the open device or file for its size: it may have been extended.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn measure(&self) -> Result<u64, DeviceError> {
        let size = size_of(&self.file, self.is_block_device())
            .map_err(|source| query(&self.path, "size", source))?;
        self.size.store(size, Ordering::Release);
        Ok(size)
    }

    /// Makes the file `size` bytes long, the new ones a hole; never shorter.
    ///
    /// # Errors
    /// [`DeviceError::NotAFile`], [`DeviceError::Shrinks`], or what the system said.
    pub fn lengthen(&self, size: u64) -> Result<(), DeviceError> {
        let path = self.path.clone();
        if self.is_block_device() {
            return Err(DeviceError::NotAFile { path });
        }
        let has = self.measure()?;
        if size < has {
            return Err(DeviceError::Shrinks { path, has, size });
        }
        if size == has {
            return Ok(());
        }
        // With room for all of it: a store that meets a full file system later fails.
        let (from, more) = (has as i64, (size - has) as i64);
        let made = match fallocate(&self.file, FallocateFlags::empty(), from, more) {
            Err(Errno::EOPNOTSUPP) => self.file.set_len(size),
            made => made.map_err(io::Error::from),
        };
        made.map_err(|source| {
            // What there was room for goes back; should that fail, it is only unused.
            let _ = self.file.set_len(has);
            DeviceError::Lengthen { path, size, source }
        })
    }

    /// What it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Bytes every offset and length of an I/O is a multiple of: 512 or more.
    #[must_use]
    pub fn logical_block(&self) -> u32 {
        self.logical_block
    }

    /// Whether I/O bypasses the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Whether it was opened for reading only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether it was a block device and has been taken away.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        sys::is_gone(self.as_fd())
    }

    /// Whether it is a block device rather than a regular file.
    #[must_use]
    pub fn is_block_device(&self) -> bool {
        matches!(self.identity, Identity::Block(_))
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A device being snapshotted.
#[derive(Debug)]
pub struct OriginDevice {
    device: Device,
    plate: Plate,
    layers: Vec<Identity>,
    tally: OnceLock<Arc<Tally>>,
    /// See [`Self::doubt`].
    unsure: Arc<AtomicBool>,
}

impl OriginDevice {
    /// Opens and holds the origin at `path`.
    ///
    /// # Errors
    /// See [`DeviceError`]; a size that is no multiple of its block is refused,
    /// because its last bytes could be neither read nor written directly.
    pub fn open(path: impl AsRef<Path>, read_only: bool) -> Result<Self, DeviceError> {
        let device = Device::open(path.as_ref(), read_only)?;
        let block = device.logical_block();
        let size = device.size();
        if size == 0 || !size.is_multiple_of(block.into()) {
            return Err(DeviceError::Size {
                path: device.path,
                size,
                block,
            });
        }
        let identity = device.identity();
        Ok(Self {
            device,
            plate: Plate::of(identity),
            layers: identity.layers(),
            tally: OnceLock::new(),
            unsure: Arc::default(),
        })
    }

    /// Itself and what it lay on when it was opened.
    #[must_use]
    pub fn layers(&self) -> &[Identity] {
        &self.layers
    }

    /// What it said of itself when it was opened.
    #[must_use]
    pub fn plate(&self) -> &Plate {
        &self.plate
    }

    /// Counts what is written to it from now on: before I/O threads have it.
    pub fn count_in(&self, tally: Arc<Tally>) {
        // Set twice, the first would go on counting, which only the caller could want.
        let _ = self.tally.set(tally);
    }

    /// Where that is counted, if it is.
    #[must_use]
    pub fn tally(&self) -> Option<&Arc<Tally>> {
        self.tally.get()
    }

    /// What was written to it before it went away may be missing: the next flush of a
    /// user is to say so.
    pub fn doubt(&self) {
        self.unsure.store(true, Ordering::Relaxed);
        if let Some(tally) = self.tally() {
            tally.doubt(true);
        }
    }

    /// Nobody is left who relies on what was written.
    pub fn settle(&self) {
        self.unsure.store(false, Ordering::Relaxed);
        if let Some(tally) = self.tally() {
            tally.doubt(false);
            tally.flushed(tally.landed());
        }
    }

    /// Whether no flush has said yet that writes may be missing; for those who flush.
    pub(crate) fn unsure(&self) -> &Arc<AtomicBool> {
        &self.unsure
    }

    /// Whether no flush has said yet that writes may be missing.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.unsure.load(Ordering::Relaxed)
    }

    /// Whether something written may be missing once it has gone away.
    #[must_use]
    pub fn may_miss_writes(&self) -> bool {
        self.is_in_doubt() || self.tally().is_none_or(|tally| tally.has_unflushed())
    }
}

/// A device that holds metadata and copied-out chunks.
#[derive(Debug)]
pub struct StoreDevice(pub(super) Device);

impl StoreDevice {
    /// Opens and holds the store at `path`. Only whole 4 KiB blocks are used.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn open(path: impl AsRef<Path>, read_only: bool) -> Result<Self, DeviceError> {
        Device::open(path.as_ref(), read_only).map(Self)
    }
}

impl Deref for OriginDevice {
    type Target = Device;
    fn deref(&self) -> &Device {
        &self.device
    }
}

impl Deref for StoreDevice {
    type Target = Device;
    fn deref(&self) -> &Device {
        &self.0
    }
}

fn query(path: &Path, what: &'static str, source: io::Error) -> DeviceError {
    DeviceError::Query {
        path: path.to_owned(),
        what,
        source,
    }
}

fn size_of(file: &File, is_block: bool) -> io::Result<u64> {
    if is_block {
        sys::device_size(file)
    } else {
        file.metadata().map(|meta| meta.len())
    }
}

/// Opens with direct I/O, or without where the file system refuses it.
fn open_direct(path: &Path, read_only: bool, flags: i32) -> Result<(File, bool), DeviceError> {
    let open = |flags| {
        OpenOptions::new()
            .read(true)
            .write(!read_only)
            .custom_flags(flags)
            .open(path)
    };
    let result = match open(flags | libc::O_DIRECT) {
        Ok(file) => return Ok((file, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(flags),
        Err(error) => Err(error),
    };
    match result {
        Ok(file) => {
            tracing::warn!(path = %path.display(), "no direct I/O here: using the page cache");
            Ok((file, false))
        }
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Err(DeviceError::Busy {
            path: path.to_owned(),
        }),
        Err(source) => Err(DeviceError::Open {
            path: path.to_owned(),
            source,
        }),
    }
}

fn lock(file: &File, path: &Path) -> Result<(), DeviceError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => DeviceError::Busy {
            path: path.to_owned(),
        },
        TryLockError::Error(source) => query(path, "lock", source),
    })
}
