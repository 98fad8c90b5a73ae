//! Options of `csnapctl volume create` that format the origin first.

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use imagegen::erofs::compress::algorithm::Algorithm;
use imagegen::tree::Spec;
use imagegen::xfs::geometry::Kernel;

const HEADING: &str = "Formatting";

/// Whether and how an origin is formatted.
#[derive(Debug, Clone, Args)]
pub struct FormatArgs {
    /// Make a file system on the origin first: XFS as large as the origin is, or EROFS,
    /// which is read-only and as large as what is in it
    ///
    /// Everything that can be refused is refused before a byte is written.
    #[arg(long = "format", value_enum, value_name = "KIND", help_heading = HEADING)]
    pub kind: Option<FormatArg>,
    /// Fill it with this tree: a directory, a tar file, `-` for a tar stream on standard
    /// input, oci:DIR or oci:DIR:TAG for an image of an OCI layout
    ///
    /// Owners, modes, times, extended attributes, hard links and holes are kept. Run it
    /// as root, or what this user may not read is refused.
    #[arg(long, value_name = "TREE", requires = "kind", help_heading = HEADING,
          value_parser = OsStringValueParser::new().map(Spec::from))]
    pub from: Option<Spec>,
    /// The file system's label: at most 12 bytes for XFS, 16 for EROFS
    #[arg(long, value_name = "TEXT", requires = "kind", help_heading = HEADING)]
    pub label: Option<String>,
    /// Format an origin that seems to hold data: that is lost
    ///
    /// A block device is refused without it if something is recognised on it, a file if
    /// a byte of it is not zero. An origin in use is refused all the same.
    #[arg(long, requires = "kind", help_heading = HEADING)]
    pub force: bool,
    /// The oldest kernel that is to mount it, for XFS
    ///
    /// Without it: the newest of these that is not newer than the kernel that runs here.
    #[arg(
        long = "for",
        value_enum,
        value_name = "KERNEL",
        requires = "kind",
        help_heading = HEADING
    )]
    pub kernel: Option<KernelArg>,
    /// Keep blocks with the same contents once
    #[arg(long, requires = "kind", help_heading = HEADING)]
    pub dedupe: bool,
    /// Compress files by lz4, lz4hc, lzma, deflate or zstd, with a level as in zstd,3: EROFS
    /// only
    #[arg(long, value_name = "ALGORITHM[,LEVEL]", requires = "kind", help_heading = HEADING)]
    pub compress: Option<Algorithm>,
}

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// XFS, version 5
    Xfs,
    /// EROFS, which nobody can write to; wants --from
    Erofs,
}

/// A kernel that mounts what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KernelArg {
    /// Linux 6.1 and later
    #[value(name = "linux-6.1")]
    Linux6_1,
    /// Linux 6.12 and later
    #[value(name = "linux-6.12")]
    Linux6_12,
    /// Linux 7.2 and later
    #[value(name = "linux-7.2")]
    Linux7_2,
}

impl From<KernelArg> for Kernel {
    fn from(kernel: KernelArg) -> Self {
        match kernel {
            KernelArg::Linux6_1 => Self::Linux6_1,
            KernelArg::Linux6_12 => Self::Linux6_12,
            KernelArg::Linux7_2 => Self::Linux7_2,
        }
    }
}
