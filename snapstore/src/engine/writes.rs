//! Origin writes that the fast path refused.
//!
//! A write walks its chunks once: unique ones pass, shared ones ask for a copyout
//! or join one, chunks held by snapshot readers are waited for. When nothing is
//! waited for any more it is granted under the volume's epoch. If a take moved
//! the epoch meanwhile, it walks again (hazards 13, 21).

use std::sync::Arc;

use super::copyout::Wanted;
use super::lookup::{Cover, TreeId};
use super::{DropReason, Effect, Effects, Engine, Policy, RequestError, Task};
use crate::ids::{Owner, Tag, VolumeId};
use crate::tree::{Missing, Node};

/// A write on its way to be granted.
#[derive(Debug)]
pub(super) struct Write {
    owner: Owner,
    pub(super) volume: VolumeId,
    first: u64,
    pub(super) count: u32,
    /// Chunks walked.
    pub(super) next: u32,
    /// Chunks waited for.
    pub(super) waits: u32,
    epoch: u32,
    pub(super) pinned: Vec<Arc<Node>>,
}

enum Class {
    Unique,
    Shared { pred: Tag },
}

impl Write {
    /// Makes the write walk its chunks again when its waits have ended.
    pub(super) fn restart(&mut self) {
        self.epoch = 0; // never a volume's epoch
    }
}

impl Engine {
    pub(super) fn on_write(
        &mut self,
        owner: Owner,
        volume: VolumeId,
        first: u64,
        count: u32,
        out: &mut Effects,
    ) {
        self.counters.writes += 1;
        match self.admit(volume, first, count) {
            Ok(()) => {
                let epoch = self.epoch(volume);
                let pinned = Vec::new();
                let write = Write {
                    owner,
                    volume,
                    first,
                    count,
                    next: 0,
                    waits: 0,
                    epoch,
                    pinned,
                };
                let id = self.writes.insert(write);
                self.ready.push_back(Task::Write(id));
            }
            Err(error) => out.list.push(Effect::WriteFailed { owner, error }),
        }
    }

    /// Whether a request for these chunks can be taken on at all.
    pub(super) fn admit(&self, id: VolumeId, first: u64, count: u32) -> Result<(), RequestError> {
        let volume = self.state.volumes.get(&id).filter(|v| !v.deleting());
        let volume = volume.ok_or(RequestError::NoVolume(id))?;
        let end = first.checked_add(count.into());
        if count == 0 || end.is_none_or(|end| end > volume.chunks) {
            return Err(RequestError::OutOfRange {
                volume: id,
                first,
                count,
            });
        }
        if self.closing.is_some() {
            Err(RequestError::Closing)
        } else {
            Ok(())
        }
    }

    fn epoch(&self, volume: VolumeId) -> u32 {
        self.state
            .volumes
            .get(&volume)
            .map_or(0, |v| v.unique.epoch())
    }

    pub(super) fn run_write(&mut self, id: usize, out: &mut Effects) {
        let Some(write) = self.writes.get(id) else {
            return;
        };
        let volume = write.volume;
        let epoch = self.epoch(volume);
        let stale = write.epoch != epoch;
        if stale && write.waits > 0 {
            return; // walks again when the last wait ends
        }
        if let Some(error) = self.refusal(volume) {
            if self.invalidating.contains(&volume) {
                return self.stalled.push(id);
            }
            return self.fail_write(id, error, out);
        }
        if stale && let Some(write) = self.writes.get_mut(id) {
            write.epoch = epoch;
            write.next = 0;
        }
        if !self.walk(id, out) {
            return;
        }
        if self.writes.get(id).is_some_and(|w| w.waits == 0) {
            let write = self.writes.remove(id);
            out.list.push(Effect::WriteGranted {
                owner: write.owner,
                epoch: write.epoch,
            });
        }
    }

    /// Why writes to a volume cannot go on, if so.
    fn refusal(&self, id: VolumeId) -> Option<RequestError> {
        let volume = self.state.volumes.get(&id)?;
        let reason = self.failed.as_ref()?;
        // A failed store refuses while its snapshots count as valid.
        (volume.newest() > Tag(0)).then(|| RequestError::StoreFailed(reason.clone()))
    }

    /// Walks the remaining chunks; false if it must be run again later.
    fn walk(&mut self, id: usize, out: &mut Effects) -> bool {
        while let Some(write) = self.writes.get(id).filter(|w| w.next < w.count) {
            let (volume, chunk) = (write.volume, write.first + u64::from(write.next));
            if self
                .chunks
                .get(&(volume, chunk))
                .is_some_and(|busy| busy.copying)
            {
                self.wait_for_chunk(volume, chunk, id);
            } else {
                match self.classify(id, volume, chunk) {
                    Ok(class) => self.take_chunk(id, volume, chunk, &class),
                    Err(missing) => {
                        self.fetch(TreeId::Exceptions, missing, Task::Write(id), out);
                        return false;
                    }
                }
            }
            if let Some(write) = self.writes.get_mut(id) {
                write.next += 1;
                write.pinned.clear();
            }
        }
        true
    }

