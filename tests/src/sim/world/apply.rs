//! Actions become requests and commands.

use snapstore::engine::{Command, CommandError, Policy, Reply};
use snapstore::{Tag, VolumeId};

use super::action::Fill;
use super::{Action, Outcome, Trouble, World};
use crate::sim::daemon::Daemon;
use crate::sim::oracle::ledger::path_of;
use crate::sim::runtime::Ask;
use crate::sim::value::{Data, SECTOR};

impl<D: Daemon> World<D> {
    /// Makes one thing happen; what cannot happen now does not.
    pub(super) fn apply(&mut self, action: Action) -> Outcome {
        self.history.push(action);
        if !matches!(action, Action::Pump { .. }) {
            self.note(|| format!("{action:?}"));
        }
        match action {
            Action::Pump { steps } => return self.pump(u64::from(steps)),
            Action::Compare => return self.compare(),
            Action::Reopen { power } => return self.reopen(power),
            Action::Crash { power, again } => return self.crash(power, again),
            Action::Trouble { .. } if self.config.trouble == Trouble::Rot => self.rot(),
            Action::Trouble { roll } => self.trouble(roll),
            Action::Write { .. }
            | Action::Trim { .. }
            | Action::Flush { .. }
            | Action::Read { .. }
            | Action::ReadSnapshot { .. } => return self.request(action),
            _ => {
                if let Some(command) = self.command_of(action) {
                    self.command(command);
                }
            }
        }
        Ok(())
    }

    /// A request joins those in flight, when there is room.
    fn request(&mut self, action: Action) -> Outcome {
        if self.oracle.open() >= self.config.load {
            self.pump(20)?;
        }
        if self.oracle.open() < self.config.load
            && let Some((volume, ask)) = self.ask_of(action)
        {
            let owner = self.runtime.submit(volume, ask.clone());
            self.oracle.submitted(owner, volume, &ask);
            self.note(|| format!("  request {owner} volume {volume} {ask:?}"));
        }
        Ok(())
    }

    fn ask_of(&mut self, action: Action) -> Option<(VolumeId, Ask)> {
        Some(match action {
            Action::Write {
                volume,
                at,
                len,
                fua,
                fill,
            } => {
                let (volume, first, count) = self.range(volume, at, len)?;
                let data = (0..count).map(|i| self.data(fill, first + i)).collect();
                (volume, Ask::Write { first, data, fua })
            }
            Action::Trim { volume, at, len } => {
                let (volume, first, count) = self.range(volume, at, len)?;
                (volume, Ask::Trim { first, count })
            }
            Action::Flush { volume } => (self.volume(volume)?, Ask::Flush),
            Action::Read { volume, at, len } => {
                let (volume, first, count) = self.range(volume, at, len)?;
                (volume, Ask::Read { first, count })
            }
            Action::ReadSnapshot { snapshot, at, len } => {
                let (volume, tag) = self.snapshot(snapshot, |_| true)?;
                let size = self.oracle.snapshot(volume, tag)?.size;
                let (first, count) = self.clamp(at, len, size);
                (volume, Ask::ReadSnapshot { tag, first, count })
            }
            _ => return None,
        })
    }

    fn data(&mut self, fill: Fill, sector: u64) -> Data {
        self.stamp += 1;
        match fill {
            Fill::Fresh => Data::pattern(self.stamp),
            Fill::Zeroes => Data::zero(),
            Fill::Store => {
                let store = &self.runtime.machine().store;
                store.visible((self.stamp * 8 + sector % 8) % store.sectors())
            }
        }
    }

