//! Attributes the kernel reads, changes and leaves in order; parent pointers that
//! xfs_repair compares with the directory they are about.

use super::directory::{SPARE, image, names, path};
use super::{Image, Placing, allocate, number, sum};
use crate::naive::{be32, be64};
use crate::placed::Layout;
use imagegen::tree::Xattr;
use imagegen::xfs::write::attributes::{AttributeFork, Attributes};
use imagegen::xfs::write::directory::Directory;
use proptest::prelude::*;
use std::fs;
use std::path::Path;

/// Where the attribute fork of a file without data begins, in units of 8 bytes.
const FORK_OFFSET: u8 = 20;

/// Puts an attribute fork into `ino`, its blocks taken from file `spare`.
fn put(image: &Image, ino: u64, fork: &AttributeFork<'_>, spare: u64, layout: Layout) {
    image.patch(ino, |core, forks| {
        core.fork_offset = FORK_OFFSET;
        core.attr_format = 1;
        let bytes = fork.short_form().unwrap_or_default();
        let at = usize::from(FORK_OFFSET) * 8;
        forks[at..].fill(0);
        forks[at..at + bytes.len()].copy_from_slice(bytes);
    });
    if fork.short_form().is_none() {
        let placing = Placing::of(image, &fork.ranges(), spare, layout);
        let mut write = |fsblock, bytes: &[u8]| image.write(fsblock, bytes);
        fork.encode(&|offset| placing.place(offset), &mut write);
        placing.map(image, ino, true, spare);
    }
}

fn space(image: &Image) -> usize {
    image.geometry.forks_size() - usize::from(FORK_OFFSET) * 8
}

