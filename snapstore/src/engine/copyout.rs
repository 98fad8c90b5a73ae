//! Copyouts: keeping a chunk's old contents before the origin changes.
//!
//! Writes leave the chunks they want copied in `wanted`. At the end of a step
//! neighbours are joined into runs, space is reserved, and each run becomes one
//! read of the origin and one write of the store. When the read is done its
//! records join the next commit while the data is still being written; publish
//! makes the chunks unique. A chunk the origin cannot read is recorded as LOST, so
//! that a write can heal a bad sector (hazard 18). Of an origin that is gone nothing
//! is LOST, because it may come back as it was: the writes fail.

use super::commit::Done;
use super::{CrcRange, DropReason, Effect, Effects, Engine, Io, Notice, Policy, RequestError};
use crate::BLOCK_SIZE;
use crate::device::IoError;
use crate::format::exception::{Crcs, LOST};
use crate::format::journal::Record;
use crate::ids::{IoId, Tag, VolumeId};

/// Most bytes one copyout moves.
const MAX_RUN_BYTES: u64 = 1 << 20;

/// A chunk some write wants copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) volume: VolumeId,
    pub(super) chunk: u64,
    pub(super) tag: Tag,
    pub(super) pred: Tag,
}

/// A run of neighbouring chunks being copied.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) volume: VolumeId,
    first: u64,
    block: u64,
    pub(super) tag: Tag,
    preds: Vec<Tag>,
    /// The data has been written (or there is none).
    pub(super) written: bool,
    /// Chunks not yet published.
    pub(super) unpublished: u32,
}

impl Engine {
    /// Starts every wanted copyout there is room for; the rest waits for space.
    pub(super) fn start_copies(&mut self, out: &mut Effects) {
        if self.wanted.is_empty() || self.failed.is_some() {
            return;
        }
        self.drop_stale_wanted();
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.sort_unstable();
        if wanted.first().map(|one| one.volume) != wanted.last().map(|one| one.volume) {
            // Volumes that gave a snapshot for room get it before those that only wait.
            wanted.sort_by_key(|one| self.policy(one.volume) == Policy::SnapshotFirst);
        }
        let mut rest = wanted.as_slice();
        while !rest.is_empty() {
            let run = self.run_length(rest);
            let room = self.room_for_copies().min(run as u64) as u32;
            let Some((block, got)) = (room > 0).then(|| self.alloc.alloc_chunks(room)).flatten()
            else {
                break;
            };
            let (run, others) = rest.split_at(got as usize);
            if let Some(first) = run.first() {
                self.patience.found_room(first.volume);
            }
            self.start_copy(run, block, out);
            rest = others;
        }
        self.starved = !rest.is_empty();
        self.wanted = rest.to_vec();
    }

    /// Forgets copyouts that waited for space until their snapshot was no longer the
    /// newest: their writes look again, and a purge waits for them no longer.
    fn drop_stale_wanted(&mut self) {
        let wanted = std::mem::take(&mut self.wanted);
        let (fresh, stale): (Vec<_>, Vec<_>) = wanted
            .into_iter()
            .partition(|w| w.tag == self.newest(w.volume));
        self.wanted = fresh;
        self.give_up(stale);
    }

    /// These copyouts will not be made: their writes look at their chunks again.
    fn give_up(&mut self, wanted: Vec<Wanted>) {
        for Wanted { volume, chunk, .. } in wanted {
            self.restart_waiters(volume, chunk);
            self.copying_ended(volume, chunk);
        }
    }

    /// How many of the wanted chunks at the front are neighbours.
    fn run_length(&self, wanted: &[Wanted]) -> usize {
        let chunk_bytes = u64::from(self.geometry.chunk_blocks) * BLOCK_SIZE as u64;
        let most = (MAX_RUN_BYTES / chunk_bytes).clamp(1, self.config.max_run.into()) as usize;
        let joined = wanted
            .windows(2)
            .take(most - 1)
            .take_while(|pair| match pair {
                [a, b] => a.volume == b.volume && a.tag == b.tag && a.chunk + 1 == b.chunk,
                _ => false,
            });
        1 + joined.count()
    }

