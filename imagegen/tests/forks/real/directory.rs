//! Directories the kernel reads, changes and leaves in order; and what it would have
//! written itself.

use super::{Image, Placing, allocate, number};
use crate::naive::{self, Entry, Form};
use crate::placed::{Layout, Placed};
use imagegen::xfs::write::directory::{Directory, DirectoryFork};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(super) type Name = Vec<u8>;

pub(super) fn path(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

/// Bytes set aside for what is put in.
pub(super) const SPARE: u64 = 64 << 20;

const PLAIN: [&str; 4] = ["-m", "rmapbt=0,reflink=0", "-n", "parent=0"];

/// Options without parent pointers: newer tools make them unless told not to, older
/// ones do not know the word.
fn options<'a>(more: &[&'a str]) -> Vec<Vec<&'a str>> {
    let words = |plain: &[&'a str]| [plain, more].concat();
    vec![words(&PLAIN), words(&PLAIN[..2])]
}

pub(super) fn image(test: &str, more: &[&str]) -> Option<Image> {
    let [newer, older] = &options(more)[..] else {
        unreachable!()
    };
    let knows = super::tool("mkfs.xfs")
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stderr).contains("parent=0|1"));
    Image::make(test, if knows { newer } else { older })
}

pub(super) fn names(count: usize) -> Vec<Name> {
    let name = |number: usize| format!("{number}-{}", "n".repeat(number * 7 % 60)).into();
    (0..count).map(name).collect()
}

/// Puts a directory of `count` names of one file in place of an empty one.
fn kernel_takes(test: &str, options: &[&str], count: usize) {
    kernel_takes_names(test, options, &names(count), Layout::Together);
}

fn kernel_takes_names(test: &str, options: &[&str], names: &[Name], layout: Layout) {
    let Some(image) = image(test, options) else {
        return;
    };
    let (dir, file, spare) = image.mounted(|root| {
        let (dir, file) = (root.join("dir"), root.join("file"));
        fs::create_dir(&dir).unwrap();
        fs::write(&file, "x").unwrap();
        let spare = allocate(&root.join("blocks"), SPARE);
        (number(&dir), number(&file), spare)
    });
    let directory = fork(&image, dir, file, names);
    image.patch(file, |core, _| {
        core.nlink = (core.nlink.get() + names.len() as u32).into();
    });
    put(&image, dir, &directory, spare, layout);
    image.judge();
    image.mounted(|root| use_it(root, names, file));
    image.judge();
}

/// Puts a directory's fork into inode `dir`, its blocks taken from file `spare`.
pub(super) fn put(image: &Image, dir: u64, fork: &DirectoryFork<'_>, spare: u64, layout: Layout) {
    image.patch(dir, |core, forks| {
        core.size = fork.size().into();
        let bytes = fork.short_form().unwrap_or_default();
        forks[..bytes.len()].copy_from_slice(bytes);
    });
    if fork.short_form().is_none() {
        let placing = Placing::of(image, &fork.ranges(), spare, layout);
        let mut write = |fsblock, bytes: &[u8]| image.write(fsblock, bytes);
        fork.encode(&|offset| placing.place(offset), &mut write);
        placing.map(image, dir, false, spare);
    }
}

fn fork<'a>(image: &'a Image, dir: u64, file: u64, names: &[Name]) -> DirectoryFork<'a> {
    let root = image.geometry.root_inode();
    let mut directory = Directory::new(&image.geometry, dir, root);
    for name in names {
        directory.push(name, file, 1).unwrap();
    }
    directory.finish(image.fork(dir, false).1).unwrap()
}

