//! Every kind of object, with what each can carry.

use crate::image::{Image, MIB, sized};
use crate::judge;
use crate::model::{ROOT, Tree, What};
use imagegen::tree::Time;

#[test]
fn nothing_but_a_root() {
    let image = judge(&Tree::new(), &sized(300 * MIB));
    assert_eq!(image.made.counts.inodes, 1);
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
    let last = tree.special(dir, "last", What::Char(511, 0));
    let other = tree.dir(dir, "other");
    for (number, id) in [empty, large, last].into_iter().enumerate() {
        tree.link(other, format!("link{number}"), id);
        tree.link(ROOT, format!("link{number}"), id);
    }
    tree.objects[large].outside = 3;
    tree
}

#[test]
fn one_of_everything() {
    judge(&all_kinds(), &sized(300 * MIB));
}

#[test]
fn device_numbers_that_linux_does_not_read_back_are_refused() {
    for (major, minor) in [(512, 0), (4095, 1), (1, 1 << 18)] {
        let mut tree = Tree::new();
        let dir = tree.dir(ROOT, "dev");
        tree.special(dir, "large", What::Block(major, minor));
        let Err(error) = Image::make(&tree, &sized(300 * MIB)) else {
            panic!("{major}:{minor} taken")
        };
        let text = error.to_string();
        assert!(
            text.contains("dev/large") && text.contains(&major.to_string()),
            "{text}"
        );
    }
}

#[test]
fn symbolic_links_of_every_length() {
    let mut tree = Tree::new();
    for length in 1..=1023 {
        let target: Vec<u8> = (0..length).map(|at| b'a' + (at % 23) as u8).collect();
        tree.symlink(ROOT, format!("{length:04}"), target);
    }
    judge(&tree, &sized(300 * MIB));
    let mut tree = Tree::new();
    tree.symlink(ROOT, "too-long", vec![b'x'; 1024]);
    let Err(error) = Image::make(&tree, &sized(300 * MIB)) else {
        panic!("1024 bytes taken")
    };
    assert!(error.to_string().contains("too-long"), "{error}");
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
    judge(&tree, &sized(300 * MIB));
}

#[test]
fn paths_longer_than_the_kernel_takes_at_once() {
    let mut tree = Tree::new();
    let mut at = ROOT;
    for level in 0..120 {
        tree.file(at, "file", level);
        at = tree.dir(at, format!("{level:0>60}"));
    }
    let deepest = tree.paths().iter().map(|(path, _)| path.len()).max();
    assert!(deepest > Some(4096));
    judge(&tree, &sized(300 * MIB));
}

#[test]
fn times_at_the_edges_of_what_can_be_said() {
    let mut tree = Tree::new();
    let newest = (1_i64 << 34) - (1 << 31) - 1; // 2486, with bigtime
    for (number, seconds) in [
        -(1 << 31),
        -1,
        0,
        1,
        (1 << 31) - 1,
        1 << 31,
        1 << 32,
        newest,
    ]
    .into_iter()
    .enumerate()
    {
        let id = tree.file(ROOT, format!("{number}"), 0);
        for nanoseconds in [0, 1, 999_999_999] {
            tree.objects[id].meta.mtime = Time {
                seconds,
                nanoseconds,
            };
            tree.objects[id].meta.ctime = Time {
                seconds,
                nanoseconds: 999_999_999 - nanoseconds,
            };
        }
    }
    judge(&tree, &sized(300 * MIB));
}

#[test]
fn owners_up_to_the_largest() {
    let mut tree = Tree::new();
    for (number, owner) in [0, 1, 65_534, 65_535, 65_536, u32::MAX - 1]
        .into_iter()
        .enumerate()
    {
        let id = tree.file(ROOT, format!("{number}"), 0);
        (tree.objects[id].meta.uid, tree.objects[id].meta.gid) = (owner, u32::MAX - 1 - owner);
        tree.objects[id].meta.project = owner;
    }
    judge(&tree, &sized(300 * MIB));
}

/// What people take set-id bits, capabilities and ACLs for.
#[test]
fn attributes_that_guard_something() {
    let mut tree = Tree::new();
    let file = tree.file(ROOT, "ping", 100);
    tree.objects[file].meta.mode = 0o6755;
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
    let dir = tree.dir(ROOT, "shared");
    tree.objects[dir].meta.mode = 0o3775;
    tree.objects[file].meta.mode = 0o6754;
    tree.xattr(
        dir,
        "system.posix_acl_default",
        acl(&[
            (0x01, 7, u32::MAX),
            (0x02, 6, 1000),
            (0x02, 4, 70_000),
            (0x04, 5, u32::MAX),
            (0x08, 1, 12),
            (0x10, 7, u32::MAX),
            (0x20, 0, u32::MAX),
        ]),
    );
    tree.xattr(
        file,
        "system.posix_acl_access",
        acl(&[
            (0x01, 7, u32::MAX),
            (0x02, 6, 3),
            (0x04, 5, u32::MAX),
            (0x10, 5, u32::MAX),
            (0x20, 4, u32::MAX),
        ]),
    );
    let link = tree.symlink(ROOT, "link", "ping");
    tree.xattr(link, "security.selinux", b"system_u:object_r:bin_t:s0\0");
    tree.xattr(link, "trusted.link", vec![7; 300]);
    let device = tree.special(ROOT, "null", What::Char(1, 3));
    tree.xattr(
        device,
        "security.selinux",
        b"system_u:object_r:null_device_t:s0\0",
    );
    tree.xattr(ROOT, "user.root", vec![b'r'; 5000]);
    judge(&tree, &sized(300 * MIB));
}

/// A POSIX ACL as `getxattr` returns it: tag, permissions, id.
pub(crate) fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// More inodes wait for their last name than are held: blocks of inodes are written
/// before all in them are known, and these later, over them.
#[test]
fn names_that_come_long_after_the_object() {
    let mut tree = Tree::new();
    let (first, second) = (tree.dir(ROOT, "a"), tree.dir(ROOT, "b"));
    for number in 0..60_000_u32 {
        let file = tree.file(first, format!("{number:05}"), 0);
        if number % 3 != 0 {
            tree.link(second, format!("{:05}", number * 7919 % 60_000), file);
        } else if number % 5 == 0 {
            tree.file(second, format!("{number:05}-new"), 0);
        }
    }
    judge(&tree, &sized(400 * MIB));
}
