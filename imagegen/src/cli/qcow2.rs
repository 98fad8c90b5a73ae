//! Arguments of `imagegen qcow2`.

use super::Failure;
use super::inputs::Run;
use super::values;
use clap::{Args, Subcommand, ValueEnum};
use imagegen::qcow2::format::RefcountWidth;
use imagegen::qcow2::open;
use imagegen::qcow2::write::{Compression, Options};
use std::path::PathBuf;

/// What to do with an image.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// What an image is: sizes, features, backing file, snapshots, bitmaps
    Info(Info),
    /// Whether every structure is sound and every refcount right
    Check(Check),
    /// Which bytes of the disk are data, and where they lie
    Map(Map),
    /// Whether two images hold the same disk
    Compare(Compare),
    /// A disk out of one image into another
    Convert(Box<Convert>),
}

/// How an image is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatName {
    /// Bytes as they are
    Raw,
    /// QCOW2
    Qcow2,
}

impl From<FormatName> for open::Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Raw => Self::Raw,
            FormatName::Qcow2 => Self::Qcow2,
        }
    }
}

/// Shows the header and what it leads to. The backing file is named, not opened.
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// The image
    pub(crate) image: PathBuf,
    /// One JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Finds all that uses a cluster, the disk as it is and every snapshot and bitmap, and
/// compares it with the refcounts. Nothing is written; contents are not read, and backing
/// files not opened. What is wrong is listed, and the exit code is 6.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The image
    pub(crate) image: PathBuf,
    /// One JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// Say nothing, only set the exit code
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

/// Lists the disk from its first byte to its last, through all backing files: data, zeroes
/// that are written down, and what no file of the chain holds, which reads as zeroes.
#[derive(Debug, Args)]
pub(crate) struct Map {
    #[command(flatten)]
    pub(crate) from: From_,
    /// A JSON list, as `qemu-img map --output=json` writes it
    #[arg(long)]
    pub(crate) json: bool,
}

/// An image, as it is or as a snapshot of it was.
#[derive(Debug, Args)]
pub(crate) struct From_ {
    /// The image
    pub(crate) image: PathBuf,
    /// How it is to be read. Without: a device is raw, a file QCOW2 if it looks so, and then
    /// it may lead to no other file
    #[arg(short, long, value_enum)]
    pub(crate) format: Option<FormatName>,
    /// The snapshot of the image that is meant, by its name or id
    #[arg(short = 'l', long)]
    pub(crate) snapshot: Option<String>,
}

/// Compares what users of the two disks see. Where one is longer, the rest of it must be
/// zeroes. The exit code is 0 if they are the same, 1 if not, and another if that cannot be
/// told: 2, or 6 if one is damaged.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// One image
    pub(crate) one: PathBuf,
    /// Another
    pub(crate) two: PathBuf,
    /// How the first is to be read. Without: a device is raw, a file QCOW2 if it looks so, and
    /// then it may lead to no other file
    #[arg(short = 'f', long, value_enum)]
    pub(crate) format_one: Option<FormatName>,
    /// How the second is to be read, as -f
    #[arg(short = 'F', long, value_enum)]
    pub(crate) format_two: Option<FormatName>,
    /// Different sizes are a difference
    #[arg(short, long)]
    pub(crate) strict: bool,
    /// Say it as JSON
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) json: bool,
    /// No progress bar, and nothing said
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Writes what users of a disk see, through all backing files, into an image of its own.
/// Zeroes take no room in it. A file appears under its name when it is whole; a device gets
/// the disk from its first byte on; - is standard output, for which a QCOW2 image is made
/// twice, because its first bytes say where its last ones lie.
#[derive(Debug, Args)]
pub(crate) struct Convert {
    #[command(flatten)]
    pub(crate) from: From_,
    /// The image to be made, or - for standard output
    pub(crate) target: PathBuf,
    /// What it shall be [default: qcow2 of what is raw, raw of what is QCOW2]
    #[arg(short = 'O', long = "to", value_enum)]
    pub(crate) to: Option<FormatName>,
    #[command(flatten)]
    pub(crate) parts: Parts,
    #[command(flatten)]
    pub(crate) shape: Shape,
    #[command(flatten)]
    pub(crate) run: Run,
}

