//! Compact indexes: packs of 2 in 8 bytes or of 16 in 32. An entry is what a head's offset
//! or another's distance needs, and 2 bits for its kind; the pack ends with a block number,
//! to which a reader adds the blocks of the heads before the one it wants.
//!
//! The last entry of a pack, if it has no head, holds the distance to the next head instead
//! of the one before, which its neighbour tells.

use super::clusters::{self, Cluster, Place, number};
use super::full::near;
use super::{Form, IndexError, header};
use crate::erofs::compress::extent::{FileMap, Tail};
use crate::erofs::format::compressed::{BLOCK_COUNT, advise, kind};

/// Largest logical cluster's logarithm with packs of 2, and of 16.
const BITS_MAX: (u8, u8) = (14, 12);
/// Bits of an entry's number at least.
const NUMBER_BITS_MIN: u8 = BLOCK_COUNT.ilog2() as u8 + 1;

/// The index, or none if this form cannot tell it.
pub(super) fn encode(
    map: &FileMap<'_>,
    form: Form,
    header_at: u64,
) -> Result<Option<Vec<u8>>, IndexError> {
    let far = matches!(map.tail, Tail::Fragment { at, .. } if at >> 32 != 0);
    if form.block_bits > BITS_MAX.0 || far || map.extents.iter().any(|e| e.partial) {
        return Ok(None);
    }
    let mut packs = Packs::new(map, form, header_at);
    clusters::each(map, form, |cluster| packs.push(cluster))?;
    Ok(packs.finish())
}

/// What is written so far, and the pack that is not full.
struct Packs {
    bytes: Vec<u8>,
    pack: Vec<Cluster>,
    number_bits: u8,
    big: bool,
    /// Entries before packs of 16 begin, then in them.
    single: u64,
    dense: u64,
    /// Heads do not lie one after the other, or so near the image's beginning that a
    /// pack's number would be less than 0.
    scattered: bool,
}

impl Packs {
    fn new(map: &FileMap<'_>, form: Form, header_at: u64) -> Self {
        let count = map.size().div_ceil(1 << form.block_bits);
        let begin = header_at + 8;
        let (flags, single) = match form.block_bits <= BITS_MAX.1 {
            true => (
                advise::COMPACTED_2B,
                (begin.next_multiple_of(32) - begin) / 4,
            ),
            false => (0, count),
        };
        Self {
            bytes: header(map, flags).to_vec(),
            pack: Vec::with_capacity(16),
            number_bits: form.block_bits.max(NUMBER_BITS_MIN),
            big: map.big,
            single,
            dense: count.saturating_sub(single) / 16 * 16,
            scattered: false,
        }
    }

    fn push(&mut self, cluster: Cluster) {
        self.pack.push(cluster);
        let (full, left) = match self.single {
            0 if self.dense > 0 => (16, &mut self.dense),
            0 => (2, &mut self.dense), // which stays 0
            _ => (2, &mut self.single),
        };
        if self.pack.len() == full {
            *left = left.saturating_sub(full as u64);
            self.write(full);
        }
    }

    fn finish(mut self) -> Option<Vec<u8>> {
        if !self.pack.is_empty() {
            self.write(2);
        }
        (!self.scattered).then_some(self.bytes)
    }

    /// Writes the pack, which has room for `full` entries.
    fn write(&mut self, full: usize) {
        let (size, entry_bits) = match full {
            16 => (32, 14),
            _ => (8, 16),
        };
        let begin = self.bytes.len();
        let mut held = 0u64;
        let mut bits = 0;
        for (position, &cluster) in self.pack.iter().enumerate() {
            held |= u64::from(self.entry(cluster, position + 1 == full)) << bits;
            bits += entry_bits;
            while bits >= 8 {
                self.bytes.push(held as u8);
                held >>= 8;
                bits -= 8;
            }
        }
        if bits > 0 {
            self.bytes.push(held as u8);
        }
        self.bytes.resize(begin + size - 4, 0);
        let base = self.base();
        self.bytes.extend_from_slice(&base.to_le_bytes());
        self.pack.clear();
    }

    /// Kind and number of an entry.
    fn entry(&self, cluster: Cluster, is_last: bool) -> u32 {
        let (kind, number) = match cluster {
            Cluster::Head { kind, offset, .. } => (number(kind), offset),
            Cluster::End { offset } => (kind::PLAIN, offset),
            Cluster::Rest {
                back,
                forward,
                blocks,
            } => {
                let number = match blocks {
                    Some(blocks) if self.big => blocks as u16 | BLOCK_COUNT, // at most 2047
                    _ if is_last => near(forward),
                    _ => near(back),
                };
                (kind::NONHEAD, number)
            }
        };
        u32::from(kind) << self.number_bits | u32::from(number)
    }

    /// The pack's block number: what a reader makes the first block of each of its heads
    /// from.
    fn base(&mut self) -> u32 {
        let mut base = None;
        // Blocks that a reader counts in this pack before the entry at hand. Without big
        // clusters it begins with one, and counts one for each head.
        let mut counted = u32::from(!self.big);
        let mut open = None;
        for cluster in &self.pack {
            match *cluster {
                Cluster::Head { place, .. } => {
                    counted += open.take().unwrap_or(0);
                    if let Place::Blocks { first, .. } = place {
                        let this = first.checked_sub(counted);
                        self.scattered |= this.is_none() || *base.get_or_insert(this) != this;
                    }
                    open = Some(1);
                }
                Cluster::Rest {
                    blocks: Some(blocks),
                    ..
                } if self.big => open = Some(blocks),
                Cluster::Rest { .. } | Cluster::End { .. } => {}
            }
        }
        base.flatten().unwrap_or(0)
    }
}
