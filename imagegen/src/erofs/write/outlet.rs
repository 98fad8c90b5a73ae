//! Finished bytes on their way to the threads that write.

use super::slots::Blocks;
use crate::medium::{Copy, Crew, Failure, Sink, Stream};

/// Where all bytes leave the writer but the superblock's.
///
/// Metadata and data lie at two places of the image at a time, so each has a lane of its
/// own.
pub(crate) struct Outlet<'a, 'scope> {
    pub(crate) metadata: Lane<'a, 'scope>,
    pub(crate) data: Lane<'a, 'scope>,
    /// To a second file, which takes the files' data.
    pub(crate) blob: Option<Lane<'a, 'scope>>,
}

/// Bytes that follow each other, mostly, and are joined then.
pub(crate) struct Lane<'a, 'scope> {
    crew: &'a Crew<'scope>,
    block: usize,
    stream: Stream,
}

impl<'a, 'scope> Outlet<'a, 'scope> {
    /// To the image by `crew`, and to a second file by `blob`.
    pub(crate) fn new(
        crew: &'a Crew<'scope>,
        blob: Option<&'a Crew<'scope>>,
        block: usize,
    ) -> Self {
        let lane = |crew| Lane {
            crew,
            block,
            stream: Stream::new(),
        };
        Self {
            metadata: lane(crew),
            data: lane(crew),
            blob: blob.map(lane),
        }
    }

    /// Hands on what was joined.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let lanes = [&mut self.metadata, &mut self.data];
        let mut lanes = lanes.into_iter().chain(&mut self.blob);
        lanes.try_for_each(|lane| lane.stream.flush(lane.crew))
    }
}

impl Blocks for Outlet<'_, '_> {
    fn put(&mut self, at: u64, block: &[u8]) -> Result<(), Failure> {
        self.metadata.put(at, block)
    }
}

impl Sink for Lane<'_, '_> {
    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.write(self.crew, at, bytes, self.block)
    }

    fn copy(&mut self, copy: Copy) -> Result<(), Failure> {
        self.crew.copy(copy)
    }
}
