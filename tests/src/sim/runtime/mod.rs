//! A stand-in for csnapd's lanes: carries out the contract at the top of
//! `snapstore::engine::api`, with every delivery and completion delayed and
//! reordered by the dice.
//!
//! - Work waits in three places: events for the engine (`mail`), effects not yet
//!   carried out (`tasks`), operations in flight (`io`). [`Runtime::step`] moves
//!   one of them, whichever the dice say.
//! - The world submits [`Ask`]s and commands and collects [`Answer`]s. Nothing
//!   else crosses ([`Daemon`]), so that the real lanes can take this one's place.
//! - Ordered are only: the two answers to a copy, and the pieces of one read.
//! - An engine that breaks its side of the contract is a [`Violation`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use snapstore::engine::{Command, CommandError, Notice, Reply, RequestError};
use snapstore::ids::{CommandId, IoId};
use snapstore::{Effects, Engine, Event, EventBatch, IoError, UniqueMap, VolumeId};

use super::daemon::Daemon;
use super::defect::Defect;
use super::dice::Dice;
use super::disk::{OpId, SimDisk};
use super::value::Data;
use super::{Outcome, Violation};

mod effects;
mod io;
mod pause;
mod request;

use io::Use;
use pause::{Lane, Pause};
pub use request::Ask;
use request::Request;

/// What outlives the daemon: the disks, and the state file naming volumes whose
/// snapshots a dead store could not invalidate itself.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The store.
    pub store: SimDisk,
    /// The origins.
    pub origins: Vec<SimDisk>,
    /// Volumes recorded by [`snapstore::Effect::RecordInvalid`].
    pub invalid: BTreeSet<VolumeId>,
}

/// Which disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dev {
    /// The store.
    Store,
    /// An origin.
    Origin(usize),
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The engine refused.
    #[error("refused: {0}")]
    Refused(RequestError),
    /// The device failed.
    #[error("device: {0}")]
    Device(IoError),
    /// The engine refused the rest: some of it may have been written.
    #[error("refused halfway: {0}")]
    Broken(RequestError),
    /// Store data did not match its checksum.
    #[error("store block {0} does not match its checksum")]
    Mismatch(u64),
}

/// What the runtime tells the world.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A request ended. Reads carry their sectors.
    Ended {
        /// The request.
        owner: u64,
        /// How it went.
        result: Result<Vec<Data>, Failure>,
    },
    /// A command was answered.
    Reply {
        /// The command.
        id: CommandId,
        /// How it went.
        result: Result<Reply, CommandError>,
    },
    /// The engine has something to say.
    Notice(Notice),
}

/// How the runtime behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Habits {
    /// Lanes (queues).
    pub lanes: usize,
    /// How eagerly: completions, effects, deliveries.
    pub eagerness: [u64; 3],
    /// Operations, effects and events that take much longer than the rest, in 16.
    pub laggards: u64,
    /// Pauses given up, in a thousand.
    pub give_up: u64,
    /// What it does wrong on purpose.
    pub defect: Option<Defect>,
}

/// A volume in service.
#[derive(Clone, Debug)]
struct Attached {
    origin: usize,
    map: Arc<UniqueMap>,
}

/// How much longer a laggard takes.
const LAG: u64 = 32;

/// Something that waits its turn, or many turns.
#[derive(Debug)]
struct Slowly<T> {
    slow: bool,
    what: T,
}

/// Events that must arrive in this order.
#[derive(Debug)]
struct Mail {
    events: Vec<Event>,
    crcs: Vec<u32>,
}

/// Something to be carried out.
#[derive(Debug)]
enum Task {
    Begin(u64),
    Piece(u64, usize),
    Effect(snapstore::Effect),
    PauseLane(IoId, usize),
    ResumeLane(IoId, usize),
}

/// The engine and everything around it. See the module.
#[derive(Debug)]
pub struct Runtime {
    engine: Engine,
    machine: Machine,
    /// What the world has not yet collected.
    answers: Vec<Answer>,
    steps: u64,
    habits: Habits,
    dice: Dice,
    chunk: u64,
    volumes: BTreeMap<VolumeId, Attached>,
    lanes: Vec<Lane>,
    requests: BTreeMap<u64, Request>,
    next_owner: u64,
    next_command: u64,
    mail: Vec<Slowly<Mail>>,
    tasks: Vec<Slowly<Task>>,
    io: BTreeMap<(Dev, OpId), Use>,
    pauses: BTreeMap<IoId, Pause>,
    again: bool,
    effects: Effects,
}

impl Daemon for Runtime {
    fn start(engine: Engine, machine: Machine, habits: Habits, dice: Dice) -> Outcome<Self> {
        let chunk = u64::from(engine.chunk_size()) / super::value::SECTOR as u64;
        Ok(Self {
            engine,
            machine,
            answers: Vec::new(),
            steps: 0,
            habits,
            dice,
            chunk,
            volumes: BTreeMap::new(),
            lanes: (0..habits.lanes.max(1)).map(|_| Lane::default()).collect(),
            requests: BTreeMap::new(),
            next_owner: 1,
            next_command: 1,
            mail: Vec::new(),
            tasks: Vec::new(),
            io: BTreeMap::new(),
            pauses: BTreeMap::new(),
            again: true,
            effects: Effects::default(),
        })
    }

    fn attach(&mut self, volume: VolumeId, origin: usize) -> Outcome {
        let map = self.engine.unique_map(volume).ok_or_else(|| {
            Violation(format!(
                "volume {volume} exists, but the engine has no unique map for it"
            ))
        })?;
        self.volumes.insert(volume, Attached { origin, map });
        Ok(())
    }

