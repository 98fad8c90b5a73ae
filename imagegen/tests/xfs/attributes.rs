//! Every form of attributes and the steps from one to the next: in the inode, one leaf,
//! a tree of leaves, values in blocks of their own; and parent pointers, which are
//! attributes too.

use crate::db::{Answer, ask, question};
use crate::image::{Image, MIB, sized};
use crate::judge;
use crate::model::{ROOT, Tree};
use crate::tools::Suite;
use std::collections::BTreeSet;

/// The format of the attribute fork of every path, as xfs_db sees it, with how many
/// extents it has: 1 in the inode, 2 extents, 3 a tree of extents.
fn forms(image: &Image, paths: &[String]) -> Option<BTreeSet<u64>> {
    let question = |path: &String| {
        question(&[
            &format!("path /{path}"),
            "print core.aformat core.naextents",
        ])
    };
    let questions: Vec<_> = paths.iter().map(question).collect();
    let answers = ask(Suite::Newest, image, &questions)?;
    Some(
        answers
            .iter()
            .map(|answer: &Answer| answer.number("core.aformat"))
            .collect(),
    )
}

#[test]
fn last_attributes_in_the_inode_and_first_leaf() {
    for inode_size in [512, 1024, 2048] {
        let mut tree = Tree::new();
        let mut paths = Vec::new();
        for length in (0..=256).chain(500..=530).chain((540..2000).step_by(13)) {
            let path = format!("{length:04}");
            let file = tree.file(ROOT, &path, 100);
            tree.xattr(file, "user.value", vec![b'v'; length]);
            paths.push(path);
        }
        for count in 1..=40 {
            let dir = tree.dir(ROOT, format!("d{count:03}"));
            (0..count).for_each(|number| tree.xattr(dir, format!("trusted.{number}"), "some"));
        }
        let mut options = sized(300 * MIB);
        options.inode_size = inode_size;
        let image = judge(&tree, &options);
        if let Some(met) = forms(&image, &paths) {
            assert_eq!(met, BTreeSet::from([1, 2]));
        }
    }
}

/// A leaf holds some 60 such attributes of 4 KiB; with blocks of 1 KiB, trees of two
/// levels are reached with few.
#[test]
fn last_leaf_and_first_node_and_deeper() {
    for block_size in [1024, 4096] {
        let mut tree = Tree::new();
        let counts = (8..24).chain(50..80).chain([300, 2000]);
        for count in counts {
            let file = tree.file(ROOT, format!("{count}"), 10);
            for number in 0..count {
                tree.xattr(
                    file,
                    format!("user.number-{number:06}"),
                    format!("{number:<40}"),
                );
            }
        }
        let mut options = sized(300 * MIB);
        options.block_size = block_size;
        judge(&tree, &options);
    }
}

/// Up to 64 KiB, around what a leaf still takes and around multiples of a remote block's
/// payload.
#[test]
fn values_in_blocks_of_their_own() {
    for block_size in [1024_usize, 4096, 16384] {
        let mut tree = Tree::new();
        let payload = block_size - 56;
        let leaf = block_size * 3 / 4;
        let edges = [leaf, payload, 2 * payload, 3 * payload, 65_536];
        let lengths = edges
            .into_iter()
            .flat_map(|edge| edge.saturating_sub(20)..edge + 3);
        for length in lengths.filter(|length| *length <= 65_536) {
            let file = tree.file(ROOT, format!("{length}"), 5);
            tree.xattr(
                file,
                "user.value",
                (0..length).map(|at| (at % 251) as u8).collect::<Vec<u8>>(),
            );
        }
        let many = tree.dir(ROOT, "many");
        for number in 0..60 {
            tree.xattr(
                many,
                format!("user.{number}"),
                vec![number as u8; 1000 * number],
            );
        }
        let mut options = sized(400 * MIB);
        options.block_size = block_size as u32;
        judge(&tree, &options);
    }
}

#[test]
fn names_of_attributes_of_any_length_and_equal_hash() {
    let mut tree = Tree::new();
    let file = tree.file(ROOT, "file", 10);
    for length in 1..=250 {
        tree.xattr(
            file,
            [b"user.".as_slice(), &vec![b'l'; length]].concat(),
            vec![b'x'; length],
        );
        if length % 5 == 0 && length <= 247 {
            // The list of names may have 64 KiB.
            tree.xattr(file, [&b"trusted."[..], &vec![b'l'; length]].concat(), "");
        }
    }
    let other = tree.file(ROOT, "collisions", 10);
    for number in 0..500_u32 {
        let group = |bit: u32| match number >> bit & 1 {
            0 => *b"ABCD",
            _ => [b'A' ^ 1, b'B' ^ 0x80, b'C', b'D'],
        };
        let name: Vec<u8> = b"user."
            .iter()
            .copied()
            .chain((0..9).flat_map(group))
            .collect();
        tree.xattr(other, name, format!("{number}"));
    }
    judge(&tree, &sized(300 * MIB));
}

#[test]
fn parent_pointers_of_many_links() {
    let mut tree = Tree::new();
    for count in (1..=40).chain(60..=90) {
        let dir = tree.dir(ROOT, format!("{count:03}"));
        let file = tree.file(dir, "first", 0);
        for number in 1..count {
            tree.link(dir, format!("link-{number:010}"), file);
        }
    }
    // Directories have one each, of every length.
    for length in 1..=255 {
        tree.dir(ROOT, vec![b'd'; length]);
    }
    judge(&tree, &sized(300 * MIB));
}

#[test]
fn a_file_of_twenty_thousand_names() {
    let mut tree = Tree::new();
    let file = tree.file(ROOT, "file", 12345);
    for number in 0..20_000 {
        let dir = if number % 1000 == 0 {
            tree.dir(ROOT, format!("{number}"))
        } else {
            tree.objects.len() - 1
        };
        tree.link(dir, format!("link-number-{number}"), file);
    }
    judge(&tree, &sized(300 * MIB));
}
