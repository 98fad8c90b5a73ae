//! Tiny worlds, exhausted: short scenarios on a few chunks and the smallest stores, in
//! which the power is cut, and the daemon killed, at every point there is, with every
//! combination of what was not durable then.
//!
//! - A scenario runs once in each [`Order`] of completion, by the stand-in, without any
//!   dice. Wherever the disks or what the oracle knows has changed is a crash point.
//! - From each the crash states are forked ([`sheet`]): every subset of the pieces of
//!   writes that no flush covers, over all disks together, up to a bound of pieces, and
//!   each piece torn. What a kill may leave is judged by the stricter rules for kills.
//! - Every distinct state of the disks is recovered, checked with its data and read
//!   through once ([`super::found`]); what is found there is judged by the oracle of every
//!   crash point at which the disks may be in that state.
//! - Each different thing found is also gone on with: all volumes are overwritten and the
//!   power is cut again, and no snapshot may change.
//! - From each crash point with everything kept, with nothing kept and after a kill,
//!   recovery is cut off, too, at each of its own crash points.
//!
//! | file | what it holds |
//! |---|---|
//! | [`scenario`] | the scenarios |
//! | [`sheet`] | what may be left of the disks at one moment |

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::defect::Defect;
use super::dice::{Dice, Order};
use super::found::{Found, Loss, go_on, moments_of_recovery, observe};
use super::judge::caught;
use super::oracle::Oracle;
use super::runtime::{Machine, Runtime};
use super::world::{Action, Config, Trouble, World};
use super::{Outcome, Violation};

pub mod scenario;
pub mod sheet;

use scenario::{Scenario, Step};
use sheet::{Kept, Sheet};

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Every subset of so many pieces; of more, those that lack or have at most two.
    pub pieces: usize,
    /// The same inside recovery; of more, those that lack or have one or begin or end
    /// anywhere.
    pub inside: usize,
}

impl Bound {
    /// Every subset of so many pieces, and of a third as many inside recovery.
    #[must_use]
    pub const fn of(pieces: usize) -> Self {
        let inside = pieces / 3;
        Self { pieces, inside }
    }
}

impl Default for Bound {
    fn default() -> Self {
        Self::of(8)
    }
}

/// What one run of a scenario saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Moments at which a crash leaves something else than before.
    pub points: u64,
    /// Of these, moments with more pieces than the bound.
    pub beyond: u64,
    /// The most pieces at any moment.
    pub pieces: usize,
    /// States that crashes left, over all points.
    pub states: u64,
    /// Distinct states of the disks, each recovered, checked and read.
    pub recovered: u64,
    /// Starts of recoveries that were cut off at all of their own points.
    pub cut_off: u64,
    /// Judgements of the oracle.
    pub judged: u64,
    /// Recoveries that found exceptions without their data.
    pub undone: u64,
    /// Snapshots dropped by the run itself.
    pub drops: u64,
    /// Chunks copied out by the run itself.
    pub copied: u64,
    /// Checkpoints of the run itself.
    pub checkpoints: u64,
}

impl Figures {
    /// The heads of the columns that a figure is shown in.
    pub const HEAD: &'static str = "| scenario         | points | beyond | most pieces | states | \
         recovered | cut off | judged |";

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.points += other.points;
        self.beyond += other.beyond;
        self.pieces = self.pieces.max(other.pieces);
        self.states += other.states;
        self.recovered += other.recovered;
        self.cut_off += other.cut_off;
        self.judged += other.judged;
        self.undone += other.undone;
        self.drops += other.drops;
        self.copied += other.copied;
        self.checkpoints += other.checkpoints;
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            points,
            beyond,
            pieces,
            states,
            recovered,
            cut_off,
            judged,
            ..
        } = self;
        write!(
            f,
            "| {points:>6} | {beyond:>6} | {pieces:>11} | {states:>6} | {recovered:>9} | \
             {cut_off:>7} | {judged:>6} |"
        )
    }
}

/// Runs a scenario and exhausts it.
///
/// # Errors
/// The first promise broken, with the state of the disks that broke it.
pub fn explore(
    scenario: &Scenario,
    order: Order,
    bound: Bound,
    defect: Option<Defect>,
) -> Outcome<Figures> {
    let mut config = scenario.config(order);
    config.habits.defect = defect;
    let mut book = Book::new(config.clone(), bound);
    let run = caught(|| run(scenario, config, &mut book));
    let place = |v| {
        let point = book.figures.points;
        let what = format!(
            "{}, {order}, crash point {point}{}: {v}",
            scenario.name, book.place
        );
        Violation(what)
    };
    run.map_err(place)
}

