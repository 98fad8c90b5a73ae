//! Options of `csnapctl volume restore`.

use std::path::PathBuf;

use clap::Args;

use super::{Consent, FormatName};

/// What is restored, and from what.
#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    /// The volume
    pub volume: String,
    /// The images, the oldest first: a full one, and the increments over it. If only one is
    /// named, its backing files are found by what they are called in it
    #[arg(long = "from", value_name = "IMAGE", required = true, num_args = 1..)]
    pub images: Vec<PathBuf>,
    /// What the first image is; those over it are QCOW2
    // Never found out: what a guest wrote to a raw disk must not be taken for QCOW2.
    #[arg(
        short,
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "qcow2"
    )]
    pub format: FormatName,
    /// Take the images as they are named, although what they tell of what they were made
    /// does not show that they belong together, as after qemu-img commit or rebase; although
    /// a machine is writing to one; or although the first is given as raw and begins as QCOW2
    /// does
    #[arg(long)]
    pub trust: bool,
    /// First take a snapshot of this name, of the volume as it is
    #[arg(long, value_name = "NAME")]
    pub keep: Option<String>,
    /// Threads that read, compare and write
    #[arg(long, value_name = "N", default_value = "4",
          value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// How it is confirmed.
    #[command(flatten)]
    pub consent: Consent,
}
