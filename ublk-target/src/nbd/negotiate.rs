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
//! | `STRUCTURED_REPLY` | yes |
//! | `LIST_META_CONTEXT`, `SET_META_CONTEXT` | `base:allocation` |
//! | `STARTTLS` and everything unknown | not supported |
//! | `ABORT` | a farewell |

mod channel;
mod options;
mod session;

use std::os::unix::net::UnixStream;
use std::time::Duration;

pub use session::Negotiated;

use super::export::{Exports, Refusal};

/// The time-out a daemon uses unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most options of one handshake.
pub const MAX_OPTIONS: u32 = 64;
/// Longest option that is looked at, in bytes.
pub const MAX_OPTION: u32 = 16 << 10;
/// Longest option that is read and refused; longer ones end the connection.
pub const MAX_SKIPPED_OPTION: u32 = 1 << 20;

/// What the client has chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Structured replies.
    pub structured: bool,
    /// The metadata context `base:allocation`, for the export that was opened.
    pub base_allocation: bool,
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
    #[error("more than {MAX_OPTIONS} options in one handshake")]
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
    socket: &UnixStream,
    exports: &E,
    timeout: Duration,
) -> Result<Negotiated<E::Export>, NegotiateError> {
    socket.set_nonblocking(false)?;
    let channel = channel::Channel::new(socket, timeout);
    let negotiated = session::Session::new(channel, exports).run()?;
    socket.set_read_timeout(None)?;
    socket.set_write_timeout(None)?;
    Ok(negotiated)
}
