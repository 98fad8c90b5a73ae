//! Indexes against a decoder that does what readers do, entry by entry, and nothing else.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::naive::{Found, Reader};
use super::{Form, IndexError, encode};
use crate::erofs::compress::extent::{Extent, FileMap, Kind, Tail};
use crate::erofs::format::inode::layout;

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

/// Blocks that have more than 32 bits in their number are found without the option, too.
#[test]
fn blocks_beyond_32_bits_take_encoded_extents() {
    let block = 4096_u64;
    let extent = |number: u64| Extent {
        length: 10_000,
        size: block as u32,
        at: number * block,
        kind: Kind::First,
        partial: false,
    };
    let near = [extent(7), extent(u32::MAX.into())];
    let far = [extent(7), extent(1 << 32)];
    let form = Form {
        block_bits: 12,
        bit48: false,
    };
    let map = |extents, tail| FileMap {
        extents,
        tail,
        algorithms: [0, 2],
        big: false,
        interlaced: false,
    };
    let fragment = Tail::Fragment {
        length: 100,
        at: 1 << 33,
    };
    for tail in [Tail::None, fragment] {
        check(&map(&near[..], tail), form, 64);
        assert_eq!(
            check(&map(&far[..], tail), form, 64),
            layout::COMPRESSED_FULL
        );
    }
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

/// A pack begins with the count of a cluster that lies elsewhere and has more blocks than
/// there are before the next one: its number would be less than 0.
#[test]
fn packs_without_a_number_take_full_indexes() {
    let extent = |blocks: u32, number: u64| Extent {
        length: (blocks + 1) << 12,
        size: blocks << 12,
        at: number << 12,
        kind: Kind::First,
        partial: false,
    };
    let form = Form {
        block_bits: 12,
        bit48: false,
    };
    // Packs of 16 from the beginning on: the second begins with the count of 10 blocks.
    for (number, expected) in [
        (9, layout::COMPRESSED_FULL),
        (10, layout::COMPRESSED_COMPACT),
    ] {
        let (before, borrowed) = (extent(14, 486), extent(10, 500));
        let extents = [before, borrowed, extent(3, number), extent(4, number + 3)];
        let map = FileMap {
            extents: &extents,
            tail: Tail::None,
            algorithms: [0, 0],
            big: true,
            interlaced: false,
        };
        assert_eq!(check(&map, form, 56), expected);
    }
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
