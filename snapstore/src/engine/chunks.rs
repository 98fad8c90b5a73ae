//! What is going on with single chunks: copyouts under way, read-locks, and the
//! writes that wait for either.
//!
//! A chunk is here only while something is going on. A write may pass when no
//! copyout of the chunk is pending and no snapshot read holds it: the unique bit
//! is set under the same condition, so the fast path never overtakes a reader.

use super::{Engine, Task};
use crate::ids::VolumeId;

/// A busy chunk.
#[derive(Debug, Default)]
pub(super) struct Busy {
    /// A copyout is wanted or under way: later writers join it.
    pub(super) copying: bool,
    /// Snapshot reads that may read the chunk from the origin.
    pub(super) readers: u32,
    /// Writes to run on when the chunk is free.
    pub(super) waiters: Vec<usize>,
}

impl Engine {
    /// Whether neither a copyout nor a reader holds the chunk.
    pub(super) fn is_free(&self, volume: VolumeId, chunk: u64) -> bool {
        !self.chunks.contains_key(&(volume, chunk))
    }

    /// Makes a write wait until the chunk is free.
    pub(super) fn wait_for_chunk(&mut self, volume: VolumeId, chunk: u64, write: usize) {
        self.chunks
            .entry((volume, chunk))
            .or_default()
            .waiters
            .push(write);
        if let Some(write) = self.writes.get_mut(write) {
            write.waits += 1;
        }
    }

    /// Takes a read-lock.
    pub(super) fn lock_chunk(&mut self, volume: VolumeId, chunk: u64) {
        self.chunks.entry((volume, chunk)).or_default().readers += 1;
    }

    /// Gives a read-lock back.
    pub(super) fn unlock_chunk(&mut self, volume: VolumeId, chunk: u64) {
        if let Some(busy) = self.chunks.get_mut(&(volume, chunk)) {
            busy.readers = busy.readers.saturating_sub(1);
        }
        self.release_if_free(volume, chunk);
    }

    /// The copyout of a chunk is published, or was given up.
    pub(super) fn copying_ended(&mut self, volume: VolumeId, chunk: u64) {
        if let Some(busy) = self.chunks.get_mut(&(volume, chunk)) {
            busy.copying = false;
        }
        self.release_if_free(volume, chunk);
    }

    fn release_if_free(&mut self, volume: VolumeId, chunk: u64) {
        let key = (volume, chunk);
        if self
            .chunks
            .get(&key)
            .is_none_or(|busy| busy.copying || busy.readers > 0)
        {
            return;
        }
        let Some(busy) = self.chunks.remove(&key) else {
            return;
        };
        for write in busy.waiters {
            self.end_wait(write);
        }
    }

    fn end_wait(&mut self, id: usize) {
        if let Some(write) = self.writes.get_mut(id) {
            write.waits = write.waits.saturating_sub(1);
            if write.waits == 0 {
                self.ready.push_back(Task::Write(id));
            }
        }
    }
}
