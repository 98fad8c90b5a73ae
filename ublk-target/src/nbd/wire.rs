//! Numbers and fixed structures of the NBD protocol.
//!
//! Everything on the wire is big-endian. Each structure is declared once, without
//! padding, and its size is asserted at compile time. Sections named are those of
//! the NBD project's `doc/proto.md`. No logic lives here.

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First word of the server ("NBDMAGIC"); "Fixed newstyle negotiation".
pub const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second word of the server, and first of every option ("IHAVEOPT").
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// First word of every reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// First word of a request; "Request message".
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// First word of a simple reply; "Simple reply message".
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// First word of a structured reply chunk; "Structured reply chunk message".
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// First word of a request under extended headers; "Extended request message".
pub const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
/// First word of a reply chunk under extended headers; "Extended reply chunk message".
pub const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// Longest string of the protocol in bytes; "Value types, Strings".
pub const MAX_STRING: usize = 4096;
/// Longest payload of a request in bytes that any client may assume;
/// "Block size constraints".
pub const MAX_PAYLOAD: u32 = 32 << 20;

/// Handshake flags, the same bits from both sides; "Handshake flags".
pub mod handshake {
    /// Fixed newstyle.
    pub const FIXED_NEWSTYLE: u16 = 1 << 0;
    /// No 124 bytes of zeroes after the answer to `EXPORT_NAME`.
    pub const NO_ZEROES: u16 = 1 << 1;
}