    fn command_of(&mut self, action: Action) -> Option<Command> {
        let idle = |s: &crate::sim::oracle::image::Snapshot| !s.busy;
        Some(match action {
            Action::Take { mask, priority } => return self.take(mask, priority),
            Action::Delete { snapshot, count } => {
                let mut targets = Vec::new();
                for step in 0..count {
                    let target = self.snapshot(snapshot.wrapping_add(step), idle);
                    targets.extend(target.filter(|t| !targets.contains(t)));
                }
                (!targets.is_empty()).then_some(Command::DeleteSnapshots { targets })?
            }
            Action::Rename { snapshot } => {
                let (volume, tag) = self.snapshot(snapshot, idle)?;
                Command::RenameSnapshot {
                    volume,
                    tag,
                    name: self.name("renamed"),
                }
            }
            Action::Map { snapshot, mapped } => {
                let (volume, tag) = self.snapshot(snapshot, idle)?;
                Command::SetMapped {
                    volume,
                    tag,
                    mapped,
                }
            }
            Action::Priority { snapshot, priority } => {
                let (volume, tag) = self.snapshot(snapshot, idle)?;
                Command::SetPriority {
                    volume,
                    tag,
                    priority,
                }
            }
            Action::Hold { snapshot, held } => {
                let (volume, tag) = self.snapshot(snapshot, idle)?;
                self.stats.held += u64::from(held);
                Command::SetHeld { volume, tag, held }
            }
            Action::Policy {
                volume,
                snapshots_first,
            } => {
                // Commands may overtake each other: the last of two would be unknown.
                if self.oracle.pending() > 0 {
                    return None;
                }
                let policy = if snapshots_first {
                    Policy::SnapshotFirst
                } else {
                    Policy::OriginFirst
                };
                Command::SetPolicy {
                    volume: self.volume(volume)?,
                    policy: Some(policy),
                    full_wait_s: self.config.full_wait,
                }
            }
            Action::CreateVolume => return self.create_volume(),
            Action::DeleteVolume { volume } => {
                let volume = self.volume(volume)?;
                let quiet = !self.oracle.busy(volume) && self.oracle.pending() == 0;
                quiet.then_some(Command::DeleteVolume { volume })?
            }
            Action::Grow { volume, by } => return self.grow(volume, by),
            Action::Extend { by } => return self.extend(by),
            Action::Checkpoint => Command::Checkpoint,
            _ => return None,
        })
    }

    fn take(&mut self, mask: u32, priority: i32) -> Option<Command> {
        let most = self.config.snapshots;
        let mut volumes: Vec<VolumeId> = Vec::new();
        for (index, (id, volume)) in self.oracle.volumes.iter().enumerate() {
            let wanted = mask >> (index % 32) & 1 == 1 && !volume.deleting;
            if wanted && volume.snapshots.len() < most {
                volumes.push(*id);
            }
        }
        if volumes.is_empty() {
            return None;
        }
        let name = self.name("snap");
        self.stats.takes += 1;
        Some(Command::Take {
            targets: volumes.into_iter().map(|v| (v, name.clone())).collect(),
            priority,
            created_ms: self.now_ms,
        })
    }

    /// A volume on the first origin nobody uses; one such command at a time.
    fn create_volume(&mut self) -> Option<Command> {
        if self.oracle.pending() > 0 {
            return None;
        }
        let used = |origin| self.oracle.volumes.values().any(|v| v.origin == origin);
        let origin = (0..self.config.origins.len()).find(|origin| !used(*origin))?;
        let name = self.name("volume");
        Some(Command::CreateVolume {
            name,
            uuid: [origin as u8; 16],
            size: self.config.volumes[origin] * SECTOR as u64,
            origin: path_of(origin),
            policy: Policy::OriginFirst,
            created_ms: self.now_ms,
        })
    }

    /// One such command at a time: the smaller of two may come too late.
    fn grow(&mut self, volume: u32, by: u32) -> Option<Command> {
        let id = self.volume(volume)?;
        let volume = self.oracle.volumes.get(&id)?;
        let most = self.config.origins[volume.origin] - volume.size;
        if most == 0 || self.oracle.growing(id).is_some() {
            return None;
        }
        let by = match by % 4 {
            0 => most,
            1 => u64::from(by / 4) % most + 1,
            _ => u64::from(by / 4) % 16 + 1,
        };
        self.stats.grown += 1;
        Some(Command::ResizeVolume {
            volume: id,
            size: (volume.size + by.min(most)) * SECTOR as u64,
        })
    }

    pub(super) fn command(&mut self, command: Command) {
        let id = self.runtime.command(command.clone());
        self.extension_asked(id, &command);
        self.oracle.commanded(id, &command);
        self.note(|| format!("  {id:?} {command:?}"));
    }

