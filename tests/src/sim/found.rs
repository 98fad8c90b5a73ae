//! What somebody finds who starts csnapd on the disks that a crash left: it depends on
//! the disks alone, so it is worked out once and judged wherever they may come about.

use std::collections::BTreeMap;

use snapstore::engine::{Notice, VolumeInfo};
use snapstore::recover::Recovered;
use snapstore::{Block, BlockDevice, IoError, Tag, VolumeId};

use crate::sim::daemon::Daemon;
use crate::sim::dice::Dice;
use crate::sim::disk::SimDisk;
use crate::sim::disk::sync::SyncDisk;
use crate::sim::oracle::Oracle;
use crate::sim::oracle::ledger::origin_at;
use crate::sim::oracle::reconcile::Inventory;
use crate::sim::recovery;
use crate::sim::runtime::{Answer, Ask, Failure, Habits, Machine, Runtime};
use crate::sim::value::{Data, PER_BLOCK, SECTOR, Value};
use crate::sim::world::Config;
use crate::sim::{Outcome, Violation};

/// Steps and ticks within which every view must have been read.
const PATIENCE: u64 = 20_000;
/// As many more for each read.
const FOR_EACH: u64 = 200;
/// The names of the reads, for the oracle: above those of all clients.
const READS: u64 = 1 << 40;
/// Contents nobody wrote before.
const FRESH: u64 = 1 << 40;

/// How the machine stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The power was cut.
    Power,
    /// The daemon was killed.
    Kill,
    /// It was killed, and the power was cut while it recovered.
    Both,
}

/// A snapshot, or a part of it, as it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct View {
    volume: VolumeId,
    tag: Tag,
    first: u64,
    sectors: u64,
    result: Result<Vec<Data>, Failure>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Found {
    /// The last stop was orderly.
    clean: bool,
    inventory: Inventory,
    origins: Vec<Vec<Value>>,
    views: Vec<View>,
    /// What the engine had to say.
    notices: Vec<Notice>,
    /// Exceptions whose data had not reached the store.
    pub undone: u64,
}

impl Found {
    /// Whether somebody sees no difference.
    #[must_use]
    pub fn looks_like(&self, other: &Self) -> bool {
        (&self.inventory, &self.origins, &self.views)
            == (&other.inventory, &other.origins, &other.views)
    }

    /// Whether the same things are there, and what can be read of them reads as in `whole`.
    #[must_use]
    pub fn reads_as(&self, whole: &Self) -> bool {
        let right = |view: &View| {
            let of = |other: &&View| (other.volume, other.tag) == (view.volume, view.tag);
            let whole = whole.views.iter().find(of);
            let whole = whole.and_then(|whole| whole.result.as_ref().ok());
            let part = view.first as usize..(view.first + view.sectors) as usize;
            match (&view.result, whole) {
                (Ok(data), Some(whole)) => whole.get(part) == Some(data),
                (read, _) => read.is_err(),
            }
        };
        self.origins == whole.origins
            && recovery::named(&self.inventory) == recovery::named(&whole.inventory)
            && self.views.iter().all(right)
    }

    /// Whether the oracle allows it after this loss; afterwards it allows nothing else.
    ///
    /// # Errors
    /// What it does not allow.
    pub fn judge(&self, oracle: &mut Oracle, loss: Loss, closed: bool) -> Outcome {
        if loss != Loss::Power {
            oracle.killed();
        }
        if loss != Loss::Kill {
            oracle.power_cut();
        }
        if closed && !self.clean {
            return Err(Violation::new("an orderly stop needs recovery"));
        }
        oracle.reconcile(&self.inventory, true)?;
        self.notices.iter().try_for_each(|n| oracle.noticed(n))?;
        for (index, values) in self.origins.iter().enumerate() {
            oracle.settled_read(index, values)?;
        }
        self.read_by(oracle)
    }

    /// Whether every snapshot shows what the oracle allows; afterwards it allows nothing
    /// else.
    ///
    /// # Errors
    /// What it does not allow.
    pub fn read_by(&self, oracle: &mut Oracle) -> Outcome {
        for (owner, view) in (READS..).zip(&self.views) {
            let ask = Ask::ReadSnapshot {
                tag: view.tag,
                first: view.first,
                count: view.sectors,
            };
            oracle.submitted(owner, view.volume, &ask);
            oracle.ended(owner, &view.result)?;
        }
        Ok(())
    }
}

