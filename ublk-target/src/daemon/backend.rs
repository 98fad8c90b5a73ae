//! Which request does what.

use super::Daemon;
use super::origin::Consent;
use crate::control::protocol::{Answer, Failure, Request};
use crate::control::server::Backend;

impl Backend for Daemon {
    fn handle(&self, request: Request) -> Result<Answer, Failure> {
        use Request as R;
        match request {
            R::Status {} => Ok(self.status()),
            R::Features {} => Ok(self.features()),
            R::Events {
                since,
                limit,
                wait_ms,
            } => Ok(self.events_since(since, limit, wait_ms)),
            R::StoreAttach {
                path,
                accept_changed_origin,
                same_origin,
            } => {
                let consent = Consent {
                    changed: &accept_changed_origin,
                    same: &same_origin,
                };
                self.store_attach(&path, consent)
            }
            R::StoreDetach { store, force } => self.store_detach(&store, force),
            R::StoreStatus { store } => self.store_status(&store),
            R::StoreScrub {
                store,
                action,
                rate,
            } => self.store_scrub(&store, action, rate),
            R::StoreExtend { store, size } => self.store_extend(&store, size),
            R::VolumeCreate {
                name,
                origin,
                store,
                policy,
            } => self.volume_create(name, &origin, store.as_deref(), policy),
            R::VolumeList { store, after } => self.volume_list(store.as_deref(), after),
            R::VolumeShow { name } => self.volume_show(&name),
            R::VolumeDelete { name, uuid, force } => {
                self.volume_delete(&name, uuid.as_deref(), force)
            }
            R::VolumeSet {
                name,
                policy,
                full_wait_s,
            } => self.volume_set(&name, policy, full_wait_s),
            R::VolumeResize { name, size } => self.volume_resize(&name, size),
            R::SnapshotTake { targets, priority } => self.snapshot_take(&targets, priority),
            R::SnapshotList { volume, after } => self.snapshot_list(volume.as_deref(), after),
            R::SnapshotShow { snapshot } => self.snapshot_show(&snapshot),
            R::SnapshotDiff {
                from,
                to,
                to_tag,
                after,
            } => self.snapshot_diff(&from, to.map(|name| (name, to_tag)), after),
            R::SnapshotDelete { snapshots, force } => self.snapshot_delete(&snapshots, force),
            R::SnapshotRename { snapshot, to } => self.snapshot_rename(snapshot, to),
            R::SnapshotMap { snapshot } => self.snapshot_map(&snapshot),
            R::SnapshotUnmap { snapshot, force } => self.snapshot_unmap(&snapshot, force),
            R::SnapshotSet {
                snapshot,
                priority,
                hold,
            } => self.snapshot_set(&snapshot, priority, hold),
        }
    }
}
