//! Disks that lie about what is at rest, within what `docs/media.md` allows.
//!
//! One block at a time is damaged, wherever the promises leave no doubt what that costs:
//!
//! | block | costs |
//! |---|---|
//! | copied chunk | its old contents, in the snapshots that need it |
//! | exception tree: leaf, or node above leaves | the old contents it led to |
//! | era tree: leaf, or node above leaves | nothing |
//! | the older superblock | nothing |
//!
//! A world damages only one of the two trees: where both are, more is lost. While there
//! is damage, a check may only be clean if every view can be read; then a repair must
//! make all sound at no further cost. Tables and bitmap, for which a store is refused,
//! are damaged in a copy of it.

use snapstore::check::{CheckOptions, check};
use snapstore::recover::load;
use snapstore::repair::{Loss, Repair, RepairOptions, repair};

use super::atlas;
use super::{Outcome, Violation, World};
use crate::sim::daemon::Daemon;
use crate::sim::dice::Dice;
use crate::sim::disk::SimDisk;
use crate::sim::disk::sync::SyncDisk;
use crate::sim::value::{Data, PER_BLOCK, SECTOR};

/// Most blocks damaged in one world.
const MOST: u64 = 8;

/// How a world's store lies.
#[derive(Debug)]
pub(super) struct Rot {
    dice: Dice,
    /// The tree whose nodes are hit.
    tree: &'static str,
    /// Blocks that may still be damaged.
    left: u64,
    /// There may be damage that no repair has met.
    pub(super) there: bool,
    /// The store as it was some time ago: what a lost write leaves.
    older: Option<SimDisk>,
}

/// What a damaged block shows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lie {
    /// A bit of it flipped.
    Flip,
    /// What was written elsewhere.
    Elsewhere,
    /// What was there before: a write was lost.
    Older,
    /// Nothing: it cannot be read.
    Unreadable,
}

impl Rot {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x0dd_b10c5);
        let tree = dice.pick(&[atlas::EXCEPTIONS, "era tree"]);
        Self {
            dice,
            tree,
            left: MOST,
            there: false,
            older: None,
        }
    }
}

impl<D: Daemon> World<D> {
    /// Damages a block, if one is found that may be.
    pub(super) fn rot(&mut self) {
        let store = &mut self.runtime.machine_mut().store;
        let now = store.clone();
        let dice = &mut self.rot.dice;
        let tree = self.rot.tree;
        let sectors = u64::from(self.config.chunk_size) / SECTOR as u64;
        let mut places = atlas::atlas(&now, dice, sectors);
        // Which superblock counts is not so clear while the store grows.
        let grows = self.config.weights.get(20).is_some_and(|w| *w > 0);
        let last = if grows { tree } else { atlas::SUPERBLOCK };
        let kind = dice.pick(&[atlas::CHUNK, atlas::CHUNK, tree, tree, tree, last]);
        places.retain(|place| place.kind == kind);
        let older = self.rot.older.replace(now).filter(|_| self.rot.left > 0);
        let (Some(older), Some(place)) = (older, places.get(dice.index(places.len()))) else {
            return;
        };
        let other = places.get(dice.index(places.len())).unwrap_or(place);
        if let Some(lie) = damage(store, place.block, other.block, &older, dice) {
            self.rot.left -= 1;
            self.rot.there = true;
            self.stats.rotten += 1;
            self.oracle.damage.add(place.hurts.iter().cloned());
            if matches!(lie, Lie::Unreadable) && place.kind == atlas::EXCEPTIONS {
                self.oracle.damage.blind();
            }
            self.note(|| format!("  {lie:?}: {place:?}"));
        }
    }

    /// Checks a store that may be damaged; true if nothing was found.
    pub(super) fn finds_no_damage(&mut self) -> Outcome<bool> {
        self.stats.checks += 1;
        let machine = self.runtime.machine_mut();
        let mut store = SyncDisk::new(&mut machine.store, &mut self.dice, None);
        let report = check(&mut store, CheckOptions { data: true }, &mut |_, _| {})
            .map_err(|e| Violation(format!("cannot check a damaged store: {e}")))?;
        self.note(|| format!("  found {:?}", report.problems));
        let clean = report.problems.is_empty();
        self.stats.named += u64::from(!clean);
        Ok(clean)
    }

    /// A check was clean: then everything can be read.
    pub(super) fn reads_all(&mut self) -> Outcome {
        let before = self.oracle.damage.failed;
        self.compare()?;
        match self.oracle.damage.failed - before {
            0 => Ok(()),
            failed => Err(Violation(format!(
                "a check found nothing, yet {failed} reads fail"
            ))),
        }
    }

