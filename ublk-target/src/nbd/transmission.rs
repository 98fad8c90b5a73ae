//! The transmission phase of one connection, as a machine without system calls.
//!
//! The driver (an I/O thread) owns the socket and the request buffers:
//!
//! 1. [`Connection::receive`] says where the next bytes go: into the stream buffer
//!    ([`Connection::stream_space`]) or straight into the buffer of the write whose
//!    payload is arriving. [`Connection::received`] says how many came.
//! 2. [`Connection::next_request`], called until it says `None`, yields requests
//!    that are checked and may be carried out. A write comes twice: first it wants
//!    a buffer ([`Connection::payload_buffer`]), then its payload is there.
//! 3. Each request is answered exactly once by a `reply_*` function, in any order.
//! 4. [`Connection::replies`] are sent; [`Connection::sent`] says how far that got
//!    and hands back the buffers. Then `next_request` may have more again.
//!
//! Promises:
//! - At most `limit` requests are between step 2 and the end of step 4 (refused
//!   ones included): memory is bounded, and a client that does not read its replies
//!   is not read from either.
//! - Whatever a client sends leads to a reply or to an [`End`]. Payloads of refused
//!   writes are read and forgotten, so the stream stays in step.
//! - While a receive is in flight the stream buffer and the payload buffer belong
//!   to the kernel: do not call `receive` or `stream_space` then. All other functions
//!   leave the free part of the stream buffer alone and never move it.

use std::borrow::Cow;

use zerocopy::FromBytes;

use super::export::ExportInfo;
use super::negotiate::Options;
use super::reply::{Form, QueueFull, Reply, ReplyQueue, Slot};
use super::request::{self, Head, Refused, Request, Status};
use super::wire::{
    EXTENDED_REQUEST_MAGIC, Errno, ExtendedRequestHeader, MAX_PAYLOAD, REQUEST_MAGIC,
    RequestHeader, command, command_flag,
};

/// Bytes of the stream buffer.
pub const STREAM_BYTES: usize = 64 << 10;

/// Where the next received bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receive {
    /// Into [`Connection::stream_space`], as many as there are.
    Stream,
    /// Into a request buffer. A second, scattered part may be offered at
    /// [`Connection::stream_space`] for what follows the payload.
    Payload {
        /// Which buffer.
        slot: Slot,
        /// First byte within it.
        start: usize,
        /// Bytes still missing.
        len: usize,
    },
    /// Nowhere now: too many requests in flight, or a write waits for its buffer.
    Wait,
    /// Nowhere any more; see [`Connection::end`].
    Ended,
}

/// What came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Carry it out and reply. Never a write.
    Request(Request),
    /// A write that may be carried out once its payload is here: hand in a buffer of
    /// [`Request::len`] bytes with [`Connection::payload_buffer`]. Nothing more is
    /// received until then.
    NeedsBuffer(Request),
    /// The payload is complete: carry out and reply.
    Write(Request, Slot),
}

/// Why nothing more is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The client took its leave.
    #[error("the client disconnected")]
    Disconnect,
    /// The client hung up without taking leave.
    #[error("the client hung up")]
    Closed,
    /// The socket failed.
    #[error("the socket failed")]
    Socket,
    /// The export is being closed.
    #[error("the export was closed")]
    Shutdown,
    /// The client is out of step.
    #[error("request magic {0:#010x}: not an NBD request of the form agreed on")]
    BadMagic(u32),
    /// A payload longer than any client may send.
    #[error("a payload of {0} bytes, more than the protocol's {MAX_PAYLOAD}")]
    PayloadTooLong(u64),
    /// It kept what others waited for.
    #[error("the client sent or took too little while others waited for the buffers it held")]
    TooSlow,
    /// The driver broke the contract of this module.
    #[error("internal error: {0}; please report it")]
    Internal(&'static str),
}

#[derive(Debug)]
enum State {
    /// A request header comes next.
    Header,
    /// A write waits for its buffer.
    NeedsBuffer(Request),
    /// A write's payload is coming.
    Payload {
        request: Request,
        slot: Slot,
        done: usize,
    },
    /// The payload of a refused write is being skipped.
    Skip { left: usize, refused: Refused },
    /// Nothing more comes.
    Ended(End),
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    info: ExportInfo,
    options: Options,
    stream: Stream,
    state: State,
    /// Requests taken and not yet completely answered.
    busy: usize,
    limit: usize,
    replies: ReplyQueue,
}

impl Connection {
    /// A connection that has just been negotiated, with at most `limit` requests
    /// in flight (at least 1).
    #[must_use]
    pub fn new(info: ExportInfo, options: Options, limit: usize) -> Self {
        let limit = limit.max(1);
        Self {
            info,
            options,
            stream: Stream::new(),
            state: State::Header,
            busy: 0,
            limit,
            replies: ReplyQueue::new(limit),
        }
    }

    /// What the client has chosen.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What the client was told.
    #[must_use]
    pub fn info(&self) -> &ExportInfo {
        &self.info
    }

