//! Damage to the journal and to the newest superblock, in copies of the disks that a stop
//! left.
//!
//! | damaged | demanded |
//! |---|---|
//! | a journal block that is known to be flushed, or not needed | the store is refused, and it is said for what, or all is as it is without the damage |
//! | the newest superblock | as above, or a check names what is lost; all else reads as without the damage |
//! | a journal block that may be the torn tail for all the others say | it is refused, or sound |

use super::gap::{journal, newest};
use super::rot::{Lie, damage};
use super::{Outcome, Violation, World};
use crate::sim::daemon::Daemon;
use crate::sim::dice::Dice;
use crate::sim::disk::SimDisk;
use crate::sim::disk::sync::SyncDisk;
use crate::sim::found::{observe, observe_damaged};
use crate::sim::recovery;
use crate::sim::runtime::Machine;

const SUPERBLOCK: &str = "newest superblock";

/// A block to be damaged.
struct Suspect {
    what: &'static str,
    block: u64,
    /// What a misdirected write may leave there.
    other: u64,
    /// Its loss must be noticed, or do no harm.
    certain: bool,
}

impl<D: Daemon> World<D> {
    /// Damages one such block. With dice of its own, so that the world lives on as it
    /// would.
    pub(super) fn doubts_the_journal(&mut self) -> Outcome {
        let now = self.runtime.machine();
        let older = self.stopped.replace(now.store.clone());
        let moment = self.stats.crashes + self.stats.stops;
        let mut dice = Dice::new(self.config.seed ^ moment << 40 ^ 0x0d0_b7ed);
        let Some(older) = older.filter(|_| !self.rot.there && dice.chance(1, 3)) else {
            return Ok(());
        };
        let mut damaged = now.clone();
        let Some((suspect, lie)) = doubt(&mut damaged.store, &older, &mut dice) else {
            return Ok(());
        };
        self.stats.doubted += 1;
        let Suspect { what, block, .. } = suspect;
        let wrong = |text| Violation(format!("{lie:?} of the {what}, block {block}: {text}"));
        if let Err(Violation(refusal)) = self.opens(damaged.clone()) {
            self.stats.refused += 1;
            let named = ["block", "journal"]
                .iter()
                .any(|what| refusal.contains(what));
            return named
                .then_some(())
                .ok_or_else(|| wrong(format!("refused without a reason: {refusal}")));
        }
        let (now, config) = (now.clone(), &self.config);
        let same = match observe(damaged.clone(), config) {
            // A checkpoint that was cut off may have overwritten nodes of the older one.
            Err(Violation(text)) if what == SUPERBLOCK && text.starts_with("check ") => {
                self.stats.named += 1;
                let found = observe_damaged(damaged, config);
                let found = found.map_err(|Violation(text)| wrong(text))?;
                found.reads_as(&observe(now, config)?)
            }
            found => {
                let found = found.map_err(|Violation(text)| wrong(text))?;
                !suspect.certain || found.looks_like(&observe(now, config)?)
            }
        };
        let otherwise = "the store is opened and shows something else";
        same.then_some(())
            .ok_or_else(|| wrong(otherwise.to_owned()))
    }

    fn opens(&self, mut machine: Machine) -> Outcome {
        let mut dice = self.config.dice();
        let mut store = SyncDisk::new(&mut machine.store, &mut dice, None);
        recovery::recover(&mut store, &machine.origins, self.config.engine).map(|_| ())
    }
}

/// Damages a block of the journal's ring, mostly one that is needed, or the newest
/// superblock.
fn doubt(store: &mut SimDisk, older: &SimDisk, dice: &mut Dice) -> Option<(Suspect, Lie)> {
    let (at, superblock) = newest(store)?;
    let first = superblock.journal_first.get();
    let ring: Vec<u64> = (first..first + superblock.journal_blocks.get()).collect();
    let found = journal(store, &superblock);
    let flushed = found.iter().map(|(_, block)| block.flushed).max();
    let tail = superblock.journal_tail.get();
    let needed = found.iter().filter(|(_, block)| block.seq >= tail);
    let needed: Vec<_> = needed.map(|(at, block)| (*at, block.seq)).collect();
    let other = ring.get(dice.index(ring.len())).copied()?;
    let suspect = |what, block, certain| Suspect {
        what,
        block,
        other,
        certain,
    };
    let suspect = match dice.below(4) {
        0 => suspect(SUPERBLOCK, at, true),
        1 => {
            let block = ring.get(dice.index(ring.len())).copied()?;
            let tail = needed.iter().find(|(at, _)| *at == block);
            let certain = tail.is_none_or(|(_, seq)| Some(*seq) < flushed);
            suspect("journal", block, certain)
        }
        _ => {
            let (block, seq) = *needed.get(dice.index(needed.len()))?;
            suspect("needed journal", block, Some(seq) < flushed)
        }
    };
    let lie = damage(store, suspect.block, suspect.other, older, dice)?;
    Some((suspect, lie))
}
