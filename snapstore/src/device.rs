//! Synchronous access to a store, for making, opening and checking one.
//!
//! The running engine never uses this: it speaks in events and effects. Recovery
//! and the checker run before any request exists, so plain calls keep them
//! readable. `csnapd` implements the trait with direct I/O, the simulated world
//! with a disk that loses and tears writes.

use crate::block::Block;
use crate::checksum::Checksum;
use crate::ids::VolumeId;

/// Why an I/O failed, as the runtime reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// The device answered with this `errno`.
    #[error("I/O error (errno {0})")]
    Errno(i32),
    /// The range lies beyond the end of the device.
    #[error("range beyond the end of the device")]
    OutOfRange,
    /// The device is not attached.
    #[error("device is not attached")]
    Absent,
}

/// A store device, addressed in blocks of 4 KiB.
pub trait BlockDevice {
    /// Whole blocks the device holds.
    fn blocks(&self) -> u64;

    /// Reads `out.len()` blocks starting at `first`.
    ///
    /// # Errors
    /// What the device reported, or [`IoError::OutOfRange`].
    fn read(&mut self, first: u64, out: &mut [Block]) -> Result<(), IoError>;

    /// Writes `data` starting at block `first`. Not durable until [`Self::flush`].
    ///
    /// # Errors
    /// What the device reported, or [`IoError::OutOfRange`].
    fn write(&mut self, first: u64, data: &[Block]) -> Result<(), IoError>;

    /// Makes every completed write durable.
    ///
    /// # Errors
    /// What the device reported. After a failure nothing written since the last
    /// good flush may be relied on.
    fn flush(&mut self) -> Result<(), IoError>;
}

/// The origins of a store, as recovery needs them: it compares the checksums of
/// an exception whose data may be lost with the origin's own contents.
pub trait Origins {
    /// The store's `checksum` of every 4 KiB of `chunk` of `volume`, with zeroes for
    /// what lies beyond byte `size` of the volume, into `out` (one entry per 4 KiB of
    /// the store's chunk).
    ///
    /// # Errors
    /// [`IoError::Absent`] when the origin is not attached, else what it reported.
    fn chunk_checksums(
        &mut self,
        checksum: Checksum,
        volume: VolumeId,
        chunk: u64,
        size: u64,
        out: &mut [u32],
    ) -> Result<(), IoError>;
}

/// No origin at all: enough for a store that was just made, of which recovery has
/// nothing to ask.
#[derive(Clone, Copy, Debug)]
pub struct NoOrigins;

impl Origins for NoOrigins {
    fn chunk_checksums(
        &mut self,
        _: Checksum,
        _: VolumeId,
        _: u64,
        _: u64,
        _: &mut [u32],
    ) -> Result<(), IoError> {
        Err(IoError::Absent)
    }
}
