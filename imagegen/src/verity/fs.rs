//! The digest by which fs-verity knows a file (Documentation/filesystems/fsverity.rst of
//! Linux, "Merkle tree" and "fs-verity descriptor"): the hash of a descriptor that holds
//! the file's size and the root of a tree over its blocks of 4096 bytes. Without salt.

use super::hash::{Algorithm, Hash, Salted};
use super::leaves::Leaves;
use super::levels::Levels;
use crate::medium::Medium;
use crate::on_disk::{on_disk, size};
use std::convert::Infallible;
use std::io::{self, Read, Write};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

/// Bytes of a block, of the file and of the tree.
const BLOCK: usize = 4096;

on_disk! {
    /// `struct fsverity_descriptor`.
    pub struct Descriptor {
        /// 1.
        pub version: u8,
        /// 1 for SHA-256, 2 for SHA-512.
        pub algorithm: u8,
        /// Logarithm of the block.
        pub block_bits: u8,
        /// 0.
        pub salt_size: u8,
        /// Zero.
        pub reserved: [u8; 4],
        /// Bytes of the file.
        pub size: U64,
        /// The root, filled up with zeroes.
        pub root: [u8; 64],
        /// Zero.
        pub salt: [u8; 32],
        /// Zero.
        pub reserved2: [u8; 144],
    }
}
size!(Descriptor, 256);

/// Number of a hash function in a descriptor and in what overlayfs keeps of it
/// (`FS_VERITY_HASH_ALG_*`).
pub const fn number(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    }
}

/// Takes a file's bytes as they come. It is a [`Write`] that does not fail.
pub struct Meter {
    levels: Levels,
    algorithm: Algorithm,
    /// The block that is not complete.
    block: Vec<u8>,
    size: u64,
}

/// Drops a complete block of the tree, which nobody needs.
fn drop_block(_: usize, _: u64, _: &[u8]) -> Result<(), Infallible> {
    Ok(())
}

impl Meter {
    /// Of a file of which nothing came yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self {
            levels: Levels::new(Salted::new(algorithm, &[]), BLOCK),
            algorithm,
            block: Vec::with_capacity(BLOCK),
            size: 0,
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.block.is_empty()
                && let Some((whole, rest)) = bytes.split_at_checked(BLOCK)
            {
                self.leaf(whole);
                bytes = rest;
                continue;
            }
            let room = BLOCK - self.block.len();
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(now);
            bytes = rest;
            if self.block.len() == BLOCK {
                self.seal();
            }
        }
    }

    /// Takes so many bytes of zero: for holes, whose blocks are hashed once.
    pub fn zeroes(&mut self, mut length: u64) {
        const ZEROES: [u8; BLOCK] = [0; BLOCK];
        while length > 0 && (!self.block.is_empty() || length < BLOCK as u64) {
            let room = (BLOCK - self.block.len()) as u64;
            let now = room.min(length);
            self.update(ZEROES.get(..now as usize).unwrap_or_default());
            length -= now;
        }
        if length > 0 {
            let hash = self.levels.hash(&ZEROES);
            for _ in 0..length / BLOCK as u64 {
                let Ok(()) = self.levels.push(hash.bytes(), &mut drop_block);
            }
            self.size += length / BLOCK as u64 * BLOCK as u64;
            self.zeroes(length % BLOCK as u64);
        }
    }

    fn leaf(&mut self, block: &[u8]) {
        let hash = self.levels.hash(block);
        let Ok(()) = self.levels.push(hash.bytes(), &mut drop_block);
    }

    fn seal(&mut self) {
        let block = std::mem::take(&mut self.block);
        self.leaf(&block);
        self.block = block;
        self.block.clear();
    }

    /// The digest of all that came.
    pub fn finish(mut self) -> Hash {
        if !self.block.is_empty() {
            self.block.resize(BLOCK, 0);
            self.seal();
        }
        let Ok(root) = self.levels.finish(&mut drop_block);
        described(self.algorithm, self.size, &root)
    }
}

impl Write for Meter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The digest of what `file` yields, with how many bytes that were.
///
/// # Errors
/// If it cannot be read.
pub fn digest(mut file: impl Read, algorithm: Algorithm) -> io::Result<(Hash, u64)> {
    let mut meter = Meter::new(algorithm);
    io::copy(&mut file, &mut meter)?;
    let size = meter.size;
    Ok((meter.finish(), size))
}

/// The digest of the first `length` bytes of an image, which `threads` threads read; 0 for
/// as many as there are processors.
///
/// # Errors
/// If it cannot be read.
pub fn digest_image(
    medium: &dyn Medium,
    length: u64,
    algorithm: Algorithm,
    threads: usize,
) -> io::Result<Hash> {
    let function = Salted::new(algorithm, &[]);
    let mut levels = Levels::new(function.clone(), BLOCK);
    let leaves = Leaves {
        medium,
        length,
        block: BLOCK,
        function: &function,
    };
    leaves.each(threads, |leaf| {
        let Ok(()) = levels.push(leaf, &mut drop_block);
        Ok(())
    })?;
    let Ok(root) = levels.finish(&mut drop_block);
    Ok(described(algorithm, length, &root))
}

fn described(algorithm: Algorithm, size: u64, root: &Hash) -> Hash {
    let mut descriptor = Descriptor {
        version: 1,
        algorithm: number(algorithm),
        block_bits: BLOCK.ilog2() as u8,
        size: size.into(),
        ..Descriptor::default()
    };
    for (to, from) in descriptor.root.iter_mut().zip(root.bytes()) {
        *to = *from;
    }
    Salted::new(algorithm, &[]).hash(descriptor.as_bytes())
}
