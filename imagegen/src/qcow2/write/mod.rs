//! Writing QCOW2 from any disk: contents first, in the disk's order, their tables between
//! them as they fill, then level 1 and refcounts, and the header last of all.
//!
//! - `options`: what an image shall be
//! - `views`: what is to be read, of the disk and of its snapshots
//! - `pipeline`: threads that read, compress and write
//! - `piece`: what clusters become
//! - `image`: clusters get their places
//! - `space`: room, and refcounts
//! - `tables`: both levels
//! - `bitmaps`, `snapshots`: their tables
//! - `header`: the first cluster
//! - `stream`: an image into a pipe
//! - `room`: how long an image will be
//! - `raw`: the same threads, for plain bytes
//!
//! The same disk and options give the same bytes, whatever the number of threads. Memory:
//! tables of level 1, of level 2 one for each view, the refcount table, refcount blocks for
//! what one table of level 2 maps, the bitmaps, and some pieces of up to [`PIECE`] bytes for
//! each thread.

mod bitmaps;
mod codec;
mod header;
mod image;
mod options;
mod piece;
mod pipeline;
mod raw;
mod room;
mod snapshots;
mod space;
mod stream;
mod tables;
mod views;

pub use bitmaps::Bits;
pub use options::{BadCompression, Compression, Options};
pub use raw::{stream_raw, write_raw};
pub use room::needed;
pub use snapshots::Version;
pub use stream::stream;

use super::format::SECTOR;
use super::read::{Disk, ReadError};
use crate::medium::{Medium, Source};
use crate::tree::Progress;
use image::Writer;
use pipeline::Crew;
use std::io;
use views::Views;

/// Bytes that one thread reads at a time, or a cluster if that is larger.
pub const PIECE: u64 = 1 << 20;

/// Bytes of a disk as an image of it says them: QEMU counts sectors of 512 bytes and sees no
/// part of one, so zeroes follow a disk that ends within.
#[must_use]
pub const fn whole_sectors(size: u64) -> u64 {
    size.div_ceil(SECTOR).saturating_mul(SECTOR)
}

/// Why an image cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Options that cannot be.
    #[error("{0}")]
    Option(&'static str),
    /// The disk cannot be read.
    #[error(transparent)]
    Read(ReadError),
    /// The image cannot be written.
    #[error(transparent)]
    Write(#[from] io::Error),
    /// zstd refuses its settings.
    #[error("zstd: {0}")]
    Zstd(&'static str),
}

/// What goes into an image.
#[derive(Debug)]
pub struct Contents<'a, S> {
    /// The disk as it is.
    pub disk: &'a Disk<S>,
    /// What it was, the oldest first: internal snapshots. Of the same layers as the disk, or
    /// of the same lowest ones and some over them, so that what lies in the same place is
    /// written once.
    pub versions: &'a [Version<S>],
    /// What the backing file holds: where the disk holds the same, nothing is written. None:
    /// what is in no layer of the disk shows the backing file, if there is one: only whole
    /// clusters may be in none.
    pub below: Option<&'a Disk<S>>,
    /// Bitmaps of the disk.
    pub bitmaps: &'a [Bits],
}

impl<'a, S> Contents<'a, S> {
    /// A disk and nothing else.
    #[must_use]
    pub const fn of(disk: &'a Disk<S>) -> Self {
        Self {
            disk,
            versions: &[],
            below: None,
            bitmaps: &[],
        }
    }

    /// How often a cluster may be used: by the disk, by each snapshot, and once more while
    /// one of those is applied.
    const fn most_uses(&self) -> u64 {
        match self.versions.len() as u64 {
            0 => 1,
            versions => versions + 2,
        }
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the image.
    pub length: u64,
    /// Clusters with contents.
    pub data_clusters: u64,
    /// Those of them that are compressed.
    pub compressed_clusters: u64,
}

/// Where an image goes.
#[derive(Clone, Copy)]
pub struct Targets<'a> {
    /// The image, from its byte 0 on.
    pub image: &'a dyn Medium,
    /// The external data file, if [`Options::data_file`] says that there is one: the disk
    /// as it is, byte for byte, up to [`whole_sectors`], of which what is zeroes is zeroed.
    pub data: Option<&'a dyn Medium>,
}

impl<'a> Targets<'a> {
    /// The image alone.
    #[must_use]
    pub const fn alone(image: &'a dyn Medium) -> Self {
        Self { image, data: None }
    }
}

/// Writes an image. `progress` is told how many bytes of the disk and of each snapshot were
/// dealt with.
///
/// # Errors
/// If the options contradict each other, the disk cannot be read, or the image not written.
pub fn write<S: Source + Send + Sync>(
    contents: &Contents<'_, S>,
    targets: Targets<'_>,
    options: &Options,
    progress: &Progress,
) -> Result<Written, WriteError> {
    options.verify(contents)?;
    let crew = Crew {
        views: Views::new(contents, options),
        medium: targets.data.unwrap_or(targets.image),
        options,
        progress,
    };
    let mut writer = Writer::new(contents, targets, options)?;
    let mut stretches = crew.views.stretches(progress);
    crew.run(&mut stretches, &mut |placed| writer.place(placed))?;
    writer.finish(contents)
}
