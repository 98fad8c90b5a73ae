//! The hash area of dm-verity (`struct verity_sb` of cryptsetup, Documentation/
//! admin-guide/device-mapper/verity.rst of Linux): a superblock, then the blocks of the
//! tree, its top level first. Hash type 1: the salt comes before a block, and a block's
//! unused end is zero.
//!
//! What is hashed is a whole number of data blocks; [`Layout::data_length`] says how long
//! the image must be made with zeroes for that. The area lies behind it, or elsewhere.

mod layout;

pub use layout::{DmError, Layout, Options, SALT_MAX};

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
