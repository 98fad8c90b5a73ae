//! The 4 KiB block: the unit of metadata I/O.

use std::fmt;

/// Bytes in a block. Metadata is read and written in whole blocks, and chunk
/// checksums cover pieces of this size.
pub const BLOCK_SIZE: usize = 4096;

/// One block of bytes, aligned so that it can be handed to O_DIRECT I/O as it
/// stands: the kernel asks for the device's DMA alignment, 512 bytes at most in
/// practice.
///
/// Not aligned to 4096: rustc 1.95 (LLVM 22) was seen to miscompile functions that
/// return early and hold a value of that alignment on their stack.
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(2048))]
pub struct Block(pub [u8; BLOCK_SIZE]);

impl Block {
    /// A block of zeroes.
    #[must_use]
    pub const fn zeroed() -> Self {
        Self([0; BLOCK_SIZE])
    }
}

impl Default for Block {
    fn default() -> Self {
        Self::zeroed()
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({:02x?}…)", &self.0[..16])
    }
}
