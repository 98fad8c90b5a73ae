//! The map equals the kernel's, record for record, whole and in any range.

use crate::images::{FEATURES, Image, run as run_command, xfsprogs};
use imagegen::xfs::fsmap::{Flags, Fsmap, Mapping, Options, Owner, run};
use imagegen::xfs::read::{Reader, Source};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Range;

fn row(mapping: &Mapping) -> Value {
    let Flags {
        attribute_fork,
        extent_map,
        unwritten,
        shared,
    } = mapping.flags;
    let flags = u8::from(unwritten)
        | u8::from(attribute_fork) << 1
        | u8::from(extent_map) << 2
        | u8::from(shared) << 3;
    json!([
        mapping.start,
        mapping.length,
        mapping.owner,
        mapping.offset,
        flags
    ])
}

fn query<S: Source>(fsmap: &Fsmap<S>, range: Range<u64>) -> Vec<Value> {
    fsmap
        .query(range)
        .map(|mapping| row(&mapping.unwrap()))
        .collect()
}

/// Ranges of whole sectors: all, each group's edge, and many by chance.
fn ranges(size: u64, group: u64, seed: u64) -> Vec<Range<u64>> {
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut ranges = vec![0..size, 0..512, size - 512..size, group - 4096..group + 512];
    for _ in 0..150 {
        let long = [512, 4096, 1 << 16, 1 << 22, 1 << 28][random.random_range(0..5)];
        let start = random.random_range(0..size / 512 - 1) * 512;
        let length = random.random_range(0..=long / 512) * 512;
        ranges.push(start..(start + 512 + length).min(size));
    }
    ranges
}

fn equals_the_kernel(size: u64, options: &str, scale: f64) {
    let Some(image) = Image::filled(size, options, scale) else {
        return;
    };
    let fsmap = Fsmap::open(Reader::open(image.open()).unwrap());
    let group = u64::from(fsmap.geometry().ag_blocks) << fsmap.geometry().block_log;
    let ranges = ranges(fsmap.size(), group, 0x5eed);
    let words: Vec<_> = ranges
        .iter()
        .map(|r| format!("{}-{}", r.start, r.end))
        .collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let Some(mount) = image.mount("loop,ro") else {
        return;
    };
    let text = mount.python("getfsmap.py", &words);
    let mut seen = BTreeMap::new();
    for (range, line) in ranges.iter().zip(text.lines()) {
        let kernel: Vec<Value> = serde_json::from_str(line).unwrap();
        let ours = query(&fsmap, range.clone());
        for (index, (kernel, ours)) in kernel.iter().zip(&ours).enumerate() {
            assert_eq!(kernel, ours, "{options}: record {index} of {range:?}");
        }
        assert_eq!(kernel.len(), ours.len(), "{options}: records of {range:?}");
        for record in &ours {
            *seen.entry(record[4].to_string()).or_insert(0) += 1;
        }
    }
    if fsmap.knows_owners() {
        // Plain, unwritten, attributes, extent maps, shared: all of them were compared.
        for flags in ["0", "1", "2", "4"] {
            assert!(
                seen.contains_key(flags),
                "none with flags {flags}: {seen:?}"
            );
        }
        assert_eq!(
            seen.contains_key("8"),
            fsmap.geometry().features.reflink,
            "{seen:?}"
        );
    }
    // A second program that asks the kernel counts as many.
    let mut xfs_io = xfsprogs("xfs_io");
    xfs_io.args(["-r", "-c", "fsmap -m"]).arg(mount.path());
    let lines = run_command(&mut xfs_io).lines().count() - 1;
    assert_eq!(lines, query(&fsmap, 0..fsmap.size()).len());
}

const GIB: u64 = 1 << 30;

#[test]
fn defaults() {
    equals_the_kernel(GIB, "", 1.0);
}

#[test]
fn other_geometries() {
    equals_the_kernel(GIB, &format!("{FEATURES} -b size=1024"), 0.5);
    equals_the_kernel(GIB, &format!("{FEATURES} -s size=4096 -d agcount=7"), 0.3);
    equals_the_kernel(GIB, "-m rmapbt=1,reflink=0", 0.3);
}

#[test]
fn without_reverse_mappings() {
    equals_the_kernel(GIB, "-m rmapbt=0", 0.3);
}

