//! What the engine tells a person about volumes, snapshots and the store.

use std::ops::Bound::{Excluded, Unbounded};

use super::reads::drop_reason;
use super::{Engine, Policy, Seal, SnapshotInfo, SnapshotState, StoreInfo, TREES, VolumeInfo};
use crate::BLOCK_SIZE;
use crate::checksum::Checksum;
use crate::format::tables::{HAS_FINGERPRINT, HELD, MAPPED, SnapshotPhase, SnapshotRecord, text};
use crate::ids::{Tag, VolumeId};
use crate::state::{State, Volume};

impl Engine {
    /// Bytes in a chunk.
    #[must_use]
    pub fn chunk_size(&self) -> u32 {
        self.geometry.chunk_blocks * BLOCK_SIZE as u32
    }

    /// What the data copied to the store is covered by.
    #[must_use]
    pub fn checksum(&self) -> Checksum {
        self.geometry.checksum
    }

    /// How the store is.
    #[must_use]
    pub fn store_info(&self) -> StoreInfo {
        let block = BLOCK_SIZE as u64;
        let nodes: u64 = TREES.iter().map(|tree| self.roots.get(*tree).nodes).sum();
        let used = self.geometry.blocks - self.alloc.free_blocks().min(self.geometry.blocks);
        StoreInfo {
            uuid: self.geometry.uuid,
            chunk_size: self.chunk_size(),
            checksum: self.checksum(),
            size: self.geometry.blocks * block,
            used: used * block,
            metadata: (nodes + self.alloc.worst_case_image_blocks() + self.journal.blocks + 2)
                * block,
            generation: self.checkpoint.generation,
            journal_used: self.journal.used(),
            journal_blocks: self.journal.blocks,
            purging: self
                .state
                .volumes
                .values()
                .map(|v| v.unpurged().count() as u64)
                .sum(),
            purging_bytes: self
                .unneeded_chunks()
                .saturating_mul(self.chunk_size().into()),
            failed: self.failed.clone(),
            counters: self.counters,
        }
    }

    /// Chunks kept that no snapshot needs: what deletions have still to give back.
    fn unneeded_chunks(&self) -> u64 {
        let volumes = self.state.volumes.values();
        volumes
            .map(|v| v.record.held.get().saturating_sub(v.sharing.total()))
            .fold(0, u64::saturating_add)
    }

    /// The volumes.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeInfo> {
        volumes(&self.state, self.chunk_size().into())
    }

    /// The snapshots of a volume by ascending tag, without those being deleted.
    #[must_use]
    pub fn snapshots(&self, volume: VolumeId) -> Vec<SnapshotInfo> {
        snapshots(&self.state, volume, self.chunk_size().into())
    }

    /// The one of them that has this name, without making a list of the others.
    #[must_use]
    pub fn snapshot_named(&self, volume: VolumeId, name: &str) -> Option<SnapshotInfo> {
        let mut named = self.state.volumes.get(&volume)?.named(name);
        let chunk_size = self.chunk_size().into();
        named.find_map(|tag| {
            let before = Tag(tag.0.saturating_sub(1));
            let mut from = snapshots_after(&self.state, volume, before, chunk_size);
            from.next().filter(|info| info.tag == tag)
        })
    }

    /// The first `limit` of them whose tags are above `after`.
    #[must_use]
    pub fn snapshots_after(&self, volume: VolumeId, after: Tag, limit: usize) -> Vec<SnapshotInfo> {
        snapshots_after(&self.state, volume, after, self.chunk_size().into())
            .take(limit)
            .collect()
    }
}

/// The volumes of a state.
pub(crate) fn volumes(state: &State, chunk_size: u64) -> Vec<VolumeInfo> {
    state
        .volumes
        .values()
        .map(|volume| volume_info(volume, chunk_size))
        .collect()
}

/// The snapshots of a volume that a person can see.
pub(crate) fn snapshots(state: &State, id: VolumeId, chunk_size: u64) -> Vec<SnapshotInfo> {
    snapshots_after(state, id, Tag(0), chunk_size).collect()
}

/// Those of them whose tags are above `after`.
fn snapshots_after(
    state: &State,
    id: VolumeId,
    after: Tag,
    chunk_size: u64,
) -> impl Iterator<Item = SnapshotInfo> {
    let volumes = state.volumes.get(&id).into_iter();
    volumes.flat_map(move |volume| {
        let mut kept = volume.sharing.kept_by(volume.live()).peekable();
        let snapshots = volume.snapshots.range((Excluded(after), Unbounded));
        snapshots.filter_map(move |(tag, record)| {
            while kept.next_if(|(other, _)| other < tag).is_some() {}
            let kept = kept.next_if(|(other, _)| other == tag);
            let kept = kept.map_or(0, |(_, kept)| kept);
            snapshot_info(volume, *tag, record, kept, chunk_size)
        })
    })
}

fn volume_info(volume: &Volume, chunk_size: u64) -> VolumeInfo {
    let record = &volume.record;
    let known = record.flags.get() & HAS_FINGERPRINT != 0;
    VolumeInfo {
        id: volume.id,
        name: text(&record.name),
        uuid: record.uuid,
        size: record.size.get(),
        origin: text(&record.origin),
        policy: match record.policy.get() {
            1 => Policy::SnapshotFirst,
            _ => Policy::OriginFirst,
        },
        full_wait_s: record.full_wait_s.get(),
        created_ms: record.created_ms.get(),
        snapshots: volume.listed(),
        held_bytes: record.held.get().saturating_mul(chunk_size),
        deleting: volume.deleting(),
        seal: if known {
            Seal::Fingerprint(record.fingerprint)
        } else {
            Seal::Use(record.fingerprint)
        },
    }
}

fn snapshot_info(
    volume: &Volume,
    tag: Tag,
    record: &SnapshotRecord,
    kept: u64,
    chunk_size: u64,
) -> Option<SnapshotInfo> {
    let state = match record.phase()? {
        SnapshotPhase::Live => SnapshotState::Live,
        SnapshotPhase::Dropped => SnapshotState::Dropped(drop_reason(record.reason.get())),
        SnapshotPhase::Prepared | SnapshotPhase::Deleting => return None,
    };
    let own = volume.sharing.get(tag, tag);
    Some(SnapshotInfo {
        volume: volume.id,
        tag,
        name: text(&record.name),
        created_ms: record.created_ms.get(),
        size: record.size.get(),
        exclusive_bytes: own.saturating_mul(chunk_size),
        shared_bytes: kept.saturating_sub(own).saturating_mul(chunk_size),
        priority: record.priority.get(),
        mapped: record.flags.get() & MAPPED != 0,
        held: record.flags.get() & HELD != 0,
        state,
    })
}
