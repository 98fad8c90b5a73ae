//! The shape of a world: sizes, habits and trouble, all from its seed. Small on
//! purpose: rings wrap, caches miss and stores fill within a few hundred writes.

use snapstore::{Checksum, engine};

use crate::sim::daemon::Kind;
use crate::sim::defect::Defect;
use crate::sim::dice::{Dice, Order};
use crate::sim::oracle::Allow;
use crate::sim::runtime::Habits;

/// What may go wrong besides crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing: every error is a violation.
    None,
    /// The store is tiny and fills.
    Full,
    /// Store I/O fails now and then, or for good.
    Store,
    /// Origin sectors cannot be read.
    OriginReads,
    /// Origin writes and flushes fail now and then.
    OriginWrites,
    /// Blocks of the store at rest are damaged.
    Rot,
}

/// A world's shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Of all the dice.
    pub seed: u64,
    /// Nothing is left to the dice: in which order things complete.
    pub order: Option<Order>,
    /// What runs the engine.
    pub kind: Kind,
    /// Bytes in a chunk.
    pub chunk_size: u32,
    /// What covers the data copied to the store.
    pub checksum: Checksum,
    /// Blocks of the store.
    pub store_blocks: u64,
    /// Blocks of its journal; `None` lets the engine choose.
    pub journal_blocks: Option<u64>,
    /// Sectors of each origin.
    pub origins: Vec<u64>,
    /// Sectors of the volume made on each, so that some can grow.
    pub volumes: Vec<u64>,
    /// How the engine is tuned.
    pub engine: engine::Config,
    /// How the runtime behaves.
    pub habits: Habits,
    /// What goes wrong.
    pub trouble: Trouble,
    /// The store also fails while it is being recovered.
    pub sick_recovery: bool,
    /// How long writes wait for room where snapshots come first, in seconds.
    pub full_wait: Option<u32>,
    /// Actions before the end.
    pub actions: u64,
    /// Most requests in flight.
    pub load: usize,
    /// Most snapshots of a volume.
    pub snapshots: usize,
    /// Sectors at the front of each volume where most requests go.
    pub hot: u64,
    /// Weight of each kind of action.
    pub weights: Vec<u64>,
}

impl Config {
    /// The shape of the world `seed`, whatever runs it.
    fn of_seed(seed: u64) -> Self {
        let dice = &mut Dice::new(seed ^ 0xc0f1_6c0f);
        let trouble = match dice.below(10) {
            0 | 1 => Trouble::Full,
            2 => Trouble::Store,
            3 => Trouble::OriginReads,
            4 => Trouble::OriginWrites,
            _ => Trouble::None,
        };
        let chunk_size = 4096 << dice.pick(&[0, 0, 0, 1, 1, 2, 2, 4]);
        let chunk = u64::from(chunk_size) / 512;
        let volumes = dice.pick(&[1, 1, 1, 2, 2, 3]);
        let origins = (0..volumes)
            .map(|_| origin(dice, chunk))
            .collect::<Vec<_>>();
        let held: u64 = origins.iter().sum::<u64>() / 8;
        let snapshots = dice.pick(&[2, 4, 8, 12]);
        let mut config = Self {
            seed,
            order: None,
            kind: Kind::StandIn,
            chunk_size,
            checksum: Checksum::default(),
            store_blocks: match trouble {
                Trouble::Full => 660 + held * dice.between(0, 1),
                _ => 1024 + 2 * held * (snapshots as u64 + 2),
            },
            journal_blocks: dice.pick(&[Some(16), Some(16), Some(24), Some(64), None]),
            origins,
            volumes: Vec::new(),
            engine: engine::Config {
                cache_blocks: dice.pick(&[8, 16, 64, 1024]),
                memtable_records: dice.pick(&[8, 16, 64, 1024]),
                max_run: dice.pick(&[1, 4, 16, 64]),
                checkpoint_ms: dice.pick(&[200, 5_000, 30_000]),
                warn_percent: 80,
            },
            habits: habits(dice),
            trouble,
            sick_recovery: false,
            full_wait: None,
            actions: dice.between(50, 600),
            load: dice.pick(&[1, 4, 16, 48]),
            snapshots,
            hot: chunk * dice.pick(&[2, 6, 16, 1 << 20]),
            weights: super::action::weights(dice),
        };
        if trouble == Trouble::Full {
            config.fill(chunk);
        }
        // Not in all, so that what a seed was known for stays.
        if seed % 4 == 3 {
            super::action::extend(&mut config.weights);
        }
        let dice = &mut Dice::new(seed ^ 0x6702_77ed);
        let grows = seed % 8 == 6;
        if grows {
            super::action::grow(&mut config.weights);
        }
        let first = |size: &u64| match dice.below(2) {
            0 if !grows => *size,
            _ => dice.between(size / 2, *size),
        };
        config.volumes = config.origins.iter().map(first).collect();
        config.checksum = Dice::new(seed ^ 0x0bad_5eed).pick(&Checksum::ALL);
        config
    }

