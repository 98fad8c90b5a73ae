//! Values of the exception tree and of the era tree.
//!
//! An exception says: chunk `c` of volume `v`, for the snapshots `s` with
//! `pred < s <= tag`, lives at store block `block`. The interval is explicit, so
//! a lost record never widens its neighbour. Block 0 means LOST: the old contents
//! could not be read, and a read of such a snapshot is an error.
//!
//! | tree | key | value |
//! |---|---|---|
//! | exceptions | volume, chunk, tag | pred u64, block u64, checksum u32 per 4 KiB |
//! | eras | volume, tag, chunk | pred u64, block u64 |
//!
//! The era tree lists what was copied out while a snapshot was the newest: a
//! delete walks only that, and "what changed between" is a range of it.

use crate::ids::Tag;

/// Bytes before the checksums.
pub const EXCEPTION_FIXED: usize = 16;
/// Bytes of an era value.
pub const ERA_LEN: usize = 16;
/// Store block of an exception whose old contents are lost.
pub const LOST: u64 = 0;

/// Checksums of one chunk, one per 4 KiB, by the store's algorithm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Crcs {
    /// Up to four (chunks up to 16 KiB): no allocation.
    Inline([u32; 4], u8),
    /// More.
    Heap(Box<[u32]>),
}

impl Crcs {
    /// From a slice.
    #[must_use]
    pub fn new(crcs: &[u32]) -> Self {
        let mut inline = [0; 4];
        match inline.get_mut(..crcs.len()) {
            Some(space) => {
                space.copy_from_slice(crcs);
                Self::Inline(inline, crcs.len() as u8)
            }
            None => Self::Heap(crcs.into()),
        }
    }

    /// As a slice.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::Inline(inline, len) => inline.get(..usize::from(*len)).unwrap_or(inline),
            Self::Heap(heap) => heap,
        }
    }
}

/// Where an exception's interval begins and where its data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Snapshots up to and including this tag are not covered.
    pub pred: Tag,
    /// First store block, or [`LOST`].
    pub block: u64,
}

impl Place {
    /// Reads the fixed part of a value; zeroes if it is too short (node
    /// verification has checked the length).
    #[must_use]
    pub fn decode(value: &[u8]) -> Self {
        Self {
            pred: Tag(u64_at(value, 0)),
            block: u64_at(value, 8),
        }
    }

    /// Appends the fixed part of a value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.pred.0.to_le_bytes());
        out.extend_from_slice(&self.block.to_le_bytes());
    }
}

/// The checksums in an exception's value.
pub fn crcs_of(value: &[u8]) -> impl Iterator<Item = u32> + '_ {
    value
        .get(EXCEPTION_FIXED..)
        .unwrap_or(&[])
        .chunks_exact(4)
        .map(|c| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(c);
            u32::from_le_bytes(bytes)
        })
}

fn u64_at(value: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    if let Some(field) = value.get(at..at + 8) {
        bytes.copy_from_slice(field);
    }
    u64::from_le_bytes(bytes)
}
