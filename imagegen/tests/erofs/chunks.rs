//! Files in chunks: holes, equal contents.

use crate::fsck;
use crate::image::blocks_of;
use crate::image::{Image, scratch};
use crate::judge;
use crate::kinds::all_kinds;
use crate::model::{Id, ROOT, Tree, What};
use crate::mount::{self, Mounted, run};
use crate::trees::observe::{assert_same, observe_bytes};
use imagegen::erofs::write::{DataIn, Options};
use imagegen::tree::Tar;
use std::process::Command;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[test]
fn holes_cost_nothing() {
    let mut tree = Tree::new();
    tree.sparse(ROOT, "hole", 90 * GIB, Vec::new());
    tree.sparse(ROOT, "end", 90 * GIB, vec![90 * GIB - 1..90 * GIB]);
    tree.sparse(ROOT, "begin", 90 * GIB, vec![0..1]);
    let far = (0..20).map(|at| at * GIB + 12_288..at * GIB + 16_384);
    tree.sparse(ROOT, "far", 20 * GIB, far.collect());
    let every = (0..1000).map(|at| at * 8192..at * 8192 + 4096);
    tree.sparse(ROOT, "every second", 1000 * 8192, every.collect());
    let image = judge(&tree, &Options::default());
    // The data, the indexes and little else.
    let data = image.made.counts.data;
    assert!(
        data > 4_000_000 && image.made.bytes < data + 24 * MIB,
        "{:?}",
        image.made
    );
}

#[test]
fn a_hole_that_is_not_worth_it_becomes_zeroes() {
    let mut tree = Tree::new();
    tree.sparse(ROOT, "small", 3000, vec![0..10, 2000..2001]);
    tree.sparse(ROOT, "end", 9000, vec![0..8000]);
    tree.sparse(ROOT, "begin", 9000, vec![1..9000]);
    tree.sparse(ROOT, "none", 100, Vec::new());
    judge(&tree, &Options::default());
}

/// Makes contents equal.
fn same(tree: &mut Tree, id: Id, seed: u64) {
    if let What::File(data) = &mut tree.objects[id].what {
        data.seed = seed;
    }
}

#[test]
fn equal_chunks_are_kept_once() {
    for chunk in [4096, 65_536_u64] {
        let mut tree = Tree::new();
        for number in 0..40 {
            let file = tree.file(ROOT, format!("{number}"), MIB + (number % 3) * 5000);
            same(&mut tree, file, 7);
        }
        let holes = tree.sparse(ROOT, "holes", MIB, vec![0..65_536, 131_072..MIB]);
        same(&mut tree, holes, 7);
        let options = Options {
            chunk_size: Some(chunk),
            dedupe: true,
            ..Options::default()
        };
        let image = judge(&tree, &options);
        assert!(image.made.bytes < 2 * MIB, "{:?}", image.made);
        assert!(image.made.counts.shared_blocks > 38 * MIB / 4096);
    }
}

#[test]
fn chunks_of_every_size() {
    for block_size in [512, 4096] {
        for more in [0, 1, 4, 12, 31] {
            let mut tree = Tree::new();
            for (number, size) in [1, 511, 512, 4096, 4097, 100_000, 3 * MIB]
                .into_iter()
                .enumerate()
            {
                tree.file(ROOT, format!("{number}"), size);
            }
            tree.sparse(ROOT, "holes", MIB, vec![4096..8192, 500_000..500_001]);
            let options = Options {
                chunk_size: Some(u64::from(block_size) << more),
                ..blocks_of(block_size)
            };
            let image = judge(&tree, &options);
            let features = fsck::superblock(&image.path(), "Filesystem incompatible features");
            assert!(features.is_none_or(|features| features.contains("chunked_file")));
        }
    }
}

#[test]
fn data_goes_into_a_second_file() {
    for (block_size, dedupe) in [(512, false), (4096, true), (4096, false)] {
        let options = Options {
            chunk_size: Some(1 << 16),
            dedupe,
            data: DataIn::Blob {
                tag: b"the data".to_vec(),
            },
            ..blocks_of(block_size)
        };
        let image = judge(&all_kinds(), &options);
        let blob = std::fs::metadata(image.device().unwrap()).unwrap().len();
        assert_eq!(blob, image.made.device_bytes);
        assert!(
            blob > 6 * MIB && image.made.bytes < 64 << 10,
            "{:?}",
            image.made
        );
    }
}

/// An image of what is in an archive, which holds none of its data.
#[test]
fn data_stays_in_the_archive() {
    let dir = scratch();
    let tree = dir.path().join("tree");
    std::fs::create_dir_all(tree.join("below")).unwrap();
    for (number, size) in [0, 1, 511, 512, 513, 4096, 300_000, 3 << 20]
        .into_iter()
        .enumerate()
    {
        std::fs::write(tree.join(format!("file{number}")), vec![number as u8; size]).unwrap();
    }
    std::os::unix::fs::symlink("file1", tree.join("below/link")).unwrap();
    std::fs::hard_link(tree.join("file4"), tree.join("below/hard")).unwrap();
    let archive = dir.path().join("tree.tar");
    let mut tar = Command::new("tar");
    tar.args(["--format=pax", "-cf"])
        .arg(&archive)
        .arg("-C")
        .arg(&tree);
    run(tar.arg("."));
    let options = Options {
        data: DataIn::Archive {
            bytes: std::fs::metadata(&archive).unwrap().len(),
        },
        ..blocks_of(512)
    };
    let image = Image::make(&Tar::open(&archive).unwrap(), &options).unwrap();
    assert!(image.made.bytes < 8192, "{:?}", image.made);
    fsck::assert_clean(&image.path(), Some(&archive), &options, 0);
    if mount::possible("erofs") {
        let point = image.dir().join("mnt");
        let mounted = Mounted::new("erofs", &image.path(), &[&archive], &point, "ro").unwrap();
        let seen = observe_bytes(mounted.root(), 4096);
        mounted.end();
        let mut meant = observe_bytes(&tree, 4096);
        meant
            .values_mut()
            .for_each(|object| object.ctime = object.mtime);
        assert_same(&meant, &seen);
    }
}
