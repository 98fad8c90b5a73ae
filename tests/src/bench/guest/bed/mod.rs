//! The targets, each ready to be measured.
//!
//! A bed is made over fresh media, used for every case of one round, and taken
//! away again: nothing of it is left for the next.
//!
//! - [`raw`]: the device itself
//! - [`dm_snapshot`], [`dm_thin`]: the kernel's
//! - [`bare`]: our own loop without an engine
//! - [`mod@csnap`]: the daemon itself, csnapd

pub mod bare;
pub mod csnap;
pub mod dm_snapshot;
pub mod dm_thin;
pub mod raw;

use std::path::{Path, PathBuf};

use snapstore::Checksum;

use super::media::{self, Media};
use super::plan::{Kind, Setting};
use crate::e2e::Outcome;

/// A target.
pub trait Bed {
    /// The device that is written and read.
    fn device(&self) -> &Path;

    /// Brings it into the state after the newest snapshot was just taken: every
    /// chunk is shared. Without snapshots nothing happens.
    ///
    /// # Errors
    /// If a snapshot cannot be removed or taken.
    fn fresh(&mut self) -> Outcome;

    /// Removes the snapshot [`Bed::fresh`] took, so that [`Bed::take`] has room.
    ///
    /// # Errors
    /// If it cannot be removed.
    fn stale(&mut self) -> Outcome;

    /// Takes one more snapshot; the device may be under load.
    ///
    /// # Errors
    /// If it is refused.
    fn take(&mut self) -> Outcome;

    /// A device that shows the newest snapshot; `None` where there is no such thing.
    ///
    /// # Errors
    /// If it cannot be shown.
    fn newest(&mut self) -> Outcome<Option<PathBuf>>;

    /// Takes it away.
    ///
    /// # Errors
    /// If it does not end well.
    fn end(self: Box<Self>) -> Outcome;
}

/// Makes the bed of a setting; `checksum` covers what csnap copies.
///
/// # Errors
/// If something cannot be made or started.
pub fn make(setting: Setting, media: &Media, checksum: Checksum) -> Outcome<Box<dyn Bed>> {
    Ok(match setting.kind {
        Kind::Raw => Box::new(raw::Raw::new(media)),
        Kind::Bare => Box::new(bare::Bare::start(media, None)?),
        Kind::BareCopy => Box::new(bare::Bare::start(media, Some(setting.chunk))?),
        Kind::DmSnapshot => Box::new(dm_snapshot::Snapshots::make(media, setting)?),
        Kind::DmThin => Box::new(dm_thin::Thin::make(media, setting)?),
        Kind::Csnap => Box::new(csnap::Served::start(media, setting, checksum)?),
    })
}

/// Overwrites one chunk in fifty, so that a snapshot differs from the one before.
fn differ(device: &Path, media: &Media, chunk: u64, seed: u32) -> Outcome {
    let count = media.used / chunk / 50;
    media::scatter(device, media.used, chunk, count, seed.into())
}
