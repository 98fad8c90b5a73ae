//! Every form of a directory and the steps from one to the next.

use crate::db::{Answer, ask, question};
use crate::image::{Image, MIB, sized};
use crate::judge;
use crate::model::{Id, ROOT, Tree};
use crate::tools::Suite;
use imagegen::xfs::geometry::Options;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// Directories of every number of entries in `counts`, names of `length` bytes.
fn sweep(counts: RangeInclusive<usize>, length: usize) -> Tree {
    let mut tree = Tree::new();
    for count in counts {
        let dir = tree.dir(ROOT, format!("{count}"));
        fill(&mut tree, dir, count, length);
    }
    tree
}

fn fill(tree: &mut Tree, dir: Id, count: usize, length: usize) {
    for number in 0..count {
        tree.file(dir, format!("{number:0>length$}"), 0);
    }
}

/// Directory blocks of 1 KiB: all steps with few entries.
fn small_blocks(mut options: Options) -> Options {
    (options.block_size, options.dir_block_size) = (1024, Some(1024));
    options
}

/// Form of a directory, whether it has leaves, and how many free-index blocks.
type Form = (&'static str, bool, u64);

/// Forms of all directories of a sweep, as xfs_db sees them.
fn forms(image: &Image, counts: RangeInclusive<usize>) -> Option<BTreeSet<Form>> {
    let ask_for = |count| {
        question(&[
            &format!("path /{count}"),
            "print core.format core.size",
            "bmap",
        ])
    };
    let questions: Vec<_> = counts.map(ask_for).collect();
    let geometry = &image.geometry;
    let leaf_at = (32_u64 << 30) >> geometry.block_log;
    let form = |answer: Answer| {
        let extents = answer.extents();
        let blocks_in = |range: std::ops::Range<u64>| {
            let inside = extents.iter().filter(|(offset, ..)| range.contains(offset));
            inside.map(|(_, _, count)| count).sum::<u64>() >> geometry.dir_block_log
        };
        let leaves = blocks_in(leaf_at..2 * leaf_at) > 0;
        let free = blocks_in(2 * leaf_at..u64::MAX);
        match (answer.number("core.format"), blocks_in(0..leaf_at)) {
            (1, _) => ("short", leaves, free),
            (_, 1) if !leaves => ("block", leaves, free),
            _ => ("more", leaves, free),
        }
    };
    Some(
        ask(Suite::Newest, image, &questions)?
            .into_iter()
            .map(form)
            .collect(),
    )
}

/// Judges a sweep and asserts that it met all these forms and no others.
fn crosses(counts: RangeInclusive<usize>, length: usize, options: &Options, wanted: &[Form]) {
    let image = judge(&sweep(counts.clone(), length), options);
    if let Some(met) = forms(&image, counts) {
        assert_eq!(met, wanted.iter().copied().collect());
    }
}

#[test]
fn last_short_form_entry_and_first_block() {
    let steps = [("short", false, 0), ("block", false, 0)];
    crosses(0..=40, 8, &sized(300 * MIB), &steps);
    for (length, counts) in [(1, 0..=50), (100, 0..=6), (254, 0..=3)] {
        crosses(counts, length, &sized(300 * MIB), &steps);
    }
}

#[test]
fn last_block_and_first_leaf() {
    let steps = [("block", false, 0), ("more", true, 0)];
    crosses(85..=180, 8, &sized(300 * MIB), &steps);
    crosses(11..=16, 250, &sized(300 * MIB), &steps);
    crosses(22..=50, 8, &small_blocks(sized(300 * MIB)), &steps);
}

#[test]
fn last_leaf_and_first_node() {
    let steps = [("more", true, 0), ("more", true, 1)];
    crosses(490..=506, 8, &sized(300 * MIB), &steps);
    crosses(100..=125, 8, &small_blocks(sized(300 * MIB)), &steps);
}

/// A free-index block of 1 KiB knows 480 data blocks, of three such entries each.
#[test]
fn second_free_index_block() {
    let steps = [("more", true, 1), ("more", true, 2)];
    crosses(1436..=1444, 250, &small_blocks(sized(300 * MIB)), &steps);
}

/// Hash trees of two and three levels, and names whose hashes collide.
#[test]
fn many_levels_of_leaves_and_equal_hashes() {
    let mut tree = Tree::new();
    let dir = tree.dir(ROOT, "levels");
    fill(&mut tree, dir, 20_000, 12);
    let dir = tree.dir(ROOT, "collisions");
    for number in 0..700_u32 {
        tree.file(dir, colliding(number), 0);
    }
    judge(&tree, &small_blocks(sized(500 * MIB)));
    let mut tree = Tree::new();
    let dir = tree.dir(ROOT, "collisions");
    for number in 0..700_u32 {
        tree.file(dir, colliding(number), 0);
    }
    judge(&tree, &sized(300 * MIB));
}

/// Names of one hash: in every four bytes the lowest bit of the first and the highest of
/// the second meet in the same bit of the hash (`xfs_da_hashname`), so flipping both
/// changes nothing.
fn colliding(number: u32) -> Vec<u8> {
    let group = |bit: u32| match number >> bit & 1 {
        0 => *b"ABCD",
        _ => [b'A' ^ 1, b'B' ^ 0x80, b'C', b'D'],
    };
    (0..10).flat_map(group).collect()
}

/// 64 KiB directory blocks, of blocks of 4 KiB and of 1 KiB.
#[test]
fn directory_blocks_of_many_blocks() {
    for block_size in [1024, 4096] {
        let mut options = sized(600 * MIB);
        (options.block_size, options.dir_block_size) = (block_size, Some(65536));
        let mut tree = sweep(1..=12, 40);
        for (name, count) in [("block", 900), ("leaf", 2500), ("node", 9000)] {
            let dir = tree.dir(ROOT, name);
            fill(&mut tree, dir, count, 30);
        }
        judge(&tree, &options);
    }
}

/// Names of a hundred files, for the entries' sake: inodes have their own tests.
#[test]
fn a_million_entries_in_one_directory() {
    let mut tree = Tree::new();
    let files: Vec<Id> = (0..100)
        .map(|number| tree.file(ROOT, format!("{number}"), 0))
        .collect();
    let dir = tree.dir(ROOT, "million");
    for number in 0..1_000_000 {
        tree.link(dir, format!("{number:09}"), files[number % 100]);
    }
    let mut options = sized(600 * MIB);
    options.features.parent = false;
    judge(&tree, &options);
}
