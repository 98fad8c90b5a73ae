//! Entries of level 1 and level 2 tables (specification: "Cluster mapping").

use std::ops::Range;

/// Where a cluster begins, in either entry.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The cluster's refcount is exactly one.
const COPIED: u64 = 1 << 63;
/// The cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeroes.
const ZERO: u64 = 1;

/// An entry of a level 1 table: a level 2 table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct L1Entry {
    /// Its byte; 0: there is none, and nothing below is allocated.
    pub offset: u64,
    /// Its refcount is exactly one.
    pub copied: bool,
}

impl L1Entry {
    /// From the table; none if a reserved bit is set.
    #[must_use]
    pub const fn decode(raw: u64) -> Option<Self> {
        if raw & !(OFFSET | COPIED) != 0 {
            return None;
        }
        Some(Self {
            offset: raw & OFFSET,
            copied: raw & COPIED != 0,
        })
    }

    /// For the table.
    #[must_use]
    pub const fn encode(self) -> u64 {
        self.offset | if self.copied { COPIED } else { 0 }
    }
}

/// How level 2 entries of an image look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Width {
    /// log2 of a cluster's bytes.
    pub cluster_bits: u32,
    /// Entries have a second half with a bit for each subcluster.
    pub extended: bool,
}

impl Width {
    /// Bytes of an entry.
    #[must_use]
    pub const fn entry(self) -> u64 {
        if self.extended { 16 } else { 8 }
    }

    /// log2 of the entries of a table, which fills a cluster.
    #[must_use]
    pub const fn entries_bits(self) -> u32 {
        self.cluster_bits - if self.extended { 4 } else { 3 }
    }

    /// log2 of the bytes of the disk that a table maps.
    #[must_use]
    pub const fn table_bits(self) -> u32 {
        self.cluster_bits + self.entries_bits()
    }

    /// Bits of a compressed cluster's byte; its sectors are counted above them.
    const fn compressed_offset_bits(self) -> u32 {
        62 - (self.cluster_bits - 8)
    }
}

/// Where a compressed cluster lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressed {
    /// Its first byte, anywhere.
    pub offset: u64,
    /// Sectors of 512 bytes beyond the one in which it begins.
    pub further_sectors: u64,
}

impl Compressed {
    /// What `length` bytes at `offset` are.
    #[must_use]
    pub const fn of(offset: u64, length: u64) -> Self {
        let last = offset + if length == 0 { 0 } else { length - 1 };
        Self {
            offset,
            further_sectors: last / super::SECTOR - offset / super::SECTOR,
        }
    }

    /// Bytes from the first on to the end of the last sector.
    #[must_use]
    pub const fn length(self) -> u64 {
        (self.further_sectors + 1) * super::SECTOR - self.offset % super::SECTOR
    }
}

/// The first half of an entry of a level 2 table: a cluster of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L2Entry {
    /// Not compressed. `offset` 0 without `external` data: not allocated.
    Standard {
        /// Its byte.
        offset: u64,
        /// Its refcount is exactly one.
        copied: bool,
        /// It reads as zeroes, whatever it holds.
        zero: bool,
    },
    /// Compressed.
    Compressed(Compressed),
}

impl L2Entry {
    /// Nothing: the backing file shows.
    pub const NONE: Self = Self::Standard {
        offset: 0,
        copied: false,
        zero: false,
    };

    /// From the table; none if a reserved bit is set.
    #[must_use]
    pub const fn decode(raw: u64, width: Width) -> Option<Self> {
        if raw & COMPRESSED != 0 {
            let bits = width.compressed_offset_bits();
            let both = raw & (COMPRESSED - 1);
            if raw & COPIED != 0 {
                return None;
            }
            return Some(Self::Compressed(Compressed {
                offset: both & ((1 << bits) - 1),
                further_sectors: both >> bits,
            }));
        }
        // With subclusters, zeroes are said of each of them.
        let known = if width.extended {
            OFFSET | COPIED
        } else {
            OFFSET | COPIED | ZERO
        };
        if raw & !known != 0 {
            return None;
        }
        Some(Self::Standard {
            offset: raw & OFFSET,
            copied: raw & COPIED != 0,
            zero: raw & ZERO != 0,
        })
    }

