//! Comparing what exists with what should: after recovery, where commands that
//! were cut off may have happened or not, and at any settled moment.

use std::collections::BTreeMap;

use snapstore::engine::{Command, SnapshotInfo, SnapshotState, VolumeInfo};
use snapstore::{Engine, Tag, VolumeId};

use super::ledger::subjects;
use super::{Oracle, Take};
use crate::sim::value::SECTOR;
use crate::sim::{Outcome, Violation};

/// What an engine (or a loaded store) says exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The volumes.
    pub volumes: Vec<VolumeInfo>,
    /// The snapshots of each.
    pub snapshots: BTreeMap<VolumeId, Vec<SnapshotInfo>>,
}

impl Inventory {
    /// What an engine says.
    #[must_use]
    pub fn of(engine: &Engine) -> Self {
        let volumes = engine.volumes();
        let of = |id| (id, engine.snapshots(id));
        let snapshots = volumes.iter().map(|v| of(v.id)).collect();
        Self { volumes, snapshots }
    }
}

impl Oracle {
    /// Compares, and settles the fate of commands that were cut off. Only a
    /// restart settles it for good: until then a failed commit may still happen.
    ///
    /// # Errors
    /// When something acknowledged is missing, something deleted is back, or
    /// something differs.
    pub fn reconcile(&mut self, found: &Inventory, restarted: bool) -> Outcome {
        let maybe = std::mem::take(&mut self.maybe);
        self.settle_volumes(found, &maybe)?;
        if restarted {
            self.settle_takes(found, &maybe)?;
        }
        for (command, _) in &maybe {
            self.settle_change(found, command);
        }
        if !restarted {
            self.maybe = maybe;
        }
        for volume in found.volumes.iter().filter(|v| !v.deleting) {
            self.compare_volume(volume, found.snapshots.get(&volume.id))?;
        }
        Ok(())
    }

    /// Whether a snapshot nobody was promised may be listed all the same.
    fn half_taken(&self, volume: VolumeId, name: &str) -> bool {
        self.maybe.iter().any(|(command, _)| match command {
            Command::Take { targets, .. } => targets.iter().any(|(v, n)| *v == volume && n == name),
            _ => false,
        })
    }

    fn settle_volumes(&mut self, found: &Inventory, maybe: &[(Command, Option<Take>)]) -> Outcome {
        for info in found.volumes.iter().filter(|v| !v.deleting) {
            if self.volumes.contains_key(&info.id) {
                continue;
            }
            let made = maybe.iter().find(
                |(c, _)| matches!(c, Command::CreateVolume { name, .. } if *name == info.name),
            );
            match made {
                Some((command, _)) if !self.gone_volumes.contains(&info.id) => {
                    self.add_volume(info.id, command);
                }
                _ => return Err(Violation(format!("volume {info:?} should not exist"))),
            }
        }
        let lives = |id: &VolumeId| found.volumes.iter().any(|v| v.id == *id && !v.deleting);
        let missing: Vec<VolumeId> = self
            .volumes
            .keys()
            .filter(|id| !lives(id))
            .copied()
            .collect();
        for id in missing {
            let deleted =
                |c: &Command| matches!(c, Command::DeleteVolume { volume } if *volume == id);
            if !maybe.iter().any(|(c, _)| deleted(c)) {
                return Err(Violation(format!(
                    "volume {id} is missing from {:?}",
                    found.volumes
                )));
            }
            self.forget_volume(id);
        }
        self.volumes.values_mut().for_each(|v| v.deleting = false);
        Ok(())
    }

    /// A take that was cut off is there for all of its volumes or for none.
    fn settle_takes(&mut self, found: &Inventory, maybe: &[(Command, Option<Take>)]) -> Outcome {
        let mut adopted: Vec<(Tag, usize)> = Vec::new();
        for (index, (command, _)) in maybe.iter().enumerate() {
            let Command::Take { targets, .. } = command else {
                continue;
            };
            let tags: Vec<Option<Tag>> = targets
                .iter()
                .map(|(v, name)| self.unknown(found, *v, name))
                .collect();
            let gone = |v: &VolumeId| !self.volumes.contains_key(v);
            let expected: Vec<_> = tags
                .iter()
                .zip(targets)
                .filter(|(_, (volume, _))| !gone(volume))
                .map(|(tag, _)| *tag)
                .collect();
            match expected.first() {
                Some(first) if expected.iter().any(|t| t != first) => {
                    return Err(Violation(format!(
                        "half a take: {targets:?} found as {tags:?}"
                    )));
                }
                Some(Some(tag)) => adopted.push((*tag, index)),
                _ => {}
            }
        }
        adopted.sort_unstable();
        for (tag, index) in adopted {
            let (command, take) = &maybe[index];
            self.add_snapshots(command, take.clone(), tag)?;
        }
        Ok(())
    }

