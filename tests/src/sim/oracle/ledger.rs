//! Commands: what they promise once acknowledged, and how they may fail.

use std::collections::BTreeMap;
use std::ops::Range;

use snapstore::engine::{Command, CommandError, DropReason, Notice, Policy, Reply, SnapshotState};
use snapstore::ids::CommandId;
use snapstore::{Tag, VolumeId};

use super::image::{Choice, Snapshot};
use super::instant::Instant;
use super::{Image, Oracle, Take, Volume};
use crate::sim::value::SECTOR;
use crate::sim::{Outcome, Violation};

/// The path under which an origin disk is known to the engine.
#[must_use]
pub fn path_of(origin: usize) -> String {
    format!("/sim/origin-{origin}")
}

/// The origin disk behind a path.
#[must_use]
pub fn origin_at(path: &str) -> Option<usize> {
    path.strip_prefix("/sim/origin-")?.parse().ok()
}

impl Oracle {
    /// A command is submitted.
    pub fn commanded(&mut self, id: CommandId, command: &Command) {
        self.tick();
        match command {
            Command::Take { targets, .. } => {
                let image = |(volume, _): &(VolumeId, String)| (*volume, self.image_of(*volume));
                let images = targets.iter().map(image).collect();
                let mut instant = Instant::new(self.clock);
                for (volume, _) in targets {
                    if let Some(volume_of) = self.volumes.get(volume) {
                        let origin = &self.origins[volume_of.origin];
                        instant.covers(*volume, origin, volume_of.size);
                    }
                }
                let take = Take {
                    after: self.highest,
                    images,
                    instant,
                };
                self.takes.insert(id, take);
            }
            Command::DeleteVolume { volume } => {
                if let Some(volume) = self.volumes.get_mut(volume) {
                    volume.deleting = true;
                }
            }
            Command::Close => self.allow.closing = true,
            Command::ResizeVolume { volume, size } => {
                self.may_grow(*volume, size / SECTOR as u64);
            }
            Command::SetHeld {
                volume, held: true, ..
            } => {
                let open = self.open.values_mut().filter(|o| o.volume == *volume);
                open.for_each(|o| o.held = true);
            }
            Command::SetPolicy {
                volume,
                policy: Some(Policy::SnapshotFirst),
                ..
            } => {
                let open = self.open.values_mut().filter(|o| o.volume == *volume);
                open.for_each(|o| o.strict = true);
            }
            _ => {}
        }
        let deletes = matches!(command, Command::DeleteSnapshots { .. });
        for (volume, tag) in subjects(command) {
            if let Some(snapshot) = self.snapshot(volume, tag) {
                snapshot.busy = true;
                snapshot.deleting |= deletes;
            }
        }
        self.pending.insert(id, command.clone());
    }

    /// A command was answered.
    ///
    /// # Errors
    /// When it was answered twice, or failed as it may not.
    pub fn replied(&mut self, id: CommandId, result: &Result<Reply, CommandError>) -> Outcome {
        self.tick();
        let Some(command) = self.pending.remove(&id) else {
            return Err(Violation(format!(
                "command {id:?} was answered and is not pending"
            )));
        };
        let mut take = self.takes.remove(&id);
        let now = self.clock;
        take.iter_mut().for_each(|take| take.instant.over(now));
        for (volume, tag) in subjects(&command) {
            if let Some(snapshot) = self.snapshot(volume, tag) {
                snapshot.busy = false;
            }
        }
        match result {
            Ok(reply) => self.done(&command, take, reply),
            Err(error) => self.failed(command, take, error),
        }
    }

