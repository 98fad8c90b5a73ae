//! The hash functions, and what they yield.

use sha2::{Digest, Sha256, Sha512};
use std::fmt;

/// A hash function that both kinds of verity know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Bytes of a hash: a power of two.
    pub const fn size(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// What Linux and `veritysetup` call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

/// Bytes of the longest hash.
const LONGEST: usize = 64;

/// A hash; shown in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash {
    /// Zeroes after the hash.
    bytes: [u8; LONGEST],
    algorithm: Algorithm,
}

impl Hash {
    /// The hash whose bytes are all zero.
    pub(super) fn zero(algorithm: Algorithm) -> Self {
        let bytes = [0; LONGEST];
        Self { bytes, algorithm }
    }

    /// The hash that `bytes` begin with; what is missing of it is zero.
    pub(super) fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hash = Self::zero(algorithm);
        for (to, from) in hash.bytes.iter_mut().zip(bytes).take(algorithm.size()) {
            *to = *from;
        }
        hash
    }

    /// Its bytes, as many as its function yields.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.algorithm.size()).unwrap_or_default()
    }

    /// Which function made it.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(self.bytes(), f)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{self}", self.algorithm.name())
    }
}

/// Writes bytes as a person reads them.
pub(super) fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// A hash function that has taken a salt already.
#[derive(Debug, Clone)]
pub(super) enum Salted {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Salted {
    pub(super) fn new(algorithm: Algorithm, salt: &[u8]) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new_with_prefix(salt)),
            Algorithm::Sha512 => Self::Sha512(Sha512::new_with_prefix(salt)),
        }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The hash of the salt and `block`.
    pub(super) fn hash(&self, block: &[u8]) -> Hash {
        match self {
            Self::Sha256(salted) => {
                let hash = salted.clone().chain_update(block).finalize();
                Hash::from_bytes(Algorithm::Sha256, &hash)
            }
            Self::Sha512(salted) => {
                let hash = salted.clone().chain_update(block).finalize();
                Hash::from_bytes(Algorithm::Sha512, &hash)
            }
        }
    }
}
