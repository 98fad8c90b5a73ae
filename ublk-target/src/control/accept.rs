//! The thread that accepts the connections of a listening socket, until it is told to stop.
//!
//! The socket itself is not shut down for that: one that was passed to us stays open for
//! our successor.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// An accepting thread. Call [`Accepting::stop`] to wait for its end.
pub struct Accepting {
    /// Closing it ends the thread.
    wake: UnixStream,
    thread: JoinHandle<()>,
}

impl Accepting {
    /// Has a thread of this name take connections from `socket` by `accept` and pass them to
    /// `admit`, which must not block for long.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start<L: AsFd + Send + 'static, C: 'static>(
        name: String,
        socket: L,
        accept: fn(&L) -> io::Result<C>,
        admit: impl Fn(C) + Send + 'static,
    ) -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || accept_loop(&socket, &woken, accept, admit))?;
        Ok(Self { wake, thread })
    }

    /// Accepts no further connection: on return the last one was admitted.
    pub fn stop(self) {
        drop(self.wake);
        let _ = self.thread.join();
    }
}

/// Accepts until the other end of `woken` is closed.
fn accept_loop<L: AsFd, C>(
    socket: &L,
    woken: &UnixStream,
    accept: fn(&L) -> io::Result<C>,
    admit: impl Fn(C),
) {
    let mut watched = [
        PollFd::new(socket.as_fd(), PollFlags::POLLIN),
        PollFd::new(woken.as_fd(), PollFlags::POLLIN),
    ];
    loop {
        let ready = poll(&mut watched, PollTimeout::NONE).map_err(io::Error::from);
        let stopped = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        if watched.last().is_none_or(stopped) {
            return;
        }
        match ready.and_then(|_| accept(socket)) {
            Ok(connection) => admit(connection),
            Err(error) if is_of_a_client(&error) => {}
            Err(error) => {
                // Out of descriptors or memory: others may give some back.
                tracing::warn!(%error, "cannot accept a connection");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn is_of_a_client(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::Interrupted | K::WouldBlock | K::ConnectionAborted | K::ConnectionReset
    )
}
