//! Writing: from a tree of files to the bytes of an image.
//!
//! Data flows one way. A quick walk tells the `outline`: what directories take, how often
//! objects are linked. Then a [walk](crate::tree) yields objects in order; `contents` gives
//! each file its blocks out of `space` and sends its bytes through an `outlet` to threads
//! that write them, the `builder` gives each inode a place in `slots`, which lie between
//! the data and leave as soon as they are full, or in the `metabox`, where they are compressed.
//! The `head` that makes all of it a file system is written last.
//!
//! Nothing is as large as the image or the tree: what grows with the tree are the sizes of
//! its directories, and digests of attributes and of shared contents.

mod builder;
mod chunks;
mod clusters;
mod contents;
mod directory;
mod error;
mod fault;
mod fragments;
mod head;
mod inode;
mod metabox;
mod options;
mod outlet;
mod outline;
mod slots;
mod space;
mod xattrs;

pub use builder::Counts;
pub use error::WriteError;
pub(crate) use options::identity;
pub use options::{DataIn, InodeForm, Metadata, OptionError, Options};
pub(crate) use outline::Outline;

use super::compress::choice::Compression;
use super::compress::config::Configurations;
use super::compress::{self, Ahead, Choice, Plan, Pool, Selection, Shared, SurveyError};
use crate::medium::{Crew, Medium};
use crate::tree::{Event, TreeError};
use builder::{Begin, Builder, Crews};
use fault::Fault;
use head::{Head, Totals};
use inode::Clock;
use uuid::Uuid;
use xattrs::Prefixes;

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Objects and bytes.
    pub counts: Counts,
    /// Bytes of the image.
    pub bytes: u64,
    /// Bytes of the device with its data, if that is another.
    pub device_bytes: u64,
}

/// Where an image goes.
#[derive(Clone, Copy)]
pub struct Media<'a> {
    /// The image itself.
    pub image: &'a dyn Medium,
    /// The second file, with [`DataIn::Blob`].
    pub blob: Option<&'a dyn Medium>,
}

/// Writes an image that holds what `events` yield, a tree of which `outline` is known.
///
/// Until the very end the medium is no file system; what an error leaves is none.
///
/// # Errors
/// If the tree cannot be read, has changed or holds what EROFS cannot, or if writing fails.
pub(crate) fn write(
    options: &Options,
    uuid: Uuid,
    outline: &Outline,
    shared: Option<Shared>,
    events: &mut dyn Iterator<Item = Result<Event, TreeError>>,
    media: Media<'_>,
) -> Result<Made, WriteError> {
    options.check()?;
    if matches!(options.data, DataIn::Blob { .. }) != media.blob.is_some() {
        let reason = "needs a file for the data";
        return Err(OptionError::new("--blob", "", reason).into());
    }
    let prefixes = Prefixes::new(&options.xattr_prefixes)?;
    let configurations = configurations(options);
    let devices = usize::from(options.data != DataIn::Image);
    let head = Head::new(options, devices, &prefixes, &configurations);
    let selection = selection(options)?;
    let begin = Begin {
        options,
        outline,
        uuid,
        clock: clock(options, outline),
        prefixes: &prefixes,
    };
    let (counts, mut bytes, totals) = std::thread::scope(|scope| {
        let image = Crew::start(scope, media.image, options.threads);
        let blob = media.blob;
        let blob = blob.map(|blob| Crew::start(scope, blob, options.threads));
        let crews = Crews {
            image: &image,
            blob: blob.as_ref(),
        };
        let compresses = options.compression.is_some() || options.metadata.is_some();
        let pool = Pool::start(scope, compresses.then_some(options.threads));
        let mut ahead = Ahead::new(events, &pool, selection, shared);
        let built = build(begin, head.end, &mut ahead, crews);
        // What a thread met goes first: the builder may have seen no more than that it ended.
        pool.finish();
        image.finish()?;
        blob.map_or(Ok(()), Crew::finish)?;
        built
    })?;
    if let Some(blob) = media.blob {
        blob.barrier().map_err(WriteError::Write)?;
    }
    media.image.barrier().map_err(WriteError::Write)?;
    head.write(&mut bytes, &totals);
    media.image.write(0, &bytes).map_err(WriteError::Write)?;
    let blob_blocks = totals
        .devices
        .iter()
        .map(|device| device.blocks)
        .sum::<u64>();
    Ok(Made {
        counts,
        bytes: totals.blocks << options.block_bits(),
        device_bytes: blob_blocks << options.block_bits(),
    })
}

fn build(
    begin: Begin<'_>,
    head: usize,
    ahead: &mut Ahead<'_, '_>,
    crews: Crews<'_, '_>,
) -> Result<(Counts, Vec<u8>, Totals), WriteError> {
    let mut builder = Builder::new(begin, head, crews)?;
    while let Some(item) = ahead.next() {
        let (event, packing) = item?;
        builder.event(event, packing, ahead)?;
    }
    builder.finish(ahead)
}

/// Whether a walk before the one that writes has to find what files share.
pub(crate) fn needs_survey(options: &Options) -> bool {
    options.dedupe && options.compression.is_some()
}

/// What the files that `events` yield share, for [`write()`].
///
/// # Errors
/// If the tree cannot be read.
pub(crate) fn survey(
    options: &Options,
    events: &mut dyn Iterator<Item = Result<Event, TreeError>>,
) -> Result<Shared, WriteError> {
    let selection = selection(options)?;
    std::thread::scope(|scope| {
        let pool = Pool::start(scope, Some(options.threads));
        let found = compress::survey(events, selection, &pool);
        pool.finish();
        found.map_err(|error| match error {
            SurveyError::Tree(error) => error.into(),
            SurveyError::Read(error) => Fault::from(error).at(b""),
        })
    })
}

/// Which files are compressed.
fn selection(options: &Options) -> Result<Selection, WriteError> {
    let compression = options.compression.as_ref();
    let choice = compression.map(Choice::new).transpose();
    let choice =
        choice.map_err(|error| OptionError::new("--compress-rule", error.pattern, error.cause))?;
    let plan = Plan::new(compression, options.block_size as usize, options.dedupe);
    Ok(Selection::new(choice, plan))
}

/// What the superblock says of the algorithms that files may have.
fn configurations(options: &Options) -> Configurations {
    let (data, metadata) = (options.compression.as_ref(), options.metadata);
    let mut algorithms = data.map(Compression::algorithms).unwrap_or_default();
    algorithms.extend(metadata.map(|metadata| metadata.algorithm));
    let cluster = data.map_or(0, Compression::largest_cluster);
    let cluster = cluster.max(metadata.map_or(0, |metadata| metadata.cluster));
    Configurations::new(&algorithms, cluster, options.block_size)
}

/// What short inodes say of times: with seconds of their own they count from the first
/// time of the tree, else they all have the one that comes most often.
fn clock(options: &Options, outline: &Outline) -> Clock {
    let first = outline.times.map_or(0, |(first, _)| first);
    Clock {
        epoch: if options.has_bit48() {
            first
        } else {
            outline.usual.seconds
        },
        nanoseconds: outline.usual.nanoseconds,
        counts: options.has_bit48(),
    }
}
