//! From what a person asks for to a [`Geometry`], as mkfs.xfs 7.2 decides it for a
//! regular file without realtime device and with its log inside.
//!
//! Everything is decided here and nowhere else. The same options give the same geometry,
//! on every machine. Where mkfs.xfs refuses (below 300 MiB) we follow what it does with
//! `--unsupported`; what we do otherwise is said in `groups`.

use super::groups::{self, Layout};
use super::{CHUNK_INODES, Features, Geometry, log};
use uuid::Uuid;

/// What can be asked for. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Of the whole file system; what makes no block at the end is not used.
    pub size: u64,
    /// 512 to 32768, a power of two, not more than a block.
    pub sector_size: u32,
    /// 1024 to 65536, a power of two. Kernels before 6.12 mount at most a page.
    pub block_size: u32,
    /// 512 to 2048, a power of two, at most half a block.
    pub inode_size: u32,
    /// A block to 65536, a power of two; a block, but at least 4096, if not given.
    pub dir_block_size: Option<u32>,
    /// How it is divided.
    pub groups: Groups,
    /// How disks below are striped.
    pub stripe: Option<Stripe>,
    /// Of the log.
    pub log_size: LogSize,
    /// Group that the log goes to; the middle one if not given.
    pub log_group: Option<u32>,
    /// Stripe unit of the log; the stripe's if not given.
    pub log_unit: Option<u32>,
    /// Percent of space that inodes may take, 0 for all; by size if not given.
    pub imax_percent: Option<u8>,
    /// At most 12 bytes, none NUL.
    pub label: Vec<u8>,
    /// Identity.
    pub uuid: Uuid,
    /// What is switched on.
    pub features: Features,
}

impl Options {
    /// The defaults for a file system of `size` bytes.
    pub fn new(size: u64, uuid: Uuid) -> Self {
        Self {
            size,
            sector_size: 512,
            block_size: 4096,
            inode_size: 512,
            dir_block_size: None,
            groups: Groups::Default,
            stripe: None,
            log_size: LogSize::Default,
            log_group: None,
            log_unit: None,
            imax_percent: None,
            label: Vec::new(),
            uuid,
            features: Features::default(),
        }
    }
}

/// How a file system is divided into groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Groups {
    /// By its size.
    Default,
    /// So many.
    Count(u32),
    /// So many bytes each, but the last.
    Size(u64),
    /// So that so many threads find one each, if that leaves them 4 GiB.
    Concurrency(u32),
}

/// How large the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogSize {
    /// By the size of the file system.
    Default,
    /// So many bytes.
    Bytes(u64),
    /// The smallest the kernel mounts.
    Smallest,
    /// So that so many threads need not wait for each other, from 1 GiB on.
    Concurrency(u32),
}

/// Striping of the disks below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stripe {
    /// Bytes on one disk in a row.
    pub unit: u32,
    /// Disks with data.
    pub disks: u32,
}

/// An option that cannot be as it is given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} {value}: {problem}; {remedy}")]
pub struct OptionError {
    /// Its name on the command line.
    pub option: &'static str,
    /// What was given.
    pub value: String,
    /// What is wrong with it, with the bound.
    pub problem: String,
    /// What to do.
    pub remedy: &'static str,
}

impl OptionError {
    pub(crate) fn new(
        option: &'static str,
        value: impl ToString,
        problem: String,
        remedy: &'static str,
    ) -> Self {
        Self {
            option,
            value: value.to_string(),
            problem,
            remedy,
        }
    }
}

/// Largest stripe unit of the log (`XLOG_MAX_RECORD_BSIZE`).
const MAX_LOG_UNIT: u32 = 256 << 10;
/// The log's unit beside a stripe unit larger than that.
const LARGE_LOG_UNIT: u32 = 32 << 10;
/// What mkfs.xfs starts from to align inode chunks (`XFS_INODE_BIG_CLUSTER_SIZE`).
const CLUSTER: u32 = 8192;
/// The smallest inodes there ever were (`XFS_DINODE_MIN_SIZE`).
const OLDEST_INODE: u32 = 256;

impl Options {
    /// The geometry that these options give.
    ///
    /// # Errors
    /// Names the first option that cannot be as it is.
    pub fn geometry(&self) -> Result<Geometry, OptionError> {
        let block_log = power("--block-size", self.block_size, 1024, 65536)?;
        let sector_log = power(
            "--sector-size",
            self.sector_size,
            512,
            self.block_size.min(32768),
        )?;
        let inode_log = power(
            "--inode-size",
            self.inode_size,
            512,
            (self.block_size / 2).min(2048),
        )?;
        let dir_block_size = self.dir_block_size.unwrap_or(self.block_size.max(4096));
        let dir_log = power("--dir-block-size", dir_block_size, self.block_size, 65536)?;
        self.check_features()?;
        let (stripe_unit, stripe_width) = self.stripe()?;
        let (inode_align, sparse_align) = self.inode_alignment();
        let layout = self.divide(block_log, stripe_unit, stripe_width)?;
        let mut geometry = Geometry {
            features: self.features,
            uuid: self.uuid,
            label: self.label()?,
            sector_log,
            block_log,
            inode_log,
            dir_block_log: dir_log - block_log,
            blocks: layout.blocks,
            ag_count: layout.ag_count as u32,
            ag_blocks: layout.ag_blocks as u32,
            log_start: 0,
            log_blocks: 0,
            log_unit: self.log_unit(stripe_unit)?,
            stripe_unit,
            stripe_width,
            imax_percent: self.imax_percent(layout.blocks << block_log)?,
            inode_align,
            sparse_align,
        };
        log::place(&mut geometry, self)?;
        Ok(geometry)
    }

