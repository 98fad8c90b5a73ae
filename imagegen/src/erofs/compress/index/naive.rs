//! A reader of indexes for tests: what the format says, entry by entry, and nothing else.

use super::Index;
use crate::erofs::format::inode::layout;

/// What a reader finds for a byte of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) begin: u64,
    pub(super) kind: u8,
    pub(super) partial: bool,
    /// First byte and bytes of the cluster; none for a tail.
    pub(super) cluster: Option<(u64, u64)>,
}

/// One entry as it stands in the index.
#[derive(Debug, Clone, Copy)]
struct Entry {
    kind: u8,
    offset: u64,
    block: u64,
    partial: bool,
    back: u64,
    forward: u64,
    blocks: Option<u64>,
}

pub(super) struct Reader<'a> {
    pub(super) index: &'a Index,
    pub(super) bits: u8,
    pub(super) end: u64,
    pub(super) size: u64,
}

fn le(bytes: &[u8], at: usize, count: usize) -> u64 {
    (0..count)
        .map(|i| u64::from(bytes[at + i]) << (8 * i))
        .sum()
}

impl Reader<'_> {
    fn advise(&self) -> u64 {
        le(&self.index.bytes, 4, 2)
    }

    fn count(&self) -> u64 {
        self.size.div_ceil(1 << self.bits)
    }

    fn full(&self, number: u64) -> Entry {
        let at = 16 + 8 * number as usize;
        let bytes = &self.index.bytes;
        let (flags, low, high) = (le(bytes, at, 2), le(bytes, at + 4, 2), le(bytes, at + 6, 2));
        let counted = low & 2048 != 0;
        Entry {
            kind: (flags & 3) as u8,
            offset: le(bytes, at + 2, 2),
            block: le(bytes, at + 4, 4),
            partial: flags & 0x8000 != 0,
            back: if counted { 1 } else { low },
            forward: high,
            blocks: counted.then_some(low & 2047),
        }
    }

    /// Begin, entries, bytes of a compact pack that has entry `number`.
    fn pack(&self, number: u64) -> (usize, u64, u64, usize) {
        let begin = (self.end.next_multiple_of(8) + 8) % 32;
        let single = (32 - begin) / 4 % 8;
        let dense = match self.advise() & 1 != 0 && single < self.count() {
            true => (self.count() - single) / 16 * 16,
            false => 0,
        };
        if number < single {
            return ((8 + number / 2 * 8) as usize, number / 2 * 2, 2, 8);
        }
        let after = number - single;
        if after < dense {
            let at = 8 + single * 4 + after / 16 * 32;
            return (at as usize, single + after / 16 * 16, 16, 32);
        }
        let after = after - dense;
        let at = 8 + single * 4 + dense * 2 + after / 2 * 8;
        (at as usize, single + dense + after / 2 * 2, 2, 8)
    }

    fn raw(&self, number: u64) -> (u8, u64) {
        let (at, first, entries, size) = self.pack(number);
        let width = (size as u64 - 4) * 8 / entries;
        let low_bits = u64::from(self.bits).max(12);
        let position = (number - first) * width;
        let value = le(&self.index.bytes, at + (position / 8) as usize, 4) >> (position % 8);
        ((value >> low_bits & 3) as u8, value & ((1 << low_bits) - 1))
    }

    fn compact(&self, number: u64) -> Entry {
        let (at, first, entries, size) = self.pack(number);
        let (kind, low) = self.raw(number);
        let big = self.advise() & 2 != 0;
        let mut entry = Entry {
            kind,
            offset: low,
            block: 0,
            partial: false,
            back: low,
            forward: 0,
            blocks: None,
        };
        if kind == 2 {
            if low & 2048 != 0 {
                assert!(big);
                entry.blocks = Some(low & 2047);
                entry.back = 1;
            } else if number + 1 == first + entries {
                let (kind, before) = self.raw(number - 1);
                entry.back = 1 + match kind {
                    2 if before & 2048 != 0 => 1,
                    2 => before,
                    _ => 0,
                };
            }
            // The next head: by the pack's last entry, if no head comes before it.
            let mut ahead = 0;
            entry.forward = loop {
                let (kind, low) = self.raw(number + ahead);
                if kind != 2 {
                    break ahead;
                }
                if number + ahead + 1 == first + entries {
                    break ahead + if low & 2048 != 0 { 1 } else { low };
                }
                ahead += 1;
            };
            return entry;
        }
        let mut blocks = u64::from(!big);
        let mut i = (number - first) as i64;
        while i > 0 {
            i -= 1;
            let (kind, low) = self.raw(first + i as u64);
            if !big {
                if kind == 2 {
                    i -= low as i64;
                }
                blocks += u64::from(i >= 0);
            } else if kind != 2 {
                blocks += 1;
            } else if low & 2048 != 0 {
                i -= 1;
                blocks += low & 2047;
            } else {
                assert!(low > 1, "the first after a head tells its blocks");
                i -= low as i64 - 2;
            }
        }
        entry.block = (le(&self.index.bytes, at + size - 4, 4) + blocks) & 0xffff_ffff;
        entry
    }

    fn entry(&self, number: u64) -> Entry {
        match self.index.layout {
            layout::COMPRESSED_FULL => self.full(number),
            _ => self.compact(number),
        }
    }

    fn head(&self, mut number: u64, mut back: u64) -> (u64, Entry) {
        loop {
            number -= back;
            let entry = self.entry(number);
            if entry.kind != 2 {
                return (number, entry);
            }
            back = entry.back;
        }
    }

    /// The extent that `byte` is in.
    pub(super) fn find(&self, byte: u64) -> Found {
        if self.index.layout == layout::COMPRESSED_FULL && self.advise() & 1 != 0 {
            return self.record(byte);
        }
        let here = byte >> self.bits;
        let entry = self.entry(here);
        let (number, head) = match entry.kind {
            2 => self.head(here, entry.back),
            _ if byte % (1 << self.bits) >= entry.offset => (here, entry),
            _ => self.head(here, 1),
        };
        let begin = (number << self.bits) + head.offset;
        let last = self.size - 1;
        let has_tail = self.advise() & (8 | 32) != 0;
        let cluster = match has_tail && begin == self.last_head() {
            true => None,
            false => {
                let big = self.advise() & 2 != 0;
                let blocks = match number == last >> self.bits || !big {
                    true => 1,
                    false => match self.entry(number + 1) {
                        Entry {
                            kind: 2, blocks, ..
                        } => blocks.unwrap(),
                        _ => 1,
                    },
                };
                Some((head.block << self.bits, blocks << self.bits))
            }
        };
        Found {
            begin,
            kind: head.kind,
            partial: head.partial,
            cluster,
        }
    }

    /// Where the extent of the last byte begins.
    fn last_head(&self) -> u64 {
        let last = self.size - 1;
        let entry = self.entry(last >> self.bits);
        let (number, head) = match entry.kind {
            2 => self.head(last >> self.bits, entry.back),
            _ if last % (1 << self.bits) >= entry.offset => (last >> self.bits, entry),
            _ => self.head(last >> self.bits, 1),
        };
        (number << self.bits) + head.offset
    }

    fn record(&self, byte: u64) -> Found {
        let bytes = &self.index.bytes;
        let size = 4 << (self.advise() >> 1 & 3);
        let base = self.end.next_multiple_of(8);
        let mut at = ((base + 8).next_multiple_of(size as u64) - base) as usize;
        let (mut begin, length, place);
        if size < 16 {
            let bits = self.bits + (bytes[7] & 15);
            let number = (byte >> bits) as usize;
            begin = (number as u64) << bits;
            if size == 4 {
                let before = (0..number).map(|i| le(bytes, at + 8 + 4 * i, 4) & 0x1f_ffff);
                place = le(bytes, at, 8) + before.sum::<u64>();
                length = le(bytes, at + 8 + 4 * number, 4);
            } else {
                at += number * 8;
                (length, place) = (le(bytes, at, 4), le(bytes, at + 4, 4));
            }
        } else {
            let count = le(bytes, 0, 4) | le(bytes, 6, 2) << 32;
            let logical = |i: u64| {
                let at = at + i as usize * size;
                le(bytes, at + 12, 4)
                    | if size == 32 {
                        le(bytes, at + 16, 4) << 32
                    } else {
                        0
                    }
            };
            let number = (0..count).rev().find(|&i| logical(i) <= byte).unwrap();
            begin = logical(number);
            at += number as usize * size;
            (length, place) = (le(bytes, at, 4), le(bytes, at + 4, 8));
            if self.advise() & 32 != 0 && number + 1 == count {
                return Found {
                    begin,
                    kind: 1,
                    partial: false,
                    cluster: None,
                };
            }
        }
        begin = begin.min(byte);
        let format = length >> 28;
        Found {
            begin,
            kind: [0, 1, 3][format.min(2) as usize],
            partial: length & 1 << 27 != 0,
            cluster: Some((place, length & 0x1f_ffff)),
        }
    }
}
