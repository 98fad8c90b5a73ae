//! Opening a store: superblocks, tables, journal; then recovery, which ends in
//! a durable checkpoint before the engine serves anything.

use crate::device::{BlockDevice, IoError, Origins};
use crate::engine::{Config, Engine, SnapshotInfo, VolumeInfo};
use crate::ids::VolumeId;

/// Why a store cannot be made, opened or checked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Neither superblock carries csnap's magic.
    #[error("this is not a csnap store: neither superblock carries its magic")]
    NotAStore,
    /// The device failed.
    #[error("cannot access the {what}: {error}")]
    Device {
        /// What was being accessed.
        what: &'static str,
        /// What the device said.
        error: IoError,
    },
}

/// A store whose superblock, tables and journal have been read and verified, and
/// nothing written yet.
#[derive(Debug)]
pub struct Loaded {}

/// What recovery did, for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last stop was orderly: the journal was empty.
    pub clean: bool,
    /// Records replayed from the journal.
    pub replayed: u64,
    /// Exceptions at the tail whose data had not reached the store, dropped
    /// because their origin write was never issued.
    pub dropped: u64,
    /// Exceptions at the tail whose data is lost.
    pub lost: u64,
}

/// Reads a store without changing it.
///
/// # Errors
/// See [`OpenError`]: each names the block and the reason.
pub fn load(dev: &mut impl BlockDevice) -> Result<Loaded, OpenError> {
    let _ = dev;
    Err(OpenError::NotAStore)
}

impl Loaded {
    /// Bytes in a chunk.
    #[must_use]
    pub fn chunk_size(&self) -> u32 {
        0
    }

    /// Identity of the store.
    #[must_use]
    pub fn uuid(&self) -> [u8; 16] {
        [0; 16]
    }

    /// The volumes, so that their origins can be opened.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeInfo> {
        Vec::new()
    }

    /// The snapshots of a volume by ascending tag.
    #[must_use]
    pub fn snapshots(&self, volume: VolumeId) -> Vec<SnapshotInfo> {
        let _ = volume;
        Vec::new()
    }

    /// Recovers: flushes the store, verifies the journal's tail, writes a
    /// checkpoint, and returns the engine ready for its first event. Idempotent:
    /// a crash inside it is recovered by doing it again.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn recover(
        self,
        dev: &mut impl BlockDevice,
        origins: &mut impl Origins,
        config: Config,
    ) -> Result<(Engine, Recovered), OpenError> {
        let _ = (dev, origins, config);
        Err(OpenError::Device {
            what: "superblock",
            error: IoError::Absent,
        })
    }
}
