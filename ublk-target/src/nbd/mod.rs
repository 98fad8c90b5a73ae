//! The NBD front end's protocol, as code that talks to no kernel.
//!
//! Fixed newstyle negotiation with structured replies, extended headers and metadata contexts, then
//! the transmission phase. Section names in the comments are those of the NBD
//! project's `doc/proto.md`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`wire`] | numbers and fixed structures of the protocol |
//! | [`export`] | what is known of an export, and the trait that provides them |
//! | [`mod@negotiate`] | the handshake; blocking, with one total time-out |
//! | [`transmission`] | the connection machine: received bytes in, checked requests out |
//! | [`request`] | one request and the rules it must meet |
//! | [`client`] | the other side: reads an export; blocking |
//! | [`reply`] | the queue of replies: headers, data in request buffers, partial sends |
//!
//! The transmission phase is driven by an I/O thread, which owns socket and
//! buffers; nothing here blocks, and after the start of a connection only refusals
//! with a made-up message and block status allocate.

pub mod client;
pub mod export;
pub mod negotiate;
pub mod reply;
pub mod request;
mod text;
pub mod transmission;
pub mod wire;

#[cfg(test)]
mod tests;

pub use export::{ExportEntry, ExportInfo, Exports, Refusal, RefusalKind, Since};
pub use negotiate::{Context, NegotiateError, Negotiated, Options, negotiate};
pub use reply::{ReplyQueue, Segment, Slot};
pub use request::{Extent, Op, Request, Status};
pub use transmission::{Connection, End, Incoming, Receive};
pub use wire::Errno;
