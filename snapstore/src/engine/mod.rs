//! The engine: a state machine that turns events into effects.

use std::sync::Arc;

pub mod api;

pub use api::*;

use crate::ids::VolumeId;
use crate::unique::UniqueMap;

/// The snapshot engine of one store. Made by [`crate::recover::Loaded::recover`].
#[derive(Debug)]
pub struct Engine {}

impl Engine {
    /// Takes a batch of events (left empty) and appends what is to be done.
    pub fn step(&mut self, batch: &mut EventBatch, effects: &mut Effects) {
        let _ = (batch, effects);
    }

    /// Bytes in a chunk.
    #[must_use]
    pub fn chunk_size(&self) -> u32 {
        0
    }

    /// The fast-path bitmap of a volume, shared with the threads that write it.
    #[must_use]
    pub fn unique_map(&self, volume: VolumeId) -> Option<Arc<UniqueMap>> {
        let _ = volume;
        None
    }

    /// How the store is.
    #[must_use]
    pub fn store_info(&self) -> StoreInfo {
        StoreInfo::default()
    }

    /// The volumes.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeInfo> {
        Vec::new()
    }

    /// The snapshots of a volume by ascending tag, without those being deleted.
    #[must_use]
    pub fn snapshots(&self, volume: VolumeId) -> Vec<SnapshotInfo> {
        let _ = volume;
        Vec::new()
    }
}
