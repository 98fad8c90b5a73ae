//! Sweeps over the sizes at which one form of a structure ends and the next begins.

use crate::image::blocks_of;
use crate::judge;
use crate::model::{ROOT, Tree, What};
use imagegen::erofs::write::Options;

/// Tails that just fit beside their inode, and just do not.
#[test]
fn tails_around_the_end_of_a_block() {
    for block in [512_u64, 4096] {
        let mut tree = Tree::new();
        for (number, size) in (block - 80..=block + 2)
            .chain(3 * block - 70..=3 * block + 1)
            .enumerate()
        {
            let file = tree.file(ROOT, format!("{number}"), size);
            if number % 3 == 0 {
                tree.xattr(file, "user.x", vec![b'v'; number % 50]);
            }
        }
        judge(&tree, &blocks_of(block as u32));
    }
}

/// Directories whose last block is just full, or whose end just fits beside the inode.
#[test]
fn directories_around_the_end_of_a_block() {
    for block in [512_usize, 4096] {
        let mut tree = Tree::new();
        // `.` and `..` take 27 bytes, every other entry 12 and its name.
        for (number, bytes) in (block - 100..block + 30)
            .chain(2 * block - 40..2 * block + 20)
            .enumerate()
        {
            let dir = tree.dir(ROOT, format!("{number}"));
            let mut left = bytes - 27;
            let mut entry = 0;
            while left >= 2 * (12 + 20) {
                tree.special(dir, format!("{entry:0>20}"), What::Fifo);
                (left, entry) = (left - 32, entry + 1);
            }
            tree.special(
                dir,
                format!("z{:0>width$}", 0, width = left - 13),
                What::Fifo,
            );
        }
        judge(&tree, &blocks_of(block as u32));
    }
}

/// Names that sort before, between and after a directory's own two.
#[test]
fn own_names_lie_where_they_sort() {
    let mut tree = Tree::new();
    for name in [
        "!",
        "-",
        "-.",
        ".-",
        "..-",
        "...",
        ".a",
        "/".replace('/', "0").as_str(),
        "+",
    ] {
        let dir = tree.dir(ROOT, name);
        tree.file(dir, name, 1);
    }
    let many = tree.dir(ROOT, "many");
    for number in 0..500 {
        tree.file(many, format!("!{number}"), 0);
        tree.file(many, format!("..{number}"), 0);
        tree.file(many, format!("a{number}"), 0);
    }
    judge(&tree, &Options::default());
    judge(&tree, &blocks_of(512));
}

/// A directory of many blocks, larger than what is held of one at a time.
#[test]
fn a_large_directory() {
    let mut tree = Tree::new();
    let dir = tree.dir(ROOT, "large");
    for number in 0..15_000 {
        tree.special(dir, format!("{number:0>60}"), What::Socket);
    }
    tree.file(ROOT, "zzz", 100_000);
    let image = judge(&tree, &Options::default());
    assert!(image.made.bytes > 1 << 20);
}

/// More blocks of inodes than are looked at for room while the root still waits for its
/// last entry.
#[test]
fn directories_that_wait_longer_than_others_are_held() {
    let mut tree = Tree::new();
    let (mut at, mut dirs) = (ROOT, Vec::new());
    for level in 0..30 {
        at = tree.dir(at, format!("{level}"));
        dirs.push(at);
    }
    for number in 0..4000 {
        tree.file(at, format!("{number}"), 1800);
    }
    for dir in dirs {
        tree.file(dir, "last", 7);
    }
    let image = judge(&tree, &Options::default());
    assert!(image.made.bytes > 6 << 20);
}

/// Links in directories entered before and after their object.
#[test]
fn names_that_come_long_after_the_object() {
    let mut tree = Tree::new();
    let (first, second) = (tree.dir(ROOT, "a"), tree.dir(ROOT, "b"));
    for number in 0..3000_u32 {
        let file = tree.file(first, format!("{number:05}"), 0);
        if number % 3 != 0 {
            tree.link(second, format!("{:05}", number * 7919 % 3000), file);
        }
        tree.objects[file].outside = number % 2;
    }
    judge(&tree, &Options::default());
}
