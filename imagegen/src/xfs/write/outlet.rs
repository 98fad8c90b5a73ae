//! Finished blocks on their way to the threads that write, joined where they follow each
//! other.

use super::super::geometry::Geometry;
use crate::medium::{Copy, Crew, Failure, Sink, Stream};

/// Where blocks of files and directories leave the writer.
pub(crate) struct Outlet<'a, 'scope> {
    geometry: &'a Geometry,
    crew: &'a Crew<'scope>,
    stream: Stream,
    /// The first failure, told by `check`: encoders cannot stop half-way.
    failure: Option<Failure>,
}

impl<'a, 'scope> Outlet<'a, 'scope> {
    /// With nothing on its way.
    pub(crate) fn new(geometry: &'a Geometry, crew: &'a Crew<'scope>) -> Self {
        Self {
            geometry,
            crew,
            stream: Stream::new(),
            failure: None,
        }
    }

    /// Writes `bytes` from the beginning of an fsblock on; what is missing to a whole
    /// block is zero.
    pub(crate) fn put(&mut self, block: u64, bytes: &[u8]) {
        let at = self.geometry.byte_of(block);
        let whole = self.geometry.block_size();
        let done = self.stream.write(self.crew, at, bytes, whole);
        self.note(done);
    }

    fn note(&mut self, done: Result<(), Failure>) {
        if let Err(failure) = done {
            self.failure.get_or_insert(failure);
        }
    }

    /// Whether all went well so far, as far as is known.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Hands on what was joined.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.check()?;
        self.stream.flush(self.crew)
    }
}

impl Sink for Outlet<'_, '_> {
    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<(), Failure> {
        let whole = self.geometry.block_size();
        self.stream.write(self.crew, at, bytes, whole)
    }

    fn copy(&mut self, copy: Copy) -> Result<(), Failure> {
        self.crew.copy(copy)
    }
}
