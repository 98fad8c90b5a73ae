//! Records of the volume table, the snapshot table and the sharing counters.
//! The same structures stand in the journal.
//!
//! | tree | key | value |
//! |---|---|---|
//! | volumes | 0, volume, 0 | [`VolumeRecord`] |
//! | snapshots | volume, tag, 0 | [`SnapshotRecord`] |
//! | sharing | volume, last, first | u64: exceptions that the live snapshots first..=last share |

use zerocopy::little_endian::{I32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A name of up to 63 bytes, padded with zeroes.
pub type Name = [u8; 64];

/// A volume.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct VolumeRecord {
    /// [`VOLUME_LIVE`] or [`VOLUME_DELETING`].
    pub state: U32,
    /// [`KIND_ORIGIN`]; [`KIND_CLONE`] is reserved and refused by this version.
    pub kind: U32,
    /// 0: origin first; 1: snapshot first.
    pub policy: U32,
    /// [`HAS_FINGERPRINT`].
    pub flags: U32,
    /// Size in bytes.
    pub size: U64,
    /// Unix time of creation in ms.
    pub created_ms: U64,
    /// Exceptions held for its snapshots, LOST ones not counted.
    pub held: U64,
    /// Clone: volume of the parent snapshot; else 0.
    pub parent_volume: U32,
    /// Seconds a write waits in a full store where snapshots come first.
    pub full_wait_s: U32,
    /// Clone: tag of the parent snapshot; else 0.
    pub parent_tag: U64,
    /// Identity.
    pub uuid: [u8; 16],
    /// Of the origin at the last orderly stop; without [`HAS_FINGERPRINT`] a number of
    /// the use that has not ended in order, zero for a new volume.
    pub fingerprint: [u8; 32],
    /// Name.
    pub name: Name,
    /// Path of the origin, padded with zeroes.
    pub origin: [u8; 200],
}

/// A snapshot.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct SnapshotRecord {
    /// A [`SnapshotPhase`].
    pub phase: U32,
    /// [`MAPPED`], [`PURGED`], [`HELD`].
    pub flags: U32,
    /// Why it was dropped (see `DropReason`), else 0.
    pub reason: U32,
    /// Lowest is dropped first.
    pub priority: I32,
    /// Unix time of creation in ms.
    pub created_ms: U64,
    /// Size of the volume when taken, in bytes.
    pub size: U64,
    /// Name.
    pub name: Name,
}

/// Most seconds a write waits for room in a full store.
pub const MAX_FULL_WAIT_S: u32 = 3600;
/// The volume is in use.
pub const VOLUME_LIVE: u32 = 1;
/// The volume's snapshots are being purged; then it goes.
pub const VOLUME_DELETING: u32 = 2;
/// The volume is an origin.
pub const KIND_ORIGIN: u32 = 1;
/// The volume is a writable clone of a snapshot.
pub const KIND_CLONE: u32 = 2;
/// The fingerprint is known.
pub const HAS_FINGERPRINT: u32 = 1;
/// The snapshot is exported, again after a restart.
pub const MAPPED: u32 = 1;
/// A dropped snapshot whose space has come back.
pub const PURGED: u32 = 2;
/// A person keeps the snapshot: it is not dropped to make room.
pub const HELD: u32 = 4;

/// Where a snapshot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SnapshotPhase {
    /// Taken, not yet committed; after a crash it never was.
    Prepared = 1,
    /// Readable.
    Live = 2,
    /// Deleted; its space is coming back.
    Deleting = 3,
    /// Dropped: listed, reads fail.
    Dropped = 4,
}

impl SnapshotRecord {
    /// The phase, if it is a known one.
    #[must_use]
    pub fn phase(&self) -> Option<SnapshotPhase> {
        Some(match self.phase.get() {
            1 => SnapshotPhase::Prepared,
            2 => SnapshotPhase::Live,
            3 => SnapshotPhase::Deleting,
            4 => SnapshotPhase::Dropped,
            _ => return None,
        })
    }
}

/// Bytes of a [`VolumeRecord`].
pub const VOLUME_LEN: usize = size_of::<VolumeRecord>();
/// Bytes of a [`SnapshotRecord`].
pub const SNAPSHOT_LEN: usize = size_of::<SnapshotRecord>();
/// Bytes of a sharing counter.
pub const SHARING_LEN: usize = 8;

const _: () = assert!(VOLUME_LEN == 368);
const _: () = assert!(SNAPSHOT_LEN == 96);

/// A string as a zero-padded field; cut if too long (callers check lengths).
#[must_use]
pub fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    field
}

/// A zero-padded field as a string; bytes that are not UTF-8 are replaced.
#[must_use]
pub fn text(field: &[u8]) -> String {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(field.get(..end).unwrap_or(field)).into_owned()
}
