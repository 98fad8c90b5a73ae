//! The same tree and options, the same bytes.

use crate::image::{Image, blocks_of, scratch};
use crate::kinds::all_kinds;
use crate::model::ROOT;
use crate::mount;
use crate::trees::observe::{assert_same, observe_bytes};
use imagegen::erofs::write::Options;
use imagegen::tree::{Directory, WalkOptions};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

#[test]
fn whatever_the_number_of_threads() {
    let mut tree = all_kinds();
    for number in 0..3000 {
        let file = tree.file(ROOT, format!("{number}"), number * 17);
        tree.xattr(file, "user.some", vec![1; number as usize % 700]);
        if number % 3 == 0 {
            tree.link(ROOT, format!("{number}-link"), file);
        }
    }
    for dedupe in [false, true] {
        let make = |threads| {
            let options = Options {
                threads,
                dedupe,
                chunk_size: dedupe.then_some(4096),
                ..Options::default()
            };
            Image::make(&tree, &options).unwrap().bytes()
        };
        let first = make(1);
        for threads in [1, 2, 5] {
            assert!(make(threads) == first, "{threads} threads, dedupe {dedupe}");
        }
    }
}

/// A directory with a little of everything.
fn fill(root: &Path) {
    let dir = root.join("dir");
    fs::create_dir_all(&dir).unwrap();
    for number in 0..300_usize {
        let path = dir.join(format!("file{number:03}"));
        fs::write(&path, vec![number as u8; number * 61]).unwrap();
        let mode = 0o600 | (number as u32 % 8);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        if number % 3 == 0 {
            fs::hard_link(&path, root.join(format!("z{number}"))).unwrap();
        }
    }
    fs::write(root.join("large"), vec![7; 5 << 20]).unwrap();
    let holes = File::create_new(root.join("holes")).unwrap();
    for at in [0, 3, 4, 100, 7000] {
        holes.write_all_at(&[1; 5000], at * 65_536).unwrap();
    }
    holes.set_len(7001 * 65_536 + 99).unwrap();
    symlink("file001", dir.join("link")).unwrap();
    symlink("x".repeat(3000), dir.join("long link")).unwrap();
    xattr::set(dir.join("file003"), "user.some", b"value").unwrap();
}

#[test]
fn a_mounted_image_equals_the_directory_it_was_made_from() {
    let source = scratch();
    let root = source.path().join("tree");
    fill(&root);
    let open = |threads| {
        let options = WalkOptions {
            threads,
            ..WalkOptions::default()
        };
        Directory::open(&root, &options).unwrap()
    };
    for block_size in [1024, 4096] {
        let image = Image::make(&open(0), &blocks_of(block_size)).unwrap();
        let again = Image::make(&open(3), &blocks_of(block_size)).unwrap();
        assert!(
            image.bytes() == again.bytes(),
            "the same directory, other bytes"
        );
        if mount::possible("erofs") {
            let mut meant = observe_bytes(&root, 4096);
            meant
                .values_mut()
                .for_each(|object| object.ctime = object.mtime);
            assert_same(&meant, &crate::seen(&image));
        }
    }
}

/// EROFS keeps no time of change, so it must not make the identity either.
#[test]
fn a_copy_of_a_directory_gives_the_same_bytes() {
    let source = scratch();
    let root = source.path().join("tree");
    let copy = source.path().join("copy");
    fill(&root);
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&root, &copy])
        .status();
    assert!(copied.unwrap().success());
    let bytes = |dir| {
        let tree = Directory::open(dir, &WalkOptions::default()).unwrap();
        Image::make(&tree, &Options::default()).unwrap().bytes()
    };
    assert!(bytes(&root) == bytes(&copy), "a copy, other bytes");
}
