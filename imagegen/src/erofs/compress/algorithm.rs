//! Algorithms, their levels, and the windows they are used with.

use std::fmt;
use std::str::FromStr;

use crate::erofs::format::superblock::{LZMA_DICTIONARY_MAX, ZSTD_WINDOW_MAX, algorithm};

/// Which library is used how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// LZ4.
    Lz4,
    /// LZ4, packed more slowly; the image does not know the difference.
    Lz4hc,
    /// LZMA.
    Lzma,
    /// DEFLATE.
    Deflate,
    /// Zstandard.
    Zstd,
}

impl Family {
    const ALL: [Self; 5] = [
        Self::Lz4,
        Self::Lz4hc,
        Self::Lzma,
        Self::Deflate,
        Self::Zstd,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Lz4 => "lz4",
            Self::Lz4hc => "lz4hc",
            Self::Lzma => "lzma",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }

    /// Lowest, usual and highest level.
    fn levels(self) -> (i32, i32, i32) {
        match self {
            Self::Lz4 => (1, 1, 1),
            Self::Lz4hc => (3, 9, 12),
            Self::Lzma => (0, 6, 9),
            Self::Deflate => (1, 6, 12),
            Self::Zstd => (1, 3, 22),
        }
    }
}

/// An algorithm at a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Algorithm {
    family: Family,
    level: i32,
}

/// Why a name is none of an algorithm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AlgorithmError {
    /// There is none of that name.
    #[error("no algorithm is called {0:?}: there are lz4, lz4hc, lzma, deflate and zstd")]
    Unknown(String),
    /// The level is no number or none it has.
    #[error("{name} has no level {level:?}: {}", choice(*lowest, *highest))]
    Level {
        /// The algorithm's name.
        name: &'static str,
        /// What was asked for.
        level: String,
        /// Its lowest level.
        lowest: i32,
        /// Its highest.
        highest: i32,
    },
}

fn choice(lowest: i32, highest: i32) -> String {
    match lowest == highest {
        true => format!("only {lowest} is possible"),
        false => format!("choose one from {lowest} to {highest}"),
    }
}

impl Algorithm {
    /// That of `family` at its usual level.
    pub fn usual(family: Family) -> Self {
        let (_, level, _) = family.levels();
        Self { family, level }
    }

    /// Which library.
    pub fn family(self) -> Family {
        self.family
    }

    /// How hard it tries.
    pub fn level(self) -> i32 {
        self.level
    }

    /// Its number in images.
    pub fn number(self) -> u8 {
        match self.family {
            Family::Lz4 | Family::Lz4hc => algorithm::LZ4,
            Family::Lzma => algorithm::LZMA,
            Family::Deflate => algorithm::DEFLATE,
            Family::Zstd => algorithm::ZSTD,
        }
    }
}

impl FromStr for Algorithm {
    type Err = AlgorithmError;

    /// `NAME` or `NAME,LEVEL`.
    fn from_str(text: &str) -> Result<Self, AlgorithmError> {
        let (name, level) = match text.split_once(',') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        let family = Family::ALL
            .into_iter()
            .find(|family| family.name() == name)
            .ok_or_else(|| AlgorithmError::Unknown(name.into()))?;
        let (lowest, usual, highest) = family.levels();
        let level = match level {
            None => Some(usual),
            Some(text) => text.parse().ok(),
        };
        match level {
            Some(level) if (lowest..=highest).contains(&level) => Ok(Self { family, level }),
            _ => Err(AlgorithmError::Level {
                name: family.name(),
                level: text.split_once(',').map_or("", |(_, level)| level).into(),
                lowest,
                highest,
            }),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.family.name(), self.level)
    }
}

/// LZ4's longest distance, in bytes.
pub const LZ4_DISTANCE: u16 = u16::MAX;
/// Logarithm of DEFLATE's window: what libdeflate uses.
pub const DEFLATE_WINDOW_BITS: u8 = 15;

/// Dictionary for LZMA in clusters of up to `cluster` bytes. Readers keep as much memory
/// for each processor, so it is no longer than what such a cluster usually holds.
pub fn lzma_dictionary(cluster: u32) -> u32 {
    cluster
        .saturating_mul(4)
        .clamp(32 << 10, LZMA_DICTIONARY_MAX)
}

/// Logarithm of the window for Zstandard, by the same reasoning.
pub fn zstd_window_log(cluster: u32) -> u32 {
    cluster
        .saturating_mul(8)
        .clamp(32 << 10, ZSTD_WINDOW_MAX)
        .ilog2()
}
