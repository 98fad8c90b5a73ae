//! Letting go of a store in good order.
//!
//! Order: writes that wait for room in a full store fail (the next steps wait for what
//! is in flight), block devices are removed or handed over, NBD clients finish, every
//! origin is flushed and fingerprinted through the file that served it, the engine
//! closes (a clean checkpoint), the lanes let go, the devices below are closed. The
//! fingerprints come after the last write and before those devices are free for
//! others, so nothing can slip between. That holds too for an origin that is let go
//! alone, because it could not be served.
//!
//! A block device that is handed over stays in the kernel. What its users ask for
//! from then on waits there, so it is no write behind our back: the next csnapd
//! accepts the origin by its fingerprint, recovers the device, and gets it all.

use std::sync::Arc;

use snapstore::engine::{Command, VolumeInfo};

use super::Daemon;
use super::events::NewEvent;
use super::failures::busy;
use super::fingerprint;
use super::serve::export_names;
use super::store::Store;
use super::withdraw::Leaving;
use crate::control::protocol::{ErrorCode, Failure};
use crate::control::views::Level;
use crate::device::OriginDevice;
use crate::runtime::AttachError;

impl Daemon {
    /// Detaches a store. It stays in the state file.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`] when something is in use and nobody may be disturbed;
    /// then everything is as before. Other errors say what was not in good order;
    /// the store is detached all the same.
    pub(super) fn release(&self, store: &Arc<Store>, leaving: Leaving) -> Result<(), Failure> {
        let _changing = store.changing.lock();
        let volumes = store.volumes();
        let names: Vec<String> = volumes
            .iter()
            .flat_map(|info| export_names(store, info))
            .collect();
        if leaving != Leaving::Asking {
            store.let_wait_for_room(&volumes, false);
        }
        let cut_off = self
            .dismiss(&names, leaving)
            .and_then(|()| self.withdraw(store, &names, leaving))
            .inspect_err(|_| store.let_wait_for_room(&volumes, true))?;
        for info in &volumes {
            let sealed = if cut_off.contains(&info.name) {
                Err(busy("its clients did not finish in time", "attach again"))
            } else if let Some(origin) = store.handle.origin(info.id) {
                if leaving != Leaving::HandOver {
                    origin.settle();
                }
                self.seal(store, info, &origin)
            } else {
                // It never was served, or was sealed when it was let go.
                Ok(())
            };
            self.report_sealed(store, info, sealed);
        }
        let closed = store
            .handle
            .command(Command::Close)
            .map(drop)
            .map_err(Failure::from);
        self.abandon(store);
        let message = match &closed {
            Ok(()) => format!("store {} is detached", store.path.display()),
            Err(failure) => {
                format!(
                    "store {} is detached, but not cleanly: {failure}",
                    store.path.display()
                )
            }
        };
        let level = if closed.is_ok() {
            Level::Info
        } else {
            Level::Error
        };
        self.events
            .add(NewEvent::new(level, "store-detached", message).store(&store.path));
        closed
    }

    /// Lets go of an origin that cannot be served, for the next try: off the lanes,
    /// then sealed, since the store has forgotten what it looked like.
    pub(super) fn let_go(&self, store: &Store, info: &VolumeInfo, origin: &OriginDevice) {
        store.handlers.unwatch(info.id);
        match store.handle.detach_origin(info.id) {
            Ok(()) | Err(AttachError::NotAttached(_)) => {
                self.report_sealed(store, info, self.seal(store, info, origin));
            }
            Err(error) => {
                tracing::error!(volume = info.name, %error, "the origin is still held");
            }
        }
    }

    /// Flushes an origin and records what it looks like now.
    fn seal(&self, store: &Store, info: &VolumeInfo, origin: &OriginDevice) -> Result<(), Failure> {
        let failed = |error: snapstore::IoError| {
            Failure::new(ErrorCode::Error, format!("{}: {error}", info.origin))
        };
        origin.sync().map_err(failed)?;
        let fingerprint = fingerprint::of_device(origin, info.size).map_err(failed)?;
        let seal = fingerprint::left(fingerprint);
        store.handle.command(Command::Seal {
            volume: info.id,
            seal,
        })?;
        // Without it the fingerprint has to do.
        if let Err(error) = self.mark_left(store, info.id, origin, &seal) {
            tracing::warn!(volume = info.name, %error, "the kernel's count is not remembered");
        }
        Ok(())
    }

    fn report_sealed(&self, store: &Store, info: &VolumeInfo, sealed: Result<(), Failure>) {
        if let Err(failure) = sealed {
            self.events.add(not_sealed(store, info, &failure));
        }
    }

    /// Takes the store off the lanes and out of the list, whatever its state.
    pub(super) fn abandon(&self, store: &Arc<Store>) {
        store.scrub.stop();
        self.stores
            .write()
            .retain(|other| !Arc::ptr_eq(other, store));
        store.handlers.unwatch_all();
        if let Err(error) = store.handle.close() {
            tracing::error!(store = %store.path.display(), %error, "the store is still in use");
        }
    }

    /// Orderly stop: releases every store; block devices that are open wait for the
    /// next csnapd. The sockets are closed.
    pub fn stop(&self) {
        self.prepare_to_stop();
        let _alone = self.coming_and_going.lock();
        for store in self.stores() {
            if let Err(failure) = self.release(&store, Leaving::HandOver) {
                tracing::error!(store = %store.path.display(), "{failure}");
            }
        }
    }
}

fn not_sealed(store: &Store, info: &VolumeInfo, why: &Failure) -> NewEvent {
    let message = format!(
        "the origin of {} has no fingerprint ({why}): the next attach cannot tell whether it was changed",
        info.name
    );
    let event = NewEvent::new(Level::Warning, "no-fingerprint", message);
    event.store(&store.path).volume(&info.name)
}
