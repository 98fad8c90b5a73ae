//! A person's commands.

use super::changes::Wanted;
use super::commit::Done;
use super::reads::drop_code;
use super::take::Request;
use super::{
    Command, CommandError, DropReason, Effect, Effects, Engine, MAX_FULL_WAIT_S, MAX_PATH, Policy,
    Reply, Seal, valid_name,
};
use crate::format::journal::Record;
use crate::format::tables::{
    HAS_FINGERPRINT, HELD, KIND_ORIGIN, MAPPED, SnapshotPhase, SnapshotRecord, VOLUME_LIVE,
    VolumeRecord, padded, text,
};
use crate::ids::{CommandId, Tag, VolumeId};
use crate::state::Volume;

/// Whether a name may be given to a volume or a snapshot.
pub(super) fn check_name(name: &str) -> Result<(), CommandError> {
    if valid_name(name) {
        Ok(())
    } else {
        Err(CommandError::BadName(name.to_owned()))
    }
}

impl Engine {
    /// Commands that change tables take effect one after the other, so that each
    /// is checked against what the one before it made durable.
    pub(super) fn run_commands(&mut self, out: &mut Effects) {
        while !self.command_busy {
            let Some((id, command)) = self.commands.pop_front() else {
                return;
            };
            self.run_command(id, command, out);
        }
    }

    pub(super) fn refuse_commands(&mut self, error: &CommandError, out: &mut Effects) {
        for (id, _) in std::mem::take(&mut self.commands) {
            out.list.push(Effect::Reply {
                id,
                result: Err(error.clone()),
            });
        }
    }

    pub(super) fn on_command(&mut self, id: CommandId, command: Command, out: &mut Effects) {
        match command {
            Command::Close => self.on_close(id, out),
            Command::WaitForRoom { volume, allowed } => {
                self.patience.allow(volume, allowed);
                let result = Ok(Reply::Done);
                out.list.push(Effect::Reply { id, result });
            }
            Command::Changes {
                volume,
                from,
                to,
                after,
            } => self.on_changes(id, volume, Wanted { from, to, after }, out),
            command => self.commands.push_back((id, command)),
        }
    }

    fn run_command(&mut self, id: CommandId, command: Command, out: &mut Effects) {
        if let Err(error) = self.accepts() {
            return out.list.push(Effect::Reply {
                id,
                result: Err(error),
            });
        }
        let result = match command {
            Command::Take {
                targets,
                priority,
                created_ms,
            } => {
                self.on_take(
                    Request {
                        id,
                        targets,
                        priority,
                        created_ms,
                    },
                    out,
                );
                return;
            }
            Command::Checkpoint => {
                self.checkpoint.request(id);
                return;
            }
            Command::ExtendStore { blocks } => return self.extend_store(id, blocks, out),
            Command::Close | Command::WaitForRoom { .. } | Command::Changes { .. } => return,
            Command::CreateVolume {
                name,
                uuid,
                size,
                origin,
                policy,
                created_ms,
            } => {
                let record = new_volume(&name, uuid, size, &origin, policy, created_ms);
                self.create_volume(id, &name, record, &origin)
            }
            Command::DeleteVolume { volume } => self.delete_volume(id, volume),
            Command::DeleteSnapshots { targets } => self.delete_snapshots(id, &targets),
            Command::RenameSnapshot { volume, tag, name } => self.rename(id, volume, tag, &name),
            Command::SetMapped {
                volume,
                tag,
                mapped,
            } => self.change_snapshot(id, volume, tag, |s| set_flag(s, MAPPED, mapped)),
            Command::SetHeld { volume, tag, held } => {
                self.change_snapshot(id, volume, tag, |s| set_flag(s, HELD, held))
            }
            Command::SetPriority {
                volume,
                tag,
                priority,
            } => self.change_snapshot(id, volume, tag, |s| s.priority = priority.into()),
            Command::SetPolicy {
                volume,
                policy,
                full_wait_s,
            } => self.set_policy(id, volume, policy, full_wait_s),
            Command::ResizeVolume { volume, size } => self.resize_volume(id, volume, size),
            Command::Seal { volume, seal } => self.change_volume(id, volume, |v| {
                let (flags, bytes) = match seal {
                    Seal::Fingerprint(bytes) => (HAS_FINGERPRINT, bytes),
                    Seal::Use(bytes) => (0, bytes),
                };
                v.flags = flags.into();
                v.fingerprint = bytes;
            }),
            Command::DropSnapshots { volume, reason } => self.drop_by_command(id, volume, reason),
        };
        match result {
            Ok(()) => self.command_busy = true,
            Err(error) => out.list.push(Effect::Reply {
                id,
                result: Err(error),
            }),
        }
    }

