//! What is there already and is written over where it lies: a block device, or a file
//! that stands for one. Nobody else may have it meanwhile.
//!
//! A device often holds remains of no use, so only what is recognised on it counts. A
//! file does not: any byte of it that is not zero may be somebody's.

use super::{InPlace, Overwrite, Place, Target, TargetError, failed, name_of, zero};
use crate::xfs::format::superblock::{MAGIC, Superblock};
use rustix::fs::{FallocateFlags, OFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use snapstore::signature;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zerocopy::{FromZeros, IntoBytes};

/// Bytes at both ends in which signatures lie.
const ENDS: u64 = 256 << 10;
/// More groups than any file system of reasonable groups has: of what claims more only
/// the first is made unrecognisable.
const MAX_GROUPS: u32 = 1 << 16;
/// Bytes looked at in one go.
const PIECE: u64 = 1 << 20;

/// A device or file that is there, held so that nobody else gets it. Nothing of it is
/// changed before [`Present::begin`].
#[derive(Debug)]
pub struct Present {
    path: PathBuf,
    file: File,
    size: u64,
    is_device: bool,
    is_empty: bool,
}

impl Present {
    /// Opens the block device or regular file at `path` and looks at what it holds.
    ///
    /// # Errors
    /// If it is neither, somebody has it (a file: by `flock`), or it holds something that
    /// `overwrite` does not let go.
    pub fn open(path: &Path, overwrite: Overwrite) -> Result<Self, TargetError> {
        let there = std::fs::metadata(path);
        let kind = there
            .map_err(|error| failed(path, "look at it", error))?
            .file_type();
        let is_device = kind.is_block_device();
        if !is_device && !kind.is_file() {
            return Err(TargetError::Unsuitable {
                path: path.to_owned(),
                kind: name_of(kind),
            });
        }
        let mut file = hold(path, is_device)?;
        let end = file.seek(io::SeekFrom::End(0));
        let size = end.map_err(|error| failed(path, "find its size", error))?;
        let found = contents(&file, size, is_device);
        let found = found.map_err(|error| failed(path, "see what it holds", error))?;
        let is_empty = found.is_none();
        match found {
            Some(found) if overwrite == Overwrite::Refuse => Err(TargetError::Holds {
                path: path.to_owned(),
                found,
            }),
            _ => Ok(Self {
                path: path.to_owned(),
                file,
                size,
                is_device,
                is_empty,
            }),
        }
    }

    /// Bytes there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Begins an image of `size` bytes, with nothing left of what was recognised. A file
    /// keeps its length; it is empty again if the image does not get whole.
    ///
    /// # Errors
    /// If there is no room, or it cannot be wiped.
    pub fn begin(self, size: u64) -> Result<Target, TargetError> {
        let Self { path, file, .. } = self;
        if self.size < size {
            return Err(TargetError::TooSmall {
                path,
                capacity: self.size,
                size,
            });
        }
        let wiped = match (self.is_device, self.is_empty) {
            (false, true) => Ok(()),
            (false, false) if punch(&file, self.size).is_ok() => Ok(()),
            _ => wipe(&file, self.size),
        };
        wiped.map_err(|error| failed(&path, "wipe what it held", error))?;
        let place = match self.is_device {
            true => Place::Device(file),
            false => Place::InPlace(InPlace::new(file, self.size)),
        };
        Ok(Target::at(&path, size, place))
    }
}

/// Opens it so that nobody else has it.
fn hold(path: &Path, is_device: bool) -> Result<File, TargetError> {
    let in_use = || TargetError::InUse {
        path: path.to_owned(),
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    if is_device {
        // On a block device that keeps out, and is kept out by, mounts and other owners.
        options.custom_flags(OFlags::EXCL.bits() as i32);
    }
    let file = options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => in_use(),
        _ => failed(path, "open it", error),
    })?;
    if is_device {
        return Ok(file);
    }
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(in_use()),
        Err(TryLockError::Error(error)) => Err(failed(path, "lock it", error)),
    }
}

/// What is there that may be of use to somebody, for a person.
fn contents(file: &File, size: u64, is_device: bool) -> io::Result<Option<String>> {
    let found = signature::find(size, |at, bytes| file.read_exact_at(bytes, at))?;
    if let Some(first) = found.first() {
        return Ok(Some(first.to_string()));
    }
    if is_device {
        return Ok(None);
    }
    let first = first_byte(file, size)?;
    Ok(first.map(|at| format!("data (byte {at} is not zero)")))
}

/// Where the first byte lies that is not zero; holes are not read.
fn first_byte(file: &File, size: u64) -> io::Result<Option<u64>> {
    let mut piece = vec![0; PIECE.min(size) as usize];
    let mut at = 0;
    while at < size {
        at = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let read = file.read_at(&mut piece, at)?;
        let bytes = piece.get(..read).unwrap_or_default();
        if let Some(found) = bytes.iter().position(|byte| *byte != 0) {
            return Ok(Some(at + found as u64));
        }
        if read == 0 {
            break;
        }
        at += read as u64;
    }
    Ok(None)
}

/// Makes all of a file a hole.
pub(super) fn punch(file: &File, size: u64) -> io::Result<()> {
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file, hole, 0, size)?)
}

/// Zeroes both ends, and the copies of an XFS superblock: xfs_repair would find them when
/// it looks for ours.
fn wipe(file: &File, capacity: u64) -> io::Result<()> {
    for at in old_superblocks(file, capacity) {
        zero::zero(file, at, 512)?;
    }
    let ends = ENDS.min(capacity);
    zero::zero(file, 0, ends)?;
    zero::zero(file, capacity - ends, ends)?;
    file.sync_data()
}

/// Where copies of an XFS superblock lie, if the device begins with one.
fn old_superblocks(file: &File, capacity: u64) -> Vec<u64> {
    let mut old = Superblock::new_zeroed();
    let read = file.read_exact_at(old.as_mut_bytes(), 0);
    let groups = old.ag_count.get();
    if read.is_err() || old.magic.get() != MAGIC || groups > MAX_GROUPS {
        return Vec::new();
    }
    let group = u64::from(old.ag_blocks.get()).checked_mul(old.block_size.get().into());
    let places = (1..u64::from(groups)).filter_map(|ag| group?.checked_mul(ag));
    let fits = |at: &u64| at.checked_add(512).is_some_and(|end| end <= capacity);
    places.filter(|at| *at % 512 == 0).filter(fits).collect()
}
