//! Arguments of what reads an image.

use super::values;
use clap::Args;
use std::ops::Range;
use std::path::PathBuf;

/// Lists physical ranges with their owners, in order: files and which part of them,
/// the file system's own structures, free space. The image may be a file, a device or a
/// mapped snapshot; it is only read.
#[derive(Debug, Args)]
pub(crate) struct Fsmap {
    /// The image or device
    pub(crate) image: PathBuf,
    /// Only what overlaps these bytes of it: FROM-TO or FROM+LENGTH
    #[arg(long, value_parser = values::range)]
    pub(crate) range: Option<Range<u64>>,
    /// Name files by their paths, not only by inode
    #[arg(long)]
    pub(crate) paths: bool,
    /// One JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// Reads every structure and compares it with every other: space, owners, counts, links,
/// names, checksums, the log, all copies of the superblock. Nothing is written. What is
/// wrong is listed with its place, and the exit code is 6.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The image or device
    pub(crate) image: PathBuf,
    /// One JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// Say nothing, only set the exit code
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
}
