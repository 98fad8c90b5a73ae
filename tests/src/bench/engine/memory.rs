//! The store of a benchmark: its metadata in memory, its data nowhere.
//!
//! Blocks never written read as zeroes, as on a sparse file. What copyouts would
//! write is only counted by the engine, so a store of any size costs its metadata.

use std::collections::HashMap;
use std::sync::Arc;

use snapstore::{Block, BlockDevice, IoError};

/// Metadata blocks by their number.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    size: u64,
    blocks: HashMap<u64, Arc<Block>>,
    zero: Arc<Block>,
}

impl MemoryStore {
    /// An empty device of `size` blocks of 4 KiB.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            size,
            blocks: HashMap::new(),
            zero: Arc::new(Block::zeroed()),
        }
    }

    /// A block as it was last written.
    #[must_use]
    pub fn get(&self, block: u64) -> Arc<Block> {
        self.blocks.get(&block).unwrap_or(&self.zero).clone()
    }

    /// Writes a block.
    pub fn put(&mut self, block: u64, data: Arc<Block>) {
        if data == self.zero {
            self.blocks.remove(&block);
        } else {
            self.blocks.insert(block, data);
        }
    }

    /// The numbers of `count` blocks from `first` on, if the device holds them.
    fn range(&self, first: u64, count: usize) -> Result<std::ops::Range<u64>, IoError> {
        let end = first.checked_add(count as u64);
        end.filter(|end| *end <= self.size)
            .map(|end| first..end)
            .ok_or(IoError::OutOfRange)
    }
}

impl BlockDevice for MemoryStore {
    fn blocks(&self) -> u64 {
        self.size
    }

    fn read(&mut self, first: u64, out: &mut [Block]) -> Result<(), IoError> {
        for (number, block) in self.range(first, out.len())?.zip(out) {
            *block = Block::clone(&self.get(number));
        }
        Ok(())
    }

    fn write(&mut self, first: u64, data: &[Block]) -> Result<(), IoError> {
        for (number, block) in self.range(first, data.len())?.zip(data) {
            self.put(number, Arc::new(block.clone()));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), IoError> {
        Ok(())
    }
}
