//! A device in memory, without surprises.
//!
//! Blocks never written read as zeroes and cost nothing, as on a sparse file: a
//! benchmark, whose copyouts write nothing, may have a store of any size. Copies of
//! a device share their blocks.

use std::collections::HashMap;
use std::sync::Arc;

use snapstore::{BLOCK_SIZE, Block, BlockDevice, IoError};

/// A device whose blocks can be shared instead of copied, where they are in memory.
pub trait Blocks: BlockDevice {
    /// A block as it was last written.
    ///
    /// # Errors
    /// As [`BlockDevice::read`].
    fn block(&mut self, number: u64) -> Result<Arc<Block>, IoError> {
        let mut block = Box::new(Block::zeroed());
        self.read(number, std::slice::from_mut(&mut *block))?;
        Ok(block.into())
    }

    /// Writes a block.
    ///
    /// # Errors
    /// As [`BlockDevice::write`].
    fn set_block(&mut self, number: u64, data: Arc<Block>) -> Result<(), IoError> {
        self.write(number, std::slice::from_ref(&*data))
    }
}

impl Blocks for MemoryStore {
    fn block(&mut self, number: u64) -> Result<Arc<Block>, IoError> {
        Ok(self.get(number))
    }

    fn set_block(&mut self, number: u64, data: Arc<Block>) -> Result<(), IoError> {
        self.put(number, data);
        Ok(())
    }
}

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
        let mut bytes = Vec::with_capacity(self.size as usize * BLOCK_SIZE);
        for block in 0..self.size {
            bytes.extend_from_slice(&self.get(block).0);
        }
        bytes
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
