//! Bytes as a metadata block. What a block says of itself (kind, address, store,
//! generation) is what it is asked for, and its checksum is made right: all of that
//! is refused early enough otherwise.

use snapstore::format::{Header, header};
use snapstore::{BLOCK_SIZE, Block};

/// The bytes as a block, zeroes behind them, with the checksum they should have.
pub fn sealed(data: &[u8]) -> (Block, Header) {
    let mut block = Block::zeroed();
    let len = data.len().min(BLOCK_SIZE);
    block.0[..len].copy_from_slice(&data[..len]);
    repair(&mut block);
    let header = header(&block);
    (block, header)
}

/// Makes the checksum of a block right.
pub fn repair(block: &mut Block) {
    let crc = crc32c::crc32c(&block.0[4..]);
    block.0[..4].copy_from_slice(&crc.to_le_bytes());
}
