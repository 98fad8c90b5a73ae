//! Images that are exactly full, trees that do not fit, many groups, and B-trees of groups
//! with several levels.

use crate::db::{ask, question};
use crate::image::{GIB, Image, MIB, TIB, sized};
use crate::model::{ROOT, Tree, What};
use crate::mount::{self, How, Mounted};
use crate::repair;
use crate::tools::Suite;
use crate::{assert_sound, judge};
use imagegen::xfs::geometry::{Groups, LogSize, Options};
use imagegen::xfs::write::{WriteError, WriteOptions};

/// The smallest size, up to `most` bytes, at which the tree fits, found by bisection.
fn smallest(tree: &Tree, options: &Options, least: u64, most: u64, step: u64) -> u64 {
    let fits = |size| {
        let mut options = options.clone();
        options.size = size;
        match Image::make(tree, &options) {
            Ok(_) => true,
            Err(WriteError::Full { path }) => {
                assert!(
                    path.starts_with('/'),
                    "an error that names no path: {path:?}"
                );
                false
            }
            Err(other) => panic!("{other}"),
        }
    };
    let (mut low, mut high) = (least, most);
    assert!(!fits(low) && fits(high));
    while high - low > step {
        let middle = (low + (high - low) / 2).next_multiple_of(step);
        *if fits(middle) { &mut high } else { &mut low } = middle;
    }
    high
}

/// One block less, and there is an error that names what did not fit; at the size found
/// the image is full and in order, and the kernel finds its reserves.
#[test]
fn exactly_full() {
    let mut tree = Tree::new();
    for number in 0..600 {
        let file = tree.file(ROOT, format!("{number}"), number * 300);
        tree.xattr(file, "user.some", vec![1; number as usize * 5]);
        tree.link(ROOT, format!("link{number}"), file);
    }
    for (groups, block_size) in [(2, 4096), (4, 4096), (3, 1024)] {
        let mut options = sized(0);
        (options.log_size, options.groups) = (LogSize::Smallest, Groups::Count(groups));
        options.block_size = block_size;
        let step = u64::from(block_size) * u64::from(groups);
        options.size = smallest(
            &tree,
            &options,
            64 * MIB / step * step,
            400 * MIB / step * step,
            step,
        );
        let image = judge(&tree, &options);
        if mount::possible() {
            let mounted = Mounted::new(&image, How::ReadWrite);
            // It may well be full for users; root's reserve lets removal work.
            std::fs::remove_file(mounted.root().join("599")).unwrap();
            let _ = std::fs::write(mounted.root().join("new"), vec![0; 3 << 20]);
            mounted.end();
            repair::assert_clean(&image.path(), image.geometry.ag_count);
        }
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let mut tree = Tree::new();
    let dir = tree.dir(ROOT, "dir");
    for number in 0..12 {
        tree.file(dir, format!("large{number:02}"), 40 * MIB);
    }
    let Err(error) = Image::make(&tree, &sized(300 * MIB)) else {
        panic!("480 MiB fit 300")
    };
    let text = error.to_string();
    assert!(
        text.starts_with("/dir/large0") && text.contains("no space left"),
        "{text}"
    );
}

/// As many groups as there can be inodes and files to fill some of each.
#[test]
fn hundreds_of_groups() {
    let mut tree = Tree::new();
    for number in 0..200 {
        let dir = tree.dir(ROOT, format!("dir{number}"));
        tree.file(dir, "large", MIB * (number % 9));
        (0..30).for_each(|entry| {
            tree.file(dir, format!("{entry}"), entry);
        });
    }
    let mut options = sized(6400 * MIB);
    (options.groups, options.log_size) = (Groups::Size(16 * MIB), LogSize::Smallest);
    let spread = WriteOptions {
        expected_blocks: Some(400_000),
        ..WriteOptions::default()
    };
    let image = Image::with(&tree, &options, spread).unwrap();
    assert_eq!(image.geometry.ag_count, 400);
    assert_sound(&tree, &image);
}

/// A device of many TiB: groups of 1 TiB, addresses beyond 32 bits.
#[test]
fn tens_of_tebibytes() {
    let mut tree = Tree::new();
    for number in 0..20 {
        let dir = tree.dir(ROOT, format!("dir{number}"));
        (0..20).for_each(|entry| {
            tree.file(dir, format!("{entry}"), entry * 999);
        });
    }
    let options = sized(12 * TIB + 3 * GIB);
    let spread = WriteOptions {
        expected_blocks: Some(options.size / 4096 / 50),
        ..WriteOptions::default()
    };
    let image = Image::with(&tree, &options, spread).unwrap();
    assert_sound(&tree, &image);
}

/// Levels of a tree of group 0 as its header says.
fn levels(image: &Image, header: &str, field: &str) -> Option<u64> {
    let answers = ask(Suite::Newest, image, &[question(&[header, "print"])])?;
    Some(answers[0].number(field))
}

/// Reverse mappings: every second block of a file has a further owner between.
#[test]
fn reverse_mappings_of_several_levels() {
    let mut tree = Tree::new();
    for number in 0..12_000 {
        tree.file(ROOT, format!("{number:06}"), 1);
    }
    let mut options = sized(300 * MIB);
    options.block_size = 1024;
    let image = judge(&tree, &options);
    if let Some(levels) = levels(&image, "agf 0", "rmaplevel") {
        assert!(levels >= 3, "{levels}");
    }
}

#[test]
fn inode_trees_of_several_levels() {
    let mut tree = Tree::new();
    for number in 0..60_000 {
        tree.special(ROOT, format!("{number:06}"), What::Fifo);
    }
    let mut options = sized(400 * MIB);
    (options.block_size, options.groups, options.imax_percent) = (1024, Groups::Count(1), Some(0));
    options.features.parent = false;
    let image = judge(&tree, &options);
    if let Some(levels) = levels(&image, "agi 0", "level") {
        assert!(levels >= 2, "{levels}");
    }
}

/// Free inodes kept free, in chunks of their own.
#[test]
fn free_inodes_that_were_asked_for() {
    let mut tree = Tree::new();
    (0..100).for_each(|number| {
        tree.file(ROOT, format!("{number}"), 10);
    });
    let wanted = WriteOptions {
        free_inodes: 50_000,
        ..WriteOptions::default()
    };
    let image = Image::with(&tree, &sized(400 * MIB), wanted).unwrap();
    assert!(image.made.free_inodes >= 50_000);
    assert_sound(&tree, &image);
    if let Some(levels) = levels(&image, "agi 0", "free_level") {
        assert!(levels >= 2, "{levels}");
    }
}

/// Shared blocks: one file's content many times, and files that share some blocks only.
#[test]
fn reference_counts_of_several_levels() {
    let mut tree = Tree::new();
    for number in 0..1000_u64 {
        for copy in 0..3 {
            let file = tree.file(ROOT, format!("{number}-{copy}"), 4096 * (1 + number % 5));
            if let What::File(data) = &mut tree.objects[file].what {
                data.seed = number;
                data.size += copy; // the last block is not the same
                data.ranges[0].end += copy;
            }
        }
    }
    let dedupe = WriteOptions {
        dedupe: true,
        ..WriteOptions::default()
    };
    let image = Image::with(&tree, &sized(400 * MIB), dedupe).unwrap();
    assert!(image.made.counts.shared_blocks > 1000);
    assert_sound(&tree, &image);
    if let Some(levels) = levels(&image, "agf 0", "refcntlevel") {
        assert!(levels >= 2, "{levels}");
    }
}
