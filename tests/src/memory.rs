//! A device in memory, without surprises.
//!
//! Blocks never written read as zeroes and cost nothing, as on a sparse file: a
//! benchmark, whose copyouts write nothing, may have a store of any size. Copies of
//! a device share their blocks.

use std::collections::HashMap;
use std::sync::Arc;

use snapstore::{BLOCK_SIZE, Block, BlockDevice, IoError};

/// The blocks that are not zero, by their number.
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

    /// A device that holds these bytes, zeroes to a whole block.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let mut this = Self::new(bytes.len().div_ceil(BLOCK_SIZE) as u64);
        for (number, piece) in (0..).zip(bytes.chunks(BLOCK_SIZE)) {
            let mut block = Block::zeroed();
            block.0[..piece.len()].copy_from_slice(piece);
            this.put(number, Arc::new(block));
        }
        this
    }

    /// All it holds.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        (0..self.size).flat_map(|block| self.get(block).0).collect()
    }

    /// The numbers of the blocks that are not zero, ascending.
    #[must_use]
    pub fn written(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.blocks.keys().copied().collect();
        numbers.sort_unstable();
        numbers
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