/// Looks every name up, takes some away, adds others, and lists what there is.
pub(super) fn use_it(root: &Path, names: &[Name], file: u64) {
    let dir = root.join("dir");
    assert_eq!(list(&dir), names.iter().cloned().collect());
    for name in names {
        assert_eq!(number(&dir.join(path(name))), file, "{name:?}");
    }
    assert!(!dir.join("absent").exists());
    let mut expected: BTreeSet<Name> = names.iter().cloned().collect();
    for name in names.iter().step_by(7).take(5000) {
        fs::remove_file(dir.join(path(name))).unwrap();
        expected.remove(name);
    }
    for new in 0..3000 {
        let name = format!("new{new}{}", "x".repeat(new % 90)).into_bytes();
        fs::hard_link(root.join("file"), dir.join(path(&name))).unwrap();
        expected.insert(name);
    }
    assert_eq!(list(&dir), expected);
    let links = root.join("file").metadata().unwrap().nlink();
    assert_eq!(links, expected.len() as u64 + 1);
}

fn list(dir: &Path) -> BTreeSet<Name> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let names = fs::read_dir(dir).unwrap().map(name);
    names.map(|name| name.into_vec()).collect()
}

#[test]
fn the_kernel_takes_a_short_form() {
    kernel_takes("the_kernel_takes_a_short_form", &[], 5);
}

#[test]
fn the_kernel_takes_a_block() {
    kernel_takes("the_kernel_takes_a_block", &[], 50);
}

#[test]
fn the_kernel_takes_a_leaf() {
    kernel_takes("the_kernel_takes_a_leaf", &[], 400);
}

#[test]
fn the_kernel_takes_a_lonely_leaf_of_a_tree() {
    // 502 leaf entries with `.` and `..`, and some 7 data blocks: too many for LEAF1.
    kernel_takes("the_kernel_takes_a_lonely_leaf_of_a_tree", &[], 500);
}

#[test]
fn the_kernel_takes_nodes() {
    kernel_takes("the_kernel_takes_nodes", &[], 20_000);
}

#[test]
fn the_kernel_takes_two_levels_of_nodes() {
    // 504 children a node, 504 entries a leaf.
    kernel_takes(
        "the_kernel_takes_two_levels_of_nodes",
        &["-b", "size=1024"],
        300_000,
    );
}

#[test]
fn the_kernel_finds_names_of_one_hash_in_several_leaves() {
    let test = "the_kernel_finds_names_of_one_hash_in_several_leaves";
    let mut some = names(1000);
    some.extend(crate::directory::colliding(3000));
    kernel_takes_names(test, &[], &some, Layout::Together);
}

#[test]
fn the_kernel_takes_large_directory_blocks() {
    let large = ["-n", "size=65536"];
    kernel_takes("the_kernel_takes_large_directory_blocks", &large, 500);
    kernel_takes("the_kernel_takes_large_directory_blocks", &large, 60_000);
}

#[test]
fn the_kernel_takes_directory_blocks_in_pieces() {
    let test = "the_kernel_takes_directory_blocks_in_pieces";
    for count in [500, 5000] {
        let names = names(count);
        kernel_takes_names(test, &["-n", "size=16384"], &names, Layout::Scattered);
    }
}