fn xattr(name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Xattr {
    Xattr {
        name: name.into().into(),
        value: value.into().into(),
    }
}

/// Attributes of all namespaces, small and large.
fn some(small_ones: usize, large_ones: usize) -> Vec<Xattr> {
    let space = ["user", "trusted", "security"];
    let small = |number: usize| {
        let name = format!("{}.name{number}", space[number % 3]);
        xattr(name, vec![b'v'; number % 50])
    };
    let large = |number: usize| {
        let name = format!("user.large{number}");
        xattr(
            name,
            vec![b'a' + (number % 26) as u8; 3000 + number * 977 % 62_000],
        )
    };
    let small = (0..small_ones).map(small);
    small.chain((0..large_ones).map(large)).collect()
}

fn kernel_takes(test: &str, options: &[&str], xattrs: &[Xattr]) {
    kernel_takes_at(test, options, xattrs, Layout::Together);
}

fn kernel_takes_at(test: &str, options: &[&str], xattrs: &[Xattr], layout: Layout) {
    let Some(image) = image(test, options) else {
        return;
    };
    let (file, spare) = image.mounted(|root| {
        fs::write(root.join("file"), "").unwrap();
        let spare = allocate(&root.join("blocks"), SPARE);
        (number(&root.join("file")), spare)
    });
    let mut attributes = Attributes::new(&image.geometry);
    for xattr in xattrs {
        attributes.push_xattr(xattr).unwrap();
    }
    let fork = attributes.finish(file, space(&image)).unwrap();
    put(&image, file, &fork, spare, layout);
    image.judge();
    image.mounted(|root| use_it(&root.join("file"), xattrs));
    image.judge();
}

fn use_it(file: &Path, xattrs: &[Xattr]) {
    let get = |name: &[u8]| xattr::get(file, path(name)).unwrap();
    assert_eq!(
        xattr::list(file).unwrap().count(),
        xattrs.len() + acls(xattrs)
    );
    for xattr in xattrs {
        let found = get(&xattr.name);
        assert!(found.as_deref() == Some(&*xattr.value), "{:?}", xattr.name);
    }
    assert_eq!(get(b"user.absent"), None);
    for xattr in xattrs.iter().step_by(3) {
        xattr::remove(file, path(&xattr.name)).unwrap();
    }
    for new in 0..500_usize {
        let name = format!("user.new{new}");
        xattr::set(file, name, &vec![7; new * 11]).unwrap();
    }
    for xattr in xattrs.iter().skip(1).step_by(3) {
        assert!(get(&xattr.name).as_deref() == Some(&*xattr.value));
    }
}

/// The kernel lists ACLs twice.
fn acls(xattrs: &[Xattr]) -> usize {
    let is_acl = |xattr: &&Xattr| xattr.name.starts_with(b"system.");
    xattrs.iter().filter(is_acl).count()
}

#[test]
fn the_kernel_takes_a_short_form() {
    kernel_takes("the_kernel_takes_a_short_form", &[], &some(6, 0));
}

#[test]
fn the_kernel_takes_a_leaf() {
    kernel_takes("the_kernel_takes_a_leaf", &[], &some(50, 0));
}

#[test]
fn the_kernel_takes_nodes() {
    kernel_takes("the_kernel_takes_nodes", &[], &some(2000, 0));
}

#[test]
fn the_kernel_takes_remote_values() {
    kernel_takes("the_kernel_takes_remote_values", &[], &some(3, 1));
    kernel_takes("the_kernel_takes_remote_values", &[], &some(1000, 100));
    kernel_takes(
        "the_kernel_takes_remote_values",
        &["-b", "size=1024"],
        &some(500, 60),
    );
}

#[test]
fn the_kernel_takes_attributes_in_pieces() {
    let test = "the_kernel_takes_attributes_in_pieces";
    kernel_takes_at(test, &[], &some(1000, 10), Layout::Scattered);
}

/// The kernel sets the same attributes; whether values are remote and when leaves are
/// full is the same.
#[test]
fn the_kernel_would_need_as_many_blocks() {
    let Some(image) = image("the_kernel_would_need_as_many_blocks", &[]) else {
        return;
    };
    let one = |size: usize| vec![xattr("user.name", vec![b'v'; size])];
    let many = |count: usize| -> Vec<Xattr> {
        let name = |number: usize| format!("user.{number:05}");
        (0..count)
            .map(|number| xattr(name(number), vec![b'v'; 16]))
            .collect()
    };
    // Names of 5 bytes with values of 16 take 24 and 8 for the entry: 125 a leaf.
    let cases = [
        one(500),
        one(3061),
        one(3062),
        one(7000),
        one(8080),
        one(8081),
        one(65536),
        many(124),
        many(125),
        many(126),
    ];
    let files: Vec<u64> = image.mounted(|root| {
        let files = cases.iter().enumerate().map(|(case, xattrs)| {
            let file = root.join(format!("file{case}"));
            fs::write(&file, "").unwrap();
            for xattr in xattrs {
                xattr::set(&file, path(&xattr.name), &xattr.value).unwrap();
            }
            number(&file)
        });
        files.collect()
    });
    for (file, xattrs) in files.into_iter().zip(&cases) {
        let mut attributes = Attributes::new(&image.geometry);
        for xattr in xattrs {
            attributes.push_xattr(xattr).unwrap();
        }
        let (_, space) = image.fork(file, true);
        let ours = attributes.finish(file, space).unwrap();
        let theirs = be64(&image.inode(file), 64);
        let first = &xattrs[0];
        assert_eq!(
            sum(&ours.ranges()),
            theirs,
            "{} of {}",
            xattrs.len(),
            first.value.len()
        );
    }
}

#[test]
fn the_kernel_takes_acls() {
    let entry = |tag: u16, permissions: u16, id: u32| {
        [
            &tag.to_le_bytes()[..],
            &permissions.to_le_bytes(),
            &id.to_le_bytes(),
        ]
        .concat()
    };
    let none = u32::MAX;
    let acl = [
        vec![2, 0, 0, 0],
        entry(1, 6, none),
        entry(2, 5, 1000),
        entry(4, 4, none),
        entry(8, 1, 77),
        entry(16, 4, none),
        entry(32, 4, none),
    ];
    let mut xattrs = vec![xattr("system.posix_acl_access", acl.concat())];
    kernel_takes("the_kernel_takes_acls", &[], &xattrs);
    xattrs.extend(some(100, 1));
    kernel_takes("the_kernel_takes_acls", &[], &xattrs);
}

/// A directory of many names of one file, and that file's pointers back.
fn kernel_takes_parents(test: &str, count: usize) {
    let Some(image) = Image::make(test, &["-m", "rmapbt=0,reflink=0", "-n", "parent=1"]) else {
        return;
    };
    let root = image.geometry.root_inode();
    let generation = |ino| be32(&image.inode(ino), 92);
    let names = names(count);
    let (dir, file, spare) = image.mounted(|root| {
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        let spare = allocate(&root.join("blocks"), SPARE);
        (number(&root.join("dir")), number(&root.join("file")), spare)
    });
    let mut parents = Attributes::new(&image.geometry);
    let mut directory = Directory::new(&image.geometry, dir, root);
    parents
        .push_parent(b"file", root, generation(root))
        .unwrap();
    for name in &names {
        parents.push_parent(name, dir, generation(dir)).unwrap();
        directory.push(name, file, 1).unwrap();
    }
    let parents = parents.finish(file, space(&image)).unwrap();
    put(&image, file, &parents, spare, Layout::Together);
    image.patch(file, |core, _| {
        core.nlink = (core.nlink.get() + count as u32).into();
    });
    let directory = directory.finish(image.fork(dir, false).1).unwrap();
    super::directory::put(&image, dir, &directory, spare, Layout::Together);
    image.judge();
    image.mounted(|root| super::directory::use_it(root, &names, file));
    image.judge();
}

#[test]
fn parent_pointers_agree_with_the_directory() {
    let test = "parent_pointers_agree_with_the_directory";
    kernel_takes_parents(test, 100);
    kernel_takes_parents(test, 30_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 20, ..Default::default() })]
    #[test]
    fn the_kernel_takes_any_attributes(
        some in prop::collection::btree_map("[a-z0-9.]{1,200}", any_value(), 1..600),
        block in prop::sample::select(vec!["size=1024", "size=4096"]),
        layout in prop::sample::select(vec![Layout::Together, Layout::Scattered]),
    ) {
        let space = ["user", "trusted", "security"];
        let full = |(number, (name, value)): (usize, (String, Vec<u8>))| {
            xattr(format!("{}.{name}", space[number % 3]), value)
        };
        let xattrs: Vec<Xattr> = some.into_iter().enumerate().map(full).collect();
        let options = ["-b", block];
        kernel_takes_at("the_kernel_takes_any_attributes", &options, &xattrs, layout);
    }
}

/// Values, short ones more often.
fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![20 => 0..60_usize, 2 => 0..4000_usize, 1 => 0..=65536_usize];
    (length, any::<u8>()).prop_map(|(length, byte)| vec![byte; length])
}
