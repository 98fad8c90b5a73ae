//! What a person may ask for, the answers, and what a person should know.

use super::{DropReason, Seal};
use crate::device::IoError;
use crate::ids::{Tag, VolumeId};

/// What happens to origin writes when the store has no room for old data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The origin goes on; snapshots are dropped, lowest priority first, then oldest.
    #[default]
    OriginFirst,
    /// Origin writes that need a copyout wait for room as long as the volume says,
    /// then fail with "no space"; no snapshot is dropped.
    SnapshotFirst,
}

/// What a person may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Adds an origin volume. Replied with [`Reply::Volume`]. Not to be called
    /// while the origin is written through csnap already.
    CreateVolume {
        /// 1 to 63 bytes: letters, digits, `.`, `_`, `-`, not beginning with `-` or `.`.
        name: String,
        /// Identity of the volume.
        uuid: [u8; 16],
        /// Size of the origin in bytes, a multiple of 512.
        size: u64,
        /// Path of the origin device, at most [`MAX_PATH`] bytes.
        origin: String,
        /// Full-store policy.
        policy: Policy,
        /// Unix time in ms.
        created_ms: u64,
    },
    /// Deletes a volume and all its snapshots. The origin itself is not touched.
    DeleteVolume {
        /// Which.
        volume: VolumeId,
    },
    /// Takes one snapshot of each volume, all at one instant. Replied with
    /// [`Reply::Taken`] when durable.
    Take {
        /// Volume and snapshot name (rules as for volume names), no volume twice.
        targets: Vec<(VolumeId, String)>,
        /// Lowest is dropped first when the store is full. Default 0.
        priority: i32,
        /// Unix time in ms.
        created_ms: u64,
    },
    /// Deletes snapshots: gone when replied, their space comes back in the background.
    DeleteSnapshots {
        /// Which.
        targets: Vec<(VolumeId, Tag)>,
    },
    /// Gives a snapshot another name.
    RenameSnapshot {
        /// Whose.
        volume: VolumeId,
        /// Which.
        tag: Tag,
        /// The new name.
        name: String,
    },
    /// Records that a snapshot is (not) mapped, so that it is again after a restart.
    SetMapped {
        /// Whose.
        volume: VolumeId,
        /// Which.
        tag: Tag,
        /// Mapped or not.
        mapped: bool,
    },
    /// Sets a snapshot's drop priority.
    SetPriority {
        /// Whose.
        volume: VolumeId,
        /// Which.
        tag: Tag,
        /// Lowest is dropped first.
        priority: i32,
    },
    /// Keeps a snapshot, or no longer: one that is held is never dropped to make room.
    /// Writes that nothing can be dropped for fare as where snapshots come first.
    SetHeld {
        /// Whose.
        volume: VolumeId,
        /// Which.
        tag: Tag,
        /// Held or not.
        held: bool,
    },
    /// Sets what a volume does in a full store; `None` leaves it.
    SetPolicy {
        /// Which volume.
        volume: VolumeId,
        /// What comes first.
        policy: Option<Policy>,
        /// Where snapshots come first: seconds a write waits for room before it
        /// fails, at most [`MAX_FULL_WAIT_S`].
        full_wait_s: Option<u32>,
    },
    /// Makes a volume larger: replied when durable, before any request may reach
    /// beyond the old size. The origin has that size already. Snapshots keep the
    /// size they were taken with. A volume that has the size already stays so.
    ResizeVolume {
        /// Which volume.
        volume: VolumeId,
        /// The new size in bytes, a multiple of 512, not below the old one.
        size: u64,
    },
    /// Makes the store as large as its device has become: replied when durable. Until
    /// then a crash leaves the old size, and only then the new part is used.
    ExtendStore {
        /// Whole blocks the device holds now.
        blocks: u64,
    },
    /// Drops (invalidates) all live snapshots of a volume durably.
    DropSnapshots {
        /// Which volume.
        volume: VolumeId,
        /// Why, for the record.
        reason: DropReason,
    },
    /// Records how the origin was left, or that it is used from now on, so that the next
    /// attach can tell whether it was changed meanwhile.
    Seal {
        /// Which volume.
        volume: VolumeId,
        /// What the runtime says of its origin.
        seal: Seal,
    },
    /// Whether writes to a volume may wait for room, as they may at first; else those
    /// that wait, and would have to, fail at once. For when the volume is taken from
    /// its users, which waits for what is in flight. Not kept.
    WaitForRoom {
        /// Whose.
        volume: VolumeId,
        /// They may.
        allowed: bool,
    },
    /// Which chunks differ between a snapshot and a newer one, or the volume as it is.
    /// Replied with [`Reply::Changes`], a part at a time. Costs what changed, not what
    /// the volume holds. A chunk whose write waited for its copy while the newer snapshot
    /// was taken may be named although the two are the same; what lies beyond the size of
    /// the older snapshot has changed and may not be named.
    Changes {
        /// Whose.
        volume: VolumeId,
        /// The older snapshot.
        from: Tag,
        /// The newer one; `None`: the volume as it is.
        to: Option<Tag>,
        /// Where the part before said to go on.
        after: Option<ChangesAt>,
    },
    /// Writes a checkpoint now. Replied when it is durable.
    Checkpoint,
    /// Orderly stop: finishes what is in flight, refuses new requests, writes a
    /// checkpoint marked clean. After the reply the engine asks for no more I/O.
    Close,
}

