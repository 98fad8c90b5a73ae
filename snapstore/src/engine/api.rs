//! What goes into the engine and what comes out: the seam between the engine
//! and whatever runs it (`csnapd`'s I/O threads, or the simulated world).
//!
//! Rules for the runtime:
//! - Every effect that carries an [`IoId`] or a copy is answered by exactly one
//!   matching event (a [`Effect::Copy`] by two: see there), in any order.
//! - [`Event::BlockWritten`], [`Event::CopyWritten`] and [`Event::CopyRead`] are
//!   reported when the operation **completed**; only a later flush makes it
//!   durable. The engine submits the flushes.
//! - Between [`Event::Paused`] and [`Effect::Resume`] no thread issues a write, a
//!   discard or a write-zeroes to the paused origins, nor looks at their
//!   [`UniqueMap`]. Reads go on. Reporting `Paused` means that all such I/O that
//!   was issued has completed.
//! - A write granted under an epoch that is no longer the volume's
//!   [`UniqueMap::epoch`] must not be issued: it asks again with
//!   [`Event::Write`].
//! - Effects may be carried out in any order and by any thread.

use std::sync::Arc;

use crate::block::Block;
use crate::device::IoError;
use crate::ids::{CommandId, GrantId, IoId, Owner, Tag, VolumeId};
#[allow(unused_imports)] // for the documentation links
use crate::unique::UniqueMap;

/// A range in the `crcs` arena of an [`EventBatch`] or of [`Effects`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrcRange {
    /// Index of the first checksum.
    pub start: u32,
    /// Number of checksums.
    pub len: u32,
}

impl CrcRange {
    /// The checksums this range names in `arena`; empty if out of bounds.
    #[must_use]
    pub fn of(self, arena: &[u32]) -> &[u32] {
        let start = self.start as usize;
        arena.get(start..start + self.len as usize).unwrap_or(&[])
    }
}

/// What the engine is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// An origin write (or write-zeroes) that the fast path refused: make chunks
    /// `first .. first + count` unique. Answered by [`Effect::WriteGranted`] or
    /// [`Effect::WriteFailed`] with the same owner.
    Write {
        /// Who asks.
        owner: Owner,
        /// The origin volume.
        volume: VolumeId,
        /// First chunk.
        first: u64,
        /// Number of chunks, at least 1.
        count: u32,
    },
    /// A read of snapshot `tag`. Answered by one or more [`Effect::ReadFrom`], or
    /// by one [`Effect::ReadFailed`].
    Read {
        /// Who asks.
        owner: Owner,
        /// The volume.
        volume: VolumeId,
        /// The snapshot.
        tag: Tag,
        /// First chunk.
        first: u64,
        /// Number of chunks, at least 1.
        count: u32,
    },
    /// Every piece of a granted read has completed (well or not).
    ReadDone {
        /// The grant of the [`Effect::ReadFrom`]s.
        grant: GrantId,
    },
    /// First answer to [`Effect::Copy`]: the origin was read. On success the
    /// checksums (one per 4 KiB, all chunks of the run) are in the batch's arena
    /// and the store write **has been submitted already**; [`Event::CopyWritten`]
    /// will follow. On failure nothing was written and no `CopyWritten` follows.
    CopyRead {
        /// The copy.
        copy: IoId,
        /// CRC32C of every 4 KiB read, or why the origin could not be read.
        result: Result<CrcRange, IoError>,
    },
    /// Second answer to [`Effect::Copy`]: the write to the store completed.
    CopyWritten {
        /// The copy.
        copy: IoId,
        /// How it went.
        result: Result<(), IoError>,
    },
    /// Answer to [`Effect::ReadBlock`].
    BlockRead {
        /// The I/O.
        io: IoId,
        /// The block as it is on the device; the engine verifies it.
        result: Result<Arc<Block>, IoError>,
    },
    /// Answer to [`Effect::WriteBlock`].
    BlockWritten {
        /// The I/O.
        io: IoId,
        /// How it went.
        result: Result<(), IoError>,
    },
    /// Answer to [`Effect::FlushStore`], [`Effect::FlushOrigin`] and
    /// [`Effect::RecordInvalid`].
    Flushed {
        /// The I/O.
        io: IoId,
        /// How it went.
        result: Result<(), IoError>,
    },
    /// Answer to [`Effect::Pause`].
    Paused {
        /// The pause.
        io: IoId,
        /// `false`: draining took too long and was given up; the runtime has
        /// resumed by itself and no [`Effect::Resume`] follows.
        drained: bool,
    },
    /// A person's command. Answered by [`Effect::Reply`].
    Command {
        /// Handed back in the reply.
        id: CommandId,
        /// What to do.
        command: Command,
    },
    /// Time passes. Expected about every 100 ms; drives periodic checkpoints.
    Tick {
        /// Milliseconds since the Unix epoch.
        now_ms: u64,
    },
}

