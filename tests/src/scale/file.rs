//! A store in a sparse file, and a device that counts what is read of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use snapstore::{BLOCK_SIZE, Block, BlockDevice, IoError};

use crate::memory::Blocks;

const BLOCK: u64 = BLOCK_SIZE as u64;

/// A file as a store: what was never written takes no space.
#[derive(Debug)]
pub struct SparseFile {
    file: File,
    blocks: u64,
}

impl SparseFile {
    /// An empty file of `blocks` blocks in place of what lies at `path`.
    ///
    /// # Errors
    /// What the system said.
    pub fn create(path: &Path, blocks: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true);
        let file = file.open(path)?;
        file.set_len(blocks * BLOCK)?;
        Ok(Self { file, blocks })
    }

    /// The file that is there.
    ///
    /// # Errors
    /// What the system said.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let blocks = file.metadata()?.len() / BLOCK;
        Ok(Self { file, blocks })
    }

    /// Bytes it takes on its file system.
    ///
    /// # Errors
    /// What the system said.
    pub fn allocated(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }

    fn at(&self, first: u64, count: usize) -> Result<u64, IoError> {
        let end = first.checked_add(count as u64);
        end.filter(|end| *end <= self.blocks)
            .map(|_| first * BLOCK)
            .ok_or(IoError::OutOfRange)
    }
}

fn failed(error: &io::Error) -> IoError {
    IoError::Errno(error.raw_os_error().unwrap_or(5))
}

impl BlockDevice for SparseFile {
    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn read(&mut self, first: u64, out: &mut [Block]) -> Result<(), IoError> {
        let at = self.at(first, out.len())?;
        (at..)
            .step_by(BLOCK_SIZE)
            .zip(out)
            .try_for_each(|(at, block)| self.file.read_exact_at(&mut block.0, at))
            .map_err(|error| failed(&error))
    }

    fn write(&mut self, first: u64, data: &[Block]) -> Result<(), IoError> {
        let at = self.at(first, data.len())?;
        (at..)
            .step_by(BLOCK_SIZE)
            .zip(data)
            .try_for_each(|(at, block)| self.file.write_all_at(&block.0, at))
            .map_err(|error| failed(&error))
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.file.sync_data().map_err(|error| failed(&error))
    }
}

impl Blocks for SparseFile {}

/// A device that counts the blocks read of it.
#[derive(Debug)]
pub struct Counted<S> {
    /// The device.
    pub store: S,
    /// Blocks read so far.
    pub read: u64,
}

impl<S> Counted<S> {
    /// Nothing read yet.
    pub fn new(store: S) -> Self {
        Self { store, read: 0 }
    }
}

impl<S: Blocks> BlockDevice for Counted<S> {
    fn blocks(&self) -> u64 {
        self.store.blocks()
    }

    fn read(&mut self, first: u64, out: &mut [Block]) -> Result<(), IoError> {
        self.read += out.len() as u64;
        self.store.read(first, out)
    }

    fn write(&mut self, first: u64, data: &[Block]) -> Result<(), IoError> {
        self.store.write(first, data)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.store.flush()
    }
}

impl<S: Blocks> Blocks for Counted<S> {
    fn block(&mut self, number: u64) -> Result<Arc<Block>, IoError> {
        self.read += 1;
        self.store.block(number)
    }

    fn set_block(&mut self, number: u64, data: Arc<Block>) -> Result<(), IoError> {
        self.store.set_block(number, data)
    }
}
