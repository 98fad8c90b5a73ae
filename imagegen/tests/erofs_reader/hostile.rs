//! Images that are small and ask for much: time, memory and lists stay small, too.

use crate::raw::{Name, Raw, entries, plain};
use imagegen::erofs::check::{Kind, check};
use imagegen::erofs::dump;
use imagegen::erofs::extract::{self, extract};
use imagegen::erofs::format::compressed::{Index, MapHeader, kind};
use imagegen::erofs::format::inode::{Compact, Extended, layout};
use imagegen::erofs::format::superblock::{self, Superblock, algorithm, incompat};
use imagegen::erofs::format::{U16, U32, U64};
use imagegen::erofs::list;
use imagegen::erofs::read::{Image, Step};
use imagegen::tree::Progress;
use std::io::{self, Write};
use std::mem::offset_of;
use zerocopy::IntoBytes;

/// Inodes whose attributes, which overlap, all end where one table of chunks begins.
#[test]
fn a_map_that_many_inodes_share_is_not_looked_at_for_each() {
    const INODES: usize = 200;
    const CHUNKS: usize = 16 << 10;
    let mut raw = Raw::new(12);
    let root = raw.reserve(0);
    let first = raw.room(INODES * 32, 32);
    let table = raw.room(12 + CHUNKS * 4, 4) + 12;
    let mut names: Vec<Name> = Vec::new();
    for number in 0..INODES as u64 {
        let at = first + number * 32;
        let inode = Compact {
            format: U16::new(layout::CHUNKS << 1),
            xattr_count: U16::new(((table - at - 32 - 12) / 4 + 1) as u16),
            mode: 0o100_644.into(),
            nlink_or_high: 1.into(),
            size: U32::new((CHUNKS << 12) as u32),
            ..Compact::default()
        };
        raw.put(at, inode.as_bytes());
        names.push((format!("{number:03}").into_bytes(), at / 32, 1));
    }
    raw.directory(root, root, names);
    let bytes = raw.finish(root, incompat::CHUNKED_FILE, 0);
    let report = check(&bytes[..], Vec::new(), &Progress::default());
    let said = report.problems.iter();
    let said = said.filter(|problem| problem.text.contains("more extents up to it"));
    let kinds: Vec<_> = said.map(|problem| problem.kind).collect();
    assert_eq!(kinds, [Kind::Space], "{:?}", report.problems.first());
}

/// A sink that takes a mebibyte.
struct Mebibyte(usize);

