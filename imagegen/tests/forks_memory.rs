//! A directory of a million entries, and a million parent pointers of one inode, in
//! little memory. A program of its own, because it asks how much the whole program took.
#![allow(clippy::unwrap_used)] // all of it is a test

#[allow(dead_code)] // only the file system is needed here
#[path = "forks/placed.rs"]
mod placed;

use imagegen::xfs::write::attributes::Attributes;
use imagegen::xfs::write::directory::Directory;

/// Most memory this program took so far, in bytes.
fn most() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse::<u64>().unwrap() * 1024
}

fn name(number: u64) -> String {
    format!("a-name-of-medium-size-{number:07}")
}

#[test]
fn a_million_names_take_60_megabytes() {
    let geometry = placed::geometry(12, 0);
    let before = most();
    let mut directory = Directory::new(&geometry, 131, 128);
    for number in 0..1_000_000 {
        directory.push(name(number).as_bytes(), number, 1).unwrap();
    }
    let fork = directory.finish(336).unwrap();
    let mut written = 0;
    fork.encode(&|offset| offset & 0xf_ffff, &mut |_, bytes| {
        written += bytes.len()
    });
    assert!(written > 40_000_000);
    let directory = most() - before;
    assert!(directory < 60_000_000, "a directory took {directory} bytes");
    drop(fork);

    let before = most();
    let mut parents = Attributes::new(&geometry);
    for number in 0..1_000_000 {
        parents
            .push_parent(name(number).as_bytes(), 131, 1)
            .unwrap();
    }
    let fork = parents.finish(140, 100).unwrap();
    fork.encode(&|offset| offset, &mut |_, _| {});
    let more = most() - before;
    assert!(more < 60_000_000, "parent pointers took {more} bytes more");
}
