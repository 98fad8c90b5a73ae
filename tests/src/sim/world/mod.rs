//! A world: disks, runtime, engine and oracle, driven by actions.
//!
//! [`World::run`] rolls its own actions; [`World::script`] plays given ones.
//! Either ends by settling, comparing everything and closing in good order.
//! Virtual steps are the clock: what does not end within a bound hangs.

use snapstore::create::{CreateOptions, create};
use snapstore::engine::Notice;
use snapstore::recover::load;

use super::daemon::{Daemon, Tally};
use super::dice::Dice;
use super::disk::SimDisk;
use super::disk::sync::{SyncDisk, SyncOrigins};
use super::oracle::Oracle;
use super::runtime::{Answer, Machine};
use super::value::{Data, PER_BLOCK, Value};
use super::{Outcome, Violation};

pub mod action;
mod apply;
mod compare;
pub mod config;
mod crash;

pub use action::Action;
pub use config::{Config, Trouble};

/// Steps within which everything in flight must end once nothing new comes.
const SETTLE_STEPS: u64 = 300_000;
/// Steps within which a request must end under load.
const PATIENCE: u64 = 400_000;
/// Ticks of a second in which a stalled world must move again.
const STALL_TICKS: u64 = 120;

/// What a world saw, for the summary.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Worlds.
    pub worlds: u64,
    /// Actions applied.
    pub actions: u64,
    /// Virtual steps.
    pub steps: u64,
    /// Power cuts and kills, those inside recovery included.
    pub crashes: u64,
    /// I/O errors given.
    pub faults: u64,
    /// Snapshots taken.
    pub takes: u64,
    /// Volumes asked to grow.
    pub grown: u64,
    /// Chunks copied out.
    pub copied: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Whole-store checks.
    pub checks: u64,
    /// Snapshots the engine dropped.
    pub drops: u64,
    /// Chunks that were lost to their snapshots.
    pub lost: u64,
    /// Exceptions that recovery found without their data.
    pub undone: u64,
    /// What lanes met.
    pub lanes: Tally,
}

impl Stats {
    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.actions += other.actions;
        self.steps += other.steps;
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.takes += other.takes;
        self.grown += other.grown;
        self.copied += other.copied;
        self.checkpoints += other.checkpoints;
        self.checks += other.checks;
        self.drops += other.drops;
        self.lost += other.lost;
        self.undone += other.undone;
        self.lanes.add(&other.lanes);
    }
}

/// A world. See the module.
#[derive(Debug)]
pub struct World<D> {
    config: Config,
    dice: Dice,
    runtime: D,
    oracle: Oracle,
    stamp: u64,
    names: u64,
    now_ms: u64,
    /// Actions so far, for the report of a violation.
    history: Vec<Action>,
    /// Print what happens as it happens.
    trace: bool,
    stats: Stats,
}

impl<D: Daemon> World<D> {
    /// Makes the disks and the store, with nothing on it.
    ///
    /// # Errors
    /// When an empty store cannot be made and opened.
    pub fn new(config: Config, trace: bool) -> Outcome<Self> {
        let mut dice = Dice::new(config.seed);
        let mut stamp = 1;
        let origins = config
            .origins
            .iter()
            .map(|n| filled(*n, &mut stamp))
            .collect::<Vec<_>>();
        let values = origins.iter().map(contents).collect();
        let store = SimDisk::new(config.store_blocks * PER_BLOCK);
        let mut machine = Machine {
            store,
            origins,
            invalid: Default::default(),
        };
        let options = CreateOptions {
            uuid: [7; 16],
            chunk_size: config.chunk_size,
            checksum: config.checksum,
            created_ms: 1,
            journal_blocks: config.journal_blocks,
        };
        let wrong = |what, error| Violation(format!("an empty store cannot be {what}: {error}"));
        let mut store = SyncDisk::new(&mut machine.store, &mut dice, None);
        create(&mut store, &options).map_err(|e| wrong("made", e))?;
        let loaded = load(&mut store).map_err(|e| wrong("loaded", e))?;
        let mut nothing = SyncOrigins {
            disks: Default::default(),
            chunk: 1,
        };
        let recovered = loaded.recover(&mut store, &mut nothing, config.engine);
        let (engine, _) = recovered.map_err(|e| wrong("recovered", e))?;
        let runtime = D::start(engine, machine, config.habits, dice.fork())?;
        let oracle = Oracle::new(values, config.allow());
        let stats = Stats {
            worlds: 1,
            ..Stats::default()
        };
        Ok(Self {
            config,
            dice,
            runtime,
            oracle,
            stamp,
            names: 0,
            now_ms: 1_000,
            history: Vec::new(),
            trace,
            stats,
        })
    }

