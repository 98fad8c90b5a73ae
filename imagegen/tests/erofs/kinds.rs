//! Every kind of object, with what each can carry.

use crate::fsck;
use crate::image::{Image, blocks_of};
use crate::judge;
use crate::model::{ROOT, Tree, What};
use crate::mount::{self, Mounted};
use imagegen::erofs::write::{InodeForm, Options};
use imagegen::tree::Time;

const MIB: u64 = 1 << 20;

#[test]
fn nothing_but_a_root() {
    let image = judge(&Tree::new(), &Options::default());
    assert_eq!((image.made.counts.inodes, image.made.bytes), (1, 4096));
}

/// One of everything.
pub(crate) fn all_kinds() -> Tree {
    let mut tree = Tree::new();
    let dir = tree.dir(ROOT, "directory");
    let empty = tree.file(dir, "empty", 0);
    tree.file(dir, "byte", 1);
    tree.file(dir, "block", 4096);
    tree.file(dir, "more", 4097);
    let large = tree.file(dir, "large", 5 * MIB + 17);
    tree.sparse(
        dir,
        "holes",
        3 * MIB,
        vec![1..2, 8192..8193, 100_000..200_000, 2 * MIB..3 * MIB - 5],
    );
    tree.sparse(dir, "hole", 77 * MIB, Vec::new());
    tree.symlink(dir, "symlink", "target");
    tree.symlink(dir, "dangling", b"/no/such/\xff");
    tree.special(dir, "fifo", What::Fifo);
    tree.special(dir, "socket", What::Socket);
    tree.special(dir, "null", What::Char(1, 3));
    tree.special(dir, "whiteout", What::Char(0, 0));
    tree.special(dir, "disk", What::Block(511, 0x3ffff));
    let last = tree.special(dir, "last", What::Char(4095, 0xf_ffff));
    let other = tree.dir(dir, "other");
    for (number, id) in [empty, large, last].into_iter().enumerate() {
        tree.link(other, format!("link{number}"), id);
        tree.link(ROOT, format!("link{number}"), id);
    }
    tree.objects[large].outside = 3;
    tree
}

#[test]
fn one_of_everything_in_every_block_size() {
    for block_size in [512, 1024, 2048, 4096, 8192, 65_536] {
        judge(&all_kinds(), &blocks_of(block_size));
    }
}

#[test]
fn one_of_everything_with_every_option() {
    let with = |change: fn(&mut Options)| {
        let mut options = Options::default();
        change(&mut options);
        judge(&all_kinds(), &options)
    };
    with(|options| options.inodes = InodeForm::Extended);
    with(|options| options.bit48 = true);
    with(|options| options.inline_tails = false);
    with(|options| options.chunk_size = Some(64 << 10));
    with(|options| (options.chunk_size, options.dedupe) = (Some(4096), true));
}

#[test]
fn a_file_is_mounted_without_a_device() {
    let image = Image::make(&all_kinds(), &Options::default()).unwrap();
    if !mount::possible("erofs") {
        return;
    }
    let mounted = Mounted::file("erofs", &image.path(), &image.dir().join("mnt")).unwrap();
    let seen = crate::observe_bytes(mounted.root(), crate::COMPARED);
    mounted.end();
    crate::assert_same(&crate::meant(&all_kinds()), &seen);
}

#[test]
fn symbolic_links_of_every_length() {
    for block_size in [512, 4096] {
        let mut tree = Tree::new();
        for length in (1..=4095).step_by(if block_size == 512 { 7 } else { 1 }) {
            let target: Vec<u8> = (0..length).map(|at| b'a' + (at % 23) as u8).collect();
            tree.symlink(ROOT, format!("{length:04}"), target);
        }
        judge(&tree, &blocks_of(block_size));
    }
}

