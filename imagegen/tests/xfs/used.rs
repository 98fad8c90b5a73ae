//! Images in use: mounted read-write, under load, unmounted, judged again, grown.

use crate::image::{Image, MIB, sized};
use crate::kinds::all_kinds;
use crate::load::{self, OPERATIONS, Victims};
use crate::model::{ROOT, Tree, What};
use crate::mount::{self, How, Mounted, run};
use crate::observe::{View, assert_same, expected, observe};
use crate::repair;
use crate::tools::{Suite, xfsprogs};
use imagegen::xfs::geometry::{Groups, Kernel, Options};
use imagegen::xfs::write::WriteOptions;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// Every structure in a form that a load changes into another: directories and maps that
/// are about to grow, attributes in leaves, links, holes.
fn tree() -> Tree {
    let mut tree = all_kinds();
    for (number, count) in [5, 16, 100, 140, 500, 2500].into_iter().enumerate() {
        let dir = tree.dir(ROOT, format!("directory{number}"));
        for entry in 0..count {
            let file = tree.file(dir, format!("entry-{entry:05}"), entry * 13 % 9000);
            match entry % 10 {
                1 => tree.xattr(file, "user.leaf", vec![b'a'; 700]),
                2 => tree.xattr(file, "trusted.remote", vec![b'b'; 9000]),
                3 => tree.link(ROOT, format!("{number}-{entry}"), file),
                _ => {}
            }
        }
    }
    for count in [3, 18, 19, 250, 251, 4000] {
        let ranges = (0..count).map(|at| at * 8192..at * 8192 + 4096).collect();
        tree.sparse(ROOT, format!("holed{count}"), count * 8192, ranges);
    }
    tree
}

/// Objects with even numbers may be changed by a load; files with odd ones stay.
fn victims(tree: &Tree, root: &Path) -> Victims {
    let mut victims = Victims::default();
    for (path, id) in tree
        .paths()
        .iter()
        .filter(|(path, id)| path.len() < 2000 && id % 2 == 0)
    {
        let path = root.join(OsStr::from_bytes(path));
        match tree.objects[*id].what {
            What::Directory(_) => victims.directories.push(path),
            What::File(_) | What::Symlink(_) => victims.files.push(path),
            _ => {}
        }
    }
    victims
}

fn stays(tree: &Tree, view: View) -> View {
    let odd: std::collections::BTreeSet<Vec<u8>> = tree
        .paths()
        .into_iter()
        .filter(|(_, id)| id % 2 == 1 && !matches!(tree.objects[*id].what, What::Directory(_)))
        .map(|(path, _)| path)
        .collect();
    view.into_iter()
        .filter(|(path, _)| odd.contains(path))
        .collect()
}

/// The whole life of an image.
fn use_hard(tree: &Tree, options: &Options, write_options: WriteOptions, seed: u64) {
    if !mount::possible() {
        return;
    }
    let image = Image::with(tree, options, write_options).unwrap_or_else(|error| panic!("{error}"));
    let groups = image.geometry.ag_count;
    repair::assert_clean(&image.path(), groups);
    let mounted = Mounted::new(&image, How::ReadWrite);
    let done = load::run(
        mounted.root(),
        &victims(tree, mounted.root()),
        seed,
        Duration::from_secs(4),
    );
    mounted.end();
    for ((name, _), count) in OPERATIONS.iter().zip(&done) {
        let may_fail = *name == "clone" && !options.features.reflink;
        assert!(
            *count > 0 || may_fail,
            "no {name} succeeded (seed {seed}): {done:?}"
        );
    }
    repair::assert_clean(&image.path(), groups);
    grow(&image, options.size);
    let mounted = Mounted::new(&image, How::ReadOnly);
    let block = image.geometry.block_size() as u64;
    let seen = observe(mounted.root(), block, &|path| path.starts_with(b"load-"));
    mounted.end();
    let meant = stays(tree, expected(tree, block, &image.root_xattrs));
    assert!(meant.len() > 1000);
    assert_same(&meant, &stays(tree, seen));
}

/// By half and a little, so that a new last group is a short one.
fn grow(image: &Image, size: u64) {
    let Some(mut growfs) = xfsprogs(Suite::Newest, "xfs_growfs") else {
        return;
    };
    let larger = size + size / 2 + 5 * MIB;
    std::fs::File::options()
        .write(true)
        .open(image.path())
        .unwrap()
        .set_len(larger)
        .unwrap();
    let mounted = Mounted::new(image, How::ReadWrite);
    let before = rustix::fs::statvfs(mounted.root()).unwrap().f_blocks;
    run(growfs.arg(mounted.root()));
    let after = rustix::fs::statvfs(mounted.root()).unwrap().f_blocks;
    assert!(
        after > before + before / 3,
        "{before} blocks, grown to {after}"
    );
    std::fs::write(mounted.root().join("after growing"), vec![1; 3 << 20]).unwrap();
    mounted.end();
    let groups = larger.div_ceil(u64::from(image.geometry.ag_blocks) << image.geometry.block_log);
    repair::assert_clean(&image.path(), groups as u32);
}

#[test]
fn defaults() {
    use_hard(&tree(), &sized(700 * MIB), WriteOptions::default(), 1);
}

#[test]
fn small_blocks_and_many_groups() {
    let mut options = sized(700 * MIB);
    // With parent pointers in blocks of 1 KiB, Linux 6.18 now and then shuts a file system
    // down in a link or rename under this load, those of mkfs.xfs that it filled itself too.
    options.features.parent = false;
    (options.block_size, options.groups) = (1024, Groups::Count(13));
    use_hard(&tree(), &options, WriteOptions::default(), 2);
}

#[test]
fn features_of_linux_6_1() {
    let mut options = sized(700 * MIB);
    options.features = Kernel::Linux6_1.features();
    use_hard(&tree(), &options, WriteOptions::default(), 3);
}

/// Shared blocks from the beginning on.
#[test]
fn deduplicated() {
    let mut tree = tree();
    for number in 0..300 {
        let file = tree.file(ROOT, format!("same{number}"), 4096 * (number % 7) + number);
        if let What::File(data) = &mut tree.objects[file].what {
            data.seed = 5;
        }
    }
    let write_options = WriteOptions {
        dedupe: true,
        ..WriteOptions::default()
    };
    use_hard(&tree, &sized(700 * MIB), write_options, 4);
}
