//! The scenarios: each one thing that the engine does, as short as can be.
//!
//! Chunks are 4 KiB. Before the first crash point everything is durable. What stands
//! between two rests is asked for at once.

use snapstore::{Checksum, engine};

use crate::sim::daemon::Kind;
use crate::sim::dice::Order;
use crate::sim::runtime::Habits;
use crate::sim::world::action::Fill;
use crate::sim::world::{Action, Config, Trouble};

use Step::{Close, Do, Rest, Start};

/// Sectors of a chunk.
const CHUNK: u32 = 8;

/// What a scenario is made of.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// This is asked for.
    Do(Action),
    /// All that was asked for ends.
    Rest,
    /// An orderly stop.
    Close,
    /// A start after it.
    Start,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What happens.
    pub about: &'static str,
    /// Sectors of each origin, and of the volume on it.
    volumes: Vec<(u64, u64)>,
    /// The store is to fill.
    full: bool,
    /// What happens before the first crash point.
    pub before: Vec<Step>,
    /// What is exhausted.
    pub steps: Vec<Step>,
}

impl Scenario {
    fn new(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            volumes: vec![(32, 32)],
            full: false,
            before: Vec::new(),
            steps: Vec::new(),
        }
    }

    fn on(mut self, volumes: &[(u64, u64)]) -> Self {
        self.volumes = volumes.to_vec();
        self
    }

    fn after(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        // One thing at a time: only what is exhausted overlaps.
        let apart = steps.into_iter().flat_map(|step| [step, Rest]);
        self.before = apart.collect();
        self
    }

    fn then(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.steps = steps.into_iter().chain([Rest]).collect();
        self
    }

    /// The world it happens in.
    #[must_use]
    pub fn config(&self, order: Order) -> Config {
        Config {
            seed: 1,
            order: Some(order),
            kind: Kind::StandIn,
            chunk_size: CHUNK * 512,
            checksum: Checksum::default(),
            store_blocks: 256,
            journal_blocks: Some(16),
            origins: self.volumes.iter().map(|v| v.0).collect(),
            volumes: self.volumes.iter().map(|v| v.1).collect(),
            engine: engine::Config {
                cache_blocks: 64,
                memtable_records: 64,
                max_run: 4,
                checkpoint_ms: 30_000,
                warn_percent: 80,
            },
            habits: Habits {
                lanes: 2,
                eagerness: [1; 3],
                laggards: 0,
                give_up: 0,
                defect: None,
            },
            trouble: if self.full {
                Trouble::Full
            } else {
                Trouble::None
            },
            sick_recovery: false,
            full_wait: None,
            actions: 0,
            load: 64,
            snapshots: 64,
            hot: u64::MAX,
            weights: Vec::new(),
        }
    }
}

/// A write of these sectors of a volume.
fn sectors(volume: u32, first: u32, len: u32, fua: bool, fill: Fill) -> Step {
    Do(Action::Write {
        volume,
        at: 4 * first,
        len,
        fua,
        fill,
    })
}

/// A write of whole chunks.
fn chunks(volume: u32, first: u32, count: u32) -> Step {
    sectors(volume, first * CHUNK, count * CHUNK, false, Fill::Fresh)
}

fn write(chunk: u32) -> Step {
    chunks(0, chunk, 1)
}

fn durably(chunk: u32) -> Step {
    sectors(0, chunk * CHUNK, CHUNK, true, Fill::Fresh)
}

fn zeroes(chunk: u32) -> Step {
    sectors(0, chunk * CHUNK, CHUNK, false, Fill::Zeroes)
}

fn trim(chunk: u32, count: u32) -> Step {
    Do(Action::Trim {
        volume: 0,
        at: 4 * CHUNK * chunk,
        len: CHUNK * count,
    })
}

/// A take of all volumes.
const TAKE: Step = Do(Action::Take {
    mask: u32::MAX,
    priority: 0,
});
const FLUSH: Step = Do(Action::Flush { volume: 0 });
const CHECKPOINT: Step = Do(Action::Checkpoint);
const GROW: Step = Do(Action::Grow { volume: 0, by: 0 });

/// A deletion of the snapshot at this place in the list, the oldest being 0.
fn delete(snapshot: u32) -> Step {
    Do(Action::Delete { snapshot, count: 1 })
}

fn map(snapshot: u32, mapped: bool) -> Step {
    Do(Action::Map { snapshot, mapped })
}

/// Three snapshots, with chunks that one, two and three of them share.
fn three_snapshots() -> [Step; 6] {
    [TAKE, chunks(0, 0, 2), TAKE, write(0), TAKE, write(0)]
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let mut all = writes();
    all.extend(takes());
    all.extend(deletions());
    all.extend(upkeep());
    all
}