    /// The engine said something.
    ///
    /// # Errors
    /// When it dropped what it may not.
    pub fn noticed(&mut self, notice: &Notice) -> Outcome {
        self.tick();
        match notice {
            Notice::SnapshotDropped {
                volume,
                tag,
                reason,
                ..
            } => {
                let asked = *reason == DropReason::Asked;
                if !(self.allow.full || self.allow.store_errors || asked) {
                    return Err(Violation(format!("dropped without need: {notice:?}")));
                }
                if *reason == DropReason::StoreFull {
                    self.right_victim(*volume, *tag)?;
                }
                match self.snapshot(*volume, *tag) {
                    Some(snapshot) => snapshot.state = SnapshotState::Dropped(*reason),
                    None => drop(self.dropped.insert((*volume, *tag), *reason)),
                }
            }
            Notice::ChunkLost { .. } if !(self.allow.origin_reads || self.allow.full) => {
                return Err(Violation(format!("lost without need: {notice:?}")));
            }
            Notice::Damage { .. } | Notice::DataDamaged { .. }
                if !(self.damage.any() || self.allow.store_errors) =>
            {
                return Err(Violation(format!("damage nobody did: {notice:?}")));
            }
            Notice::StoreFailed { .. } if !self.allow.store_errors => {
                return Err(Violation(format!("failed without error: {notice:?}")));
            }
            _ => {}
        }
        Ok(())
    }

    /// Lowest priority first, then oldest, only where the origin comes first, and none
    /// that is held. With
    /// commands under way nobody can say what the engine knew.
    fn right_victim(&self, id: VolumeId, tag: Tag) -> Outcome {
        if !self.pending.is_empty() || !self.maybe.is_empty() {
            return Ok(());
        }
        let origin_first = self
            .volumes
            .values()
            .filter(|v| v.policy == Policy::OriginFirst);
        let live = origin_first
            .flat_map(|v| &v.snapshots)
            .filter(|(_, s)| s.state == SnapshotState::Live && !s.held);
        let rank = |(tag, snapshot): (&Tag, &Snapshot)| (snapshot.priority, *tag);
        let first = live.map(rank).min();
        let known = self.volumes.get(&id).and_then(|v| v.snapshots.get(&tag));
        // Not known yet: its take has not been answered.
        if known.is_none() {
            return Ok(());
        }
        match known.map(|s| (s.priority, tag)) {
            rank if rank == first => Ok(()),
            other => Err(Violation(format!(
                "dropped {other:?} of volume {id} before {first:?}"
            ))),
        }
    }

    /// A snapshot's model.
    pub fn snapshot(&mut self, volume: VolumeId, tag: Tag) -> Option<&mut Snapshot> {
        self.volumes.get_mut(&volume)?.snapshots.get_mut(&tag)
    }

    fn image_of(&self, id: VolumeId) -> Image {
        let Some(volume) = self.volumes.get(&id) else {
            return Image::default();
        };
        let most = self.growing(id).unwrap_or(0).max(volume.size);
        Image {
            least: volume.size,
            sectors: self.choices(volume.origin, 0..most),
        }
    }

    fn choices(&self, origin: usize, sectors: Range<u64>) -> Vec<Choice> {
        let model = &self.origins[origin];
        sectors
            .map(|sector| Choice::of(model.possible(sector)))
            .collect()
    }

    /// Takes under way may catch the volume larger.
    fn may_grow(&mut self, id: VolumeId, size: u64) {
        let Some(volume) = self.volumes.get(&id) else {
            return;
        };
        let new = self.choices(volume.origin, 0..size);
        let images = self
            .takes
            .values_mut()
            .filter_map(|t| t.images.get_mut(&id));
        for Image { sectors, .. } in images {
            let known = sectors.len();
            sectors.extend(new.iter().skip(known).cloned());
        }
    }

    fn done(&mut self, command: &Command, take: Option<Take>, reply: &Reply) -> Outcome {
        match (command, reply) {
            (Command::CreateVolume { .. }, Reply::Volume(volume)) => {
                if self.volumes.contains_key(volume) || self.gone_volumes.contains(volume) {
                    return Err(Violation(format!("volume number {volume} was given twice")));
                }
                self.add_volume(*volume, command);
            }
            (Command::Take { .. }, Reply::Taken(tag)) => {
                return self.add_snapshots(command, take, *tag);
            }
            (Command::CreateVolume { .. } | Command::Take { .. }, _)
            | (_, Reply::Volume(_) | Reply::Taken(_)) => {
                return Err(Violation(format!("{command:?} was answered {reply:?}")));
            }
            _ => self.apply(command),
        }
        Ok(())
    }

