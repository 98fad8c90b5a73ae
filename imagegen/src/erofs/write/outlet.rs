//! Finished bytes on their way to the threads that write.

use crate::medium::{Copy, Crew, Failure, Sink, Stream};

/// Where all bytes leave the writer but the superblock's.
///
/// Metadata and data lie at two places of the image at a time, so each has a stream of its
/// own, in which what follows is joined.
pub(crate) struct Outlet<'a, 'scope> {
    crew: &'a Crew<'scope>,
    block: usize,
    data: Stream,
    metadata: Stream,
}

impl<'a, 'scope> Outlet<'a, 'scope> {
    /// With nothing on its way.
    pub(crate) fn new(crew: &'a Crew<'scope>, block: usize) -> Self {
        Self {
            crew,
            block,
            data: Stream::new(),
            metadata: Stream::new(),
        }
    }

    /// Writes a block of inodes.
    pub(crate) fn metadata(&mut self, at: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.metadata.write(self.crew, at, bytes, self.block)
    }

    /// Hands on what was joined.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.metadata.flush(self.crew)?;
        self.data.flush(self.crew)
    }
}

impl Sink for Outlet<'_, '_> {
    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.data.write(self.crew, at, bytes, self.block)
    }

    fn copy(&mut self, copy: Copy) -> Result<(), Failure> {
        self.crew.copy(copy)
    }
}
