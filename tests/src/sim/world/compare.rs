//! Comparing every view with the oracle, at rest.

use snapstore::engine::{Command, SnapshotState};
use snapstore::{Tag, VolumeId};

use super::{Outcome, Violation, World, contents};
use crate::sim::daemon::Daemon;
use crate::sim::runtime::Ask;
use crate::sim::value::SECTOR;

impl<D: Daemon> World<D> {
    /// Everything in flight ends; then lists, origins and all snapshots are read.
    pub(super) fn compare(&mut self) -> Outcome {
        self.settle()?;
        self.oracle.reconcile(&self.inventory(), false)?;
        self.compare_origins()?;
        let volumes = &self.oracle.volumes;
        let all: Vec<(VolumeId, Tag, u64)> = volumes
            .iter()
            .filter(|(_, v)| !v.deleting)
            .flat_map(|(id, v)| v.snapshots.iter().map(|(tag, s)| (*id, *tag, s.size)))
            .collect();
        for (volume, tag, size) in all {
            self.read_whole(volume, tag, size)?;
        }
        Ok(())
    }

    /// Reads a snapshot from end to end, in requests of uneven length; chunk by chunk when
    /// some may fail.
    fn read_whole(&mut self, volume: VolumeId, tag: Tag, size: u64) -> Outcome {
        let chunk = u64::from(self.config.chunk_size) / SECTOR as u64;
        let mut first = 0;
        while first < size {
            let count = match self.oracle.damage.any() {
                true => chunk - first % chunk,
                false => self.dice.between(1, 512),
            };
            let count = count.min(size - first);
            let ask = Ask::ReadSnapshot { tag, first, count };
            let owner = self.runtime.submit(volume, ask.clone());
            self.oracle.submitted(owner, volume, &ask);
            first += count;
        }
        self.settle()
    }

    /// The origins as they are on their disks, with nothing in flight.
    pub(super) fn compare_origins(&mut self) -> Outcome {
        for (index, disk) in self.runtime.machine().origins.iter().enumerate() {
            self.oracle.settled_read(index, &contents(disk))?;
        }
        Ok(())
    }

    /// Deletes every snapshot; all their space must come back.
    pub(super) fn empty(&mut self) -> Outcome {
        let found = self.inventory();
        if self
            .runtime
            .look(|engine| engine.store_info())
            .failed
            .is_some()
        {
            return Ok(());
        }
        for info in found.snapshots.values().flatten() {
            let (volume, tag) = (info.volume, info.tag);
            if info.mapped {
                self.command(Command::SetMapped {
                    volume,
                    tag,
                    mapped: false,
                });
            }
        }
        self.settle()?;
        for info in found.snapshots.values().flatten() {
            self.command(Command::DeleteSnapshots {
                targets: vec![(info.volume, info.tag)],
            });
        }
        self.settle()?;
        for _ in 0..2 {
            self.command(Command::Checkpoint);
            self.settle()?;
        }
        self.nothing_held()?;
        self.check_store("after all snapshots were deleted")
    }

    fn nothing_held(&self) -> Outcome {
        let info = self.runtime.look(|engine| engine.store_info());
        if info.failed.is_some() {
            return Ok(());
        }
        let found = self.inventory();
        let held = found
            .volumes
            .iter()
            .find(|v| v.held_bytes > 0 || v.snapshots > 0);
        let live = found
            .snapshots
            .values()
            .flatten()
            .any(|s| s.state == SnapshotState::Live);
        if held.is_some() || live || info.purging > 0 || info.used > info.metadata {
            return Err(Violation(format!(
                "all snapshots are deleted, yet something is held: {held:?} {info:?}"
            )));
        }
        Ok(())
    }
}