fn run(scenario: &Scenario, config: Config, book: &mut Book) -> Outcome<Figures> {
    let mut world = World::<Runtime>::new(config, false)?;
    world.begin()?;
    for step in &scenario.before {
        make(&mut world, *step, &mut |_, _| Ok(()))?;
    }
    settle_everything(&mut world)?;
    let before = world.stats();
    for step in &scenario.steps {
        let mut look = |world: &World<Runtime>, closed: bool| {
            book.look(world.machine(), world.oracle(), closed)
        };
        make(&mut world, *step, &mut look)?;
    }
    let after = world.stats();
    world.finish()?;
    Ok(Figures {
        drops: after.drops - before.drops,
        copied: after.copied - before.copied,
        checkpoints: after.checkpoints - before.checkpoints,
        ..book.figures
    })
}

/// Looks at a world of which this is true: it was closed in order.
type Look<'a> = &'a mut dyn FnMut(&World<Runtime>, bool) -> Outcome;

fn make(world: &mut World<Runtime>, step: Step, look: Look<'_>) -> Outcome {
    match step {
        Step::Do(action) => world.act(action),
        Step::Rest => world.settle_with(&mut |world| look(world, false)),
        Step::Close => {
            world.close();
            world.settle_with(&mut |world| look(world, false))?;
            look(world, true)
        }
        Step::Start => world.start_again(false),
    }
}

/// Leaves nothing volatile on any disk.
fn settle_everything(world: &mut World<Runtime>) -> Outcome {
    let origins = world.machine().origins.len() as u32;
    for volume in 0..origins {
        world.act(Action::Flush { volume })?;
    }
    world.act(Action::Checkpoint)?;
    world.settle_with(&mut |_| Ok(()))
}

/// All that was found so far, and what was judged.
struct Book {
    config: Config,
    bound: Bound,
    figures: Figures,
    /// The state that is being looked at, for the report.
    place: String,
    founds: Vec<Found>,
    /// Those by the digest of all they show.
    known: HashMap<u64, usize>,
    /// What was found on disks of this digest.
    images: HashMap<u64, usize>,
    /// What may be found when a recovery from there was cut off.
    insides: HashMap<u64, Vec<usize>>,
    /// What was judged since the oracle last heard of something, at its clock.
    judged: HashSet<(usize, Loss, bool)>,
    clock: u64,
    /// The marks of the sheet last looked at.
    marks: Option<(u64, u64, bool)>,
}

impl Book {
    fn new(config: Config, bound: Bound) -> Self {
        Self {
            config,
            bound,
            figures: Figures::default(),
            place: String::new(),
            founds: Vec::new(),
            known: HashMap::new(),
            images: HashMap::new(),
            insides: HashMap::new(),
            judged: HashSet::new(),
            clock: 0,
            marks: None,
        }
    }

    /// A crash point: all states a crash may leave are judged.
    fn look(&mut self, machine: &Machine, oracle: &Oracle, closed: bool) -> Outcome {
        let sheet = Sheet::of(&machine.store, &machine.origins);
        if sheet.is_too_large() {
            return Err(Violation::new("too many pieces: shorten the scenario"));
        }
        if self.clock != oracle.clock() {
            self.clock = oracle.clock();
            self.judged.clear();
            self.marks = None;
        }
        let (cut, kill) = sheet.marks();
        if self.marks == Some((cut, kill, closed)) {
            return Ok(());
        }
        let same = |(old, _, was): (u64, u64, bool)| old == cut && was == closed;
        let only_kills = self.marks.replace((cut, kill, closed)).is_some_and(same);
        self.figures.points += 1;
        self.figures.pieces = self.figures.pieces.max(sheet.pieces());
        self.figures.beyond += u64::from(sheet.pieces() > self.bound.pieces);
        if !only_kills {
            for kept in sheet.cuts(self.bound.pieces) {
                self.state(&sheet, kept, Loss::Power, oracle, closed)?;
            }
            for kept in sheet.extremes() {
                self.inside(sheet.machine(kept), Loss::Power, oracle)?;
            }
        }
        for kept in sheet.kills(self.bound.pieces) {
            self.state(&sheet, kept, Loss::Kill, oracle, closed)?;
        }
        self.inside(killed(machine), Loss::Both, oracle)
    }

