//! What engines ask a lane for: answers to its requests, and I/O.

use std::sync::Arc;

use snapstore::engine::{Effect, Event};
use snapstore::ids::IoId;
use snapstore::{BLOCK_SIZE, Block, IoError, VolumeId};

use super::compare::Part;
use super::copy::CopyJob;
use super::snapshot::Piece;
use super::transfer::Then;
use super::types::io_error;
use super::{Action, Lane, StoreSlot};

/// A flush that no user asked for.
const FLUSH: Action = Action::Flush { asked: false };

impl Lane {
    /// Carries out an effect of a store's engine; `crcs` is the arena of its
    /// [`snapstore::Effects`]. Pauses, replies and notices concern all lanes or
    /// none: the driver sees to them before, and they are ignored here.
    pub fn effect(&mut self, store: StoreSlot, effect: Effect, crcs: &[u32]) {
        match effect {
            Effect::WriteGranted { owner, epoch } => {
                self.write_granted(Self::request_of(owner), epoch);
            }
            Effect::WriteFailed { owner, error } | Effect::ReadFailed { owner, error } => {
                self.refused(Self::request_of(owner), &error);
            }
            // `last` is not looked at: coverage tells, whatever the order.
            Effect::ReadFrom {
                owner,
                grant,
                first,
                count,
                source,
                crcs: range,
                last: _,
            } => {
                let piece = Piece {
                    grant,
                    first,
                    count,
                    source,
                    crcs: range,
                };
                self.read_from(Self::request_of(owner), &piece, crcs);
            }
            Effect::Compared {
                owner,
                first,
                count,
                differs,
                last,
            } => {
                let part = Part {
                    first,
                    count,
                    differs,
                };
                self.compared(Self::request_of(owner), &part, last);
            }
            Effect::Copy {
                copy,
                volume,
                first,
                count,
                bytes,
                block,
            } => {
                let chunks = (first, count, bytes);
                self.copy(CopyJob::new(store, copy, volume, chunks, block));
            }
            Effect::ReadBlock { io, block } => self.read_block(store, io, block),
            Effect::WriteBlock {
                io,
                block,
                data,
                fua,
            } => {
                self.write_block(store, io, block, data, fua);
            }
            Effect::FlushStore { io } => self.flush_store(store, io),
            Effect::FlushOrigin { io, volume } => self.flush_origin(store, io, volume),
            Effect::Pause { .. }
            | Effect::Resume { .. }
            | Effect::RecordInvalid { .. }
            | Effect::Reply { .. }
            | Effect::Notice(_)
            | Effect::Again => {}
        }
    }

    fn read_block(&mut self, store: StoreSlot, io: IoId, block: u64) {
        let Some(device) = self.store(store).map(|store| store.device) else {
            return;
        };
        match block.checked_mul(BLOCK_SIZE as u64) {
            Some(offset) => {
                self.issue(
                    device,
                    Action::ReadBlock { offset },
                    Then::BlockRead(store, io),
                );
            }
            None => {
                let result = Err(IoError::OutOfRange);
                self.tell(store, Event::BlockRead { io, result });
            }
        }
    }

    fn write_block(&mut self, store: StoreSlot, io: IoId, block: u64, data: Arc<Block>, fua: bool) {
        let Some(device) = self.store(store).map(|store| store.device) else {
            return;
        };
        match block.checked_mul(BLOCK_SIZE as u64) {
            Some(offset) => {
                let action = Action::WriteBlock { offset, data, fua };
                self.issue(device, action, Then::BlockWritten(store, io));
            }
            None => {
                let result = Err(IoError::OutOfRange);
                self.tell(store, Event::BlockWritten { io, result });
            }
        }
    }

    fn flush_store(&mut self, store: StoreSlot, io: IoId) {
        if let Some(device) = self.store(store).map(|store| store.device) {
            self.issue(device, FLUSH, Then::Flushed(store, io));
        }
    }

    fn flush_origin(&mut self, store: StoreSlot, io: IoId, volume: VolumeId) {
        let slot = self
            .store(store)
            .and_then(|store| store.volumes.get(&volume).copied());
        match slot
            .and_then(|slot| self.volume(slot))
            .map(|volume| volume.device)
        {
            Some(device) => self.issue(device, FLUSH, Then::Flushed(store, io)),
            None => self.tell(
                store,
                Event::Flushed {
                    io,
                    result: Err(IoError::Absent),
                },
            ),
        }
    }

    /// A metadata block could not even be asked for.
    pub(super) fn block_failed(&mut self, store: StoreSlot, io: IoId, result: Result<u32, i32>) {
        let result = Err(io_error(result.err().unwrap_or(libc::EIO)));
        self.tell(store, Event::BlockRead { io, result });
    }

    pub(super) fn block_written(&mut self, store: StoreSlot, io: IoId, result: Result<u32, i32>) {
        let result = match result {
            Ok(moved) if moved as usize == BLOCK_SIZE => Ok(()),
            // A block written in part must be taken for not written.
            Ok(_) => Err(IoError::Errno(libc::EIO)),
            Err(errno) => Err(io_error(errno)),
        };
        self.tell(store, Event::BlockWritten { io, result });
    }

    pub(super) fn flushed(&mut self, store: StoreSlot, io: IoId, result: Result<u32, i32>) {
        let result = result.map(drop).map_err(io_error);
        self.tell(store, Event::Flushed { io, result });
    }
}
