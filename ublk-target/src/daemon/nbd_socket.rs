//! New NBD connections: accepted and negotiated on threads of their own, then
//! handed to the I/O threads.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use super::Daemon;
use super::visits::Seated;
use crate::control::listener::{ListenError, Listener, Service};
use crate::nbd::negotiate::DEFAULT_TIMEOUT;
use crate::nbd::{NegotiateError, Negotiated, negotiate};
use crate::runtime::{Peer, Runtime};

/// Most handshakes at once; connections being served do not count.
const MAX_HANDSHAKES: usize = 64;

/// Serves the NBD socket at `path`.
///
/// # Errors
/// When the socket cannot be made; see [`ListenError`].
pub fn serve(
    path: &Path,
    daemon: Arc<Daemon>,
    runtime: Arc<Runtime>,
) -> Result<Listener, ListenError> {
    Listener::start(path, MAX_HANDSHAKES, Front { daemon, runtime })
}

struct Front {
    daemon: Arc<Daemon>,
    runtime: Arc<Runtime>,
}

impl Service for Front {
    fn serve(&self, stream: UnixStream) {
        let negotiated = match negotiate(&stream, &*self.daemon, DEFAULT_TIMEOUT) {
            Ok(negotiated) => negotiated,
            Err(NegotiateError::Left) => return,
            Err(error) => return tracing::info!(%error, "an NBD handshake failed"),
        };
        tracing::debug!(export = %negotiated.name, "an NBD client is connected");
        hand_over(&self.runtime, stream.into(), negotiated, Peer::default());
    }

    fn refuse(&self, _stream: UnixStream, why: &str) {
        // The protocol has no word for this before the handshake: hang up.
        tracing::warn!("hung up on an NBD client: {why}");
    }
}

/// Has an I/O thread serve what was negotiated from here on, and give the place of `peer`
/// back at its end.
pub(super) fn hand_over(
    runtime: &Runtime,
    socket: OwnedFd,
    negotiated: Negotiated<Seated>,
    peer: Peer,
) {
    let Negotiated {
        export: Seated { export, seat },
        name,
        info,
        options,
    } = negotiated;
    if let Err(error) = runtime.serve(socket, export, (info, options), seat, peer) {
        tracing::info!(export = %name, %error, "an NBD client is hung up on");
    }
}
