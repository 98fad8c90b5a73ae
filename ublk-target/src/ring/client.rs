//! One NBD connection on an I/O thread: receive, carry out, send.
//!
//! At most one receive and one send are in flight. Replies that become ready
//! meanwhile gather and go out together. While a receive is in flight the stream
//! buffer and the payload buffer belong to the kernel; while a send is in flight
//! the replies it covers do. A connection is dropped only when neither is.
//!
//! What a connection may take from the others of its thread is bounded: see [`HELD`],
//! [`line`](super::line) and [`Client::is_too_slow`].

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use nix::sys::socket::{Shutdown, shutdown};
use slab::Slab;
use snapstore::Tag;

use super::NewClient;
use super::line::{Flow, Line};
use super::memory::{LARGE, Memory};
use super::submit::Submitter;
use crate::export::Export;
use crate::lane::{self, BufferId, Done, Lane, Verb};
use crate::nbd::reply::MAX_EXTENTS;
use crate::nbd::{
    Connection, Context, End, Errno, Extent, Incoming, Op, Receive, Request, Segment, Slot, Status,
};
use crate::runtime::{Peer, Place, Seat};

/// Requests of one connection between arrival and reply.
pub(crate) const IN_FLIGHT: usize = 128;
/// Bytes of buffers one connection may hold, beyond its first: a client that does
/// not read its replies must not take them all from the others.
const HELD: usize = 8 << 20;
/// Pieces in one send.
const PIECES: usize = 128;
/// Requests that are started before the other connections have their turn.
const TURN: usize = 16;

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

/// Why a request is not started yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The connection has enough for now: its own replies have to go out first.
    Own,
    /// Others have the buffers.
    Others,
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
    /// A request that waits.
    stalled: Option<(Incoming, Wait)>,
    /// Payload from the peer, and replies to it.
    incoming: Flow,
    outgoing: Flow,
    receiving: bool,
    sending: bool,
    /// Why it is to end, once the receive in flight is back.
    ending: Option<End>,
    /// Nothing can be sent any more.
    broken: bool,
    /// The send in flight. Boxed: its address is with the kernel.
    message: Box<Message>,
    /// Whose it is; `None` is this machine.
    pub(crate) address: Option<IpAddr>,
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
            info,
            options,
            seat,
            peer: Peer { address, place },
        } = new;
        let machine = Connection::new(info, options, IN_FLIGHT);
        Self {
            key,
            socket,
            export,
            machine,
            running: Slab::with_capacity(IN_FLIGHT),
            held: 0,
            stalled: None,
            incoming: Flow::default(),
            outgoing: Flow::default(),
            receiving: false,
            sending: false,
            ending: None,
            broken: false,
            message: Message::new(),
            address,
            _taken: (seat, place),
        }
    }

    /// Bytes of the buffers it holds.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// A request waits for buffers that others have.
    pub(crate) fn is_stalled(&self) -> bool {
        matches!(self.stalled, Some((_, Wait::Others)))
    }

    /// Whether it has kept buffers since `begin` and its peer lets too little
    /// through: others need not wait for it.
    pub(crate) fn is_too_slow(&self, begin: Instant) -> bool {
        [&self.incoming, &self.outgoing]
            .iter()
            .any(|flow| flow.is_too_slow(begin, self.held))
    }

    /// What moves from now on counts.
    pub(crate) fn begin_window(&mut self) {
        self.incoming.moved = 0;
        self.outgoing.moved = 0;
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
            (None, Ok(n)) => {
                if self.machine.awaits_payload() {
                    self.incoming.moved += n;
                }
                self.machine.received(n);
            }
            (None, Err(_)) if again(result) => {}
            (None, Err(_)) => self.hang_up(End::Socket, io),
        }
    }

    /// A send completed.
    pub(crate) fn sent(&mut self, result: i32, io: &mut Io<'_>) {
        self.sending = false;
        match usize::try_from(result) {
            Ok(n) if n > 0 => {
                self.outgoing.moved += n;
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

    /// Goes on as far as possible: requests, then receive and send. Whether it has more
    /// to do when the others have had their turn.
    pub(crate) fn pump(&mut self, line: &mut Line, io: &mut Io<'_>) -> io::Result<bool> {
        let more = self.start_requests(line, io);
        if self.broken && !self.sending {
            let held = &mut self.held;
            self.machine
                .discard_replies(|slot| give(held, BufferId(slot.0), io));
        }
        // Where to receive is known once no request is left.
        if !more {
            self.arm_receive(io)?;
        }
        self.arm_send(io)?;
        let holds = self.held > 0;
        self.incoming.go_on(holds && self.machine.awaits_payload());
        self.outgoing.go_on(holds && self.sending);
        Ok(more)
    }

    /// Starts requests that are there. Whether there may be more.
    fn start_requests(&mut self, line: &mut Line, io: &mut Io<'_>) -> bool {
        for _ in 0..TURN {
            let waited = self.stalled.take().map(|(incoming, _)| incoming);
            let Some(incoming) = waited.or_else(|| self.machine.next_request()) else {
                return false;
            };
            if let Err(wait) = self.start(incoming, line, io) {
                self.stalled = Some((incoming, wait));
                return false;
            }
        }
        true
    }

    /// Starts what came in, if it need not wait.
    fn start(&mut self, incoming: Incoming, line: &mut Line, io: &mut Io<'_>) -> Result<(), Wait> {
        match incoming {
            Incoming::NeedsBuffer(request) => {
                let len = request.len as usize;
                let buffer = self.take(len, line, io)?;
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
                let buffer = self.take(need as usize, line, io)?;
                self.run(request, Some(buffer), io);
            }
            Incoming::Request(Request {
                op: Op::BlockStatus { .. },
                ..
            }) if self.is_telling() => return Err(Wait::Own),
            Incoming::Request(request) => self.run(request, None, io),
        }
        Ok(())
    }

    /// Whether a block status is under way. What they say takes memory that nothing else
    /// counts, so there is one at a time.
    fn is_telling(&self) -> bool {
        let is_status =
            |(_, one): (usize, &Running)| matches!(one.request.op, Op::BlockStatus { .. });
        self.machine.replies().holds_status() || self.running.iter().any(is_status)
    }

    /// A buffer, if this connection does not hold too many and it is its turn. One that
    /// holds nothing gets one of the pool's sizes whatever the others have: as many at
    /// most as there are seats.
    fn take(&mut self, len: usize, line: &mut Line, io: &mut Io<'_>) -> Result<BufferId, Wait> {
        if self.held > 0 && self.held + len > HELD {
            return Err(Wait::Own);
        }
        let buffer = match line.take(len, io.memory) {
            None if self.held == 0 && len <= LARGE => io.memory.take_own(len),
            buffer => buffer,
        };
        let buffer = buffer.ok_or_else(|| {
            line.stop(len);
            Wait::Others
        })?;
        self.held += io.memory.room(buffer);
        Ok(buffer)
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
        // It was taken from the machine and has to be answered.
        if let Some((Incoming::Request(request), _)) = self.stalled.take() {
            self.machine
                .reply_error(&request, Errno::Shutdown, "the export was closed");
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
