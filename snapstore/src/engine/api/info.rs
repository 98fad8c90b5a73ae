//! How volumes, snapshots and the store are, and how the engine is tuned.

use super::{DropReason, Policy};
use crate::checksum::Checksum;
use crate::ids::{Tag, VolumeId};

/// What the runtime last recorded of an origin; opaque to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// What it looked like at the last orderly stop.
    Fingerprint([u8; 32]),
    /// It is used, or was when the runtime crashed; the bytes tell this use from others.
    /// All zero for a volume that is new.
    Use([u8; 32]),
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
    /// Seconds a write waits for room where snapshots come first.
    pub full_wait_s: u32,
    /// Unix time in ms.
    pub created_ms: u64,
    /// Live (and dropped) snapshots.
    pub snapshots: u64,
    /// Bytes of old data held for its snapshots.
    pub held_bytes: u64,
    /// Being deleted.
    pub deleting: bool,
    /// Recorded of its origin.
    pub seal: Seal,
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
    /// Bytes of old data that only this snapshot holds: what a deletion gives back.
    /// A lost chunk counts here and below, though nothing is kept of it.
    pub exclusive_bytes: u64,
    /// Bytes of old data that it holds together with others.
    pub shared_bytes: u64,
    /// Lowest is dropped first.
    pub priority: i32,
    /// Mapped: exported, again after a restart.
    pub mapped: bool,
    /// Kept by a person: not dropped to make room.
    pub held: bool,
    /// State.
    pub state: SnapshotState,
}

impl SnapshotInfo {
    /// Whether there is something that a person keeps: not in a dropped one.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.held && self.state == SnapshotState::Live
    }
}

/// How the store is, for `store status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreInfo {
    /// Identity.
    pub uuid: [u8; 16],
    /// Chunk size in bytes.
    pub chunk_size: u32,
    /// What copied-out data is covered by.
    pub checksum: Checksum,
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
    /// Bytes of old data that no snapshot needs any more and that are still kept.
    pub purging_bytes: u64,
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
    /// Tree nodes kept in memory, [`CACHED_NODE`] bytes each. Default: as many as take
    /// 256 MiB.
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

/// Memory that one node in the cache takes, in bytes, as measured: its block, the node
/// around it, its places in the cache's tables, and the holes that the memory allocator
/// leaves where blocks aligned for I/O were. A test of `scale` holds it to that.
pub const CACHED_NODE: u64 = 6144;

impl Config {
    /// How many tree nodes `bytes` of memory hold.
    #[must_use]
    pub const fn nodes_in(bytes: u64) -> usize {
        (bytes / CACHED_NODE) as usize
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cache_blocks: Self::nodes_in(256 << 20),
            memtable_records: 131_072,
            max_run: 64,
            checkpoint_ms: 30_000,
            warn_percent: 80,
        }
    }
}