/// csnapd on disks that a crash left.
struct Started {
    runtime: Runtime,
    recovered: Recovered,
    inventory: Inventory,
}

fn start(mut machine: Machine, config: &Config, damaged: bool) -> Outcome<Started> {
    let mut dice = config.dice();
    let mut store = SyncDisk::new(&mut machine.store, &mut dice, None);
    let listed = recovery::listed(&mut store)?;
    let (engine, recovered) = recovery::recover(&mut store, &machine.origins, config.engine)?;
    if !damaged {
        recovery::must_be_sound(&mut store, "after recovery")?;
    }
    let inventory = Inventory::of(&engine);
    recovery::same_things(&listed, &inventory)?;
    let habits = Habits {
        defect: None,
        ..config.habits
    };
    let mut runtime = Runtime::start(engine, machine, habits, dice)?;
    for info in live(&inventory) {
        let origin = origin_at(&info.origin);
        let origin = origin.ok_or_else(|| Violation(format!("{info:?} is on no origin")))?;
        runtime.attach(info.id, origin)?;
    }
    Ok(Started {
        runtime,
        recovered,
        inventory,
    })
}

fn live(found: &Inventory) -> impl Iterator<Item = &VolumeInfo> {
    found.volumes.iter().filter(|volume| !volume.deleting)
}

/// Starts csnapd on these disks and looks at everything.
///
/// # Errors
/// When it cannot start, or the store is not sound.
pub fn observe(machine: Machine, config: &Config) -> Outcome<Found> {
    let (found, mut runtime) = look(start(machine, config, false)?, u64::MAX)?;
    let commits = runtime.look(|engine| engine.store_info().counters.commits);
    if commits > 0 {
        must_be_sound(&mut runtime, config, "after all was read")?;
    }
    Ok(found)
}

/// The same of a store that may be damaged, read chunk by chunk.
///
/// # Errors
/// When it cannot start.
pub fn observe_damaged(machine: Machine, config: &Config) -> Outcome<Found> {
    let chunk = u64::from(config.chunk_size) / SECTOR as u64;
    look(start(machine, config, true)?, chunk).map(|(found, _)| found)
}

/// Reads everything, so many sectors at once.
fn look(started: Started, most: u64) -> Outcome<(Found, Runtime)> {
    let Started {
        mut runtime,
        recovered,
        inventory,
    } = started;
    let origins = runtime.machine().origins.iter().map(contents).collect();
    let (views, notices) = read(&mut runtime, &inventory, most)?;
    let found = Found {
        clean: recovery::was_orderly(&recovered),
        inventory,
        origins,
        views,
        notices,
        undone: recovered.dropped + recovered.lost,
    };
    Ok((found, runtime))
}

/// Starts csnapd again on disks where this was found, overwrites all volumes, and cuts
/// the power: the snapshots must not change by that.
///
/// # Errors
/// When they do.
pub fn go_on(machine: Machine, config: &Config, found: &Found) -> Outcome {
    let Started {
        mut runtime,
        inventory,
        ..
    } = start(machine, config, false)?;
    let mut writes = 0;
    for info in live(&inventory) {
        let sectors = info.size / SECTOR as u64;
        let data = (0..sectors).map(|sector| Data::pattern(FRESH + sector));
        let ask = Ask::Write {
            first: 0,
            data: data.collect(),
            fua: false,
        };
        runtime.submit(info.id, ask);
        writes += 1;
    }
    for (_, result) in rest(&mut runtime, writes)?.0 {
        result.map_err(|e| Violation(format!("a write after recovery failed: {e}")))?;
    }
    must_be_sound(&mut runtime, config, "after all was overwritten")?;
    let (views, _) = read(&mut runtime, &inventory, u64::MAX)?;
    let machine = runtime.machine();
    let cut = Machine {
        store: machine.store.durable(),
        origins: machine.origins.iter().map(SimDisk::durable).collect(),
        invalid: Default::default(),
    };
    let later = observe(cut, config)?.views;
    for (when, views) in [("overwritten", views), ("lost", later)] {
        if views != found.views {
            let before = &found.views;
            let what = format!("the volumes were {when}: {before:?} became {views:?}");
            return Err(Violation(what));
        }
    }
    Ok(())
}