/// The kernel adds the same entries in the same order; form and blocks of data are the
/// same, and up to the leaf even every byte that means something.
#[test]
fn the_kernel_would_choose_the_same_form() {
    let test = "the_kernel_would_choose_the_same_form";
    let Some(image) = image(test, &[]) else {
        return;
    };
    let name = |number: usize| format!("{number:08}").into_bytes();
    let counts = [0, 1, 20, 21, 40, 124, 125, 300, 500, 501, 502, 503, 2000];
    let made: Vec<(usize, u64, u64)> = image.mounted(|root| {
        let file = root.join("file");
        fs::write(&file, "x").unwrap();
        let make = |count: usize| {
            let dir = root.join(format!("dir{count}"));
            fs::create_dir(&dir).unwrap();
            for number in 0..count {
                fs::hard_link(&file, dir.join(path(&name(number)))).unwrap();
            }
            (count, number(&dir), number(&file))
        };
        counts.map(make).to_vec()
    });
    for (count, dir, file) in made {
        let names: Vec<_> = (0..count).map(name).collect();
        let ours = fork(&image, dir, file, &names);
        let inode = image.inode(dir);
        assert_eq!(naive::be64(&inode, 56), ours.size(), "{count}");
        if let Some(bytes) = ours.short_form() {
            assert_eq!(inode[176..176 + bytes.len()], *bytes);
            assert_eq!(inode[5], 1);
            continue;
        }
        if count > 1000 {
            continue; // the kernel's leaves are not as full
        }
        let theirs = kernels(&image, dir);
        let unit = image.geometry.dir_block_blocks();
        let form = |placed: &Placed| match placed.blocks.keys().last() {
            Some(last) if *last >= 1 << 24 => "node",
            Some(last) if *last >= 1 << 23 => "leaf",
            _ => "block",
        };
        let places: BTreeMap<u64, u64> = {
            let all = theirs.blocks.iter();
            all.map(|(offset, (place, _))| (*offset, *place)).collect()
        };
        let mut written = BTreeMap::new();
        let ranges = ours.ranges();
        let end = ranges.last().map_or(0, |(offset, count)| offset + count);
        let last = *theirs.blocks.keys().last().unwrap();
        assert_eq!(end, last + 1, "{count}: they have {}", form(&theirs));
        ours.encode(&|offset| places[&offset], &mut |place, bytes| {
            written.insert(place, bytes.to_vec());
        });
        assert_eq!(written.len() as u64 * unit, theirs.blocks.len() as u64);
        let again = |blocks: BTreeMap<u64, (u64, Vec<u8>)>| Placed {
            geometry: image.geometry.clone(),
            owner: dir,
            blocks,
            writes: 0,
        };
        let ours_placed = again(
            places
                .iter()
                .map(|(offset, place)| (*offset, (*place, written[place].clone())))
                .collect(),
        );
        let decode =
            |placed: &Placed, size| -> (Form, Vec<Entry>) { naive::directory(placed, size, false) };
        let size = ours.size();
        assert_eq!(
            decode(&ours_placed, size),
            decode(&again(theirs.blocks), size),
            "{count}"
        );
    }
}

/// The blocks the kernel gave a directory, with sequence numbers of the log taken out so
/// that the decoder takes them.
fn kernels(image: &Image, dir: u64) -> Placed {
    let mut blocks = BTreeMap::new();
    for extent in image.extents(dir) {
        for number in 0..extent.count {
            let place = extent.block + number;
            let mut bytes = image.read(place);
            let (lsn, crc) = match &bytes[..4] {
                b"XDB3" | b"XDD3" | b"XDF3" => (16, 4),
                _ => (24, 12),
            };
            bytes[lsn..lsn + 8].fill(0);
            imagegen::xfs::format::checksum::seal(&mut bytes, crc);
            blocks.insert(extent.offset + number, (place, bytes));
        }
    }
    Placed {
        geometry: image.geometry.clone(),
        owner: dir,
        blocks,
        writes: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 20, ..Default::default() })]
    #[test]
    fn the_kernel_takes_any_names(
        names in prop::collection::btree_set(any_name(), 1..3000),
        block in prop::sample::select(vec!["size=1024", "size=4096"]),
        dir_block in prop::sample::select(vec!["size=4096", "size=8192", "size=65536"]),
        layout in prop::sample::select(vec![Layout::Together, Layout::Scattered]),
    ) {
        let names: Vec<Name> = names.into_iter().collect();
        let options = ["-b", block, "-n", dir_block];
        kernel_takes_names("the_kernel_takes_any_names", &options, &names, layout);
    }
}

/// Names the kernel allows, short ones more often.
fn any_name() -> impl Strategy<Value = Name> {
    let byte = any::<u8>().prop_map(|byte| if matches!(byte, 0 | b'/') { b'_' } else { byte });
    let length = prop_oneof![3 => 3..30_usize, 1 => 3..=255_usize];
    length.prop_flat_map(move |length| prop::collection::vec(byte.clone(), length))
}
