//! Power cuts, kills and orderly stops, and coming back from them.

use snapstore::check::{CheckOptions, check};
use snapstore::engine::{Command, DropReason, Engine};
use snapstore::recover::{Recovered, load};
use snapstore::{Tag, VolumeId};

use super::{Outcome, Violation, World};
use crate::sim::daemon::Daemon;
use crate::sim::disk::sync::{SyncDisk, SyncOrigins};
use crate::sim::oracle::ledger::origin_at;
use crate::sim::oracle::reconcile::Inventory;

impl<D: Daemon> World<D> {
    /// Everything stops at once; recovery is itself cut off `again` times.
    pub(super) fn crash(&mut self, power: bool, again: u32) -> Outcome {
        self.count();
        self.lose(power);
        for _ in 0..again {
            let long = self.dice.chance(1, 2);
            let fuse = 1 + self.dice.below(if long { 200 } else { 20 });
            if !self.recovery_cut_off(fuse)? {
                break;
            }
            let power = power || self.dice.chance(1, 2);
            self.lose(power);
        }
        self.come_back(false)
    }

    /// An orderly stop under load, perhaps the power off, and a start.
    pub(super) fn reopen(&mut self, power: bool) -> Outcome {
        self.quiet_disks();
        self.command(Command::Close);
        self.settle()?;
        let sick = self
            .runtime
            .look(|engine| engine.store_info())
            .failed
            .is_some();
        self.count();
        self.lose(power);
        // A store that failed cannot be closed in order.
        self.come_back(!sick)
    }

    fn lose(&mut self, power: bool) {
        self.stats.crashes += 1;
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

    fn come_back(&mut self, clean: bool) -> Outcome {
        self.quiet_disks();
        let before = self.load_inventory()?;
        let (engine, recovered) = self.attempt(None).result?;
        self.note(|| format!("  recovered: {recovered:?}"));
        self.stats.undone += recovered.dropped + recovered.lost;
        self.judge(&recovered, clean)?;
        self.runtime.restart(engine)?;
        self.check_store("after recovery")?;
        self.same_things(&before)?;
        self.apply_invalid()?;
        self.oracle.reconcile(&self.inventory(), true)?;
        // Volumes whose creation was cut off are known only now.
        self.attach_all()?;
        self.compare_origins()
    }

    fn judge(&self, recovered: &Recovered, clean: bool) -> Outcome {
        let dirty = !recovered.clean || recovered.replayed > 0 || recovered.dropped > 0;
        if clean && dirty {
            return Err(Violation(format!(
                "an orderly stop was recovered as {recovered:?}"
            )));
        }
        Ok(())
    }

    fn attempt(&mut self, fuse: Option<u64>) -> Attempt {
        let machine = self.runtime.machine_mut();
        let mut store = SyncDisk::new(&mut machine.store, &mut self.dice, fuse);
        let wrong = |what, error| Violation(format!("cannot {what} after a stop: {error}"));
        let result = load(&mut store)
            .map_err(|e| wrong("load", e))
            .and_then(|loaded| {
                let chunk = u64::from(loaded.chunk_size()) / 512;
                let disk_of = |path: &str| machine.origins.get(origin_at(path)?);
                let volumes = loaded.volumes();
                let disks = volumes
                    .iter()
                    .filter_map(|v| Some((v.id, disk_of(&v.origin)?)))
                    .collect();
                let mut origins = SyncOrigins { disks, chunk };
                let recovered = loaded.recover(&mut store, &mut origins, self.config.engine);
                recovered.map_err(|e| wrong("recover", e))
            });
        Attempt {
            blown: store.blown(),
            result,
        }
    }

    /// What a store that is only loaded says it holds.
    fn load_inventory(&mut self) -> Outcome<Vec<(VolumeId, Tag, String)>> {
        let machine = self.runtime.machine_mut();
        let mut store = SyncDisk::new(&mut machine.store, &mut self.dice, None);
        let loaded = load(&mut store).map_err(|e| Violation(format!("cannot load: {e}")))?;
        let volumes = loaded.volumes();
        let live = volumes.iter().filter(|v| !v.deleting);
        let list = live.flat_map(|v| loaded.snapshots(v.id));
        Ok(list.map(|s| (s.volume, s.tag, s.name)).collect())
    }

    /// Loading and recovering must agree on what exists.
    fn same_things(&self, loaded: &[(VolumeId, Tag, String)]) -> Outcome {
        let found = self.inventory();
        let live = found.volumes.iter().filter(|v| !v.deleting);
        let list = live.filter_map(|v| found.snapshots.get(&v.id)).flatten();
        let list: Vec<_> = list.map(|s| (s.volume, s.tag, s.name.clone())).collect();
        if list == loaded {
            return Ok(());
        }
        Err(Violation(format!("loaded {loaded:?}, recovered {list:?}")))
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
        let report = check(&mut store, CheckOptions { data: true }, &mut |_, _| {})
            .map_err(|e| Violation(format!("cannot check {when}: {e}")))?;
        if report.problems.is_empty() {
            return Ok(());
        }
        Err(Violation(format!("check {when}: {:#?}", report.problems)))
    }

    pub(super) fn inventory(&self) -> Inventory {
        self.runtime.look(|engine| {
            let volumes = engine.volumes();
            let of = |id| (id, engine.snapshots(id));
            let snapshots = volumes.iter().map(|v| of(v.id)).collect();
            Inventory { volumes, snapshots }
        })
    }

    /// Adds the engine's counters before it goes.
    fn count(&mut self) {
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
