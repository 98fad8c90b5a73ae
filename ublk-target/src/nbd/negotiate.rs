//! The handshake of a new connection: fixed newstyle, server side.
//!
//! Blocking, on a thread of its own, with one time-out over everything, so a client
//! that sends a byte a second is cut off like one that sends nothing. Reads exactly
//! the bytes of the handshake: whatever follows is left in the socket for the
//! transmission phase. A client can make us hold at most one option of
//! [`MAX_OPTION`] bytes and send at most [`MAX_OPTIONS`] of them.
//!
//! | option | answer |
//! |---|---|
//! | `EXPORT_NAME` | the export, or hanging up |
//! | `INFO`, `GO` | size and flags, block sizes; name and description if asked |
//! | `LIST` | every export |
//! | `STRUCTURED_REPLY`, `EXTENDED_HEADERS` | yes |
//! | `LIST_META_CONTEXT`, `SET_META_CONTEXT` | `base:allocation`, `qemu:dirty-bitmap:` and an older snapshot |
//! | `STARTTLS` | yes where it is demanded ([`demand_tls`]), which rules out all else before |
//! | everything unknown | not supported |
//! | `ABORT` | a farewell |

mod channel;
mod options;
mod session;

use std::time::Duration;

pub use channel::{Greeted, Socket};
pub use session::Negotiated;

use super::export::{Exports, Refusal, Since};
use super::wire::{BASE_ALLOCATION_ID, DIRTY_BITMAP_ID, option, option_reply};

/// The time-out a daemon uses unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most options of one handshake: programs that list exports ask several things of each.
pub const MAX_OPTIONS: u32 = 16 << 10;
/// Most of them before encryption, of which nothing is told there.
const MAX_UNENCRYPTED_OPTIONS: u32 = 64;
/// Longest option that is looked at, in bytes.
pub const MAX_OPTION: u32 = 16 << 10;
/// Longest option that is read and refused; longer ones end the connection.
pub const MAX_SKIPPED_OPTION: u32 = 1 << 20;

/// Most metadata contexts of one connection that tell what changed.
pub const MAX_CHANGED: usize = 8;

/// What the client has chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Structured replies.
    pub structured: bool,
    /// Extended headers; structured replies with them.
    pub extended: bool,
    /// The metadata context `base:allocation`, for the export that was opened.
    pub base_allocation: bool,
    /// Metadata contexts that tell what changed, for the export that was opened.
    pub changed: [Option<Since>; MAX_CHANGED],
}

impl Options {
    /// A client that has chosen nothing.
    pub const NONE: Self = Self {
        structured: false,
        extended: false,
        base_allocation: false,
        changed: [None; MAX_CHANGED],
    };

    /// Whether any metadata context was chosen.
    #[must_use]
    pub fn has_contexts(&self) -> bool {
        self.contexts().next().is_some()
    }

    /// The metadata contexts chosen, and their numbers on the wire.
    pub fn contexts(&self) -> impl Iterator<Item = (u32, Context)> {
        let allocation = (BASE_ALLOCATION_ID, Context::Allocation);
        let changed = (DIRTY_BITMAP_ID..).zip(self.changed);
        let changed = changed.filter_map(|(id, since)| Some((id, Context::Changed(since?))));
        let allocation = self.base_allocation.then_some(allocation);
        allocation.into_iter().chain(changed)
    }
}

/// What a metadata context tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// Data and holes.
    Allocation,
    /// What changed since a snapshot.
    Changed(Since),
}