fn refusal(tree: &Tree, options: &Options) -> String {
    match Image::make(tree, options) {
        Ok(_) => panic!("taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_cannot_be_kept_is_refused_with_its_path() {
    let usual = Options::default();
    let mut tree = Tree::new();
    let dir = tree.dir(ROOT, "dir");
    tree.symlink(dir, "too-long", vec![b'x'; 4096]);
    let text = refusal(&tree, &usual);
    assert!(
        text.contains("/dir/too-long") && text.contains("4096"),
        "{text}"
    );

    let mut tree = Tree::new();
    tree.special(ROOT, "large", What::Block(4096, 0));
    let text = refusal(&tree, &usual);
    assert!(text.contains("/large") && text.contains("4096:0"), "{text}");

    let mut tree = Tree::new();
    let file = tree.file(ROOT, "nobody", 0);
    tree.objects[file].meta.uid = u32::MAX;
    assert!(refusal(&tree, &usual).contains("/nobody"));

    tree.objects[file].meta.uid = 70_000;
    let compact = Options {
        inodes: InodeForm::Compact,
        ..Options::default()
    };
    for id in [ROOT, file] {
        (tree.objects[id].meta.gid, tree.objects[ROOT].meta.uid) = (1, 1);
    }
    let text = refusal(&tree, &compact);
    assert!(text.contains("/nobody") && text.contains("owner"), "{text}");
}

#[test]
fn options_that_cannot_be() {
    let refused = |change: fn(&mut Options)| {
        let mut options = Options::default();
        change(&mut options);
        refusal(&Tree::new(), &options)
    };
    assert!(refused(|options| options.block_size = 256).contains("--block-size 256"));
    assert!(refused(|options| options.block_size = 5000).contains("--block-size 5000"));
    assert!(refused(|options| options.block_size = 1 << 17).contains("65536"));
    assert!(refused(|options| options.label = vec![b'x'; 17]).contains("17 bytes"));
    assert!(refused(|options| options.chunk_size = Some(2048)).contains("--chunk-size 2048"));
    assert!(refused(|options| options.chunk_size = Some(12_288)).contains("power of two"));
    assert!(refused(|options| options.dedupe = true).contains("--dedupe"));
    assert!(
        refused(|options| {
            (options.block_size, options.chunk_size, options.dedupe) = (512, Some(2048), true);
        })
        .contains("4096")
    );
    let prefix = |prefix: &str| {
        let options = Options {
            xattr_prefixes: vec![prefix.as_bytes().to_vec()],
            ..Options::default()
        };
        refusal(&Tree::new(), &options)
    };
    assert!(prefix("user.").contains("--xattr-prefix"));
    assert!(prefix("some.").contains("--xattr-prefix"));
}

#[test]
fn short_inodes_where_nothing_is_lost() {
    let mut tree = Tree::new();
    let time = Time {
        seconds: 1_700_000_000,
        nanoseconds: 5,
    };
    for number in 0..40 {
        tree.file(ROOT, format!("{number}"), 0);
    }
    for object in &mut tree.objects {
        (object.meta.uid, object.meta.gid, object.meta.mtime) = (1000, 65_535, time);
    }
    let short = judge(&tree, &Options::default());
    let long = Options {
        inodes: InodeForm::Extended,
        ..Options::default()
    };
    let long = judge(&tree, &long);
    let sizes = |image: &Image| inode_sizes(&image.bytes());
    assert_eq!(sizes(&short), (41, 0));
    assert_eq!(sizes(&long), (0, 41));
    // Each in its own way not to be said in 32 bytes.
    tree.objects[1].meta.uid = 65_536;
    tree.objects[2].meta.gid = 70_000;
    tree.objects[3].meta.mtime.seconds += 1;
    tree.objects[4].meta.mtime.nanoseconds += 1;
    assert_eq!(sizes(&judge(&tree, &Options::default())), (37, 4));
    // With seconds of their own, that one can.
    let bit48 = Options {
        bit48: true,
        ..Options::default()
    };
    assert_eq!(sizes(&judge(&tree, &bit48)), (38, 3));
}

/// Short and long inodes, counted by the entries of the root's first block.
fn inode_sizes(image: &[u8]) -> (usize, usize) {
    let word = |at: usize| u16::from_le_bytes(image[at..at + 2].try_into().unwrap());
    let incompat = word(1024 + 80);
    let root = match incompat & 0x80 {
        0 => u64::from(word(1024 + 14)),
        _ => u64::from_le_bytes(image[1024 + 112..1024 + 120].try_into().unwrap()),
    };
    let inode = root as usize * 32;
    let short = word(inode) & 1 == 0;
    let entries = inode + if short { 32 } else { 64 };
    let count = usize::from(word(entries + 8)) / 12;
    let mut found = (0, 0);
    let mut seen = std::collections::BTreeSet::new();
    for entry in 0..count {
        let at = entries + entry * 12;
        let nid = u64::from_le_bytes(image[at..at + 8].try_into().unwrap());
        if seen.insert(nid) {
            match word(nid as usize * 32) & 1 {
                0 => found.0 += 1,
                _ => found.1 += 1,
            }
        }
    }
    found
}

#[test]
fn times_and_owners_at_the_edges_of_what_can_be_said() {
    let mut tree = Tree::new();
    let times = [i64::from(i32::MIN), -1, 0, 1, 1 << 31, 1 << 32, 1 << 34];
    for (number, seconds) in times.into_iter().enumerate() {
        for nanoseconds in [0, 1, 999_999_999] {
            let id = tree.file(ROOT, format!("{number}-{nanoseconds}"), 0);
            tree.objects[id].meta.mtime = Time {
                seconds,
                nanoseconds,
            };
        }
    }
    for (number, owner) in [0, 1, 65_535, 65_536, u32::MAX - 1].into_iter().enumerate() {
        let id = tree.file(ROOT, format!("owner{number}"), 0);
        (tree.objects[id].meta.uid, tree.objects[id].meta.gid) = (owner, u32::MAX - 1 - owner);
    }
    judge(&tree, &Options::default());
    let bit48 = Options {
        bit48: true,
        ..Options::default()
    };
    judge(&tree, &bit48);
}

#[test]
fn names_of_any_bytes_and_any_length() {
    let mut tree = Tree::new();
    let dir = tree.dir(ROOT, b"\xff\xfe not utf-8");
    for byte in (1..=255_u8).filter(|byte| *byte != b'/' && *byte != b'.') {
        tree.file(dir, [byte], 0);
        tree.file(dir, [byte, b'\n'], 3);
    }
    tree.file(dir, "...", 0);
    for length in 1..=255 {
        tree.file(ROOT, vec![b'n'; length], 0);
        tree.dir(dir, vec![0x80 | length as u8; length.max(2)]);
    }
    judge(&tree, &Options::default());
    judge(&tree, &blocks_of(512));
}

#[test]
fn paths_longer_than_the_kernel_takes_at_once() {
    let mut tree = Tree::new();
    let mut at = ROOT;
    for level in 0..120 {
        tree.file(at, "file", level);
        at = tree.dir(at, format!("{level:0>60}"));
    }
    let image = Image::make(&tree, &Options::default()).unwrap();
    crate::compare(&tree, &image);
}

#[test]
fn the_superblock_says_what_was_asked() {
    let options = Options {
        label: b"some label".to_vec(),
        build_time: Some(1_700_000_000),
        ..Options::default()
    };
    let image = judge(&all_kinds(), &options);
    let bytes = image.bytes();
    assert_eq!(&bytes[1024 + 64..][..16], b"some label\0\0\0\0\0\0");
    let says = |name: &str| fsck::superblock(&image.path(), name);
    if let Some(inodes) = says("Filesystem inode count") {
        assert_eq!(inodes, image.made.counts.inodes.to_string());
        let blocks = (image.made.bytes / 4096).to_string();
        assert_eq!(says("Filesystem blocks:"), Some(blocks));
    }
}
