//! One NBD connection on an I/O thread: receive, carry out, send.
//!
//! At most one receive and one send are in flight. Replies that become ready
//! meanwhile gather and go out together. While a receive is in flight the stream
//! buffer and the payload buffer belong to the kernel; while a send is in flight
//! the replies it covers do. A connection is dropped only when neither is.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{Shutdown, shutdown};
use slab::Slab;
use snapstore::Tag;

use super::NewClient;
use super::memory::Memory;
use super::submit::Submitter;
use crate::export::Export;
use crate::lane::{self, BufferId, Done, Lane, Verb};
use crate::nbd::reply::MAX_EXTENTS;
use crate::nbd::{
    Connection, Context, End, Errno, Extent, Incoming, Op, Receive, Request, Segment, Slot, Status,
};
use crate::runtime::{Place, Seat};

/// Requests of one connection between arrival and reply.
pub(crate) const IN_FLIGHT: usize = 128;
/// Bytes of buffers one connection may hold, beyond its first: a client that does
/// not read its replies must not take them all from the others.
const HELD: usize = 8 << 20;
/// Pieces in one send.
const PIECES: usize = 128;

/// What a client needs of its thread.
pub(crate) struct Io<'a> {
    pub(crate) memory: &'a mut Memory,
    pub(crate) lane: &'a mut Lane,
    pub(crate) submit: &'a mut Submitter,
}

/// A request being carried out.
#[derive(Debug)]
struct Running {
    request: Request,
    buffer: Option<BufferId>,
    /// Where in the buffer a read's data begins.
    data_at: usize,
    /// What the metadata contexts looked at so far say.
    told: Vec<Status>,
}

/// One connection. See the module.
pub(crate) struct Client {
    key: u32,
    socket: OwnedFd,
    pub(crate) export: Arc<Export>,
    machine: Connection,
    running: Slab<Running>,
    /// Bytes of the buffers it holds.
    held: usize,
    /// A request that waits for a buffer.
    stalled: Option<Incoming>,
    receiving: bool,
    sending: bool,
    /// Why it is to end, once the receive in flight is back.
    ending: Option<End>,
    /// Nothing can be sent any more.
    broken: bool,
    /// The send in flight. Boxed: its address is with the kernel.
    message: Box<Message>,
    /// Given back when it is dropped.
    _taken: (Seat, Option<Place>),
}

struct Message {
    header: libc::msghdr,
    pieces: Vec<libc::iovec>,
}

// SAFETY: the pointers lead to memory of the thread the client lives on; a client
// is only moved to another thread before its first send.
unsafe impl Send for Message {}

impl Message {
    fn new() -> Box<Self> {
        // SAFETY: all-zero bytes are a valid `msghdr` (null pointers and zeroes).
        let header = unsafe { std::mem::zeroed() };
        Box::new(Self {
            header,
            pieces: Vec::with_capacity(PIECES),
        })
    }
}

impl Client {
    pub(crate) fn new(key: u32, new: NewClient) -> Self {
        let NewClient {
            socket,
            export,
            options,
            seat,
            place,
        } = new;
        let machine = Connection::new(export.info(), options, IN_FLIGHT);
        Self {
            key,
            socket,
            export,
            machine,
            running: Slab::with_capacity(IN_FLIGHT),
            held: 0,
            stalled: None,
            receiving: false,
            sending: false,
            ending: None,
            broken: false,
            message: Message::new(),
            _taken: (seat, place),
        }
    }

    /// A request waits for a buffer.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    /// Nothing is left to do: it may be dropped.
    pub(crate) fn is_finished(&self) -> bool {
        self.machine.is_finished() && !self.receiving && !self.sending
    }

    /// Why it ended.
    pub(crate) fn end(&self) -> Option<End> {
        self.machine.end()
    }

    /// A receive completed.
    pub(crate) fn received(&mut self, result: i32, io: &mut Io<'_>) {
        self.receiving = false;
        match (self.ending.take(), usize::try_from(result)) {
            (Some(end), _) => self.hang_up(end, io),
            (None, Ok(0)) => self.hang_up(End::Closed, io),
            (None, Ok(n)) => self.machine.received(n),
            (None, Err(_)) if again(result) => {}
            (None, Err(_)) => self.hang_up(End::Socket, io),
        }
    }

    /// A send completed.
    pub(crate) fn sent(&mut self, result: i32, io: &mut Io<'_>) {
        self.sending = false;
        match usize::try_from(result) {
            Ok(n) if n > 0 => {
                let held = &mut self.held;
                self.machine
                    .sent(n, |slot| give(held, BufferId(slot.0), io));
            }
            _ if again(result) => {}
            _ => self.break_off(End::Socket, io),
        }
    }

