//! One TLS connection, carried by a thread of its own.
//!
//! Invariants:
//! - Nothing is read from a side before what was read from it is on its way out, so a
//!   side that does not read is not read from for long, and memory is bounded.
//! - An end of one side is told to the other after everything before it.
//! - Once the inner side is gone, what is left for the client has [`LINGER`] to get out.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::{ServerConfig, ServerConnection};

/// How long a client may take to read the rest.
const LINGER: Duration = Duration::from_secs(10);
/// Bytes read from the inner side at once.
const PIECE: usize = 256 << 10;

/// Why a connection ended otherwise than by its ends.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// The client breaks TLS, or is not let in.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A socket failed.
    #[error("the socket failed: {0}")]
    Socket(#[from] io::Error),
    /// The TLS handshake, or the last bytes, took too long.
    #[error("the client took too long")]
    Slow,
}

/// See the module.
pub struct Pump {
    outer: TcpStream,
    inner: UnixStream,
    tls: ServerConnection,
    /// Plain bytes on their way to the inner side.
    plain: Vec<u8>,
    /// How many of them are there.
    passed: usize,
    outer_ended: bool,
    inner_ended: bool,
    /// When this must be over: the handshake, or the rest.
    deadline: Option<Instant>,
}

impl Pump {
    /// A connection whose TLS handshake comes next and may take until `deadline`.
    ///
    /// # Errors
    /// When TLS or a socket cannot be set up.
    pub fn new(
        config: Arc<ServerConfig>,
        outer: TcpStream,
        inner: UnixStream,
        deadline: Instant,
    ) -> Result<Self, PumpError> {
        outer.set_nonblocking(true)?;
        inner.set_nonblocking(true)?;
        let mut tls = ServerConnection::new(config)?;
        // What is handed in is one piece at most, after the one before is out.
        tls.set_buffer_limit(None);
        Ok(Self {
            outer,
            inner,
            tls,
            plain: Vec::new(),
            passed: 0,
            outer_ended: false,
            inner_ended: false,
            deadline: Some(deadline),
        })
    }

    /// Carries bytes until both sides have ended.
    ///
    /// # Errors
    /// When the connection was cut off.
    pub fn run(mut self) -> Result<(), PumpError> {
        let mut piece = vec![0; PIECE];
        while !self.inner_ended || self.tls.wants_write() {
            let (outer, inner) = self.wait()?;
            if outer.intersects(PollFlags::POLLOUT | PollFlags::POLLERR) {
                self.send()?;
            }
            if !outer.is_empty() && self.takes_outer() {
                self.receive()?;
            }
            if !inner.is_empty() && self.takes_inner() {
                self.fetch(&mut piece)?;
            } else if inner.contains(PollFlags::POLLHUP) {
                self.hurry();
            }
            self.pass();
        }
        Ok(())
    }

    fn takes_outer(&self) -> bool {
        !self.outer_ended && !self.inner_ended && self.plain.is_empty()
    }

    fn takes_inner(&self) -> bool {
        !self.inner_ended && !self.tls.is_handshaking() && !self.tls.wants_write()
    }

    /// What is wanted of the client's side; `None`: nothing, not even its end.
    fn outer_wants(&self) -> Option<PollFlags> {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::POLLIN, self.takes_outer());
        wanted.set(PollFlags::POLLOUT, self.tls.wants_write());
        (!wanted.is_empty()).then_some(wanted)
    }

    /// The same of the inner side. Its end is always of interest, once.
    fn inner_wants(&self) -> Option<PollFlags> {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::POLLIN, self.takes_inner());
        wanted.set(PollFlags::POLLOUT, !self.plain.is_empty());
        let unhurried = !self.inner_ended && self.deadline.is_none();
        (!wanted.is_empty() || unhurried).then_some(wanted)
    }

    /// Waits until something happens that is wanted, and says what on which side.
    fn wait(&self) -> Result<(PollFlags, PollFlags), PumpError> {
        let outer = self.outer_wants().map(|w| (self.outer.as_fd(), w));
        let inner = self.inner_wants().map(|w| (self.inner.as_fd(), w));
        let sides = [outer, inner];
        let watch = |(fd, wanted)| PollFd::new(fd, wanted);
        let mut watched: Vec<PollFd<'_>> = sides.into_iter().flatten().map(watch).collect();
        match poll(&mut watched, self.patience()?) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
        let mut told = watched.iter().map(|one| one.revents());
        let mut next = |watched: bool| match watched {
            true => told.next().flatten().unwrap_or(PollFlags::empty()),
            false => PollFlags::empty(),
        };
        Ok((next(outer.is_some()), next(inner.is_some())))
    }

    fn patience(&self) -> Result<PollTimeout, PumpError> {
        let Some(deadline) = self.deadline else {
            return Ok(PollTimeout::NONE);
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(PumpError::Slow);
        }
        // Rounded up: not again and again for less than a millisecond.
        let left = left + Duration::from_millis(1);
        Ok(PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))
    }

    /// The inner side is gone: the client has so long for the rest.
    fn hurry(&mut self) {
        self.deadline.get_or_insert(Instant::now() + LINGER);
    }

    /// To the client, what there is.
    fn send(&mut self) -> Result<(), PumpError> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.outer) {
                Ok(0) => return Err(io::Error::from(ErrorKind::WriteZero).into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// From the client.
    fn receive(&mut self) -> Result<(), PumpError> {
        let handshaking = self.tls.is_handshaking();
        match self.tls.read_tls(&mut self.outer) {
            Ok(0) if handshaking => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
            Ok(0) => self.outer_ended = true,
            Ok(_) => {}
            Err(error) if is_for_now(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if let Err(error) = self.tls.process_new_packets() {
            // The client may learn why.
            let _ = self.send();
            return Err(error.into());
        }
        if handshaking && !self.tls.is_handshaking() {
            self.deadline = None;
        }
        self.decrypted();
        Ok(())
    }

    /// Takes what was decrypted.
    fn decrypted(&mut self) {
        let mut part = [0; 16 << 10];
        loop {
            match self.tls.reader().read(&mut part) {
                Ok(n) if n > 0 => self.plain.extend(part.iter().take(n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Its farewell, or an end without one: requests say how long they are.
                Ok(_) | Err(_) => {
                    self.outer_ended = true;
                    return;
                }
            }
        }
    }

    /// From the inner side, to be sent.
    fn fetch(&mut self, piece: &mut [u8]) -> Result<(), PumpError> {
        match self.inner.read(piece) {
            Err(error) if is_for_now(&error) => return Ok(()),
            Ok(n) if n > 0 => {
                let part = piece.get(..n).unwrap_or_default();
                self.tls.writer().write_all(part)?;
            }
            Ok(_) | Err(_) => {
                self.inner_ended = true;
                self.tls.send_close_notify();
                self.hurry();
            }
        }
        self.send()
    }

    /// To the inner side, and the end of the client's if that is all.
    fn pass(&mut self) {
        while let Some(rest) = self
            .plain
            .get(self.passed..)
            .filter(|rest| !rest.is_empty())
        {
            match self.inner.write(rest) {
                Ok(n) if n > 0 => self.passed += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Nobody takes it any more.
                Ok(_) | Err(_) => break,
            }
        }
        self.plain.clear();
        self.passed = 0;
        if self.outer_ended {
            let _ = self.inner.shutdown(Shutdown::Write);
        }
    }
}

fn is_for_now(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
