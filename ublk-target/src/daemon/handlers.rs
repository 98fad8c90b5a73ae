//! What a store tells the daemon: notices become events, and the last word on a
//! dead store's snapshots goes to the state file.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use snapstore::engine::Notice;
use snapstore::{IoError, VolumeId};
use uuid::Uuid;

use super::events::{Events, NewEvent};
use super::fill_rate::FillRate;
use super::origin_errors::OriginErrors;
use super::state::StateFile;
use crate::control::utc::about;
use crate::control::views::Level;
use crate::core::StoreHandlers;

/// The handlers of one store.
#[derive(Debug)]
pub struct Handlers {
    path: PathBuf,
    uuid: Uuid,
    events: Arc<Events>,
    state: Arc<StateFile>,
    /// Kept beside the engine, so that a notice needs not ask it.
    names: RwLock<HashMap<VolumeId, String>>,
    /// What its origins failed.
    pub origin_errors: OriginErrors,
    fill_rate: Mutex<FillRate>,
}

impl Handlers {
    /// Handlers that know no volume's name yet.
    #[must_use]
    pub fn new(path: PathBuf, uuid: Uuid, events: Arc<Events>, state: Arc<StateFile>) -> Self {
        Self {
            path,
            uuid,
            events,
            state,
            names: RwLock::default(),
            origin_errors: OriginErrors::default(),
            fill_rate: Mutex::default(),
        }
    }

    /// Learns a volume's name.
    pub fn name(&self, volume: VolumeId, name: &str) {
        self.names.write().insert(volume, name.to_owned());
    }

    /// When the store will be full at the rate of the last minutes, if it fills.
    #[must_use]
    pub fn full_in(&self) -> Option<Duration> {
        self.fill_rate.lock().full_in()
    }

    fn name_of(&self, volume: VolumeId) -> String {
        let names = self.names.read();
        names
            .get(&volume)
            .cloned()
            .unwrap_or_else(|| format!("number {volume}"))
    }

    fn event(&self, notice: Notice) -> NewEvent {
        let store = self.path.display();
        match notice {
            Notice::SpaceLow { used_percent } => NewEvent::new(
                Level::Warning,
                "space-low",
                format!(
                    "store {store} is {used_percent} % full{}; delete snapshots, or the least important will be dropped when it is full",
                    self.full_in().map_or_else(String::new, |left| {
                        format!(" and, at the rate of the last minutes, full in {}", about(left))
                    })
                ),
            ),
            Notice::WaitsForRoom { volume, seconds } => {
                let volume = self.name_of(volume);
                let message = format!(
                    "store {store} is full: writes to {volume}, which keeps its snapshots, wait for room up to {seconds} s and then fail; delete snapshots"
                );
                NewEvent::new(Level::Error, "waits-for-room", message).volume(volume)
            }
            Notice::SnapshotDropped { volume, name, reason, .. } => {
                let volume = self.name_of(volume);
                let message = format!("snapshot {volume}@{name} was dropped: {reason}");
                NewEvent::new(Level::Error, "snapshot-dropped", message)
                    .volume(volume)
                    .snapshot(name)
            }
            Notice::SnapshotPurged { volume, tag } => {
                let volume = self.name_of(volume);
                let message = format!("the space of snapshot number {tag} of {volume}, which is gone, is free");
                NewEvent::new(Level::Info, "snapshot-purged", message).volume(volume)
            }
            Notice::ChunkLost { volume, chunk, error } => {
                let volume = self.name_of(volume);
                let message = format!(
                    "old contents of chunk {chunk} of {volume} could not be read ({error}): its newest snapshots lack them"
                );
                NewEvent::new(Level::Error, "chunk-lost", message).volume(volume)
            }
            Notice::Damage { block, reason } => NewEvent::new(
                Level::Error,
                "damage",
                format!("block {block} of store {store} is damaged: {reason}; run csnapctl store check"),
            ),
            Notice::StoreFailed { reason } => NewEvent::new(
                Level::Error,
                "store-failed",
                format!("store {store} failed and takes no more changes: {reason}; the origins go on"),
            ),
            Notice::Checkpoint { generation } => NewEvent::new(
                Level::Info,
                "checkpoint",
                format!("store {store} wrote checkpoint {generation}"),
            ),
        }
        .store(&self.path)
    }
}

impl StoreHandlers for Handlers {
    fn notice(&self, notice: Notice) {
        // Checkpoints come twice a minute: they would push everything else out.
        if let Notice::Checkpoint { generation } = notice {
            tracing::debug!(generation, store = %self.path.display(), "checkpoint");
            return;
        }
        self.events.add(self.event(notice));
    }

    fn origin_failed(&self, volume: VolumeId, errno: i32) {
        let Some(what) = self.origin_errors.note(volume, errno, Instant::now()) else {
            return;
        };
        let volume = self.name_of(volume);
        let message = format!("the origin of {volume} failed {what}");
        let event = NewEvent::new(Level::Error, "origin-failed", message);
        self.events.add(event.store(&self.path).volume(volume));
    }

    fn ticked(&self, now: Instant, space: &dyn Fn() -> (u64, u64)) {
        if self.fill_rate.lock().is_due(now) {
            let (used, size) = space();
            self.fill_rate.lock().sample(now, used, size);
        }
    }

    fn record_invalid(&self, volumes: &[VolumeId]) -> Result<(), IoError> {
        let numbers = volumes.iter().map(|volume| volume.0);
        let names: Vec<String> = volumes.iter().map(|volume| self.name_of(*volume)).collect();
        let names = names.join(", ");
        match self
            .state
            .update(|state| state.invalidate(self.uuid, numbers))
        {
            Ok(()) => {
                let message = format!("all snapshots of {names} are invalid: the store failed");
                let event = NewEvent::new(Level::Error, "snapshots-invalid", message);
                self.events.add(event.store(&self.path));
                Ok(())
            }
            Err(error) => {
                let message = format!(
                    "that the snapshots of {names} are invalid cannot be recorded ({error}): writes to them fail"
                );
                let event = NewEvent::new(Level::Error, "state-failed", message);
                self.events.add(event.store(&self.path));
                Err(IoError::Absent)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use snapstore::Tag;
    use snapstore::engine::DropReason;

    use super::*;

    #[test]
    fn notices_name_volumes_and_invalid_snapshots_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let events = Arc::new(Events::default());
        let state = Arc::new(StateFile::open(dir.path()).unwrap());
        let uuid = Uuid::from_u128(7);
        let handlers = Handlers::new("/dev/s".into(), uuid, events.clone(), state);
        handlers.name(VolumeId(3), "web");
        handlers.notice(Notice::SnapshotDropped {
            volume: VolumeId(3),
            name: "monday".into(),
            tag: Tag(1),
            reason: DropReason::StoreFull,
        });
        handlers.notice(Notice::Checkpoint { generation: 1 });
        handlers.record_invalid(&[VolumeId(3)]).unwrap();
        let page = events.since(0, 10, Duration::ZERO);
        let messages: Vec<_> = page.items.iter().map(|event| &*event.message).collect();
        assert_eq!(
            messages,
            [
                "snapshot web@monday was dropped: the store was full",
                "all snapshots of web are invalid: the store failed"
            ]
        );
        assert_eq!(
            StateFile::open(dir.path())
                .unwrap()
                .get()
                .invalid_volumes(uuid),
            [3]
        );
    }
}
