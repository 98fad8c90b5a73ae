//! Replies on their way out.
//!
//! A reply is a header held inline and perhaps a body: a range of a request buffer
//! (never copied), a message, or extents. The driver gathers [`ReplyQueue::segments`]
//! into one `sendmsg`, and tells with `ReplyQueue::advance` how much of it went
//! out; partial sends may stop at any byte.
//!
//! Invariants:
//! - The queue has room for every request a connection may have in flight, is
//!   allocated once and never grows. So the bytes of a queued reply **stay at their
//!   address** while more replies are pushed: a send in flight may point at them
//!   until `advance` (or `discard`) has passed them.
//! - A request buffer is given back exactly once: when its whole reply is sent, or
//!   discarded.

use std::borrow::Cow;

use zerocopy::IntoBytes;

use super::negotiate::Options;
use super::request::{Extent, Op, Request, Status};
use super::text::beginning;
use super::wire::{
    ChunkHeader, EXTENDED_REPLY_MAGIC, Errno, ExtendedChunkHeader, SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC, SimpleReply, WideExtent, WireExtent, chunk,
};

/// Longest message sent with an error, in bytes; longer ones are cut.
const MAX_MESSAGE: usize = 1024;
/// Most extents in one answer. A client asks again for the rest.
pub(crate) const MAX_EXTENTS: usize = 4096;
/// Bytes of the longest head: of a chunk with 64-bit lengths, and 8 bytes more.
const MAX_HEAD: usize = 40;

/// The driver's name for a request buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub u32);

/// A run of bytes to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// These bytes. They stay at this address until passed by
    /// `ReplyQueue::advance`.
    Bytes(&'a [u8]),
    /// Bytes of a request buffer.
    Buffer {
        /// Which.
        slot: Slot,
        /// First byte within it.
        start: usize,
        /// Bytes.
        len: usize,
    },
}

/// Which form replies have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Simple,
    Structured,
    Extended,
}

impl Form {
    /// What a client has chosen.
    pub(super) fn of(options: &Options) -> Self {
        match (options.extended, options.structured) {
            (true, _) => Self::Extended,
            (false, true) => Self::Structured,
            (false, false) => Self::Simple,
        }
    }
}

/// One reply.
#[derive(Debug)]
pub(super) struct Reply {
    head: Head,
    body: Body,
}

/// What comes before the body, held inline.
#[derive(Debug)]
struct Head {
    bytes: [u8; MAX_HEAD],
    len: usize,
}

#[derive(Debug)]
enum Body {
    None,
    Buffer {
        slot: Slot,
        start: usize,
        len: usize,
    },
    Message(Cow<'static, str>),
    Bytes(Vec<u8>),
}

impl Head {
    fn new(bytes: &[u8]) -> Self {
        let mut head = Self {
            bytes: [0; MAX_HEAD],
            len: 0,
        };
        head.append(bytes);
        head
    }

    /// Adds what fits; everything does, see [`MAX_HEAD`].
    fn append(&mut self, more: &[u8]) {
        let end = self.len + more.len();
        debug_assert!(end <= MAX_HEAD);
        if let Some(place) = self.bytes.get_mut(self.len..end) {
            place.copy_from_slice(more);
            self.len = end;
        }
    }

    fn with(mut self, more: &[u8]) -> Self {
        self.append(more);
        self
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn simple(cookie: u64, error: u32) -> Self {
        let reply = SimpleReply {
            magic: SIMPLE_REPLY_MAGIC.into(),
            error: error.into(),
            cookie: cookie.into(),
        };
        Self::new(reply.as_bytes())
    }

    /// Of a chunk with `len` bytes behind it.
    fn chunk(form: Form, (cookie, offset): (u64, u64), kind: u16, last: bool, len: usize) -> Self {
        let flags = if last { chunk::DONE } else { 0 };
        if form == Form::Extended {
            let header = ExtendedChunkHeader {
                magic: EXTENDED_REPLY_MAGIC.into(),
                flags: flags.into(),
                kind: kind.into(),
                cookie: cookie.into(),
                offset: offset.into(),
                len: (len as u64).into(),
            };
            return Self::new(header.as_bytes());
        }
        let header = ChunkHeader {
            magic: STRUCTURED_REPLY_MAGIC.into(),
            flags: flags.into(),
            kind: kind.into(),
            cookie: cookie.into(),
            len: (len as u32).into(),
        };
        Self::new(header.as_bytes())
    }
}

impl Reply {
    /// Success without data. Allowed in the short form also with structured replies
    /// ("Structured replies": only reads and block status need chunks), but not under
    /// extended headers.
    pub(super) fn done(form: Form, request: &Request) -> Self {
        let head = match form {
            Form::Extended => {
                Head::chunk(form, (request.cookie, request.offset), chunk::NONE, true, 0)
            }
            Form::Simple | Form::Structured => Head::simple(request.cookie, 0),
        };
        Self {
            head,
            body: Body::None,
        }
    }

