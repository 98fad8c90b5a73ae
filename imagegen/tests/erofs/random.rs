//! Random trees and options, drawn so that numbers lie near where one form of a structure
//! ends: judged by both fsck.erofs and the kernel's mount.
//!
//! A run has few cases; `EROFS_CASES` asks for more. What failed is shrunk and printed with
//! its seed, which `PROPTEST_RNG_SEED` takes again.

use crate::judge;
use crate::model::Object;
use crate::trees::random::{Grown, grown, runner, tree};
use imagegen::erofs::write::{InodeForm, Metadata, Options};
use proptest::prelude::*;

fn options() -> impl Strategy<Value = Options> {
    let sizes = (9..=12_u32, 0..3_u32);
    let inodes = prop::sample::select(vec![InodeForm::Auto, InodeForm::Extended]);
    let chunks = prop_oneof![2 => Just(None), 1 => (0..6_u32).prop_map(Some)];
    let switches = any::<[bool; 4]>();
    let metadata = prop::sample::select(vec!["", "", "lz4", "zstd"]);
    let all = (sizes, inodes, chunks, switches, metadata);
    all.prop_map(|((bits, larger), inodes, chunks, switches, metadata)| {
        let [bit48, dedupe, inline_tails, xattr_filter] = switches;
        let prefixes = [&b"user.1"[..], b"trusted.2"];
        let chunk = chunks.map(|more| (1_u64 << (bits + more)).max(4096));
        Options {
            block_size: 1 << bits,
            inodes,
            bit48,
            chunk_size: chunk,
            dedupe: dedupe && chunk.is_some(),
            metadata: metadata.parse().ok().map(|algorithm| Metadata {
                algorithm,
                cluster: 1 << (bits + larger),
            }),
            inline_tails,
            xattr_filter,
            xattr_prefixes: prefixes
                .iter()
                .take(larger as usize)
                .map(|p| p.to_vec())
                .collect(),
            ..Options::default()
        }
    })
}

/// Whether an object's attributes are not more than the format holds, by a safe margin.
fn fits(object: &Object) -> bool {
    let values = object.xattrs.values().map(Vec::len);
    values.clone().all(|length| length < 1 << 16) && values.sum::<usize>() < 250_000
}

#[test]
fn random_trees_please_all_judges() {
    let strategy = (prop::collection::vec(grown(1 << 17), 0..30), options());
    let judged = runner("EROFS_CASES", 24).run(&strategy, |(grown, options): (Vec<Grown>, _)| {
        let tree = tree(&grown);
        prop_assume!(tree.objects.iter().all(fits));
        judge(&tree, &options);
        Ok(())
    });
    judged.unwrap_or_else(|failure| panic!("{failure}"));
}
