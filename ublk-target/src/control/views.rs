//! How stores, volumes, snapshots and events look over the control socket, and
//! in `csnapctl --json`.
//!
//! Contract: sizes are bytes, times are milliseconds since the Unix epoch (UTC),
//! names are the ones people gave. Fields are only ever added.

use serde::{Deserialize, Serialize};
use snapstore::engine::{Counters, Policy};

use super::protocol::SnapshotName;

mod block;
mod scrub;

pub use block::{AgreedView, FeatureView, FeaturesView, FrontendName, WaitingView, ZeroCopyName};
pub use scrub::{DamageView, ScrubView};

/// What goes first when a store is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyName {
    /// The origin goes on, snapshots are dropped.
    #[default]
    OriginFirst,
    /// Origin writes fail, snapshots stay.
    SnapshotFirst,
}

impl From<Policy> for PolicyName {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::OriginFirst => Self::OriginFirst,
            Policy::SnapshotFirst => Self::SnapshotFirst,
        }
    }
}

impl From<PolicyName> for Policy {
    fn from(policy: PolicyName) -> Self {
        match policy {
            PolicyName::OriginFirst => Self::OriginFirst,
            PolicyName::SnapshotFirst => Self::SnapshotFirst,
        }
    }
}

/// Something that is wrong, and what a person can do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub next: String,
}

/// How a store is with respect to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreState {
    /// Served.
    Attached,
    /// Served, but it failed: origins go on, snapshots are lost.
    Failed,
    /// Listed to be served, but it could not be attached.
    Missing,
}

/// A store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreView {
    /// Path of the store device.
    pub path: String,
    /// Identity.
    pub uuid: String,
    /// State.
    pub state: StoreState,
    /// Bytes in a chunk; 0 when missing, as are all sizes.
    pub chunk_size: u32,
    /// What covers the data copied to it: `crc32c` or `xxh3`; empty when missing, and
    /// from a daemon that knows only the first.
    #[serde(default)]
    pub checksum: String,
    /// Bytes.
    pub size: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes of those that are metadata.
    pub metadata: u64,
    /// Seconds until it is full at the rate of the last ten minutes; absent when it does
    /// not fill.
    #[serde(default)]
    pub full_in_s: Option<u64>,
    /// Bytes that its device has more: `store.extend` takes them in.
    #[serde(default)]
    pub unused: u64,
    /// Number of volumes.
    pub volumes: u64,
    /// Number of snapshots.
    pub snapshots: u64,
    /// Deleted snapshots whose space is still coming back.
    pub purging: u64,
    /// Bytes of old data that have still to come back from them.
    #[serde(default)]
    pub purging_bytes: u64,
    /// Generation of the last durable checkpoint.
    pub generation: u64,
    /// Journal blocks in use.
    pub journal_used: u64,
    /// Journal blocks.
    pub journal_blocks: u64,
    /// Counters since attach.
    pub counters: CountersView,
    /// What is wrong, if anything.
    pub problem: Option<Problem>,
}

/// Counters of a store since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersView {
    /// Chunks copied out.
    pub chunks_copied: u64,
    /// Copyouts: runs of neighbouring chunks.
    pub copies: u64,
    /// Bytes of old data written to the store.
    pub data_bytes: u64,
    /// Bytes of journal written.
    pub journal_bytes: u64,
    /// Bytes of tree, bitmap and superblock written.
    pub checkpoint_bytes: u64,
    /// Commits; each is one flush of the store.
    pub commits: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Origin writes that could not take the fast path.
    pub writes: u64,
    /// Snapshot reads.
    pub reads: u64,
    /// Metadata blocks read because they were not in memory.
    pub block_reads: u64,
    /// Chunks given back by deletions.
    pub chunks_freed: u64,
}

impl From<Counters> for CountersView {
    fn from(c: Counters) -> Self {
        Self {
            chunks_copied: c.chunks_copied,
            copies: c.copies,
            data_bytes: c.data_bytes,
            journal_bytes: c.journal_bytes,
            checkpoint_bytes: c.checkpoint_bytes,
            commits: c.commits,
            checkpoints: c.checkpoints,
            writes: c.writes,
            reads: c.reads,
            block_reads: c.block_reads,
            chunks_freed: c.chunks_freed,
        }
    }
}

/// How a volume is with respect to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeState {
    /// Exported.
    Served,
    /// The origin could not be opened, or was taken away.
    OriginMissing,
    /// The origin is not what it was; see the problem.
    Refused,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeView {
    /// Name; also the name of its export.
    pub name: String,
    /// State.
    pub state: VolumeState,
    /// Bytes.
    pub size: u64,
    /// Number of snapshots.
    pub snapshots: u64,
    /// Bytes of old data held for them.
    pub held_bytes: u64,
    /// Path of the origin.
    pub origin: String,
    /// Path of the store.
    pub store: String,
    /// What goes first when the store is full.
    pub policy: PolicyName,
    /// Seconds a write waits for room where snapshots come first.
    #[serde(default)]
    pub full_wait_s: u32,
    /// Path of its block device, `/dev/ublkbN`, if it has one.
    pub device: Option<String>,
    /// A path that stays the same over restarts and leads to the device.
    pub link: Option<String>,
    /// What was agreed with the kernel for the device.
    pub agreed: Option<AgreedView>,
    /// NBD clients connected to the origin's export.
    pub clients: u64,
    /// How many use it: those clients, and mounts, programs and devices on top of its block
    /// device, as far as can be seen; the clients alone in lists.
    #[serde(default)]
    pub uses: u64,
    /// When it was created.
    pub created_ms: u64,
    /// Identity.
    pub uuid: String,
    /// What is wrong, if anything.
    pub problem: Option<Problem>,
}

