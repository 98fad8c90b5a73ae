//! How large an image has to be: found by writing the tree to nowhere, with the same code
//! that will write it, at sizes that close in on the one that is wanted. Only a size that
//! was tried is ever returned.

use super::geometry::{Geometry, LogSize, OptionError, Options, Used};
use super::make::{MakeError, Request, Size, detail, write_options};
use super::write::{Made, WriteError, write};
use crate::medium::Nowhere;
use crate::tree::{Detail, Source, Survey};
use uuid::Uuid;

/// Smallest file system that is chosen, in bytes: 16 MiB, and a second group so that
/// `xfs_repair` finds a second superblock to believe.
const LEAST: u64 = (16 << 20) + (256 << 10);
/// Largest size that is tried.
const MOST: u64 = 1 << 60;
/// Beyond this it is not for lack of room that options cannot be met.
const MOST_FOR_OPTIONS: u64 = 1 << 46;
/// The least percentage of space for inodes that mkfs.xfs sets (`calc_default_imaxpct`).
const USUAL_INODES: u64 = 1;
/// How often a size with so much free is corrected.
const ROUNDS: u32 = 12;

/// Looks for a size.
pub(super) struct Sizing<'a> {
    pub(super) source: &'a dyn Source,
    pub(super) request: &'a Request,
    pub(super) survey: &'a Survey,
    pub(super) uuid: Uuid,
}

