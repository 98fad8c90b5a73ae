//! How a scrub looks.

use serde::{Deserialize, Serialize};

/// The scrub of a store: the one under way, or the last one since it was attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubView {
    /// Path of the store; empty if it never was scrubbed.
    pub store: String,
    /// It is under way.
    pub running: bool,
    /// It came to its end.
    pub complete: bool,
    /// Bytes a second it keeps to.
    pub rate: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Chunks verified.
    pub chunks: u64,
    /// Of how many.
    pub of: u64,
    /// When it began.
    pub started_ms: u64,
    /// When it ended.
    #[serde(default)]
    pub ended_ms: Option<u64>,
    /// Why it ended before its end.
    #[serde(default)]
    pub problem: Option<String>,
    /// Damaged blocks found.
    pub damaged: u64,
    /// The first of them.
    pub damage: Vec<DamageView>,
}

/// A damaged block of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageView {
    /// Where, in blocks of 4 KiB.
    pub block: u64,
    /// What is wrong with it.
    pub reason: String,
    /// The volume whose data it keeps; absent for metadata.
    #[serde(default)]
    pub volume: Option<String>,
    /// The chunk it keeps.
    #[serde(default)]
    pub chunk: Option<u64>,
    /// The snapshots that need it.
    #[serde(default)]
    pub snapshots: Vec<String>,
    /// And so many more.
    #[serde(default)]
    pub more_snapshots: u64,
}