    /// The data of a read, beginning at byte `start` of the buffer.
    pub(super) fn data(form: Form, request: &Request, slot: Slot, start: usize) -> Self {
        let len = request.len as usize;
        let asked = (request.cookie, request.offset);
        let head = match form {
            Form::Simple => Head::simple(request.cookie, 0),
            _ => Head::chunk(form, asked, chunk::OFFSET_DATA, true, 8 + len)
                .with(&request.offset.to_be_bytes()),
        };
        Self {
            head,
            body: Body::Buffer { slot, start, len },
        }
    }

    /// Failure of the request with this cookie and offset. Only structured replies
    /// carry the message.
    pub(super) fn error(
        form: Form,
        asked: (u64, u64),
        error: Errno,
        message: Cow<'static, str>,
    ) -> Self {
        if form == Form::Simple {
            return Self {
                head: Head::simple(asked.0, error as u32),
                body: Body::None,
            };
        }
        let message = cut(message);
        let head = Head::chunk(form, asked, chunk::ERROR, true, 6 + message.len())
            .with(&(error as u32).to_be_bytes())
            .with(&(message.len() as u16).to_be_bytes());
        Self {
            head,
            body: Body::Message(message),
        }
    }

    /// Block status, a chunk for each context; `None` if one of them says nothing about
    /// the request's range.
    pub(super) fn status(form: Form, request: &Request, told: &[Status]) -> Option<Self> {
        let mut bytes = Vec::new();
        let most = MAX_EXTENTS / told.len().max(1);
        for (index, status) in told.iter().enumerate() {
            let extents = clipped(request, &status.extents, most);
            if extents.is_empty() {
                return None;
            }
            let (kind, list) = match form {
                Form::Extended => (chunk::BLOCK_STATUS_EXT, wide(&extents)),
                _ => (chunk::BLOCK_STATUS, narrow(&extents)),
            };
            let (last, len) = (index + 1 == told.len(), 4 + list.len());
            let head = Head::chunk(form, (request.cookie, request.offset), kind, last, len);
            bytes.extend_from_slice(head.as_bytes());
            bytes.extend_from_slice(&status.context.to_be_bytes());
            bytes.extend_from_slice(&list);
        }
        (!bytes.is_empty()).then_some(Self {
            head: Head::new(&[]),
            body: Body::Bytes(bytes),
        })
    }

    fn header(&self) -> &[u8] {
        self.head.as_bytes()
    }

    fn body(&self) -> Segment<'_> {
        match &self.body {
            Body::None => Segment::Bytes(&[]),
            Body::Buffer { slot, start, len } => Segment::Buffer {
                slot: *slot,
                start: *start,
                len: *len,
            },
            Body::Message(message) => Segment::Bytes(message.as_bytes()),
            Body::Bytes(bytes) => Segment::Bytes(bytes),
        }
    }

    fn len(&self) -> usize {
        self.header().len() + self.body().len()
    }

    fn slot(&self) -> Option<Slot> {
        match self.body {
            Body::Buffer { slot, .. } => Some(slot),
            _ => None,
        }
    }
}

impl Segment<'_> {
    /// Bytes.
    #[must_use]
    #[allow(
        clippy::len_without_is_empty,
        reason = "empty segments are never handed out"
    )]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Buffer { len, .. } => *len,
        }
    }

    /// What is left without the first `n` bytes.
    fn skip(self, n: usize) -> Self {
        match self {
            Self::Bytes(bytes) => Self::Bytes(bytes.get(n..).unwrap_or(&[])),
            Self::Buffer { slot, start, len } => {
                let n = n.min(len);
                Self::Buffer {
                    slot,
                    start: start + n,
                    len: len - n,
                }
            }
        }
    }
}

