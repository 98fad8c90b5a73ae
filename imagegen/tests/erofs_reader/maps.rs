//! Encoded extents and indexes of forms that no mkfs.erofs is known to write, read as the
//! kernel does.

use crate::raw::{Raw, plain};
use imagegen::erofs::format::compressed::{BLOCK_COUNT, Extent, MapHeader, advise, kind};
use imagegen::erofs::format::inode::{Extended, layout};
use imagegen::erofs::format::{U16, U32, U64, superblock::incompat};
use imagegen::erofs::read::Image;
use zerocopy::IntoBytes;

/// An image whose root is a file of `size` bytes with these records after their header.
fn file(raw: &mut Raw, nid: u64, size: u64, header: MapHeader, records: &[u8]) {
    let inode = Extended {
        size: U64::new(size),
        ..plain(0o100_644)
    };
    let after = [header.as_bytes(), records].concat();
    raw.inode(nid, layout::COMPRESSED_FULL, inode, &after);
}

fn header(record: u16, count: u32) -> MapHeader {
    MapHeader {
        word: count.into(),
        advise: U16::new(advise::EXTENTS | record << advise::EXTENT_SIZE_SHIFT),
        ..MapHeader::default()
    }
}

/// Records of 4 bytes: where data lies is a sum of all before.
#[test]
fn sums_of_short_records_are_right_in_any_order() {
    const CLUSTERS: usize = 3000;
    let mut raw = Raw::new(9);
    let nid = raw.reserve(16 + CLUSTERS * 4);
    let data: Vec<u8> = (0..CLUSTERS)
        .flat_map(|number| [(number % 251) as u8; 512])
        .collect();
    let begin = raw.blocks(&data) << 9;
    let records = [begin.as_bytes(), &512u32.as_bytes().repeat(CLUSTERS)].concat();
    file(&mut raw, nid, data.len() as u64, header(0, 0), &records);
    let bytes = raw.finish(nid, incompat::BIT48, 0);
    let image = Image::open(&bytes[..]).unwrap();
    let inode = image.inode(nid).unwrap();
    let mut contents = image.contents(&inode).unwrap();
    let mut number = 1;
    for _ in 0..5000 {
        number = number * 1103 % 3001 % CLUSTERS;
        let mut byte = [0; 2];
        contents
            .read_exact_at(number as u64 * 512 + 7, &mut byte)
            .unwrap();
        assert_eq!(byte, [(number % 251) as u8; 2], "cluster {number}");
        number += 1;
    }
}

#[test]
fn what_no_record_speaks_of_is_a_hole() {
    let mut raw = Raw::new(12);
    let (one, two) = (raw.reserve(24), raw.reserve(24));
    let block = raw.blocks(&[7; 4096]);
    let record = Extent {
        length: 4096.into(),
        at_low: U32::new((block << 12) as u32),
        logical_low: 4096.into(),
        ..Extent::default()
    };
    file(
        &mut raw,
        one,
        8192,
        header(2, 1),
        &[&[0; 8], &record.as_bytes()[..16]].concat(),
    );
    file(&mut raw, two, 8192, header(2, 0), &[0; 16]);
    let bytes = raw.finish(one, incompat::BIT48, 0);
    let image = Image::open(&bytes[..]).unwrap();
    for (nid, last) in [(one, 7), (two, 0)] {
        let mut contents = image.contents(&image.inode(nid).unwrap()).unwrap();
        let mut seen = [1; 8192];
        contents.read_exact_at(0, &mut seen).unwrap();
        assert!(seen[..4096].iter().all(|byte| *byte == 0));
        assert!(seen[4096..].iter().all(|byte| *byte == last));
    }
}

/// Block numbers of compact indexes are sums in 32 bits: what a pack begins with may belong
/// to a cluster of more blocks than there are before the next one.
#[test]
fn packs_may_count_from_below_0() {
    let mut raw = Raw::new(12);
    let nid = raw.reserve(24);
    let block = raw.blocks(&[7; 4096]);
    let header = MapHeader {
        advise: U16::new(advise::BIG_CLUSTER_1 | advise::BIG_CLUSTER_2),
        ..MapHeader::default()
    };
    let entry = |kind: u8, low: u16| u16::from(kind) << 12 | low;
    let count = block as u16 + 1;
    let packs = [
        [entry(kind::PLAIN, 0), entry(kind::HEAD1, 0)],
        [
            entry(kind::NONHEAD, BLOCK_COUNT | count),
            entry(kind::PLAIN, 0),
        ],
    ];
    let mut after = header.as_bytes().to_vec();
    for (entries, base) in packs.iter().zip([block as u32, u32::MAX]) {
        after.extend(entries.iter().flat_map(|entry| entry.to_le_bytes()));
        after.extend(base.to_le_bytes());
    }
    let inode = Extended {
        size: U64::new(4 * 4096),
        ..plain(0o100_644)
    };
    raw.inode(nid, layout::COMPRESSED_COMPACT, inode, &after);
    let bytes = raw.finish(nid, 0, 0);
    let image = Image::open(&bytes[..]).unwrap();
    let mut contents = image.contents(&image.inode(nid).unwrap()).unwrap();
    for cluster in [0, 3] {
        let mut seen = [0; 4096];
        contents.read_exact_at(cluster * 4096, &mut seen).unwrap();
        assert_eq!(seen, [7; 4096], "cluster {cluster}");
    }
}