fn must_be_sound(runtime: &mut Runtime, config: &Config, when: &str) -> Outcome {
    let (disk, mut dice) = (&mut runtime.machine_mut().store, config.dice());
    recovery::must_be_sound(&mut SyncDisk::new(disk, &mut dice, None), when)
}

fn contents(disk: &SimDisk) -> Vec<Value> {
    let sectors = 0..disk.sectors();
    sectors.map(|sector| disk.visible(sector).value()).collect()
}

/// Reads all snapshots from end to end, so many sectors at once, and lets everything come
/// to rest.
fn read(runtime: &mut Runtime, found: &Inventory, most: u64) -> Outcome<(Vec<View>, Vec<Notice>)> {
    let mut asked = Vec::new();
    let snapshots = live(found).filter_map(|info| found.snapshots.get(&info.id));
    for info in snapshots.flatten() {
        let (volume, tag, end) = (info.volume, info.tag, info.size / SECTOR as u64);
        let mut first = 0;
        while first < end {
            let count = most.min(end - first);
            let owner = runtime.submit(volume, Ask::ReadSnapshot { tag, first, count });
            asked.push((owner, volume, tag, first, count));
            first += count;
        }
    }
    let (mut answers, notices) = rest(runtime, asked.len())?;
    let views = asked
        .into_iter()
        .map(|(owner, volume, tag, first, sectors)| View {
            volume,
            tag,
            first,
            sectors,
            result: answers.remove(&owner).unwrap_or_else(|| Ok(Vec::new())),
        });
    Ok((views.collect(), notices))
}

/// How requests ended.
type Ended = BTreeMap<u64, Result<Vec<Data>, Failure>>;

/// Lets everything come to rest, and `open` requests end.
fn rest(runtime: &mut Runtime, open: usize) -> Outcome<(Ended, Vec<Notice>)> {
    let (mut ended, mut notices) = (Ended::new(), Vec::new());
    for now in 0..PATIENCE + FOR_EACH * open as u64 {
        if ended.len() == open && runtime.idle() {
            return Ok((ended, notices));
        }
        if !runtime.step()? {
            runtime.tick(1_000_000 + 1_000 * now);
        }
        for answer in runtime.answers() {
            match answer {
                Answer::Ended { owner, result } => drop(ended.insert(owner, result)),
                Answer::Notice(Notice::Checkpoint { .. }) | Answer::Reply { .. } => {}
                Answer::Notice(notice) => notices.push(notice),
            }
        }
    }
    Err(Violation(format!("hangs: {}", runtime.describe())))
}

/// Recovers these disks; returns the store as it was before each flush and at the end,
/// with what was not durable then.
///
/// # Errors
/// When it cannot be recovered.
pub fn moments_of_recovery(machine: &mut Machine, config: &Config) -> Outcome<Vec<SimDisk>> {
    let mut store = Watched {
        disk: &mut machine.store,
        dice: config.dice(),
        moments: Vec::new(),
    };
    recovery::recover(&mut store, &machine.origins, config.engine)?;
    let last = store.disk.clone();
    store.moments.push(last);
    Ok(store.moments)
}

/// A store that remembers itself before each flush: whatever a power cut leaves in
/// between, it may leave then.
struct Watched<'a> {
    disk: &'a mut SimDisk,
    dice: Dice,
    moments: Vec<SimDisk>,
}

impl Watched<'_> {
    fn now(&mut self) -> SyncDisk<'_> {
        SyncDisk::new(self.disk, &mut self.dice, None)
    }
}

impl BlockDevice for Watched<'_> {
    fn blocks(&self) -> u64 {
        self.disk.sectors() / PER_BLOCK
    }

    fn read(&mut self, first: u64, out: &mut [Block]) -> Result<(), IoError> {
        self.now().read(first, out)
    }

    fn write(&mut self, first: u64, data: &[Block]) -> Result<(), IoError> {
        self.now().write(first, data)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.moments.push(self.disk.clone());
        self.now().flush()
    }
}