    fn unknown(&self, found: &Inventory, volume: VolumeId, name: &str) -> Option<Tag> {
        let known = &self.volumes.get(&volume)?.snapshots;
        let list = found.snapshots.get(&volume)?;
        list.iter()
            .find(|s| s.name == name && !known.contains_key(&s.tag))
            .map(|s| s.tag)
    }

    /// A change that was cut off: whatever is found, old or new, is right.
    fn settle_change(&mut self, found: &Inventory, command: &Command) {
        if let Command::SetPolicy { volume, policy, .. } = command {
            let info = found.volumes.iter().find(|v| v.id == *volume);
            if info.is_some_and(|i| Some(i.policy) == *policy) {
                self.apply(command);
            }
        }
        if let Command::ResizeVolume { volume, size } = command {
            let info = found.volumes.iter().find(|v| v.id == *volume);
            if info.is_some_and(|i| i.size == *size) {
                self.apply(command);
            }
        }
        for (volume, tag) in subjects(command) {
            let list = found.snapshots.get(&volume);
            let info = list.and_then(|l| l.iter().find(|s| s.tag == tag));
            match (info, command) {
                (None, Command::DeleteSnapshots { .. }) => self.forget(volume, tag),
                (Some(info), Command::RenameSnapshot { name, .. }) if info.name == *name => {
                    self.apply(command);
                }
                (Some(info), Command::SetMapped { mapped, .. }) if info.mapped == *mapped => {
                    self.apply(command);
                }
                (Some(info), Command::SetHeld { held, .. }) if info.held == *held => {
                    self.apply(command);
                }
                (Some(info), Command::SetPriority { priority, .. })
                    if info.priority == *priority =>
                {
                    self.apply(command);
                }
                _ => {}
            }
            if let Some(snapshot) = self.snapshot(volume, tag) {
                (snapshot.busy, snapshot.deleting) = (false, false);
            }
        }
    }

    fn compare_volume(&mut self, info: &VolumeInfo, list: Option<&Vec<SnapshotInfo>>) -> Outcome {
        let trouble = self.allow.full || self.allow.store_errors;
        let id = info.id;
        let half: Vec<String> = list
            .into_iter()
            .flatten()
            .filter(|s| self.half_taken(id, &s.name))
            .map(|s| s.name.clone())
            .collect();
        let half_taken = |name: &String| half.contains(name);
        let gone = &self.gone;
        let Some(volume) = self.volumes.get_mut(&info.id) else {
            return Ok(());
        };
        if (&info.name, info.size, info.policy)
            != (&volume.name, volume.size * SECTOR as u64, volume.policy)
        {
            return Err(Violation(format!(
                "volume {info:?} should be {:?}",
                volume.name
            )));
        }
        let empty = Vec::new();
        let list = list.unwrap_or(&empty);
        for info in list {
            let Some(known) = volume.snapshots.get_mut(&info.tag) else {
                if half_taken(&info.name) {
                    continue;
                }
                let back = gone.contains(&(info.volume, info.tag));
                let what = if back {
                    "came back after its deletion"
                } else {
                    "was never taken"
                };
                return Err(Violation(format!("snapshot {info:?} {what}")));
            };
            let state_fits = match (known.state, info.state) {
                (SnapshotState::Live, SnapshotState::Dropped(_)) => trouble,
                (SnapshotState::Dropped(_), SnapshotState::Live) => false,
                _ => true,
            };
            let fields = (
                &info.name,
                info.priority,
                (info.mapped, info.held),
                info.created_ms,
                known.listed(info.size / SECTOR as u64),
            );
            let wanted = (
                &known.name,
                known.priority,
                (known.mapped, known.held),
                known.created_ms,
                true,
            );
            if !state_fits || fields != wanted {
                return Err(Violation(format!(
                    "snapshot {info:?} should be {wanted:?} and {:?}",
                    known.state
                )));
            }
            known.state = info.state;
        }
        for (tag, known) in &volume.snapshots {
            if !list.iter().any(|s| s.tag == *tag) {
                let name = &known.name;
                return Err(Violation(format!(
                    "snapshot {tag} {name:?} of {} is gone",
                    info.id
                )));
            }
        }
        Ok(())
    }
}
