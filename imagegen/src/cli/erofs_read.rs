//! Arguments of what reads an EROFS image.

use clap::{Args, Subcommand};
use imagegen::erofs::format::directory::IN_METABOX;
use std::ffi::OsString;
use std::path::PathBuf;

/// What to do with an image.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// What a directory holds
    Ls(Ls),
    /// A file's contents, on standard output
    Cat(Cat),
    /// A tree out of the image into a directory
    Extract(Extract),
    /// The superblock, or an inode and where its contents lie
    Dump(Dump),
    /// Whether every structure is sound and agrees with every other
    Check(Check),
}

/// The image and the devices of its table.
#[derive(Debug, Args)]
pub(crate) struct Image {
    /// The image or device
    pub(crate) image: PathBuf,
    /// A device of the image's table, in its order; may be given several times
    #[arg(long = "device", value_name = "FILE")]
    pub(crate) devices: Vec<PathBuf>,
}

/// Lists a directory by the names in it, or one object.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    pub(crate) from: Image,
    /// Where in the image; its root if not given
    pub(crate) path: Option<OsString>,
    /// With kind and mode, links, owner, size or device number, and time (UTC)
    #[arg(short, long)]
    pub(crate) long: bool,
    /// With all that is below, by its path
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// One JSON object a line, with all that is known of each
    #[arg(long, conflicts_with = "long")]
    pub(crate) json: bool,
}

/// Writes a regular file's contents, or a symbolic link's target, to standard output.
#[derive(Debug, Args)]
pub(crate) struct Cat {
    #[command(flatten)]
    pub(crate) from: Image,
    /// Which file
    pub(crate) path: OsString,
}

/// Makes what the image holds again: contents with their holes, owners, modes, times,
/// attributes, hard links, special files. Nothing is written outside the directory, whatever
/// the image says. What this user may not restore is said.
#[derive(Debug, Args)]
pub(crate) struct Extract {
    #[command(flatten)]
    pub(crate) from: Image,
    /// The directory to extract into; made if it is not there
    pub(crate) target: PathBuf,
    /// What to extract; all of it if not given
    pub(crate) path: Option<OsString>,
    /// Into a directory that holds something; files in the way are replaced
    #[arg(short, long)]
    pub(crate) force: bool,
    /// No progress bar and no summary
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The summary as one JSON object on standard output
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) json: bool,
}

/// Shows the superblock, or an inode with its attributes, the blocks of a directory, and
/// where its contents lie and how they are kept.
#[derive(Debug, Args)]
pub(crate) struct Dump {
    #[command(flatten)]
    pub(crate) from: Image,
    /// Which inode, by its path; the superblock if neither path nor number is given
    pub(crate) path: Option<OsString>,
    /// Which inode, by its number, one in the metabox with an `m` before it
    #[arg(long, conflicts_with = "path", value_parser = nid)]
    pub(crate) nid: Option<u64>,
    /// JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// The number of an inode.
fn nid(text: &str) -> Result<u64, String> {
    let (digits, bit) = match text.strip_prefix('m') {
        Some(digits) => (digits, IN_METABOX),
        None => (text, 0),
    };
    match digits.parse::<u64>() {
        Ok(number) if number & IN_METABOX == 0 || bit == 0 => Ok(number | bit),
        _ => Err(format!(
            "{text:?} is no inode; write a number, or m and a number"
        )),
    }
}

/// Reads every structure and compares it with every other: superblock, directories, links,
/// attributes, who uses which bytes; decodes everything that is compressed. Nothing is
/// written. What is wrong is listed with its path, and the exit code is 6.
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) from: Image,
    /// One JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// Say nothing, only set the exit code
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
}
