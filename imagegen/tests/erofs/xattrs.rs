//! Extended attributes: own and shared, long prefixes, the filter, and their limits.

use crate::image::{Image, blocks_of};
use crate::judge;
use crate::model::{ROOT, Tree, What};
use imagegen::erofs::write::Options;

/// What people take capabilities, labels and ACLs for.
fn guarded() -> Tree {
    let mut tree = Tree::new();
    let file = tree.file(ROOT, "ping", 100);
    tree.objects[file].meta.mode = 0o6754;
    let capability = [
        0x01, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    tree.xattr(file, "security.capability", capability);
    tree.xattr(
        file,
        "security.selinux",
        b"system_u:object_r:ping_exec_t:s0\0",
    );
    tree.xattr(file, "trusted.overlay.opaque", "y");
    tree.xattr(file, "user.\u{e4}", "");
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions) in [(1_u16, 7_u16), (4, 5), (0x10, 5), (0x20, 4)] {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&permissions.to_le_bytes());
        acl.extend_from_slice(&u32::MAX.to_le_bytes());
    }
    tree.xattr(file, "system.posix_acl_access", &acl);
    let dir = tree.dir(ROOT, "shared");
    tree.objects[dir].meta.mode = 0o3775;
    tree.xattr(dir, "system.posix_acl_default", &acl);
    let link = tree.symlink(ROOT, "link", "ping");
    tree.xattr(link, "security.selinux", b"system_u:object_r:bin_t:s0\0");
    let device = tree.special(ROOT, "null", What::Char(1, 3));
    tree.xattr(device, "security.selinux", b"system_u:object_r:bin_t:s0\0");
    tree.xattr(ROOT, "user.root", vec![b'r'; 5000]);
    tree
}

#[test]
fn attributes_that_guard_something() {
    for block_size in [512, 4096] {
        judge(&guarded(), &blocks_of(block_size));
    }
    let without = Options {
        xattr_filter: false,
        ..Options::default()
    };
    judge(&guarded(), &without);
}

#[test]
fn what_several_inodes_have_is_kept_once() {
    let tree = |same: bool| {
        let mut tree = Tree::new();
        for number in 0..500 {
            let file = tree.file(ROOT, format!("{number}"), 0);
            let value = if same { 0 } else { number };
            tree.xattr(file, "user.large", format!("{value:0>1000}"));
        }
        tree
    };
    let shared = judge(&tree(true), &Options::default()).made.bytes;
    let own = judge(&tree(false), &Options::default()).made.bytes;
    assert!(shared < 80 << 10 && own > 500 << 10, "{shared} {own}");
}

#[test]
fn more_shared_attributes_than_an_inode_can_refer_to() {
    let mut tree = Tree::new();
    for number in 0..3 {
        let file = tree.file(ROOT, format!("{number}"), 10);
        for attribute in 0..300 {
            tree.xattr(file, format!("user.{attribute}"), format!("{attribute}"));
        }
    }
    judge(&tree, &Options::default());
    judge(&tree, &blocks_of(512));
}

#[test]
fn long_prefixes() {
    let mut tree = Tree::new();
    for number in 0..100 {
        let file = tree.file(ROOT, format!("{number}"), 10);
        for name in [
            "user.some.long.prefix.a",
            "user.some.long.b",
            "user.some.long.prefix.",
            "user.other",
            "trusted.overlay.metacopy",
            "trusted.overlay.redirect",
            "security.some.long.prefix.a",
        ] {
            tree.xattr(file, name, format!("{name} {number}"));
        }
        tree.xattr(file, "user.some.long.prefix.same", "same");
    }
    let prefixes = [
        "user.some.long.",
        "user.some.long.prefix.",
        "trusted.overlay.",
    ];
    for block_size in [512, 4096] {
        let options = Options {
            xattr_prefixes: prefixes.map(|prefix| prefix.as_bytes().to_vec()).to_vec(),
            ..blocks_of(block_size)
        };
        let with = judge(&tree, &options).made.bytes;
        let without = judge(&tree, &blocks_of(block_size)).made.bytes;
        assert!(with < without || block_size == 512, "{with} {without}");
    }
    // As many as there can be: a head of several blocks.
    let many = (0..128).map(|number| format!("user.{number:0>200}").into_bytes());
    let options = Options {
        xattr_prefixes: many.collect(),
        ..Options::default()
    };
    judge(&tree, &options);
}

#[test]
fn values_and_lists_as_large_as_they_can_be() {
    let mut tree = Tree::new();
    let file = tree.file(ROOT, "file", 5000);
    tree.xattr(file, "user.large", vec![b'x'; 65_535]);
    let dir = tree.dir(ROOT, "dir");
    for number in 0..3 {
        tree.xattr(
            dir,
            format!("trusted.{number}"),
            vec![b'0' + number; 65_000],
        );
    }
    tree.file(dir, "below", 3);
    judge(&tree, &Options::default());

    tree.xattr(file, "user.larger", vec![b'x'; 65_536]);
    let text = Image::make(&tree, &Options::default())
        .err()
        .unwrap()
        .to_string();
    assert!(
        text.contains("/file") && text.contains("user.larger"),
        "{text}"
    );

    let mut tree = Tree::new();
    for number in 0..5 {
        tree.xattr(
            ROOT,
            format!("trusted.{number}"),
            vec![b'0' + number; 65_000],
        );
    }
    let text = Image::make(&tree, &Options::default())
        .err()
        .unwrap()
        .to_string();
    assert!(text.contains("262148"), "{text}");

    let mut tree = Tree::new();
    let file = tree.file(ROOT, "file", 0);
    tree.xattr(file, "system.other", "x");
    let text = Image::make(&tree, &Options::default())
        .err()
        .unwrap()
        .to_string();
    assert!(text.contains("system.other"), "{text}");
}
