//! A pipe as a [`Medium`]: what several threads write, in whatever order, goes out in the
//! order of its bytes. What comes too early waits in memory, so that every byte must be
//! written, zeroed or skipped, and soon after those before it.

use super::Medium;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Bytes handed on in order.
#[derive(Debug)]
pub struct Ordered<W>(Mutex<State<W>>);

#[derive(Debug)]
struct State<W> {
    out: W,
    /// The next byte that goes out.
    next: u64,
    waiting: BTreeMap<u64, Part>,
    /// Nothing goes out any more after this.
    failed: Option<io::ErrorKind>,
}

#[derive(Debug)]
enum Part {
    Bytes(Vec<u8>),
    Zeroes(u64),
}

/// Zeroes that go out at a time.
static ZEROES: [u8; 1 << 16] = [0; 1 << 16];

impl<W: Write> Ordered<W> {
    /// To this.
    pub const fn new(out: W) -> Self {
        Self(Mutex::new(State {
            out,
            next: 0,
            waiting: BTreeMap::new(),
            failed: None,
        }))
    }

    /// Hands on what is buffered; everything up to `end` must have been written.
    ///
    /// # Errors
    /// What the system says, or that bytes are missing.
    pub fn finish(self, end: u64) -> io::Result<()> {
        let mut state = self.0.into_inner();
        if state.next != end {
            let what = format!("{} bytes of {end} were written in order", state.next);
            return Err(io::Error::other(what));
        }
        state.out.flush()
    }

    fn put(&self, at: u64, part: Part) -> io::Result<()> {
        let mut state = self.0.lock();
        if let Some(kind) = state.failed {
            return Err(kind.into());
        }
        if at < state.next || state.waiting.contains_key(&at) {
            let what = format!("byte {at} of a stream was written twice");
            return Err(io::Error::other(what));
        }
        state.waiting.insert(at, part);
        let done = state.hand_on();
        if let Err(error) = &done {
            state.failed = Some(error.kind());
            state.waiting.clear();
        }
        done
    }
}

impl<W: Write> State<W> {
    fn hand_on(&mut self) -> io::Result<()> {
        while let Some(part) = self.waiting.remove(&self.next) {
            match part {
                Part::Bytes(bytes) => {
                    self.out.write_all(&bytes)?;
                    self.next += bytes.len() as u64;
                }
                Part::Zeroes(length) => {
                    let mut left = length;
                    while left > 0 {
                        let now = left.min(ZEROES.len() as u64);
                        self.out.write_all(&ZEROES[..now as usize])?;
                        left -= now;
                    }
                    self.next += length;
                }
            }
        }
        Ok(())
    }
}

impl<W: Write + Send> Medium for Ordered<W> {
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        match bytes.is_empty() {
            true => Ok(()),
            false => self.put(at, Part::Bytes(bytes.to_vec())),
        }
    }

    fn read(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn skip(&self, at: u64, length: u64) -> io::Result<()> {
        self.zero(at, length)
    }

    fn zero(&self, at: u64, length: u64) -> io::Result<()> {
        match length {
            0 => Ok(()),
            length => self.put(at, Part::Zeroes(length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_order_the_bytes_are_in_theirs() {
        let mut out = Vec::new();
        let pipe = Ordered::new(&mut out);
        pipe.write(6, b"later").unwrap();
        pipe.skip(4, 2).unwrap();
        assert!(pipe.0.lock().out.is_empty());
        pipe.write(0, b"soon").unwrap();
        assert!(pipe.write(2, b"again").is_err());
        pipe.finish(11).unwrap();
        assert_eq!(out, b"soon\0\0later");
    }

    #[test]
    fn what_is_missing_is_said() {
        let pipe = Ordered::new(Vec::new());
        pipe.write(5, b"x").unwrap();
        assert!(pipe.finish(6).is_err());
    }

    #[test]
    fn after_an_error_nothing_is_kept() {
        let mut room = [0; 3];
        let pipe = Ordered::new(&mut room[..]);
        assert!(pipe.write(0, b"four").is_err());
        assert!(pipe.write(4, b"five").is_err());
        assert!(pipe.0.lock().waiting.is_empty());
    }
}
