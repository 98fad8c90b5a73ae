//! The whole-store checker and the dump: read only, bounded memory per block.

use std::fmt::Write;

use crate::device::BlockDevice;
use crate::recover::OpenError;

/// What to check.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Also read every copied-out chunk and verify its checksums.
    pub data: bool,
}

/// What the checker found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// One line per problem, naming the block and the reason. Empty: sound.
    pub problems: Vec<String>,
    /// Volumes.
    pub volumes: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Exceptions.
    pub exceptions: u64,
    /// Metadata blocks read.
    pub blocks: u64,
    /// Journal records not yet in a checkpoint.
    pub journal_records: u64,
    /// Chunks whose data was verified.
    pub chunks_verified: u64,
}

/// Checks a store that nobody serves. `progress` is called with (done, of).
///
/// # Errors
/// When the store cannot be read far enough to be checked at all.
pub fn check(
    dev: &mut impl BlockDevice,
    options: CheckOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, OpenError> {
    let _ = (dev, options, progress);
    Err(OpenError::NotAStore)
}

/// Writes the store's superblocks, tables, exceptions and journal as text.
///
/// # Errors
/// When the store cannot be read far enough.
pub fn dump(dev: &mut impl BlockDevice, out: &mut dyn Write) -> Result<(), OpenError> {
    let _ = (dev, out);
    Err(OpenError::NotAStore)
}
