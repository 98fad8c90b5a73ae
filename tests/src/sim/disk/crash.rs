//! What is left of a disk after the power is cut, or the daemon killed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Op, OpId, SimDisk, Version};
use crate::sim::dice::Dice;

/// Which of the volatile writes a power cut keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// Each piece of so many sectors of each write on its own: torn.
    Pieces(u64),
    /// Each write on its own.
    Writes,
    /// What was submitted before this write.
    Before(OpId),
    /// Only this write.
    Only(OpId),
    /// All but this write.
    AllBut(OpId),
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
}

impl Keep {
    fn roll(ops: &BTreeSet<OpId>, dice: &mut Dice) -> Self {
        let some = ops.iter().nth(dice.index(ops.len())).copied().unwrap_or(0);
        match dice.below(10) {
            0 | 1 => Self::Pieces(1),
            2 => Self::Pieces(8),
            3 | 4 => Self::Writes,
            5 => Self::Before(some),
            6 => Self::Only(some),
            7 => Self::AllBut(some),
            8 => Self::Nothing,
            _ => Self::Everything,
        }
    }
}

impl SimDisk {
    /// Cuts the power: each volatile or unfinished write is kept, dropped or torn,
    /// and every operation in flight is gone.
    pub fn power_cut(&mut self, dice: &mut Dice) {
        self.land_in_flight();
        let ops = self.volatile_ops();
        let keep = Keep::roll(&ops, dice);
        let mut fates = BTreeMap::new();
        for sector in std::mem::take(&mut self.dirty) {
            let Some(slot) = self.slots.get_mut(sector as usize) else {
                continue;
            };
            for Version { op, data, .. } in slot.versions.drain(..) {
                if fate(keep, op, sector, &mut fates, dice) {
                    slot.durable = data;
                }
            }
        }
    }

    /// Kills the daemon: what completed stays in the disk's cache, what was in
    /// flight lands or not, sector by sector.
    pub fn kill(&mut self, dice: &mut Dice) {
        for (id, op) in std::mem::take(&mut self.ops) {
            let Op::Write {
                first,
                data,
                applied,
                ..
            } = op
            else {
                continue;
            };
            let all = dice.chance(1, 2);
            for (index, data) in data.into_iter().enumerate() {
                if !applied[index] && (all || dice.chance(1, 2)) {
                    self.apply(id, first + index as u64, data);
                }
            }
            self.clock += 1;
            let sectors = first..first + applied.len() as u64;
            sectors.for_each(|sector| self.completed(id, sector, false));
        }
    }

    /// Operations in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ops.len()
    }

    /// Turns the unfinished part of writes in flight into volatile versions, so
    /// that one rule decides about all of them.
    fn land_in_flight(&mut self) {
        for (id, op) in std::mem::take(&mut self.ops) {
            let Op::Write {
                first,
                data,
                applied,
                ..
            } = op
            else {
                continue;
            };
            for (index, data) in data.into_iter().enumerate().filter(|(i, _)| !applied[*i]) {
                self.apply(id, first + index as u64, data);
            }
        }
    }

    fn volatile_ops(&self) -> BTreeSet<OpId> {
        let slots = self
            .dirty
            .iter()
            .filter_map(|s| self.slots.get(*s as usize));
        slots
            .flat_map(|slot| slot.versions.iter().map(|v| v.op))
            .collect()
    }
}

fn fate(
    keep: Keep,
    op: OpId,
    sector: u64,
    fates: &mut BTreeMap<(OpId, u64), bool>,
    dice: &mut Dice,
) -> bool {
    let mut coin = |piece| {
        *fates
            .entry((op, piece))
            .or_insert_with(|| dice.chance(1, 2))
    };
    match keep {
        Keep::Pieces(size) => coin(sector / size),
        Keep::Writes => coin(0),
        Keep::Before(last) => op <= last,
        Keep::Only(one) => op == one,
        Keep::AllBut(one) => op != one,
        Keep::Nothing => false,
        Keep::Everything => true,
    }
}
