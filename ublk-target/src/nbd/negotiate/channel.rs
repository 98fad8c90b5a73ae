//! The socket during the handshake: whole reads and writes before one deadline.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::NegotiateError;

/// A socket with a deadline.
pub(super) struct Channel<'a> {
    socket: &'a UnixStream,
    deadline: Instant,
    timeout: Duration,
}

impl<'a> Channel<'a> {
    pub(super) fn new(socket: &'a UnixStream, timeout: Duration) -> Self {
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
            self.socket.set_read_timeout(Some(self.left()?))?;
            match self.socket.read(bytes) {
                Ok(0) => return Err(NegotiateError::Left),
                Ok(n) => bytes = bytes.get_mut(n..).unwrap_or_default(),
                Err(error) => self.retry(error)?,
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), NegotiateError> {
        while !bytes.is_empty() {
            self.socket.set_write_timeout(Some(self.left()?))?;
            match self.socket.write(bytes) {
                Ok(0) => return Err(NegotiateError::Left),
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(error) => self.retry(error)?,
            }
        }
        Ok(())
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