fn writes() -> Vec<Scenario> {
    vec![
        Scenario::new("first-write", "a shared chunk is overwritten, then flushed")
            .after([TAKE])
            .then([write(1), Rest, FLUSH]),
        Scenario::new("neighbours", "two shared chunks in one copyout, then again")
            .after([TAKE])
            .then([write(1), write(2), Rest, chunks(0, 1, 2)]),
        Scenario::new("part-of-a-chunk", "two writes inside one shared chunk")
            .after([TAKE])
            .then([
                sectors(0, 9, 2, false, Fill::Fresh),
                sectors(0, 12, 8, false, Fill::Fresh),
                Rest,
                sectors(0, 8, 1, false, Fill::Fresh),
                FLUSH,
            ]),
        Scenario::new("fua-and-flush", "FUA, plain writes and flushes in turn")
            .after([TAKE])
            .then([
                durably(0),
                Rest,
                write(0),
                Rest,
                durably(1),
                FLUSH,
                write(2),
                Rest,
                FLUSH,
                write(0),
            ]),
        Scenario::new("trim-and-zeroes", "over shared and over unique chunks")
            .after([TAKE, write(1)])
            .then([
                trim(0, 2),
                zeroes(2),
                Rest,
                TAKE,
                Rest,
                trim(1, 1),
                zeroes(1),
            ]),
        Scenario::new(
            "full",
            "the store is full: the victim goes, the write passes",
        )
        .on(&[(1024, 1024)])
        .fills()
        .then((0..8).flat_map(|run| [chunks(0, FILLED + 2 * run, 2), Rest, FLUSH, Rest])),
    ]
}

fn takes() -> Vec<Scenario> {
    vec![
        Scenario::new("take-and-write", "take, write, take, write, write").then([
            TAKE,
            Rest,
            write(0),
            Rest,
            TAKE,
            Rest,
            write(0),
            write(1),
        ]),
        Scenario::new("take-amid-writes", "a take while writes are on their way")
            .after([TAKE])
            .then([write(0), write(1), TAKE, write(0), Rest, write(1)]),
        Scenario::new("group", "one take of two volumes that are being written")
            .on(&[(16, 16), (16, 16)])
            .after([TAKE])
            .then([
                chunks(0, 0, 1),
                chunks(1, 0, 1),
                TAKE,
                chunks(0, 1, 1),
                Rest,
                chunks(1, 0, 1),
            ]),
        Scenario::new("grow", "a volume with part of a chunk at its end grows")
            .on(&[(40, 27)])
            .after([TAKE])
            .then([
                sectors(0, 24, 3, false, Fill::Fresh),
                GROW,
                Rest,
                chunks(0, 3, 2),
                Rest,
                TAKE,
                Rest,
                chunks(0, 3, 2),
            ]),
    ]
}

fn deletions() -> Vec<Scenario> {
    let one = |name, about, which| {
        Scenario::new(name, about).after(three_snapshots()).then([
            delete(which),
            write(1),
            Rest,
            write(0),
        ])
    };
    vec![
        one("delete-oldest", "of three snapshots, and writes go on", 0),
        one("delete-middle", "of three snapshots, and writes go on", 1),
        one("delete-newest", "of three snapshots, and writes go on", 2),
        Scenario::new("reuse", "what a deletion freed is used again")
            .after([TAKE, chunks(0, 0, 3), TAKE])
            .then([
                delete(0),
                Rest,
                CHECKPOINT,
                Rest,
                chunks(0, 0, 2),
                Rest,
                delete(0),
                Rest,
                TAKE,
                write(0),
            ]),
        Scenario::new("volume", "a volume is deleted, its origin served anew")
            .after([TAKE, write(0)])
            .then([
                Do(Action::DeleteVolume { volume: 0 }),
                Rest,
                Do(Action::CreateVolume),
                Rest,
                write(1),
                TAKE,
                Rest,
                write(0),
            ]),
    ]
}

fn upkeep() -> Vec<Scenario> {
    let toggles = |count: u32| (0..count).map(|i| map(0, i % 2 == 0));
    let apart = |count| toggles(count).flat_map(|step| [step, Rest]);
    vec![
        Scenario::new("checkpoint", "commits behind a checkpoint under way")
            .after([TAKE, write(0)])
            .then([write(1), CHECKPOINT, write(2), Rest, write(3)]),
        Scenario::new("settings", "name, priority, policy, mapping")
            .after([TAKE, TAKE, write(0)])
            .then([
                Do(Action::Rename { snapshot: 0 }),
                Rest,
                Do(Action::Priority {
                    snapshot: 1,
                    priority: 2,
                }),
                map(0, true),
                Rest,
                Do(Action::Policy {
                    volume: 0,
                    snapshots_first: true,
                }),
                write(1),
                Rest,
                CHECKPOINT,
            ]),
        Scenario::new("extend", "the store grows with its device, beside writes")
            .after([TAKE])
            .then([
                write(0),
                Do(Action::Extend { by: 512 }),
                write(1),
                Rest,
                CHECKPOINT,
            ]),
        Scenario::new("stop-and-start", "an orderly stop, a start, and on")
            .after([TAKE, write(0)])
            .then([write(1), Close, Start, write(2), Rest, TAKE]),
        Scenario::new("rollover", "the journal's ring comes round")
            .after([TAKE].into_iter().chain(toggles(10)))
            .then(apart(7).chain([write(0)])),
    ]
}

impl Scenario {
    /// Two snapshots, the newer of which nearly fills the store.
    fn fills(mut self) -> Self {
        self.full = true;
        let old = [TAKE, chunks(0, 0, 8), CHECKPOINT, TAKE];
        let runs = (0..FILLED / 8).flat_map(|run| [chunks(0, 8 * run, 8), CHECKPOINT]);
        self.after(old.into_iter().chain(runs))
    }
}

/// Chunks of a volume after which the store has no room for sixteen more.
const FILLED: u32 = 112;
