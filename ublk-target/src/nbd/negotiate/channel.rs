//! The socket during the handshake: whole reads and writes before one deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use zerocopy::byteorder::big_endian::U32;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::super::text::beginning;
use super::super::wire::{
    Greeting, MAX_STRING, NBD_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, OptionHeader,
    OptionReplyHeader, handshake, option,
};
use super::NegotiateError;

/// A connected socket, of either kind.
pub trait Socket {
    /// Reads some bytes.
    ///
    /// # Errors
    /// As of `read`.
    fn receive(&self, bytes: &mut [u8]) -> std::io::Result<usize>;
    /// Writes some bytes.
    ///
    /// # Errors
    /// As of `write`.
    fn send(&self, bytes: &[u8]) -> std::io::Result<usize>;
    /// How long reads and writes wait; for ever if not said.
    ///
    /// # Errors
    /// When the socket is no more.
    fn patience(&self, limit: Option<Duration>) -> std::io::Result<()>;
    /// Makes reads and writes wait.
    ///
    /// # Errors
    /// When the socket is no more.
    fn block(&self) -> std::io::Result<()>;
}

/// What a client said in the greeting.
#[derive(Clone, Copy, Debug)]
pub struct Greeted {
    /// It knows fixed newstyle: may use other options than `EXPORT_NAME`.
    pub(super) fixed: bool,
    /// It wants no padding after `EXPORT_NAME`.
    pub(super) no_zeroes: bool,
}

macro_rules! socket {
    ($stream:ty) => {
        impl Socket for $stream {
            fn receive(&self, bytes: &mut [u8]) -> std::io::Result<usize> {
                let mut this = self;
                this.read(bytes)
            }

            fn send(&self, bytes: &[u8]) -> std::io::Result<usize> {
                let mut this = self;
                this.write(bytes)
            }

            fn patience(&self, limit: Option<Duration>) -> std::io::Result<()> {
                self.set_read_timeout(limit)?;
                self.set_write_timeout(limit)
            }

            fn block(&self) -> std::io::Result<()> {
                self.set_nonblocking(false)
            }
        }
    };
}

socket!(UnixStream);
socket!(TcpStream);

/// A socket with a deadline.
pub(super) struct Channel<'a> {
    socket: &'a dyn Socket,
    deadline: Instant,
    timeout: Duration,
}

impl<'a> Channel<'a> {
    pub(super) fn new(socket: &'a dyn Socket, timeout: Duration) -> Self {
        Self {
            socket,
            deadline: Instant::now() + timeout,
            timeout,
        }
    }

    /// A fixed structure.
    pub(super) fn read<T: FromBytes + FromZeros + IntoBytes>(
        &mut self,
    ) -> Result<T, NegotiateError> {
        let mut value = T::new_zeroed();
        self.fill(value.as_mut_bytes())?;
        Ok(value)
    }

    /// `len` bytes; the caller has bounded `len`.
    pub(super) fn read_vec(&mut self, len: u32) -> Result<Vec<u8>, NegotiateError> {
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads and forgets `len` bytes.
    pub(super) fn skip(&mut self, len: u32) -> Result<(), NegotiateError> {
        let mut scratch = [0; 4096];
        let mut left = len as usize;
        while left > 0 {
            let now = left.min(scratch.len());
            let (part, _) = scratch.split_at_mut(now);
            self.fill(part)?;
            left -= now;
        }
        Ok(())
    }

    fn fill(&mut self, mut bytes: &mut [u8]) -> Result<(), NegotiateError> {
        while !bytes.is_empty() {
            self.socket.patience(Some(self.left()?))?;
            match self.socket.receive(bytes) {
                Ok(0) => return Err(NegotiateError::Left),
                Ok(n) => bytes = bytes.get_mut(n..).unwrap_or_default(),
                Err(error) => self.retry(error)?,
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), NegotiateError> {
        while !bytes.is_empty() {
            self.socket.patience(Some(self.left()?))?;
            match self.socket.send(bytes) {
                Ok(0) => return Err(NegotiateError::Left),
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(error) => self.retry(error)?,
            }
        }
        Ok(())
    }

    /// Greets the client and hears what it is.
    pub(super) fn greet(&mut self) -> Result<Greeted, NegotiateError> {
        let greeting = Greeting {
            magic: NBD_MAGIC.into(),
            option_magic: OPTION_MAGIC.into(),
            flags: (handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES).into(),
        };
        self.write(greeting.as_bytes())?;
        let flags = self.read::<U32>()?.get();
        if flags & !u32::from(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES) != 0 {
            return Err(NegotiateError::BadFlags(flags));
        }
        Ok(Greeted {
            fixed: flags & u32::from(handshake::FIXED_NEWSTYLE) != 0,
            no_zeroes: flags & u32::from(handshake::NO_ZEROES) != 0,
        })
    }

    /// The head of the next option: its number and the length of its data.
    pub(super) fn option(&mut self, greeted: Greeted) -> Result<(u32, u32), NegotiateError> {
        let header: OptionHeader = self.read()?;
        let (option, len) = (header.option.get(), header.len.get());
        if header.magic.get() != OPTION_MAGIC {
            return Err(NegotiateError::BadMagic(header.magic.get()));
        }
        if option != option::EXPORT_NAME && !greeted.fixed {
            return Err(NegotiateError::OldClient(option));
        }
        Ok((option, len))
    }

    /// A reply to an option.
    pub(super) fn reply(
        &mut self,
        option: u32,
        kind: u32,
        data: &[u8],
    ) -> Result<(), NegotiateError> {
        let header = OptionReplyHeader {
            magic: OPTION_REPLY_MAGIC.into(),
            option: option.into(),
            kind: kind.into(),
            len: (data.len() as u32).into(),
        };
        // One write, so that a client never sees half a reply because of us.
        self.write(&[header.as_bytes(), data].concat())
    }

    /// A reply that says no.
    pub(super) fn error(
        &mut self,
        option: u32,
        kind: u32,
        message: &str,
    ) -> Result<(), NegotiateError> {
        self.reply(option, kind, beginning(message, MAX_STRING).as_bytes())
    }

    /// The time left; never zero, which a socket would take for "no time-out".
    fn left(&self) -> Result<Duration, NegotiateError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(NegotiateError::TimedOut(self.timeout))
        } else {
            Ok(left)
        }
    }

    /// Whether to go on after `error`.
    fn retry(&self, error: std::io::Error) -> Result<(), NegotiateError> {
        match error.kind() {
            ErrorKind::Interrupted => Ok(()),
            // A socket's time-out. The clock has the last word: `left` decides.
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(()),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Err(NegotiateError::Left),
            _ => Err(error.into()),
        }
    }
}