/// Why a handshake did not lead to an export.
#[derive(Debug, thiserror::Error)]
pub enum NegotiateError {
    /// The client said so, or hung up. Usual: it only wanted to look.
    #[error("the client left during the handshake")]
    Left,
    /// The handshake took too long.
    #[error("the handshake was not finished within {0:?}")]
    TimedOut(Duration),
    /// The socket failed.
    #[error("the socket failed during the handshake: {0}")]
    Socket(#[from] std::io::Error),
    /// The client wants an export without encryption, where that is demanded.
    #[error("the client does not encrypt")]
    NotEncrypted,
    /// Not an NBD client, or one of another time.
    #[error("handshake flags {0:#x} of the client are unknown here")]
    BadFlags(u32),
    /// The client is out of step.
    #[error("option magic {0:#018x}: not an NBD client")]
    BadMagic(u64),
    /// Only fixed newstyle clients may use anything but `EXPORT_NAME`.
    #[error("option {0} from a client that does not know fixed newstyle")]
    OldClient(u32),
    /// More than [`MAX_OPTIONS`].
    #[error("more options in one handshake than anybody needs")]
    TooManyOptions,
    /// Longer than [`MAX_SKIPPED_OPTION`], or a name too long for `EXPORT_NAME`.
    #[error("option {option} of {len} bytes is too long")]
    OptionTooLong {
        /// Its number.
        option: u32,
        /// Its length in bytes.
        len: u32,
    },
    /// `EXPORT_NAME` was malformed; it has no reply for errors.
    #[error("the export's name is malformed: {0}")]
    BadName(&'static str),
    /// `EXPORT_NAME` named an export that cannot be opened.
    #[error("the client asked for {name:?}: {refusal}")]
    Refused {
        /// What it asked for.
        name: String,
        /// Why not.
        refusal: Refusal,
    },
}

/// Carries out the handshake over `socket` within `timeout`. Afterwards the socket
/// is blocking and has no time-outs.
///
/// # Errors
/// When it did not lead to an export; the socket is of no more use.
pub fn negotiate<E: Exports>(
    socket: &dyn Socket,
    exports: &E,
    timeout: Duration,
) -> Result<Negotiated<E::Export>, NegotiateError> {
    socket.block()?;
    let mut channel = channel::Channel::new(socket, timeout);
    let greeted = channel.greet()?;
    let negotiated = session::Session::new(channel, exports, greeted, false).run()?;
    socket.patience(None)?;
    Ok(negotiated)
}

/// The first part of a handshake that has to be encrypted: from the greeting to the
/// client's wish for TLS, without which nothing is told it. TLS comes next on `socket`,
/// and [`negotiate_encrypted`] within.
///
/// # Errors
/// When the client did not ask for TLS; the socket is of no more use.
pub fn demand_tls(socket: &dyn Socket, timeout: Duration) -> Result<Greeted, NegotiateError> {
    socket.block()?;
    let mut channel = channel::Channel::new(socket, timeout);
    let greeted = channel.greet()?;
    for _ in 0..MAX_UNENCRYPTED_OPTIONS {
        let (option, len) = channel.option(greeted)?;
        if option == option::EXPORT_NAME {
            return Err(NegotiateError::NotEncrypted);
        }
        if len > MAX_SKIPPED_OPTION {
            return Err(NegotiateError::OptionTooLong { option, len });
        }
        channel.skip(len)?;
        match option {
            option::STARTTLS if len > 0 => {
                let why = "the option takes no data";
                channel.error(option, option_reply::ERR_INVALID, why)?;
            }
            option::STARTTLS => {
                channel.reply(option, option_reply::ACK, &[])?;
                return Ok(greeted);
            }
            option::ABORT => {
                channel.reply(option, option_reply::ACK, &[])?;
                return Err(NegotiateError::Left);
            }
            _ => {
                let why = "encryption comes first: this needs TLS and a client certificate";
                channel.error(option, option_reply::ERR_TLS_REQD, why)?;
            }
        }
    }
    Err(NegotiateError::TooManyOptions)
}

/// The rest of a handshake, within TLS. As [`negotiate`].
///
/// # Errors
/// When it did not lead to an export; the socket is of no more use.
pub fn negotiate_encrypted<E: Exports>(
    socket: &dyn Socket,
    exports: &E,
    timeout: Duration,
    greeted: Greeted,
) -> Result<Negotiated<E::Export>, NegotiateError> {
    socket.block()?;
    let channel = channel::Channel::new(socket, timeout);
    let negotiated = session::Session::new(channel, exports, greeted, true).run()?;
    socket.patience(None)?;
    Ok(negotiated)
}
