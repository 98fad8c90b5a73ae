//! Damages of what says where contents lie, and of compressed contents.

use super::{Damage, damage};
use crate::patient::Patient;
use imagegen::erofs::check::Kind::{Contents, Inode, Map, Space, Superblock};
use imagegen::erofs::format::compressed::{Index, MapHeader};
use imagegen::erofs::format::{U16, U32, U64, chunk, compressed};
use imagegen::erofs::read::Where;

pub(super) const FLAT: &[Damage] = &[
    damage("contents beyond the end", Map, |p| {
        p.inode("noise", |i| i.data = 1_000_000.into());
    }),
    damage("a tail that crosses a block", Map, |p| {
        p.inode("sizes/text-100", |i| i.size = 4090.into());
    }),
    damage("two files in the same blocks", Space, |p| {
        let block = p.find("noise").data as u32;
        p.inode("mixed", |i| i.data = block.into());
    }),
    damage("a file over inodes", Space, |p| {
        let block = p.find("mixed").at / 4096;
        p.inode("noise", |i| i.data = (block as u32).into());
    }),
];

pub(super) const CHUNKS: &[Damage] = &[
    damage("unknown format", Inode, |p| {
        p.inode("noise", |i| i.data |= U32::new(1 << 12));
    }),
    damage("a chunk beyond the end", Map, |p| {
        let indexes = p.find("noise").data as u32 & chunk::format::INDEXES != 0;
        let at = p
            .body("noise")
            .next_multiple_of(if indexes { 8 } else { 4 });
        let at = at + if indexes { 4 } else { 0 };
        p.modify(at, |block: &mut U32| *block = 1_000_000.into());
    }),
    damage("a table beyond the end", Map, |p| {
        p.inode("noise", |i| i.size = U64::new(1 << 50));
    }),
];

/// Where the map header of a file lies.
fn header(p: &Patient, path: &str) -> u64 {
    p.body(path).next_multiple_of(compressed::MAP_ALIGN)
}

/// The entry of a cluster in full indexes.
fn full(p: &mut Patient, path: &str, number: u64, change: impl FnOnce(&mut Index)) {
    let at = header(p, path) + 16 + number * 8;
    p.modify(at, change);
}

pub(super) const FULL: &[Damage] = &[
    damage("an extent that begins beyond its cluster", Map, |p| {
        full(p, "large", 0, |index| index.offset = 5000.into());
    }),
    damage("the first cluster has no head", Map, |p| {
        full(p, "large", 0, |index| {
            index.advise = 2.into();
            index.value = 1.into();
        });
    }),
    damage("a head that is itself", Map, |p| {
        full(p, "large", 1, |index| {
            index.advise = 2.into();
            index.value = 0.into();
        });
    }),
    damage("a count of blocks where all have one", Map, |p| {
        full(p, "large", 1, |index| {
            index.advise = 2.into();
            index.value = U32::new(compressed::BLOCK_COUNT.into());
        });
    }),
    damage("a block beyond the end", Map, |p| {
        full(p, "large", 0, |index| index.value = 1_000_000.into());
    }),
    damage("plain, longer than its blocks", Map, |p| {
        full(p, "large", 0, |index| index.advise = 0.into());
    }),
    damage("an algorithm that does not exist", Map, |p| {
        let at = header(p, "large");
        p.modify(at, |h: &mut MapHeader| h.algorithms = 9);
    }),
    damage("an algorithm that the superblock does not name", Map, |p| {
        let at = header(p, "large");
        p.modify(at, |h: &mut MapHeader| h.algorithms = 2);
    }),
    damage("the same cluster twice", Space, |p| {
        let extents = p.extents("large");
        let Where::Device(_, at, _) = extents[0].place else {
            panic!("{extents:?}");
        };
        full(p, "similar", 0, |index| {
            assert_ne!(u64::from(index.value.get()), at / 4096);
            index.value = U32::new((at / 4096) as u32);
        });
    }),
    damage("nothing but zeroes", Contents, zeroes),
];

