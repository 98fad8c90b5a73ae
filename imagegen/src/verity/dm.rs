//! The hash area of dm-verity (`struct verity_sb` of cryptsetup, Documentation/
//! admin-guide/device-mapper/verity.rst of Linux): a superblock, then the blocks of the
//! tree, its top level first. Hash type 1: the salt comes before a block, and a block's
//! unused end is zero.
//!
//! What is hashed is a whole number of data blocks; [`Layout::data_length`] says how long
//! the image must be made with zeroes for that. The area lies behind it, or elsewhere.

use super::hash::{Algorithm, Hash, Salted, hex};
use super::leaves::Leaves;
use super::levels::Levels;
use crate::medium::Medium;
use crate::on_disk::{on_disk, size};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io;
use uuid::Uuid;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

/// Longest salt, in bytes.
pub const SALT_MAX: usize = 256;
/// Smallest and largest block, in bytes (`VERITY_BLOCK_SIZE_OK` of cryptsetup).
const BLOCK_MIN: u32 = 512;
const BLOCK_MAX: u32 = 512 << 10;

on_disk! {
    /// The superblock.
    pub struct Superblock {
        /// `verity` and two zero bytes.
        pub signature: [u8; 8],
        /// 1.
        pub version: U32,
        /// 1: salt first, hashes padded to a power of two.
        pub hash_type: U32,
        /// Identity of the area.
        pub uuid: [u8; 16],
        /// Name of the hash function, filled up with zeroes.
        pub algorithm: [u8; 32],
        /// Bytes of a data block.
        pub data_block: U32,
        /// Bytes of a block of hashes.
        pub hash_block: U32,
        /// Data blocks.
        pub data_blocks: U64,
        /// Bytes of the salt.
        pub salt_size: U16,
        /// Zero.
        pub reserved: [u8; 6],
        /// The salt, filled up with zeroes.
        pub salt: [u8; SALT_MAX],
        /// Zero.
        pub reserved2: [u8; 168],
    }
}
size!(Superblock, 512);

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
    data_blocks: u64,
    data_block: u32,
    hash_block: u32,
    /// First block of each level, 0 being that over the data, counted from the area's first.
    levels: Vec<u64>,
    /// Blocks of the area, that of the superblock included.
    blocks: u64,
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

/// What was hashed, and what came of it. Shown as `veritysetup format` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    /// Identity of the area.
    pub uuid: Uuid,
    /// Data blocks.
    pub data_blocks: u64,
    /// Bytes of one.
    pub data_block: u32,
    /// Blocks of hashes, that of the superblock not included.
    pub hash_blocks: u64,
    /// Bytes of one.
    pub hash_block: u32,
    /// What comes before every block.
    pub salt: Vec<u8>,
    /// What a kernel must be given to trust the image.
    pub root: Hash,
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "UUID:            \t{}", self.uuid)?;
        writeln!(f, "Hash type:       \t1")?;
        writeln!(f, "Data blocks:     \t{}", self.data_blocks)?;
        writeln!(f, "Data block size: \t{}", self.data_block)?;
        writeln!(f, "Hash blocks:     \t{}", self.hash_blocks)?;
        writeln!(f, "Hash block size: \t{}", self.hash_block)?;
        let algorithm = self.root.algorithm().name();
        writeln!(f, "Hash algorithm:  \t{algorithm}")?;
        write!(f, "Salt:            \t")?;
        match self.salt.is_empty() {
            true => write!(f, "-")?,
            false => hex(&self.salt, f)?,
        }
        write!(f, "\nRoot hash:      \t{}", self.root)
    }
}

/// Hashes the first `length` bytes of `image` and writes the area to `area` at `at`, a
/// multiple of a hash block. 0 threads are as many as there are processors.
///
/// # Errors
/// If the options cannot be as they are, the image cannot be read or the area not written.
pub fn write(
    image: &dyn Medium,
    length: u64,
    area: &dyn Medium,
    at: u64,
    options: &Options,
    threads: usize,
) -> Result<Area, DmError> {
    let layout = Layout::new(length, options)?;
    let salt = match &options.salt {
        Some(salt) => salt.clone(),
        None => derived_salt(image, length, options.algorithm)?,
    };
    let function = Salted::new(options.algorithm, &salt);
    let block = u64::from(options.hash_block);
    let mut keep = |level: usize, number: u64, bytes: &[u8]| {
        let first = layout.levels.get(level).copied().unwrap_or_default();
        area.write(at + (first + number) * block, bytes)
    };
    let mut levels = Levels::new(function.clone(), options.hash_block as usize);
    let leaves = Leaves {
        medium: image,
        length,
        block: options.data_block as usize,
        function: &function,
    };
    leaves.each(threads, |leaf| levels.push(leaf, &mut keep))?;
    let root = levels.finish(&mut keep)?;
    let made = Area {
        uuid: options.uuid.unwrap_or_else(|| derived_uuid(&root)),
        data_blocks: layout.data_blocks,
        data_block: options.data_block,
        hash_blocks: layout.blocks - 1,
        hash_block: options.hash_block,
        salt,
        root,
    };
    let mut first = superblock(&made).as_bytes().to_vec();
    first.resize(options.hash_block as usize, 0);
    area.write(at, &first)?;
    Ok(made)
}

fn superblock(area: &Area) -> Superblock {
    fn filled<const N: usize>(bytes: &[u8]) -> [u8; N] {
        std::array::from_fn(|at| bytes.get(at).copied().unwrap_or_default())
    }
    Superblock {
        signature: *b"verity\0\0",
        version: 1.into(),
        hash_type: 1.into(),
        uuid: *area.uuid.as_bytes(),
        algorithm: filled(area.root.algorithm().name().as_bytes()),
        data_block: area.data_block.into(),
        hash_block: area.hash_block.into(),
        data_blocks: area.data_blocks.into(),
        salt_size: U16::new(area.salt.len() as u16),
        salt: filled(&area.salt),
        ..Superblock::default()
    }
}

/// Of the image's beginning, where file systems keep their identity: as long as a hash, the
/// same for the same image, and not the one of another.
fn derived_salt(image: &dyn Medium, length: u64, algorithm: Algorithm) -> io::Result<Vec<u8>> {
    let mut first = vec![0; length.min(4096) as usize];
    image.read(0, &mut first)?;
    let salt = Salted::new(algorithm, b"salt of dm-verity").hash(&first);
    Ok(salt.bytes().to_vec())
}

fn derived_uuid(root: &Hash) -> Uuid {
    let digest = Sha256::new_with_prefix(b"identity of dm-verity")
        .chain_update(root.bytes())
        .finalize();
    let bytes = std::array::from_fn(|at| digest.get(at).copied().unwrap_or_default());
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
