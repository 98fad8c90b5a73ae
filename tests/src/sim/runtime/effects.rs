//! Carrying out what the engine asks for.

use snapstore::engine::{Effect, Source};
use snapstore::ids::IoId;
use snapstore::{Event, IoError, VolumeId};

use super::io::Use;
use super::request::Piece;
use super::{Answer, Dev, Failure, Outcome, Runtime, Task, Violation};
use crate::sim::defect::Defect;
use crate::sim::disk::sync::sectors_of_block;
use crate::sim::value::{Data, PER_BLOCK, SECTOR};

impl Runtime {
    /// Notes an effect; most wait their turn among the tasks.
    pub(super) fn accept(&mut self, effect: Effect, crcs: Vec<u32>) -> Outcome {
        match effect {
            Effect::Again => self.again = true,
            Effect::Notice(notice) => self.answers.push(Answer::Notice(notice)),
            Effect::Pause { io, volumes } => return self.pause(io, volumes),
            Effect::Resume { io } => return self.resume(io),
            Effect::ReadFrom {
                owner,
                grant,
                first,
                count,
                source,
                last,
                ..
            } => {
                let count = u64::from(count);
                let expected = (count * self.chunk / PER_BLOCK) as usize;
                if matches!(source, Source::Store { .. }) && crcs.len() != expected {
                    return Err(Violation(format!(
                        "piece {first}+{count} from {source:?} carries {} checksums, not {expected}",
                        crcs.len()
                    )));
                }
                let piece = Piece {
                    first,
                    count,
                    source,
                    crcs,
                };
                return self.add_piece(owner, grant, piece, last);
            }
            other => self.later(Task::Effect(other)),
        }
        Ok(())
    }

    pub(super) fn carry_out(&mut self, task: Task) -> Outcome {
        match task {
            Task::Begin(owner) => self.begin(owner),
            Task::Piece(owner, index) => self.read_piece(owner, index),
            Task::PauseLane(io, lane) => {
                self.pause_lane(io, lane);
                Ok(())
            }
            Task::ResumeLane(io, lane) => {
                self.resume_lane(io, lane);
                Ok(())
            }
            Task::Effect(effect) => self.apply(effect),
        }
    }

    fn apply(&mut self, effect: Effect) -> Outcome {
        match effect {
            Effect::WriteGranted { owner, epoch } => return self.granted(owner, epoch),
            Effect::WriteFailed { owner, error } | Effect::ReadFailed { owner, error } => {
                self.asked(owner, false)?;
                if self
                    .requests
                    .get(&owner.0)
                    .is_some_and(|r| !r.pieces.is_empty())
                {
                    return Err(Violation(format!(
                        "read {} failed after it had been granted a piece",
                        owner.0
                    )));
                }
                return self.end(owner.0, Err(Failure::Refused(error)));
            }
            Effect::Copy {
                copy,
                volume,
                first,
                count,
                bytes,
                block,
            } => {
                let chunks = (first, u64::from(count), u64::from(bytes));
                return self.copy(copy, volume, chunks, block);
            }
            Effect::ReadBlock { io, block } => return self.read_block(io, block),
            Effect::WriteBlock {
                io,
                block,
                data,
                fua,
            } => {
                let data: Vec<Data> = sectors_of_block(&data).collect();
                return self.write_block(io, block, &data, fua);
            }
            Effect::FlushStore { io } => self.flush_store(io),
            Effect::FlushOrigin { io, volume } => self.flush_origin(io, volume),
            Effect::RecordInvalid { io, volumes } => {
                self.machine.invalid.extend(volumes);
                self.post(Event::Flushed { io, result: Ok(()) });
            }
            Effect::Reply { id, result } => self.answers.push(Answer::Reply { id, result }),
            Effect::ReadFrom { .. }
            | Effect::Pause { .. }
            | Effect::Resume { .. }
            | Effect::Notice(_)
            | Effect::Compared { .. }
            | Effect::Again => {}
        }
        Ok(())
    }

    fn copy(
        &mut self,
        copy: IoId,
        volume: VolumeId,
        (first, count, bytes): (u64, u64, u64),
        block: u64,
    ) -> Outcome {
        let Some(dev) = self.origin_of(volume) else {
            self.post(Event::CopyRead {
                copy,
                result: Err(IoError::Absent),
            });
            return Ok(());
        };
        let sectors = count * self.chunk;
        self.free_of_writes("copyout", block * PER_BLOCK, sectors)?;
        let start = first * self.chunk;
        let (disk, dice) = self.disk(dev);
        let len = bytes / SECTOR as u64;
        if len == 0 || len > sectors || start + len > disk.sectors() {
            return Err(Violation(format!(
                "copyout of {bytes} bytes from chunk {first} on: not what the origin has"
            )));
        }
        let op = disk.read(start, len, dice);
        self.io.insert(
            (dev, op),
            Use::CopyRead {
                copy,
                sectors,
                block,
            },
        );
        Ok(())
    }

    fn read_block(&mut self, io: IoId, block: u64) -> Outcome {
        self.in_store("read of a block", block * PER_BLOCK, PER_BLOCK)?;
        let op = self
            .machine
            .store
            .read(block * PER_BLOCK, PER_BLOCK, &mut self.dice);
        self.io.insert((Dev::Store, op), Use::BlockRead(io));
        Ok(())
    }

    fn write_block(&mut self, io: IoId, block: u64, data: &[Data], fua: bool) -> Outcome {
        self.free_of_writes("write of a block", block * PER_BLOCK, PER_BLOCK)?;
        let fua = fua && !self.is(Defect::ForgetFua);
        let op = self.machine.store.write(block * PER_BLOCK, data, fua);
        let early = self.is(Defect::EarlyWritten);
        let to = if early {
            Use::Forgotten
        } else {
            Use::BlockWritten(io)
        };
        self.io.insert((Dev::Store, op), to);
        if early {
            self.post(Event::BlockWritten { io, result: Ok(()) });
        }
        Ok(())
    }

    fn flush_store(&mut self, io: IoId) {
        if self.is(Defect::SkipStoreFlush) {
            self.post(Event::Flushed { io, result: Ok(()) });
            return;
        }
        let op = self.machine.store.flush();
        self.io.insert((Dev::Store, op), Use::Flushed(io));
    }

    fn flush_origin(&mut self, io: IoId, volume: VolumeId) {
        if self.is(Defect::SkipOriginFlush) {
            return self.post(Event::Flushed { io, result: Ok(()) });
        }
        let Some(dev) = self.origin_of(volume) else {
            return self.post(Event::Flushed {
                io,
                result: Err(IoError::Absent),
            });
        };
        let op = self.disk(dev).0.flush();
        self.io.insert((dev, op), Use::Flushed(io));
    }

    fn in_store(&self, what: &str, first: u64, count: u64) -> Outcome {
        if first + count > self.machine.store.sectors() {
            return Err(Violation(format!(
                "{what} beyond the end of the store: sector {first}"
            )));
        }
        Ok(())
    }

    fn free_of_writes(&self, what: &str, first: u64, count: u64) -> Outcome {
        self.in_store(what, first, count)?;
        match self.overlaps(first, count) {
            // An engine told too early cannot know.
            Some(_) if self.is(Defect::EarlyWritten) => Ok(()),
            Some(op) => Err(Violation(format!(
                "{what} at block {} while write {op} to the same place is in flight",
                first / PER_BLOCK
            ))),
            None => Ok(()),
        }
    }
}