    fn start_copy(&mut self, run: &[Wanted], block: u64, out: &mut Effects) {
        let Some(Wanted {
            volume,
            chunk: first,
            tag,
            ..
        }) = run.first().copied()
        else {
            return;
        };
        let preds: Vec<Tag> = run.iter().map(|w| w.pred).collect();
        let count = run.len() as u32;
        let bytes = self.bytes_of(volume, first, count);
        let copy = Copy {
            volume,
            first,
            block,
            tag,
            preds,
            written: false,
            unpublished: count,
        };
        let copy = self.copies.insert(copy);
        let io = self.new_io(Io::Copy { copy });
        self.counters.copies += 1;
        out.list.push(Effect::Copy {
            copy: io,
            volume,
            first,
            count,
            bytes,
            block,
        });
    }

    /// Bytes that the volume has of these chunks.
    fn bytes_of(&self, volume: VolumeId, first: u64, count: u32) -> u32 {
        let chunk_size = u64::from(self.chunk_size());
        let size = self.state.volumes.get(&volume);
        let size = size.map_or(0, |v| v.record.size.get());
        let left = size.saturating_sub(first * chunk_size);
        // A run has at most MAX_RUN_BYTES, or one chunk.
        left.min(u64::from(count) * chunk_size) as u32
    }

    pub(super) fn copy_read(
        &mut self,
        io: IoId,
        id: usize,
        result: Result<CrcRange, IoError>,
        arena: &[u32],
        out: &mut Effects,
    ) {
        match result {
            Ok(range) => {
                // The store write is under way: its completion comes under the same id.
                self.ios.insert(io, Io::CopyWrite { copy: id });
                self.record_copy(id, range.of(arena), out);
            }
            Err(IoError::Absent) => self.copy_without_origin(id, out),
            Err(error) => self.copy_unreadable(id, error, out),
        }
    }

    fn record_copy(&mut self, id: usize, crcs: &[u32], out: &mut Effects) {
        let per_chunk = self.geometry.chunk_blocks as usize;
        let Some(copy) = self.copies.get(id) else {
            return;
        };
        if crcs.len() != per_chunk * copy.preds.len() {
            return self.fail_store("a copyout reported a wrong number of checksums", out);
        }
        let (volume, tag) = (copy.volume, copy.tag);
        let records: Vec<Record> = crcs
            .chunks(per_chunk)
            .zip(&copy.preds)
            .enumerate()
            .map(|(index, (crcs, pred))| Record::Exception {
                volume,
                chunk: copy.first + index as u64,
                tag,
                pred: *pred,
                block: copy.block + (index * per_chunk) as u64,
                crcs: Crcs::new(crcs),
            })
            .collect();
        self.counters.chunks_copied += records.len() as u64;
        self.counters.data_bytes += (records.len() * per_chunk * BLOCK_SIZE) as u64;
        for record in records {
            self.append(record, Done::Copied { copy: id });
        }
    }

    /// The origin could not be read: a run is tried again chunk by chunk, a single
    /// chunk is LOST to the snapshots that would need it.
    fn copy_unreadable(&mut self, id: usize, error: IoError, out: &mut Effects) {
        let Some(copy) = self.copies.try_remove(id) else {
            return;
        };
        let chunk_blocks = u64::from(self.geometry.chunk_blocks);
        let (volume, tag) = (copy.volume, copy.tag);
        if let [pred] = copy.preds[..] {
            self.alloc.give_back(copy.block, chunk_blocks);
            out.list.push(Effect::Notice(Notice::ChunkLost {
                volume,
                chunk: copy.first,
                error,
            }));
            let crcs = Crcs::new(&vec![0; chunk_blocks as usize]);
            let chunk = copy.first;
            let id = self.copies.insert(Copy {
                written: true,
                ..copy
            });
            let record = Record::Exception {
                volume,
                chunk,
                tag,
                pred,
                block: LOST,
                crcs,
            };
            return self.append(record, Done::Copied { copy: id });
        }
        for (index, pred) in copy.preds.iter().enumerate() {
            let chunk = copy.first + index as u64;
            let single = Wanted {
                volume,
                chunk,
                tag,
                pred: *pred,
            };
            self.start_copy(&[single], copy.block + index as u64 * chunk_blocks, out);
        }
    }

