//! How many groups, and how large (`calc_default_ag_geometry` of `libxfs/topology.c`,
//! `align_ag_geometry` and `validate_ag_geometry` of `mkfs/xfs_mkfs.c`).
//!
//! One thing is ours: file systems below 32 MiB get a second, short group where they can.
//! Kernels want 16 MiB of the first only, and `xfs_repair` wants a second superblock.

use super::options::{Groups, OptionError, Options};

/// Fewest bytes of a group, but for the last (`XFS_MIN_AG_BYTES`).
const MIN_BYTES: u64 = 16 << 20;
/// A group has to be smaller (`XFS_MAX_AG_BYTES`).
const MAX_BYTES: u64 = 1 << 40;
/// Fewest blocks of the last group (`XFS_MIN_AG_BLOCKS`).
const MIN_BLOCKS: u64 = 64;
/// Groups beside a stripe or in small file systems: at most 2 to the power of this.
const STRIPED_LOG: u32 = 5;
/// Below so many bytes a group, concurrency makes no more of them.
const CONCURRENT_BYTES: u64 = 4 << 30;

/// What is decided here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Blocks of the file system; fewer than given if the last few make no group.
    pub(super) blocks: u64,
    /// Blocks of a group.
    pub(super) ag_blocks: u64,
    /// Groups.
    pub(super) ag_count: u64,
}

/// Divides `blocks` blocks of `1 << log` bytes into groups; `unit` and `width` are the
/// stripe's in blocks, 0 for none.
pub(super) fn divide(
    options: &Options,
    log: u8,
    blocks: u64,
    unit: u64,
    width: u64,
) -> Result<Layout, OptionError> {
    let division = Division {
        options,
        log,
        blocks,
        unit,
        width,
    };
    if blocks < division.least() {
        return Err(OptionError::new(
            "--size",
            options.size,
            format!("must be at least {MIN_BYTES}"),
            "make it larger",
        ));
    }
    match division.tiny() {
        Some(layout) => Ok(layout),
        None => division.check(division.drop_rest(division.align(division.first()?))),
    }
}

struct Division<'a> {
    options: &'a Options,
    log: u8,
    blocks: u64,
    unit: u64,
    width: u64,
}

