//! One request of the transmission phase, and the rules it must meet.
//!
//! [`parse`] turns a header into a [`Request`] that lies within the export, is
//! aligned and is allowed, or into the [`Refused`] the client gets. It never fails
//! otherwise: whether the stream is still in step is the connection's affair.

use super::export::ExportInfo;
use super::negotiate::Options;
use super::wire::{Errno, RequestHeader, allocation, command, command_flag, dirty};

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read. (Its data always goes out in one piece, so `DF` needs no notice.)
    Read,
    /// Write.
    Write,
    /// Make zero.
    WriteZeroes {
        /// Deallocating is allowed.
        may_punch: bool,
        /// Fail with [`Errno::NotSup`] at once unless faster than writing.
        fast: bool,
    },
    /// The contents are not needed any more; may do nothing.
    Trim,
    /// Make durable whatever was acknowledged, on any connection.
    Flush,
    /// Which ranges hold data.
    BlockStatus {
        /// One extent, not reaching beyond the range asked for.
        one: bool,
    },
}

/// A request that may be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client's name for it.
    pub cookie: u64,
    /// What to do.
    pub op: Op,
    /// First byte; a multiple of the minimum block size.
    pub offset: u64,
    /// Bytes; a multiple of the minimum block size. Not 0 but for a flush. At most
    /// the export's maximum payload for reads and writes.
    pub len: u64,
    /// Durable before the reply.
    pub fua: bool,
}

/// One extent of an answer to [`Op::BlockStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes, not 0, a multiple of the minimum block size.
    pub len: u64,
    /// Bits whose meaning is the context's.
    pub flags: u32,
}

impl Extent {
    /// An extent of `base:allocation`.
    #[must_use]
    pub fn allocation(len: u64, data: bool) -> Self {
        let flags = if data {
            0
        } else {
            allocation::HOLE | allocation::ZERO
        };
        Self { len, flags }
    }

    /// An extent of a context that tells what changed.
    #[must_use]
    pub fn changed(len: u64, changed: bool) -> Self {
        let flags = if changed { dirty::DIRTY } else { 0 };
        Self { len, flags }
    }
}

/// What one metadata context says of a request's range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The context's number on the wire.
    pub context: u32,
    /// From the request's offset on, without gaps.
    pub extents: Vec<Extent>,
}

/// The head of a request, of either form.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// First word.
    pub magic: u32,
    /// Bits of [`command_flag`].
    pub flags: u16,
    /// One of [`command`].
    pub command: u16,
    /// The client's name for the request.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl<Len: Into<u64>> From<RequestHeader<Len>> for Head {
    fn from(header: RequestHeader<Len>) -> Self {
        Self {
            magic: header.magic.get(),
            flags: header.flags.get(),
            command: header.command.get(),
            cookie: header.cookie.get(),
            offset: header.offset.get(),
            len: header.len.into(),
        }
    }
}

/// A request that may not be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The client's name for it.
    pub cookie: u64,
    /// Where it began.
    pub offset: u64,
    /// What the client is told.
    pub error: Errno,
    /// The same for a person.
    pub message: &'static str,
}

/// Checks a request whose magic was right, against what the client was told and has
/// chosen.
///
/// # Errors
/// The refusal to send once the stream is past the request's payload.
pub fn parse(head: &Head, info: &ExportInfo, options: &Options) -> Result<Request, Refused> {
    let &Head {
        cookie,
        offset,
        len,
        ..
    } = head;
    let refuse = |(error, message)| Refused {
        cookie,
        offset,
        error,
        message,
    };
    let op = op(head, info, options).map_err(refuse)?;
    check_range(op, offset, len, info).map_err(refuse)?;
    let fua = head.flags & command_flag::FUA != 0 && changes(op);
    Ok(Request {
        cookie,
        op,
        offset,
        len,
        fua,
    })
}

type Why = (Errno, &'static str);

/// Whether the export would be different afterwards.
fn changes(op: Op) -> bool {
    matches!(op, Op::Write | Op::WriteZeroes { .. } | Op::Trim)
}

/// Command and flags; "Command flags" says which belong together. `FUA` is allowed
/// everywhere and ignored by commands that change nothing.
fn op(head: &Head, info: &ExportInfo, options: &Options) -> Result<Op, Why> {
    let flags = head.flags;
    let has = |flag| flags & flag != 0;
    let (op, allowed) = match head.command {
        command::READ => (Op::Read, command_flag::DF),
        command::WRITE if options.extended => (Op::Write, command_flag::PAYLOAD_LEN),
        command::WRITE => (Op::Write, 0),
        command::FLUSH => (Op::Flush, 0),
        command::TRIM => (Op::Trim, 0),
        command::WRITE_ZEROES => {
            let fast = if info.fast_zero() {
                command_flag::FAST_ZERO
            } else {
                0
            };
            let zeroes = Op::WriteZeroes {
                may_punch: !has(command_flag::NO_HOLE),
                fast: has(command_flag::FAST_ZERO),
            };
            (zeroes, command_flag::NO_HOLE | fast)
        }
        command::BLOCK_STATUS if !options.has_contexts() => {
            return Err((
                Errno::Inval,
                "block status needs a metadata context to be chosen first",
            ));
        }
        command::BLOCK_STATUS => (
            Op::BlockStatus {
                one: has(command_flag::REQ_ONE),
            },
            command_flag::REQ_ONE,
        ),
        _ => return Err((Errno::Inval, "unknown command")),
    };
    if changes(op) && info.read_only() {
        return Err((Errno::Perm, "the export is read-only"));
    }
    if flags & !(allowed | command_flag::FUA) != 0 {
        return Err((Errno::Inval, "a flag this command does not take here"));
    }
    Ok(op)
}

/// Where the request lies; "Block size constraints" and "Error values".
fn check_range(op: Op, offset: u64, len: u64, info: &ExportInfo) -> Result<(), Why> {
    if op == Op::Flush {
        // Nothing but 0 is allowed, nothing else could be meant.
        return match (offset, len) {
            (0, 0) => Ok(()),
            _ => Err((Errno::Inval, "a flush has neither offset nor length")),
        };
    }
    if len == 0 {
        return Err((Errno::Inval, "the length is 0"));
    }
    let block = u64::from(info.minimum_block());
    if !offset.is_multiple_of(block) || !len.is_multiple_of(block) {
        return Err((
            Errno::Inval,
            "offset or length is no multiple of the block size",
        ));
    }
    if matches!(op, Op::Read | Op::Write) && len > info.maximum_payload().into() {
        return Err((Errno::Inval, "longer than the largest payload"));
    }
    match offset.checked_add(len) {
        Some(end) if end <= info.size() => Ok(()),
        _ if matches!(op, Op::Write | Op::WriteZeroes { .. }) => {
            Err((Errno::NoSpc, "beyond the end of the export"))
        }
        _ => Err((Errno::Inval, "beyond the end of the export")),
    }
}