/// Longest origin path in bytes.
pub const MAX_PATH: usize = 200;

pub use crate::format::tables::MAX_FULL_WAIT_S;
/// Longest volume or snapshot name in bytes.
pub const MAX_NAME: usize = 63;
/// Most volumes in one take.
pub const MAX_GROUP: usize = 64;

/// The answer to a command that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done, nothing more to say.
    Done,
    /// The volume was added.
    Volume(VolumeId),
    /// The snapshots were taken, all under this tag.
    Taken(Tag),
    /// Chunks that differ.
    Changes(Changes),
}

/// A part of the answer to [`Command::Changes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Chunks, each once in all parts, in no order.
    pub chunks: Vec<u64>,
    /// Where the next part begins; `None`: this was the last.
    pub next: Option<ChangesAt>,
}

/// A place between two snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangesAt {
    /// The newest snapshot when a chunk was copied.
    pub tag: Tag,
    /// That chunk.
    pub chunk: u64,
}

/// Why a command was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such volume.
    #[error("volume {0} does not exist")]
    NoVolume(VolumeId),
    /// No such snapshot.
    #[error("snapshot {1} of volume {0} does not exist")]
    NoSnapshot(VolumeId, Tag),
    /// The name is taken.
    #[error("the name {0:?} is taken")]
    NameTaken(String),
    /// The name breaks the rules.
    #[error(
        "{0:?} is not a valid name: use 1 to 63 letters, digits, '.', '_', '-', not beginning with '.' or '-'"
    )]
    BadName(String),
    /// An argument makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A volume was to become smaller.
    #[error(
        "volume {volume:?} has {size} bytes and cannot be cut to {wanted}: csnap never shrinks a volume. \
         Keep its origin as large as it is, or delete the volume with its snapshots and create it again"
    )]
    Shrinks {
        /// Its name.
        volume: String,
        /// Bytes it has.
        size: u64,
        /// Bytes it was to have.
        wanted: u64,
    },
    /// The store's device has no more than the store.
    #[error(
        "the store has {store} bytes and its device {device}: there is nothing to extend into, at least {step} bytes more are needed. \
         Make the device larger first"
    )]
    NothingToExtend {
        /// Bytes the store has.
        store: u64,
        /// Bytes its device has.
        device: u64,
        /// Fewest bytes a store grows by.
        step: u64,
    },
    /// The store's device has become smaller than the store.
    #[error(
        "the store has {store} bytes but its device only {device}: it was cut off. \
         Make the device as large again at once"
    )]
    StoreCutOff {
        /// Bytes the store has.
        store: u64,
        /// Bytes its device has.
        device: u64,
    },
    /// No store can be so large.
    #[error("a store has at most {most} bytes, not {device}")]
    StoreTooLarge {
        /// Bytes its device has.
        device: u64,
        /// The most.
        most: u64,
    },
    /// The bitmap of so large a store does not fit in memory.
    #[error(
        "a store of {device} bytes needs more memory than this machine has: 64 MiB for each TiB"
    )]
    NoMemory {
        /// Bytes its device has.
        device: u64,
    },
    /// The last block of a device that was made larger cannot be written.
    #[error(
        "the new end of the store's device cannot be written: {0}; the store is as it was. \
         Check the device"
    )]
    NewEnd(IoError),
    /// Something holds it: a mapped snapshot, a take in progress.
    #[error("{0}")]
    Busy(String),
    /// Not enough space in the store.
    #[error("not enough free space in the store")]
    NoSpace,
    /// An origin could not be flushed.
    #[error("the origin of volume {0} could not be flushed: {1}; no snapshot was taken")]
    OriginFlush(VolumeId, IoError),
    /// Writes in flight did not finish in time.
    #[error("writes in flight did not finish in time; no snapshot was taken, try again")]
    DrainTimeout,
    /// The store failed.
    #[error("the store has failed: {0}")]
    StoreFailed(String),
    /// A metadata block is damaged.
    #[error("store block {block} is damaged: {reason}; run `csnapctl store check`")]
    Damaged {
        /// Which block.
        block: u64,
        /// What is wrong.
        reason: String,
    },
    /// The engine is closing.
    #[error("the store is being detached")]
    Closing,
}