    /// Where the next bytes go. Call it when no receive is in flight and
    /// [`Self::next_request`] has said `None`.
    pub fn receive(&mut self) -> Receive {
        match &self.state {
            State::Header if self.busy >= self.limit => Receive::Wait,
            State::Header | State::Skip { .. } if self.stream.space().is_empty() => Receive::Wait,
            State::Header | State::Skip { .. } => Receive::Stream,
            State::NeedsBuffer(_) => Receive::Wait,
            State::Payload {
                request,
                slot,
                done,
            } => match (request.len as usize).saturating_sub(*done) {
                0 => Receive::Wait,
                len => Receive::Payload {
                    slot: *slot,
                    start: *done,
                    len,
                },
            },
            State::Ended(_) => Receive::Ended,
        }
    }

    /// The free part of the stream buffer. Moves unread bytes to the front first:
    /// never call it while a receive is in flight.
    pub fn stream_space(&mut self) -> &mut [u8] {
        self.stream.space()
    }

    /// `n` bytes came, in the order the places were offered; `n` is not 0 (that is
    /// [`Self::hang_up`] with [`End::Closed`]).
    pub fn received(&mut self, n: usize) {
        let mut rest = n;
        if let State::Payload { request, done, .. } = &mut self.state {
            let here = rest.min(request.len as usize - *done);
            *done += here;
            rest -= here;
        }
        if !self.stream.filled(rest) {
            self.internal("more bytes received than there was space");
        }
    }

    /// The next thing to do, if any.
    pub fn next_request(&mut self) -> Option<Incoming> {
        loop {
            match &mut self.state {
                State::Header if self.busy >= self.limit => return None,
                State::Header => {
                    let header = self.take_head()?;
                    let incoming = self.header(&header);
                    if incoming.is_some() {
                        return incoming;
                    }
                }
                State::Payload {
                    request,
                    slot,
                    done,
                } if *done == request.len as usize => {
                    let incoming = Incoming::Write(*request, *slot);
                    self.state = State::Header;
                    return Some(incoming);
                }
                State::Skip { left, refused } => {
                    *left -= self.stream.skip(*left);
                    if *left > 0 {
                        return None;
                    }
                    let refused = *refused;
                    self.state = State::Header;
                    self.refuse(refused);
                }
                State::NeedsBuffer(_) | State::Payload { .. } | State::Ended(_) => return None,
            }
        }
    }

    /// The buffer [`Incoming::NeedsBuffer`] asked for: its name and its memory, of at
    /// least the request's length. What has arrived already is copied into it.
    /// `false`: it is not wanted any more, because of [`Self::hang_up`].
    #[must_use]
    pub fn payload_buffer(&mut self, slot: Slot, memory: &mut [u8]) -> bool {
        let State::NeedsBuffer(request) = self.state else {
            return false;
        };
        let Some(memory) = memory.get_mut(..request.len as usize) else {
            self.internal("a payload buffer shorter than its payload");
            return false;
        };
        let done = self.stream.copy_to(memory);
        self.state = State::Payload {
            request,
            slot,
            done,
        };
        true
    }

    fn take_head(&mut self) -> Option<Head> {
        if self.options.extended {
            self.stream.take::<ExtendedRequestHeader>().map(Head::from)
        } else {
            self.stream.take::<RequestHeader>().map(Head::from)
        }
    }

    /// Bytes of payload behind a header. A write has one even if it does not say so under
    /// extended headers: qemu (10.0) does not.
    fn payload_of(&self, head: &Head) -> Result<u64, End> {
        let said = self.options.extended && head.flags & command_flag::PAYLOAD_LEN != 0;
        let payload = match head.command {
            command::WRITE => head.len,
            _ if said => head.len,
            _ => 0,
        };
        if payload > MAX_PAYLOAD.into() {
            return Err(End::PayloadTooLong(payload));
        }
        Ok(payload)
    }

    /// Acts on one header; the caller has seen to it that one more request fits.
    fn header(&mut self, head: &Head) -> Option<Incoming> {
        let magic = match self.options.extended {
            true => EXTENDED_REQUEST_MAGIC,
            false => REQUEST_MAGIC,
        };
        if head.magic != magic {
            self.state = State::Ended(End::BadMagic(head.magic));
            return None;
        }
        if head.command == command::DISCONNECT {
            self.state = State::Ended(End::Disconnect);
            return None;
        }
        let payload = match self.payload_of(head) {
            Ok(payload) => payload,
            Err(end) => {
                self.state = State::Ended(end);
                return None;
            }
        };
        self.busy += 1;
        match request::parse(head, &self.info, &self.options) {
            Ok(request) if payload > 0 => {
                self.state = State::NeedsBuffer(request);
                Some(Incoming::NeedsBuffer(request))
            }
            Ok(request) => Some(Incoming::Request(request)),
            Err(refused) => {
                self.state = State::Skip {
                    left: payload as usize,
                    refused,
                };
                None
            }
        }
    }

    fn refuse(&mut self, refused: Refused) {
        let message = Cow::Borrowed(refused.message);
        let asked = (refused.cookie, refused.offset);
        let form = Form::of(&self.options);
        self.push(Reply::error(form, asked, refused.error, message));
    }

