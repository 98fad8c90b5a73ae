//! NBD for other machines: TCP, within TLS unless it was asked for without.
//!
//! Contract: at most `MAX_HANDSHAKES` clients are in their handshake, of one address at
//! most `MAX_OF_ADDRESS`, so that nobody keeps all others out; at most `MAX_CLIENTS` are
//! connected, of one address half of them, each encrypted by a thread of its own. Whoever is
//! too many is hung up on.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use nix::sys::socket::{setsockopt, sockopt};
use rustls::ServerConfig;

use super::Daemon;
use super::nbd_places::{Places, neighbourhood};
use super::nbd_socket::hand_over;
use super::visits::Seated;
use crate::control::accept::Accepting;
use crate::nbd::negotiate::{DEFAULT_TIMEOUT, demand_tls, negotiate_encrypted};
use crate::nbd::{NegotiateError, Negotiated, negotiate};
use crate::runtime::{Peer, Place as ClientPlace, Runtime};
use crate::tls::{Pump, PumpError};

/// Most handshakes at once.
const MAX_HANDSHAKES: usize = 64;
/// Most of them from one address.
const MAX_OF_ADDRESS: usize = 16;
/// Most connections at once.
const MAX_CLIENTS: usize = 128;
/// Most of them from one address: nobody keeps all others out.
const MAX_CLIENTS_OF_ADDRESS: usize = 64;

/// How connections are protected.
#[derive(Clone, Debug)]
pub enum Security {
    /// By TLS, with certificates of both sides.
    Tls(Arc<ServerConfig>),
    /// Not at all: everybody who can connect may read and write everything.
    Plain,
}

/// A listening TCP socket. To be stopped by [`Tcp::stop`].
pub struct Tcp {
    address: SocketAddr,
    accepting: Accepting,
}

impl Tcp {
    /// Serves NBD at `address`.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn serve(
        address: SocketAddr,
        security: Security,
        daemon: Arc<Daemon>,
        runtime: Arc<Runtime>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        // A client that has gone again must not hold up those behind it.
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let front = Arc::new(Front {
            security,
            daemon,
            runtime,
            handshakes: Places::new(MAX_HANDSHAKES, MAX_OF_ADDRESS),
            clients: Places::new(MAX_CLIENTS, MAX_CLIENTS_OF_ADDRESS),
        });
        let admit = move |(stream, peer)| admit(stream, peer, &front);
        let name = "accept-nbd-tcp".into();
        let accepting = Accepting::start(name, listener, TcpListener::accept, admit)?;
        Ok(Self { address, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no further connection. Handshakes under way end by themselves.
    pub fn stop(self) {
        self.accepting.stop();
    }
}

struct Front {
    security: Security,
    daemon: Arc<Daemon>,
    runtime: Arc<Runtime>,
    handshakes: Arc<Places>,
    clients: Arc<Places>,
}

fn admit(stream: TcpStream, peer: SocketAddr, front: &Arc<Front>) {
    let Some(place) = front.handshakes.take(peer.ip()) else {
        return tracing::warn!(%peer, "hung up on an NBD client: too many handshakes");
    };
    let front = front.clone();
    let handler = std::thread::Builder::new().name("nbd-tcp".into());
    let handler = handler.spawn(move || {
        let outcome = front.shake_hands(stream, peer);
        drop(place);
        match outcome {
            Ok(()) | Err(Refused::Handshake(NegotiateError::Left)) => {}
            Err(error) => tracing::info!(%peer, %error, "an NBD handshake failed"),
        }
    });
    if let Err(error) = handler {
        tracing::warn!(%error, "cannot start a thread for an NBD client");
    }
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Handshake(#[from] NegotiateError),
    #[error("{0}")]
    Tls(#[from] PumpError),
    #[error("{0}")]
    Socket(#[from] io::Error),
    #[error("too many are connected: {MAX_CLIENTS}, or {MAX_CLIENTS_OF_ADDRESS} of one address")]
    TooMany,
}

/// Has the kernel ask a silent client after a minute whether it is there, and give it up
/// after another: what it reads cannot be deleted until then.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &60)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &10)?;
    setsockopt(stream, sockopt::TcpKeepCount, &6)?;
    // Also while it owes us an acknowledgement, in milliseconds.
    Ok(setsockopt(stream, sockopt::TcpUserTimeout, &120_000)?)
}

impl Front {
    fn shake_hands(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) -> Result<(), Refused> {
        stream.set_nodelay(true)?;
        // Else the connection of a machine that lost its power stays for ever.
        keep_alive(&stream)?;
        let (socket, negotiated, place): (OwnedFd, _, Option<ClientPlace>) = match &self.security {
            Security::Plain => {
                let place = self.clients.take(peer.ip()).ok_or(Refused::TooMany)?;
                let negotiated = negotiate(&stream, &*self.daemon, DEFAULT_TIMEOUT)?;
                (stream.into(), negotiated, Some(Box::new(place)))
            }
            Security::Tls(config) => {
                let (inner, negotiated) = self.encrypt(config.clone(), stream, peer)?;
                (inner.into(), negotiated, None)
            }
        };
        tracing::info!(export = %negotiated.name, %peer, "an NBD client is connected");
        let address = Some(neighbourhood(peer.ip()));
        hand_over(&self.runtime, socket, negotiated, Peer { address, place });
        Ok(())
    }

    /// TLS on a thread of its own, and the handshake within it.
    fn encrypt(
        self: &Arc<Self>,
        config: Arc<ServerConfig>,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<(UnixStream, Negotiated<Seated>), Refused> {
        let deadline = Instant::now() + DEFAULT_TIMEOUT;
        let greeted = demand_tls(&stream, DEFAULT_TIMEOUT)?;
        let place = self.clients.take(peer.ip()).ok_or(Refused::TooMany)?;
        let (inner, ours) = UnixStream::pair()?;
        let pump = Pump::new(config, stream, ours, deadline)?;
        std::thread::Builder::new()
            .name("nbd-tls".into())
            .spawn(move || {
                if let Err(error) = pump.run() {
                    tracing::info!(%peer, %error, "an encrypted connection ended");
                }
                drop(place);
            })?;
        let left = deadline.saturating_duration_since(Instant::now());
        let negotiated = negotiate_encrypted(&inner, &*self.daemon, left, greeted)?;
        Ok((inner, negotiated))
    }
}
