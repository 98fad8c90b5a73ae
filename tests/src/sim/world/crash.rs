//! Power cuts, kills and orderly stops, and coming back from them.

use snapstore::engine::{Command, DropReason, Engine};
use snapstore::recover::Recovered;

use super::{Outcome, Trouble, Violation, World};
use crate::sim::daemon::Daemon;
use crate::sim::dice::Dice;
use crate::sim::disk::sync::SyncDisk;
use crate::sim::found::observe;
use crate::sim::oracle::ledger::origin_at;
use crate::sim::oracle::reconcile::Inventory;
use crate::sim::recovery::{self, Named};

impl<D: Daemon> World<D> {
    /// Everything stops at once; recovery is itself cut off `again` times.
    pub(super) fn crash(&mut self, power: bool, again: u32) -> Outcome {
        self.count();
        self.stats.crashes += 1;
        self.lose(power);
        if self.config.sick_recovery {
            self.disturbed_recovery(power)?;
        }
        for _ in 0..again {
            let long = self.dice.chance(1, 2);
            let fuse = 1 + self.dice.below(if long { 200 } else { 20 });
            if !self.recovery_cut_off(fuse)? {
                break;
            }
            let power = power || self.dice.chance(1, 2);
            self.stats.crashes += 1;
            self.lose(power);
        }
        self.come_back(false)
    }

    /// An orderly stop under load, perhaps the power off, and a start.
    pub(super) fn reopen(&mut self, power: bool) -> Outcome {
        self.close();
        self.settle()?;
        self.start_again(power)
    }

    /// Asks for an orderly stop.
    pub fn close(&mut self) {
        self.quiet_disks();
        self.command(Command::Close);
    }

    /// A start after an orderly stop, perhaps with the power off in between.
    ///
    /// # Errors
    /// The promise it broke.
    pub fn start_again(&mut self, power: bool) -> Outcome {
        let sick = self
            .runtime
            .look(|engine| engine.store_info())
            .failed
            .is_some();
        self.count();
        self.stats.stops += 1;
        self.lose(power);
        // A store that failed cannot be closed in order.
        self.come_back(!sick)
    }

    pub(super) fn lose(&mut self, power: bool) {
        let dice = &mut self.dice;
        let machine = self.runtime.machine_mut();
        for disk in machine.origins.iter_mut().chain([&mut machine.store]) {
            if power {
                disk.power_cut(dice)
            } else {
                disk.kill(dice)
            }
        }
        if power {
            self.oracle.power_cut()
        } else {
            self.oracle.killed()
        }
    }

    /// Recovers while the store fails now and then: that ends in an error, or well. The
    /// power is cut, or the daemon killed, all the same.
    fn disturbed_recovery(&mut self, power: bool) -> Outcome {
        self.quiet_disks();
        let dice = &mut self.dice;
        let ppm = |dice: &mut Dice| dice.pick(&[0, 0, 10_000, 100_000]);
        let [read_ppm, write_ppm, flush_ppm] = [(); 3].map(|()| ppm(dice));
        let faults = &mut self.runtime.machine_mut().store.faults;
        (faults.read_ppm, faults.write_ppm, faults.flush_ppm) = (read_ppm, write_ppm, flush_ppm);
        // Reads that fail twice are damage: `rot` has that.
        faults.shy = Some(Default::default());
        let attempt = self.attempt(None);
        let given = self.runtime.machine().store.faults.given;
        self.quiet_disks();
        self.stats.disturbed += u64::from(given > 0);
        if let Err(violation) = attempt.result
            && given == 0
        {
            return Err(violation);
        }
        let power = power || self.dice.chance(1, 2);
        self.lose(power);
        Ok(())
    }

    /// Recovers with a fuse; false if it ended before the fuse.
    fn recovery_cut_off(&mut self, fuse: u64) -> Outcome<bool> {
        self.quiet_disks();
        let attempt = self.attempt(Some(fuse));
        if attempt.blown {
            Ok(true)
        } else {
            attempt.result.map(|_| false)
        }
    }

