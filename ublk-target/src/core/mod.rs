//! One engine under its combining lock, and the way its effects take.
//!
//! A lane with events *enters* ([`Core::enter`]): it takes the engine's lock if
//! it is free, steps the engine and takes the effects away. If the lock is held
//! it leaves its events in the inbox for the holder. Any other thread leaves its
//! events in the inbox and pokes a lane.
//!
//! No event is left lying. A leaver puts its events into the inbox and *then*
//! tries the lock once more; a holder lets go of the lock and *then* looks into
//! the inbox. The inbox has its own lock, so one of the two came first there: if
//! the leaver did, the holder sees the events; if the holder did, its release of
//! the engine happened before the leaver's second try, which then succeeds or
//! meets another holder, for whom the same holds. The last resort of a holder
//! that has gone round often enough is to be sent in again (`Visit::again`).
//!
//! Effects leave after the lock is released, so a notice or a reply may ask the
//! engine again. A resume cannot overtake its pause: the engine sends it after
//! every lane acknowledged the pause, or this module does, after it was posted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use snapstore::engine::{Command, CommandError, Notice, Reply, StoreInfo};
use snapstore::ids::{CommandId, IoId};
use snapstore::{Checksum, Effects, Engine, Event, EventBatch, IoError, Tag, UniqueMap, VolumeId};

use crate::lane::StoreSlot;

mod mailbox;
mod pause;
mod route;

pub use mailbox::{Lanes, Mail, Port};

use pause::Pauses;

/// Steps after which a holder submits what it has before it goes on.
const ROUNDS: u32 = 4;

/// What the runtime needs of an engine. Implemented by [`Engine`]; tests put a
/// scripted one in its place.
pub trait Stepper: Send + 'static {
    /// See [`Engine::step`].
    fn step(&mut self, batch: &mut EventBatch, effects: &mut Effects);
    /// Bytes in a chunk.
    fn chunk_size(&self) -> u32;
    /// What the data copied to the store is covered by.
    fn checksum(&self) -> Checksum;
    /// The fast-path map of a volume.
    fn unique_map(&self, volume: VolumeId) -> Option<Arc<UniqueMap>>;
    /// Size of a volume in bytes.
    fn volume_size(&self, volume: VolumeId) -> Option<u64>;
    /// Size of a snapshot in bytes.
    fn snapshot_size(&self, volume: VolumeId, tag: Tag) -> Option<u64>;
    /// How the store is.
    fn store_info(&self) -> StoreInfo;
}

impl Stepper for Engine {
    fn step(&mut self, batch: &mut EventBatch, effects: &mut Effects) {
        Self::step(self, batch, effects);
    }

    fn chunk_size(&self) -> u32 {
        Self::chunk_size(self)
    }

    fn checksum(&self) -> Checksum {
        Self::checksum(self)
    }

    fn unique_map(&self, volume: VolumeId) -> Option<Arc<UniqueMap>> {
        Self::unique_map(self, volume)
    }

    fn volume_size(&self, volume: VolumeId) -> Option<u64> {
        self.volumes()
            .into_iter()
            .find(|info| info.id == volume)
            .map(|info| info.size)
    }

    fn snapshot_size(&self, volume: VolumeId, tag: Tag) -> Option<u64> {
        self.snapshots(volume)
            .into_iter()
            .find(|info| info.tag == tag)
            .map(|info| info.size)
    }

    fn store_info(&self) -> StoreInfo {
        Self::store_info(self)
    }
}

/// What the daemon does for a store, beside I/O.
pub trait StoreHandlers: Send + Sync {
    /// Something a person should know. Called by an I/O thread: must not block.
    fn notice(&self, notice: Notice);

    /// The origin of a volume failed an operation with this `errno`. Called by an I/O
    /// thread: must not block.
    fn origin_failed(&self, volume: VolumeId, errno: i32);

    /// Time passes; `space` tells the bytes in use and the bytes of the store, for a
    /// moment of the engine's time.
    fn ticked(&self, now: Instant, space: &dyn Fn() -> (u64, u64)) {
        let _ = (now, space);
    }

    /// Records durably, outside the store and its origins, that all snapshots of
    /// `volumes` are invalid. Called by a thread of its own.
    ///
    /// # Errors
    /// When it could not be made durable.
    fn record_invalid(&self, volumes: &[VolumeId]) -> Result<(), IoError>;
}

/// One lane's visit to an engine: what it brings and what it takes away.
#[derive(Debug, Default)]
pub struct Visit {
    /// The lane that enters.
    pub lane: u16,
    /// What it has to tell; empty afterwards.
    pub events: EventBatch,
    /// What it is to carry out itself.
    pub local: Effects,
    /// Sleeping lanes it is to wake.
    pub wakes: Vec<u16>,
    /// It is to enter again soon, after submitting what it has.
    pub again: bool,
    /// Copies of this visit, before they are shared out.
    copies: Vec<snapstore::Effect>,
    scratch: Effects,
}

impl Visit {
    /// Empty hands, for the visits of `lane`.
    #[must_use]
    pub fn new(lane: u16) -> Self {
        Self {
            lane,
            ..Self::default()
        }
    }
}

/// What a lane knows of a core, whatever its engine.
pub trait Entry: Send + Sync {
    /// Brings events to the engine and takes effects away.
    fn enter(&self, visit: &mut Visit);
    /// The lane has drained for pause `io`; the last lane gets the event to tell.
    fn acknowledge(&self, io: IoId) -> Option<Event>;
    /// See [`StoreHandlers::origin_failed`].
    fn origin_failed(&self, volume: VolumeId, errno: i32);
    /// Time passes: `now_ms` since the Unix epoch, `now` for time-outs.
    fn tick(&self, now_ms: u64, now: Instant);
}