    /// After a repair everything must be sound, and only chunks may be lost.
    pub(super) fn mend(&mut self) -> Outcome {
        if !self.rot.there {
            return Ok(());
        }
        self.close();
        self.settle()?;
        self.count();
        self.lose(true);
        let machine = self.runtime.machine_mut();
        only_chunks_lost(&repaired(&mut machine.store, &mut self.dice)?)?;
        self.rot.there = false;
        self.come_back(false)?;
        self.compare()
    }

    /// Without its tables or its bitmap a store is refused, but for the sharing counters;
    /// a repair makes it sound. All of it in a copy: the world lives on as it would.
    pub(super) fn refuses_damaged_tables(&mut self) -> Outcome {
        if self.rot.there {
            return Ok(());
        }
        let mut store = self.runtime.machine().store.clone();
        let dice = &mut self.rot.dice;
        let kinds = [
            "volume table",
            "snapshot table",
            "sharing counters",
            atlas::BITMAP,
        ];
        let kind = dice.pick(&kinds);
        let mut places = atlas::atlas(&store, dice, PER_BLOCK);
        places.retain(|place| place.kind == kind);
        let Some(place) = places.get(dice.index(places.len())) else {
            return Ok(());
        };
        flip(&mut store, place.block, dice);
        let opens = load(&mut SyncDisk::new(&mut store, dice, None)).is_ok();
        if opens != (kind == "sharing counters") {
            return Err(Violation(format!("damaged: {place:?}; opened: {opens}")));
        }
        let report = repaired(&mut store, dice)?;
        if matches!(kind, "sharing counters" | atlas::BITMAP) {
            only_chunks_lost(&report)?;
        }
        Ok(())
    }
}

fn repaired(store: &mut SimDisk, dice: &mut Dice) -> Outcome<Repair> {
    let mut store = SyncDisk::new(store, dice, None);
    let options = RepairOptions {
        data: true,
        dry_run: false,
    };
    let report = repair(&mut store, options, &mut |_, _| {})
        .map_err(|e| Violation(format!("cannot repair: {e}")))?;
    if report.remaining.is_empty() {
        return Ok(report);
    }
    Err(Violation(format!("a repair leaves {report:#?}")))
}

fn only_chunks_lost(report: &Repair) -> Outcome {
    let dear = |loss: &&Loss| !matches!(loss, Loss::Chunks { .. });
    match report.losses.iter().find(dear) {
        None => Ok(()),
        Some(_) => Err(Violation(format!("a repair costs too much: {report:#?}"))),
    }
}

/// Lies about a block, unless it is about to change or the lie would be the truth.
pub(super) fn damage(
    store: &mut SimDisk,
    block: u64,
    other: u64,
    older: &SimDisk,
    dice: &mut Dice,
) -> Option<Lie> {
    let first = block * PER_BLOCK;
    if !store.at_rest(first, PER_BLOCK) {
        return None;
    }
    let lies = [Lie::Flip, Lie::Elsewhere, Lie::Older, Lie::Unreadable];
    let lie = dice.pick(&lies);
    let done = match lie {
        Lie::Flip => flip(store, block, dice),
        Lie::Elsewhere => show(store, first, &contents(store, other * PER_BLOCK)),
        Lie::Older => show(store, first, &contents(older, first)),
        Lie::Unreadable => store.faults.bad.insert(first + dice.below(PER_BLOCK)),
    };
    done.then_some(lie)
}

fn flip(store: &mut SimDisk, block: u64, dice: &mut Dice) -> bool {
    let sector = block * PER_BLOCK + dice.below(PER_BLOCK);
    let mut bytes = *store.visible(sector).bytes();
    let bit = dice.below(SECTOR as u64 * 8) as usize;
    bytes[bit / 8] ^= 1 << (bit % 8);
    show(store, sector, &[Data::of(&bytes)])
}

fn contents(store: &SimDisk, first: u64) -> Vec<Data> {
    let sectors = first..first + PER_BLOCK;
    sectors.map(|sector| store.visible(sector)).collect()
}

/// From now on these sectors hold something else; false if they do not.
fn show(store: &mut SimDisk, first: u64, data: &[Data]) -> bool {
    let mut changed = false;
    for (sector, data) in (first..).zip(data) {
        changed |= store.visible(sector) != *data;
        store.plant(sector, data.clone());
    }
    changed
}