    /// Makes a store too small for what is written: long writes everywhere, many
    /// snapshots, few deletions.
    fn fill(&mut self, chunk: u64) {
        self.origins
            .iter_mut()
            .for_each(|size| *size = (*size).max(1600).max(24 * chunk));
        self.hot = u64::MAX;
        self.snapshots = 12;
        self.load = self.load.max(16);
        self.actions += 300;
        super::action::fill_up(&mut self.weights);
    }

    /// The world `seed` of a kind.
    #[must_use]
    pub fn of_kind(seed: u64, kind: Kind) -> Self {
        let mut config = Self::sound(seed, kind);
        let dice = &mut Dice::new(seed ^ 0x0007_207e);
        if config.trouble == Trouble::None && dice.chance(1, 5) {
            config.trouble = Trouble::Rot;
            config.weights[18] = 12;
        }
        config.sick_recovery = dice.chance(1, 8);
        if config.trouble == Trouble::Full && dice.chance(1, 3) {
            config.full_wait = Some(dice.pick(&[1, 5, 20]));
            config.weights[11] = 6;
        }
        // Dice of its own, so that what all other seeds are known for stays.
        if config.trouble == Trouble::Full && Dice::new(seed ^ 0x0401_d5ed).chance(1, 3) {
            config = config.with_holds();
        }
        config
    }

    /// The same, but without what came later: disks that lie, recoveries disturbed, writes
    /// that wait for room, snapshots held where the store fills.
    fn sound(seed: u64, kind: Kind) -> Self {
        let mut config = Self::of_seed(seed);
        config.kind = kind;
        if kind == Kind::Lanes {
            config.habits.lanes = 2 + (seed % 3) as usize;
        }
        config
    }

    /// The same without trouble: every error counts.
    #[must_use]
    pub fn peaceful(seed: u64, kind: Kind) -> Self {
        let mut config = Self::sound(seed, kind);
        if config.trouble == Trouble::Full {
            config.store_blocks *= 32;
        }
        config.trouble = Trouble::None;
        config
    }

    /// The same in which snapshots are held.
    #[must_use]
    pub fn with_holds(mut self) -> Self {
        super::action::hold(&mut self.weights);
        self
    }

    /// The same on short volumes that end with part of a chunk, with many takes and power
    /// cuts: many a copy that a cut tears is that of a last chunk.
    #[must_use]
    pub fn ragged(mut self) -> Self {
        let chunk = u64::from(self.chunk_size) / 512;
        for (origin, volume) in self.origins.iter_mut().zip(&mut self.volumes) {
            *volume = chunk + 1 + *volume % (chunk - 1);
            *origin = (*origin).max(*volume);
        }
        self.prefer(&[(6, 20), (7, 20), (17, 8)]);
        self
    }

    /// The same on two volumes of sixteen chunks, where some operations take long: for
    /// scripts of what happens beside them.
    #[must_use]
    pub fn paired(mut self) -> Self {
        let size = 16 * u64::from(self.chunk_size) / 512;
        self.origins = vec![size; 2];
        self.volumes = vec![size; 2];
        self.store_blocks = self.store_blocks.max(1024 + 2 * size);
        self.habits.laggards = 4;
        self.habits.give_up = 0;
        self.load = self.load.max(48);
        self
    }

    fn prefer(&mut self, weights: &[(usize, u64)]) {
        for (kind, weight) in weights {
            self.weights[*kind] = *weight;
        }
    }

    /// The same with a planted defect.
    #[must_use]
    pub fn with_defect(mut self, defect: Defect) -> Self {
        self.habits.defect = Some(defect);
        self
    }

    /// What decides everything in the world.
    #[must_use]
    pub fn dice(&self) -> Dice {
        self.order.map_or_else(|| Dice::new(self.seed), Dice::fixed)
    }

    /// The errors that are legal here.
    #[must_use]
    pub fn allow(&self) -> Allow {
        Allow {
            full: self.trouble == Trouble::Full,
            store_errors: self.trouble == Trouble::Store,
            origin_reads: self.trouble == Trouble::OriginReads,
            origin_writes: self.trouble == Trouble::OriginWrites,
            give_up: self.habits.give_up > 0,
            ..Allow::default()
        }
    }
}

/// Sectors of an origin: a few chunks to a few hundred, not always whole ones.
fn origin(dice: &mut Dice, chunk: u64) -> u64 {
    let whole = dice.pick(&[8, 24, 40, 96, 200]) * chunk.min(32);
    let whole = whole.max(4 * chunk);
    if dice.chance(1, 3) {
        whole + dice.between(1, chunk - 1)
    } else {
        whole
    }
}

fn habits(dice: &mut Dice) -> Habits {
    Habits {
        lanes: dice.pick(&[1, 2, 4]),
        eagerness: [(); 3].map(|()| dice.pick(&[1, 2, 4, 16])),
        laggards: dice.pick(&[0, 0, 1, 4]),
        give_up: dice.pick(&[0, 0, 0, 50]),
        defect: None,
    }
}
