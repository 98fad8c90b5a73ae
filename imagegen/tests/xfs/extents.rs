//! Every form of a file's map of extents: in the inode, trees of one and more levels;
//! files larger than memory, disks and common sense.

use crate::db::{ask, question};
use crate::image::{Image, MIB, TIB, sized};
use crate::judge;
use crate::model::{Id, ROOT, Tree};
use crate::tools::Suite;
use std::collections::BTreeSet;

/// A file of `count` extents: every second block is a hole.
fn holed(tree: &mut Tree, name: &str, count: u64, block: u64) -> Id {
    let ranges = (0..count)
        .map(|number| 2 * number * block..(2 * number + 1) * block)
        .collect();
    tree.sparse(ROOT, name, 2 * count * block, ranges)
}

/// Formats of files as xfs_db sees them: 2 extents in the inode, 3 a tree; and levels.
fn forms(image: &Image, names: &[String]) -> Option<BTreeSet<(u64, u64)>> {
    let question = |name: &String| question(&[&format!("path /{name}"), "print"]);
    let questions: Vec<_> = names.iter().map(question).collect();
    let answers = ask(Suite::Newest, image, &questions)?;
    let level = |answer: &crate::db::Answer| match answer.fields().contains_key("u3.bmbt.level") {
        true => answer.number("u3.bmbt.level"),
        false => 0,
    };
    Some(
        answers
            .iter()
            .map(|answer| (answer.number("core.format"), level(answer)))
            .collect(),
    )
}

#[test]
fn last_extent_in_the_inode_and_first_tree() {
    for (inode_size, attribute) in [(512, 0), (512, 150), (1024, 0), (2048, 1200)] {
        let mut tree = Tree::new();
        let counts: Vec<u64> = (0..=24).chain(40..=60).chain(90..=130).collect();
        for count in &counts {
            let file = holed(&mut tree, &format!("{count}"), *count, 4096);
            tree.xattr(file, "user.room", vec![b'a'; attribute]);
        }
        let mut options = sized(300 * MIB);
        options.inode_size = inode_size;
        let image = judge(&tree, &options);
        let names: Vec<String> = counts.iter().map(u64::to_string).collect();
        if let Some(met) = forms(&image, &names) {
            assert_eq!(met, BTreeSet::from([(2, 0), (3, 1)]));
        }
    }
}

/// A leaf of 1 KiB holds 59 extents, a node 59 children, the root in the inode some 18:
/// trees of 1, 2 and 3 levels and the steps between them.
#[test]
fn trees_of_several_levels() {
    let mut tree = Tree::new();
    let counts = [
        59, 60, 118, 119, 900, 1000, 1003, 1004, 1061, 1062, 1063, 1120, 1121, 1180, 1181, 3481,
        3482, 75_000,
    ];
    for count in counts {
        holed(&mut tree, &format!("{count}"), count, 1024);
    }
    let mut options = sized(400 * MIB);
    options.block_size = 1024;
    let image = judge(&tree, &options);
    let names: Vec<String> = counts.iter().map(u64::to_string).collect();
    if let Some(met) = forms(&image, &names) {
        assert_eq!(met, BTreeSet::from([(3, 1), (3, 2), (3, 3)]));
    }
}

#[test]
fn a_hundred_thousand_extents() {
    let mut tree = Tree::new();
    holed(&mut tree, "file", 100_000, 4096);
    judge(&tree, &sized(900 * MIB));
}

#[test]
fn files_of_many_tebibytes() {
    let mut tree = Tree::new();
    let largest = i64::MAX as u64;
    for (number, size) in [
        1,
        16 * TIB,
        1024 * TIB,
        largest / 2,
        largest - 4096,
        largest,
    ]
    .into_iter()
    .enumerate()
    {
        // The kernel gives no page for the last bytes of all: no data there.
        let end = size.min(largest / 4096 * 4096 - 8192);
        let ranges = [0..1, end / 3..end / 3 + 70_000, end - 1..end];
        let ranges = if size == 1 {
            ranges[..1].to_vec()
        } else {
            ranges.to_vec()
        };
        tree.sparse(ROOT, format!("{number}"), size, ranges);
        tree.sparse(ROOT, format!("{number}-empty"), size, Vec::new());
    }
    judge(&tree, &sized(300 * MIB));
}

/// Data that begins and ends anywhere in blocks, several ranges in one block.
#[test]
fn data_that_knows_nothing_of_blocks() {
    let mut tree = Tree::new();
    for seed in 0..60_u64 {
        let mut ranges = Vec::new();
        let mut at = seed * 37;
        for step in 1..=seed {
            let length = 1 + (step * 1237 + seed * 911) % 9000;
            ranges.push(at..at + length);
            at += length + 1 + (step * 733) % 6000;
        }
        tree.sparse(ROOT, format!("{seed}"), at + seed, ranges);
    }
    for block_size in [1024, 4096, 65536] {
        let mut options = sized(400 * MIB);
        options.block_size = block_size;
        judge(&tree, &options);
    }
}

/// Files of more than a group: pieces in each.
#[test]
fn files_larger_than_groups() {
    let mut tree = Tree::new();
    let ranges = (0..5)
        .map(|part| part * 60 * MIB..part * 60 * MIB + 50 * MIB)
        .collect();
    tree.sparse(ROOT, "large", 300 * MIB, ranges);
    let mut options = sized(640 * MIB);
    options.groups = imagegen::xfs::geometry::Groups::Count(16);
    judge(&tree, &options);
}