    /// A volume made or deleted by a reply comes into service, or leaves it.
    pub(super) fn serve_volumes(&mut self, result: &Result<Reply, CommandError>) -> Outcome {
        if let Ok(Reply::Volume(volume)) = result {
            let origin = self.oracle.volumes.get(volume).map_or(0, |v| v.origin);
            self.runtime.attach(*volume, origin)?;
        }
        let known = &self.oracle.volumes;
        self.runtime
            .keep_attached(|volume| known.contains_key(&volume));
        Ok(())
    }

    fn volume(&self, which: u32) -> Option<VolumeId> {
        let ids: Vec<VolumeId> = self
            .oracle
            .volumes
            .iter()
            .filter(|(_, v)| !v.deleting)
            .map(|(id, _)| *id)
            .collect();
        ids.get(which as usize % ids.len().max(1)).copied()
    }

    fn range(&self, volume: u32, at: u32, len: u32) -> Option<(VolumeId, u64, u64)> {
        let id = self.volume(volume)?;
        let (first, count) = self.clamp(at, len, self.oracle.volumes.get(&id)?.size);
        Some((id, first, count))
    }

    fn snapshot(
        &self,
        which: u32,
        fits: impl Fn(&crate::sim::oracle::image::Snapshot) -> bool,
    ) -> Option<(VolumeId, Tag)> {
        let volumes = self.oracle.volumes.iter().filter(|(_, v)| !v.deleting);
        let all: Vec<(VolumeId, Tag)> = volumes
            .flat_map(|(id, v)| {
                let fitting = v.snapshots.iter().filter(|(_, s)| fits(s));
                fitting.map(|(tag, _)| (*id, *tag)).collect::<Vec<_>>()
            })
            .collect();
        all.get(which as usize % all.len().max(1)).copied()
    }

    fn name(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("{kind}-{}", self.names)
    }

    /// Trouble begins, changes or ends.
    fn trouble(&mut self, roll: u32) {
        let store_sick = self.config.trouble == Trouble::Store;
        let store = &mut self.runtime.machine_mut().store.faults;
        if store_sick {
            store.read_ppm = [0, 0, 3_000, 50_000][roll as usize % 4];
            store.write_ppm = [0, 0, 3_000, 50_000][(roll >> 2) as usize % 4];
            store.flush_ppm = [0, 0, 20_000, 200_000][(roll >> 4) as usize % 4];
            store.flush_loses = (roll >> 6).is_multiple_of(2);
            store.dead = (roll >> 7).is_multiple_of(8);
        }
        for (index, disk) in self.runtime.machine_mut().origins.iter_mut().enumerate() {
            let sectors = disk.sectors();
            match self.config.trouble {
                Trouble::OriginReads => {
                    let bad = u64::from(roll >> 3) + index as u64;
                    disk.faults.bad.insert(bad % sectors);
                    disk.faults.read_ppm = [0, 0, 5_000][roll as usize % 3];
                }
                Trouble::OriginWrites => {
                    disk.faults.write_ppm = [0, 5_000, 50_000][roll as usize % 3];
                    disk.faults.flush_ppm = [0, 50_000, 300_000][(roll >> 4) as usize % 3];
                }
                _ => {}
            }
        }
    }

    /// All trouble ends: what still fails now fails for no reason.
    pub(super) fn quiet_disks(&mut self) {
        let machine = self.runtime.machine_mut();
        for disk in machine.origins.iter_mut().chain([&mut machine.store]) {
            self.stats.faults += disk.faults.given;
            disk.faults = crate::sim::disk::faults::Faults {
                bad: std::mem::take(&mut disk.faults.bad),
                ..Default::default()
            };
        }
    }

    /// A range inside `size` sectors, mostly in the hot part; whole blocks begin on one.
    fn clamp(&self, at: u32, len: u32, size: u64) -> (u64, u64) {
        let hot = !at.is_multiple_of(4);
        let span = if hot { size.min(self.config.hot) } else { size };
        let mut first = u64::from(at / 4) % span.max(1);
        if len.is_multiple_of(8) {
            first -= first % 8;
        }
        (first, u64::from(len).clamp(1, size - first))
    }
}
