//! `csnapctl snapshot mount` and `umount`.

use std::path::PathBuf;

use clap::Args;

use crate::names::{SnapshotArg, SnapshotOrDir};

/// How a snapshot is mounted.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// The snapshot
    #[arg(value_name = "VOLUME@NAME")]
    pub snapshot: SnapshotArg,
    /// Where: an empty directory
    pub dir: PathBuf,
    /// Further options for mount(8), after those csnapctl chooses
    #[arg(long, value_name = "OPTION,...", value_delimiter = ',')]
    pub options: Vec<String>,
    /// The file system's type for mount(8), instead of the one recognised
    #[arg(long, value_name = "TYPE")]
    pub fs: Option<String>,
    /// A partition by its number, where the origin is a disk with partitions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=128))]
    pub partition: Option<u32>,
    /// Make the directory first
    #[arg(long)]
    pub mkdir: bool,
    /// Mount over a directory that is not empty
    #[arg(long)]
    pub force: bool,
}

/// What is unmounted.
#[derive(Debug, Args)]
pub struct UmountArgs {
    /// The snapshot, or where it is mounted (with a slash: ./web@monday)
    #[arg(value_name = "VOLUME@NAME|DIR")]
    pub what: SnapshotOrDir,
}
