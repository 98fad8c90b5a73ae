//! One entry of a logical cluster, out of full or compact indexes.

use super::super::error::{Result, damaged};
use super::super::{Area, Image, Inode, Layout};
use super::NAME;
use crate::erofs::format::compressed::{
    BLOCK_COUNT, Index as Raw, MapHeader, PARTIAL, advise, kind,
};
use crate::medium::Source;

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    /// An extent begins in this cluster.
    Head {
        /// [`kind`].
        kind: u8,
        /// Where in the cluster.
        offset: u64,
        /// First block of what it is made of.
        block: u64,
        /// It is a part of what that gives.
        partial: bool,
    },
    /// None begins here.
    Inner {
        /// Clusters back to the head, or to one that knows; at least 1.
        back: u64,
        /// Blocks of the extent, on the first after some heads.
        blocks: Option<u64>,
    },
}

/// Where the entries of an inode lie.
#[derive(Debug, Clone)]
pub(super) struct Table {
    area: Area,
    at: u64,
    compact: Option<Compact>,
    /// Logarithm of a logical cluster's size.
    pub(super) bits: u32,
    /// Clusters may have several blocks.
    big: bool,
}

/// Groups of compact indexes.
#[derive(Debug, Clone, Copy)]
struct Compact {
    /// Entries in packs of 2 before the multiple of 32.
    first: u64,
    /// Entries in packs of 16.
    packed: u64,
}

/// One pack: how many entries, how many bytes.
#[derive(Debug)]
struct Pack {
    bytes: [u8; 32],
    length: usize,
    count: usize,
    bits: u32,
}

impl Table {
    /// The table after the header at byte `at`.
    pub(super) fn open<S: Source>(
        image: &Image<S>,
        inode: &Inode,
        header: &MapHeader,
        at: u64,
    ) -> Result<Self> {
        let block_bits = u32::from(image.superblock.block_bits);
        let bits = block_bits + u32::from(header.cluster_bits & 15);
        let flags = header.advise.get();
        let after = at + size_of::<MapHeader>() as u64;
        let compact = inode.layout == Layout::Compact;
        if !compact {
            return Ok(Self {
                area: inode.area,
                at: after + size_of::<Raw>() as u64,
                compact: None,
                bits,
                big: flags & (advise::BIG_CLUSTER_1 | advise::BIG_CLUSTER_2) != 0,
            });
        }
        let dense = flags & advise::COMPACTED_2B != 0;
        if bits > 14 || (dense && bits > 12) {
            let flaw = format!("compact indexes for clusters of 2^{bits} bytes");
            return Err(damaged(NAME, inode.place(), flaw));
        }
        let both = [advise::BIG_CLUSTER_1, advise::BIG_CLUSTER_2];
        let [one, two] = both.map(|flag| flags & flag != 0);
        if one != two {
            let flaw = "compact indexes with only one kind of head that has several blocks";
            return Err(damaged(NAME, inode.place(), flaw));
        }
        let total = inode.size.div_ceil(1 << block_bits);
        let first = ((32 - after % 32) / 4) & 7;
        let packed = match total.checked_sub(first) {
            Some(rest) if dense => rest - rest % 16,
            _ => 0,
        };
        Ok(Self {
            area: inode.area,
            at: after,
            compact: Some(Compact { first, packed }),
            bits,
            big: one,
        })
    }

    /// The entry of cluster `number`.
    pub(super) fn entry<S: Source>(
        &self,
        image: &Image<S>,
        inode: &Inode,
        number: u64,
    ) -> Result<Index> {
        let index = match self.compact {
            None => self.full(image, number)?,
            Some(compact) => self.unpack(image, inode, compact, number)?,
        };
        let bad = |flaw: String| {
            let place = inode.contents_at(number << self.bits);
            Err(damaged(NAME, place, flaw))
        };
        match index {
            Index::Head { offset, .. } if offset >> self.bits != 0 => {
                bad(format!("an extent begins at byte {offset} of its cluster"))
            }
            Index::Inner { back: 0, .. } => bad("a cluster whose head is itself".into()),
            Index::Inner {
                blocks: Some(_), ..
            } if !self.big => bad("a count of blocks where all have one".into()),
            index => Ok(index),
        }
    }

    /// The byte after what holds cluster `number`'s entry.
    pub(super) fn end_of(&self, number: u64) -> u64 {
        match self.compact {
            None => self.at + (number + 1) * size_of::<Raw>() as u64,
            Some(compact) => {
                let (at, width) = self.place(compact, number);
                let length = pack_length(width);
                at - at % length + length
            }
        }
    }

    fn full<S: Source>(&self, image: &Image<S>, number: u64) -> Result<Index> {
        // Numbers are below 2^54: a size below 2^63 in clusters of 512 bytes or more.
        let at = self.at.saturating_add(number * size_of::<Raw>() as u64);
        let raw: Raw = image.structure(self.area, at)?;
        let value = raw.value.get();
        let advise = raw.advise.get();
        let kind = (advise & 3) as u8;
        if kind != kind::NONHEAD {
            return Ok(Index::Head {
                kind,
                offset: raw.offset.get().into(),
                block: value.into(),
                partial: advise & PARTIAL != 0,
            });
        }
        Ok(inner(value & 0xffff))
    }

