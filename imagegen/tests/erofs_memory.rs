//! A walk down a deep tree of large directories, in little memory. A program of its own,
//! because it asks how much the whole program took.
#![allow(clippy::unwrap_used, clippy::panic)] // all of it is a test

#[allow(dead_code)] // not all of it is needed here
#[path = "erofs_reader/raw.rs"]
mod raw;

use imagegen::erofs::read::{Image, Step};
use raw::{Raw, plain};

/// Most memory this program took so far, in bytes.
fn most() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_walk_keeps_few_entries_whatever_the_depth() {
    const DEPTH: usize = 400;
    const NAMES: usize = 4000;
    let mut raw = Raw::new(16);
    let nids: Vec<u64> = (0..DEPTH).map(|_| raw.reserve(0)).collect();
    let file = raw.reserve(0);
    raw.inode(file, 0, plain(0o100_644), &[]);
    for (depth, nid) in nids.iter().enumerate() {
        let names = (0..NAMES).map(|number| (format!("{number:04}").into_bytes(), file, 1));
        let mut names: Vec<_> = names.collect();
        if let Some(below) = nids.get(depth + 1) {
            (names[0].1, names[0].2) = (*below, 2);
        }
        raw.directory(*nid, nids[depth.saturating_sub(1)], names);
    }
    let bytes = raw.finish(nids[0], 0, 0);
    let before = most();
    let image = Image::open(&bytes[..]).unwrap();
    let mut walk = image.walk(image.root().unwrap());
    let (mut directories, mut nodes) = (0, 0);
    while let Some(step) = walk.next() {
        match step {
            Step::Enter(_) => directories += 1,
            Step::Node(_) => nodes += 1,
            Step::Leave => {}
            Step::Broken(error) => panic!("{error}"),
        }
    }
    assert_eq!((directories, nodes), (DEPTH, DEPTH * NAMES - (DEPTH - 1)));
    // The cache of metadata takes 16 MiB of it.
    let took = most() - before;
    assert!(took < 48 << 20, "{took} bytes for {} of image", bytes.len());
}
