//! Verifying the kept data of an attached store, slowly, beside everything else.
//!
//! One thread a scrub. It reads through the store's own open file and never enters the
//! engine, except for the names of snapshots when damage is found. It waits between
//! steps so that it stays below its rate, and ends at once when told to: before the
//! store is let go, and at the latest then, it has ended.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use snapstore::engine::SnapshotState;
use snapstore::scrub::{Damaged, Scrub, Step};
use snapstore::{Block, BlockDevice, IoError};

use super::events::{Events, NewEvent};
use super::store::Store;
use crate::control::protocol::{ErrorCode, Failure};
use crate::control::utc;
use crate::control::views::{DamageView, Level, ScrubView};
use crate::device::StoreDevice;

/// Damage remembered one by one, and told as events; the rest is counted.
const MOST: usize = 100;
/// Snapshots named for one of them.
const MOST_NAMES: usize = 20;
/// The slowest rate: a leaf with large chunks in a few seconds.
const MIN_RATE: u64 = 1 << 20;

/// The scrub of a store: the one under way, or the last one.
#[derive(Debug, Default)]
pub struct Scrubber {
    thread: Mutex<Option<JoinHandle<()>>>,
    now: Mutex<Now>,
    stopped: Condvar,
}

#[derive(Debug, Default)]
struct Now {
    view: ScrubView,
    stop: bool,
}

/// Reads of the store beside its engine.
struct Beside<'a>(&'a StoreDevice);

impl BlockDevice for Beside<'_> {
    fn blocks(&self) -> u64 {
        self.0.blocks()
    }

    fn read(&mut self, first: u64, out: &mut [Block]) -> Result<(), IoError> {
        let end = first.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.blocks()) {
            return Err(IoError::OutOfRange);
        }
        self.0
            .read_blocks(first * snapstore::BLOCK_SIZE as u64, out)
    }

    fn write(&mut self, _: u64, _: &[Block]) -> Result<(), IoError> {
        Err(IoError::Absent)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        Ok(())
    }
}

impl Scrubber {
    /// How it is.
    pub fn view(&self) -> ScrubView {
        self.now.lock().view.clone()
    }

    /// Begins a scrub of `store`, whose scrubber this is.
    ///
    /// # Errors
    /// When one is under way, or no thread can be made.
    pub fn start(store: &Arc<Store>, events: Arc<Events>, rate: u64) -> Result<(), Failure> {
        let scrubber = &store.scrub;
        let mut thread = scrubber.thread.lock();
        let path = store.path.display();
        let mut now = scrubber.now.lock();
        if now.view.running {
            let message = format!("{path} is being scrubbed already");
            return Err(Failure::new(ErrorCode::Busy, message)
                .next("csnapctl store scrub --status shows how far, --stop ends it"));
        }
        *now = Now {
            view: ScrubView {
                store: path.to_string(),
                running: true,
                rate: rate.max(MIN_RATE),
                started_ms: utc::now_ms(),
                ..ScrubView::default()
            },
            stop: false,
        };
        drop(now);
        let own = store.clone();
        let made = std::thread::Builder::new()
            .name("csnap-scrub".to_owned())
            .spawn(move || run(&own, &events));
        match made {
            Ok(made) => {
                *thread = Some(made);
                Ok(())
            }
            Err(error) => {
                scrubber.now.lock().view.running = false;
                let message = format!("no thread for a scrub: {error}");
                Err(Failure::new(ErrorCode::Error, message))
            }
        }
    }

    /// Ends the scrub under way, if there is one, and waits until it has.
    pub fn stop(&self) {
        let mut thread = self.thread.lock();
        self.now.lock().stop = true;
        self.stopped.notify_all();
        if let Some(thread) = thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a scrub ended in a panic");
        }
    }

    /// Takes a step in; whether to go on.
    fn note(&self, step: &Step, damage: Vec<DamageView>) -> bool {
        let mut now = self.now.lock();
        let view = &mut now.view;
        view.bytes += step.bytes;
        view.chunks += step.chunks;
        view.of = step.of.max(view.chunks);
        view.damaged += step.damaged.len() as u64;
        view.damage.extend(damage);
        !step.done && !now.stop
    }

    /// Waits until `until` or until it is told to stop.
    fn wait(&self, until: Instant) {
        let mut now = self.now.lock();
        while !now.stop && !self.stopped.wait_until(&mut now, until).timed_out() {}
    }
}

