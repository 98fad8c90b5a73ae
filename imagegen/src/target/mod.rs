//! Where an image goes: a file that appears under its name when it is whole, or a block
//! device or an existing file that nobody else has and that is written over in place.
//!
//! Whatever fails, and also when a [`Target`] is dropped, no half of an image stays under
//! the name. A device has no name to withhold, so what it held is made unrecognisable
//! first; the superblock that makes it a file system comes last, from the writer.

mod device;
mod direct;
mod error;
mod file;
mod present;
mod replaced;
mod share;
mod zero;

pub use device::capacity;
pub use error::TargetError;
pub use present::Present;

use crate::medium::Medium;
use direct::Direct;
use file::Unnamed;
use share::Sharing;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

/// No file system of today refuses files of so many bytes, holes as they are.
const EXPECTED_AT_MOST: u64 = 1 << 40;

/// Whether what is there may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// No: a file that exists, or a device on which something is recognised, is refused.
    Refuse,
    /// Yes. A device in use is refused all the same.
    Force,
}

/// An image being made. Positions are in bytes; threads may write at the same time.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    size: u64,
    place: Place,
    direct: Direct,
    sharing: Sharing,
}

#[derive(Debug)]
enum Place {
    File(Unnamed),
    Device(File),
    InPlace(InPlace),
}

impl Place {
    fn file(&self) -> &File {
        match self {
            Self::File(unnamed) => unnamed.file(),
            Self::Device(file) => file,
            Self::InPlace(present) => &present.file,
        }
    }
}

/// A file written over where it lies: all hole again if it is dropped before it is whole.
#[derive(Debug)]
struct InPlace {
    file: File,
    length: u64,
    is_whole: bool,
}

impl InPlace {
    fn new(file: File, length: u64) -> Self {
        Self {
            file,
            length,
            is_whole: false,
        }
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        if !self.is_whole {
            let _ = present::punch(&self.file, self.length);
        }
    }
}

impl Target {
    /// Begins an image of `size` bytes: a new file of that size without blocks, or the
    /// beginning of the block device that `path` is. ([`Present`] is for files that are
    /// to stay the same file.) A file that replaces another has its owner and mode from
    /// the beginning.
    ///
    /// # Errors
    /// If there is something already, or it is in use, or it cannot be opened.
    pub fn create(path: &Path, size: u64, overwrite: Overwrite) -> Result<Self, TargetError> {
        let there = match std::fs::metadata(path) {
            Ok(there) => Some(there.file_type()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if std::fs::symlink_metadata(path).is_ok() {
                    return Err(TargetError::Unsuitable {
                        path: path.to_owned(),
                        kind: "a symbolic link that leads nowhere",
                    });
                }
                None
            }
            Err(error) => return Err(failed(path, "look at it", error)),
        };
        let place = match there {
            Some(kind) if kind.is_block_device() => {
                return Present::open(path, overwrite)?.begin(size);
            }
            Some(kind) if !kind.is_file() => {
                return Err(TargetError::Unsuitable {
                    path: path.to_owned(),
                    kind: name_of(kind),
                });
            }
            Some(_) if overwrite == Overwrite::Refuse => {
                return Err(TargetError::Exists {
                    path: path.to_owned(),
                });
            }
            _ => Place::File(Unnamed::create(path, size, overwrite)?),
        };
        Ok(Self::at(path, size, place))
    }

    /// Begins an image whose size is not known yet, and `expected` about: as
    /// [`Target::create`], but a file may grow as long as it is written, and gets its size
    /// from [`Target::finish_at`]. A device may be written to its end.
    ///
    /// # Errors
    /// If there is something already, or it cannot be opened.
    pub fn growing(path: &Path, expected: u64, overwrite: Overwrite) -> Result<Self, TargetError> {
        if let Some(capacity) = capacity(path)? {
            return Self::create(path, capacity, overwrite);
        }
        // Only so that writes need not move the end of the file one by one.
        let mut target = Self::create(path, expected.min(EXPECTED_AT_MOST), overwrite)?;
        target.size = i64::MAX as u64;
        Ok(target)
    }

    /// The image is whole and has `size` bytes: as [`Target::finish`].
    ///
    /// # Errors
    /// If that fails; a file is gone then.
    pub fn finish_at(self, size: u64, sync: bool) -> Result<(), TargetError> {
        self.settle(size, false)?;
        self.finish(sync)
    }

    /// What of [`Target::finish_at`] takes time or room, without the name: where several
    /// files belong together, all of them come so far before one is named.
    ///
    /// # Errors
    /// If that fails.
    pub fn settle(&self, size: u64, sync: bool) -> Result<(), TargetError> {
        if let Place::File(unnamed) = &self.place {
            let sized = unnamed.file().set_len(size);
            sized.map_err(|error| failed(&self.path, "give it its size", error))?;
        }
        if sync {
            let synced = self.file().sync_all();
            synced.map_err(|error| failed(&self.path, "make it durable", error))?;
        }
        Ok(())
    }