impl Division<'_> {
    fn least(&self) -> u64 {
        MIN_BYTES >> self.log
    }

    fn most(&self) -> u64 {
        (MAX_BYTES - 1) >> self.log
    }

    fn groups_of(&self, ag_blocks: u64) -> Layout {
        Layout {
            blocks: self.blocks,
            ag_blocks,
            ag_count: self.blocks.div_ceil(ag_blocks),
        }
    }

    fn tiny(&self) -> Option<Layout> {
        let usual = self.options.groups == Groups::Default && self.unit == 0;
        let small = self.blocks < 2 * self.least();
        let rest = self.blocks - self.least();
        (usual && small && rest >= MIN_BLOCKS).then(|| self.groups_of(self.least()))
    }

    fn first(&self) -> Result<Layout, OptionError> {
        let size = 1 << self.log;
        match self.options.groups {
            Groups::Default => Ok(self.groups_of(self.usual())),
            Groups::Concurrency(threads) => Ok(self.groups_of(self.concurrent(threads.into()))),
            Groups::Count(0) => Err(OptionError::new(
                "--agcount",
                0,
                "must be at least 1".to_owned(),
                "choose more, or none for the usual number",
            )),
            Groups::Count(count) => Ok(Layout {
                blocks: self.blocks,
                ag_blocks: self.blocks.div_ceil(count.into()),
                ag_count: count.into(),
            }),
            Groups::Size(bytes) if bytes == 0 || bytes % size != 0 => Err(OptionError::new(
                "--agsize",
                bytes,
                format!("is not a multiple of the block size {size}"),
                "choose one that is",
            )),
            Groups::Size(bytes) => Ok(self.groups_of(bytes / size)),
        }
    }

    fn usual(&self) -> u64 {
        let bytes = |n: u64| n >> self.log;
        let shift = match self.unit {
            _ if self.blocks >= bytes(32 << 40) => return self.most(),
            0 if self.blocks >= bytes(4 << 40) => return self.most(),
            0 if self.blocks >= bytes(128 << 20) => 2,
            _ => {
                let smaller = [
                    self.blocks <= bytes(512 << 30),
                    self.blocks <= bytes(8 << 30),
                    self.blocks < bytes(128 << 20),
                    self.blocks < bytes(64 << 20),
                    self.blocks < bytes(32 << 20),
                ];
                STRIPED_LOG - smaller.iter().filter(|is| **is).count() as u32
            }
        };
        self.blocks.div_ceil(1 << shift).min(self.most())
    }

    /// As many groups as threads, if they do not get small by that
    /// (`calc_concurrency_ag_geometry`).
    fn concurrent(&self, threads: u64) -> u64 {
        let usual = self.usual();
        let usual_count = self.blocks.div_ceil(usual);
        let small = CONCURRENT_BYTES >> self.log;
        if threads == 0 || threads < usual_count {
            return usual;
        }
        if self.blocks / threads < small {
            let count = self.blocks / small;
            return match count <= usual_count {
                true => usual,
                false => self.blocks / count,
            };
        }
        let mut count = threads;
        while self.blocks / count > self.most() && self.blocks / count > usual {
            count += threads;
        }
        self.blocks / count
    }

    /// Groups begin at a stripe unit, and not all at the same disk of a stripe.
    fn align(&self, first: Layout) -> Layout {
        if self.unit == 0 {
            return first;
        }
        let mut layout = first;
        if !layout.ag_blocks.is_multiple_of(self.unit) {
            let up = layout.ag_blocks.next_multiple_of(self.unit);
            layout.ag_blocks = match up > self.most() {
                true => layout.ag_blocks - layout.ag_blocks % self.unit,
                false => up,
            };
            if !matches!(self.options.groups, Groups::Count(_)) {
                layout = self.groups_of(layout.ag_blocks);
            }
        }
        let given = matches!(self.options.groups, Groups::Count(_) | Groups::Size(_));
        let same_disk = layout.ag_blocks.is_multiple_of(self.width) && self.width != self.unit;
        if same_disk && layout.ag_count > 1 && !given {
            let less = layout.ag_blocks - self.unit;
            return self.groups_of(match less < self.least() {
                true => layout.ag_blocks + self.unit,
                false => less,
            });
        }
        layout
    }

    /// Blocks at the end too few for a group are not used.
    fn drop_rest(&self, layout: Layout) -> Layout {
        let rest = layout.blocks % layout.ag_blocks;
        let count_given = matches!(self.options.groups, Groups::Count(_));
        if rest == 0 || rest >= self.least() || count_given || layout.ag_count < 2 {
            return layout;
        }
        Layout {
            blocks: layout.blocks - rest,
            ag_count: layout.ag_count - 1,
            ..layout
        }
    }

    fn check(&self, layout: Layout) -> Result<Layout, OptionError> {
        let (option, value) = match self.options.groups {
            Groups::Default => ("--size", self.options.size),
            Groups::Count(count) => ("--agcount", count.into()),
            Groups::Size(bytes) => ("--agsize", bytes),
            Groups::Concurrency(threads) => ("--concurrency", threads.into()),
        };
        let bytes = layout.ag_blocks << self.log;
        let last = (layout.blocks % layout.ag_blocks) << self.log;
        let wrong = if layout.ag_blocks > layout.blocks {
            format!("groups of {bytes} bytes are larger than the file system")
        } else if layout.ag_blocks < self.least() {
            format!("groups would have {bytes} bytes, less than {MIN_BYTES}")
        } else if layout.ag_blocks > self.most() {
            format!("groups would have {bytes} bytes, not less than {MAX_BYTES}")
        } else if last != 0 && last >> self.log < self.least() {
            format!("the last group would have {last} bytes, less than {MIN_BYTES}")
        } else if layout.ag_count != layout.blocks.div_ceil(layout.ag_blocks) {
            let count = layout.blocks.div_ceil(layout.ag_blocks);
            format!("groups of {bytes} bytes, as the stripe wants them, are {count}")
        } else if layout.ag_count >= u32::MAX.into() {
            format!("there would be {} groups", layout.ag_count)
        } else {
            return Ok(layout);
        };
        Err(OptionError::new(
            option,
            value,
            wrong,
            "choose groups of 16 MiB to 1 TiB, or none for the usual ones",
        ))
    }
}
