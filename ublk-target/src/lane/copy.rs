//! Copyouts: origin to buffer to store.

use std::collections::VecDeque;

use snapstore::engine::Event;
use snapstore::ids::IoId;
use snapstore::{BLOCK_SIZE, IoError, VolumeId};

use super::transfer::Then;
use super::types::{GONE, UNREACHABLE, io_error};
use super::{Action, BufferId, Lane, Memory, StoreSlot, VolumeSlot};

/// One copyout, waiting for a buffer or under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopyJob {
    pub(super) store: StoreSlot,
    pub(super) io: IoId,
    pub(super) volume: VolumeId,
    pub(super) first: u64,
    pub(super) count: u32,
    /// Bytes the volume has of it.
    pub(super) bytes: u32,
    pub(super) block: u64,
    /// Once started.
    run: Run,
}

/// Buffers of one size, and the copies that wait for one of them.
#[derive(Debug)]
pub(super) struct Berths {
    len: u32,
    pub(super) free: Vec<BufferId>,
    waiting: VecDeque<CopyJob>,
}

impl Berths {
    pub(super) fn new((len, free): (u32, Vec<BufferId>)) -> Self {
        Self {
            len,
            free,
            waiting: VecDeque::with_capacity(64),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Run {
    slot: VolumeSlot,
    buffer: BufferId,
    /// Bytes to be read from the origin.
    have: u32,
    /// Bytes of whole chunks.
    whole: u32,
}

impl CopyJob {
    pub(super) fn new(
        store: StoreSlot,
        io: IoId,
        volume: VolumeId,
        (first, count, bytes): (u64, u32, u32),
        block: u64,
    ) -> Self {
        let run = Run {
            slot: VolumeSlot(0),
            buffer: BufferId(0),
            have: 0,
            whole: 0,
        };
        Self {
            store,
            io,
            volume,
            first,
            count,
            bytes,
            block,
            run,
        }
    }
}

impl Lane {
    /// Starts a copy, or queues it until a buffer is free.
    pub(super) fn copy(&mut self, job: CopyJob) {
        let Some((slot, device, offset, run)) = self.plan_copy(&job) else {
            let result = Err(IoError::Absent);
            let copy = job.io;
            return self.tell(job.store, Event::CopyRead { copy, result });
        };
        let Some(berths) = self.berths(run.whole) else {
            return;
        };
        match berths.free.pop() {
            Some(buffer) => self.start_copy(job, Run { buffer, ..run }, (slot, device, offset)),
            None => berths.waiting.push_back(job),
        }
    }

    fn start_copy(
        &mut self,
        mut job: CopyJob,
        run: Run,
        (slot, device, offset): (VolumeSlot, super::DeviceSlot, u64),
    ) {
        job.run = run;
        if let Some(volume) = self.volume(slot) {
            volume.users += 1;
        }
        let key = self.copies.insert(job);
        let action = Action::Read {
            buffer: run.buffer,
            at: 0,
            offset,
            len: run.have,
        };
        self.issue(device, action, Then::CopyRead(key));
    }

    /// The smallest buffers that hold `len` bytes.
    fn berths(&mut self, len: u32) -> Option<&mut Berths> {
        let at = self.berths.iter().position(|berths| berths.len >= len);
        self.berths.get_mut(at?)
    }

    fn plan_copy(&mut self, job: &CopyJob) -> Option<(VolumeSlot, super::DeviceSlot, u64, Run)> {
        let slot = *self.store(job.store)?.volumes.get(&job.volume)?;
        let volume = self.volume(slot)?;
        let (start, end) = volume.bytes(job.first, job.count)?;
        let whole = (end - start) as u32;
        let have = Some(job.bytes).filter(|have| (1..=whole).contains(have))?;
        let device = volume.device;
        self.berths(whole)?;
        let run = Run {
            slot,
            buffer: BufferId(0),
            have,
            whole,
        };
        Some((slot, device, start, run))
    }

    /// The origin was read, or not.
    pub(super) fn copy_read(
        &mut self,
        key: usize,
        result: Result<u32, i32>,
        memory: &mut impl Memory,
    ) {
        let Some(job) = self.copies.get(key).copied() else {
            return;
        };
        let run = job.run;
        self.release_volume(run.slot, 1);
        let store = self.store(job.store);
        let store = store.map(|store| (store.device, store.checksum));
        let (Ok(_), Some((device, checksum))) = (result, store) else {
            let error = result.err().map_or(IoError::Absent, read_error);
            self.copies.remove(key);
            self.tell(
                job.store,
                Event::CopyRead {
                    copy: job.io,
                    result: Err(error),
                },
            );
            return self.copy_over(run);
        };
        if run.have < run.whole {
            memory.zero(run.buffer, run.have, run.whole - run.have);
        }
        self.scratch.clear();
        memory.checksum(checksum, run.buffer, 0, run.whole, &mut self.scratch);
        let crcs = std::mem::take(&mut self.scratch);
        if let Some(events) = self.events(job.store) {
            events.copy_read(job.io, &crcs);
        }
        self.scratch = crcs;
        let offset = job.block * BLOCK_SIZE as u64;
        let action = Action::Write {
            buffer: run.buffer,
            at: 0,
            offset,
            len: run.whole,
            fua: false,
        };
        self.issue(device, action, Then::CopyWritten(key));
    }

    /// The store was written, or not.
    pub(super) fn copy_written(&mut self, key: usize, result: Result<u32, i32>) {
        let Some(job) = self.copies.try_remove(key) else {
            return;
        };
        let result = result.map(drop).map_err(io_error);
        self.tell(
            job.store,
            Event::CopyWritten {
                copy: job.io,
                result,
            },
        );
        self.copy_over(job.run);
    }

    /// Gives the buffer back, and starts the copies that waited for one.
    fn copy_over(&mut self, run: Run) {
        let Some(berths) = self.berths(run.whole) else {
            return;
        };
        berths.free.push(run.buffer);
        // One starts; those that cannot any more make room for the next.
        while let Some(berths) = self.berths(run.whole)
            && !berths.free.is_empty()
            && let Some(job) = berths.waiting.pop_front()
        {
            self.copy(job);
        }
    }
}

/// Why the origin cannot be read, as the engine tells a bad sector from a disk that
/// is gone or cannot be reached: what that one holds is not lost.
fn read_error(errno: i32) -> IoError {
    match errno {
        libc::ENODEV | GONE | UNREACHABLE | libc::ETIMEDOUT => IoError::Absent,
        _ => io_error(errno),
    }
}
