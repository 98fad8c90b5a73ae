//! Maps of extents: in the inode, and as trees of one and more levels.

use crate::naive::{be16, be64};
use crate::placed::geometry;
use imagegen::xfs::format::checksum;
use imagegen::xfs::format::extent::{Extent, Packed};
use imagegen::xfs::geometry::Geometry;
use imagegen::xfs::write::ForkError;
use imagegen::xfs::write::fork_map::{InlineFork, blocks_needed, encode, inline_extents};
use proptest::prelude::*;
use std::collections::BTreeMap;
use zerocopy::FromBytes;

const INO: u64 = 77;

fn extents(count: usize) -> Vec<Extent> {
    let extent = |number: u64| Extent {
        offset: number * 3,
        block: 1_000_000 - number * 2,
        count: 1 + number % 2,
        unwritten: number.is_multiple_of(5),
    };
    (0..count as u64).map(extent).collect()
}

/// The tree's blocks by fsblock.
type Blocks = BTreeMap<u64, Vec<u8>>;

fn encoded(geometry: &Geometry, extents: &[Extent], space: usize) -> (InlineFork, Blocks) {
    let needed = blocks_needed(geometry, extents.len(), space).unwrap();
    let places: Vec<u64> = (0..needed)
        .map(|number| geometry.fsblock(2, 9) + number * 7)
        .collect();
    let mut blocks = Blocks::new();
    let fork = encode(
        geometry,
        INO,
        extents,
        space,
        &places,
        &mut |place, bytes| {
            assert_eq!(blocks.insert(place, bytes.to_vec()), None);
        },
    );
    assert!(places.iter().eq(blocks.keys()), "not all blocks were used");
    (fork.unwrap(), blocks)
}

fn records(bytes: &[u8]) -> Vec<Extent> {
    let packed = <[Packed]>::ref_from_bytes(bytes).unwrap();
    packed.iter().map(Extent::unpack).collect()
}

/// Encodes and decodes; returns how many levels are above the leaves, 0 for none at all.
fn levels(geometry: &Geometry, some: &[Extent], space: usize) -> u16 {
    let (fork, blocks) = encoded(geometry, some, space);
    assert!(fork.bytes.len() <= space);
    if fork.format == 2 {
        assert!(blocks.is_empty());
        assert_eq!(records(&fork.bytes), some);
        return 0;
    }
    assert_eq!(fork.format, 3);
    let bytes = &fork.bytes;
    let (level, count, most) = (be16(bytes, 0), be16(bytes, 2), (space - 4) / 16);
    assert!(level > 0 && count > 0);
    let mut children = pointers(bytes, 4, count.into(), most);
    let mut visited = 0;
    let mut found = Vec::new();
    for level in (0..level).rev() {
        visited += children.len();
        let mut below = Vec::new();
        for (slot, (key, place)) in children.iter().enumerate() {
            let bytes = &blocks[place];
            let neighbour = |slot: Option<usize>| {
                slot.and_then(|slot| children.get(slot))
                    .map_or(u64::MAX, |child| child.1)
            };
            header(geometry, bytes, *place, level);
            assert_eq!(be64(bytes, 8), neighbour(slot.checked_sub(1)));
            assert_eq!(be64(bytes, 16), neighbour(Some(slot + 1)));
            let (count, most) = (usize::from(be16(bytes, 6)), (bytes.len() - 72) / 16);
            assert!(count <= most && (children.len() == 1 || count >= most / 2));
            if level == 0 {
                let records = records(&bytes[72..72 + 16 * count]);
                assert_eq!(*key, records[0].offset);
                found.extend(records);
            } else {
                let inner = pointers(bytes, 72, count, most);
                assert_eq!(*key, inner[0].0);
                below.extend(inner);
            }
        }
        children = below;
    }
    assert_eq!(visited, blocks.len());
    assert_eq!(found, some);
    level
}

fn header(geometry: &Geometry, bytes: &[u8], place: u64, level: u16) {
    assert!(checksum::holds(bytes, 64));
    assert_eq!(bytes[..4], *b"BMA3");
    assert_eq!(be16(bytes, 4), level);
    assert_eq!(be64(bytes, 24), geometry.byte_of(place) / 512);
    assert_eq!(be64(bytes, 32), 0);
    assert_eq!(bytes[40..56], *geometry.uuid.as_bytes());
    assert_eq!(be64(bytes, 56), INO);
}

fn pointers(bytes: &[u8], at: usize, count: usize, most: usize) -> Vec<(u64, u64)> {
    assert!(count <= most);
    let pair = |slot| {
        (
            be64(bytes, at + 8 * slot),
            be64(bytes, at + 8 * (most + slot)),
        )
    };
    (0..count).map(pair).collect()
}

#[test]
fn the_inode_holds_what_it_can() {
    let geometry = geometry(12, 0);
    assert_eq!(inline_extents(336), 21);
    for (count, expected) in [(0, 0), (1, 0), (21, 0), (22, 1)] {
        assert_eq!(
            levels(&geometry, &extents(count), 336),
            expected,
            "{count} extents"
        );
    }
    assert_eq!(blocks_needed(&geometry, 21, 336), Ok(0));
    assert_eq!(blocks_needed(&geometry, 22, 336), Ok(1));
}

#[test]
fn levels_grow_when_the_root_is_full() {
    let (small, geometry) = (geometry(10, 0), geometry(12, 0));
    // A block of 4096 holds 251, one of 1024 59; a root of 336 bytes 20, of 100 bytes 6.
    assert_eq!(levels(&geometry, &extents(251 * 20), 336), 1);
    assert_eq!(levels(&geometry, &extents(251 * 20 + 1), 336), 2);
    assert_eq!(levels(&small, &extents(59 * 6), 100), 1);
    assert_eq!(levels(&small, &extents(59 * 6 + 1), 100), 2);
    assert_eq!(levels(&small, &extents(59 * 59 * 6), 100), 2);
    assert_eq!(levels(&small, &extents(59 * 59 * 6 + 1), 100), 3);
    assert_eq!(blocks_needed(&small, 59 * 6 + 1, 100), Ok(7 + 1));
}

#[test]
fn no_room_and_too_few_blocks_are_errors() {
    let geometry = geometry(12, 0);
    assert_eq!(blocks_needed(&geometry, 1, 16), Ok(0));
    assert_eq!(
        blocks_needed(&geometry, 2, 19),
        Err(ForkError::NoRoom { space: 19 })
    );
    assert_eq!(blocks_needed(&geometry, 2, 20), Ok(1));
    let result = encode(&geometry, INO, &extents(300), 336, &[5], &mut |_, _| {});
    assert_eq!(result, Err(ForkError::TooFewBlocks));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn whatever_goes_in_comes_out(
        count in prop_oneof![0..100_usize, 0..5000_usize, 0..200_000_usize],
        block_log in prop::sample::select(vec![10, 12, 16]),
        space in 36..=1872_usize,
    ) {
        levels(&geometry(block_log, 0), &extents(count), space);
    }
}
