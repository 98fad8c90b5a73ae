//! Bytes on their way to their places in an image: what takes them ([`Medium`]), and the
//! threads that carry them there; and what an image is read from ([`Source`]).
//!
//! - `stream`: pieces that follow each other are joined, and threads write them
//! - `contents`: which bytes of a file go where
//! - `copying`: contents that go from a file into the image
//! - `buffer`: the memory in which they wait
//! - `cache`: what was read last
//! - `ordered`: bytes for a pipe, in order

mod buffer;
mod cache;
mod contents;
mod copying;
mod ordered;
mod source;
mod stream;

pub(crate) use buffer::{Buffer, Paged, page};
pub(crate) use cache::Cache;
pub(crate) use contents::{Sink, Stretch, read_part, send};
pub(crate) use copying::{Copy, Part};
pub use ordered::Ordered;
pub use source::Source;
pub(crate) use stream::{Crew, Failure, Stream};

use std::fs::File;
use std::io;

/// A device or image, written from several threads. What was neither written nor
/// [zeroed](Medium::zero) may hold anything.
pub trait Medium: Sync {
    /// Writes `bytes` at byte `at`.
    ///
    /// # Errors
    /// What the system says.
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// The same with bytes some of which will soon be written again.
    ///
    /// # Errors
    /// What the system says.
    fn write_draft(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(at, bytes)
    }

    /// Reads what was written at byte `at`.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Puts `length` bytes from `from_at` of `from` to `at` without moving them, where that
    /// can be done; returns how many it were, from the first on. Whoever asks reads and
    /// writes the others.
    ///
    /// # Errors
    /// What the system says of writing.
    fn share(&self, from: &File, from_at: u64, at: u64, length: u64) -> io::Result<u64> {
        let _ = (from, from_at, at, length);
        Ok(0)
    }

    /// All that was written is durable before anything written later: what is named only
    /// when it is whole needs nothing for that.
    ///
    /// # Errors
    /// What the system says.
    fn barrier(&self) -> io::Result<()> {
        Ok(())
    }

    /// Says that `length` bytes at `at` will never be written: what they hold does not
    /// matter to a reader. Where others wrote before, nothing of that stays.
    ///
    /// # Errors
    /// What the system says.
    fn skip(&self, at: u64, length: u64) -> io::Result<()> {
        let _ = (at, length);
        Ok(())
    }

    /// Makes `length` bytes at `at` read as zeroes.
    ///
    /// # Errors
    /// What the system says.
    fn zero(&self, at: u64, length: u64) -> io::Result<()>;
}

/// Takes everything and keeps nothing: to see how much room a tree needs.
#[derive(Debug, Clone, Copy)]
pub struct Nowhere;

impl Medium for Nowhere {
    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, _: u64, bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(0);
        Ok(())
    }

    fn share(&self, _: &File, _: u64, _: u64, length: u64) -> io::Result<u64> {
        Ok(length)
    }

    fn zero(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}
