//! Targets: a file shows only when it is whole, a device only if nobody needs it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod contents;
#[path = "../tools/mod.rs"]
mod tools;

use imagegen::medium::Medium;
use imagegen::target::{Overwrite, Present, Target, TargetError, capacity};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tools::Loop;

const MIB: u64 = 1 << 20;

/// These tests take turns: a child that another one starts keeps all open files, their locks
/// and their room, until it is the program it shall be.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn entries(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn create(path: &Path, size: u64) -> Target {
    Target::create(path, size, Overwrite::Refuse).unwrap()
}

#[test]
fn a_file_appears_when_it_is_whole_and_keeps_holes() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let target = create(&path, 64 * MIB);
    target.write(5 * MIB, b"middle").unwrap();
    target.write(64 * MIB - 3, b"end").unwrap();
    assert_eq!(entries(dir.path()), Vec::<String>::new());
    target.finish(true).unwrap();
    assert_eq!(entries(dir.path()), ["image"]);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, 64 * MIB);
    assert_eq!(&bytes[5 << 20..][..6], b"middle");
    assert_eq!(&bytes[bytes.len() - 3..], b"end");
    assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 9);
    let meta = fs::metadata(&path).unwrap();
    assert!(meta.blocks() * 512 < MIB, "holes are lost");
    let plain = dir.path().join("plain");
    File::create(&plain).unwrap();
    let usual = fs::metadata(&plain).unwrap().permissions().mode();
    assert_eq!(meta.permissions().mode(), usual);
}

#[test]
fn a_file_that_grows_has_the_size_it_is_given_in_the_end() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    for (expected, end) in [(0, 7 * MIB), (64 * MIB, 5), (1 << 60, 3 * MIB)] {
        let path = dir.path().join(format!("image{expected}"));
        let target = Target::growing(&path, expected, Overwrite::Refuse).unwrap();
        target.write(end - 3, b"end").unwrap();
        target.write(0, b"b").unwrap();
        target.finish_at(end, false).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, end);
        assert!(bytes.starts_with(b"b") && bytes.ends_with(b"end"));
    }
}

#[test]
fn what_is_dropped_leaves_nothing() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let target = create(&dir.path().join("image"), MIB);
    target.write(0, b"half").unwrap();
    drop(target);
    assert_eq!(entries(dir.path()), Vec::<String>::new());
}

#[test]
fn an_existing_file_stays_until_it_is_replaced_by_force() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    fs::write(&path, "mine").unwrap();
    let refused = Target::create(&path, MIB, Overwrite::Refuse).unwrap_err();
    assert!(matches!(refused, TargetError::Exists { .. }), "{refused}");
    assert!(refused.to_string().contains("--force"), "{refused}");

    let target = Target::create(&path, MIB, Overwrite::Force).unwrap();
    target.write(0, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    drop(target);
    assert_eq!(fs::read(&path).unwrap(), b"mine");

    let target = Target::create(&path, MIB, Overwrite::Force).unwrap();
    target.write(0, b"new").unwrap();
    target.finish(false).unwrap();
    assert_eq!(&fs::read(&path).unwrap()[..4], b"new\0");
    assert_eq!(entries(dir.path()), ["image"]);
}

#[test]
fn a_file_that_comes_meanwhile_is_not_lost() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let target = create(&path, MIB);
    fs::write(&path, "theirs").unwrap();
    let refused = target.finish(true).unwrap_err();
    assert!(matches!(refused, TargetError::Exists { .. }), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), b"theirs");
    assert_eq!(entries(dir.path()), ["image"]);
}

#[test]
fn a_link_stays_and_what_it_leads_to_is_replaced() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink("file", &link).unwrap();
    let target = Target::create(&link, 4096, Overwrite::Force).unwrap();
    target.finish(false).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&file).unwrap().len(), 4096);
}

/// What nobody else may read must not become readable by being replaced.
#[test]
fn what_replaces_a_file_has_its_mode_and_owner() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let is_root = std::os::unix::fs::chown(&path, Some(1234), Some(4321)).is_ok();
    let target = Target::create(&path, 4096, Overwrite::Force).unwrap();
    target.finish(false).unwrap();
    let new = fs::metadata(&path).unwrap();
    assert_eq!((new.len(), new.mode() & 0o7777), (4096, 0o600));
    if is_root {
        assert_eq!((new.uid(), new.gid()), (1234, 4321));
    }
}

#[test]
fn a_file_in_use_is_not_replaced() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    fs::write(&path, "theirs").unwrap();
    let refused = || Target::create(&path, 4096, Overwrite::Force).unwrap_err();
    let theirs = File::open(&path).unwrap();
    theirs.lock_shared().unwrap();
    assert!(matches!(refused(), TargetError::InUse { .. }));
    drop(theirs);
    // Nor one that somebody else replaces just now.
    let target = Target::create(&path, 4096, Overwrite::Force).unwrap();
    assert!(matches!(refused(), TargetError::InUse { .. }));
    drop(target);
    assert_eq!(fs::read(&path).unwrap(), b"theirs");
}

#[test]
fn a_link_to_nothing_is_refused() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("nothing", &link).unwrap();
    for overwrite in [Overwrite::Refuse, Overwrite::Force] {
        let refused = Target::create(&link, 4096, overwrite).unwrap_err();
        assert!(refused.to_string().contains("leads nowhere"), "{refused}");
    }
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

