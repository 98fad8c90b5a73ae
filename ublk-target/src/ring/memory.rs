//! The buffers of one I/O thread: one mapping, registered once.
//!
//! Layout: a block of zeroes, copy buffers, then request buffers of two sizes.
//! Larger requests, and all when the pool is empty, get a mapping of their own,
//! of which there is a bounded amount. Whoever takes a buffer gives it back; the kernel
//! owns it from an operation's submission to its completion.
//!
//! How long an NBD client keeps a buffer is up to its peer. So clients never take the
//! last ones: requests of block devices end by themselves, and always find some.

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use snapstore::{BLOCK_SIZE, Checksum};

use crate::lane::{self, BufferId};

/// The largest copyout, in bytes.
const COPY: usize = 1 << 20;
/// Copies of that size under way at once.
const COPIES: usize = 8;
/// Most copies are of one chunk or a few: bytes of their buffers, and how many.
const SMALL_COPY: usize = 64 << 10;
const SMALL_COPIES: usize = 32;
/// The block of zeroes, in bytes.
const ZEROES: usize = 256 << 10;
/// The two sizes of request buffers, in bytes.
pub(super) const SMALL: usize = 16 << 10;
pub(super) const LARGE: usize = 256 << 10;
/// Bytes of single mappings for NBD clients.
const OVERSIZE_LIMIT: usize = 64 << 20;
/// Bytes of single mappings that only block devices get, beyond those.
const OVERSIZE_SPARE: usize = 8 << 20;
/// One in so many buffers of the pool is for block devices alone.
const SPARE: usize = 8;
/// The least a lane works with, in bytes.
pub(crate) const LEAST: usize =
    ZEROES + SMALL_COPIES * SMALL_COPY + COPIES * COPY + 4 * (SMALL + LARGE);

/// Marks a buffer that is not memory of this process.
const KERNEL: u32 = 1 << 31;

/// The buffer that is a request's pages, at `index` in the ring's table.
pub(crate) fn kernel_buffer(index: u16) -> BufferId {
    BufferId(KERNEL | u32::from(index))
}

/// The index, if the buffer is a request's pages.
pub(crate) fn kernel_index(buffer: BufferId) -> Option<u16> {
    (buffer.0 & KERNEL != 0).then_some(buffer.0 as u16)
}