    fn divide(&self, log: u8, unit: u32, width: u32) -> Result<Layout, OptionError> {
        groups::divide(self, log, self.size >> log, unit.into(), width.into())
    }

    fn check_features(&self) -> Result<(), OptionError> {
        if self.features.inobtcount && !self.features.finobt {
            return Err(OptionError::new(
                "--feature",
                "inobtcount=on",
                "needs finobt".to_owned(),
                "switch finobt on or inobtcount off",
            ));
        }
        Ok(())
    }

    fn label(&self) -> Result<[u8; 12], OptionError> {
        let mut label = [0; 12];
        match label.get_mut(..self.label.len()) {
            Some(place) if !self.label.contains(&0) => place.copy_from_slice(&self.label),
            _ => {
                return Err(OptionError::new(
                    "--label",
                    self.label.escape_ascii(),
                    "must be at most 12 bytes, none of them NUL".to_owned(),
                    "choose a shorter one",
                ));
            }
        }
        Ok(label)
    }

    /// Unit and width in blocks (`calc_stripe_factors`).
    fn stripe(&self) -> Result<(u32, u32), OptionError> {
        let Some(Stripe { unit, disks }) = self.stripe else {
            return Ok((0, 0));
        };
        let refuse = |option, value, problem| {
            Err(OptionError::new(
                option,
                value,
                problem,
                "choose one that is",
            ))
        };
        if unit == 0 || unit % self.block_size != 0 {
            let problem = format!("must be a multiple of the block size {}", self.block_size);
            return refuse("--stripe-unit", unit, problem);
        }
        let width = u64::from(unit) * u64::from(disks);
        let most = (i32::MAX as u64) << 9;
        if disks == 0 || width > most {
            let problem = format!("times the stripe unit must be 1 to {most} bytes");
            return refuse("--stripe-disks", disks, problem);
        }
        let width = (width / u64::from(self.block_size)) as u32;
        Ok((unit / self.block_size, width))
    }

    /// Stripe unit of the log in bytes, 1 for none.
    fn log_unit(&self, stripe_unit: u32) -> Result<u32, OptionError> {
        let unit = match self.log_unit {
            Some(unit) if unit == 0 || unit % self.block_size != 0 || unit > MAX_LOG_UNIT => {
                return Err(OptionError::new(
                    "--log-unit",
                    unit,
                    format!(
                        "must be a multiple of the block size {}, at most {MAX_LOG_UNIT}",
                        self.block_size
                    ),
                    "choose one that is",
                ));
            }
            Some(unit) => unit,
            None if self.sector_size > 512 && stripe_unit == 0 => self.block_size,
            None => match u64::from(stripe_unit) * u64::from(self.block_size) {
                bytes if bytes > MAX_LOG_UNIT.into() => {
                    LARGE_LOG_UNIT / self.block_size * self.block_size
                }
                bytes => bytes as u32,
            },
        };
        Ok(unit.max(1))
    }

    fn imax_percent(&self, bytes: u64) -> Result<u8, OptionError> {
        match self.imax_percent {
            Some(percent) if percent > 100 => Err(OptionError::new(
                "--imaxpct",
                percent,
                "must be at most 100".to_owned(),
                "choose a percentage",
            )),
            Some(percent) => Ok(percent),
            None if bytes < 1 << 40 => Ok(25),
            None if bytes < 50 << 40 => Ok(5),
            None => Ok(1),
        }
    }

    /// Alignment of inode chunks and of sparse ones, in blocks (`sb_set_features`).
    fn inode_alignment(&self) -> (u32, u32) {
        let cluster = CLUSTER * (self.inode_size / OLDEST_INODE) / self.block_size;
        match self.features.sparse {
            true => (CHUNK_INODES * self.inode_size / self.block_size, cluster),
            false => (cluster, 0),
        }
    }
}

/// log2 of an option's value, which must be a power of two from `least` to `most`.
fn power(option: &'static str, value: u32, least: u32, most: u32) -> Result<u8, OptionError> {
    match value.is_power_of_two() && (least..=most).contains(&value) {
        true => Ok(value.trailing_zeros() as u8),
        false => {
            let (problem, advice) = match least == most {
                true => (format!("only {least} is possible"), "choose that one"),
                false => (
                    format!("must be a power of two from {least} to {most}"),
                    "choose one of these",
                ),
            };
            Err(OptionError::new(option, value, problem, advice))
        }
    }
}
