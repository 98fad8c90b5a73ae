//! Taking a snapshot of one or several volumes at one instant.
//!
//! flush the origins -> pause: no origin write is issued, those issued complete
//! -> new tag, new epoch, "prepared" records -> resume -> flush the origins again
//! -> commit record -> reply. Writes that were waiting for copyouts are not
//! drained: they walk again under the new epoch. Copyouts for the new tag follow
//! the prepared records in the journal, so a crash before the commit record leaves
//! no snapshot and harmless exceptions.

use std::collections::VecDeque;

use super::commit::Done;
use super::{CommandError, Effect, Effects, Engine, Io, MAX_GROUP, Reply};
use crate::device::IoError;
use crate::format::journal::Record;
use crate::format::tables::{SnapshotPhase, SnapshotRecord, padded};
use crate::ids::{CommandId, IoId, Tag, VolumeId};

/// Takes, one at a time.
#[derive(Debug, Default)]
pub(super) struct Takes {
    current: Option<Take>,
    queue: VecDeque<Request>,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: CommandId,
    pub(super) targets: Vec<(VolumeId, String)>,
    pub(super) priority: i32,
    pub(super) created_ms: u64,
}

#[derive(Debug)]
struct Take {
    request: Request,
    tag: Tag,
    stage: Stage,
    /// Origin flushes not yet answered.
    flushes: usize,
    error: Option<CommandError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    FlushBefore,
    Pausing,
    FlushAfter,
    Committing,
}

impl Takes {
    pub(super) fn idle(&self) -> bool {
        self.current.is_none() && self.queue.is_empty()
    }

    /// Whether a take of this volume is queued or under way.
    pub(super) fn involves(&self, volume: VolumeId) -> bool {
        let requests = self.current.iter().map(|t| &t.request).chain(&self.queue);
        requests.flat_map(|r| &r.targets).any(|(v, _)| *v == volume)
    }

    /// Whether a snapshot of this name is about to exist.
    pub(super) fn has_name(&self, volume: VolumeId, name: &str) -> bool {
        let requests = self.current.iter().map(|t| &t.request).chain(&self.queue);
        requests
            .flat_map(|r| &r.targets)
            .any(|(v, n)| *v == volume && n == name)
    }
}

impl Engine {
    pub(super) fn on_take(&mut self, request: Request, out: &mut Effects) {
        match self.check_take(&request) {
            Ok(()) => {
                self.takes.queue.push_back(request);
                self.next_take(out);
            }
            Err(error) => {
                out.list.push(Effect::Reply {
                    id: request.id,
                    result: Err(error),
                });
            }
        }
    }

    fn check_take(&self, request: &Request) -> Result<(), CommandError> {
        let targets = &request.targets;
        if targets.is_empty() || targets.len() > MAX_GROUP {
            let text = format!(
                "a take names 1 to {MAX_GROUP} volumes, not {}",
                targets.len()
            );
            return Err(CommandError::Invalid(text));
        }
        for (index, (id, name)) in targets.iter().enumerate() {
            super::commands::check_name(name)?;
            let volume = self.volume(*id)?;
            if targets.iter().skip(index + 1).any(|(other, _)| other == id) {
                return Err(CommandError::Invalid(format!("volume {id} is named twice")));
            }
            if volume.has_name(name) || self.takes.has_name(*id, name) {
                return Err(CommandError::NameTaken(name.clone()));
            }
        }
        if self.room_for_records(64) {
            Ok(())
        } else {
            Err(CommandError::NoSpace)
        }
    }

    fn next_take(&mut self, out: &mut Effects) {
        if self.takes.current.is_some() {
            return;
        }
        let Some(request) = self.takes.queue.pop_front() else {
            return;
        };
        // Even a take that fails uses its tag up.
        let tag = Tag(self.state.next_tag);
        self.state.next_tag += 1;
        let stage = Stage::FlushBefore;
        self.takes.current = Some(Take {
            request,
            tag,
            stage,
            flushes: 0,
            error: None,
        });
        self.flush_origins(out);
    }