/// An anonymous mapping, unmapped when dropped.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is plain memory owned by whoever owns the value.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(len: usize) -> nix::Result<Self> {
        let size = NonZeroUsize::new(len).ok_or(nix::errno::Errno::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private mapping touches no existing memory.
        let base = unsafe { mmap_anonymous(None, size, access, MapFlags::MAP_PRIVATE) }?.cast();
        Ok(Self { base, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this value owns the mapping and nothing borrows it any more.
        if let Err(error) = unsafe { munmap(self.base.cast(), self.len) } {
            tracing::error!(%error, "cannot unmap a buffer");
        }
    }
}

/// All buffers of a thread. See the module.
#[derive(Debug)]
pub(crate) struct Memory {
    pool: Mapping,
    /// Start in the pool and length, by number.
    places: Vec<(usize, usize)>,
    small: Vec<BufferId>,
    large: Vec<BufferId>,
    /// How many of either NBD clients leave.
    spare: (usize, usize),
    /// Single mappings, and whether they count.
    oversize: slab::Slab<(Mapping, bool)>,
    oversize_bytes: usize,
}

/// What a [`lane::Lane`] keeps for itself.
pub(crate) struct Reserved {
    pub(crate) copies: Vec<(u32, Vec<BufferId>)>,
    pub(crate) zeroes: (BufferId, u32),
}

impl Memory {
    /// Maps `bytes` (at least [`LEAST`]).
    pub(crate) fn new(bytes: usize) -> nix::Result<(Self, Reserved)> {
        let bytes = bytes.max(LEAST) / BLOCK_SIZE * BLOCK_SIZE;
        let pool = Mapping::new(bytes)?;
        // SAFETY: the range is the mapping just made; the advice changes no contents.
        let advised = unsafe { madvise(pool.base.cast(), pool.len, MmapAdvise::MADV_HUGEPAGE) };
        if let Err(error) = advised {
            tracing::debug!(%error, "no huge pages for the buffers");
        }
        let mut memory = Self {
            pool,
            places: Vec::new(),
            small: Vec::new(),
            large: Vec::new(),
            spare: (0, 0),
            oversize: slab::Slab::new(),
            oversize_bytes: 0,
        };
        let mut at = 0;
        let zeroes = memory.place(&mut at, ZEROES);
        let mut copies = |len: usize, count| {
            let buffers = (0..count).map(|_| memory.place(&mut at, len));
            (len as u32, buffers.collect())
        };
        let copies = vec![copies(SMALL_COPY, SMALL_COPIES), copies(COPY, COPIES)];
        let share = (bytes - at) / (3 * LARGE);
        memory.large = (0..share * 2)
            .map(|_| memory.place(&mut at, LARGE))
            .collect();
        memory.small = (0..(bytes - at) / SMALL)
            .map(|_| memory.place(&mut at, SMALL))
            .collect();
        memory.spare = (
            memory.small.len().div_ceil(SPARE),
            memory.large.len().div_ceil(SPARE),
        );
        Ok((
            memory,
            Reserved {
                copies,
                zeroes: (zeroes, ZEROES as u32),
            },
        ))
    }

    fn place(&mut self, at: &mut usize, len: usize) -> BufferId {
        let id = BufferId(self.places.len() as u32);
        self.places.push((*at, len));
        *at += len;
        id
    }

    /// The mapping to register.
    pub(crate) fn registration(&self) -> libc::iovec {
        libc::iovec {
            iov_base: self.pool.base.as_ptr().cast(),
            iov_len: self.pool.len,
        }
    }

    /// A buffer of at least `len` bytes for a block device, if there is one now.
    pub(crate) fn take(&mut self, len: usize) -> Option<BufferId> {
        self.take_pooled(len, (0, 0))
            .or_else(|| self.take_oversize(len, OVERSIZE_LIMIT + OVERSIZE_SPARE))
    }

    /// Likewise for an NBD client; a mapping of its own only if it `may_single`.
    pub(crate) fn take_sparing(&mut self, len: usize, may_single: bool) -> Option<BufferId> {
        self.take_pooled(len, self.spare).or_else(|| {
            may_single
                .then(|| self.take_oversize(len, OVERSIZE_LIMIT))
                .flatten()
        })
    }

    /// One of the pool, if more than `spare` are left.
    fn take_pooled(&mut self, len: usize, spare: (usize, usize)) -> Option<BufferId> {
        if len <= SMALL && self.small.len() > spare.0 {
            self.small.pop()
        } else if len <= LARGE && self.large.len() > spare.1 {
            self.large.pop()
        } else {
            None
        }
    }

    /// Bytes a buffer occupies.
    pub(crate) fn room(&self, buffer: BufferId) -> usize {
        let index = buffer.0 as usize;
        match self.places.get(index) {
            Some((_, room)) => *room,
            None => self
                .oversize
                .get(index - self.places.len())
                .map_or(0, |(own, _)| own.len),
        }
    }

    fn take_oversize(&mut self, len: usize, limit: usize) -> Option<BufferId> {
        let len = len.next_multiple_of(BLOCK_SIZE);
        if self.oversize_bytes + len > limit {
            return None;
        }
        let mapping = Mapping::new(len)
            .inspect_err(|error| tracing::warn!(%error, len, "no memory for a large request"))
            .ok()?;
        self.oversize_bytes += len;
        Some(self.insert(mapping, true))
    }

    /// A buffer that is there whatever others have taken: it does not count among the
    /// large ones, and only what is touched of it takes memory. The caller bounds how many.
    pub(crate) fn take_own(&mut self, len: usize) -> Option<BufferId> {
        let mapping = Mapping::new(len.next_multiple_of(BLOCK_SIZE))
            .inspect_err(|error| tracing::error!(%error, len, "no memory for a buffer"))
            .ok()?;
        Some(self.insert(mapping, false))
    }

    fn insert(&mut self, mapping: Mapping, counts: bool) -> BufferId {
        BufferId((self.places.len() + self.oversize.insert((mapping, counts))) as u32)
    }

    /// Gives a buffer back.
    pub(crate) fn give(&mut self, buffer: BufferId) {
        match self.places.get(buffer.0 as usize) {
            Some((_, SMALL)) => self.small.push(buffer),
            Some(_) => self.large.push(buffer),
            None => {
                let key = buffer.0 as usize - self.places.len();
                if let Some((mapping, true)) = self.oversize.try_remove(key) {
                    self.oversize_bytes -= mapping.len;
                }
            }
        }
    }

    /// Whether the buffer lies in the registered mapping.
    pub(crate) fn is_registered(&self, buffer: BufferId) -> bool {
        (buffer.0 as usize) < self.places.len()
    }

    /// Address of `len` bytes from `at` on; `None` if the buffer is not that long.
    pub(crate) fn address(&self, buffer: BufferId, at: usize, len: usize) -> Option<NonNull<u8>> {
        let index = buffer.0 as usize;
        let (base, start, room) = match self.places.get(index) {
            Some((start, room)) => (self.pool.base, *start, *room),
            None => {
                let (mapping, _) = self.oversize.get(index - self.places.len())?;
                (mapping.base, 0, mapping.len)
            }
        };
        if at.checked_add(len)? > room {
            return None;
        }
        // SAFETY: `start + at + len` lies within the mapping `base` begins.
        Some(unsafe { base.add(start + at) })
    }

    /// The bytes themselves; empty if the buffer is not that long. Only between
    /// operations: the kernel must not own them.
    pub(crate) fn bytes(&self, buffer: BufferId, at: usize, len: usize) -> &[u8] {
        match self.address(buffer, at, len) {
            // SAFETY: in bounds, initialised (the mapping began as zeroes), and
            // no operation that writes there is in flight by the contract above.
            Some(address) => unsafe { std::slice::from_raw_parts(address.as_ptr(), len) },
            None => &[],
        }
    }

    /// Likewise, to write to.
    pub(crate) fn bytes_mut(&mut self, buffer: BufferId, at: usize, len: usize) -> &mut [u8] {
        match self.address(buffer, at, len) {
            // SAFETY: as for `bytes`; `&mut self` keeps this thread from a second
            // reference, and no other thread knows the mapping.
            Some(address) => unsafe { std::slice::from_raw_parts_mut(address.as_ptr(), len) },
            None => &mut [],
        }
    }
}

impl lane::Memory for Memory {
    fn checksum(&self, by: Checksum, buffer: BufferId, at: u32, len: u32, out: &mut Vec<u32>) {
        let bytes = self.bytes(buffer, at as usize, len as usize);
        out.extend(bytes.chunks(BLOCK_SIZE).map(|block| by.of(block)));
    }

    fn zero(&mut self, buffer: BufferId, at: u32, len: u32) {
        self.bytes_mut(buffer, at as usize, len as usize).fill(0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn buffers_never_overlap_and_come_back() {
        let (mut memory, reserved) = Memory::new(32 << 20).unwrap();
        let mut held: Vec<(BufferId, usize)> = Vec::new();
        for len in [512, SMALL, SMALL + 1, LARGE].into_iter().cycle() {
            match memory.take(len) {
                Some(buffer) => held.push((buffer, len)),
                None => break,
            }
        }
        assert!(held.len() > 100, "{}", held.len());
        let all = held.iter().copied().chain(
            reserved
                .copies
                .iter()
                .flat_map(|(len, buffers)| buffers.iter().map(|buffer| (*buffer, *len as usize))),
        );
        let mut seen = HashSet::new();
        for (buffer, len) in all.chain([(reserved.zeroes.0, ZEROES)]) {
            let start = memory.address(buffer, 0, len).unwrap().as_ptr() as usize;
            assert_eq!(start % BLOCK_SIZE, 0);
            for page in (start..start + len).step_by(BLOCK_SIZE) {
                assert!(seen.insert(page), "two buffers share a page");
            }
        }
        let taken = held.len();
        for (buffer, _) in held {
            memory.give(buffer);
        }
        assert!((0..taken).all(|_| memory.take(512).is_some()));
    }

    #[test]
    fn clients_leave_some_to_block_devices() {
        let (mut memory, _) = Memory::new(32 << 20).unwrap();
        for len in [512, LARGE] {
            while memory.take_sparing(len, false).is_some() {}
            assert_eq!(memory.take_sparing(len, false), None);
            let left = memory.take(len).unwrap();
            assert!(memory.is_registered(left));
        }
        let single = memory.take_sparing(512, true).unwrap();
        assert!(!memory.is_registered(single));
    }

    #[test]
    fn large_requests_are_bounded_and_their_ends_are_checked() {
        let (mut memory, _) = Memory::new(0).unwrap();
        let first = memory.take(32 << 20).unwrap();
        assert_eq!(memory.room(first), 32 << 20);
        let second = memory.take_sparing(32 << 20, true).unwrap();
        assert_eq!(memory.take_sparing(1 << 20, true), None);
        let spare = memory.take(OVERSIZE_SPARE).unwrap();
        assert_eq!(memory.take(1 << 20), None);
        memory.give(spare);
        assert!(!memory.is_registered(first));
        assert!(memory.address(first, 0, 32 << 20).is_some());
        assert!(memory.address(first, 1, 32 << 20).is_none());
        memory.bytes_mut(first, 4096, 4096).fill(9);
        assert_eq!(memory.bytes(first, 4095, 2), [0, 9]);
        memory.give(first);
        assert!(memory.take(1 << 20).is_some());
        memory.give(second);
    }
}