    /// A request of this connection is done.
    pub(crate) fn done(&mut self, running: usize, done: &Done, io: &mut Io<'_>) {
        let Some(Running {
            request,
            buffer,
            data_at,
            told,
        }) = self.running.try_remove(running)
        else {
            return;
        };
        match (done.result, request.op, buffer) {
            (Ok(()), Op::Read, Some(buffer)) => {
                return self.machine.reply_data(&request, Slot(buffer.0), data_at);
            }
            (Ok(()), Op::BlockStatus { .. }, _) => {
                self.told(request, told, &done.extents, io);
            }
            (Ok(()), ..) => self.machine.reply_done(&request),
            (Err(errno), ..) => {
                let (error, message) = wire_error(errno);
                self.machine.reply_error(&request, error, message);
            }
        }
        if let Some(buffer) = buffer {
            give(&mut self.held, buffer, io);
        }
    }

    /// The export closes: takes no more requests, answers those it has.
    pub(crate) fn close(&mut self, io: &mut Io<'_>) {
        if self.receiving {
            self.ending.get_or_insert(End::Shutdown);
            self.shut(Shutdown::Read);
        } else {
            self.hang_up(End::Shutdown, io);
        }
    }

    /// Ends without answering.
    pub(crate) fn break_off(&mut self, end: End, io: &mut Io<'_>) {
        self.broken = true;
        self.shut(Shutdown::Both);
        if self.receiving {
            self.ending.get_or_insert(end);
        } else {
            self.hang_up(end, io);
        }
    }

    /// Goes on as far as possible: requests, then receive and send.
    pub(crate) fn pump(&mut self, io: &mut Io<'_>) -> io::Result<()> {
        while let Some(incoming) = self.stalled.take().or_else(|| self.machine.next_request()) {
            if !self.start(incoming, io) {
                self.stalled = Some(incoming);
                break;
            }
        }
        if self.broken && !self.sending {
            let held = &mut self.held;
            self.machine
                .discard_replies(|slot| give(held, BufferId(slot.0), io));
        }
        self.arm_receive(io)?;
        self.arm_send(io)
    }

    /// Starts what came in. `false`: there is no buffer for it now.
    fn start(&mut self, incoming: Incoming, io: &mut Io<'_>) -> bool {
        match incoming {
            Incoming::NeedsBuffer(request) => {
                let len = request.len as usize;
                let Some(buffer) = self.take(len, io) else {
                    return false;
                };
                let bytes = io.memory.bytes_mut(buffer, 0, len);
                if !self.machine.payload_buffer(Slot(buffer.0), bytes) {
                    give(&mut self.held, buffer, io);
                }
            }
            Incoming::Write(request, slot) => self.run(request, Some(BufferId(slot.0)), io),
            Incoming::Request(request) if request.op == Op::Read => {
                let (offset, len) = (request.offset, request.len);
                let target = self.export.target();
                let need = lane::Request::buffer_len(target, Verb::Read, offset, len);
                let Some(buffer) = self.take(need as usize, io) else {
                    return false;
                };
                self.run(request, Some(buffer), io);
            }
            Incoming::Request(request) => self.run(request, None, io),
        }
        true
    }

    /// A buffer, if there is one and this connection does not hold too many.
    fn take(&mut self, len: usize, io: &mut Io<'_>) -> Option<BufferId> {
        if self.held > 0 && self.held + len > HELD {
            return None;
        }
        let buffer = io.memory.take(len)?;
        self.held += io.memory.room(buffer);
        Some(buffer)
    }

    fn run(&mut self, request: Request, buffer: Option<BufferId>, io: &mut Io<'_>) {
        let verb = match request.op {
            Op::BlockStatus { .. } => return self.ask_next(request, Vec::new(), io),
            op => verb(op),
        };
        self.submit(request, buffer, verb, Vec::new(), io);
    }

    /// The next metadata context of a block status; when there is none left, the answer.
    fn ask_next(&mut self, request: Request, told: Vec<Status>, io: &mut Io<'_>) {
        let next = self.machine.options().contexts().nth(told.len());
        match next {
            Some((_, context)) => self.submit(request, None, question(context), told, io),
            None => self.machine.reply_extents(&request, &told),
        }
    }

    /// A metadata context was looked at.
    fn told(
        &mut self,
        request: Request,
        mut told: Vec<Status>,
        found: &[lane::Extent],
        io: &mut Io<'_>,
    ) {
        let asked = self.machine.options().contexts().nth(told.len());
        if let Some((id, context)) = asked {
            told.push(Status {
                context: id,
                extents: extents(context, found),
            });
        }
        self.ask_next(request, told, io);
    }

    fn submit(
        &mut self,
        request: Request,
        buffer: Option<BufferId>,
        verb: Verb,
        told: Vec<Status>,
        io: &mut Io<'_>,
    ) {
        let target = self.export.target();
        let data_at = lane::Request::data_at(target, request.offset) as usize;
        let running = self.running.insert(Running {
            request,
            buffer,
            data_at,
            told,
        });
        io.lane.submit(lane::Request {
            tag: u64::from(self.key) << 32 | running as u64,
            volume: self.export.volume(),
            target,
            verb,
            offset: request.offset,
            len: request.len,
            fua: request.fua,
            // Verbs without data never look at it.
            buffer: buffer.unwrap_or(BufferId(0)),
        });
    }

