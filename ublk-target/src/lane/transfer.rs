//! Operations in flight: issued, continued when short, and handed on.

use snapstore::ids::IoId;

use super::{Action, Completion, DeviceSlot, Lane, Memory, Op, StoreSlot, Token};

/// How often an operation is issued again after `EINTR` or `EAGAIN`.
const TRIES: u8 = 8;

/// An operation in flight.
#[derive(Debug)]
pub(super) struct Transfer {
    device: DeviceSlot,
    /// What was asked for in the beginning. A metadata block's data is with the
    /// driver: it is neither short nor issued again.
    range: Range,
    /// Bytes moved so far.
    done: u32,
    tries: u8,
    then: Then,
}

/// What of an action is needed to go on with it.
#[derive(Debug)]
enum Range {
    Moves(Action),
    Extents { offset: u64 },
    Whole,
}

/// Whom a completion belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    Request(usize),
    /// A piece of a snapshot read from the store: to be verified.
    Verify(usize),
    /// The same, read once more because it did not match.
    VerifyAgain(usize),
    CopyRead(usize),
    CopyWritten(usize),
    BlockRead(StoreSlot, IoId),
    BlockWritten(StoreSlot, IoId),
    Flushed(StoreSlot, IoId),
}

impl Lane {
    pub(super) fn issue(&mut self, device: DeviceSlot, action: Action, then: Then) {
        let range = match &action {
            Action::Read { .. } | Action::Write { .. } => Range::Moves(action.clone()),
            Action::Extents { offset, .. } => Range::Extents { offset: *offset },
            _ => Range::Whole,
        };
        let transfer = Transfer {
            device,
            range,
            done: 0,
            tries: 0,
            then,
        };
        let token = Token(self.transfers.insert(transfer) as u32);
        self.out.ops.push(Op {
            token,
            device,
            action,
        });
    }

    /// An operation completed. The driver owns `memory`; nothing else does while
    /// this runs.
    pub fn complete(&mut self, token: Token, completion: Completion, memory: &mut impl Memory) {
        let key = token.0 as usize;
        let result = match completion {
            Completion::Moved(result) => result,
            Completion::Block(result) => return self.block_read(key, result),
            Completion::Extents(extents) => {
                let Some(transfer) = self.transfers.try_remove(key) else {
                    return;
                };
                if let (Then::Request(request), Range::Extents { offset }) =
                    (transfer.then, transfer.range)
                {
                    self.request_extents(request, offset, extents);
                }
                return;
            }
        };
        let Some(transfer) = self.transfers.get_mut(key) else {
            return;
        };
        let result = match transfer.advance(result) {
            Next::Again(action) => {
                let device = transfer.device;
                self.out.ops.push(Op {
                    token,
                    device,
                    action,
                });
                return;
            }
            Next::Over(result) => result,
        };
        let transfer = self.transfers.remove(key);
        if let Err(errno) = result {
            self.note_error(transfer.device, errno);
        }
        match transfer.then {
            Then::Request(request) => self.request_moved(request, result),
            Then::Verify(request) | Then::VerifyAgain(request) => match (result, transfer.range) {
                (Ok(_), Range::Moves(action)) => {
                    let again = matches!(transfer.then, Then::VerifyAgain(_));
                    self.piece_read(request, transfer.device, action, again, memory);
                }
                (result, _) => self.piece_moved(request, result.map(drop)),
            },
            Then::CopyRead(copy) => self.copy_read(copy, result, memory),
            Then::CopyWritten(copy) => self.copy_written(copy, result),
            Then::BlockRead(store, io) => self.block_failed(store, io, result),
            Then::BlockWritten(store, io) => self.block_written(store, io, result),
            Then::Flushed(store, io) => self.flushed(store, io, result),
        }
    }

    fn block_read(&mut self, key: usize, result: Result<std::sync::Arc<snapstore::Block>, i32>) {
        let Some(transfer) = self.transfers.try_remove(key) else {
            return;
        };
        if let Then::BlockRead(store, io) = transfer.then {
            let result = result.map_err(super::types::io_error);
            self.tell(store, snapstore::Event::BlockRead { io, result });
        }
    }
}

/// What follows a completion.
enum Next {
    Again(Action),
    Over(Result<u32, i32>),
}

impl Transfer {
    fn advance(&mut self, result: Result<u32, i32>) -> Next {
        let Range::Moves(action) = &self.range else {
            return Next::Over(result);
        };
        match result {
            Ok(moved) => {
                self.done = self.done.saturating_add(moved);
                let len = length(action);
                if self.done >= len {
                    return Next::Over(Ok(len));
                }
                // Nothing moved: the device ended early.
                if moved == 0 {
                    return Next::Over(Err(libc::EIO));
                }
            }
            Err(libc::EINTR | libc::EAGAIN) if self.tries < TRIES => self.tries += 1,
            Err(errno) => return Next::Over(Err(errno)),
        }
        Next::Again(rest(action, self.done))
    }
}

fn length(action: &Action) -> u32 {
    match action {
        Action::Read { len, .. } | Action::Write { len, .. } => *len,
        _ => 0,
    }
}

/// The action without its first `done` bytes.
fn rest(action: &Action, done: u32) -> Action {
    let mut action = action.clone();
    if let Action::Read {
        at, offset, len, ..
    }
    | Action::Write {
        at, offset, len, ..
    } = &mut action
    {
        *at += done;
        *offset += u64::from(done);
        *len -= done;
    }
    action
}
