//! Indexes: what lies behind a compressed file's inode and says where its extents are.
//!
//! There are three forms. Compact indexes are the smallest, but extents of a pack must lie
//! one after the other; full indexes take 8 bytes a block and all there is; encoded extents
//! are for images with 48-bit block numbers, the only ones to tell of blocks beyond 2^32, and
//! for data that does not begin at blocks.

mod clusters;
mod compact;
mod encoded;
mod full;

#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;

use zerocopy::IntoBytes;

use super::extent::{FileMap, Tail};
use crate::erofs::format::compressed::{MapHeader, WHOLE_IN_PACKED, advise};
use crate::erofs::format::inode::layout;

/// An index as bytes, which begin at a multiple of 8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The inode's layout.
    pub layout: u16,
    /// Map header and what follows it; a tail's bytes come right behind them.
    pub bytes: Vec<u8>,
}

/// What an image offers its indexes.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// Logarithm of the block size.
    pub block_bits: u8,
    /// Encoded extents are allowed also where indexes do.
    pub bit48: bool,
}

/// An extent that no index can tell: a defect of whoever made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Two of them begin in one logical cluster.
    #[error("two extents begin in one block of the file, at byte {0}; please report this")]
    Crowded(u64),
    /// A number has more bits than its field.
    #[error("an extent at byte {0} of the file has numbers no index holds; please report this")]
    Number(u64),
}

/// Encodes `map` for an inode whose attributes end at `end` (in bytes, modulo 32).
///
/// # Errors
/// If no form can tell it: a tail behind the index of extents that need 48-bit numbers, or
/// a defect of the map.
pub fn encode(map: &FileMap<'_>, form: Form, end: u64) -> Result<Index, IndexError> {
    if let (true, Tail::Fragment { at, .. }) = (map.extents.is_empty(), map.tail) {
        let word = at | u64::from(WHOLE_IN_PACKED) << 56;
        return Ok(Index {
            layout: layout::COMPRESSED_FULL,
            bytes: word.to_le_bytes().to_vec(),
        });
    }
    let header_at = end.next_multiple_of(8) % 32;
    let (unaligned, far) = (unaligned(map, form), is_far(map, form.block_bits));
    if (form.bit48 || far) && !matches!(map.tail, Tail::Inline { .. }) {
        let bytes = encoded::encode(map, form, header_at)?;
        if unaligned || far || bytes.len() <= full::length(map, form) {
            return Ok(Index {
                layout: layout::COMPRESSED_FULL,
                bytes,
            });
        }
    }
    if unaligned {
        return Err(IndexError::Number(0));
    }
    if let Some(bytes) = compact::encode(map, form, header_at)? {
        return Ok(Index {
            layout: layout::COMPRESSED_COMPACT,
            bytes,
        });
    }
    Ok(Index {
        layout: layout::COMPRESSED_FULL,
        bytes: full::encode(map, form)?,
    })
}

/// Whether a cluster lies at a block whose number only encoded extents can tell. An image
/// that has such blocks has 48-bit numbers, whether it was asked for or not.
pub(crate) fn is_far(map: &FileMap<'_>, block_bits: u8) -> bool {
    let far = |e: &super::extent::Extent| e.at >> block_bits > u64::from(u32::MAX);
    map.extents.iter().any(far)
}

/// Whether a cluster does not begin or end at a block.
fn unaligned(map: &FileMap<'_>, form: Form) -> bool {
    let mask = (1 << form.block_bits) - 1;
    let bits = |e: &super::extent::Extent| (e.at | u64::from(e.size)) & mask;
    map.extents.iter().any(|e| bits(e) != 0)
}

/// The map header of both forms of indexes.
fn header(map: &FileMap<'_>, own: u16) -> [u8; 8] {
    let mut flags = own;
    let mut word = 0;
    if map.big {
        flags |= advise::BIG_CLUSTER_1 | advise::BIG_CLUSTER_2;
    }
    if map.interlaced {
        flags |= advise::INTERLACED;
    }
    match map.tail {
        Tail::None => {}
        Tail::Inline { size, .. } => {
            flags |= advise::INLINE_CLUSTER;
            word = u32::from(size) << 16;
        }
        Tail::Fragment { at, .. } => {
            flags |= advise::FRAGMENT;
            word = at as u32; // the upper half stands elsewhere, if it is not 0
        }
    }
    let [first, second] = map.algorithms;
    let header = MapHeader {
        word: word.into(),
        advise: flags.into(),
        algorithms: second << 4 | first,
        cluster_bits: 0,
    };
    let mut bytes = [0; 8];
    bytes.copy_from_slice(header.as_bytes());
    bytes
}