    fn keep_attached(&mut self, keep: impl Fn(VolumeId) -> bool) {
        self.volumes.retain(|volume, _| keep(*volume));
    }

    fn restart(&mut self, engine: Engine) -> Outcome {
        self.engine = engine;
        self.again = true;
        self.answers.clear();
        self.volumes.clear();
        self.lanes
            .iter_mut()
            .for_each(|lane| *lane = Lane::default());
        self.requests.clear();
        self.mail.clear();
        self.tasks.clear();
        self.io.clear();
        self.pauses.clear();
        Ok(())
    }

    fn submit(&mut self, volume: VolumeId, ask: Ask) -> u64 {
        let owner = self.next_owner;
        self.next_owner += 1;
        let lane = self.dice.index(self.lanes.len());
        self.requests
            .insert(owner, Request::new(lane, volume, ask, self.steps));
        self.later(Task::Begin(owner));
        owner
    }

    fn command(&mut self, command: Command) -> CommandId {
        let id = CommandId(self.next_command);
        self.next_command += 1;
        self.post(Event::Command { id, command });
        id
    }

    fn tick(&mut self, now_ms: u64) {
        self.post(Event::Tick { now_ms });
    }

    fn idle(&mut self) -> bool {
        self.mail.is_empty() && self.tasks.is_empty() && self.io.is_empty() && !self.again
    }

    fn step(&mut self) -> Outcome<bool> {
        self.steps += 1;
        let waiting = [
            self.io.len(),
            self.tasks.len(),
            self.mail.len() + usize::from(self.again),
        ];
        let weights: Vec<u64> = waiting
            .iter()
            .zip(self.habits.eagerness)
            .map(|(n, eager)| if *n == 0 { 0 } else { eager.max(1) })
            .collect();
        if weights.iter().sum::<u64>() == 0 {
            return Ok(false);
        }
        match self.whose_turn(&weights) {
            0 => self.move_io()?,
            1 => {
                let index = self.dice.index(self.tasks.len());
                if self.tasks.get(index).is_some_and(|t| !t.slow) || self.dice.chance(1, LAG) {
                    let task = self.tasks.swap_remove(index).what;
                    self.carry_out(task)?;
                }
            }
            _ => self.deliver()?,
        }
        Ok(true)
    }

    fn oldest(&self) -> Option<(u64, String)> {
        let request = self.requests.values().min_by_key(|r| r.born)?;
        Some((request.born, format!("{request:?}")))
    }

    fn describe(&self) -> String {
        let Self {
            mail,
            tasks,
            io,
            pauses,
            lanes,
            ..
        } = self;
        let mut text = format!(
            "mail {mail:?}\ntasks {tasks:?}\nio {io:?}\npauses {pauses:?}\nlanes {lanes:?}\n\
             store {:?}\nengine ",
            self.engine.store_info()
        );
        text.extend(format!("{:?}", self.engine).chars().take(6000));
        text
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    fn look<T>(&self, look: impl FnOnce(&Engine) -> T) -> T {
        look(&self.engine)
    }
}

impl Runtime {
    /// Operations, tasks or mail. With fixed dice all that can be in flight together
    /// is, before anything completes.
    fn whose_turn(&mut self, weights: &[u64]) -> usize {
        let busy = |kind: &usize| weights.get(*kind).is_some_and(|weight| *weight > 0);
        if self.dice.are_fixed() {
            return [1, 2].into_iter().find(busy).unwrap_or(0);
        }
        self.dice.weighted(weights)
    }

    fn post(&mut self, event: Event) {
        self.mail_out(Mail {
            events: vec![event],
            crcs: Vec::new(),
        });
    }

    fn mail_out(&mut self, what: Mail) {
        let slow = self.lags();
        self.mail.push(Slowly { slow, what });
    }

    fn later(&mut self, what: Task) {
        let slow = self.lags();
        self.tasks.push(Slowly { slow, what });
    }

    fn lags(&mut self) -> bool {
        self.dice.chance(self.habits.laggards, 16)
    }

    /// Gives the engine some of the mail, in any order.
    fn deliver(&mut self) -> Outcome {
        let mut batch = EventBatch::default();
        let most = self
            .mail
            .len()
            .min(if self.dice.chance(1, 4) { 64 } else { 4 });
        for _ in 0..self.dice.between(u64::from(!self.again), most as u64) {
            let index = self.dice.index(self.mail.len());
            if self.mail.get(index).is_some_and(|m| !m.slow) || self.dice.chance(1, LAG) {
                let Mail { events, crcs } = self.mail.swap_remove(index).what;
                batch.append(&mut EventBatch { events, crcs });
            }
        }
        self.again = false;
        let mut effects = std::mem::take(&mut self.effects);
        effects.clear();
        self.engine.step(&mut batch, &mut effects);
        if !batch.is_empty() {
            return Err(Violation::new(
                "a step of the engine left events in the batch",
            ));
        }
        let result = effects.list.drain(..).try_for_each(|effect| {
            let crcs = match &effect {
                snapstore::Effect::ReadFrom { crcs, .. } => crcs.of(&effects.crcs).to_vec(),
                _ => Vec::new(),
            };
            self.accept(effect, crcs)
        });
        self.effects = effects;
        result
    }

    fn is(&self, defect: Defect) -> bool {
        self.habits.defect == Some(defect)
    }
}
