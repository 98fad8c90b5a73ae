//! What csnapd serves and keeps, nothing else may write over.

use std::path::Path;

use ublk_target::control::protocol::{ErrorCode, Failure};
use ublk_target::device::Identity;

use super::{snapshot, status, volume};
use crate::Done;
use crate::session::Session;

/// Refuses a path that shares storage with a store, an origin, or a block device of
/// csnapd. One that cannot be looked at is left to whoever opens it.
pub(super) fn must_be_apart(session: &mut Session, path: &Path) -> Done {
    let Ok(identity) = Identity::of(path) else {
        return Ok(());
    };
    let shared =
        |other: &str| Identity::of(Path::new(other)).is_ok_and(|other| other.shares(identity));
    let refuse = |what: String| {
        let message = format!(
            "{} and {what}, which csnap serves, share storage",
            path.display()
        );
        Err(Failure::new(ErrorCode::Busy, message).next("give each a place of its own"))
    };
    for volume in volume::all(session, None)? {
        if shared(&volume.origin) {
            return refuse(format!("the origin of volume {}", volume.name));
        }
        if volume.device.as_deref().is_some_and(shared) {
            return refuse(format!("the block device of volume {}", volume.name));
        }
    }
    for snapshot in snapshot::all(session, None)? {
        if snapshot.device.as_deref().is_some_and(shared) {
            return refuse(format!("the block device of {}", snapshot.exactly()));
        }
    }
    let stores = status::of(session)?.stores;
    match stores.iter().find(|store| shared(&store.path)) {
        Some(store) => refuse(format!("the store {}", store.path)),
        None => Ok(()),
    }
}
