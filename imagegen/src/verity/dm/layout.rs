//! What can be chosen of an area, and where its blocks lie then.

use crate::verity::Algorithm;
use std::io;
use uuid::Uuid;

/// Longest salt, in bytes.
pub const SALT_MAX: usize = 256;
/// Smallest and largest block, in bytes (`VERITY_BLOCK_SIZE_OK` of cryptsetup).
const BLOCK_MIN: u32 = 512;
const BLOCK_MAX: u32 = 512 << 10;

/// What can be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The hash function.
    pub algorithm: Algorithm,
    /// Bytes of a data block: a power of two from 512 to 512 KiB. Linux maps none larger
    /// than a page.
    pub data_block: u32,
    /// Bytes of a block of hashes: the same.
    pub hash_block: u32,
    /// At most [`SALT_MAX`] bytes; derived from the image if not given.
    pub salt: Option<Vec<u8>>,
    /// Derived from the root hash if not given.
    pub uuid: Option<Uuid>,
}

impl Default for Options {
    /// As `veritysetup` has it.
    fn default() -> Self {
        Self {
            algorithm: Algorithm::Sha256,
            data_block: 4096,
            hash_block: 4096,
            salt: None,
            uuid: None,
        }
    }
}

/// Why there can be no hash area.
#[derive(Debug, thiserror::Error)]
pub enum DmError {
    /// A block of a size that cannot be.
    #[error("dm-verity: {what} blocks of {size} bytes; choose a power of two from 512 to 524288")]
    Block {
        /// Which.
        what: &'static str,
        /// Bytes asked for.
        size: u32,
    },
    /// The salt does not fit.
    #[error("dm-verity: a salt of {0} bytes; at most {SALT_MAX} fit")]
    Salt(usize),
    /// Nothing to hash.
    #[error("dm-verity: an image of no bytes has no root hash")]
    Empty,
    /// Positions beyond what 64 bits count.
    #[error("dm-verity: an image of {0} bytes is too large for a hash area")]
    TooLarge(u64),
    /// The image cannot be read, or the area not written.
    #[error("dm-verity: {0}")]
    Io(#[from] io::Error),
}

/// Where the blocks of an area lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub(super) data_blocks: u64,
    data_block: u32,
    hash_block: u32,
    /// First block of each level, 0 being that over the data, counted from the area's first.
    pub(super) levels: Vec<u64>,
    /// Blocks of the area, that of the superblock included.
    pub(super) blocks: u64,
}

impl Layout {
    /// Of the area over `length` bytes.
    ///
    /// # Errors
    /// If the options cannot be as they are, or `length` cannot.
    pub fn new(length: u64, options: &Options) -> Result<Self, DmError> {
        for (what, size) in [("data", options.data_block), ("hash", options.hash_block)] {
            if !size.is_power_of_two() || !(BLOCK_MIN..=BLOCK_MAX).contains(&size) {
                return Err(DmError::Block { what, size });
            }
        }
        let salt = options.salt.as_ref().map_or(0, Vec::len);
        if salt > SALT_MAX {
            return Err(DmError::Salt(salt));
        }
        if length == 0 {
            return Err(DmError::Empty);
        }
        let data_blocks = length.div_ceil(options.data_block.into());
        let hashes = u64::from(options.hash_block) / options.algorithm.size() as u64;
        let mut counts = Vec::new();
        let mut below = data_blocks;
        while below > 1 {
            below = below.div_ceil(hashes);
            counts.push(below);
        }
        let mut at = 1; // the superblock has the first block
        let mut levels = vec![0; counts.len()];
        for (level, count) in levels.iter_mut().zip(&counts).rev() {
            *level = at;
            at += count;
        }
        let layout = Self {
            data_blocks,
            data_block: options.data_block,
            hash_block: options.hash_block,
            levels,
            blocks: at,
        };
        match layout.end() {
            Some(_) => Ok(layout),
            None => Err(DmError::TooLarge(length)),
        }
    }

    /// Where the area would end behind the image, if that can be counted.
    fn end(&self) -> Option<u64> {
        let data = self.data_blocks.checked_mul(self.data_block.into())?;
        let at = data.checked_next_multiple_of(self.hash_block.into())?;
        at.checked_add(self.blocks.checked_mul(self.hash_block.into())?)
    }

    /// Bytes of the image in whole data blocks.
    pub fn data_length(&self) -> u64 {
        self.data_blocks * u64::from(self.data_block)
    }

    /// Where the area begins if it lies behind the image, in bytes.
    pub fn behind(&self) -> u64 {
        self.data_length().next_multiple_of(self.hash_block.into())
    }

    /// Bytes of the area.
    pub fn length(&self) -> u64 {
        self.blocks * u64::from(self.hash_block)
    }
}
