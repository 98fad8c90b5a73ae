//! What may happen to a world. Arguments are raw numbers, resolved against what
//! exists when the action is applied, so that any list of actions is a legal
//! script and shrinking one keeps it legal.

use crate::sim::dice::Dice;

/// How a write gets its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Contents never seen before.
    Fresh,
    /// Zeroes.
    Zeroes,
    /// What blocks of the store hold: data may look like metadata.
    Store,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the arguments are raw numbers: which, where, how much
pub enum Action {
    /// Let the runtime make some steps.
    Pump { steps: u32 },
    /// An origin write.
    Write {
        volume: u32,
        at: u32,
        len: u32,
        fua: bool,
        fill: Fill,
    },
    /// An origin discard.
    Trim { volume: u32, at: u32, len: u32 },
    /// An origin flush.
    Flush { volume: u32 },
    /// An origin read.
    Read { volume: u32, at: u32, len: u32 },
    /// A snapshot read.
    ReadSnapshot { snapshot: u32, at: u32, len: u32 },
    /// A take of the volumes in the mask.
    Take { mask: u32, priority: i32 },
    /// A deletion of so many snapshots.
    Delete { snapshot: u32, count: u32 },
    /// A new name.
    Rename { snapshot: u32 },
    /// Mapped or not.
    Map { snapshot: u32, mapped: bool },
    /// A drop priority.
    Priority { snapshot: u32, priority: i32 },
    /// A full-store policy.
    Policy { volume: u32, snapshots_first: bool },
    /// A new volume on an unused origin.
    CreateVolume,
    /// A volume goes.
    DeleteVolume { volume: u32 },
    /// A checkpoint.
    Checkpoint,
    /// Everything in flight ends, and everything is compared.
    Compare,
    /// An orderly stop and start, perhaps with the power off in between.
    Reopen { power: bool },
    /// The power is cut, or the daemon killed; recovery crashes so many times.
    Crash { power: bool, again: u32 },
    /// Trouble begins or ends.
    Trouble { roll: u32 },
    /// A volume grows into its origin: a little, or as far as it goes.
    Grow { volume: u32, by: u32 },
    /// The store's device grows, and mostly the store with it.
    Extend { by: u32 },
    /// A person keeps a snapshot, or no longer.
    Hold { snapshot: u32, held: bool },
}

/// Kinds of action, in the order of [`weights`]; the last only in worlds that hold.
const KINDS: u32 = 22;
/// Weight of the last.
const HOLD: u64 = 4;

/// Weights of the kinds, some of them off: worlds that never do one thing do
/// more of another.
#[must_use]
pub fn weights(dice: &mut Dice) -> Vec<u64> {
    let mut weights = vec![
        60, 60, 3, 4, 6, 20, 8, 5, 1, 1, 1, 1, 1, 1, 2, 1, 1, 2, 1, 2,
    ];
    for weight in weights.iter_mut().skip(2) {
        match dice.below(6) {
            0 => *weight = 0,
            1 => *weight *= 4,
            _ => {}
        }
    }
    // Without takes and crashes there is little to see.
    weights[6] = weights[6].max(2);
    weights[17] = weights[17].max(1);
    weights.push(0);
    weights
}

/// Lets the store grow.
pub fn extend(weights: &mut [u64]) {
    if let Some(weight) = weights.last_mut() {
        *weight = 3;
    }
}

/// Lets snapshots be held.
pub fn hold(weights: &mut Vec<u64>) {
    weights.resize(KINDS as usize, HOLD);
}

/// Lets volumes grow often, by little.
pub fn grow(weights: &mut [u64]) {
    weights[19] = 12;
}

/// More writes and takes, fewer deletions: what fills a store.
pub fn fill_up(weights: &mut [u64]) {
    for (kind, weight) in weights.iter_mut().enumerate() {
        match kind {
            1 => *weight = 200,
            6 => *weight = 12,
            7 | 13 | 16 => *weight = (*weight).min(1),
            _ => {}
        }
    }
}

impl Action {
    /// A random action.
    #[must_use]
    pub fn roll(dice: &mut Dice, weights: &[u64]) -> Self {
        let kind = dice.weighted(weights) as u32;
        Self::decode(
            kind,
            [dice.word() as u32, dice.word() as u32, dice.word() as u32],
        )
    }

    /// The action a few raw numbers mean; any numbers mean one.
    #[must_use]
    pub fn decode(kind: u32, [a, b, c]: [u32; 3]) -> Self {
        let len = length(c);
        let priority = (b % 5) as i32 - 2;
        match kind % KINDS {
            0 => Self::Pump {
                steps: 1 + a % if a % 7 == 0 { 400 } else { 30 },
            },
            1 => Self::Write {
                volume: a,
                at: b,
                len,
                fua: c % 11 == 0,
                fill: fill(c),
            },
            2 => Self::Trim {
                volume: a,
                at: b,
                len,
            },
            3 => Self::Flush { volume: a },
            4 => Self::Read {
                volume: a,
                at: b,
                len,
            },
            5 => Self::ReadSnapshot {
                snapshot: a,
                at: b,
                len,
            },
            6 => Self::Take { mask: a, priority },
            7 => Self::Delete {
                snapshot: a,
                count: 1 + b % 3,
            },
            8 => Self::Rename { snapshot: a },
            9 => Self::Map {
                snapshot: a,
                mapped: b % 2 == 0,
            },
            10 => Self::Priority {
                snapshot: a,
                priority,
            },
            11 => Self::Policy {
                volume: a,
                snapshots_first: b % 2 == 0,
            },
            12 => Self::CreateVolume,
            13 => Self::DeleteVolume { volume: a },
            14 => Self::Checkpoint,
            15 => Self::Compare,
            16 => Self::Reopen { power: a % 2 == 0 },
            17 => Self::Crash {
                power: a % 3 != 0,
                again: (b % 4) * (c % 2),
            },
            18 => Self::Trouble { roll: a },
            19 => Self::Grow { volume: a, by: b },
            20 => Self::Extend { by: a },
            _ => Self::Hold {
                snapshot: a,
                held: b % 3 != 0,
            },
        }
    }

    /// How many kinds there are.
    #[must_use]
    pub const fn kinds() -> u32 {
        KINDS
    }
}

/// Sectors of a request: mostly one block, sometimes many, sometimes odd.
fn length(raw: u32) -> u32 {
    match raw % 8 {
        0 => 1 + (raw >> 8) % 7,
        1 => 1 + (raw >> 8) % 200,
        2 | 3 => 8 * (1 + (raw >> 8) % 32),
        _ => 8,
    }
}

fn fill(raw: u32) -> Fill {
    match (raw >> 4) % 16 {
        0 => Fill::Zeroes,
        1 => Fill::Store,
        _ => Fill::Fresh,
    }
}