/// Events handed to one `step`, with the checksums they refer to.
#[derive(Clone, Debug, Default)]
pub struct EventBatch {
    /// The events, in order.
    pub events: Vec<Event>,
    /// Checksums of [`Event::CopyRead`]s.
    pub crcs: Vec<u32>,
}

impl EventBatch {
    /// Adds a successful [`Event::CopyRead`].
    pub fn copy_read(&mut self, copy: IoId, crcs: &[u32]) {
        let range = CrcRange {
            start: self.crcs.len() as u32,
            len: crcs.len() as u32,
        };
        self.crcs.extend_from_slice(crcs);
        self.events.push(Event::CopyRead {
            copy,
            result: Ok(range),
        });
    }

    /// Moves everything from `other` to the end of `self`, leaving `other` empty
    /// with its capacity.
    pub fn append(&mut self, other: &mut Self) {
        let base = self.crcs.len() as u32;
        self.crcs.append(&mut other.crcs);
        self.events.extend(other.events.drain(..).map(|mut event| {
            if let Event::CopyRead {
                result: Ok(range), ..
            } = &mut event
            {
                range.start += base;
            }
            event
        }));
    }

    /// Forgets everything, keeping capacity.
    pub fn clear(&mut self) {
        self.events.clear();
        self.crcs.clear();
    }

    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// Where the bytes of a piece of a snapshot read are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the origin, at the same offset. The engine holds the chunks' read-locks
    /// until [`Event::ReadDone`].
    Origin,
    /// In the store, as a run of chunks beginning at this 4 KiB block. Verified
    /// against the checksums of the piece.
    Store {
        /// First block of the run.
        block: u64,
    },
}

