//! What every view may show, kept the naive way: arrays of sectors.
//!
//! - An origin sector may read as any write not yet superseded, and after a power
//!   cut as any write since the last one known durable ([`origin`]).
//! - A snapshot sector may read as any value the origin may have held between the
//!   request of the take and its reply; once seen it never changes ([`image`]).
//!   All sectors of all volumes of one take are of one moment (`instant`).
//! - Commands acknowledged hold through everything; those a crash cut off may have
//!   happened or not, but whole ([`ledger`], [`reconcile`]).
//!
//! The oracle knows nothing of chunks, stores or journals. Which errors are
//! legal depends on the trouble the world makes ([`Allow`]), and which old contents
//! may be gone on what it damaged ([`damage`]).

use std::collections::{BTreeMap, BTreeSet};

use snapstore::engine::{Command, DropReason, Policy};
use snapstore::ids::CommandId;
use snapstore::{Tag, VolumeId};

use super::Outcome;
use super::value::{SECTOR, Value};

pub mod damage;
pub mod image;
mod instant;
pub mod ledger;
pub mod origin;
pub mod reconcile;
mod requests;

use damage::Damage;
use image::{Choice, Snapshot};
use instant::Instant;
use origin::OriginModel;
use requests::Open;

/// The trouble a world makes, which makes some errors legal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allow {
    /// The store may run out of space.
    pub full: bool,
    /// Store I/O fails.
    pub store_errors: bool,
    /// Origin reads fail.
    pub origin_reads: bool,
    /// Origin writes or flushes fail.
    pub origin_writes: bool,
    /// Pauses are given up.
    pub give_up: bool,
    /// The engine was told to close.
    pub closing: bool,
}

/// A volume as the commands made it.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Which origin disk it is.
    pub origin: usize,
    /// Sectors.
    pub size: u64,
    /// Full-store policy.
    pub policy: Policy,
    /// Its snapshots.
    pub snapshots: BTreeMap<Tag, Snapshot>,
    /// Its deletion was asked for.
    pub deleting: bool,
}

/// A take asked for and not answered: what it may catch.
#[derive(Clone, Debug)]
struct Take {
    /// The highest tag known when it was asked for: its own must be higher.
    after: Tag,
    images: BTreeMap<VolumeId, Image>,
    instant: Instant,
}

/// What a take may catch of one volume.
#[derive(Clone, Debug, Default)]
struct Image {
    /// Sectors the volume had when it was asked for.
    least: u64,
    /// What each may show; more of them if the volume may have grown by the reply.
    sectors: Vec<Choice>,
}

/// The oracle. See the module.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// Which errors are legal.
    pub allow: Allow,
    /// The volumes.
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// What damage may have cost.
    pub damage: Damage,
    origins: Vec<OriginModel>,
    clock: u64,
    open: BTreeMap<u64, Open>,
    takes: BTreeMap<CommandId, Take>,
    /// When each take may have happened.
    instants: BTreeMap<Tag, Instant>,
    /// Commands not answered.
    pending: BTreeMap<CommandId, Command>,
    /// Commands whose effect is unknown: a crash or an error cut them off.
    maybe: Vec<(Command, Option<Take>)>,
    gone: BTreeSet<(VolumeId, Tag)>,
    /// Dropped before the reply to their take was heard.
    dropped: BTreeMap<(VolumeId, Tag), DropReason>,
    gone_volumes: BTreeSet<VolumeId>,
    highest: Tag,
}

impl Oracle {
    /// An oracle of origins with these contents.
    #[must_use]
    pub fn new(origins: Vec<Vec<Value>>, allow: Allow) -> Self {
        let origins = origins.into_iter().map(OriginModel::new).collect();
        Self {
            allow,
            origins,
            clock: 1,
            ..Self::default()
        }
    }

    /// The power was cut: requests are gone, disks may have lost what was volatile.
    pub fn power_cut(&mut self) {
        let now = self.tick();
        self.origins.iter_mut().for_each(|o| o.power_cut(now));
        self.cut_off();
    }

    /// The daemon was killed: requests are gone, disks keep what they had.
    pub fn killed(&mut self) {
        let now = self.tick();
        self.origins.iter_mut().for_each(|o| o.killed(now));
        self.cut_off();
    }

    /// Grows with everything the oracle hears of.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Commands asked for and not answered.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The sectors a volume will have, or may, for all that is known.
    #[must_use]
    pub fn growing(&self, id: VolumeId) -> Option<u64> {
        let commands = self.pending.values().chain(self.maybe.iter().map(|m| &m.0));
        let sizes = commands.filter_map(|command| match command {
            Command::ResizeVolume { volume, size } if *volume == id => Some(size / SECTOR as u64),
            _ => None,
        });
        sizes.max()
    }

    /// Requests asked for and not answered.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Whether a request on this volume is open.
    #[must_use]
    pub fn busy(&self, volume: VolumeId) -> bool {
        self.open.values().any(|o| o.volume == volume)
    }

    /// What the settled origin read as: from now on it is that.
    ///
    /// # Errors
    /// When it may not hold that.
    pub fn settled_read(&mut self, origin: usize, values: &[Value]) -> Outcome {
        let now = self.tick();
        match self.origins.get_mut(origin) {
            Some(model) => model.settle(origin, values, now),
            None => Ok(()),
        }
    }

    fn cut_off(&mut self) {
        self.open.clear();
        self.allow.closing = false;
        for (id, command) in std::mem::take(&mut self.pending) {
            let take = self.takes.remove(&id);
            self.maybe.push((command, take));
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}