fn run(store: &Store, events: &Events) {
    let scrubber = &store.scrub;
    let (mut scrub, mut device) = (Scrub::default(), Beside(store.handle.device()));
    let start = Instant::now();
    let rate = scrubber.view().rate;
    let problem = loop {
        let step = match scrub.step(&mut device) {
            Ok(step) => step,
            Err(error) => break Some(error.to_string()),
        };
        // Who needs it is asked of the engine: not for what is only counted.
        let room = MOST.saturating_sub(scrubber.view().damage.len());
        let damaged = step.damaged.iter().take(room);
        let damage: Vec<DamageView> = damaged.map(|one| view_of(store, one)).collect();
        for damage in &damage {
            events.add(
                NewEvent::new(Level::Error, "damage", message(store, damage)).store(&store.path),
            );
        }
        if !scrubber.note(&step, damage) {
            break None;
        }
        let due = u128::from(scrubber.view().bytes) * 1000 / u128::from(rate);
        scrubber.wait(start + Duration::from_millis(u64::try_from(due).unwrap_or(u64::MAX)));
    };
    let mut now = scrubber.now.lock();
    let stopped = now.stop;
    let view = &mut now.view;
    view.running = false;
    view.complete = problem.is_none() && !stopped;
    view.problem = problem;
    view.ended_ms = Some(utc::now_ms());
    let (level, how) = match (&view.problem, view.damaged) {
        (Some(problem), _) => (Level::Error, format!("ended early: {problem}")),
        (None, 0) if stopped => (Level::Info, "was stopped, no damage so far".to_owned()),
        (None, 0) => (Level::Info, "found no damage".to_owned()),
        (None, damaged) => (Level::Error, format!("found {damaged} damaged blocks")),
    };
    let message = format!("the scrub of store {} {how}", store.path.display());
    drop(now);
    events.add(NewEvent::new(level, "scrub", message).store(&store.path));
}

/// What is damaged, and who needs it.
fn view_of(store: &Store, damaged: &Damaged) -> DamageView {
    match damaged {
        Damaged::Node { block, reason } => DamageView {
            block: *block,
            reason: format!("exception tree: {reason}"),
            ..DamageView::default()
        },
        Damaged::Chunk {
            volume,
            chunk,
            pred,
            tag,
            block,
            reason,
        } => {
            let info = store.volumes().into_iter().find(|info| info.id == *volume);
            let snapshots = store.snapshots(*volume).into_iter();
            let needed = snapshots.filter(|snapshot| {
                snapshot.state == SnapshotState::Live
                    && *pred < snapshot.tag
                    && snapshot.tag <= *tag
            });
            let mut names: Vec<String> = needed.map(|snapshot| snapshot.name).collect();
            let more_snapshots = names.len().saturating_sub(MOST_NAMES) as u64;
            names.truncate(MOST_NAMES);
            DamageView {
                block: *block,
                reason: reason.clone(),
                volume: info.map(|info| info.name),
                chunk: Some(*chunk),
                snapshots: names,
                more_snapshots,
            }
        }
    }
}

fn message(store: &Store, damage: &DamageView) -> String {
    let (block, path, reason) = (damage.block, store.path.display(), &damage.reason);
    let mut text = format!("block {block} of store {path} is damaged: {reason}");
    if let (Some(volume), Some(chunk)) = (&damage.volume, damage.chunk) {
        let snapshots = damage.snapshots.join(", ");
        text += &format!("; chunk {chunk} of {volume} cannot be read in snapshots {snapshots}");
    }
    text
}