/// What the engine asks for.
#[derive(Clone, Debug)]
pub enum Effect {
    /// The chunks are unique: issue the write now, if the volume's epoch is still
    /// `epoch` and it is not paused; otherwise send [`Event::Write`] again.
    WriteGranted {
        /// Who asked.
        owner: Owner,
        /// The epoch the grant was given under.
        epoch: u32,
    },
    /// The write cannot be allowed.
    WriteFailed {
        /// Who asked.
        owner: Owner,
        /// Why.
        error: RequestError,
    },
    /// A piece of a snapshot read: chunks `first .. first + count` are at
    /// `source`. Pieces come in ascending order; `last` marks the final one.
    ReadFrom {
        /// Who asked.
        owner: Owner,
        /// To be returned with [`Event::ReadDone`], once for all pieces.
        grant: GrantId,
        /// First chunk of the piece.
        first: u64,
        /// Chunks in the piece.
        count: u32,
        /// Where the bytes are.
        source: Source,
        /// For [`Source::Store`]: CRC32C per 4 KiB, in [`Effects::crcs`].
        crcs: CrcRange,
        /// No more pieces follow.
        last: bool,
    },
    /// The read cannot be served. Nothing is held; no `ReadDone` is expected.
    ReadFailed {
        /// Who asked.
        owner: Owner,
        /// Why.
        error: RequestError,
    },
    /// Copy out: read chunks `first .. first + count` of `volume`'s origin
    /// (zero-padded beyond its end), checksum every 4 KiB, submit the write of the
    /// whole chunks to the store at `block`, report [`Event::CopyRead`], and when
    /// the write completes [`Event::CopyWritten`].
    Copy {
        /// Identifies the copy.
        copy: IoId,
        /// Whose origin.
        volume: VolumeId,
        /// First chunk.
        first: u64,
        /// Number of neighbouring chunks.
        count: u32,
        /// Store block the run begins at.
        block: u64,
    },
    /// Read one metadata block of the store.
    ReadBlock {
        /// Identifies the I/O.
        io: IoId,
        /// Which block.
        block: u64,
    },
    /// Write one metadata block of the store.
    WriteBlock {
        /// Identifies the I/O.
        io: IoId,
        /// Which block.
        block: u64,
        /// What to write.
        data: Arc<Block>,
        /// Durable when it completes.
        fua: bool,
    },
    /// Flush the store. Always submitted, whatever the device claims of its cache.
    FlushStore {
        /// Identifies the I/O.
        io: IoId,
    },
    /// Flush a volume's origin.
    FlushOrigin {
        /// Identifies the I/O.
        io: IoId,
        /// Whose origin.
        volume: VolumeId,
    },
    /// Stop issuing origin writes of these volumes and drain those in flight.
    Pause {
        /// Identifies the pause.
        io: IoId,
        /// The volumes.
        volumes: Vec<VolumeId>,
    },
    /// End of the pause `io`.
    Resume {
        /// The pause.
        io: IoId,
    },
    /// The store can no longer be written. Record durably, outside the store and
    /// outside the origins it serves, that all snapshots of `volumes` are invalid;
    /// until that is answered their shared chunks are not overwritten.
    RecordInvalid {
        /// Identifies the I/O.
        io: IoId,
        /// The volumes.
        volumes: Vec<VolumeId>,
    },
    /// The answer to a command.
    Reply {
        /// Of the command.
        id: CommandId,
        /// How it went.
        result: Result<Reply, CommandError>,
    },
    /// Something a person should know.
    Notice(Notice),
    /// More background work is ready: step again soon, with or without events.
    Again,
}

/// Effects of one `step`, with the checksums they refer to.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// The effects.
    pub list: Vec<Effect>,
    /// Checksums of [`Effect::ReadFrom`]s.
    pub crcs: Vec<u32>,
}

impl Effects {
    /// Forgets everything, keeping capacity.
    pub fn clear(&mut self) {
        self.list.clear();
        self.crcs.clear();
    }
}

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
    /// A metadata block is damaged; run `csnapctl store check`.
    #[error("store block {block} is damaged: {reason}; run `csnapctl store check`")]
    Damaged {
        /// Which block.
        block: u64,
        /// What is wrong with it.
        reason: String,
    },
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
    /// No space in the store, and the volume's policy puts snapshots first.
    #[error("the store is full and the policy of volume {0} keeps its snapshots")]
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

/// What happens to origin writes when the store has no room for old data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The origin goes on; snapshots are dropped, lowest priority first, then oldest.
    #[default]
    OriginFirst,
    /// Origin writes that need a copyout fail with "no space"; no snapshot is dropped.
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
    /// Sets a volume's full-store policy.
    SetPolicy {
        /// Which volume.
        volume: VolumeId,
        /// The policy.
        policy: Policy,
    },
    /// Drops (invalidates) all live snapshots of a volume durably.
    DropSnapshots {
        /// Which volume.
        volume: VolumeId,
        /// Why, for the record.
        reason: DropReason,
    },
    /// Records the fingerprints of the origins at an orderly stop, so that the next
    /// attach can tell whether an origin was changed meanwhile. `None`: unknown.
    SetFingerprint {
        /// Which volume.
        volume: VolumeId,
        /// What the runtime computed (opaque to the engine).
        fingerprint: Option<[u8; 32]>,
    },
    /// Writes a checkpoint now. Replied when it is durable.
    Checkpoint,
    /// Orderly stop: finishes what is in flight, refuses new requests, writes a
    /// checkpoint marked clean. After the reply the engine asks for no more I/O.
    Close,
}

