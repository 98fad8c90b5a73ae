//! Indexes against a decoder that does what readers do, entry by entry, and nothing else.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Form, Index, IndexError, encode};
use crate::erofs::compress::extent::{Extent, FileMap, Kind, Tail};
use crate::erofs::format::inode::layout;

/// What a reader finds for a byte of the file.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    begin: u64,
    kind: u8,
    partial: bool,
    /// First byte and bytes of the cluster; none for a tail.
    cluster: Option<(u64, u64)>,
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

struct Reader<'a> {
    index: &'a Index,
    bits: u8,
    end: u64,
    size: u64,
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
    fn find(&self, byte: u64) -> Found {
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

/// What shape a random map has.
#[derive(Debug, Clone, Copy)]
struct Shape {
    bits: u8,
    big: bool,
    bit48: bool,
    unaligned: bool,
    partial: bool,
    scattered: bool,
}

fn map(random: &mut ChaCha8Rng, shape: Shape, count: usize) -> Vec<Extent> {
    let block = 1u64 << shape.bits;
    let mut at = block * random.random_range(1..1000);
    (0..count)
        .map(|_| {
            if shape.scattered && random.random_bool(0.1) {
                at = block * random.random_range(1..100_000);
            }
            let blocks = match shape.big {
                true if random.random_bool(0.7) => random.random_range(1..=16),
                _ => 1,
            };
            let plain = random.random_bool(0.2);
            let kind = match random.random_range(0..3) {
                _ if plain => Kind::Plain,
                0 if shape.bit48 => Kind::First,
                0 => Kind::Second,
                _ => Kind::First,
            };
            let (size, length) = match (plain, shape.unaligned) {
                (true, _) => (block, block),
                (false, false) => {
                    let size = blocks * block;
                    (size, size + random.random_range(1..30 * block))
                }
                (false, true) => (
                    random.random_range(20..blocks * block),
                    random.random_range(1..9 * block),
                ),
            };
            let extent = Extent {
                length: length as u32,
                size: size as u32,
                at,
                kind,
                partial: shape.partial && !plain && random.random_bool(0.2),
            };
            at += size;
            extent
        })
        .collect()
}

fn check(map: &FileMap<'_>, form: Form, end: u64) -> u16 {
    let index = encode(map, form, end).unwrap();
    let reader = Reader {
        index: &index,
        bits: form.block_bits,
        end,
        size: map.size(),
    };
    let mut begin = 0;
    for extent in map.extents {
        let expected = |begin| Found {
            begin,
            kind: [0, 1, 3][extent.kind as usize],
            partial: extent.partial,
            cluster: Some((extent.at, extent.size.into())),
        };
        let length = u64::from(extent.length);
        for byte in [0, 1.min(length - 1), length / 2, length - 1] {
            assert_eq!(
                reader.find(begin + byte),
                expected(begin),
                "{begin} + {byte}: {map:?}"
            );
        }
        begin += length;
    }
    if map.tail != Tail::None {
        for byte in [begin, begin + map.tail.length() - 1] {
            let found = reader.find(byte);
            assert_eq!((found.begin, found.cluster), (begin, None), "{map:?}");
        }
    }
    index.layout
}

#[test]
fn what_is_encoded_is_decoded() {
    let seed = rand::rng().next_u64();
    println!("seed {seed}");
    let random = &mut ChaCha8Rng::seed_from_u64(seed);
    let mut layouts = [0; 4];
    for round in 0..3000 {
        let flag = |random: &mut ChaCha8Rng| random.random_bool(0.3);
        let bit48 = flag(random);
        let shape = Shape {
            bits: random.random_range(9..=16),
            big: round % 2 == 0,
            bit48,
            unaligned: bit48 && flag(random),
            partial: flag(random),
            scattered: flag(random),
        };
        let count = random.random_range(0..40);
        let extents = map(random, shape, count);
        let block = 1 << shape.bits;
        let fragment_at = random.random_range(0..1 << 33);
        let tail = match random.random_range(0..4) {
            0 => Tail::Inline {
                length: random.random_range(1..3 * block),
                size: random.random_range(1..block.min(4096)) as u16,
                kind: Kind::First,
            },
            1 if !shape.unaligned => Tail::Fragment {
                length: random.random_range(1..3 * u64::from(block)),
                at: fragment_at & if count == 0 { u64::MAX } else { fragment_at },
            },
            _ if count == 0 => continue,
            _ => Tail::None,
        };
        let tail = match tail {
            Tail::Inline { .. } if shape.unaligned => Tail::None,
            tail => tail,
        };
        if extents.is_empty() && !matches!(tail, Tail::Inline { .. }) {
            continue;
        }
        let map = FileMap {
            extents: &extents,
            tail,
            algorithms: [0, 2],
            big: shape.big,
            interlaced: false,
        };
        let form = Form {
            block_bits: shape.bits,
            bit48,
        };
        let end = [32, 64, 44, 76, 48, 120][random.random_range(0..6)];
        layouts[usize::from(check(&map, form, end))] += 1;
    }
    assert!(
        layouts[1] > 200 && layouts[3] > 200,
        "both forms were tried: {layouts:?}"
    );
}

/// One long extent: distances beyond what an entry holds, and records of 4 bytes.
#[test]
fn long_extents() {
    for bits in [9, 12] {
        for (length, bit48) in [(3 << 20, false), (3 << 20, true), ((2 << 20) + 5, false)] {
            let extents = [0, 1, 2].map(|number| Extent {
                length,
                size: 8 << bits,
                at: (100 + 8 * number) << bits,
                kind: Kind::First,
                partial: false,
            });
            for extents in [&extents[..1], &extents] {
                let map = FileMap {
                    extents,
                    tail: Tail::None,
                    algorithms: [3, 0],
                    big: true,
                    interlaced: false,
                };
                let form = Form {
                    block_bits: bits,
                    bit48,
                };
                let index = encode(&map, form, 32).unwrap();
                let reader = Reader {
                    index: &index,
                    bits,
                    end: 32,
                    size: map.size(),
                };
                for byte in (0..map.size()).step_by(77_777).chain([map.size() - 1]) {
                    let number = byte / u64::from(length);
                    let found = reader.find(byte);
                    assert_eq!(found.cluster.unwrap().0, (100 + 8 * number) << bits);
                    if !bit48 {
                        assert_eq!(found.begin, number * u64::from(length));
                    }
                }
                if bit48 && extents.len() == 1 {
                    assert_eq!(index.bytes.len(), 8 + 8 + 4);
                }
            }
        }
    }
}

#[test]
fn crowded_blocks_are_refused() {
    let extent = |length, at| Extent {
        length,
        size: 4096,
        at,
        kind: Kind::Plain,
        partial: false,
    };
    let map = |extents| FileMap {
        extents,
        tail: Tail::None,
        algorithms: [0, 0],
        big: false,
        interlaced: false,
    };
    let form = Form {
        block_bits: 12,
        bit48: false,
    };
    let crowded = [extent(4096, 4096), extent(100, 8192), extent(4096, 12288)];
    assert_eq!(
        encode(&map(&crowded), form, 32),
        Err(IndexError::Crowded(4096))
    );
    let last = [extent(4096, 4096), extent(100, 8192)];
    assert_eq!(check(&map(&last), form, 32), layout::COMPRESSED_COMPACT);
}

/// A file that is a fragment as a whole needs one word.
#[test]
fn a_whole_fragment() {
    let map = FileMap {
        extents: &[],
        tail: Tail::Fragment {
            length: 77,
            at: 0x12_3456_789a,
        },
        algorithms: [3, 0],
        big: true,
        interlaced: false,
    };
    let form = Form {
        block_bits: 12,
        bit48: false,
    };
    let index = encode(&map, form, 32).unwrap();
    assert_eq!(index.bytes, 0x8000_0012_3456_789au64.to_le_bytes());
}
