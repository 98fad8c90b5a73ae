//! Structures of QCOW2 as bytes, all numbers big-endian. Names are the specification's.
//!
//! - `header`: cluster 0
//! - `extension`: what follows the header
//! - `entry`: entries of level 1 and level 2 tables
//! - `refcount`: counts of any width
//! - `snapshot`, `bitmap`: entries of their tables

mod bitmap;
mod entry;
mod extension;
mod header;
mod refcount;
mod snapshot;

pub use bitmap::{BitmapEntry, BitmapFlag, BitmapTableEntry, BitmapsExtension};
pub use entry::{Compressed, L1Entry, L2Entry, Subclusters, Width};
pub use extension::ProvenanceExtension;
pub use extension::{ExtensionHeader, ExtensionKind, FeatureName, FeatureNameKind};
pub use header::{Autoclear, Compatible, CompressionType, Header, Incompatible, MAGIC};
pub use header::{LENGTH_V2, LENGTH_V3, LENGTH_WITH_COMPRESSION};
pub use refcount::RefcountWidth;
pub use snapshot::{SnapshotEntry, SnapshotExtra};

type U16 = zerocopy::big_endian::U16;
type U32 = zerocopy::big_endian::U32;
type U64 = zerocopy::big_endian::U64;

use crate::on_disk::{on_disk, size};

/// log2 of the smallest cluster.
pub const LEAST_CLUSTER_BITS: u32 = 9;
/// log2 of the largest cluster QEMU opens.
pub const MOST_CLUSTER_BITS: u32 = 21;
/// log2 of the smallest cluster that may have subclusters.
pub const LEAST_SUBCLUSTER_BITS: u32 = 14;
/// Subclusters of a cluster, in images that have them.
pub const SUBCLUSTERS: u32 = 32;
/// Compressed clusters are measured in sectors.
pub const SECTOR: u64 = 512;
/// Largest level 1 table, in bytes (QEMU's `QCOW_MAX_L1_SIZE`).
pub const MOST_L1_BYTES: u64 = 32 << 20;
/// Largest refcount table, in bytes (QEMU's `QCOW_MAX_REFTABLE_SIZE`).
pub const MOST_REFTABLE_BYTES: u64 = 8 << 20;
/// Most internal snapshots (QEMU's `QCOW_MAX_SNAPSHOTS`).
pub const MOST_SNAPSHOTS: u32 = 65_536;
/// Largest snapshot table, in bytes (QEMU's `QCOW_MAX_SNAPSHOTS_SIZE`).
pub const MOST_SNAPSHOT_BYTES: u64 = 64 << 20;
/// Most bitmaps (QEMU's `QCOW2_MAX_BITMAPS`).
pub const MOST_BITMAPS: u32 = 65_535;
/// Longest name of a backing file, in bytes.
pub const MOST_BACKING_NAME: u32 = 1023;