    /// Where cluster `number`'s entry would begin if a pack were divided evenly, and the
    /// logarithm of its width.
    fn place(&self, compact: Compact, number: u64) -> (u64, u32) {
        let Some(rest) = number.checked_sub(compact.first) else {
            return (self.at + number * 4, 2);
        };
        let at = self.at + compact.first * 4;
        match rest.checked_sub(compact.packed) {
            None => (at + rest * 2, 1),
            Some(rest) => (at + compact.packed * 2 + rest.saturating_mul(4), 2),
        }
    }

    fn unpack<S: Source>(
        &self,
        image: &Image<S>,
        inode: &Inode,
        compact: Compact,
        number: u64,
    ) -> Result<Index> {
        let (at, width) = self.place(compact, number);
        let length = pack_length(width);
        let inside = at % length;
        let mut pack = Pack {
            bytes: [0; 32],
            length: length as usize,
            count: (length >> width) as usize,
            bits: self.bits.max(12),
        };
        let bytes = pack.bytes.get_mut(..pack.length).unwrap_or_default();
        image.metadata(self.area, at - inside, bytes)?;
        let index = (inside >> width) as usize;
        let (low, kind) = pack.entry(index);
        if kind == kind::NONHEAD {
            return Ok(pack.inner(index, low));
        }
        let before = if self.big {
            pack.blocks_before_big(index)
        } else {
            Some(pack.blocks_before(index))
        };
        let before = before.ok_or_else(|| {
            let place = inode.contents_at(number << self.bits);
            damaged(NAME, place, "a cluster of several blocks without a count")
        })?;
        Ok(Index::Head {
            kind,
            offset: low.into(),
            // In 32 bits, as Linux counts: what a pack begins with may belong to a cluster
            // that lies elsewhere, and have more blocks than there are before this one.
            block: pack.base().wrapping_add(before as u32).into(),
            partial: false,
        })
    }
}

fn pack_length(width: u32) -> u64 {
    if width == 2 { 8 } else { 32 }
}

fn inner(low: u32) -> Index {
    let count = u32::from(BLOCK_COUNT);
    if low & count != 0 {
        let blocks = Some(u64::from(low & !count));
        return Index::Inner { back: 1, blocks };
    }
    Index::Inner {
        back: low.into(),
        blocks: None,
    }
}

impl Pack {
    /// Entry `index`: its low bits and its kind.
    fn entry(&self, index: usize) -> (u32, u8) {
        let width = (self.length - 4) * 8 / self.count;
        let bit = width * index;
        let word = self.word(bit / 8) >> (bit % 8);
        let low = word & ((1 << self.bits) - 1);
        (low, (word >> self.bits & 3) as u8)
    }

    fn word(&self, at: usize) -> u32 {
        let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        u32::from_le_bytes(bytes.copied().unwrap_or_default())
    }

    /// The block number at the end.
    fn base(&self) -> u32 {
        self.word(self.length - 4)
    }

    fn inner(&self, index: usize, low: u32) -> Index {
        let counts = low & u32::from(BLOCK_COUNT) != 0;
        if counts || index + 1 != self.count {
            return inner(low);
        }
        // The last one holds the distance ahead; the one back is that of the entry before.
        let (low, kind) = self.entry(index - 1);
        let before = match (kind, inner(low)) {
            (kind::NONHEAD, Index::Inner { back, .. }) => back,
            _ => 0,
        };
        Index::Inner {
            back: before + 1,
            blocks: None,
        }
    }

    /// Blocks of this pack before those of the head at `index`, where every head has one:
    /// the base is that of the head before the pack.
    fn blocks_before(&self, index: usize) -> u64 {
        let mut blocks = 1;
        let mut at = index;
        while let Some(before) = at.checked_sub(1) {
            let (low, kind) = self.entry(before);
            let back = if kind == kind::NONHEAD {
                low as usize
            } else {
                0
            };
            match before.checked_sub(back) {
                Some(head) => at = head,
                None => break,
            }
            blocks += 1;
        }
        blocks
    }

    /// The same where heads have as many as the entry after them says; none if one that
    /// should say it does not.
    fn blocks_before_big(&self, index: usize) -> Option<u64> {
        let mut blocks = 0;
        let mut at = index;
        while let Some(before) = at.checked_sub(1) {
            let (low, kind) = self.entry(before);
            if kind != kind::NONHEAD {
                blocks += 1;
                at = before;
                continue;
            }
            let count = u32::from(BLOCK_COUNT);
            if low & count != 0 {
                blocks += u64::from(low & !count);
                at = before.saturating_sub(1);
                continue;
            }
            let back = (low as usize).checked_sub(2)?;
            at = before.saturating_sub(back);
        }
        Some(blocks)
    }
}
