//! A store that is attached: its engine's handle and what is served of it.
//!
//! Contract: verbs that change a store hold its `changing` lock from their look at
//! things to their end, so that two of them never act on the same picture. Views
//! take no such lock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use snapstore::engine::{Command, Seal, SnapshotInfo, VolumeInfo};
use snapstore::{Tag, VolumeId};
use uuid::Uuid;

use super::handlers::Handlers;
use super::origin::NotServed;
use super::scrub::Scrubber;
use crate::control::views::{Problem, StoreState, StoreView};
use crate::device::Identity;
use crate::runtime::StoreHandle;

/// A store that is attached.
pub struct Store {
    /// Canonical path.
    pub path: PathBuf,
    /// Identity.
    pub uuid: Uuid,
    /// What the device is.
    pub identity: Identity,
    /// The way to its engine.
    pub handle: Arc<StoreHandle>,
    /// What it tells.
    pub handlers: Arc<Handlers>,
    /// Held by verbs that change something.
    pub changing: Mutex<()>,
    /// The scrub of it.
    pub scrub: Scrubber,
    /// Why volumes are not served; those not named here are.
    pub not_served: Mutex<BTreeMap<VolumeId, NotServed>>,
}

impl Store {
    /// Whether a person means this store by `name`: its path or its UUID.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.path.as_os_str() == name || self.uuid.to_string().eq_ignore_ascii_case(name)
    }

    /// Its volumes. One that is being deleted is gone for people: only its space
    /// is still coming back.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeInfo> {
        let mut volumes = self.handle.query(|engine| engine.volumes());
        volumes.retain(|volume| !volume.deleting);
        volumes
    }

    /// What is recorded now of the origin of a volume.
    #[must_use]
    pub fn seal_of(&self, volume: VolumeId) -> Seal {
        let volumes = self.handle.query(|engine| engine.volumes());
        let info = volumes.iter().find(|info| info.id == volume);
        info.map_or(Seal::Use([0; 32]), |info| info.seal)
    }

    /// Snapshots of a volume by age.
    #[must_use]
    pub fn snapshots(&self, volume: VolumeId) -> Vec<SnapshotInfo> {
        self.handle.query(|engine| engine.snapshots(volume))
    }

    /// The one of them that has this name.
    #[must_use]
    pub fn snapshot_named(&self, volume: VolumeId, name: &str) -> Option<SnapshotInfo> {
        self.handle
            .query(|engine| engine.snapshot_named(volume, name))
    }

    /// The first `limit` of them whose tags are above `after`.
    pub fn snapshots_after(&self, volume: VolumeId, after: Tag, limit: usize) -> Vec<SnapshotInfo> {
        self.handle
            .query(|engine| engine.snapshots_after(volume, after, limit))
    }

    /// Whether the volume's origin is attached and exported.
    #[must_use]
    pub fn is_served(&self, volume: VolumeId) -> bool {
        !self.not_served.lock().contains_key(&volume)
    }

    /// Whether writes to these volumes may wait for room while the store is full. Not
    /// when they are taken from their users: what is in flight is waited for.
    pub fn let_wait_for_room(&self, volumes: &[VolumeInfo], allowed: bool) {
        for VolumeInfo { id, .. } in volumes {
            let volume = *id;
            let set = Command::WaitForRoom { volume, allowed };
            if let Err(error) = self.handle.command(set) {
                tracing::warn!(%volume, %error, "its writes may still wait for room");
            }
        }
    }

    /// How it looks.
    #[must_use]
    pub fn view(&self) -> StoreView {
        let info = self.handle.query(|engine| engine.store_info());
        let volumes = self.volumes();
        let device = self.handle.device().measure();
        let problem = info.failed.as_ref().map(|reason| Problem {
            message: format!("the store failed: {reason}"),
            next: "see csnapctl events; the origins go on. Detach the store, check its device, then csnapctl store check".into(),
        });
        StoreView {
            path: self.path.display().to_string(),
            uuid: self.uuid.to_string(),
            state: if problem.is_some() {
                StoreState::Failed
            } else {
                StoreState::Attached
            },
            chunk_size: info.chunk_size,
            checksum: info.checksum.to_string(),
            size: info.size,
            used: info.used,
            metadata: info.metadata,
            full_in_s: self.handlers.full_in().map(|left| left.as_secs()),
            unused: device.map_or(0, |bytes| bytes.saturating_sub(info.size)),
            volumes: volumes.len() as u64,
            snapshots: volumes.iter().map(|volume| volume.snapshots).sum(),
            purging: info.purging,
            purging_bytes: info.purging_bytes,
            generation: info.generation,
            journal_used: info.journal_used,
            journal_blocks: info.journal_blocks,
            counters: info.counters.into(),
            problem,
        }
    }
}

/// The name under which a snapshot is served.
#[must_use]
pub fn export_name(volume: &str, snapshot: &str) -> String {
    format!("{volume}@{snapshot}")
}
