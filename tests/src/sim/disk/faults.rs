//! What goes wrong with a disk on purpose: errors at random or from some point
//! on, and bad sectors that a write heals.

use std::collections::BTreeSet;

use snapstore::IoError;

use super::EIO;
use crate::sim::dice::Dice;

/// The faults of one disk. The default has none.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Reads that fail, in a million.
    pub read_ppm: u64,
    /// Writes that fail, in a million.
    pub write_ppm: u64,
    /// Flushes that fail, in a million.
    pub flush_ppm: u64,
    /// A failed flush also loses what it should have covered.
    pub flush_loses: bool,
    /// Writes and flushes all fail from now on.
    pub dead: bool,
    /// Sectors that cannot be read until they are written again.
    pub bad: BTreeSet<u64>,
    /// What could not be read once can be read ever after.
    pub shy: Option<BTreeSet<u64>>,
    /// Errors given so far.
    pub given: u64,
}

impl Faults {
    pub(super) fn read(&mut self, first: u64, count: u64, dice: &mut Dice) -> Result<(), IoError> {
        let bad = self.bad.range(first..first + count).next().is_some();
        let mut fail = bad || roll(self.read_ppm, dice);
        if fail && let Some(known) = &mut self.shy {
            fail = bad || known.insert(first);
        }
        self.answer(fail)
    }

    pub(super) fn write(&mut self, dice: &mut Dice) -> Result<(), IoError> {
        let fail = self.dead || roll(self.write_ppm, dice);
        self.answer(fail)
    }

    pub(super) fn flush(&mut self, dice: &mut Dice) -> Result<(), IoError> {
        let fail = self.dead || roll(self.flush_ppm, dice);
        self.answer(fail)
    }

    pub(super) fn healed(&mut self, first: u64, count: u64) {
        if !self.bad.is_empty() {
            self.bad.retain(|s| !(first..first + count).contains(s));
        }
    }

    fn answer(&mut self, fail: bool) -> Result<(), IoError> {
        self.given += u64::from(fail);
        if fail { Err(EIO) } else { Ok(()) }
    }
}

fn roll(ppm: u64, dice: &mut Dice) -> bool {
    ppm > 0 && dice.chance(ppm, 1_000_000)
}
