//! Large writes past the page cache (`O_DIRECT`): they cost no copy and no wait at the end,
//! and leave the cache to others.
//!
//! Only whole pages go this way, and what shares a page with other bytes goes through the
//! cache, so that no page is ever written both ways at once. The cache must not read ahead
//! meanwhile, or it would keep what lies beside, too. btrfs is left out: it would neither
//! compress what goes past the cache, nor, with checksums, let it.

use super::share::{BTRFS, kind};
use crate::medium::page;
use rustix::fs::{Advice, CWD, Mode, OFlags, fadvise, openat};
use rustix::io::{Errno, pwrite};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Less is not worth waiting for the disk.
const LEAST: usize = 64 << 10;

/// A second way to the same file.
#[derive(Debug)]
pub(super) struct Direct {
    file: Option<File>,
    refused: AtomicBool,
}

impl Direct {
    /// To `file`, if what it lies on knows such a way.
    pub(super) fn to(file: &File) -> Self {
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let second = match kind(file) {
            Some(BTRFS) => None,
            _ => openat(CWD, own, flags, Mode::empty()).ok(),
        };
        if second.is_some() {
            // At worst it is not heeded.
            let _ = fadvise(file, 0, None, Advice::Random);
        }
        Self {
            file: second.map(File::from),
            refused: AtomicBool::new(false),
        }
    }

    /// Writes what it can of `bytes` at `at`; which of them it were.
    pub(super) fn write(&self, bytes: &[u8], at: u64) -> io::Result<Range<usize>> {
        let none = Ok(0..0);
        let page = page();
        let begin = (at.next_multiple_of(page as u64) - at) as usize;
        let end = at + bytes.len() as u64;
        let end = (bytes.len() as u64).saturating_sub(end % page as u64) as usize;
        let (Some(file), Some(whole)) = (&self.file, bytes.get(begin..end)) else {
            return none;
        };
        let unaligned = whole.as_ptr().align_offset(page) != 0;
        if whole.len() < LEAST || unaligned || self.refused.load(Relaxed) {
            return none;
        }
        let mut done = 0;
        while let Some(rest) = whole.get(done..).filter(|rest| !rest.is_empty()) {
            match pwrite(file, rest, at + (begin + done) as u64) {
                // Odd pieces end it: the rest goes through the cache.
                Ok(written) if written.is_multiple_of(page) && written > 0 => done += written,
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO)) => {
                    return Err(error.into());
                }
                // Odd demands of the device among them; what is really wrong shows again.
                Err(_) => {
                    self.refused.store(true, Relaxed);
                    break;
                }
            }
        }
        Ok(begin..begin + done)
    }

    /// Leaves the cache to others: it forgets what it holds of `file`, all of which is
    /// written.
    pub(super) fn end(&self, file: &File) {
        if self.file.is_some() {
            let _ = fadvise(file, 0, None, Advice::DontNeed);
        }
    }
}
