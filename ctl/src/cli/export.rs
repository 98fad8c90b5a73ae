//! Options of `csnapctl snapshot export` and `volume export`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use imagegen::qcow2::open::Format;
use imagegen::qcow2::write::Compression;

use crate::names::{ByteSize, SnapshotArg};

const IMAGE: &str = "QCOW2";

/// Which snapshot is exported, and into what.
#[derive(Debug, Clone, Args)]
pub struct SnapshotExportArgs {
    /// The snapshot
    #[arg(value_name = "VOLUME@NAME")]
    pub snapshot: SnapshotArg,
    /// Only what changed since this snapshot of the volume: the image is laid over one of
    /// that snapshot
    #[arg(long, value_name = "VOLUME@OLDER", requires = "backing")]
    pub from: Option<SnapshotArg>,
    /// The image of the older snapshot. Its name stands in the image as it is given here,
    /// and counts from where the image lies
    #[arg(short, long, value_name = "IMAGE", requires = "from", help_heading = IMAGE)]
    pub backing: Option<String>,
    /// What the image of the older snapshot is
    #[arg(
        short = 'F',
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "qcow2",
        requires = "from",
        help_heading = IMAGE
    )]
    pub backing_format: FormatName,
    /// Lay it over that image, although what it tells of what it was made does not show that
    /// it is the right one, as after qemu-img commit or rebase; although a machine is writing
    /// to it; or although it is given as raw and begins as QCOW2 does
    #[arg(long, requires = "from", help_heading = IMAGE)]
    pub trust: bool,
    /// What it becomes.
    #[command(flatten)]
    pub image: ImageArgs,
}

/// Which volume is exported, and into what.
#[derive(Debug, Clone, Args)]
pub struct VolumeExportArgs {
    /// The volume
    pub volume: String,
    /// Its snapshots become snapshots of the image; what they have in common is in it once
    #[arg(long)]
    pub with_snapshots: bool,
    /// What it becomes.
    #[command(flatten)]
    pub image: ImageArgs,
}

/// An image that is to be made.
#[derive(Debug, Clone, Args)]
pub struct ImageArgs {
    /// The image to be made, or - for standard output
    // Takes the place of the common option of that name, which says what is printed.
    #[arg(
        id = "output",
        short = 'o',
        long = "output",
        value_name = "FILE",
        required = true
    )]
    target: Vec<String>,
    /// What the image shall be
    #[arg(
        short = 'O',
        long = "to",
        value_enum,
        value_name = "FORMAT",
        default_value = "qcow2"
    )]
    pub format: FormatName,
    /// Compress by zlib or zstd, with a level as in zstd,3
    #[arg(short, long, value_name = "ALGORITHM[,LEVEL]", help_heading = IMAGE)]
    pub compress: Option<Compression>,
    /// 512 to 2M; 64K if one snapshot is exported as a whole, and the store's chunk size
    /// otherwise
    #[arg(long, value_name = "SIZE", help_heading = IMAGE)]
    pub cluster_size: Option<ByteSize>,
    /// Read so many bytes in a second at most
    #[arg(long, value_name = "SIZE")]
    pub rate: Option<ByteSize>,
    /// Threads that read and compress; as many as there are processors without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// Replace a file that exists; write over a device that seems to hold something
    #[arg(long)]
    pub force: bool,
}

/// What an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// QEMU's copy-on-write format, version 3
    Qcow2,
    /// Bytes as they are
    Raw,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Qcow2 => Self::Qcow2,
            FormatName::Raw => Self::Raw,
        }
    }
}

impl ImageArgs {
    /// Whether it goes to standard output.
    #[must_use]
    pub fn is_piped(&self) -> bool {
        self.target() == Path::new("-")
    }

    /// Where the image goes.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        // The option it takes the place of is cut where there are commas.
        self.target.join(",").into()
    }
}
