//! Why a read or a write cannot be served.

use crate::ids::{Tag, VolumeId};

/// Why a read or a write cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No such volume, or it is being deleted.
    #[error("volume {0} does not exist")]
    NoVolume(VolumeId),
    /// No such snapshot, or it is being deleted.
    #[error("snapshot {1} of volume {0} does not exist")]
    NoSnapshot(VolumeId, Tag),
    /// The snapshot was dropped (full or failed store) and cannot be read.
    #[error("snapshot {1} of volume {0} was dropped: {2}")]
    Dropped(VolumeId, Tag, DropReason),
    /// This chunk's old contents could not be kept.
    #[error("chunk {1} of volume {0} is lost to this snapshot: its old contents could not be read")]
    Lost(VolumeId, u64),
    /// The origin is gone, and its old contents with it.
    #[error("the origin of volume {0} is gone")]
    OriginGone(VolumeId),
    /// A metadata block is damaged; run `csnapctl store check`.
    #[error("store block {block} is damaged: {reason}; run `csnapctl store check`")]
    Damaged {
        /// Which block.
        block: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// What changed since a snapshot is asked of one that is not newer.
    #[error("snapshot {0} is not newer than snapshot {1}")]
    NotNewer(Tag, Tag),
    /// The range does not fit the volume.
    #[error("chunks {first}+{count} lie beyond the end of volume {volume}")]
    OutOfRange {
        /// The volume.
        volume: VolumeId,
        /// First chunk asked for.
        first: u64,
        /// Chunks asked for.
        count: u32,
    },
    /// The store failed earlier and takes no more changes.
    #[error("the store has failed: {0}")]
    StoreFailed(String),
    /// No space in the store, and nothing may be dropped: the volume's policy puts
    /// snapshots first, or all are held.
    #[error(
        "the store is full, and no snapshot may be dropped for volume {0}: by its policy, or all are held"
    )]
    NoSpace(VolumeId),
    /// The engine is closing.
    #[error("the store is being detached")]
    Closing,
}

/// Why a snapshot was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The store ran out of space.
    StoreFull,
    /// The store could not be written.
    StoreFailed,
    /// Metadata the snapshot depends on is damaged.
    Damage,
    /// The origin was changed while csnap was not looking.
    OriginChanged,
    /// A person asked for it.
    Asked,
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::StoreFull => "the store was full",
            Self::StoreFailed => "the store failed",
            Self::Damage => "its metadata is damaged",
            Self::OriginChanged => "the origin changed while csnap was not attached",
            Self::Asked => "it was asked for",
        })
    }
}