    fn take_chunk(&mut self, id: usize, volume: VolumeId, chunk: u64, class: &Class) {
        match class {
            Class::Unique if self.is_free(volume, chunk) => self.set_unique(volume, chunk),
            Class::Unique => self.wait_for_chunk(volume, chunk, id),
            Class::Shared { pred } => {
                let tag = self.newest(volume);
                self.wanted.push(Wanted {
                    volume,
                    chunk,
                    tag,
                    pred: *pred,
                });
                self.wait_for_chunk(volume, chunk, id);
                if let Some(busy) = self.chunks.get_mut(&(volume, chunk)) {
                    busy.copying = true;
                }
            }
        }
    }

    fn classify(&mut self, id: usize, volume: VolumeId, chunk: u64) -> Result<Class, Missing> {
        let newest = self.newest(volume);
        if newest == Tag(0)
            || self.recently_copied(volume, chunk, newest)
            || self.is_beyond_snapshots(volume, chunk)
        {
            return Ok(Class::Unique);
        }
        let pinned = self
            .writes
            .get_mut(id)
            .map(|w| std::mem::take(&mut w.pinned));
        let pinned = pinned.unwrap_or_default();
        let found = self.lookup(volume, chunk, newest, &pinned);
        if let Some(write) = self.writes.get_mut(id) {
            write.pinned = pinned;
        }
        Ok(match found? {
            (Cover::Exception { .. }, leaf) => {
                self.learn(volume, newest, leaf.as_deref());
                Class::Unique
            }
            (Cover::Origin { pred }, _) => Class::Shared { pred },
        })
    }

    /// Whether the volume grew by this chunk since its newest snapshot.
    fn is_beyond_snapshots(&self, volume: VolumeId, chunk: u64) -> bool {
        let chunk_size = self.chunk_size().into();
        let volume = self.state.volumes.get(&volume);
        volume.is_some_and(|v| v.is_beyond_snapshots(chunk, chunk_size))
    }

    /// Sets every unique bit that a leaf proves, so that a cold bitmap warms up by
    /// leaves and not by chunks.
    fn learn(&mut self, volume: VolumeId, newest: Tag, leaf: Option<&Node>) {
        let Some(leaf) = leaf else { return };
        for index in 0..leaf.len() {
            let key = leaf.key(index);
            if key.a == u64::from(volume.0) && key.c >= newest.0 && self.is_free(volume, key.b) {
                self.set_unique(volume, key.b);
            }
        }
    }

    pub(super) fn set_unique(&self, volume: VolumeId, chunk: u64) {
        if let Some(volume) = self.state.volumes.get(&volume) {
            volume.unique.set(chunk);
        }
    }

    pub(super) fn newest(&self, volume: VolumeId) -> Tag {
        self.state
            .volumes
            .get(&volume)
            .map_or(Tag(0), |v| v.newest())
    }

    /// Fails a write; whoever wakes it later finds nothing.
    pub(super) fn fail_write(&mut self, id: usize, error: RequestError, out: &mut Effects) {
        if let Some(write) = self.writes.try_remove(id) {
            self.forget_waiter(write.volume, write.first, write.count, id);
            self.forget_fetches(Task::Write(id));
            out.list.push(Effect::WriteFailed {
                owner: write.owner,
                error,
            });
        }
    }

    fn forget_waiter(&mut self, volume: VolumeId, first: u64, count: u32, id: usize) {
        for chunk in first..first + u64::from(count) {
            if let Some(busy) = self.chunks.get_mut(&(volume, chunk)) {
                busy.waiters.retain(|w| *w != id);
            }
        }
    }

    /// A write needs to know what damaged metadata held. Origin first: the volume's
    /// snapshots are dropped, durably, and the write goes on after that.
    pub(super) fn write_hit_damage(&mut self, id: usize, error: &RequestError, out: &mut Effects) {
        let Some(volume) = self.writes.get(id).map(|w| w.volume) else {
            return;
        };
        if self.policy(volume) == Policy::SnapshotFirst {
            return self.fail_write(id, error.clone(), out);
        }
        if self.drop_all(volume, DropReason::Damage) || self.newest(volume) > Tag(0) {
            // A snapshot just being taken can be dropped when its record is durable.
            self.stalled.push(id);
        } else {
            // The last one went while the block was being read: nobody needs it now.
            self.ready.push_back(Task::Write(id));
        }
    }

    /// Runs again every write that waited for snapshots to be dropped.
    pub(super) fn wake_stalled(&mut self) {
        let stalled = std::mem::take(&mut self.stalled);
        self.ready.extend(stalled.into_iter().map(Task::Write));
    }

    pub(super) fn policy(&self, volume: VolumeId) -> Policy {
        match self
            .state
            .volumes
            .get(&volume)
            .map(|v| v.record.policy.get())
        {
            Some(1) => Policy::SnapshotFirst,
            _ => Policy::OriginFirst,
        }
    }
}