pub(super) const COMPACT: &[Damage] = &[
    damage("a fragment, but no packed inode", Map, |p| {
        let at = header(p, "large");
        p.modify(at, |h: &mut MapHeader| h.cluster_bits = 0x80);
    }),
    damage("one kind of head with several blocks", Map, |p| {
        let at = header(p, "large");
        p.modify(at, |h: &mut MapHeader| h.advise ^= U16::new(2));
    }),
    damage("clusters that are too large", Map, |p| {
        let at = header(p, "large");
        p.modify(at, |h: &mut MapHeader| h.cluster_bits = 9);
    }),
    damage("nothing but inner clusters", Map, |p| {
        let at = header(p, "large") as usize + 8;
        p.bytes[at..at + 600].fill(0xaa);
    }),
    damage("a block number beyond the end", Map, |p| {
        let at = header(p, "large") as usize + 8;
        let pack = if at.is_multiple_of(32) {
            at + 28
        } else {
            at + 4
        };
        p.bytes[pack + 2] = 0x77;
    }),
    damage("garbage", Contents, garbage),
    damage("nothing but zeroes", Contents, zeroes),
];

pub(super) const ENCODED: &[Damage] = &[
    damage("more extents than fit", Map, |p| {
        let at = encoded(p);
        p.modify(at, |h: &mut MapHeader| {
            h.word = u32::MAX.into();
            h.advise |= U16::new(2 << 1);
        });
    }),
    damage("an order that cannot be", Map, |p| {
        let at = record(p) + 16 + 12;
        p.bytes[at..at + 4].fill(0xff);
    }),
    // A hole, and what follows is shorter than its cluster gives.
    damage("no extent for the first byte", Contents, |p| {
        let at = record(p) + 12;
        p.bytes[at] = 1;
    }),
    damage("an algorithm that does not exist", Map, |p| {
        let at = record(p);
        p.bytes[at + 3] = 0xf0;
    }),
    damage("a cluster of more than 1 MiB", Map, |p| {
        let at = record(p);
        p.bytes[at..at + 3].copy_from_slice(&[0xff, 0xff, 0x1f]);
    }),
    damage("garbage", Contents, garbage),
];

/// The map header of the large file, which has encoded extents.
fn encoded(p: &Patient) -> u64 {
    let at = header(p, "large");
    assert_eq!(p.bytes[at as usize + 4] & 1, 1, "no encoded extents");
    at
}

/// Its first record.
fn record(p: &Patient) -> usize {
    let at = encoded(p) as usize;
    let length = 4usize << ((p.bytes[at + 4] >> 1) & 3);
    let first = (at + 8).next_multiple_of(length);
    first + if length == 4 { 8 } else { 0 }
}

pub(super) const FRAGMENTS: &[Damage] = &[
    damage("a fragment beyond the packed inode", Map, |p| {
        let at = header(p, "mixed") as usize;
        p.bytes[at + 3] = 0x7f;
    }),
    damage("the packed inode in the metabox", Superblock, |p| {
        p.superblock(|sb| sb.packed_nid |= U64::new(1 << 63));
    }),
    damage("the packed inode a fragment of itself", Map, |p| {
        let packed = p.image().packed().unwrap().clone();
        let at = (packed.at + packed.length()).next_multiple_of(8) as usize;
        p.bytes[at + 7] |= 0x80;
    }),
];

pub(super) const GARBAGE: &[Damage] = &[
    damage("garbage", Contents, garbage),
    damage("nothing but zeroes", Contents, zeroes),
];

pub(super) const METABOX: &[Damage] = &[
    damage("no slot", Superblock, |p| {
        p.superblock(|sb| sb.extension_slots = 0)
    }),
    damage("the metabox in itself", Superblock, |p| {
        p.bytes[1024 + 128 + 7] |= 0x80;
    }),
    damage("the metabox beyond the end", Superblock, |p| {
        p.bytes[1024 + 128 + 5] = 1;
    }),
];

fn cluster(p: &Patient) -> (usize, usize) {
    let extents = p.extents("large");
    let mut extents = extents
        .iter()
        .filter(|extent| extent.coding.is_compressed());
    match extents.nth(1).unwrap().place {
        Where::Device(_, at, length) => (at as usize, length as usize),
        other => panic!("{other:?}"),
    }
}

fn garbage(p: &mut Patient) {
    let (at, length) = cluster(p);
    let mut state = 7u32;
    for byte in &mut p.bytes[at + length / 2..at + length] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
}

fn zeroes(p: &mut Patient) {
    let (at, length) = cluster(p);
    p.bytes[at..at + length].fill(0);
}