impl Sizing<'_> {
    /// The options for a file system of `size` bytes.
    pub(super) fn options(&self, size: u64) -> Options {
        let mut options = Options {
            size,
            uuid: self.uuid,
            ..self.request.options.clone()
        };
        if self.request.size == Size::Minimal && options.log_size == LogSize::Default {
            options.log_size = LogSize::Smallest;
        }
        // Room for as many inodes again, where the usual percentage is too little.
        let percent = 2 * self.inodes_percent(size, options.inode_size);
        if options.imax_percent.is_none() && percent > USUAL_INODES {
            options.imax_percent = Some(percent.min(100) as u8);
        }
        options
    }

    /// Percent of `size` bytes that the tree's inodes take, with the free ones asked for.
    fn inodes_percent(&self, size: u64, inode_size: u32) -> u64 {
        let inodes = self.survey.objects.saturating_add(self.request.free_inodes);
        let bytes = inodes.saturating_mul(inode_size.into());
        (u128::from(bytes) * 100)
            .div_ceil(u128::from(size.max(1)))
            .min(100) as u64
    }

    /// Whether the tree's inodes keep to the percentage that was asked for: the kernel would
    /// make no more where they do not.
    pub(super) fn check_inodes(&self, geometry: &Geometry) -> Result<(), OptionError> {
        let Some(given @ 1..) = self.request.options.imax_percent else {
            return Ok(());
        };
        let size = geometry.blocks << geometry.block_log;
        let needed = self.inodes_percent(size, 1 << geometry.inode_log);
        if needed <= given.into() {
            return Ok(());
        }
        Err(OptionError::new(
            "--imaxpct",
            given,
            format!("the inodes asked for take {needed} percent of the file system"),
            "choose more, 0 for no limit, or a larger size",
        ))
    }

    /// About how many blocks the tree takes.
    pub(super) fn expected(&self, geometry: &Geometry) -> u64 {
        let inodes = self.survey.objects << geometry.inode_log;
        // An entry has its name, some 16 bytes around it, and 8 in a leaf.
        let entries = self.survey.names + 32 * self.survey.entries;
        let directories = entries + self.survey.directories * 512;
        let small = u64::from(geometry.block_log > 12) * self.survey.objects;
        geometry.blocks_of(self.survey.rounded)
            + geometry.blocks_of(inodes)
            + geometry.blocks_of(directories)
            + small
    }

    /// What an image of `size` bytes would be, if the tree fits.
    fn attempt(&self, size: u64) -> Result<Option<(Geometry, Made)>, MakeError> {
        let geometry = self.options(size).geometry()?;
        let events = &mut self.source.walk(detail(self.request, Detail::Layout))?;
        let options = write_options(self.request, &geometry);
        match write(&geometry, events, &Nowhere, &options) {
            Ok(made) => Ok(Some((geometry, made))),
            Err(WriteError::Full { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A size that is large enough, with what it would hold. Grows also where options, as a
    /// large log or many groups, want more than was guessed.
    fn enough(&self, guess: u64) -> Result<Tried, MakeError> {
        let mut size = guess.max(LEAST).next_multiple_of(1 << 20);
        let mut refused = None;
        while size <= MOST {
            match self.attempt(size) {
                Ok(Some((geometry, made))) => {
                    return Ok(Tried {
                        size,
                        geometry,
                        made,
                    });
                }
                Ok(None) => refused = None,
                Err(MakeError::Option(error)) if size < MOST_FOR_OPTIONS => {
                    refused.get_or_insert(error);
                }
                Err(MakeError::Option(error)) => return Err(refused.unwrap_or(error).into()),
                Err(error) => return Err(error),
            }
            size = (size + size / 2).next_multiple_of(1 << 20);
        }
        Err(MakeError::NoSize { tried: MOST })
    }

    /// Somewhat more than the tree takes.
    fn guess(&self) -> u64 {
        let expected = self.survey.rounded + 2048 * self.survey.objects + 2 * self.survey.names;
        expected + expected / 8 + (96 << 20)
    }

    /// The smallest size that holds the tree, to one percent.
    pub(super) fn minimal(&self) -> Result<u64, MakeError> {
        let mut high = self.enough(self.guess())?.size;
        let mut low = LEAST;
        if self.attempt_or_too_small(low)? {
            return Ok(low);
        }
        while high - low > (1 << 20).max(high / 128) {
            let middle = (low + (high - low) / 2).next_multiple_of(1 << 16);
            if self.attempt_or_too_small(middle)? {
                high = middle;
            } else {
                low = middle;
            }
        }
        Ok(high)
    }

    /// Whether the tree fits; not if options, as a log of that size, need more. A larger
    /// size is known to do.
    fn attempt_or_too_small(&self, size: u64) -> Result<bool, MakeError> {
        match self.attempt(size) {
            Ok(made) => Ok(made.is_some()),
            Err(MakeError::Option(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The size that leaves `bytes` and `percent` of itself free.
    pub(super) fn with_free(&self, bytes: u64, percent: u64) -> Result<u64, MakeError> {
        // What is used, with what is free beside it.
        let whole = |used: u64| (used.saturating_add(bytes) / (100 - percent)).saturating_mul(100);
        let mut guess = whole(self.guess());
        let mut best: Option<Tried> = None;
        // Each round is off by what trees and log grow with the size.
        for _ in 0..ROUNDS {
            let tried = self.enough(guess)?;
            let free = free_for_users(&tried.geometry, &tried.made) << tried.geometry.block_log;
            let wanted = bytes + tried.size / 100 * percent;
            let slack = (4 << 20).max(tried.size / 256);
            let used = tried.size.saturating_sub(free);
            let near = free >= wanted && (free - wanted <= slack || tried.size == LEAST);
            if free >= wanted && best.as_ref().is_none_or(|best| tried.size < best.size) {
                best = Some(tried);
            }
            if near {
                break;
            }
            guess = whole(used + slack / 2);
        }
        best.map(|best| best.size)
            .ok_or(MakeError::NoSize { tried: guess })
    }
}

/// A size at which the tree fits.
struct Tried {
    size: u64,
    geometry: Geometry,
    made: Made,
}

/// Free blocks less what the kernel sets aside at a mount.
fn free_for_users(geometry: &Geometry, made: &Made) -> u64 {
    let reserved: u64 = (0..geometry.ag_count)
        .map(|ag| {
            u64::from(geometry.reserve(
                ag,
                Used {
                    reverse: 1,
                    refcounts: 1,
                    free_inodes: 1,
                },
            ))
        })
        .sum();
    // What root alone may use (`xfs_default_resblks`).
    let pool = (geometry.blocks / 20).min(8192);
    made.free_blocks
        .saturating_sub(reserved + geometry.set_aside() + pool)
}