    pub(super) fn add_volume(&mut self, id: VolumeId, command: &Command) {
        let Command::CreateVolume {
            name,
            size,
            origin,
            policy,
            ..
        } = command
        else {
            return;
        };
        let volume = Volume {
            name: name.clone(),
            origin: origin_at(origin).unwrap_or(0),
            size: size / SECTOR as u64,
            policy: *policy,
            snapshots: BTreeMap::new(),
            deleting: false,
        };
        self.volumes.insert(id, volume);
    }

    pub(super) fn add_snapshots(
        &mut self,
        command: &Command,
        take: Option<Take>,
        tag: Tag,
    ) -> Outcome {
        let Command::Take {
            targets,
            priority,
            created_ms,
        } = command
        else {
            return Ok(());
        };
        let after = take.as_ref().map_or(self.highest, |t| t.after);
        let known = |v: &Volume| v.snapshots.contains_key(&tag);
        if tag <= after || self.volumes.values().any(known) {
            return Err(Violation(format!(
                "tag {tag} was given, but {after} was there before"
            )));
        }
        self.highest = self.highest.max(tag);
        let mut images = BTreeMap::new();
        if let Some(take) = take {
            images = take.images;
            self.instants.insert(tag, take.instant);
        }
        for (volume, name) in targets {
            let image = images.remove(volume).unwrap_or_default();
            let mut snapshot = Snapshot::new(name.clone(), *priority, *created_ms, image.sectors);
            snapshot.size = image.least;
            if let Some(reason) = self.dropped.get(&(*volume, tag)) {
                snapshot.state = SnapshotState::Dropped(*reason);
            }
            if let Some(volume) = self.volumes.get_mut(volume) {
                volume.snapshots.insert(tag, snapshot);
            }
        }
        Ok(())
    }

    /// The lasting effect of a command on what exists.
    pub(super) fn apply(&mut self, command: &Command) {
        match command {
            Command::DeleteVolume { volume } => self.forget_volume(*volume),
            Command::DeleteSnapshots { targets } => {
                targets
                    .iter()
                    .for_each(|(volume, tag)| self.forget(*volume, *tag));
            }
            Command::SetPolicy { volume, policy, .. } => {
                if let Some(volume) = self.volumes.get_mut(volume) {
                    volume.policy = policy.unwrap_or(volume.policy);
                }
            }
            Command::ResizeVolume { volume, size } => {
                if let Some(volume) = self.volumes.get_mut(volume) {
                    volume.size = size / SECTOR as u64;
                }
            }
            Command::DropSnapshots { volume, reason } => {
                let snapshots = self.volumes.get_mut(volume).map(|v| &mut v.snapshots);
                for snapshot in snapshots.into_iter().flat_map(BTreeMap::values_mut) {
                    if snapshot.state == SnapshotState::Live {
                        snapshot.state = SnapshotState::Dropped(*reason);
                    }
                }
            }
            Command::RenameSnapshot { volume, tag, name } => {
                self.change(*volume, *tag, |s| s.name.clone_from(name));
            }
            Command::SetMapped {
                volume,
                tag,
                mapped,
            } => {
                self.change(*volume, *tag, |s| s.mapped = *mapped);
            }
            Command::SetPriority {
                volume,
                tag,
                priority,
            } => {
                self.change(*volume, *tag, |s| s.priority = *priority);
            }
            Command::SetHeld { volume, tag, held } => {
                self.change(*volume, *tag, |s| s.held = *held);
            }
            _ => {}
        }
    }

    fn change(&mut self, volume: VolumeId, tag: Tag, how: impl FnOnce(&mut Snapshot)) {
        if let Some(snapshot) = self.snapshot(volume, tag) {
            how(snapshot);
        }
    }

    pub(super) fn forget(&mut self, volume: VolumeId, tag: Tag) {
        if let Some(volume) = self.volumes.get_mut(&volume) {
            volume.snapshots.remove(&tag);
        }
        self.gone.insert((volume, tag));
    }

    pub(super) fn forget_volume(&mut self, volume: VolumeId) {
        self.volumes.remove(&volume);
        self.gone_volumes.insert(volume);
    }

