//! Sizes that follow from the tree: it fits, little is left over, and what was asked to be
//! free is free for users, by the kernel's own count.

use crate::assert_sound;
use crate::image::{Image, MIB, sized};
use crate::model::{ROOT, Tree};
use crate::mount::{self, How, Mounted};
use imagegen::xfs::geometry::{Groups, LogSize, Options};
use imagegen::xfs::make::{MakeError, Size};

/// The smallest file system that is chosen.
const LEAST: u64 = 16 * MIB + (256 << 10);

/// What was made, judged.
fn made(tree: &Tree, size: Size, options: &Options) -> Image {
    let image = Image::of_size(tree, size, options, false);
    let image = image.unwrap_or_else(|error| panic!("{size:?}: {error}"));
    assert_sound(tree, &image);
    image
}

/// Attributes in a block of their own, with their own trees' blocks: far more than files
/// of this size usually take.
fn attributes() -> Tree {
    let mut tree = Tree::new();
    for number in 0..12_000_u32 {
        let file = tree.file(ROOT, format!("{number}"), 0);
        tree.xattr(file, "user.large", vec![number as u8; 1000]);
    }
    tree
}

/// Targets that do not fit into the inode.
fn links() -> Tree {
    let mut tree = Tree::new();
    for number in 0..20_000_u32 {
        tree.symlink(ROOT, format!("{number}"), vec![b'a'; 600]);
    }
    tree
}

/// A file whose map is a tree.
fn pieces() -> Tree {
    let mut tree = Tree::new();
    let ranges = (0..40_000_u64).map(|piece| piece * 16384..piece * 16384 + 4096);
    tree.sparse(ROOT, "pieces", 40_000 * 16384, ranges.collect::<Vec<_>>());
    tree
}

/// Objects with so many names that their parents do not fit into the inode.
fn names() -> Tree {
    let mut tree = Tree::new();
    for number in 0..3000_u32 {
        let file = tree.file(ROOT, format!("{number}"), 10);
        for name in 0..20 {
            tree.link(ROOT, format!("{number}-{name}"), file);
        }
    }
    tree
}

/// At the size found the tree fits, and somewhat smaller it would not.
#[test]
fn the_smallest_size_is_nearly_that() {
    for tree in [attributes(), links(), pieces(), names()] {
        let options = sized(0);
        let image = made(&tree, Size::Minimal, &options);
        let smaller = image.size() - image.size() / 64 - 2 * MIB;
        if smaller >= LEAST {
            let smaller = Options {
                size: smaller,
                log_size: LogSize::Smallest,
                ..options
            };
            assert!(Image::make(&tree, &smaller).is_err(), "{}", image.size());
        }
    }
}

#[test]
fn an_empty_tree_takes_the_least() {
    let tree = Tree::new();
    assert_eq!(made(&tree, Size::Minimal, &sized(0)).size(), LEAST);
    // Blocks that large need more, which is no error.
    let mut options = sized(0);
    options.block_size = 65536;
    let image = made(&tree, Size::Minimal, &options);
    assert!(
        image.size() > LEAST && image.size() < 600 * MIB,
        "{}",
        image.size()
    );
    // Nor are options that ask for more.
    let mut options = sized(0);
    options.groups = Groups::Count(40);
    assert_eq!(made(&tree, Size::Minimal, &options).geometry.ag_count, 40);
}

#[test]
fn what_shall_be_free_is_free_for_users() {
    let mut small = Tree::new();
    small.file(ROOT, "file", 3 * MIB);
    let gib = 1024 * MIB;
    for (tree, size, wanted) in [
        (&small, Size::Free(50 * MIB), 50 * MIB),
        (&small, Size::Free(2 * gib), 2 * gib),
        (&names(), Size::Free(100 * MIB), 100 * MIB),
        (&small, Size::FreePercent(5), 0),
        (&attributes(), Size::FreePercent(50), 0),
    ] {
        let image = made(tree, size, &sized(0));
        if !mount::possible() {
            return;
        }
        let mounted = Mounted::new(&image, How::ReadOnly);
        let seen = rustix::fs::statvfs(mounted.root()).unwrap();
        mounted.end();
        let free = seen.f_bavail * seen.f_frsize;
        let wanted = match size {
            Size::FreePercent(percent) => image.size() / 100 * u64::from(percent),
            _ => wanted,
        };
        assert!(free >= wanted, "{size:?}: {free} of {}", image.size());
        let slack = 24 * MIB + image.size() / 16;
        let least = image.size() <= 300 * MIB;
        assert!(
            least || free - wanted <= slack,
            "{size:?}: {free} of {}",
            image.size()
        );
    }
}

/// The kernel makes no inodes beyond the percentage: it is raised where the usual one is
/// too little, and refused where a given one is.
#[test]
fn inodes_may_take_what_the_tree_needs() {
    let tree = names();
    let image = made(&tree, Size::Minimal, &sized(0));
    assert!(
        image.geometry.imax_percent > 5,
        "{}",
        image.geometry.imax_percent
    );
    let mut options = sized(0);
    options.imax_percent = Some(1);
    match Image::of_size(&tree, Size::Minimal, &options, false) {
        Err(MakeError::Option(error)) => {
            let text = error.to_string();
            assert!(text.contains("--imaxpct"), "{text}");
        }
        other => panic!("{:?}", other.map(|image| image.size())),
    }
}

/// Equal contents are kept once, and the size follows from that.
#[test]
fn equal_blocks_count_once() {
    let mut tree = Tree::new();
    let first = tree.file(ROOT, "0", 8 * MIB);
    for name in 1..10 {
        let file = tree.file(ROOT, name.to_string(), 8 * MIB);
        tree.objects[file].what = tree.objects[first].what.clone();
    }
    let plain = made(&tree, Size::Minimal, &sized(0));
    let shared = Image::of_size(&tree, Size::Minimal, &sized(0), true).unwrap();
    assert_sound(&tree, &shared);
    assert!(plain.size() > 80 * MIB && shared.size() < 32 * MIB);
    assert_eq!(shared.made.counts.shared_blocks, 9 * 2048);
}
