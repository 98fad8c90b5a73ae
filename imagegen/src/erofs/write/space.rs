//! Blocks of the image, given out one after the other.

/// Where the next block lies.
#[derive(Debug)]
pub(crate) struct Space {
    block_bits: u32,
    next: u64,
}

impl Space {
    /// With nothing given out.
    pub(crate) fn new(block_bits: u32) -> Self {
        Self {
            block_bits,
            next: 0,
        }
    }

    /// The first of `count` blocks that follow each other.
    pub(crate) fn take(&mut self, count: u64) -> u64 {
        let first = self.next;
        self.next += count;
        first
    }

    /// Takes back blocks from `first` on, if they are the last ones.
    pub(crate) fn give_back(&mut self, blocks: std::ops::Range<u64>) -> bool {
        let last = blocks.end == self.next;
        if last {
            self.next = blocks.start;
        }
        last
    }

    /// Blocks given out.
    pub(crate) fn blocks(&self) -> u64 {
        self.next
    }

    /// Bytes of a block.
    pub(crate) fn block_size(&self) -> usize {
        1 << self.block_bits
    }

    /// Where a block begins, in bytes.
    pub(crate) fn byte_of(&self, block: u64) -> u64 {
        block << self.block_bits
    }

    /// Blocks that hold `bytes` bytes.
    pub(crate) fn blocks_of(&self, bytes: u64) -> u64 {
        bytes.div_ceil(1 << self.block_bits)
    }
}