/// A file of 4 MiB that is all hole.
fn origin(dir: &Path) -> PathBuf {
    let path = dir.join("origin");
    File::create(&path).unwrap().set_len(4 * MIB).unwrap();
    path
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

fn refused(path: &Path) -> TargetError {
    Present::open(path, Overwrite::Refuse).unwrap_err()
}

#[test]
fn an_empty_file_is_written_in_place_and_keeps_its_length() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = origin(dir.path());
    let before = inode(&path);
    let present = Present::open(&path, Overwrite::Refuse).unwrap();
    assert_eq!(present.size(), 4 * MIB);
    let second = refused(&path);
    assert!(matches!(second, TargetError::InUse { .. }), "{second}");
    let target = present.begin(3 * MIB).unwrap();
    target.write(MIB, b"here").unwrap();
    assert!(target.write(3 * MIB, b"beyond").is_err());
    target.finish(true).unwrap();
    assert_eq!(inode(&path), before);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, 4 * MIB);
    assert_eq!(&bytes[1 << 20..][..5], b"here\0");
    let present = Present::open(&path, Overwrite::Force).unwrap();
    let small = present.begin(5 * MIB).unwrap_err();
    assert!(matches!(small, TargetError::TooSmall { .. }), "{small}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "refused and changed");
}

#[test]
fn what_does_not_get_whole_in_place_leaves_an_empty_file() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = origin(dir.path());
    let present = Present::open(&path, Overwrite::Refuse).unwrap();
    let target = present.begin(4 * MIB).unwrap();
    target.write(MIB, b"half").unwrap();
    drop(target);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, 4 * MIB);
    assert!(bytes.iter().all(|byte| *byte == 0));
    drop(Present::open(&path, Overwrite::Refuse).unwrap());
}

#[test]
fn a_file_that_holds_anything_is_written_over_by_force_only() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = origin(dir.path());
    let file = File::options().write(true).open(&path).unwrap();
    for (at, bytes, said) in [
        (4 * MIB - 1, &b"x"[..], "byte 4194303 is not zero"),
        (2 * MIB + 7, b"x", "byte 2097159 is not zero"),
        (0, b"XFSB", "XFS"),
    ] {
        file.write_all_at(bytes, at).unwrap();
        let refused = refused(&path).to_string();
        assert!(refused.contains(said), "{refused}");
        assert!(refused.contains("--force"), "{refused}");
        let mut kept = vec![0; bytes.len()];
        let open = File::open(&path).unwrap();
        open.read_exact_at(&mut kept, at).unwrap();
        assert_eq!(kept, bytes, "refused and changed");
    }
    let present = Present::open(&path, Overwrite::Force).unwrap();
    let target = present.begin(4 * MIB).unwrap();
    target.write(0, b"new").unwrap();
    target.finish(true).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!((bytes.len() as u64, &bytes[..4]), (4 * MIB, &b"new\0"[..]));
    assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 3);
}

#[test]
fn zeroes_that_take_room_are_no_contents() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("zeroes");
    fs::write(&path, vec![0; 3 << 20]).unwrap();
    drop(Present::open(&path, Overwrite::Refuse).unwrap());
    for path in [dir.path(), Path::new("/dev/null")] {
        let refused = Present::open(path, Overwrite::Force).unwrap_err();
        assert!(matches!(refused, TargetError::Unsuitable { .. }));
    }
    let nowhere = refused(&dir.path().join("nowhere")).to_string();
    assert!(nowhere.contains("nowhere"), "{nowhere}");
}

#[test]
fn only_files_and_block_devices_will_do() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let cases = [
        (dir.path(), "a directory"),
        (Path::new("/dev/null"), "a character device"),
        (&fifo, "a named pipe"),
    ];
    for (path, kind) in cases {
        let refused = Target::create(path, MIB, Overwrite::Force).unwrap_err();
        assert!(refused.to_string().contains(kind), "{refused}");
    }
    let nowhere = dir.path().join("no/such/place");
    let refused = Target::create(&nowhere, MIB, Overwrite::Refuse).unwrap_err();
    assert!(refused.to_string().contains("no/such/place"), "{refused}");
    assert_eq!(capacity(dir.path()).unwrap(), None);
}

#[test]
fn threads_write_where_they_say_and_not_beyond_the_end() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let target = create(&path, 8 * MIB);
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let target = &target;
            scope.spawn(move || {
                for piece in (u64::from(thread) * 4096..8 * MIB).step_by(8 * 4096) {
                    target.write(piece, &[thread + 1; 4096]).unwrap();
                }
            });
        }
    });
    for (at, length) in [(8 * MIB - 1, 2), (u64::MAX, 1), (9 * MIB, 0)] {
        let error = target.write(at, &vec![1; length]).unwrap_err();
        assert!(error.to_string().contains("beyond"), "{error}");
        assert!(target.zero(at, length as u64).is_err());
    }
    target.finish(false).unwrap();
    let bytes = fs::read(&path).unwrap();
    let right =
        |(piece, bytes): (usize, &[u8])| bytes.iter().all(|b| usize::from(*b) == piece % 8 + 1);
    assert!(bytes.chunks(4096).enumerate().all(right));
}
