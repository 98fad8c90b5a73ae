//! Snapshot reads: where every chunk's bytes are, and for how long that holds.
//!
//! A read locks its chunks before its first lookup and counts as a reader of its
//! snapshot, so neither an origin write nor a purge can pull a piece away before
//! the runtime reports `ReadDone` (hazard 14). Chunks found in the store are
//! unlocked at once: a store chunk never changes while a reader counts.

use std::sync::Arc;

use super::lookup::{Cover, TreeId};
use super::{CrcRange, DropReason, Effect, Effects, Engine, RequestError, Source, Task};
use crate::format::exception::{Crcs, LOST};
use crate::format::tables::SnapshotPhase;
use crate::ids::{GrantId, Owner, Tag, VolumeId};
use crate::tree::{Missing, Node};

/// A read being looked up.
#[derive(Debug)]
pub(super) struct Read {
    owner: Owner,
    volume: VolumeId,
    tag: Tag,
    first: u64,
    count: u32,
    next: u32,
    pieces: Vec<Piece>,
    crcs: Vec<u32>,
    pub(super) pinned: Vec<Arc<Node>>,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    first: u64,
    count: u32,
    source: Source,
    crcs: CrcRange,
}

/// What a granted read holds.
#[derive(Debug)]
pub(super) struct Grant {
    volume: VolumeId,
    tag: Tag,
    /// Runs of origin chunks that are read-locked.
    locked: Vec<(u64, u32)>,
}

impl Engine {
    pub(super) fn on_read(
        &mut self,
        owner: Owner,
        volume: VolumeId,
        tag: Tag,
        first: u64,
        count: u32,
        out: &mut Effects,
    ) {
        self.counters.reads += 1;
        let admitted = self
            .admit(volume, first, count)
            .and_then(|()| self.readable(volume, tag));
        if let Err(error) = admitted {
            return out.list.push(Effect::ReadFailed { owner, error });
        }
        for chunk in first..first + u64::from(count) {
            self.lock_chunk(volume, chunk);
        }
        self.reader_came(volume, tag);
        let (pieces, crcs, pinned) = (Vec::new(), Vec::new(), Vec::new());
        let read = Read {
            owner,
            volume,
            tag,
            first,
            count,
            next: 0,
            pieces,
            crcs,
            pinned,
        };
        let id = self.reads.insert(read);
        self.ready.push_back(Task::Read(id));
    }

    pub(super) fn readable(&self, volume: VolumeId, tag: Tag) -> Result<(), RequestError> {
        let none = RequestError::NoSnapshot(volume, tag);
        let record = self
            .state
            .volumes
            .get(&volume)
            .and_then(|v| v.snapshots.get(&tag));
        let record = record.ok_or(none.clone())?;
        match record.phase() {
            Some(SnapshotPhase::Live) => Ok(()),
            Some(SnapshotPhase::Dropped) => Err(RequestError::Dropped(
                volume,
                tag,
                drop_reason(record.reason.get()),
            )),
            _ => Err(none),
        }
    }

