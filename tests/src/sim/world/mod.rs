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
mod atlas;
mod compare;
pub mod config;
mod crash;
mod extend;
mod gap;
mod ring;
mod rot;

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
    /// Orderly stops.
    pub stops: u64,
    /// I/O errors given.
    pub faults: u64,
    /// Snapshots taken.
    pub takes: u64,
    /// Volumes asked to grow.
    pub grown: u64,
    /// Times the store became larger.
    pub extended: u64,
    /// Snapshots asked to be held.
    pub held: u64,
    /// Chunks copied out.
    pub copied: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Whole-store checks.
    pub checks: u64,
    /// Snapshots the engine dropped.
    pub drops: u64,
    /// Volumes whose writes waited for room.
    pub waited: u64,
    /// Chunks that were lost to their snapshots.
    pub lost: u64,
    /// Exceptions that recovery found without their data.
    pub undone: u64,
    /// Blocks of a store at rest that were damaged.
    pub rotten: u64,
    /// Checks that named damage.
    pub named: u64,
    /// Reads that failed because of damage.
    pub unreadable: u64,
    /// Journal blocks and newest superblocks that were damaged in a copy of the disks.
    pub doubted: u64,
    /// Stores refused for one of them.
    pub refused: u64,
    /// Recoveries during which the store failed.
    pub disturbed: u64,
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
        self.stops += other.stops;
        self.faults += other.faults;
        self.takes += other.takes;
        self.grown += other.grown;
        self.extended += other.extended;
        self.held += other.held;
        self.copied += other.copied;
        self.checkpoints += other.checkpoints;
        self.checks += other.checks;
        self.drops += other.drops;
        self.waited += other.waited;
        self.lost += other.lost;
        self.undone += other.undone;
        self.rotten += other.rotten;
        self.named += other.named;
        self.unreadable += other.unreadable;
        self.doubted += other.doubted;
        self.refused += other.refused;
        self.disturbed += other.disturbed;
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
    /// How large the store is, and may be.
    store: extend::StoreSize,
    /// How the store lies.
    rot: rot::Rot,
    /// The store as the last stop left it.
    stopped: Option<SimDisk>,
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
        let mut dice = config.dice();
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
        let store = extend::StoreSize::new(config.store_blocks);
        let rot = rot::Rot::new(config.seed);
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
            store,
            rot,
            stopped: None,
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
        self.begin()?;
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
        self.begin()?;
        actions.iter().try_for_each(|action| self.apply(*action))?;
        self.finish()
    }

    /// Makes a volume on every origin.
    ///
    /// # Errors
    /// When that fails.
    pub fn begin(&mut self) -> Outcome {
        for _ in 0..self.config.origins.len() {
            self.apply(Action::CreateVolume)?;
        }
        self.settle()
    }

    /// Sets one action going.
    ///
    /// # Errors
    /// The promise it broke at once.
    pub fn act(&mut self, action: Action) -> Outcome {
        self.apply(action)
    }

    /// The disks.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        self.runtime.machine()
    }

    /// What every view may show now.
    #[must_use]
    pub fn oracle(&self) -> &Oracle {
        &self.oracle
    }

    /// What was seen.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        let counters = self.runtime.look(|engine| engine.store_info()).counters;
        stats.copied += counters.chunks_copied;
        stats.checkpoints += counters.checkpoints;
        stats.steps = self.runtime.steps();
        stats.actions = self.history.len() as u64;
        stats.lanes = self.runtime.tally();
        stats.unreadable = self.oracle.damage.failed;
        stats
    }

    /// The actions so far.
    #[must_use]
    pub fn history(&self) -> &[Action] {
        &self.history
    }

    /// Compares everything, twice after a stop, repairs the store if it was damaged, and
    /// deletes all snapshots.
    ///
    /// # Errors
    /// The first promise broken.
    pub fn finish(&mut self) -> Outcome {
        self.quiet_disks();
        self.apply(Action::Compare)?;
        self.apply(Action::Reopen { power: true })?;
        self.apply(Action::Compare)?;
        self.mend()?;
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
        self.settle_with(&mut |_| Ok(()))
    }

    /// The same; `look` sees the world after every step.
    ///
    /// # Errors
    /// When it does not come to rest, a promise was broken, or `look` says so.
    pub fn settle_with(&mut self, look: &mut dyn FnMut(&Self) -> Outcome) -> Outcome {
        let end = self.runtime.steps() + SETTLE_STEPS;
        let mut stalled = 0;
        while !self.settled() {
            if self.runtime.steps() > end {
                return Err(Violation(format!("does not come to rest: {}", self.hang())));
            }
            if self.runtime.step()? {
                self.collect()?;
                look(self)?;
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
                    self.extension_answered(id, &result)?;
                    self.serve_volumes(&result)?;
                }
                Answer::Notice(notice) => {
                    self.stats.drops += u64::from(matches!(notice, Notice::SnapshotDropped { .. }));
                    self.stats.waited += u64::from(matches!(notice, Notice::WaitsForRoom { .. }));
                    // Two reads that fail are damage; a repair brings back what it leaks.
                    let damage = matches!(notice, Notice::Damage { .. });
                    self.rot.there |= damage && self.config.trouble == Trouble::Store;
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
