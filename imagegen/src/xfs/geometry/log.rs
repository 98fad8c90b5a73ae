//! The log: how small it may be, how large it is made, and where it lies
//! (`calculate_log_size` of `mkfs/xfs_mkfs.c`, `xfs_log_rlimit.c`).

use super::options::{LogSize, OptionError, Options};
use super::transactions::{OPERATION, Space, largest};
use super::{CHUNK_INODES, Geometry};

/// Fewest blocks (`XFS_MIN_LOG_BLOCKS`).
const MIN_BLOCKS: u64 = 512;
/// Most blocks (`XFS_MAX_LOG_BLOCKS`).
const MAX_BLOCKS: u64 = 1 << 20;
/// Fewest bytes by default from 1 GiB on (`XFS_MIN_LOG_BYTES`).
const MIN_BYTES: u64 = 10 << 20;
/// Most bytes (`XFS_MAX_LOG_BYTES`).
const MAX_BYTES: u64 = (2 << 30) - MIN_BYTES;
/// Bytes below which it only gets small with small file systems
/// (`XFS_MIN_REALISTIC_LOG_BLOCKS`).
const USUAL_BYTES: u64 = 64 << 20;
/// Bytes of file systems that get the smallest log.
const TINY_BYTES: u64 = 300 << 20;
/// The file system is so many times the log.
const RATIO: u64 = 2048;
/// So many of the largest transactions fit (`XFS_MIN_LOG_FACTOR`).
const FACTOR: u64 = 3;
/// Largest record of the log, with its headers (`XLOG_MAX_RECORD_BSIZE`).
const RECORD: u64 = 256 << 10;
const RECORD_HEADER: u64 = RECORD / (32 << 10) * 512;
/// Header of a transaction (`struct xfs_trans_header`).
const TRANSACTION: u64 = 16;

/// Decides size and place of the log. Everything else of `geometry` is decided.
pub(super) fn place(geometry: &mut Geometry, options: &Options) -> Result<(), OptionError> {
    let log = Log::new(geometry, options);
    let group = log.group()?;
    let most = log.most(group);
    let blocks = log.size(most)?;
    let (start, blocks) = log.align(group, blocks, most)?;
    log.check(blocks)?;
    geometry.log_start = start;
    geometry.log_blocks = blocks as u32;
    Ok(())
}

/// Fewest blocks of a log that the kernel accepts (`xfs_log_calc_minimum_size`).
pub(super) fn minimum(geometry: &Geometry) -> u64 {
    let unit = u64::from(geometry.log_unit);
    let Space { bytes, steps } = largest(geometry);
    let sectors = (in_records(bytes, unit) * steps).div_ceil(512);
    let sectors = match unit > 1 {
        true => sectors.next_multiple_of(unit / 512) + 2 * (unit / 512),
        false => sectors + 2 * 512,
    };
    (sectors * FACTOR).div_ceil(1 << (geometry.block_log - 9))
}

/// Bytes of log that `bytes` of a transaction take with all headers around them, at
/// worst (`xfs_log_calc_unit_res`).
fn in_records(bytes: u64, unit: u64) -> u64 {
    let space = RECORD - RECORD_HEADER;
    let mut bytes = bytes + OPERATION + TRANSACTION + OPERATION;
    let mut records = bytes.div_ceil(space);
    bytes += OPERATION * records;
    while bytes.div_ceil(space) > records {
        bytes += OPERATION;
        records += 1;
    }
    bytes + RECORD_HEADER * (records + 1) + 2 * if unit > 1 { unit } else { 512 }
}

struct Log<'a> {
    geometry: &'a Geometry,
    options: &'a Options,
    /// Fewest blocks.
    least: u64,
}

impl<'a> Log<'a> {
    fn new(geometry: &'a Geometry, options: &'a Options) -> Self {
        let mut least = minimum(geometry).max(MIN_BLOCKS);
        let given = matches!(options.log_size, LogSize::Bytes(_) | LogSize::Smallest);
        if !given && geometry.blocks >= (1 << 30 >> geometry.block_log) {
            least = least.max(MIN_BYTES >> geometry.block_log);
        }
        Self {
            geometry,
            options,
            least,
        }
    }

    fn bytes(&self, blocks: u64) -> String {
        format!("{} KiB", (blocks << self.geometry.block_log) >> 10)
    }

    /// The group it goes to: the middle one, unless that is the last and too short.
    fn group(&self) -> Result<u32, OptionError> {
        let groups = self.geometry.ag_count;
        match self.options.log_group {
            Some(group) if group >= groups => Err(OptionError::new(
                "--log-group",
                group,
                format!("there are {groups} groups, from 0"),
                "name one of them",
            )),
            Some(group) => Ok(group),
            None if self.most(groups / 2) < self.least => Ok(0),
            None => Ok(groups / 2),
        }
    }