    pub(super) fn accepts(&self) -> Result<(), CommandError> {
        if self.closing.is_some() {
            return Err(CommandError::Closing);
        }
        match &self.failed {
            Some(reason) => Err(CommandError::StoreFailed(reason.clone())),
            None => Ok(()),
        }
    }

    /// A volume that is there and not being deleted.
    pub(super) fn volume(&self, id: VolumeId) -> Result<&Volume, CommandError> {
        let volume = self.state.volumes.get(&id).filter(|v| !v.deleting());
        volume.ok_or(CommandError::NoVolume(id))
    }

    fn snapshot(&self, id: VolumeId, tag: Tag) -> Result<&SnapshotRecord, CommandError> {
        let record = self.volume(id)?.snapshots.get(&tag);
        let visible = |r: &&SnapshotRecord| {
            matches!(
                r.phase(),
                Some(SnapshotPhase::Live | SnapshotPhase::Dropped)
            )
        };
        record
            .filter(visible)
            .ok_or(CommandError::NoSnapshot(id, tag))
    }

    fn create_volume(
        &mut self,
        id: CommandId,
        name: &str,
        record: VolumeRecord,
        origin: &str,
    ) -> Result<(), CommandError> {
        check_name(name)?;
        if self
            .state
            .volumes
            .values()
            .any(|v| text(&v.record.name) == name && !v.deleting())
        {
            return Err(CommandError::NameTaken(name.to_owned()));
        }
        if origin.is_empty() || origin.len() > MAX_PATH || origin.contains('\0') {
            let text = format!(
                "the origin's path must have 1 to {MAX_PATH} bytes; use a shorter path or a link"
            );
            return Err(CommandError::Invalid(text));
        }
        check_size(record.size.get())?;
        if !self.room_for_records(16) {
            return Err(CommandError::NoSpace);
        }
        let volume = VolumeId(self.state.next_volume);
        let chunk = self.chunk_size().into();
        Volume::new(volume, record, chunk)
            .map_err(|damage| CommandError::Invalid(damage.to_string()))?;
        self.state.next_volume += 1;
        let reply = Done::Reply(id, Ok(Reply::Volume(volume)));
        self.append(
            Record::VolumeChanged {
                volume,
                record: Box::new(record),
            },
            reply,
        );
        Ok(())
    }

    fn delete_volume(&mut self, id: CommandId, volume: VolumeId) -> Result<(), CommandError> {
        self.volume(volume)?;
        if self.takes.involves(volume) {
            return Err(CommandError::Busy(format!(
                "a snapshot of volume {volume} is being taken"
            )));
        }
        self.append(
            Record::VolumeDeleted { volume },
            Done::Reply(id, Ok(Reply::Done)),
        );
        Ok(())
    }

    fn delete_snapshots(
        &mut self,
        id: CommandId,
        targets: &[(VolumeId, Tag)],
    ) -> Result<(), CommandError> {
        for (index, (volume, tag)) in targets.iter().enumerate() {
            let record = self.snapshot(*volume, *tag)?;
            if record.flags.get() & MAPPED != 0 {
                let name = text(&record.name);
                let text = format!("snapshot {name} is mapped; unmap it first");
                return Err(CommandError::Busy(text));
            }
            if targets
                .iter()
                .skip(index + 1)
                .any(|other| *other == (*volume, *tag))
            {
                return Err(CommandError::Invalid(format!(
                    "snapshot {tag} is named twice"
                )));
            }
        }
        let Some((last, others)) = targets.split_last() else {
            return Err(CommandError::Invalid("no snapshot is named".to_owned()));
        };
        for (volume, tag) in others {
            let record = Record::SnapshotDeleted {
                volume: *volume,
                tag: *tag,
            };
            self.append(record, Done::Nothing);
        }
        let record = Record::SnapshotDeleted {
            volume: last.0,
            tag: last.1,
        };
        self.append(record, Done::Reply(id, Ok(Reply::Done)));
        Ok(())
    }

    fn rename(
        &mut self,
        id: CommandId,
        volume: VolumeId,
        tag: Tag,
        name: &str,
    ) -> Result<(), CommandError> {
        check_name(name)?;
        if text(&self.snapshot(volume, tag)?.name) != name
            && (self.volume(volume)?.has_name(name) || self.takes.has_name(volume, name))
        {
            return Err(CommandError::NameTaken(name.to_owned()));
        }
        self.change_snapshot(id, volume, tag, |s| s.name = padded(name))
    }