/// What else goes into an image or lies beside it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Beside the disk (QCOW2)")]
pub(crate) struct Parts {
    /// Write only what differs from this image, which becomes the backing file; its name
    /// stands in the image as given, and counts from where the image lies
    #[arg(short, long, value_name = "IMAGE", requires = "backing_format")]
    pub(crate) backing: Option<String>,
    /// How the backing file is to be read
    #[arg(short = 'F', long, value_enum, requires = "backing")]
    pub(crate) backing_format: Option<FormatName>,
    /// Take the image's own snapshots along; what several have is written once
    #[arg(long, conflicts_with_all = ["backing", "data_file", "snapshot"])]
    pub(crate) snapshots: bool,
    /// Take the image's bitmaps along
    #[arg(long, conflicts_with = "snapshot")]
    pub(crate) bitmaps: bool,
    /// The disk goes into this file as it is; the image has its absolute path (data_file,
    /// data_file_raw)
    #[arg(long, value_name = "FILE", conflicts_with = "compress")]
    pub(crate) data_file: Option<PathBuf>,
}

impl Parts {
    /// The first that was asked for.
    fn asked(&self) -> Option<&'static str> {
        first_of([
            (self.backing.is_some(), "--backing"),
            (self.snapshots, "--snapshots"),
            (self.bitmaps, "--bitmaps"),
            (self.data_file.is_some(), "--data-file"),
        ])
    }
}

/// What a QCOW2 image shall be.
#[derive(Debug, Args)]
#[command(next_help_heading = "QCOW2 (of qemu-img: -o NAME=VALUE)")]
pub(crate) struct Shape {
    /// Compress clusters: zlib or zstd, with a level if given: of zlib 0 to 9 (9 otherwise,
    /// which takes as long as QEMU's 6), of zstd 1 to 22 (3 otherwise)
    #[arg(short, long, value_name = "ALGORITHM[,LEVEL]")]
    pub(crate) compress: Option<Compression>,
    /// 512 to 2m (cluster_size) [default: 64k]
    #[arg(long, value_name = "SIZE", value_parser = values::small_size)]
    pub(crate) cluster_size: Option<u32>,
    /// 1, 2, 4, 8, 16, 32 or 64 (refcount_bits) [default: 16]
    #[arg(long, value_name = "BITS")]
    pub(crate) refcount_bits: Option<u32>,
    /// 2 for programs from before 2013 (compat=0.10) [default: 3]
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Option<u32>,
    /// Entries for 32 parts of a cluster each (extended_l2)
    #[arg(long)]
    pub(crate) extended_l2: bool,
}

impl Shape {
    /// The first that was asked for.
    fn asked(&self) -> Option<&'static str> {
        first_of([
            (self.compress.is_some(), "--compress"),
            (self.cluster_size.is_some(), "--cluster-size"),
            (self.refcount_bits.is_some(), "--refcount-bits"),
            (self.version.is_some(), "--version"),
            (self.extended_l2, "--extended-l2"),
        ])
    }

    /// For the library.
    pub(crate) fn options(&self, threads: usize) -> Result<Options, Failure> {
        let usual = Options::default();
        let cluster = self.cluster_size.unwrap_or(1 << usual.cluster_bits);
        if !cluster.is_power_of_two() {
            return Err(Failure::usage("--cluster-size: write a power of two"));
        }
        let bits = self.refcount_bits.unwrap_or(usual.refcounts.bits());
        let order = bits.is_power_of_two().then(|| bits.trailing_zeros());
        let refcounts = order.and_then(RefcountWidth::from_order);
        Ok(Options {
            version: self.version.unwrap_or(usual.version),
            cluster_bits: cluster.trailing_zeros(),
            refcounts: refcounts
                .ok_or_else(|| Failure::usage("--refcount-bits: write 1, 2, 4, 8, 16, 32 or 64"))?,
            extended: self.extended_l2,
            compression: self.compress,
            threads,
            ..usual
        })
    }
}

impl Convert {
    /// The first thing asked for that only QCOW2 has.
    pub(crate) fn only_qcow2(&self) -> Option<&'static str> {
        self.parts.asked().or_else(|| self.shape.asked())
    }
}

fn first_of<const N: usize>(asked: [(bool, &'static str); N]) -> Option<&'static str> {
    asked.into_iter().find_map(|(is, name)| is.then_some(name))
}
