//! What the engine tells a person about volumes, snapshots and the store.

use super::reads::drop_reason;
use super::{Engine, Policy, SnapshotInfo, SnapshotState, StoreInfo, TREES, VolumeInfo};
use crate::BLOCK_SIZE;
use crate::checksum::Checksum;
use crate::format::tables::{HAS_FINGERPRINT, MAPPED, SnapshotPhase, SnapshotRecord, text};
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
            failed: self.failed.clone(),
            counters: self.counters,
        }
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
    let Some(volume) = state.volumes.get(&id) else {
        return Vec::new();
    };
    volume
        .snapshots
        .iter()
        .filter_map(|(tag, record)| snapshot_info(volume, *tag, record, chunk_size))
        .collect()
}

fn volume_info(volume: &Volume, chunk_size: u64) -> VolumeInfo {
    let record = &volume.record;
    let known = record.flags.get() & HAS_FINGERPRINT != 0;
    let visible = |r: &&SnapshotRecord| {
        matches!(
            r.phase(),
            Some(SnapshotPhase::Live | SnapshotPhase::Dropped)
        )
    };
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
        snapshots: volume.snapshots.values().filter(visible).count() as u64,
        held_bytes: record.held.get() * chunk_size,
        deleting: volume.deleting(),
        fingerprint: known.then_some(record.fingerprint),
    }
}

fn snapshot_info(
    volume: &Volume,
    tag: Tag,
    record: &SnapshotRecord,
    chunk_size: u64,
) -> Option<SnapshotInfo> {
    let state = match record.phase()? {
        SnapshotPhase::Live => SnapshotState::Live,
        SnapshotPhase::Dropped => SnapshotState::Dropped(drop_reason(record.reason.get())),
        SnapshotPhase::Prepared | SnapshotPhase::Deleting => return None,
    };
    Some(SnapshotInfo {
        volume: volume.id,
        tag,
        name: text(&record.name),
        created_ms: record.created_ms.get(),
        size: record.size.get(),
        exclusive_bytes: volume.sharing.get(tag, tag) * chunk_size,
        priority: record.priority.get(),
        mapped: record.flags.get() & MAPPED != 0,
        state,
    })
}
