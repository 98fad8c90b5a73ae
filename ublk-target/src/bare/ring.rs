//! The ring of one thread and the memory its operations use.
//!
//! Memory handed to the kernel lies in [`Area`], which the thread drops after its
//! ring, or is a request's own pages, which the kernel looks after.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::ptr::NonNull;

use io_uring::{IoUring, cqueue, squeue};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Anonymous memory, unmapped when dropped.
pub(super) struct Area {
    base: NonNull<u8>,
    len: usize,
}

impl Area {
    pub(super) fn new(len: usize) -> io::Result<Self> {
        // A map of nothing is refused; a page costs nothing.
        let size = NonZeroUsize::new(len).unwrap_or(NonZeroUsize::MIN);
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private mapping touches no existing memory.
        let base = unsafe { mmap_anonymous(None, size, access, MapFlags::MAP_PRIVATE) }?;
        Ok(Self {
            base: base.cast(),
            len: size.get(),
        })
    }

    /// The address of byte `at`.
    pub(super) fn address(&self, at: usize) -> *mut u8 {
        self.base.as_ptr().wrapping_add(at.min(self.len))
    }

    fn registration(&self) -> libc::iovec {
        libc::iovec {
            iov_base: self.base.as_ptr().cast(),
            iov_len: self.len,
        }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: this value owns the mapping; the ring that used it is gone.
        if let Err(error) = unsafe { munmap(self.base.cast(), self.len) } {
            tracing::error!(%error, "cannot unmap");
        }
    }
}

pub(super) struct Ring(IoUring);

impl Ring {
    /// A ring with `files` fixed, `pages` places for the pages of requests, and
    /// `area` registered behind them.
    pub(super) fn new(entries: u32, files: &[RawFd], pages: u32, area: &Area) -> io::Result<Self> {
        let entries = entries.next_power_of_two().clamp(64, 4096);
        let ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_submit_all()
            .setup_cqsize(entries * 2)
            .dontfork()
            .build(entries)?;
        ring.submitter().register_files(files)?;
        ring.submitter().register_buffers_sparse(pages + 1)?;
        let own = [area.registration()];
        // SAFETY: the thread drops its ring before the area.
        unsafe { ring.submitter().register_buffers_update(pages, &own, None) }?;
        Ok(Self(ring))
    }

    pub(super) fn as_raw(&self) -> RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.0)
    }

    /// Queues operations that belong together (at most 4, linked by the caller).
    pub(super) fn push(&mut self, entries: &[squeue::Entry]) -> io::Result<()> {
        loop {
            // SAFETY: what the entries name is in the thread's area, or a request's
            // own pages: see the top of the module.
            if unsafe { self.0.submission().push_multiple(entries) }.is_ok() {
                return Ok(());
            }
            passing(self.0.submit())?;
        }
    }

    /// Submits all; waits for a completion if `wait`.
    pub(super) fn enter(&mut self, wait: bool) -> io::Result<()> {
        passing(self.0.submit_and_wait(usize::from(wait)))
    }

    /// Takes every completion there is: user data and result.
    pub(super) fn reap(&mut self, out: &mut Vec<(u64, i32)>) {
        let pair = |entry: cqueue::Entry| (entry.user_data(), entry.result());
        out.extend(self.0.completion().map(pair));
    }
}

/// Errors that only ask to reap first or to come again.
fn passing(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}