/// An engine and the way to it. See the module.
pub struct Core<E> {
    slot: StoreSlot,
    engine: Mutex<E>,
    inbox: Mutex<EventBatch>,
    lanes: Arc<Lanes>,
    pauses: Mutex<Pauses>,
    commands: Mutex<Commands>,
    next_command: AtomicU64,
    next_lane: AtomicU16,
    handlers: Arc<dyn StoreHandlers>,
    itself: Weak<Self>,
}

/// Ends the process if it is dropped by a panic. A step half done or a lane that is
/// gone must not be lived with; a dead process is what the store is made to survive.
pub(crate) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// Where the reply to a command arrives.
pub type Answer = mpsc::Receiver<Result<Reply, CommandError>>;

/// Callers waiting for replies; `None` once the core is closed.
type Commands = Option<HashMap<CommandId, mpsc::SyncSender<Result<Reply, CommandError>>>>;

impl<E: Stepper> Core<E> {
    /// A core that lanes do not know yet.
    pub fn new(
        slot: StoreSlot,
        engine: E,
        lanes: Arc<Lanes>,
        handlers: Arc<dyn StoreHandlers>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|itself| Self {
            slot,
            engine: Mutex::new(engine),
            inbox: Mutex::default(),
            lanes,
            pauses: Mutex::default(),
            commands: Mutex::new(Some(HashMap::new())),
            next_command: AtomicU64::new(1),
            next_lane: AtomicU16::new(0),
            handlers,
            itself: itself.clone(),
        })
    }

    /// Gives the engine a command and waits for its reply. Not for I/O threads.
    ///
    /// # Errors
    /// What the engine answers; [`CommandError::Closing`] after [`Core::close`].
    pub fn command(&self, command: Command) -> Result<Reply, CommandError> {
        let reply = self.ask(command)?;
        reply.recv().unwrap_or(Err(CommandError::Closing))
    }

    /// Gives the engine a command; whoever wants the reply receives it, or learns by
    /// the sender's absence that the core was closed.
    ///
    /// # Errors
    /// [`CommandError::Closing`] after [`Core::close`].
    pub fn ask(&self, command: Command) -> Result<Answer, CommandError> {
        let id = CommandId(self.next_command.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = mpsc::sync_channel(1);
        self.commands
            .lock()
            .as_mut()
            .ok_or(CommandError::Closing)?
            .insert(id, sender);
        self.tell(Event::Command { id, command });
        Ok(receiver)
    }

    /// Looks at the engine. Not for I/O threads, and not for long: lanes leave
    /// their events in the inbox meanwhile.
    pub fn query<T>(&self, look: impl FnOnce(&E) -> T) -> T {
        let found = look(&self.engine.lock());
        if !self.inbox.lock().is_empty() {
            self.poke();
        }
        found
    }

    /// Lets every waiting caller go and takes no more commands.
    pub fn close(&self) {
        *self.commands.lock() = None;
    }

    /// Leaves an event for the engine and sends a lane in.
    fn tell(&self, event: Event) {
        self.inbox.lock().events.push(event);
        self.poke();
    }

    /// Sends some lane in.
    fn poke(&self) {
        let lane = self.next_lane.fetch_add(1, Ordering::Relaxed) % self.lanes.count();
        self.lanes.post(lane, Mail::Step(self.slot));
    }

    /// Steps once, lets go of the engine, and sends the effects on their way.
    fn step(&self, mut engine: MutexGuard<'_, E>, visit: &mut Visit) {
        // Dropped before the lock: nobody else enters an engine that broke off.
        let _whole = AbortOnPanic;
        self.gather(visit);
        visit.scratch.clear();
        engine.step(&mut visit.events, &mut visit.scratch);
        drop(engine);
        visit.events.clear();
        self.route(visit);
    }

    /// Puts what lies in the inbox before the visitor's own events: a lane that
    /// left some there may have come back with later ones, and the engine must
    /// see the events of a lane in order.
    fn gather(&self, visit: &mut Visit) {
        let mut inbox = self.inbox.lock();
        inbox.append(&mut visit.events);
        std::mem::swap(&mut *inbox, &mut visit.events);
    }

    /// The engine's lock, or the events left with its holder.
    fn lock_or_leave(&self, visit: &mut Visit) -> Option<MutexGuard<'_, E>> {
        self.engine.try_lock().or_else(|| {
            self.inbox.lock().append(&mut visit.events);
            visit.events.clear();
            self.engine.try_lock()
        })
    }
}

impl<E: Stepper> Entry for Core<E> {
    fn enter(&self, visit: &mut Visit) {
        for _ in 0..ROUNDS {
            let Some(engine) = self.lock_or_leave(visit) else {
                return;
            };
            self.step(engine, visit);
            if self.inbox.lock().is_empty() {
                return;
            }
        }
        visit.again = true;
    }

    fn acknowledge(&self, io: IoId) -> Option<Event> {
        let last = self.pauses.lock().acknowledge(io);
        last.then_some(Event::Paused { io, drained: true })
    }

    fn origin_failed(&self, volume: VolumeId, errno: i32) {
        self.handlers.origin_failed(volume, errno);
    }

    fn tick(&self, now_ms: u64, now: Instant) {
        let expired = self.pauses.lock().expired(now);
        for io in expired {
            tracing::warn!(
                pause = io.0,
                "writes in flight did not drain in time: giving up"
            );
            self.resume_all(io, None);
            self.inbox
                .lock()
                .events
                .push(Event::Paused { io, drained: false });
        }
        self.tell(Event::Tick { now_ms });
        self.handlers.ticked(now, &|| {
            let info = self.query(Stepper::store_info);
            (info.used, info.size)
        });
    }
}

#[cfg(test)]
mod tests;