    fn change_snapshot(
        &mut self,
        id: CommandId,
        volume: VolumeId,
        tag: Tag,
        change: impl FnOnce(&mut SnapshotRecord),
    ) -> Result<(), CommandError> {
        let mut record = *self.snapshot(volume, tag)?;
        change(&mut record);
        let record = Record::SnapshotChanged {
            volume,
            tag,
            flags: record.flags.get(),
            priority: record.priority.get(),
            name: Box::new(record.name),
        };
        self.append(record, Done::Reply(id, Ok(Reply::Done)));
        Ok(())
    }

    fn change_volume(
        &mut self,
        id: CommandId,
        volume: VolumeId,
        change: impl FnOnce(&mut VolumeRecord),
    ) -> Result<(), CommandError> {
        let mut record = self.volume(volume)?.record;
        change(&mut record);
        let record = Record::VolumeChanged {
            volume,
            record: Box::new(record),
        };
        self.append(record, Done::Reply(id, Ok(Reply::Done)));
        Ok(())
    }

    fn set_policy(
        &mut self,
        id: CommandId,
        volume: VolumeId,
        policy: Option<Policy>,
        full_wait_s: Option<u32>,
    ) -> Result<(), CommandError> {
        if let Some(seconds) = full_wait_s.filter(|seconds| *seconds > MAX_FULL_WAIT_S) {
            let text = format!("a write waits for room at most {MAX_FULL_WAIT_S} s, not {seconds}");
            return Err(CommandError::Invalid(text));
        }
        self.change_volume(id, volume, |v| {
            if let Some(policy) = policy {
                v.policy = policy_code(policy).into();
            }
            if let Some(seconds) = full_wait_s {
                v.full_wait_s = seconds.into();
            }
        })
    }

    fn resize_volume(
        &mut self,
        id: CommandId,
        volume: VolumeId,
        wanted: u64,
    ) -> Result<(), CommandError> {
        check_size(wanted)?;
        let known = self.volume(volume)?;
        let size = known.record.size.get();
        if wanted < size {
            return Err(CommandError::Shrinks {
                volume: text(&known.record.name),
                size,
                wanted,
            });
        }
        // Now: when the record is durable nothing may fail any more.
        let chunks = wanted.div_ceil(self.chunk_size().into());
        known.unique.reserve(chunks).map_err(|_| {
            let text = format!("{wanted} bytes are too many for this machine's memory");
            CommandError::Invalid(text)
        })?;
        self.change_volume(id, volume, |v| v.size = wanted.into())
    }

    fn drop_by_command(
        &mut self,
        id: CommandId,
        volume: VolumeId,
        reason: DropReason,
    ) -> Result<(), CommandError> {
        let live: Vec<Tag> = self.volume(volume)?.live().collect();
        if self.takes.involves(volume) {
            return Err(CommandError::Busy(format!(
                "a snapshot of volume {volume} is being taken"
            )));
        }
        for tag in live {
            let record = Record::SnapshotDropped {
                volume,
                tag,
                reason: drop_code(reason),
            };
            self.append(record, Done::VictimDropped(volume, tag));
        }
        // A harmless record carries the reply behind all of them.
        self.change_volume(id, volume, |_| ())
    }
}

fn set_flag(record: &mut SnapshotRecord, flag: u32, on: bool) {
    let others = record.flags.get() & !flag;
    record.flags = (others | if on { flag } else { 0 }).into();
}

fn check_size(size: u64) -> Result<(), CommandError> {
    if size > 0 && size.is_multiple_of(512) {
        return Ok(());
    }
    let text = format!("an origin's size must be a multiple of 512 bytes, not {size}");
    Err(CommandError::Invalid(text))
}

/// How a policy stands on disk.
fn policy_code(policy: Policy) -> u32 {
    match policy {
        Policy::OriginFirst => 0,
        Policy::SnapshotFirst => 1,
    }
}

fn new_volume(
    name: &str,
    uuid: [u8; 16],
    size: u64,
    origin: &str,
    policy: Policy,
    created_ms: u64,
) -> VolumeRecord {
    VolumeRecord {
        state: VOLUME_LIVE.into(),
        kind: KIND_ORIGIN.into(),
        policy: policy_code(policy).into(),
        flags: 0.into(),
        size: size.into(),
        created_ms: created_ms.into(),
        held: 0.into(),
        parent_volume: 0.into(),
        full_wait_s: 0.into(),
        parent_tag: 0.into(),
        uuid,
        fingerprint: [0; 32],
        name: padded(name),
        origin: padded(origin),
    }
}