    pub(super) fn come_back(&mut self, clean: bool) -> Outcome {
        self.quiet_disks();
        self.refuses_a_gap()?;
        self.doubts_the_journal()?;
        if self.config.trouble == Trouble::Rot {
            self.refuses_damaged_tables()?;
        }
        let before = self.load_inventory()?;
        let (engine, recovered) = self.attempt(None).result?;
        self.note(|| format!("  recovered: {recovered:?}"));
        self.stats.undone += recovered.dropped + recovered.lost;
        self.judge(&recovered, clean)?;
        self.runtime.restart(engine)?;
        self.store_is_as_large()?;
        let clean = if self.rot.there {
            self.finds_no_damage()?
        } else {
            self.check_store("after recovery")?;
            false
        };
        self.same_things(&before)?;
        self.apply_invalid()?;
        self.oracle.reconcile(&self.inventory(), true)?;
        // Volumes whose creation was cut off are known only now.
        self.attach_all()?;
        self.compare_origins()?;
        if clean {
            self.reads_all()
        } else if self.rot.there || self.oracle.damage.any() {
            Ok(()) // what fails there `compare` judges
        } else {
            self.compare_copies()
        }
    }

    /// Reads every snapshot where csnapd starts once more on a copy of the disks, so that
    /// the world itself lives on as it would.
    fn compare_copies(&mut self) -> Outcome {
        let copy = self.runtime.machine().clone();
        observe(copy, &self.config)?.read_by(&mut self.oracle)
    }

    fn judge(&self, recovered: &Recovered, clean: bool) -> Outcome {
        if clean && !recovery::was_orderly(recovered) {
            return Err(Violation(format!(
                "an orderly stop was recovered as {recovered:?}"
            )));
        }
        Ok(())
    }

    fn attempt(&mut self, fuse: Option<u64>) -> Attempt {
        let machine = self.runtime.machine_mut();
        let mut store = SyncDisk::new(&mut machine.store, &mut self.dice, fuse);
        let result = recovery::recover(&mut store, &machine.origins, self.config.engine);
        Attempt {
            blown: store.blown(),
            result,
        }
    }

    /// What a store that is only loaded says it holds.
    fn load_inventory(&mut self) -> Outcome<Vec<Named>> {
        let machine = self.runtime.machine_mut();
        let mut store = SyncDisk::new(&mut machine.store, &mut self.dice, None);
        recovery::listed(&mut store)
    }

    /// Loading and recovering must agree on what exists.
    fn same_things(&self, loaded: &[Named]) -> Outcome {
        recovery::same_things(loaded, &self.inventory())
    }

    /// What a dead store could not write itself is written first of all.
    fn apply_invalid(&mut self) -> Outcome {
        self.attach_all()?;
        for volume in std::mem::take(&mut self.runtime.machine_mut().invalid) {
            let found = self.inventory();
            if found.volumes.iter().any(|v| v.id == volume && !v.deleting) {
                let reason = DropReason::StoreFailed;
                self.command(Command::DropSnapshots { volume, reason });
                self.settle()?;
            }
        }
        Ok(())
    }

    fn attach_all(&mut self) -> Outcome {
        for info in self.inventory().volumes.iter().filter(|v| !v.deleting) {
            if let Some(origin) = origin_at(&info.origin) {
                self.runtime.attach(info.id, origin)?;
            }
        }
        Ok(())
    }

    /// Checks the whole store, data included, as it is on the disk.
    pub(super) fn check_store(&mut self, when: &str) -> Outcome {
        self.stats.checks += 1;
        let machine = self.runtime.machine_mut();
        let mut store = SyncDisk::new(&mut machine.store, &mut self.dice, None);
        recovery::must_be_sound(&mut store, when)
    }

    pub(super) fn inventory(&self) -> Inventory {
        self.runtime.look(Inventory::of)
    }

    /// Adds the engine's counters before it goes.
    pub(super) fn count(&mut self) {
        let counters = self.runtime.look(|engine| engine.store_info()).counters;
        self.stats.copied += counters.chunks_copied;
        self.stats.checkpoints += counters.checkpoints;
    }
}

/// One try at recovery.
struct Attempt {
    blown: bool,
    result: Outcome<(Engine, Recovered)>,
}