fn cut(message: Cow<'static, str>) -> Cow<'static, str> {
    match beginning(&message, MAX_MESSAGE).len() {
        all if all == message.len() => message,
        some => Cow::Owned(message.get(..some).unwrap_or_default().to_owned()),
    }
}

/// Extents clipped to what was asked, neighbours of one kind merged; one only if
/// the client wants one.
fn clipped(request: &Request, extents: &[Extent], most: usize) -> Vec<Extent> {
    let most = match request.op {
        Op::BlockStatus { one: true } => 1,
        _ => most,
    };
    let mut out: Vec<Extent> = Vec::with_capacity(extents.len().min(most));
    let mut left = request.len;
    for &Extent { len, flags } in extents {
        let len = len.min(left);
        left -= len;
        let full = out.len() == most;
        match out.last_mut() {
            _ if len == 0 => {}
            Some(last) if last.flags == flags => last.len += len,
            _ if full => break,
            _ => out.push(Extent { len, flags }),
        }
    }
    out
}

/// In 32 bits: a request without extended headers is no longer than that.
fn narrow(extents: &[Extent]) -> Vec<u8> {
    let mut list = Vec::new();
    for extent in extents {
        let wire = WireExtent {
            len: (extent.len as u32).into(),
            flags: extent.flags.into(),
        };
        list.extend_from_slice(wire.as_bytes());
    }
    list
}

/// In 64 bits, and how many they are.
fn wide(extents: &[Extent]) -> Vec<u8> {
    let mut list = (extents.len() as u32).to_be_bytes().to_vec();
    for extent in extents {
        let wire = WideExtent {
            len: extent.len.into(),
            flags: u64::from(extent.flags).into(),
        };
        list.extend_from_slice(wire.as_bytes());
    }
    list
}

/// The queue is full: more replies than requests.
#[derive(Debug)]
pub(super) struct QueueFull;

/// Replies in the order they go out.
#[derive(Debug)]
pub struct ReplyQueue {
    ring: Box<[Option<Reply>]>,
    first: usize,
    count: usize,
    /// Bytes of the first reply that are sent.
    sent: usize,
}

impl ReplyQueue {
    /// A queue with room for `limit` replies.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            ring: (0..limit).map(|_| None).collect(),
            first: 0,
            count: 0,
            sent: 0,
        }
    }

    /// Adds a reply at the end.
    pub(super) fn push(&mut self, reply: Reply) -> Result<(), QueueFull> {
        let index = self.index(self.count);
        match self.ring.get_mut(index) {
            Some(place) if place.is_none() => *place = Some(reply),
            _ => return Err(QueueFull),
        }
        self.count += 1;
        Ok(())
    }

    /// Nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether a block status, which has no buffer, is among them.
    #[must_use]
    pub fn holds_status(&self) -> bool {
        let is_status = |reply: &Reply| matches!(reply.body, Body::Bytes(_));
        self.ring.iter().flatten().any(is_status)
    }

    /// Everything still to send, in order; no segment is empty. Taking only the
    /// first few is fine.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let replies = (0..self.count).filter_map(|n| self.ring.get(self.index(n))?.as_ref());
        let all = replies.flat_map(|reply| [Segment::Bytes(reply.header()), reply.body()]);
        let mut skip = self.sent;
        all.map(move |segment| {
            let here = skip.min(segment.len());
            skip -= here;
            segment.skip(here)
        })
        .filter(|segment| segment.len() > 0)
    }

    /// `n` bytes went out. Calls `free` for each buffer not needed any more and
    /// returns how many replies are complete.
    pub(super) fn advance(&mut self, n: usize, mut free: impl FnMut(Slot)) -> usize {
        self.sent += n;
        let mut complete = 0;
        while let Some(len) = self
            .ring
            .get(self.first)
            .and_then(Option::as_ref)
            .map(Reply::len)
        {
            if self.sent < len {
                break;
            }
            self.sent -= len;
            self.pop().into_iter().for_each(&mut free);
            complete += 1;
        }
        if self.count == 0 {
            self.sent = 0;
        }
        complete
    }

    /// Throws everything away: nothing can be sent any more. As [`Self::advance`].
    pub(super) fn discard(&mut self, mut free: impl FnMut(Slot)) -> usize {
        let count = self.count;
        while self.count > 0 {
            self.pop().into_iter().for_each(&mut free);
        }
        self.sent = 0;
        count
    }

    /// Removes the first reply and says which buffer it held.
    fn pop(&mut self) -> Option<Slot> {
        let reply = self.ring.get_mut(self.first).and_then(Option::take);
        self.first = self.index(1);
        self.count -= 1;
        reply?.slot()
    }

    fn index(&self, n: usize) -> usize {
        (self.first + n) % self.ring.len().max(1)
    }
}