    pub(super) fn run_read(&mut self, id: usize, out: &mut Effects) {
        while let Some(read) = self.reads.get(id).filter(|r| r.next < r.count) {
            let chunk = read.first + u64::from(read.next);
            match self.look_up_read(id, chunk) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return self.fail_read(id, error, out),
                Err(missing) => {
                    return self.fetch(TreeId::Exceptions, missing, Task::Read(id), out);
                }
            }
        }
        let Some(read) = self.reads.get(id) else {
            return;
        };
        match self.readable(read.volume, read.tag) {
            Ok(()) => self.grant_read(id, out),
            Err(error) => self.fail_read(id, error, out),
        }
    }

    fn look_up_read(&mut self, id: usize, chunk: u64) -> Result<Result<(), RequestError>, Missing> {
        let Some(read) = self.reads.get_mut(id) else {
            return Ok(Ok(()));
        };
        let (volume, tag) = (read.volume, read.tag);
        let pinned = std::mem::take(&mut read.pinned);
        let found = self.lookup(volume, chunk, tag, &pinned);
        let Some(read) = self.reads.get_mut(id) else {
            return Ok(Ok(()));
        };
        let cover = match found {
            Ok((cover, _)) => cover,
            Err(missing) => {
                read.pinned = pinned;
                return Err(missing);
            }
        };
        let chunk_blocks = u64::from(self.geometry.chunk_blocks);
        match cover {
            Cover::Origin { .. } => read.add(chunk, Source::Origin, None, chunk_blocks),
            Cover::Exception { place, .. } if place.pred >= tag => {
                let reason = format!("no exception of chunk {chunk} covers snapshot {tag}");
                return Ok(Err(RequestError::Damaged {
                    block: self.roots.exceptions.ptr.block,
                    reason,
                }));
            }
            Cover::Exception { place, .. } if place.block == LOST => {
                return Ok(Err(RequestError::Lost(volume, chunk)));
            }
            Cover::Exception { place, .. } if !self.geometry.holds_chunk(place.block) => {
                let reason = format!("chunk {chunk} is said to lie beyond the end of the store");
                return Ok(Err(RequestError::Damaged {
                    block: place.block,
                    reason,
                }));
            }
            Cover::Exception { place, crcs } => {
                let source = Source::Store { block: place.block };
                read.add(chunk, source, Some(&crcs), chunk_blocks);
                self.unlock_chunk(volume, chunk);
            }
        }
        Ok(Ok(()))
    }

    fn grant_read(&mut self, id: usize, out: &mut Effects) {
        let Some(read) = self.reads.try_remove(id) else {
            return;
        };
        self.next_grant += 1;
        let grant = GrantId(self.next_grant);
        let base = out.crcs.len() as u32;
        out.crcs.extend_from_slice(&read.crcs);
        let mut locked = Vec::new();
        let last = read.pieces.len().saturating_sub(1);
        for (index, piece) in read.pieces.iter().enumerate() {
            if piece.source == Source::Origin {
                locked.push((piece.first, piece.count));
            }
            out.list.push(Effect::ReadFrom {
                owner: read.owner,
                grant,
                first: piece.first,
                count: piece.count,
                source: piece.source,
                crcs: CrcRange {
                    start: piece.crcs.start + base,
                    ..piece.crcs
                },
                last: index == last,
            });
        }
        self.grants.insert(
            grant,
            Grant {
                volume: read.volume,
                tag: read.tag,
                locked,
            },
        );
    }

    /// Fails a read and gives back what it holds.
    pub(super) fn fail_read(&mut self, id: usize, error: RequestError, out: &mut Effects) {
        let Some(read) = self.reads.try_remove(id) else {
            return;
        };
        for piece in read.pieces.iter().filter(|p| p.source == Source::Origin) {
            self.unlock_run(read.volume, piece.first, piece.count);
        }
        let rest = read.first + u64::from(read.next);
        self.unlock_run(read.volume, rest, read.count - read.next);
        self.reader_left(read.volume, read.tag);
        out.list.push(Effect::ReadFailed {
            owner: read.owner,
            error,
        });
    }

    pub(super) fn on_read_done(&mut self, grant: GrantId) {
        let Some(grant) = self.grants.remove(&grant) else {
            return;
        };
        for (first, count) in grant.locked {
            self.unlock_run(grant.volume, first, count);
        }
        self.reader_left(grant.volume, grant.tag);
    }

    fn unlock_run(&mut self, volume: VolumeId, first: u64, count: u32) {
        (first..first + u64::from(count)).for_each(|chunk| self.unlock_chunk(volume, chunk));
    }

    pub(super) fn reader_came(&mut self, id: VolumeId, tag: Tag) {
        if let Some(volume) = self.state.volumes.get_mut(&id) {
            *volume.readers.entry(tag).or_default() += 1;
        }
    }

    pub(super) fn reader_left(&mut self, id: VolumeId, tag: Tag) {
        let Some(volume) = self.state.volumes.get_mut(&id) else {
            return;
        };
        if let Some(readers) = volume.readers.get_mut(&tag) {
            *readers -= 1;
            if *readers == 0 {
                volume.readers.remove(&tag);
            }
        }
        self.refresh_shared(id);
    }

    /// Without snapshots and readers the fast path needs no bits at all. Readers
    /// count, because such writes pass without looking at read-locks.
    pub(super) fn refresh_shared(&self, id: VolumeId) {
        if let Some(volume) = self.state.volumes.get(&id)
            && volume.newest() == Tag(0)
            && volume.readers.is_empty()
        {
            volume.unique.set_shared(false);
        }
    }
}

impl Read {
    fn add(&mut self, chunk: u64, source: Source, crcs: Option<&Crcs>, chunk_blocks: u64) {
        self.next += 1;
        self.pinned.clear();
        let crcs = crcs.map_or(&[][..], Crcs::as_slice);
        let start = self.crcs.len() as u32;
        self.crcs.extend_from_slice(crcs);
        if let Some(piece) = self.pieces.last_mut() {
            let joins = match (piece.source, source) {
                (Source::Origin, Source::Origin) => true,
                (Source::Store { block: a }, Source::Store { block: b }) => {
                    a + u64::from(piece.count) * chunk_blocks == b
                }
                _ => false,
            };
            if joins {
                piece.count += 1;
                piece.crcs.len += crcs.len() as u32;
                return;
            }
        }
        let crcs = CrcRange {
            start,
            len: crcs.len() as u32,
        };
        self.pieces.push(Piece {
            first: chunk,
            count: 1,
            source,
            crcs,
        });
    }
}

/// How a drop reason stands on disk.
pub(crate) fn drop_code(reason: DropReason) -> u32 {
    match reason {
        DropReason::StoreFull => 1,
        DropReason::StoreFailed => 2,
        DropReason::Damage => 3,
        DropReason::OriginChanged => 4,
        DropReason::Asked => 5,
    }
}

/// The drop reason that stands on disk as `code`.
#[must_use]
pub fn drop_reason(code: u32) -> DropReason {
    match code {
        1 => DropReason::StoreFull,
        2 => DropReason::StoreFailed,
        3 => DropReason::Damage,
        4 => DropReason::OriginChanged,
        _ => DropReason::Asked,
    }
}