/// Transmission flags; "Transmission flags".
pub mod export_flag {
    /// Flags are there at all.
    pub const HAS_FLAGS: u16 = 1 << 0;
    /// No command that changes anything.
    pub const READ_ONLY: u16 = 1 << 1;
    /// `FLUSH` is understood.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// The `FUA` command flag is understood.
    pub const SEND_FUA: u16 = 1 << 3;
    /// `TRIM` is understood.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// `WRITE_ZEROES` is understood.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// The `DF` command flag is understood. Only with structured replies.
    pub const SEND_DF: u16 = 1 << 7;
    /// A flush on one connection covers what was acknowledged on the others.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    /// The `FAST_ZERO` command flag is understood.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Option numbers; "Option types".
pub mod option {
    /// Ends the negotiation with an export; errors can only be told by hanging up.
    pub const EXPORT_NAME: u32 = 1;
    /// Ends the negotiation.
    pub const ABORT: u32 = 2;
    /// Asks for the names of the exports.
    pub const LIST: u32 = 3;
    /// Asks for encryption.
    pub const STARTTLS: u32 = 5;
    /// Asks what an export is like.
    pub const INFO: u32 = 6;
    /// Like `INFO`, and ends the negotiation.
    pub const GO: u32 = 7;
    /// Asks for structured replies.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// Asks which metadata contexts there are.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Chooses metadata contexts.
    pub const SET_META_CONTEXT: u32 = 10;
    /// Asks for extended headers: lengths of 64 bits.
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Reply types of options; "Option reply types".
pub mod option_reply {
    /// Done.
    pub const ACK: u32 = 1;
    /// One export of a list.
    pub const SERVER: u32 = 2;
    /// One piece of information on an export.
    pub const INFO: u32 = 3;
    /// One metadata context.
    pub const META_CONTEXT: u32 = 4;
    /// The bit that all kinds of errors have.
    pub const IS_ERROR: u32 = 1 << 31;
    /// The option is not known here.
    pub const ERR_UNSUP: u32 = (1 << 31) | 1;
    /// The option is forbidden here.
    pub const ERR_POLICY: u32 = (1 << 31) | 2;
    /// The option was malformed, or came at the wrong time.
    pub const ERR_INVALID: u32 = (1 << 31) | 3;
    /// Encryption must be asked for first.
    pub const ERR_TLS_REQD: u32 = (1 << 31) | 5;
    /// There is no such export.
    pub const ERR_UNKNOWN: u32 = (1 << 31) | 6;
    /// The server is going away.
    pub const ERR_SHUTDOWN: u32 = (1 << 31) | 7;
    /// The client must ask for block sizes first.
    pub const ERR_BLOCK_SIZE_REQD: u32 = (1 << 31) | 8;
    /// The option is longer than the server accepts.
    pub const ERR_TOO_BIG: u32 = (1 << 31) | 9;
    /// Extended headers rule this out.
    pub const ERR_EXT_HEADER_REQD: u32 = (1 << 31) | 10;
}

/// Kinds of information on an export; "Option reply types, NBD_REP_INFO".
pub mod info {
    /// Size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// Its canonical name.
    pub const NAME: u16 = 1;
    /// A description for people.
    pub const DESCRIPTION: u16 = 2;
    /// Block size constraints.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Commands; "Request types".
pub mod command {
    /// Read.
    pub const READ: u16 = 0;
    /// Write; the payload follows the request.
    pub const WRITE: u16 = 1;
    /// The client leaves; no reply.
    pub const DISCONNECT: u16 = 2;
    /// Make durable what was acknowledged.
    pub const FLUSH: u16 = 3;
    /// The contents are not needed any more.
    pub const TRIM: u16 = 4;
    /// Make zero.
    pub const WRITE_ZEROES: u16 = 6;
    /// Ask which ranges hold data.
    pub const BLOCK_STATUS: u16 = 7;
}

/// Flags of commands; "Command flags".
pub mod command_flag {
    /// Durable before the reply.
    pub const FUA: u16 = 1 << 0;
    /// Zeroes must be allocated.
    pub const NO_HOLE: u16 = 1 << 1;
    /// A read's data in one chunk.
    pub const DF: u16 = 1 << 2;
    /// One extent is enough.
    pub const REQ_ONE: u16 = 1 << 3;
    /// Zero only if faster than writing.
    pub const FAST_ZERO: u16 = 1 << 4;
    /// The length is that of a payload that follows. Only with extended headers.
    pub const PAYLOAD_LEN: u16 = 1 << 5;
}

/// Chunks of structured replies; "Structured reply flags" and "types".
pub mod chunk {
    /// Flag: the last chunk of its reply.
    pub const DONE: u16 = 1 << 0;
    /// Nothing to tell but success.
    pub const NONE: u16 = 0;
    /// Offset (64 bits) and data.
    pub const OFFSET_DATA: u16 = 1;
    /// Zeroes: where, and how many (`u64`, `u32`). csnapd only reads these.
    pub const OFFSET_HOLE: u16 = 2;
    /// Context (32 bits) and extents.
    pub const BLOCK_STATUS: u16 = 5;
    /// Context (32 bits), count (32 bits) and extents of 64 bits.
    pub const BLOCK_STATUS_EXT: u16 = 6;
    /// The bit that all kinds of errors have.
    pub const IS_ERROR: u16 = 1 << 15;
    /// Error (32 bits), length of the message (16 bits), message.
    pub const ERROR: u16 = (1 << 15) | 1;
}

/// Extent flags of the metadata context [`BASE_ALLOCATION`]; "The base:allocation
/// metadata context".
pub mod allocation {
    /// Not allocated.
    pub const HOLE: u32 = 1 << 0;
    /// Reads as zeroes.
    pub const ZERO: u32 = 1 << 1;
}

/// Extent flags of the metadata contexts that begin with [`DIRTY_BITMAP`], as in qemu's
/// `docs/interop/nbd.txt`.
pub mod dirty {
    /// Changed.
    pub const DIRTY: u32 = 1 << 0;
}

/// The metadata context that tells data from holes.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// Its number on the wire.
pub const BASE_ALLOCATION_ID: u32 = 1;
/// What the names of metadata contexts begin with that tell what changed; the name of
/// the older snapshot follows.
pub const DIRTY_BITMAP: &str = "qemu:dirty-bitmap:";
/// The number on the wire of the first of them that is chosen; others follow.
pub const DIRTY_BITMAP_ID: u32 = 2;

/// Errors of a request; "Error values".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Errno {
    /// Not permitted (a write to a read-only export).
    Perm = 1,
    /// The device failed, or what it holds is not known good.
    Io = 5,
    /// Out of memory.
    NoMem = 12,
    /// The request makes no sense for this export.
    Inval = 22,
    /// No space, or a write beyond the end.
    NoSpc = 28,
    /// Too large to be answered as asked.
    Overflow = 75,
    /// Not supported (a fast zero that would be slow).
    NotSup = 95,
    /// The server is going away.
    Shutdown = 108,
}

/// What the server says first.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Greeting {
    /// [`NBD_MAGIC`].
    pub magic: U64,
    /// [`OPTION_MAGIC`].
    pub option_magic: U64,
    /// Bits of [`handshake`].
    pub flags: U16,
}

/// The head of an option; its data follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct OptionHeader {
    /// [`OPTION_MAGIC`].
    pub magic: U64,
    /// One of [`option`].
    pub option: U32,
    /// Bytes of data.
    pub len: U32,
}

