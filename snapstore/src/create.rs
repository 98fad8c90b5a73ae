//! Making a store.

use crate::device::BlockDevice;
use crate::recover::OpenError;

/// How a store is made.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Identity of the store.
    pub uuid: [u8; 16],
    /// Bytes in a chunk: a power of two, 4 KiB to 1 MiB.
    pub chunk_size: u32,
    /// Unix time in ms.
    pub created_ms: u64,
    /// Blocks in the journal; `None` chooses by the store's size.
    pub journal_blocks: Option<u64>,
}

/// Writes an empty store over `dev`. Whatever it held is gone: the caller has
/// looked for signatures first.
///
/// # Errors
/// A chunk size or device size out of range, or what the device reported.
pub fn create(dev: &mut impl BlockDevice, options: &CreateOptions) -> Result<(), OpenError> {
    let _ = (dev, options);
    Err(OpenError::NotAStore)
}