    fn flush_origins(&mut self, out: &mut Effects) {
        let Some(take) = &mut self.takes.current else {
            return;
        };
        let volumes: Vec<VolumeId> = take.request.targets.iter().map(|(v, _)| *v).collect();
        take.flushes = volumes.len();
        for volume in volumes {
            let io = self.new_io(Io::TakeFlush { volume });
            out.list.push(Effect::FlushOrigin { io, volume });
        }
    }

    pub(super) fn take_flushed(
        &mut self,
        volume: VolumeId,
        result: Result<(), IoError>,
        out: &mut Effects,
    ) {
        let Some(take) = &mut self.takes.current else {
            return;
        };
        if let Err(error) = result {
            take.error = Some(CommandError::OriginFlush(volume, error));
        }
        take.flushes -= 1;
        if take.flushes > 0 {
            return;
        }
        if let Some(reason) = self.failed.clone() {
            return self.take_ended(Err(CommandError::StoreFailed(reason)), out);
        }
        match (take.stage, take.error.clone()) {
            (Stage::FlushBefore, Some(error)) => self.take_ended(Err(error), out),
            (Stage::FlushBefore, None) => {
                take.stage = Stage::Pausing;
                let volumes = take.request.targets.iter().map(|(v, _)| *v).collect();
                let io = self.new_io(Io::Pause);
                out.list.push(Effect::Pause { io, volumes });
            }
            (_, error) => {
                take.stage = Stage::Committing;
                let tag = take.tag;
                match error {
                    // Indeterminate origins: the abort is durable before the reply.
                    Some(e) => self.append(Record::TakeAborted { tag }, Done::TakeEnd(Err(e))),
                    None => self.append(Record::TakeCommitted { tag }, Done::TakeEnd(Ok(tag))),
                }
            }
        }
    }

    pub(super) fn take_paused(&mut self, io: IoId, drained: bool, out: &mut Effects) {
        if !drained {
            return self.take_ended(Err(CommandError::DrainTimeout), out);
        }
        if self.takes.current.is_some() && self.failed.is_none() {
            self.pass_gate();
        }
        out.list.push(Effect::Resume { io });
        match &self.failed {
            None => self.flush_origins(out),
            Some(reason) => {
                let error = CommandError::StoreFailed(reason.clone());
                self.take_ended(Err(error), out);
            }
        }
    }

    /// The instant of the snapshots: no origin write is in flight.
    fn pass_gate(&mut self) {
        let Some(take) = &mut self.takes.current else {
            return;
        };
        take.stage = Stage::FlushAfter;
        let (tag, priority, created) = (take.tag, take.request.priority, take.request.created_ms);
        for (id, name) in take.request.targets.clone() {
            let Some(volume) = self.state.volumes.get_mut(&id) else {
                continue;
            };
            volume.taking = tag;
            volume.unique.advance();
            let snapshot = SnapshotRecord {
                phase: (SnapshotPhase::Prepared as u32).into(),
                flags: 0.into(),
                reason: 0.into(),
                priority: priority.into(),
                created_ms: created.into(),
                size: volume.record.size,
                name: padded(&name),
            };
            let record = Record::TakePrepared {
                volume: id,
                tag,
                snapshot: Box::new(snapshot),
            };
            self.append(record, Done::Nothing);
        }
    }

    /// The take under way is over, well or not.
    pub(super) fn take_ended(&mut self, result: Result<Tag, CommandError>, out: &mut Effects) {
        let Some(take) = self.takes.current.take() else {
            return;
        };
        let result = result.map(Reply::Taken);
        out.list.push(Effect::Reply {
            id: take.request.id,
            result,
        });
        self.next_take(out);
    }

    /// Answers every queued take; the one under way ends by itself.
    pub(super) fn refuse_takes(&mut self, error: &CommandError, out: &mut Effects) {
        for request in std::mem::take(&mut self.takes.queue) {
            out.list.push(Effect::Reply {
                id: request.id,
                result: Err(error.clone()),
            });
        }
    }
}
