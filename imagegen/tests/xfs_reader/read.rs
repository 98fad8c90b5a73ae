//! What the reader says of a tree equals what the kernel says of it, mounted read-only.

use crate::images::{FEATURES, Image};
use imagegen::xfs::format::attr::flags;
use imagegen::xfs::format::inode::{flags2, kind, time};
use imagegen::xfs::read::{Inode, Reader};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;

type Tree = BTreeMap<String, Value>;

fn kernel(image: &Image) -> Option<Tree> {
    let mount = image.mount("loop,ro")?;
    let text = mount.python("dump.py", &[]);
    let lines = text.lines().map(|line| {
        let value: Value = serde_json::from_str(line).unwrap();
        (value["path"].as_str().unwrap().to_owned(), value)
    });
    Some(lines.collect())
}

fn contents(reader: &Reader<File>, inode: &Inode) -> String {
    let size = inode.core.size.get();
    let mut digest = Sha256::new();
    for (from, length) in [(0, 4 << 20), (size.saturating_sub(100_000), 100_000)] {
        let mut buffer = vec![0xaa; length];
        let read = reader.read_file(inode, from, &mut buffer).unwrap();
        digest.update(&buffer[..read]);
    }
    hex(digest)
}

fn hex(digest: Sha256) -> String {
    digest
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn attributes(reader: &Reader<File>, inode: &Inode) -> (usize, String) {
    let mut all = BTreeMap::new();
    for attribute in reader.attributes(inode).unwrap() {
        let attribute = attribute.unwrap();
        let prefix = match attribute.flags & flags::NAMESPACE {
            0 => "user.",
            flags::ROOT => "trusted.",
            flags::SECURE => "security.",
            _ => continue,
        };
        let name = [prefix.as_bytes(), &attribute.name].concat();
        let value = reader.attribute_value(inode, &attribute).unwrap();
        all.insert(name, value);
    }
    let mut digest = Sha256::new();
    for (name, value) in &all {
        digest.update(name);
        digest.update([0]);
        digest.update(value);
    }
    (all.len(), hex(digest))
}

fn describe(reader: &Reader<File>, path: &str, inode: &Inode) -> Value {
    let core = &inode.core;
    let (seconds, nanoseconds) = time(core.mtime, core.flags2.get() & flags2::BIGTIME != 0);
    let content = match inode.kind() {
        kind::REGULAR => contents(reader, inode),
        kind::SYMLINK => String::from_utf8(reader.read_link(inode).unwrap()).unwrap(),
        _ => String::new(),
    };
    let device = match inode.kind() {
        kind::BLOCK | kind::CHARACTER => inode.device().unwrap(),
        _ => (0, 0),
    };
    let (xattrs, digest) = attributes(reader, inode);
    json!({
        "path": path, "ino": inode.ino, "mode": core.mode.get(), "nlink": core.nlink.get(),
        "uid": core.uid.get(), "gid": core.gid.get(), "size": core.size.get(),
        "mtime": i128::from(seconds) as i64 * 1_000_000_000 + i64::from(nanoseconds),
        "blocks": core.nblocks.get() * (reader.geometry().block_size() as u64 / 512),
        "content": content, "xattrs": xattrs, "digest": digest,
        "rdev": [device.0, device.1],
    })
}

fn ours(reader: &Reader<File>) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![(".".to_owned(), reader.superblock().root_ino.get())];
    while let Some((path, ino)) = todo.pop() {
        let inode = reader.inode(ino).unwrap();
        tree.insert(path.clone(), describe(reader, &path, &inode));
        if inode.kind() != kind::DIRECTORY {
            continue;
        }
        for entry in reader.directory(&inode).unwrap().entries() {
            let entry = entry.unwrap();
            if entry.name == b"." || entry.name == b".." {
                continue;
            }
            let name = String::from_utf8(entry.name).unwrap();
            todo.push((
                format!("{path}/{name}").trim_start_matches("./").into(),
                entry.ino,
            ));
        }
    }
    tree
}

fn agrees(size: u64, options: &str, scale: f64) {
    let Some(image) = Image::filled(size, options, scale) else {
        return;
    };
    let Some(kernel) = kernel(&image) else {
        return;
    };
    let reader = Reader::open(image.open()).unwrap();
    let ours = ours(&reader);
    assert_eq!(
        kernel.keys().collect::<Vec<_>>(),
        ours.keys().collect::<Vec<_>>()
    );
    for (path, value) in &kernel {
        assert_eq!(value, &ours[path], "{options}: {path}");
    }
    assert!(kernel.len() > 500, "{} objects", kernel.len());
    every_name_is_found(&reader);
}

/// Lookups by hash in the larger directories, of names that are there and that are not.
fn every_name_is_found(reader: &Reader<File>) {
    let root = reader.inode(reader.superblock().root_ino.get()).unwrap();
    let children: Vec<_> = reader
        .directory(&root)
        .unwrap()
        .entries()
        .map(Result::unwrap)
        .collect();
    let mut found = 0;
    for child in children {
        let inode = reader.inode(child.ino).unwrap();
        if inode.kind() != kind::DIRECTORY {
            continue;
        }
        let open = || reader.directory(&inode).unwrap();
        for entry in open().entries().map(Result::unwrap).step_by(7) {
            let looked_up = open().lookup(&entry.name).unwrap();
            assert_eq!(looked_up.as_ref(), Some(&entry));
            found += 1;
        }
        assert_eq!(open().lookup(b"not there").unwrap(), None);
    }
    assert!(found > 100, "{found} lookups");
}

const GIB: u64 = 1 << 30;

#[test]
fn defaults() {
    agrees(GIB, "", 1.0);
}

#[test]
fn debian_12_features() {
    agrees(GIB, FEATURES, 0.3);
}

#[test]
fn without_the_newer_features() {
    agrees(
        GIB,
        "-m rmapbt=0,reflink=0,finobt=0,inobtcount=0,bigtime=0 -i sparse=0",
        0.2,
    );
}

#[test]
fn inode_sizes() {
    for size in [1024, 2048] {
        agrees(GIB, &format!("{FEATURES} -i size={size}"), 0.2);
    }
}

#[test]
fn directory_block_sizes() {
    for size in [8192, 16384, 65536] {
        agrees(GIB, &format!("{FEATURES} -n size={size}"), 0.3);
    }
}

#[test]
fn block_sizes() {
    agrees(GIB, &format!("{FEATURES} -b size=1024"), 0.3);
    agrees(GIB, &format!("{FEATURES} -b size=2048 -n size=4096"), 0.3);
    for size in [8192, 16384, 65536] {
        agrees(4 * GIB, &format!("{FEATURES} -b size={size}"), 0.1);
    }
}

#[test]
fn sectors_of_4096_bytes() {
    agrees(GIB, &format!("{FEATURES} -s size=4096"), 0.2);
}
