//! Origins that failed or vanished while they were served, and what has them back.
//!
//! Their exports stay: users get I/O errors, not a device that goes away below them.
//! `store attach` on the attached store looks again. An origin that is there and can
//! be read and flushed is well; one that was taken away is opened anew by its path,
//! judged like any other origin, and put in the place of the one that is gone, below
//! the same exports. Contract: nothing is written to a device before it was judged.

use std::sync::Arc;

use snapstore::engine::VolumeInfo;
use snapstore::{Block, IoError};

use super::Daemon;
use super::events::NewEvent;
use super::origin::Surroundings;
use super::origin_errors::Errors;
use super::store::{Store, export_name};
use crate::control::protocol::{ErrorCode, Failure};
use crate::control::views::{Level, Problem};
use crate::device::OriginDevice;

impl Daemon {
    /// Has a served origin back that failed or is gone.
    pub(super) fn revive(&self, store: &Store, info: &VolumeInfo, around: &Surroundings<'_>) {
        let errors = &store.handlers.origin_errors;
        let (Some(_), Some(origin)) = (errors.of(info.id), store.handle.origin(info.id)) else {
            return;
        };
        let result = if origin.is_gone() {
            self.replace(store, info, &origin, around)
        } else {
            probe(&origin)
        };
        let (level, kind, message) = match result {
            Ok(()) => {
                errors.clear(info.id);
                let message = format!("the origin of {} is well again", info.name);
                (Level::Info, "origin-back", message)
            }
            Err(failure) => {
                errors.note_still(info.id, &failure.to_string());
                let message = format!("the origin of {} is not well: {failure}", info.name);
                (Level::Error, "origin-failed", message)
            }
        };
        let event = NewEvent::new(level, kind, message);
        self.events.add(event.store(&store.path).volume(&info.name));
    }

    /// Puts what is at the origin's path now in the place of the one that is gone.
    fn replace(
        &self,
        store: &Store,
        info: &VolumeInfo,
        gone: &OriginDevice,
        around: &Surroundings<'_>,
    ) -> Result<(), Failure> {
        let opened = self.open_origin(info, around);
        let origin = opened.map_err(|why| {
            Failure::new(ErrorCode::Error, why.problem.message).next(why.problem.next)
        })?;
        let unfit = if origin.plate().contradicts(gone.plate()) {
            Some("is another disk than before")
        } else if !origin.is_block_device() {
            // Only block devices are taken away.
            Some("is no block device")
        } else if origin.logical_block() > gone.logical_block() {
            Some("has larger blocks than before")
        } else {
            None
        };
        if let Some(unfit) = unfit {
            let message = format!("{} {unfit}", info.origin);
            return Err(Failure::new(ErrorCode::Error, message).next(start_over(store, info, "")));
        }
        self.must_suit(store, info, &origin)?;
        let foreign = self.evidence(store.uuid, info, &origin).foreign;
        // Without snapshots, too: its users know what they read before.
        if foreign > 0 {
            self.remember_foreign(store, info.id, foreign)?;
            let message = format!("{} was written without csnap meanwhile", info.origin);
            let accept = format!(" --accept-changed-origin {}", info.name);
            return Err(
                Failure::new(ErrorCode::Error, message).next(start_over(store, info, &accept))
            );
        }
        self.mark_taken(store, info.id, &origin)?;
        let origin = Arc::new(origin);
        store.handle.replace_origin(info.id, origin.clone())?;
        store.handlers.watch(info.id, origin);
        Ok(())
    }
}

impl Daemon {
    /// Refuses an origin that would refuse what the block devices over it admit: their
    /// limits were agreed when they were made.
    fn must_suit(
        &self,
        store: &Store,
        info: &VolumeInfo,
        origin: &OriginDevice,
    ) -> Result<(), Failure> {
        let snapshots = store.snapshots(info.id);
        let names = snapshots.iter().filter(|snapshot| snapshot.mapped);
        let names = names.map(|snapshot| export_name(&info.name, &snapshot.name));
        let served = names
            .chain([info.name.clone()])
            .filter_map(|name| self.exports.get(&name)?.device);
        for device in served {
            let unsuited = device.block().unsuited(origin)?;
            if !unsuited.is_empty() {
                let what = unsuited.join(", ");
                let message = format!("{} is not what it was: {what}", info.origin);
                let next = start_over(store, info, "");
                return Err(Failure::new(ErrorCode::Error, message).next(next));
            }
        }
        Ok(())
    }
}

/// Whether an origin that failed can be read and flushed.
fn probe(origin: &OriginDevice) -> Result<(), Failure> {
    let failed = |error: IoError| {
        let message = format!("{}: {error}", origin.path().display());
        Failure::new(ErrorCode::Error, message)
    };
    origin
        .read_blocks(0, &mut [Block::zeroed()])
        .map_err(failed)?;
    origin.sync().map_err(failed)
}

fn start_over(store: &Store, info: &VolumeInfo, how: &str) -> String {
    let (store, name) = (store.path.display(), &info.name);
    format!(
        "stop using {name}; csnapctl store detach --force {store}; csnapctl store attach {store}{how}"
    )
}

/// What people are shown of an origin with these errors.
pub(super) fn problem(errors: &Errors, info: &VolumeInfo, store: &Store) -> Problem {
    let again = format!("csnapctl store attach {}", store.path.display());
    let next = if errors.gone {
        format!("connect it again, then: {again}")
    } else {
        format!(
            "see the kernel's log for the device; if it goes on, replace it. When it is well: {again}"
        )
    };
    Problem {
        message: format!("its origin {} {errors}", info.origin),
        next,
    }
}
