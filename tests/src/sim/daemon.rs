//! What a world needs of the daemon it runs. The stand-in of [`super::runtime`] is
//! one, the real lanes of [`super::lanes`] are another.
//!
//! A daemon owns the disks, because it alone submits to them; it moves one thing at
//! a time when told to, and never of itself.

use snapstore::engine::Command;
use snapstore::ids::CommandId;
use snapstore::{Engine, VolumeId};

use super::Outcome;
use super::dice::Dice;
use super::runtime::{Answer, Ask, Habits, Machine};

/// Which of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// [`super::runtime::Runtime`]: faster, and freer than the real one.
    #[default]
    StandIn,
    /// [`super::lanes::Threads`]: the lanes, the core and the mail of csnapd.
    Lanes,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::StandIn => "stand-in",
            Self::Lanes => "lanes",
        })
    }
}

/// Whether what is worth seeing was seen; only the real lanes count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Origin changes no engine was asked about.
    pub straight: u64,
    /// Lanes that found another one in the engine.
    pub met: u64,
    /// Letters with effects for another lane.
    pub letters: u64,
    /// Pauses that found changes in flight on a lane.
    pub drained: u64,
    /// Grants of an epoch that had passed.
    pub stale: u64,
    /// Transfers that came back short or interrupted.
    pub broken: u64,
    /// Zeroings and trims the device did not know.
    pub unknown: u64,
}

impl Tally {
    /// Its fields.
    #[must_use]
    pub fn all(&self) -> [u64; 7] {
        [
            self.straight,
            self.met,
            self.letters,
            self.drained,
            self.stale,
            self.broken,
            self.unknown,
        ]
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        self.straight += other.straight;
        self.met += other.met;
        self.letters += other.letters;
        self.drained += other.drained;
        self.stale += other.stale;
        self.broken += other.broken;
        self.unknown += other.unknown;
    }
}

/// The engine and everything around it.
pub trait Daemon: Sized {
    /// Serves `engine` on `machine`.
    ///
    /// # Errors
    /// When it cannot start.
    fn start(engine: Engine, machine: Machine, habits: Habits, dice: Dice) -> Outcome<Self>;

    /// A new daemon: what the old one had under way is forgotten.
    ///
    /// # Errors
    /// When it cannot start.
    fn restart(&mut self, engine: Engine) -> Outcome;

    /// Puts a volume in service on an origin.
    ///
    /// # Errors
    /// When the engine does not know the volume.
    fn attach(&mut self, volume: VolumeId, origin: usize) -> Outcome;

    /// Takes all volumes but these out of service.
    fn keep_attached(&mut self, keep: impl Fn(VolumeId) -> bool);

    /// A client's request; answered by [`Answer::Ended`].
    fn submit(&mut self, volume: VolumeId, ask: Ask) -> u64;

    /// A person's command; answered by [`Answer::Reply`].
    fn command(&mut self, command: Command) -> CommandId;

    /// Tells the engine the time.
    fn tick(&mut self, now_ms: u64);

    /// Moves one thing. `false` if there was nothing to move.
    ///
    /// # Errors
    /// When a contract is broken.
    fn step(&mut self) -> Outcome<bool>;

    /// Steps made.
    fn steps(&self) -> u64;

    /// What was answered since the last call.
    fn answers(&mut self) -> Vec<Answer>;

    /// Nothing waits and nothing is in flight (requests may still be stuck).
    fn idle(&mut self) -> bool;

    /// The oldest request not answered, for the report of a hang.
    fn oldest(&self) -> Option<(u64, String)>;

    /// What is waiting, for the report of a hang.
    fn describe(&self) -> String;

    /// The disks.
    fn machine(&self) -> &Machine;

    /// The disks, to trouble them or to cut their power.
    fn machine_mut(&mut self) -> &mut Machine;

    /// Looks at the engine.
    fn look<T>(&self, look: impl FnOnce(&Engine) -> T) -> T;

    /// See [`Tally`].
    fn tally(&self) -> Tally {
        Tally::default()
    }
}
