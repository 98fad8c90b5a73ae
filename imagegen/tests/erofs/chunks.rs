//! Files in chunks: holes, equal contents.

use crate::fsck;
use crate::image::blocks_of;
use crate::judge;
use crate::model::{Id, ROOT, Tree, What};
use imagegen::erofs::write::Options;

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
