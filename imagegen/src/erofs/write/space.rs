//! Blocks of the image, given out one after the other.

use super::fault::Fault;
use crate::medium::Failure;
use std::io;

/// Blocks there can be: their numbers have 48 bits, and the last one stands for none.
pub(crate) const MOST_BLOCKS: u64 = (1 << 48) - 1;

/// More blocks are asked for than there can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the image or its data would have more than {most} blocks of {block} bytes, which is the \
     most; choose larger blocks (--block-size) or leave something out"
)]
pub(crate) struct Full {
    most: u64,
    block: u64,
}

impl From<Full> for Fault {
    fn from(full: Full) -> Self {
        Self::Invalid(full.to_string())
    }
}

impl From<Full> for Failure {
    fn from(full: Full) -> Self {
        Self::Write(io::Error::other(full))
    }
}

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
    ///
    /// # Errors
    /// If there are no numbers for them, or no place in a file.
    pub(crate) fn take(&mut self, count: u64) -> Result<u64, Full> {
        let first = self.next;
        let most = MOST_BLOCKS.min(i64::MAX as u64 >> self.block_bits);
        let next = first.checked_add(count).filter(|next| *next <= most);
        self.next = next.ok_or(Full {
            most,
            block: 1 << self.block_bits,
        })?;
        Ok(first)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_more_blocks_than_have_numbers() {
        for (bits, most) in [(9, MOST_BLOCKS), (12, MOST_BLOCKS), (16, (1 << 47) - 1)] {
            let mut space = Space::new(bits);
            assert_eq!(space.take(most - 1), Ok(0));
            let full = space.take(2).unwrap_err().to_string();
            assert!(full.contains("--block-size"), "{full}");
            assert!(space.take(u64::MAX).is_err());
            // What did not fit took nothing.
            assert_eq!(space.take(1), Ok(most - 1));
            assert!(i64::try_from(space.byte_of(space.blocks())).is_ok());
        }
    }
}