    fn arm_receive(&mut self, io: &mut Io<'_>) -> io::Result<()> {
        if self.receiving || self.stalled.is_some() {
            return Ok(());
        }
        let (target, len) = match self.machine.receive() {
            Receive::Stream => {
                let space = self.machine.stream_space();
                (space.as_mut_ptr(), space.len())
            }
            Receive::Payload { slot, start, len } => {
                match io.memory.address(BufferId(slot.0), start, len) {
                    Some(target) => (target.as_ptr(), len),
                    None => return Ok(()),
                }
            }
            Receive::Wait | Receive::Ended => return Ok(()),
        };
        self.receiving = true;
        io.submit
            .receive(self.socket.as_raw_fd(), self.key, target, len as u32)
    }

    fn arm_send(&mut self, io: &mut Io<'_>) -> io::Result<()> {
        if self.sending || self.broken || self.machine.replies().is_empty() {
            return Ok(());
        }
        let message = &mut *self.message;
        message.pieces.clear();
        for segment in self.machine.replies().segments().take(PIECES) {
            let (base, len) = match segment {
                Segment::Bytes(bytes) => (bytes.as_ptr(), bytes.len()),
                Segment::Buffer { slot, start, len } => {
                    match io.memory.address(BufferId(slot.0), start, len) {
                        Some(base) => (base.as_ptr().cast_const(), len),
                        None => return Err(io::Error::other("a reply beyond its buffer")),
                    }
                }
            };
            message.pieces.push(libc::iovec {
                iov_base: base.cast_mut().cast(),
                iov_len: len,
            });
        }
        message.header.msg_iov = message.pieces.as_mut_ptr();
        message.header.msg_iovlen = message.pieces.len();
        self.sending = true;
        io.submit
            .send(self.socket.as_raw_fd(), self.key, &raw const message.header)
    }

    /// Takes nothing more. No receive is in flight.
    fn hang_up(&mut self, end: End, io: &mut Io<'_>) {
        if let Some(slot) = self.machine.hang_up(end) {
            give(&mut self.held, BufferId(slot.0), io);
        }
        match self.stalled.take() {
            // It was taken from the machine and has to be answered.
            Some(Incoming::Request(request)) => {
                self.machine
                    .reply_error(&request, Errno::Shutdown, "the export was closed");
            }
            Some(Incoming::Write(..) | Incoming::NeedsBuffer(_)) | None => {}
        }
    }

    fn shut(&self, how: Shutdown) {
        // A socket that is gone already is as good as shut.
        let _ = shutdown(self.socket.as_raw_fd(), how);
    }
}

fn give(held: &mut usize, buffer: BufferId, io: &mut Io<'_>) {
    *held = held.saturating_sub(io.memory.room(buffer));
    io.memory.give(buffer);
}

fn again(result: i32) -> bool {
    matches!(-result, libc::EINTR | libc::EAGAIN)
}

fn verb(op: Op) -> Verb {
    match op {
        Op::Read => Verb::Read,
        Op::Write => Verb::Write,
        Op::WriteZeroes { may_punch, .. } => Verb::WriteZeroes { punch: may_punch },
        Op::Trim => Verb::Trim,
        Op::Flush => Verb::Flush,
        Op::BlockStatus { .. } => Verb::Extents,
    }
}

/// What a metadata context asks of the lane.
fn question(context: Context) -> Verb {
    match context {
        Context::Allocation => Verb::Extents,
        Context::Changed(since) => Verb::Changed {
            since: Tag(since.tag),
            size: since.size,
        },
    }
}

/// What the lane found, as the context tells it; no more than is ever sent.
fn extents(context: Context, found: &[lane::Extent]) -> Vec<Extent> {
    let told = |extent: &lane::Extent| match context {
        Context::Allocation => Extent::allocation(extent.len, extent.data),
        Context::Changed(_) => Extent::changed(extent.len, extent.data),
    };
    found.iter().take(MAX_EXTENTS).map(told).collect()
}

fn wire_error(errno: i32) -> (Errno, &'static str) {
    match errno {
        libc::EPERM => (Errno::Perm, "not permitted"),
        libc::EINVAL => (Errno::Inval, "the device does not take such a request"),
        libc::ENOSPC => (Errno::NoSpc, "no space left"),
        libc::ENOMEM => (Errno::NoMem, "out of memory"),
        libc::EOPNOTSUPP => (Errno::NotSup, "the device cannot do that"),
        libc::ESTALE => (Errno::Io, "a snapshot this is about is gone"),
        libc::ESHUTDOWN | libc::ENODEV => (Errno::Shutdown, "the volume is being detached"),
        _ => (Errno::Io, "I/O error; csnapd's log says more"),
    }
}