    fn failed(&mut self, command: Command, take: Option<Take>, error: &CommandError) -> Outcome {
        if !self.command_may_fail(&command, error) {
            return Err(Violation(format!("{command:?} failed: {error}")));
        }
        if matches!(error, CommandError::StoreFailed(_)) {
            // A commit whose flush failed may have happened all the same.
            self.maybe.push((command, take));
            return Ok(());
        }
        for (volume, tag) in subjects(&command) {
            self.change(volume, tag, |s| s.deleting = false);
        }
        if let Command::DeleteVolume { volume } = &command
            && let Some(volume) = self.volumes.get_mut(volume)
        {
            volume.deleting = false;
        }
        Ok(())
    }

    fn command_may_fail(&mut self, command: &Command, error: &CommandError) -> bool {
        let allow = self.allow;
        let takes = matches!(command, Command::Take { .. });
        match error {
            CommandError::NoSpace => allow.full,
            CommandError::OriginFlush(..) => takes && allow.origin_writes,
            CommandError::DrainTimeout => takes && allow.give_up,
            CommandError::StoreFailed(_) | CommandError::NewEnd(_) => allow.store_errors,
            CommandError::Damaged { .. } => allow.store_errors,
            CommandError::Closing => allow.closing,
            CommandError::Busy(_) => takes || self.touches_mapped(command),
            CommandError::NameTaken(name) => self.name_taken(command, name),
            _ => false,
        }
    }

    fn touches_mapped(&mut self, command: &Command) -> bool {
        if let Command::DeleteVolume { volume } = command {
            let volume = self.volumes.get(volume);
            return volume.is_some_and(|v| v.snapshots.values().any(|s| s.mapped))
                || !self.takes.is_empty();
        }
        subjects(command).any(|(v, t)| self.snapshot(v, t).is_some_and(|s| s.mapped))
    }

    fn name_taken(&self, command: &Command, name: &str) -> bool {
        match command {
            Command::CreateVolume { .. } => self.volumes.values().any(|v| v.name == name),
            Command::Take { targets, .. } => targets.iter().any(|(volume, name)| {
                let volume = self.volumes.get(volume);
                volume.is_some_and(|v| v.snapshots.values().any(|s| s.name == *name))
            }),
            Command::RenameSnapshot { volume, .. } => {
                let volume = self.volumes.get(volume);
                volume.is_some_and(|v| v.snapshots.values().any(|s| s.name == name))
            }
            _ => false,
        }
    }

    /// Whether a volume follows the policy that rather fails writes, or is about to.
    pub(super) fn snapshots_may_be_first(&self, id: VolumeId) -> bool {
        let first = Policy::SnapshotFirst;
        let asked = |c: &Command| match c {
            Command::SetPolicy { volume, policy, .. } => *volume == id && *policy == Some(first),
            _ => false,
        };
        self.volumes.get(&id).is_some_and(|v| v.policy == first)
            || self
                .pending
                .values()
                .chain(self.maybe.iter().map(|(c, _)| c))
                .any(asked)
    }

    /// Whether a snapshot of the volume is held, or may be.
    pub(super) fn may_hold(&self, id: VolumeId) -> bool {
        let asked = |c: &Command| match c {
            Command::SetHeld { volume, held, .. } => *volume == id && *held,
            _ => false,
        };
        let volume = self.volumes.get(&id);
        volume.is_some_and(|v| v.snapshots.values().any(|s| s.held))
            || self
                .pending
                .values()
                .chain(self.maybe.iter().map(|(c, _)| c))
                .any(asked)
    }
}

/// The snapshots a command is about.
pub(super) fn subjects(command: &Command) -> impl Iterator<Item = (VolumeId, Tag)> + use<> {
    match command {
        Command::DeleteSnapshots { targets } => targets.clone(),
        Command::RenameSnapshot { volume, tag, .. }
        | Command::SetMapped { volume, tag, .. }
        | Command::SetHeld { volume, tag, .. }
        | Command::SetPriority { volume, tag, .. } => vec![(*volume, *tag)],
        _ => Vec::new(),
    }
    .into_iter()
}