    /// Lives the life the seed says.
    ///
    /// # Errors
    /// The first promise broken.
    pub fn run(&mut self) -> Outcome {
        for _ in 0..self.config.origins.len() {
            self.apply(Action::CreateVolume)?;
        }
        self.settle()?;
        for _ in 0..self.config.actions {
            let action = Action::roll(&mut self.dice, &self.config.weights);
            self.apply(action)?;
        }
        self.finish()
    }

    /// Plays these actions.
    ///
    /// # Errors
    /// The first promise broken.
    pub fn script(&mut self, actions: &[Action]) -> Outcome {
        for _ in 0..self.config.origins.len() {
            self.apply(Action::CreateVolume)?;
        }
        self.settle()?;
        actions.iter().try_for_each(|action| self.apply(*action))?;
        self.finish()
    }

    /// What was seen.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        stats.steps = self.runtime.steps();
        stats.actions = self.history.len() as u64;
        stats.lanes = self.runtime.tally();
        stats
    }

    /// The actions so far.
    #[must_use]
    pub fn history(&self) -> &[Action] {
        &self.history
    }

    fn finish(&mut self) -> Outcome {
        self.quiet_disks();
        self.apply(Action::Compare)?;
        self.apply(Action::Reopen { power: true })?;
        self.apply(Action::Compare)?;
        self.empty()?;
        self.apply(Action::Reopen { power: true })
    }

    /// Lets the runtime make `steps` steps.
    fn pump(&mut self, steps: u64) -> Outcome {
        for _ in 0..steps {
            if self.dice.chance(1, 40) {
                self.tick(100);
            }
            if !self.runtime.step()? {
                return Ok(());
            }
            self.collect()?;
        }
        match self.runtime.oldest() {
            Some((born, request)) if born + PATIENCE < self.runtime.steps() => Err(Violation(
                format!("not answered under load: {request}\n{}", self.hang()),
            )),
            _ => Ok(()),
        }
    }

    /// Waits until nothing is in flight. Nothing new may come meanwhile.
    fn settle(&mut self) -> Outcome {
        let end = self.runtime.steps() + SETTLE_STEPS;
        let mut stalled = 0;
        while !self.settled() {
            if self.runtime.steps() > end {
                return Err(Violation(format!("does not come to rest: {}", self.hang())));
            }
            if self.runtime.step()? {
                self.collect()?;
                continue;
            }
            stalled += 1;
            if stalled > STALL_TICKS {
                return Err(Violation(format!("hangs: {}", self.hang())));
            }
            self.tick(1_000);
        }
        Ok(())
    }

    fn settled(&mut self) -> bool {
        self.runtime.idle() && self.oracle.open() == 0 && self.oracle.pending() == 0
    }

    fn hang(&self) -> String {
        let oldest = self.runtime.oldest();
        format!("oldest request {oldest:?}\n{}", self.runtime.describe())
    }

    fn tick(&mut self, ms: u64) {
        self.now_ms += ms;
        self.runtime.tick(self.now_ms);
    }

    /// Hands what the runtime answered to the oracle.
    fn collect(&mut self) -> Outcome {
        for answer in self.runtime.answers() {
            self.note(|| format!("    {answer:?}"));
            match answer {
                Answer::Ended { owner, result } => self.oracle.ended(owner, &result)?,
                Answer::Reply { id, result } => {
                    self.oracle.replied(id, &result)?;
                    self.serve_volumes(&result)?;
                }
                Answer::Notice(notice) => {
                    self.stats.drops += u64::from(matches!(notice, Notice::SnapshotDropped { .. }));
                    self.stats.lost += u64::from(matches!(notice, Notice::ChunkLost { .. }));
                    self.oracle.noticed(&notice)?;
                }
            }
        }
        Ok(())
    }

    #[allow(clippy::print_stderr)] // a trace is what was asked for
    fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            let text: String = what().chars().take(9000).collect();
            eprintln!("{:>7} {text}", self.runtime.steps());
        }
    }
}

fn filled(sectors: u64, stamp: &mut u64) -> SimDisk {
    let mut disk = SimDisk::new(sectors);
    for sector in 0..sectors {
        disk.plant(sector, Data::pattern(*stamp));
        *stamp += 1;
    }
    disk
}

fn contents(disk: &SimDisk) -> Vec<Value> {
    (0..disk.sectors())
        .map(|sector| disk.visible(sector).value())
        .collect()
}
