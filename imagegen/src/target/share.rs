//! Bytes that come from another file of the same file system, where that shares blocks or
//! copies them itself (`copy_file_range`).
//!
//! Where it does neither, the kernel would copy from page cache to page cache, which is
//! slower than reading and writing past it; so only file systems are asked that are known
//! for it.

use rustix::fs::{copy_file_range, fstat, fstatfs};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Blocks are shared whole: where a place is no multiple of this, the kernel would copy.
const BLOCK: u64 = 4096;
/// btrfs, whose subvolumes are devices of their own and still share.
pub(super) const BTRFS: u64 = 0x9123_683e;
/// File systems that share blocks or copy on their server: btrfs, XFS, bcachefs, OCFS2,
/// ZFS, NFS, SMB, CephFS (`statfs(2)`, `linux/magic.h`).
const ABLE: [u64; 8] = [
    BTRFS,
    0x5846_5342,
    0xca45_1a4e,
    0x7461_636f,
    0x2fc1_2fc1,
    0x6969,
    0xfe53_4d42,
    0x00c3_6400,
];

/// What kind of file system a file lies on, by its magic number.
pub(super) fn kind(file: &File) -> Option<u64> {
    fstatfs(file).ok().map(|fs| fs.f_type as u64)
}

/// What is shared with one file that is written.
#[derive(Debug)]
pub(super) struct Sharing {
    /// The file system of the file, if it can share: its kind and its device.
    home: Option<(u64, u64)>,
    refused: AtomicBool,
}

impl Sharing {
    pub(super) fn with(file: &File) -> Self {
        let kind = kind(file).filter(|kind| ABLE.contains(kind));
        let home = kind.and_then(|kind| Some((kind, fstat(file).ok()?.st_dev)));
        Self {
            home,
            refused: AtomicBool::new(false),
        }
    }

    fn is_home_of(&self, from: &File) -> bool {
        match self.home {
            Some((BTRFS, _)) => kind(from) == Some(BTRFS),
            Some((_, device)) => fstat(from).is_ok_and(|stat| stat.st_dev == device),
            None => false,
        }
    }

    /// Shares `length` bytes; returns how many it were, from the first on.
    pub(super) fn share(
        &self,
        from: &File,
        from_at: u64,
        to: &File,
        at: u64,
        length: u64,
    ) -> io::Result<u64> {
        let whole = length / BLOCK * BLOCK;
        let aligned = from_at.is_multiple_of(BLOCK) && at.is_multiple_of(BLOCK);
        if whole == 0 || !aligned || self.refused.load(Relaxed) || !self.is_home_of(from) {
            return Ok(0);
        }
        let (mut source, mut target) = (from_at, at);
        let mut done = 0;
        while done < whole {
            let piece = (whole - done).min(1 << 30) as usize;
            match copy_file_range(from, Some(&mut source), to, Some(&mut target), piece) {
                Ok(0) => break,
                Ok(bytes) => done += bytes as u64,
                Err(Errno::INTR) => {}
                Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
                    return Err(error.into());
                }
                Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                    self.refused.store(true, Relaxed);
                    break;
                }
                // What is really wrong with either file shows when it is read or written.
                Err(_) => break,
            }
        }
        Ok(done)
    }
}