/// An image that counts how often it is read.
struct Counted {
    file: File,
    reads: Cell<u64>,
}

impl Source for Counted {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.reads.set(self.reads.get() + 1);
        self.file.read_at(offset, buffer)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
}

#[test]
fn a_range_costs_only_the_blocks_that_lead_to_it() {
    let Some(image) = Image::filled(GIB, &format!("{FEATURES} -b size=1024"), 1.0) else {
        return;
    };
    let source = Counted {
        file: image.open(),
        reads: Cell::new(0),
    };
    let fsmap = Fsmap::open(Reader::open(source).unwrap());
    let reads = |range: Range<u64>| {
        let before = fsmap.reader().source().reads.get();
        let found = query(&fsmap, range).len();
        (fsmap.reader().source().reads.get() - before, found)
    };
    let (all, records) = reads(0..fsmap.size());
    assert!(
        records > 3000 && all > 60,
        "{records} records in {all} reads"
    );
    let levels = fsmap.reader().agf(0).unwrap();
    let levels = u64::from(levels.rmap_level.get() + levels.refcount_level.get());
    assert!(levels >= 4, "{levels} levels");
    for start in (0..fsmap.size()).step_by(37 << 20) {
        let (some, _) = reads(start..start + 512);
        assert!(
            some <= 1 + 2 * levels,
            "{some} reads for a sector at {start}"
        );
    }
}

/// Paths from the kernel's own walk, for every inode.
fn paths_agree(options: &str) {
    let Some(image) = Image::filled(GIB, options, 0.2) else {
        return;
    };
    let Some(mount) = image.mount("loop,ro") else {
        return;
    };
    let mut kernel: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for line in mount.python("dump.py", &[]).lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let path = value["path"]
            .as_str()
            .unwrap()
            .trim_start_matches('.')
            .to_owned();
        kernel
            .entry(value["ino"].as_u64().unwrap())
            .or_default()
            .insert(path);
    }
    let fsmap = Fsmap::open(Reader::open(image.open()).unwrap());
    let some = kernel.iter().enumerate().filter(|(index, (_, names))| {
        fsmap.geometry().features.parent || index % 400 == 0 || names.len() > 100
    });
    let mut compared = 0;
    for (_, (ino, names)) in some {
        let mut ours = BTreeSet::new();
        let mut add = |path: &[u8]| {
            ours.insert(String::from_utf8(path.to_vec()).unwrap());
        };
        fsmap.paths(*ino, &mut add).unwrap();
        assert_eq!(names, &ours, "inode {ino}");
        compared += 1;
    }
    assert!(compared >= 5);
    let mut json = Vec::new();
    let options = Options {
        paths: true,
        json: true,
        ..Options::default()
    };
    run(&fsmap, &options, &mut json).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let mappings = json["mappings"].as_array().unwrap();
    assert_eq!(mappings.len(), fsmap.query(0..fsmap.size()).count());
    for mapping in mappings {
        let Some(ino) = mapping["owner"].as_u64() else {
            assert!(mapping.get("paths").is_none());
            continue;
        };
        let ours = mapping["paths"].as_array().unwrap().iter();
        let ours: BTreeSet<_> = ours
            .map(|path| path.as_str().unwrap()[1..].to_owned())
            .collect();
        assert_eq!(Some(&ours), kernel.get(&ino), "inode {ino}");
    }
}

#[test]
fn paths_by_parent_pointers() {
    paths_agree("-m rmapbt=1 -n parent=1");
}

#[test]
fn paths_by_a_walk() {
    paths_agree(FEATURES);
}

#[test]
fn a_table_for_people() {
    let Some(image) = Image::filled(GIB, FEATURES, 0.1) else {
        return;
    };
    let fsmap = Fsmap::open(Reader::open(image.open()).unwrap());
    let mut text = Vec::new();
    let options = Options {
        range: Some(0..1 << 20),
        paths: true,
        json: false,
    };
    run(&fsmap, &options, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let first = fsmap.query(0..1).next().unwrap().unwrap();
    assert_eq!(first.owner, Owner::Headers);
    let words = [
        "static fs metadata",
        "inode btree",
        "free space",
        "/fragmented",
        "START",
    ];
    for word in words {
        assert!(text.contains(word), "no {word:?} in\n{text}");
    }
}