    fn at(path: &Path, size: u64, place: Place) -> Self {
        Self {
            path: path.to_owned(),
            size,
            direct: Direct::to(place.file()),
            sharing: Sharing::with(place.file()),
            place,
        }
    }

    fn file(&self) -> &File {
        self.place.file()
    }

    /// Bytes of the image.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What was written so far, to be read back.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let read = self.file().read_exact_at(bytes, at);
        read.map_err(|error| self.explain(error))
    }

    /// The image is whole: it gets its name. With `sync` it is on stable storage, and
    /// its name as well, when this returns.
    ///
    /// # Errors
    /// If that fails; a file is gone then.
    pub fn finish(self, sync: bool) -> Result<(), TargetError> {
        if sync {
            let synced = self.file().sync_all();
            if synced.is_err() && matches!(self.place, Place::Device(_)) {
                // Not to be taken for whole, be it XFS or EROFS; the device may well refuse
                // this too.
                let _ = self.file().write_all_at(&[0; 4096], 0);
            }
            synced.map_err(|error| failed(&self.path, "make it durable", error))?;
            self.direct.end(self.file());
        }
        match self.place {
            Place::File(unnamed) => unnamed.name(sync),
            Place::Device(_) => Ok(()),
            Place::InPlace(mut present) => {
                present.is_whole = true;
                Ok(())
            }
        }
    }

    /// Errors of a full or limited file system name it and say what can be done; the
    /// system's own words name neither.
    fn explain(&self, error: io::Error) -> io::Error {
        let path = self.path.display();
        let text = match error.kind() {
            io::ErrorKind::StorageFull => {
                format!("{path}: no space left where it lies; make room or choose another place")
            }
            io::ErrorKind::QuotaExceeded => {
                format!("{path}: the quota where it lies is used up; choose another place")
            }
            io::ErrorKind::FileTooLarge => {
                format!("{path}: larger than a file may be where it lies; choose another place")
            }
            _ => format!("{path}: {error}"),
        };
        io::Error::new(error.kind(), text)
    }

    /// Past the page cache what can go there.
    fn write_both_ways(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let done = self.direct.write(bytes, at)?;
        let (before, rest) = bytes.split_at(done.start);
        self.file().write_all_at(before, at)?;
        let after = rest.get(done.len()..).unwrap_or_default();
        self.file().write_all_at(after, at + done.end as u64)
    }

    fn inside(&self, at: u64, length: u64) -> io::Result<()> {
        match at.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "bytes {at} and {length} on lie beyond the image's end {}",
                    self.size
                ),
            )),
        }
    }
}

impl Medium for Target {
    fn barrier(&self) -> io::Result<()> {
        match &self.place {
            Place::File(_) => Ok(()),
            Place::Device(file) | Place::InPlace(InPlace { file, .. }) => {
                file.sync_data().map_err(|error| self.explain(error))
            }
        }
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(bytes, at)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.inside(at, bytes.len() as u64)?;
        let written = self.write_both_ways(bytes, at);
        written.map_err(|error| self.explain(error))
    }

    /// Through the page cache, where it is at hand.
    fn write_draft(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.inside(at, bytes.len() as u64)?;
        let written = self.file().write_all_at(bytes, at);
        written.map_err(|error| self.explain(error))
    }

    /// A device would go on holding what it held, which is nobody's business: zeroes are
    /// written. A new file has holes.
    fn skip(&self, at: u64, length: u64) -> io::Result<()> {
        match &self.place {
            Place::File(_) => Ok(()),
            Place::Device(_) | Place::InPlace(_) => {
                self.inside(at, length)?;
                let zeroed = zero::write(self.file(), at, length);
                zeroed.map_err(|error| self.explain(error))
            }
        }
    }

    fn share(&self, from: &File, from_at: u64, at: u64, length: u64) -> io::Result<u64> {
        self.inside(at, length)?;
        let shared = self.sharing.share(from, from_at, self.file(), at, length);
        shared.map_err(|error| self.explain(error))
    }

    fn zero(&self, at: u64, length: u64) -> io::Result<()> {
        self.inside(at, length)?;
        let zeroed = zero::zero(self.file(), at, length);
        zeroed.map_err(|error| self.explain(error))
    }
}

fn failed(path: &Path, action: &'static str, cause: io::Error) -> TargetError {
    TargetError::Io {
        path: path.to_owned(),
        action,
        cause,
    }
}

fn name_of(kind: std::fs::FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_char_device() => "a character device",
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        _ => "something else",
    }
}