/// How a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotStateName {
    /// Readable.
    Live,
    /// Dropped: reads fail, only its name is left.
    Dropped,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotView {
    /// The volume.
    pub volume: String,
    /// The name.
    pub name: String,
    /// Number; snapshots taken together share it.
    pub tag: u64,
    /// When it was taken.
    pub created_ms: u64,
    /// Bytes.
    pub size: u64,
    /// Bytes that only this snapshot holds: what a deletion gives back.
    pub exclusive_bytes: u64,
    /// Bytes that it holds together with other snapshots.
    #[serde(default)]
    pub shared_bytes: u64,
    /// Lowest is dropped first when the store is full.
    pub priority: i32,
    /// State.
    pub state: SnapshotStateName,
    /// Why it was dropped.
    pub dropped: Option<String>,
    /// Exported, again after a restart.
    pub mapped: bool,
    /// Never dropped to make room, and deleted only with force.
    #[serde(default)]
    pub held: bool,
    /// Path of its block device, `/dev/ublkbN`, if it has one.
    pub device: Option<String>,
    /// A path that stays the same over restarts and leads to the device.
    pub link: Option<String>,
    /// What was agreed with the kernel for the device.
    pub agreed: Option<AgreedView>,
    /// Name of the NBD export while mapped, if NBD is served.
    pub export: Option<String>,
    /// NBD clients connected to the export.
    pub clients: u64,
    /// How many use it: those clients, and mounts, programs and devices on top of its
    /// block device, as far as can be seen.
    #[serde(default)]
    pub uses: u64,
}

impl SnapshotView {
    /// What names this snapshot and no other.
    #[must_use]
    pub fn exactly(&self) -> SnapshotName {
        SnapshotName {
            volume: self.volume.clone(),
            name: self.name.clone(),
            tag: Some(self.tag),
        }
    }
}

/// Snapshots taken together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenView {
    /// Their common tag.
    pub tag: u64,
    /// When.
    pub created_ms: u64,
    /// Their names, `vol@name`.
    pub snapshots: Vec<String>,
}

/// What protects the machine from a daemon its memory depends on, each in force or
/// not; only block devices need them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectionsView {
    /// No memory of the daemon is paged out.
    pub memory_locked: bool,
    /// The kernel never kills it to get memory.
    pub oom_protected: bool,
    /// Its I/O threads never wait for writeback to themselves.
    pub io_flusher: bool,
    /// No file system on a device of its own is mounted in its sight.
    pub own_mounts: bool,
}

/// How the daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started_ms: u64,
    /// Number of I/O threads.
    pub threads: u32,
    /// What protects the machine from it; absent from a daemon that does not tell.
    #[serde(default)]
    pub protections: Option<ProtectionsView>,
    /// How clients reach what is served.
    #[serde(default)]
    pub frontend: FrontendName,
    /// Why this front end was chosen.
    #[serde(default)]
    pub frontend_why: String,
    /// Features of the kernel's ublk driver, by name; empty without ublk.
    #[serde(default)]
    pub ublk_features: Vec<String>,
    /// Path of the NBD socket: snapshots can be read there, mapped or not, and with the
    /// front ends `nbd` and `both` volumes too.
    pub nbd_socket: String,
    /// The stores.
    pub stores: Vec<StoreView>,
    /// Number of volumes served / refused or missing.
    pub volumes_served: u64,
    /// Number of volumes that are not served.
    pub volumes_not_served: u64,
    /// Snapshots that are exported.
    pub mapped: u64,
    /// Block devices served.
    #[serde(default)]
    pub devices: u64,
    /// Block devices that wait for something else than this daemon can do alone.
    #[serde(default)]
    pub waiting: Vec<WaitingView>,
    /// NBD clients connected to exports.
    pub clients: u64,
    /// Sequence number of the newest event.
    pub newest_event: u64,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// For the record.
    Info,
    /// Someone should look.
    Warning,
    /// Something was lost or does not work.
    Error,
}

/// Bytes of a volume that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RangeView {
    /// The first byte.
    pub start: u64,
    /// How many.
    pub length: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// 1 and up since the daemon started, without gaps.
    pub seq: u64,
    /// When.
    pub time_ms: u64,
    /// How much it matters.
    pub level: Level,
    /// What kind, for programs.
    pub kind: String,
    /// Path of the store concerned.
    pub store: Option<String>,
    /// Volume concerned.
    pub volume: Option<String>,
    /// Snapshot concerned.
    pub snapshot: Option<String>,
    /// What happened, for people.
    pub message: String,
}