    /// The request was carried out (anything but a read or block status).
    pub fn reply_done(&mut self, request: &Request) {
        self.push(Reply::done(Form::of(&self.options), request));
    }

    /// The read was carried out: its data begins at byte `start` of buffer `slot`,
    /// which belongs to the connection until handed back.
    pub fn reply_data(&mut self, request: &Request, slot: Slot, start: usize) {
        self.push(Reply::data(Form::of(&self.options), request, slot, start));
    }

    /// The answer to a block status: what each context chosen says. Extents may stop
    /// early or reach too far, and at least one is needed of each context.
    pub fn reply_extents(&mut self, request: &Request, told: &[Status]) {
        match Reply::status(Form::of(&self.options), request, told) {
            Some(reply) => self.push(reply),
            None => self.reply_error(request, Errno::Io, "no block status was found"),
        }
    }

    /// The request failed. The message is for the person behind the client.
    pub fn reply_error(
        &mut self,
        request: &Request,
        error: Errno,
        message: impl Into<Cow<'static, str>>,
    ) {
        let asked = (request.cookie, request.offset);
        let form = Form::of(&self.options);
        self.push(Reply::error(form, asked, error, message.into()));
    }

    fn push(&mut self, reply: Reply) {
        if let Err(QueueFull) = self.replies.push(reply) {
            self.internal("more replies than requests");
        }
    }

    /// Whether a write's payload is still coming.
    #[must_use]
    pub fn awaits_payload(&self) -> bool {
        matches!(&self.state, State::Payload { request, done, .. } if *done < request.len as usize)
    }

    /// What is to be sent.
    #[must_use]
    pub fn replies(&self) -> &ReplyQueue {
        &self.replies
    }

    /// `n` bytes of [`Self::replies`] went out. `free` gets each buffer that is the
    /// driver's again.
    pub fn sent(&mut self, n: usize, free: impl FnMut(Slot)) {
        let complete = self.replies.advance(n, free);
        self.busy = self.busy.saturating_sub(complete);
    }

    /// Replies can no longer be sent: throws them away. To be repeated for those of
    /// requests still being carried out. As [`Self::sent`].
    pub fn discard_replies(&mut self, free: impl FnMut(Slot)) {
        let complete = self.replies.discard(free);
        self.busy = self.busy.saturating_sub(complete);
    }

    /// Nothing more is received: the socket said so, or the driver wants it so. The
    /// first reason stays. Returns the buffer of a write whose payload will now never
    /// come; requests taken before are still carried out and answered.
    pub fn hang_up(&mut self, end: End) -> Option<Slot> {
        let slot = match &self.state {
            State::Ended(_) => return None,
            // The write has not been handed out complete, so nobody will reply.
            State::Payload { slot, .. } => Some(*slot),
            State::NeedsBuffer(_) | State::Skip { .. } | State::Header => None,
        };
        if !matches!(self.state, State::Header) {
            self.busy = self.busy.saturating_sub(1);
        }
        self.state = State::Ended(end);
        slot
    }

    /// Why nothing more is received, once that is so.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        match self.state {
            State::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// Ended, everything answered and sent: close the socket.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.end().is_some() && self.busy == 0
    }

    /// Requests taken and not yet completely answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.busy
    }

    fn internal(&mut self, what: &'static str) {
        // A payload's buffer is not handed back here; the driver is broken anyway.
        let _lost = self.hang_up(End::Internal(what));
    }
}

/// The stream buffer: `bytes[head..tail]` is received and unread.
#[derive(Debug)]
struct Stream {
    bytes: Box<[u8]>,
    head: usize,
    tail: usize,
}

impl Stream {
    fn new() -> Self {
        Self {
            bytes: vec![0; STREAM_BYTES].into_boxed_slice(),
            head: 0,
            tail: 0,
        }
    }

    fn unread(&self) -> &[u8] {
        self.bytes.get(self.head..self.tail).unwrap_or(&[])
    }

    fn space(&mut self) -> &mut [u8] {
        if self.head > 0 {
            self.bytes.copy_within(self.head..self.tail, 0);
            self.tail -= self.head;
            self.head = 0;
        }
        self.bytes.get_mut(self.tail..).unwrap_or_default()
    }

    /// `false` if there was no space for `n` bytes.
    fn filled(&mut self, n: usize) -> bool {
        let fits = n <= self.bytes.len() - self.tail;
        if fits {
            self.tail += n;
        }
        fits
    }

    fn take<T: FromBytes>(&mut self) -> Option<T> {
        let (head, _) = T::read_from_prefix(self.unread()).ok()?;
        self.skip(size_of::<T>());
        Some(head)
    }

    /// Forgets up to `n` bytes and says how many.
    fn skip(&mut self, n: usize) -> usize {
        let n = n.min(self.tail - self.head);
        self.head += n;
        n
    }

    /// Moves as much as there is into `memory` and says how much.
    fn copy_to(&mut self, memory: &mut [u8]) -> usize {
        let unread = self.unread();
        let n = unread.len().min(memory.len());
        if let (Some(to), Some(from)) = (memory.get_mut(..n), unread.get(..n)) {
            to.copy_from_slice(from);
        }
        self.skip(n)
    }
}