/// The head of a reply to an option; its data follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct OptionReplyHeader {
    /// [`OPTION_REPLY_MAGIC`].
    pub magic: U64,
    /// The option answered.
    pub option: U32,
    /// One of [`option_reply`].
    pub kind: U32,
    /// Bytes of data.
    pub len: U32,
}

/// Size and flags of an export: the data of [`info::EXPORT`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct InfoExport {
    /// [`info::EXPORT`].
    pub kind: U16,
    /// Bytes.
    pub size: U64,
    /// Bits of [`export_flag`].
    pub flags: U16,
}

/// Block size constraints: the data of [`info::BLOCK_SIZE`], in bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct InfoBlockSize {
    /// [`info::BLOCK_SIZE`].
    pub kind: U16,
    /// Every offset and length is a multiple of it.
    pub minimum: U32,
    /// Best for throughput.
    pub preferred: U32,
    /// Longest payload.
    pub maximum: U32,
}

/// A request; a write's payload follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RequestHeader<Len = U32> {
    /// [`REQUEST_MAGIC`] or [`EXTENDED_REQUEST_MAGIC`].
    pub magic: U32,
    /// Bits of [`command_flag`].
    pub flags: U16,
    /// One of [`command`].
    pub command: U16,
    /// The client's name for the request, repeated in the reply.
    pub cookie: U64,
    /// First byte.
    pub offset: U64,
    /// Bytes of payload with [`command_flag::PAYLOAD_LEN`], else of effect.
    pub len: Len,
}

/// A request under extended headers; its payload follows.
pub type ExtendedRequestHeader = RequestHeader<U64>;

/// A simple reply; a successful read's data follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SimpleReply {
    /// [`SIMPLE_REPLY_MAGIC`].
    pub magic: U32,
    /// 0 or an [`Errno`].
    pub error: U32,
    /// The request's.
    pub cookie: U64,
}

/// The head of a structured reply chunk.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ChunkHeader {
    /// [`STRUCTURED_REPLY_MAGIC`].
    pub magic: U32,
    /// [`chunk::DONE`] or 0.
    pub flags: U16,
    /// One of [`chunk`].
    pub kind: U16,
    /// The request's.
    pub cookie: U64,
    /// Bytes that follow.
    pub len: U32,
}

/// The head of a reply chunk under extended headers.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ExtendedChunkHeader {
    /// [`EXTENDED_REPLY_MAGIC`].
    pub magic: U32,
    /// [`chunk::DONE`] or 0.
    pub flags: U16,
    /// One of [`chunk`].
    pub kind: U16,
    /// The request's.
    pub cookie: U64,
    /// The request's.
    pub offset: U64,
    /// Bytes that follow.
    pub len: U64,
}

/// One extent of [`chunk::BLOCK_STATUS`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct WireExtent {
    /// Bytes.
    pub len: U32,
    /// Bits of the context.
    pub flags: U32,
}

/// One extent of [`chunk::BLOCK_STATUS_EXT`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct WideExtent {
    /// Bytes.
    pub len: U64,
    /// Bits of the context.
    pub flags: U64,
}

const _: () = {
    assert!(size_of::<Greeting>() == 18);
    assert!(size_of::<OptionHeader>() == 16);
    assert!(size_of::<OptionReplyHeader>() == 20);
    assert!(size_of::<InfoExport>() == 12);
    assert!(size_of::<InfoBlockSize>() == 14);
    assert!(size_of::<RequestHeader>() == 28);
    assert!(size_of::<ExtendedRequestHeader>() == 32);
    assert!(size_of::<SimpleReply>() == 16);
    assert!(size_of::<ExtendedChunkHeader>() == 32);
    assert!(size_of::<ChunkHeader>() == 20);
    assert!(size_of::<WireExtent>() == 8);
    assert!(size_of::<WideExtent>() == 16);
};