    /// One state that a crash may leave.
    fn state(
        &mut self,
        sheet: &Sheet<'_>,
        kept: Kept,
        loss: Loss,
        oracle: &Oracle,
        closed: bool,
    ) -> Outcome {
        self.figures.states += 1;
        let found = self.find(sheet, kept, loss)?;
        self.judge(found, loss, oracle, closed)
            .inspect_err(|_| self.place = place(sheet, kept, loss))
    }

    /// What is found on the disks in this state.
    fn find(&mut self, sheet: &Sheet<'_>, kept: Kept, loss: Loss) -> Outcome<usize> {
        let digest = sheet.digest(kept);
        if let Some(found) = self.images.get(&digest) {
            return Ok(*found);
        }
        let found = caught(|| observe(sheet.machine(kept), &self.config));
        let found = found.inspect_err(|_| self.place = place(sheet, kept, loss))?;
        self.figures.recovered += 1;
        self.figures.undone += u64::from(found.undone > 0);
        let mut text = DefaultHasher::new();
        format!("{found:?}").hash(&mut text);
        let text = text.finish();
        let number = match self.known.get(&text) {
            Some(number) => *number,
            None => {
                if self.config.trouble == Trouble::None {
                    caught(|| go_on(sheet.machine(kept), &self.config, &found))
                        .inspect_err(|_| self.place = place(sheet, kept, loss))?;
                }
                self.founds.push(found);
                self.known.insert(text, self.founds.len() - 1);
                self.founds.len() - 1
            }
        };
        self.images.insert(digest, number);
        Ok(number)
    }

    fn judge(&mut self, found: usize, loss: Loss, oracle: &Oracle, closed: bool) -> Outcome {
        if !self.judged.insert((found, loss, closed)) {
            return Ok(());
        }
        self.figures.judged += 1;
        let mut oracle = oracle.clone();
        self.founds[found].judge(&mut oracle, loss, closed)
    }

    /// Recovery from there is cut off by the power at each of its own crash points.
    fn inside(&mut self, start: Machine, loss: Loss, oracle: &Oracle) -> Outcome {
        let (_, key) = Sheet::of(&start.store, &start.origins).marks();
        let founds = match self.insides.get(&key) {
            Some(founds) => founds.clone(),
            None => {
                let founds = self.cut_off(start)?;
                self.insides.insert(key, founds.clone());
                founds
            }
        };
        for found in founds {
            self.judge(found, loss, oracle, false)
                .inspect_err(|_| self.place = format!(" ({loss:?}, then recovery cut off)"))?;
        }
        Ok(())
    }

    /// Everything that may be found after a recovery that was cut off.
    fn cut_off(&mut self, mut start: Machine) -> Outcome<Vec<usize>> {
        self.figures.cut_off += 1;
        let first = self.whole(&Sheet::of(&start.store, &start.origins))?;
        let moments = moments_of_recovery(&mut start, &self.config)?;
        let (mut founds, mut last) = (Vec::new(), first);
        for store in &moments {
            let sheet = Sheet::of(store, &start.origins);
            for kept in sheet.some_cuts(self.bound.inside) {
                let found = self.find(&sheet, kept, Loss::Both)?;
                if !founds.contains(&found) {
                    founds.push(found);
                }
            }
            last = self.whole(&sheet)?;
        }
        // What a recovery served, the next one serves.
        let (first, last) = (&self.founds[first], &self.founds[last]);
        if !first.looks_like(last) {
            let what = format!("recovered twice: first {first:?}, then {last:?}");
            return Err(Violation(what));
        }
        Ok(founds)
    }

    /// What is found on these disks if nothing of them is lost.
    fn whole(&mut self, sheet: &Sheet<'_>) -> Outcome<usize> {
        let [everything, _] = sheet.extremes();
        self.find(sheet, everything, Loss::Kill)
    }
}

fn place(sheet: &Sheet<'_>, kept: Kept, loss: Loss) -> String {
    format!(" ({loss:?}, {kept} of {} pieces)", sheet.pieces())
}

/// The machine after a kill: all in flight has landed, nothing more is durable.
fn killed(machine: &Machine) -> Machine {
    let mut machine = machine.clone();
    let dice = &mut Dice::fixed(Order::Forward);
    machine.store.kill(dice);
    machine.origins.iter_mut().for_each(|disk| disk.kill(dice));
    machine
}
