//! The checksum of copied-out data: which algorithms there are, and how they are
//! called on disk and by people.
//!
//! A store has one, chosen when it is made and never changed: it stands in both
//! superblocks and covers every 4 KiB of every copied-out chunk. Metadata blocks
//! carry CRC32C whatever is chosen here, so that a superblock can be verified
//! before anything in it is believed.

use std::fmt;
use std::str::FromStr;

use twox_hash::XxHash3_64;

/// How copied-out data is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// CRC32C (Castagnoli; RFC 3720, appendix B.4): one instruction for eight bytes
    /// where the processor has it (SSE 4.2, ARMv8 CRC).
    #[default]
    Crc32c,
    /// The low 32 bits of XXH3-64 with seed 0 (the xxHash project's specification,
    /// `doc/xxhash_spec.md`): multiplications and additions, quick on any 64-bit
    /// processor.
    Xxh3,
}

impl Checksum {
    /// Every algorithm.
    pub const ALL: [Self; 2] = [Self::Crc32c, Self::Xxh3];

    /// Its number in the superblock.
    #[must_use]
    pub const fn id(self) -> u32 {
        match self {
            Self::Crc32c => 1,
            Self::Xxh3 => 2,
        }
    }

    /// The algorithm of a number; `None` for one this code does not know.
    #[must_use]
    pub fn of_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|checksum| checksum.id() == id)
    }

    /// What people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32c => "crc32c",
            Self::Xxh3 => "xxh3",
        }
    }

    /// The checksum of `block`: 4 KiB of data, padded with zeroes where there is less.
    #[must_use]
    pub fn of(self, block: &[u8]) -> u32 {
        match self {
            Self::Crc32c => crc32c::crc32c(block),
            Self::Xxh3 => XxHash3_64::oneshot(block) as u32,
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no checksum's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a checksum: use crc32c or xxh3")]
pub struct UnknownChecksum(String);

impl FromStr for Checksum {
    type Err = UnknownChecksum;

    fn from_str(name: &str) -> Result<Self, UnknownChecksum> {
        let known = Self::ALL.into_iter().find(|known| known.name() == name);
        known.ok_or_else(|| UnknownChecksum(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_the_known_ones() {
        // RFC 3720, B.4: 32 bytes of zeroes, of ones, and counting up.
        let counting: Vec<u8> = (0..32).collect();
        assert_eq!(Checksum::Crc32c.of(&[0; 32]), 0x8a91_36aa);
        assert_eq!(Checksum::Crc32c.of(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(Checksum::Crc32c.of(&counting), 0x46dd_794e);
        // xxHash's own sanity check: of nothing, 2d06800538d394c2; of its buffer, cut
        // to these lengths, dd59e2c3a5f038e0, 6e73a90539cf2948 and cb37aeb9e5d361ed.
        assert_eq!(Checksum::Xxh3.of(&[]), 0x38d3_94c2);
        let mut state = 0x9e37_79b1_u64;
        let buffer: Vec<u8> = std::iter::repeat_with(|| {
            let byte = (state >> 56) as u8;
            state = state.wrapping_mul(0x9e37_79b1_85eb_ca8d);
            byte
        })
        .take(2367)
        .collect();
        assert_eq!(Checksum::Xxh3.of(&buffer[..2048]), 0xa5f0_38e0);
        assert_eq!(Checksum::Xxh3.of(&buffer[..2240]), 0x39cf_2948);
        assert_eq!(Checksum::Xxh3.of(&buffer), 0xe5d3_61ed);
    }

    #[test]
    fn names_and_numbers_lead_back() {
        for checksum in Checksum::ALL {
            assert_eq!(Checksum::of_id(checksum.id()), Some(checksum));
            assert_eq!(checksum.to_string().parse(), Ok(checksum));
        }
        assert_eq!(Checksum::of_id(0), None);
        assert_eq!(Checksum::of_id(3), None);
        let error = "CRC32".parse::<Checksum>().unwrap_err().to_string();
        assert!(error.contains("\"CRC32\""), "{error}");
    }
}