/// Something a person should know; shown by `csnapctl events` and `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Free space fell below a warning mark (percent of the store used).
    SpaceLow {
        /// Percent of the store in use.
        used_percent: u8,
    },
    /// Writes of a volume that puts its snapshots first wait for room.
    WaitsForRoom {
        /// Whose.
        volume: VolumeId,
        /// After so long they fail.
        seconds: u32,
    },
    /// A snapshot was durably dropped.
    SnapshotDropped {
        /// Whose.
        volume: VolumeId,
        /// Its name.
        name: String,
        /// Which.
        tag: Tag,
        /// Why.
        reason: DropReason,
    },
    /// The space of a deleted snapshot has all come back.
    SnapshotPurged {
        /// Whose.
        volume: VolumeId,
        /// Which.
        tag: Tag,
    },
    /// Old contents of a chunk could not be read; newer snapshots lack it.
    ChunkLost {
        /// Whose.
        volume: VolumeId,
        /// Which chunk.
        chunk: u64,
        /// The origin's error.
        error: IoError,
    },
    /// A metadata block is damaged.
    Damage {
        /// Which block.
        block: u64,
        /// What is wrong.
        reason: String,
    },
    /// A block of a copied-out chunk is damaged: snapshots that need it cannot read it.
    DataDamaged {
        /// Whose.
        volume: VolumeId,
        /// The snapshot that was read.
        tag: Tag,
        /// Its name.
        name: String,
        /// Which chunk.
        chunk: u64,
        /// Which block of the store.
        block: u64,
    },
    /// The store failed and takes no more changes.
    StoreFailed {
        /// What failed.
        reason: String,
    },
    /// The store became larger.
    StoreExtended {
        /// Bytes it had.
        from: u64,
        /// Bytes it has.
        to: u64,
    },
    /// A checkpoint completed.
    Checkpoint {
        /// Its generation.
        generation: u64,
    },
}

/// Whether a name may be given to a volume or a snapshot: 1 to 63 letters, digits,
/// `.`, `_`, `-`, not beginning with `.` or `-`.
#[must_use]
pub fn valid_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=MAX_NAME).contains(&name.len()) && name.chars().all(legal) && !name.starts_with(['.', '-'])
}
