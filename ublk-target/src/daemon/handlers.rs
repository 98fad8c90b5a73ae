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
use crate::device::OriginDevice;

/// How often origins are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Origins that are looked at.
#[derive(Debug, Default)]
struct Watched {
    origins: HashMap<VolumeId, Arc<OriginDevice>>,
    last: Option<Instant>,
}

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
    /// Origins that are served.
    watched: Mutex<Watched>,
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
            watched: Mutex::default(),
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

    /// Looks after an origin from now on: is it there, who writes to it?
    pub fn watch(&self, volume: VolumeId, origin: Arc<OriginDevice>) {
        self.watched.lock().origins.insert(volume, origin);
    }

    /// No longer: it is let go. The device is not held here when this returns.
    pub fn unwatch(&self, volume: VolumeId) {
        self.watched.lock().origins.remove(&volume);
        self.origin_errors.clear(volume);
    }

    /// Likewise all.
    pub fn unwatch_all(&self) {
        self.watched.lock().origins.clear();
    }

    fn look_after_origins(&self, now: Instant) {
        let mut watched = self.watched.lock();
        let due = |last| now.saturating_duration_since(last) >= LOOK;
        if !watched.last.is_none_or(due) {
            return;
        }
        watched.last = Some(now);
        for (volume, origin) in &watched.origins {
            if origin.is_gone() {
                self.origin_gone(*volume, origin);
            } else if let Some(tally) = origin.tally() {
                let doubted = tally.totals().doubtful;
                let ask = || origin.written().map(|now| (now.sectors, now.times));
                if tally.sample(ask) && !doubted {
                    self.written_by_others(*volume, origin);
                }
            }
        }
    }

    fn origin_gone(&self, volume: VolumeId, origin: &OriginDevice) {
        if !self.origin_errors.note_gone(volume) {
            return;
        }
        let (volume, path) = (self.name_of(volume), origin.path().display());
        let message = format!(
            "the origin of {volume} is gone: {path}. Its users get I/O errors, and so do its snapshots where they need it. Connect it again, then: csnapctl store attach {}",
            self.path.display()
        );
        let event = NewEvent::new(Level::Error, "origin-gone", message);
        self.events.add(event.store(&self.path).volume(volume));
    }

    fn written_by_others(&self, volume: VolumeId, origin: &OriginDevice) {
        let (volume, path) = (self.name_of(volume), origin.path().display());
        let message = format!(
            "the kernel counts more writes to {path}, the origin of {volume}, than csnapd makes: if something else writes to it, the snapshots are wrong where it does. What is written after a crash of csnapd will not be noticed"
        );
        let event = NewEvent::new(Level::Warning, "origin-written", message);
        self.events.add(event.store(&self.path).volume(volume));
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
                    "store {store} is {used_percent} % full{}; delete snapshots or extend the store, or the least important will be dropped when it is full",
                    self.full_in().map_or_else(String::new, |left| {
                        format!(" and, at the rate of the last minutes, full in {}", about(left))
                    })
                ),
            ),
            Notice::WaitsForRoom { volume, seconds } => {
                let volume = self.name_of(volume);
                let message = format!(
                    "store {store} is full: writes to {volume}, which keeps its snapshots, wait for room up to {seconds} s and then fail; delete snapshots or extend the store"
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
            Notice::DataDamaged { volume, name, chunk, block, .. } => {
                let volume = self.name_of(volume);
                let message = format!(
                    "block {block} of store {store} is damaged: its data does not match its checksum, so chunk {chunk} of {volume}@{name} cannot be read; csnapctl store scrub says which other snapshots need it"
                );
                NewEvent::new(Level::Error, "damage", message)
                    .volume(volume)
                    .snapshot(name)
            }
            Notice::StoreFailed { reason } => NewEvent::new(
                Level::Error,
                "store-failed",
                format!("store {store} failed and takes no more changes: {reason}; the origins go on"),
            ),
            Notice::StoreExtended { from, to } => NewEvent::new(
                Level::Info,
                "store-extended",
                format!("store {store} grew from {from} to {to} bytes"),
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
        let Some(what) = self.origin_errors.note(volume, errno) else {
            return;
        };
        let volume = self.name_of(volume);
        let message = format!("the origin of {volume} {what}");
        let event = NewEvent::new(Level::Error, "origin-failed", message);
        self.events.add(event.store(&self.path).volume(volume));
    }

    fn ticked(&self, now: Instant, space: &dyn Fn() -> (u64, u64)) {
        self.look_after_origins(now);
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
        handlers.notice(Notice::DataDamaged {
            volume: VolumeId(3),
            tag: Tag(2),
            name: "tuesday".into(),
            chunk: 17,
            block: 4711,
        });
        handlers.notice(Notice::Checkpoint { generation: 1 });
        handlers.record_invalid(&[VolumeId(3)]).unwrap();
        let page = events.since(0, 10, Duration::ZERO);
        let messages: Vec<_> = page.items.iter().map(|event| &*event.message).collect();
        assert_eq!(
            messages,
            [
                "snapshot web@monday was dropped: the store was full",
                "block 4711 of store /dev/s is damaged: its data does not match its checksum, so chunk 17 of web@tuesday cannot be read; csnapctl store scrub says which other snapshots need it",
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