    /// The bytes of the image that it leads to; none if it leads to no cluster.
    #[must_use]
    pub const fn bytes(self, width: Width) -> Option<Range<u64>> {
        match self {
            Self::Standard { offset: 0, .. } => None,
            Self::Standard { offset, .. } => Some(offset..offset + (1 << width.cluster_bits)),
            Self::Compressed(compressed) => {
                Some(compressed.offset..compressed.offset + compressed.length())
            }
        }
    }

    /// The same where its cluster is used more than once.
    #[must_use]
    pub const fn shared(self) -> Self {
        match self {
            Self::Standard { offset, zero, .. } => Self::Standard {
                offset,
                copied: false,
                zero,
            },
            Self::Compressed(_) => self,
        }
    }

    /// For the table. Of a compressed cluster that begins or ends where the entry cannot
    /// say, nonsense: [`Compressed::of`] below the disk's limits never does.
    #[must_use]
    pub const fn encode(self, width: Width) -> u64 {
        match self {
            Self::Standard {
                offset,
                copied,
                zero,
            } => offset | if copied { COPIED } else { 0 } | if zero { ZERO } else { 0 },
            Self::Compressed(compressed) => {
                let bits = width.compressed_offset_bits();
                COMPRESSED | compressed.further_sectors << bits | compressed.offset
            }
        }
    }
}

/// The second half of an extended entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Subclusters {
    /// A bit for each that lies in the cluster.
    pub allocated: u32,
    /// A bit for each that reads as zeroes.
    pub zero: u32,
}

impl Subclusters {
    /// All of the cluster is there.
    pub const ALLOCATED: Self = Self {
        allocated: u32::MAX,
        zero: 0,
    };
    /// All of it reads as zeroes.
    pub const ZERO: Self = Self {
        allocated: 0,
        zero: u32::MAX,
    };

    /// From the table.
    #[must_use]
    pub const fn decode(raw: u64) -> Self {
        Self {
            allocated: raw as u32,
            zero: (raw >> 32) as u32,
        }
    }

    /// For the table.
    #[must_use]
    pub const fn encode(self) -> u64 {
        (self.zero as u64) << 32 | self.allocated as u64
    }

    /// A subcluster cannot be both.
    #[must_use]
    pub const fn is_sound(self) -> bool {
        self.allocated & self.zero == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: Width = Width {
        cluster_bits: 16,
        extended: false,
    };

    #[test]
    fn what_was_encoded_is_decoded() {
        let entries = [
            L2Entry::NONE,
            L2Entry::Standard {
                offset: 0x5_0000,
                copied: true,
                zero: false,
            },
            L2Entry::Standard {
                offset: 0x5_0000,
                copied: true,
                zero: true,
            },
            L2Entry::Standard {
                offset: 0,
                copied: false,
                zero: true,
            },
            L2Entry::Compressed(Compressed::of(0x1_2345, 4321)),
        ];
        for entry in entries {
            assert_eq!(L2Entry::decode(entry.encode(WIDTH), WIDTH), Some(entry));
        }
        let table = L1Entry {
            offset: 0x3_0000,
            copied: true,
        };
        assert_eq!(L1Entry::decode(table.encode()), Some(table));
        let halves = Subclusters {
            allocated: 0xf0,
            zero: 0x0f,
        };
        assert_eq!(Subclusters::decode(halves.encode()), halves);
    }

    /// An entry that `qemu-img convert -c` wrote: byte 0x50000, in all 5 sectors.
    #[test]
    fn a_compressed_entry_is_split_where_the_clusters_say() {
        let raw = 0x4100_0000_0005_0000;
        let Some(L2Entry::Compressed(found)) = L2Entry::decode(raw, WIDTH) else {
            panic!("not compressed");
        };
        assert_eq!((found.offset, found.further_sectors), (0x5_0000, 4));
        assert_eq!(found.length(), 5 * 512);
    }

    #[test]
    fn reserved_bits_are_refused() {
        assert_eq!(L1Entry::decode(1), None);
        assert_eq!(L2Entry::decode(2, WIDTH), None);
        assert_eq!(L2Entry::decode(1 << 57, WIDTH), None);
        assert_eq!(L2Entry::decode(3 << 62, WIDTH), None);
        let extended = Width {
            extended: true,
            ..WIDTH
        };
        assert_eq!(L2Entry::decode(1, extended), None);
    }
}
