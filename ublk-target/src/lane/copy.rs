//! Copyouts: origin to buffer to store.

use snapstore::engine::Event;
use snapstore::ids::IoId;
use snapstore::{BLOCK_SIZE, IoError, VolumeId};

use super::transfer::Then;
use super::types::io_error;
use super::{Action, BufferId, Lane, Memory, StoreSlot, VolumeSlot};

/// One copyout, waiting for a buffer or under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopyJob {
    pub(super) store: StoreSlot,
    pub(super) io: IoId,
    pub(super) volume: VolumeId,
    pub(super) first: u64,
    pub(super) count: u32,
    pub(super) block: u64,
    /// Once started.
    run: Run,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    slot: VolumeSlot,
    buffer: BufferId,
    /// Bytes the origin has of it.
    have: u32,
    /// Bytes of whole chunks.
    whole: u32,
}

impl CopyJob {
    pub(super) fn new(
        store: StoreSlot,
        io: IoId,
        volume: VolumeId,
        (first, count): (u64, u32),
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
            block,
            run,
        }
    }
}

impl Lane {
    /// Starts a copy, or queues it until a buffer is free.
    pub(super) fn copy(&mut self, job: CopyJob) {
        match self.copy_buffers.pop() {
            Some(buffer) => self.start_copy(job, buffer),
            None => self.copy_queue.push_back(job),
        }
    }

    fn start_copy(&mut self, mut job: CopyJob, buffer: BufferId) {
        let Some((slot, device, offset, run)) = self.plan_copy(&job, buffer) else {
            let result = Err(IoError::Absent);
            self.tell(
                job.store,
                Event::CopyRead {
                    copy: job.io,
                    result,
                },
            );
            return self.copy_over(buffer);
        };
        job.run = run;
        if let Some(volume) = self.volume(slot) {
            volume.users += 1;
        }
        let key = self.copies.insert(job);
        let action = Action::Read {
            buffer,
            at: 0,
            offset,
            len: run.have,
        };
        self.issue(device, action, Then::CopyRead(key));
    }

    fn plan_copy(
        &mut self,
        job: &CopyJob,
        buffer: BufferId,
    ) -> Option<(VolumeSlot, super::DeviceSlot, u64, Run)> {
        let slot = *self.store(job.store)?.volumes.get(&job.volume)?;
        let volume = self.volume(slot)?;
        let (start, end) = volume.bytes(job.first, job.count)?;
        let have = end
            .min(volume.size)
            .checked_sub(start)
            .filter(|have| *have > 0)?;
        let run = Run {
            slot,
            buffer,
            have: have as u32,
            whole: (end - start) as u32,
        };
        Some((slot, volume.device, start, run))
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
        let device = self.store(job.store).map(|store| store.device);
        let (Ok(_), Some(device)) = (result, device) else {
            let error = result.err().map_or(IoError::Absent, io_error);
            self.copies.remove(key);
            self.tell(
                job.store,
                Event::CopyRead {
                    copy: job.io,
                    result: Err(error),
                },
            );
            return self.copy_over(run.buffer);
        };
        if run.have < run.whole {
            memory.zero(run.buffer, run.have, run.whole - run.have);
        }
        self.scratch.clear();
        memory.checksum(run.buffer, 0, run.whole, &mut self.scratch);
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
        self.copy_over(job.run.buffer);
    }

    /// Gives the buffer to the next copy.
    fn copy_over(&mut self, buffer: BufferId) {
        match self.copy_queue.pop_front() {
            Some(job) => self.start_copy(job, buffer),
            None => self.copy_buffers.push(buffer),
        }
    }
}
