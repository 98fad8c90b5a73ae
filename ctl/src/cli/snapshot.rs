//! `csnapctl snapshot ...`

use clap::Subcommand;

use super::Consent;
use crate::names::{SnapshotArg, TargetArg};

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotVerb {
    /// Take snapshots of one or more volumes, all at one instant
    ///
    /// When this returns the snapshots are durable. Volumes named together (of one
    /// store, at most 64) are taken together: no write lies between them. Without
    /// a name one is made from the time, like 2026-11-20T22.15.03.123Z. Prints the
    /// snapshots' names.
    #[command(after_help = "Examples:\n  csnapctl snapshot take web@monday\n  \
                            csnapctl snapshot take web db\n  \
                            csnapctl snapshot take web@before-upgrade --priority 10")]
    Take {
        /// Volumes, with or without a name for the snapshot
        #[arg(required = true, value_name = "VOLUME[@NAME]")]
        targets: Vec<TargetArg>,
        /// When the store is full the lowest is dropped first
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        priority: i32,
    },
    /// List snapshots: when, how large, and the bytes only they hold
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  csnapctl snapshot list\n  \
                                                  csnapctl snapshot list web\n  \
                                                  csnapctl snapshot list web --no-header -o name"
    )]
    List {
        /// Of this volume only
        volume: Option<String>,
    },
    /// Show everything about snapshots
    #[command(after_help = "Example:\n  csnapctl snapshot show web@monday")]
    Show {
        /// The snapshots
        #[arg(required = true, value_name = "VOLUME@NAME")]
        snapshots: Vec<SnapshotArg>,
    },
    /// Delete snapshots
    ///
    /// They are gone when this returns; their space comes back in the background.
    /// Other snapshots keep all they have. A mapped snapshot is refused: unmap it
    /// first.
    #[command(after_help = "Examples:\n  csnapctl snapshot delete web@monday\n  \
                            csnapctl snapshot delete web@monday web@tuesday --yes")]
    Delete {
        /// The snapshots
        #[arg(required = true, value_name = "VOLUME@NAME")]
        snapshots: Vec<SnapshotArg>,
        /// How it is confirmed.
        #[command(flatten)]
        consent: Consent,
    },
    /// Give a snapshot another name
    #[command(after_help = "Example:\n  csnapctl snapshot rename web@monday before-upgrade")]
    Rename {
        /// The snapshot
        #[arg(value_name = "VOLUME@NAME")]
        snapshot: SnapshotArg,
        /// The new name
        new: String,
    },
    /// Export snapshots for reading, again after every restart
    ///
    /// A mapped snapshot is a read-only NBD export named VOLUME@NAME on the
    /// daemon's NBD socket.
    #[command(after_help = "Examples:\n  csnapctl snapshot map web@monday\n  \
                            nbdcopy 'nbd+unix:///web@monday?socket=/run/csnap/nbd.sock' monday.img")]
    Map {
        /// The snapshots
        #[arg(required = true, value_name = "VOLUME@NAME")]
        snapshots: Vec<SnapshotArg>,
    },
    /// Stop exporting snapshots
    #[command(after_help = "Example:\n  csnapctl snapshot unmap web@monday")]
    Unmap {
        /// The snapshots
        #[arg(required = true, value_name = "VOLUME@NAME")]
        snapshots: Vec<SnapshotArg>,
        /// Disconnect clients
        #[arg(long)]
        force: bool,
    },
    /// Change a snapshot
    #[command(after_help = "Example:\n  csnapctl snapshot set web@monday --priority 10")]
    Set {
        /// The snapshot
        #[arg(value_name = "VOLUME@NAME")]
        snapshot: SnapshotArg,
        /// When the store is full the lowest is dropped first
        #[arg(long, allow_negative_numbers = true)]
        priority: i32,
    },
}