    /// Most blocks in a group: what nothing else has for ever
    /// (`xfs_alloc_ag_max_usable`), and in the first the root directory's chunk has to
    /// fit (`adjust_ag0_internal_logblocks`).
    fn most(&self, group: u32) -> u64 {
        let geometry = self.geometry;
        let taken = geometry.root_blocks() + 4 + 1;
        let chunk = (CHUNK_INODES << geometry.inode_log) >> geometry.block_log;
        let spare = match group {
            0 => (4 * chunk).max(2 * geometry.stripe_unit),
            _ => 0,
        };
        u64::from(geometry.group_blocks(group).saturating_sub(taken + spare))
    }

    fn size(&self, most: u64) -> Result<u64, OptionError> {
        if most < self.least {
            return Err(OptionError::new(
                "--size",
                self.options.size,
                format!(
                    "a log of {} does not fit a group beside its own blocks",
                    self.bytes(self.least)
                ),
                "make it larger, with fewer groups, or with smaller blocks",
            ));
        }
        let blocks = match self.options.log_size {
            LogSize::Bytes(bytes) => bytes >> self.geometry.block_log,
            LogSize::Smallest => self.least,
            LogSize::Default => self.usual().max(self.least).min(most).min(self.limit()),
            LogSize::Concurrency(threads) => self
                .usual()
                .max(self.concurrent(threads))
                .max(self.least)
                .min(most)
                .min(self.limit()),
        };
        match blocks > most {
            true => Err(self.refuse(blocks, "at most", most)),
            false => Ok(blocks),
        }
    }

    fn refuse(&self, blocks: u64, bound: &str, limit: u64) -> OptionError {
        OptionError::new(
            "--log-size",
            self.bytes(blocks),
            format!("must be {bound} {}", self.bytes(limit)),
            "choose another, or none for the usual size",
        )
    }

    fn limit(&self) -> u64 {
        MAX_BLOCKS.min(MAX_BYTES >> self.geometry.block_log)
    }

    fn usual(&self) -> u64 {
        let log = self.geometry.block_log;
        match self.geometry.blocks < TINY_BYTES >> log {
            true => self.least,
            false => (self.geometry.blocks / RATIO).max(USUAL_BYTES >> log),
        }
    }

    /// Blocks for so many threads at once (`calc_concurrency_logblocks`).
    fn concurrent(&self, threads: u32) -> u64 {
        let log = self.geometry.block_log;
        if self.geometry.blocks < (1 << 30 >> log) {
            return 0;
        }
        let Space { bytes, steps } = largest(self.geometry);
        let all = (bytes * steps).saturating_mul(3 * u64::from(threads)) / 2;
        all.min(MAX_BYTES) >> log
    }

    /// Start and size as multiples of a stripe unit (`align_internal_log`).
    fn align(&self, group: u32, blocks: u64, most: u64) -> Result<(u64, u64), OptionError> {
        let geometry = self.geometry;
        let start = geometry.fsblock(group, geometry.root_blocks());
        let unit = match geometry.log_unit > 1 {
            true => u64::from(geometry.log_unit) >> geometry.block_log,
            false => u64::from(geometry.stripe_unit),
        };
        if unit == 0 {
            return Ok((start, blocks));
        }
        let start = start.next_multiple_of(unit);
        let mut blocks = match blocks % unit {
            0 => blocks,
            _ if matches!(self.options.log_size, LogSize::Bytes(_)) => {
                return Err(OptionError::new(
                    "--log-size",
                    self.bytes(blocks),
                    format!("is not a multiple of the stripe unit {}", self.bytes(unit)),
                    "choose one that is",
                ));
            }
            _ if blocks.next_multiple_of(unit) > most.min(self.limit()) => blocks - blocks % unit,
            _ => blocks.next_multiple_of(unit),
        };
        if !geometry.holds(start, blocks) && blocks > unit {
            blocks -= unit;
        }
        match geometry.holds(start, blocks) {
            true => Ok((start, blocks)),
            false => Err(OptionError::new(
                "--log-size",
                self.bytes(blocks),
                "does not fit its group once aligned to the stripe unit".to_owned(),
                "choose a smaller log, larger groups or a smaller stripe unit",
            )),
        }
    }

    fn check(&self, blocks: u64) -> Result<(), OptionError> {
        if blocks < self.least {
            return Err(self.refuse(blocks, "at least", self.least));
        }
        match blocks > self.limit() {
            true => Err(self.refuse(blocks, "at most", self.limit())),
            false => Ok(()),
        }
    }
}
