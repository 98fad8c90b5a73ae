//! What csnapd serves and keeps, nothing else may write over.

use std::path::Path;

use ublk_target::control::protocol::{ErrorCode, Failure};
use ublk_target::control::views::{SnapshotView, StoreView, VolumeView};
use ublk_target::device::Identity;

use super::{snapshot, status, volume};
use crate::Done;
use crate::session::Session;

/// All that csnapd serves and keeps.
pub(super) struct Served {
    pub(super) stores: Vec<StoreView>,
    pub(super) volumes: Vec<VolumeView>,
    snapshots: Vec<SnapshotView>,
}

impl Served {
    pub(super) fn now(session: &mut Session) -> Done<Self> {
        Ok(Self {
            stores: status::of(session)?.stores,
            volumes: volume::all(session, None)?,
            snapshots: snapshot::all(session, None)?,
        })
    }

    /// Refuses a path that shares storage with a store, an origin, or a block device of
    /// csnapd. One that cannot be looked at is left to whoever opens it.
    pub(super) fn must_be_apart(&self, path: &Path) -> Done {
        let shared = |other: &str| share(path, Path::new(other));
        let refuse = |what: String| {
            let message = format!(
                "{} and {what}, which csnap serves, share storage",
                path.display()
            );
            Err(Failure::new(ErrorCode::Busy, message).next("give each a place of its own"))
        };
        for volume in &self.volumes {
            if shared(&volume.origin) {
                return refuse(format!("the origin of volume {}", volume.name));
            }
            if volume.device.as_deref().is_some_and(shared) {
                return refuse(format!("the block device of volume {}", volume.name));
            }
        }
        for snapshot in &self.snapshots {
            if snapshot.device.as_deref().is_some_and(shared) {
                return refuse(format!("the block device of {}", snapshot.exactly()));
            }
        }
        match self.stores.iter().find(|store| shared(&store.path)) {
            Some(store) => refuse(format!("the store {}", store.path)),
            None => Ok(()),
        }
    }
}

/// Whether what is at two paths is the same storage, or lies on it.
pub(super) fn share(one: &Path, other: &Path) -> bool {
    match (Identity::of(one), Identity::of(other)) {
        (Ok(one), Ok(other)) => one.shares(other),
        _ => false,
    }
}
