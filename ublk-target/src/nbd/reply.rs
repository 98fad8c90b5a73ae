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

use super::request::{Extent, Op, Request};
use super::text::beginning;
use super::wire::{
    BASE_ALLOCATION_ID, ChunkHeader, DataChunk, Errno, ErrorChunk, SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC, SimpleReply, StatusChunk, WireExtent, allocation, chunk,
};

/// Longest message sent with an error, in bytes; longer ones are cut.
const MAX_MESSAGE: usize = 1024;
/// Most extents in one answer. A client asks again for the rest.
const MAX_EXTENTS: usize = 4096;

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

/// One reply.
#[derive(Debug)]
pub(super) struct Reply {
    header: Header,
    body: Body,
}

#[derive(Debug)]
enum Header {
    Simple(SimpleReply),
    Data(DataChunk),
    Error(ErrorChunk),
    Status(StatusChunk),
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
    Extents(Vec<WireExtent>),
}

impl Reply {
    /// Success without data. Allowed in this short form also with structured
    /// replies ("Structured replies": only reads and block status need chunks).
    pub(super) fn done(cookie: u64) -> Self {
        Self {
            header: simple(cookie, 0),
            body: Body::None,
        }
    }

    /// The data of a read, beginning at byte `start` of the buffer.
    pub(super) fn data(structured: bool, request: &Request, slot: Slot, start: usize) -> Self {
        let len = request.len as usize;
        let header = if structured {
            let header = chunk_header(request.cookie, chunk::OFFSET_DATA, 8 + len);
            Header::Data(DataChunk {
                header,
                offset: request.offset.into(),
            })
        } else {
            simple(request.cookie, 0)
        };
        Self {
            header,
            body: Body::Buffer { slot, start, len },
        }
    }

    /// Failure. Only structured replies carry the message.
    pub(super) fn error(
        structured: bool,
        cookie: u64,
        error: Errno,
        message: Cow<'static, str>,
    ) -> Self {
        if !structured {
            return Self {
                header: simple(cookie, error as u32),
                body: Body::None,
            };
        }
        let message = cut(message);
        let header = ErrorChunk {
            header: chunk_header(cookie, chunk::ERROR, 6 + message.len()),
            error: (error as u32).into(),
            message_len: (message.len() as u16).into(),
        };
        Self {
            header: Header::Error(header),
            body: Body::Message(message),
        }
    }

    /// Block status; `None` if `extents` say nothing about the request's range.
    pub(super) fn status(request: &Request, extents: &[Extent]) -> Option<Self> {
        let extents = wire_extents(request, extents);
        if extents.is_empty() {
            return None;
        }
        let header = chunk_header(
            request.cookie,
            chunk::BLOCK_STATUS,
            4 + size_of_val(&*extents),
        );
        let header = StatusChunk {
            header,
            context: BASE_ALLOCATION_ID.into(),
        };
        Some(Self {
            header: Header::Status(header),
            body: Body::Extents(extents),
        })
    }

    fn header(&self) -> &[u8] {
        match &self.header {
            Header::Simple(header) => header.as_bytes(),
            Header::Data(header) => header.as_bytes(),
            Header::Error(header) => header.as_bytes(),
            Header::Status(header) => header.as_bytes(),
        }
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
            Body::Extents(extents) => Segment::Bytes(extents.as_bytes()),
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

fn simple(cookie: u64, error: u32) -> Header {
    Header::Simple(SimpleReply {
        magic: SIMPLE_REPLY_MAGIC.into(),
        error: error.into(),
        cookie: cookie.into(),
    })
}

/// Every reply is one chunk, so every chunk is the last.
fn chunk_header(cookie: u64, kind: u16, len: usize) -> ChunkHeader {
    ChunkHeader {
        magic: STRUCTURED_REPLY_MAGIC.into(),
        flags: chunk::DONE.into(),
        kind: kind.into(),
        cookie: cookie.into(),
        len: (len as u32).into(),
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
fn wire_extents(request: &Request, extents: &[Extent]) -> Vec<WireExtent> {
    let most = if request.op == (Op::BlockStatus { one: true }) {
        1
    } else {
        MAX_EXTENTS
    };
    let mut out: Vec<WireExtent> = Vec::with_capacity(extents.len().min(most));
    let mut left = request.len;
    for extent in extents {
        let len = extent.len.min(left);
        left -= len;
        let flags = if extent.hole { allocation::HOLE } else { 0 }
            | if extent.zero { allocation::ZERO } else { 0 };
        let full = out.len() == most;
        match out.last_mut() {
            _ if len == 0 => {}
            Some(last) if last.flags.get() == flags => last.len += len,
            _ if full => break,
            _ => out.push(WireExtent {
                len: len.into(),
                flags: flags.into(),
            }),
        }
    }
    out
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