impl Write for Mebibyte {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        match self.0 {
            0..0x10_0000 => Ok(bytes.len()),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// 512 MiB of directory, forty million names, all of it the same compressed cluster; and a
/// metabox that says it has a TiB.
fn endless() -> Vec<u8> {
    const CLUSTERS: usize = 64;
    const CLUSTER: usize = 8 << 20;
    let mut raw = Raw::new(12);
    let root = raw.reserve(16 + CLUSTERS * 8);
    let metabox = raw.reserve(0);
    let mut block = entries(&vec![(b".".to_vec(), root, 2); 4096 / 13]);
    block.resize(4096, 0);
    let mut packed = [0; 4096];
    let bytes = block.repeat(CLUSTER / 4096);
    let length = zstd_safe::compress(&mut packed[..], &bytes, 15).unwrap();
    packed.rotate_right(4096 - length);
    let cluster = raw.blocks(&packed);
    let header = MapHeader {
        algorithms: algorithm::ZSTD,
        cluster_bits: 11,
        ..MapHeader::default()
    };
    let index = Index {
        advise: U16::new(kind::HEAD1.into()),
        offset: 0.into(),
        value: U32::new(cluster as u32),
    };
    let after = [
        header.as_bytes(),
        &[0; 8],
        &index.as_bytes().repeat(CLUSTERS),
    ]
    .concat();
    let inode = Extended {
        size: U64::new((CLUSTERS * CLUSTER) as u64),
        nlink: 2.into(),
        ..plain(0o040_755)
    };
    raw.inode(root, layout::COMPRESSED_FULL, inode, &after);
    let hole = Extended {
        size: U64::new(1 << 40),
        data: u32::MAX.into(),
        ..plain(0o100_644)
    };
    raw.inode(metabox, layout::PLAIN, hole, &[]);
    let features = incompat::COMPRESSION_CONFIGS | incompat::METABOX;
    let mut bytes = raw.finish(root, features, 1 << algorithm::ZSTD);
    let at = superblock::AT as usize;
    bytes[at + offset_of!(Superblock, extension_slots)] = 1;
    bytes[at + superblock::SIZE..][..8].copy_from_slice(&metabox.to_le_bytes());
    bytes
}

#[test]
fn a_directory_without_end_ends() {
    let bytes = endless();
    let image = Image::open(&bytes[..]).unwrap();
    let root = image.root().unwrap();
    let mut walk = image.walk(root.clone());
    assert!(matches!(walk.next(), Some(Step::Enter(_))));
    match walk.next() {
        Some(Step::Broken(error)) => assert!(error.to_string().contains("more names"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(walk.next().is_none());
    let report = check(&bytes[..], Vec::new(), &Progress::default());
    assert!(report.found > 0);
    // Block by block: nobody waits for the last.
    for json in [false, true] {
        let mut sink = Mebibyte(0);
        let shown = dump::inode(&image, &root, "/".into(), json, &mut sink);
        assert!(shown.output.is_err());
    }
}

/// More names than are kept for the way back, in directories one in the other.
#[test]
fn what_a_walk_lets_go_it_reads_again() {
    const DEPTH: usize = 40;
    let mut raw = Raw::new(16);
    let nids: Vec<u64> = (0..DEPTH).map(|_| raw.reserve(0)).collect();
    let file = raw.reserve(0);
    raw.inode(file, 0, plain(0o100_644), &[]);
    let name = |number: usize| format!("{number:04}").into_bytes();
    for (depth, nid) in nids.iter().enumerate() {
        let mut names: Vec<_> = (0..2000).map(|number| (name(number), file, 1)).collect();
        if let Some(below) = nids.get(depth + 1) {
            names[1000] = (name(1000), *below, 2);
        }
        raw.directory(*nid, nids[depth.saturating_sub(1)], names);
    }
    let bytes = raw.finish(nids[0], 0, 0);
    let image = Image::open(&bytes[..]).unwrap();
    let mut walk = image.walk(image.root().unwrap());
    let (mut depth, mut nodes, mut next) = (0usize, 0, vec![]);
    while let Some(step) = walk.next() {
        let last = walk.path().rsplit(|byte| *byte == b'/').next().unwrap();
        match step {
            Step::Enter(_) => {
                depth += 1;
                next.push(0);
                assert!(depth == 1 || last == b"1000");
            }
            Step::Node(_) => {
                nodes += 1;
                let next = next.last_mut().unwrap();
                *next += usize::from(*next == 1000 && depth < DEPTH);
                assert_eq!(last, name(*next), "depth {depth}");
                assert_eq!(walk.path().len(), depth * 5 - 1);
                *next += 1;
            }
            Step::Leave => {
                depth -= 1;
                assert_eq!(next.pop(), Some(2000));
            }
            Step::Broken(error) => panic!("{error}"),
        }
    }
    assert_eq!(nodes, DEPTH * 2000 - (DEPTH - 1));
}

#[test]
fn lists_of_problems_have_an_end() {
    const NAMES: u64 = 12_000;
    let mut raw = Raw::new(12);
    let root = raw.reserve(0);
    let names = (0..NAMES).map(|number| (format!("{number:05}").into_bytes(), 1 << 40, 1));
    let names = names.collect();
    raw.directory(root, root, names);
    let bytes = raw.finish(root, 0, 0);
    let image = Image::open(&bytes[..]).unwrap();
    let root = image.root().unwrap();
    let listed = list::list(
        &image,
        root.clone(),
        b"",
        list::Options::default(),
        &mut io::sink(),
    );
    assert_eq!((listed.damaged.len(), listed.found), (10_000, NAMES));
    let out = tempfile::tempdir().unwrap();
    let options = extract::Options::default();
    let progress = Progress::default();
    let report = extract(&image, root, b"", out.path(), options, &progress).unwrap();
    assert_eq!(
        (report.damaged.len(), report.damaged_found),
        (10_000, NAMES)
    );
}