/// Longest origin path in bytes.
pub const MAX_PATH: usize = 200;
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
    /// The store failed and takes no more changes.
    StoreFailed {
        /// What failed.
        reason: String,
    },
    /// A checkpoint completed.
    Checkpoint {
        /// Its generation.
        generation: u64,
    },
}

/// How a volume is, for `volume list` and exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Number.
    pub id: VolumeId,
    /// Name.
    pub name: String,
    /// Identity.
    pub uuid: [u8; 16],
    /// Size in bytes.
    pub size: u64,
    /// Path of the origin.
    pub origin: String,
    /// Full-store policy.
    pub policy: Policy,
    /// Unix time in ms.
    pub created_ms: u64,
    /// Live (and dropped) snapshots.
    pub snapshots: u64,
    /// Bytes of old data held for its snapshots.
    pub held_bytes: u64,
    /// Being deleted.
    pub deleting: bool,
    /// Recorded at the last orderly stop; `None` if unknown.
    pub fingerprint: Option<[u8; 32]>,
}

/// How a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotState {
    /// Readable.
    Live,
    /// Dropped: reads fail.
    Dropped(DropReason),
}

/// A snapshot, for `snapshot list` and exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Whose.
    pub volume: VolumeId,
    /// Number.
    pub tag: Tag,
    /// Name.
    pub name: String,
    /// Unix time in ms.
    pub created_ms: u64,
    /// Size of the volume when taken, in bytes.
    pub size: u64,
    /// Bytes of old data that only this snapshot holds.
    pub exclusive_bytes: u64,
    /// Lowest is dropped first.
    pub priority: i32,
    /// Mapped: exported, again after a restart.
    pub mapped: bool,
    /// State.
    pub state: SnapshotState,
}

/// How the store is, for `store status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreInfo {
    /// Identity.
    pub uuid: [u8; 16],
    /// Chunk size in bytes.
    pub chunk_size: u32,
    /// Size in bytes.
    pub size: u64,
    /// Bytes in use or awaiting reuse.
    pub used: u64,
    /// Bytes of metadata (tree nodes, bitmap, journal, superblocks).
    pub metadata: u64,
    /// Generation of the last durable checkpoint.
    pub generation: u64,
    /// Journal blocks in use / in all.
    pub journal_used: u64,
    /// Journal blocks in all.
    pub journal_blocks: u64,
    /// Snapshots whose space is still coming back.
    pub purging: u64,
    /// Why the store takes no more changes, if so.
    pub failed: Option<String>,
    /// Counters since attach.
    pub counters: Counters,
}

/// Counters since attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Chunks copied out.
    pub chunks_copied: u64,
    /// Copyouts (runs of neighbouring chunks).
    pub copies: u64,
    /// Bytes of chunk data written to the store.
    pub data_bytes: u64,
    /// Bytes of journal written.
    pub journal_bytes: u64,
    /// Bytes of tree, bitmap and superblock written.
    pub checkpoint_bytes: u64,
    /// Commits (each one flush of the store).
    pub commits: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Slow-path writes asked.
    pub writes: u64,
    /// Snapshot reads asked.
    pub reads: u64,
    /// Metadata blocks read (cache misses).
    pub block_reads: u64,
    /// Chunks given back by deletes.
    pub chunks_freed: u64,
}

/// How the engine is tuned. The defaults suit a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Tree nodes kept in memory (4 KiB each). Default 16384 (64 MiB).
    pub cache_blocks: usize,
    /// Exceptions in memory before a checkpoint is forced. Default 131072.
    pub memtable_records: usize,
    /// Most chunks in one coalesced copyout; a copyout is also at most 1 MiB. Default 64.
    pub max_run: u32,
    /// Checkpoint after this much quiet or busy time with changes, ms. Default 30000.
    pub checkpoint_ms: u64,
    /// Percent used at which a warning is given. Default 80.
    pub warn_percent: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cache_blocks: 16384,
            memtable_records: 131_072,
            max_run: 64,
            checkpoint_ms: 30_000,
            warn_percent: 80,
        }
    }
}