    /// The origin is gone: the writes that wait for these chunks fail, as they would
    /// without snapshots. The chunks stay shared.
    fn copy_without_origin(&mut self, id: usize, out: &mut Effects) {
        let Some(copy) = self.copies.try_remove(id) else {
            return;
        };
        let (volume, count) = (copy.volume, copy.preds.len() as u64);
        let blocks = u64::from(self.geometry.chunk_blocks) * count;
        self.alloc.give_back(copy.block, blocks);
        for chunk in copy.first..copy.first + count {
            let busy = self.chunks.get_mut(&(volume, chunk));
            let waiters = busy.map(|busy| std::mem::take(&mut busy.waiters));
            for write in waiters.unwrap_or_default() {
                self.fail_write(write, RequestError::OriginGone(volume), out);
            }
            self.copying_ended(volume, chunk);
        }
    }

    pub(super) fn copy_written(
        &mut self,
        id: usize,
        result: Result<(), IoError>,
        out: &mut Effects,
    ) {
        if let Err(error) = result {
            return self.fail_store(&format!("a copyout could not be written: {error}"), out);
        }
        if let Some(copy) = self.copies.get_mut(id) {
            copy.written = true;
        }
        self.data_written(id, out);
    }

    /// An exception is published: its chunk is unique once its readers are gone.
    pub(super) fn chunk_copied(&mut self, id: usize, record: &Record) {
        let Record::Exception {
            volume, chunk, tag, ..
        } = record
        else {
            return;
        };
        if let Some(copy) = self.copies.get_mut(id) {
            copy.unpublished -= 1;
            if copy.unpublished == 0 {
                self.copies.remove(id);
            }
        }
        let readers = self
            .chunks
            .get(&(*volume, *chunk))
            .map_or(0, |busy| busy.readers);
        if *tag < self.newest(*volume) {
            // A take came between: writes that joined this copyout need another.
            self.restart_waiters(*volume, *chunk);
        } else if readers == 0 {
            self.set_unique(*volume, *chunk);
        }
        self.copying_ended(*volume, *chunk);
    }

    /// Gives up copyouts that wait for space; their writes look at their chunks again.
    pub(super) fn cancel_wanted(&mut self) {
        let wanted = std::mem::take(&mut self.wanted);
        self.give_up(wanted);
        self.starved = false;
    }

    pub(super) fn restart_waiters(&mut self, volume: VolumeId, chunk: u64) {
        let Some(busy) = self.chunks.get(&(volume, chunk)) else {
            return;
        };
        for id in &busy.waiters {
            if let Some(write) = self.writes.get_mut(*id) {
                write.restart();
            }
        }
    }

    /// Whether a copyout for a tag in `from..to` is wanted or under way.
    pub(super) fn copies_in(&self, volume: VolumeId, from: Tag, to: Tag) -> bool {
        let inside = |v: VolumeId, tag: Tag| v == volume && (from..to).contains(&tag);
        self.wanted.iter().any(|w| inside(w.volume, w.tag))
            || self.copies.iter().any(|(_, c)| inside(c.volume, c.tag))
    }

    /// Drops every live snapshot of a volume, durably; false if there is none.
    pub(super) fn drop_all(&mut self, id: VolumeId, reason: DropReason) -> bool {
        let Some(volume) = self.state.volumes.get(&id) else {
            return false;
        };
        let live: Vec<Tag> = volume.live().collect();
        for tag in &live {
            self.drop_snapshot(id, *tag, reason);
        }
        !live.is_empty()
    }
}
