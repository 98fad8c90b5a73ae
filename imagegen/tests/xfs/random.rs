//! Random trees in random geometries, drawn so that numbers lie near where one form of a
//! structure ends: judged by both xfs_repair, our own checker and, where it can be, the
//! kernel's mount.
//!
//! A run has few cases; `XFS_CASES` asks for more. What failed is shrunk and printed with
//! its seed, which `PROPTEST_RNG_SEED` takes again.

use crate::image::{Image, MIB, sized};
use crate::trees::random::{grown, runner, tree};
use crate::{assert_checked, assert_sound};
use imagegen::xfs::geometry::{Groups, LogSize, Options};
use imagegen::xfs::write::WriteOptions;
use proptest::prelude::*;

fn options() -> impl Strategy<Value = Options> {
    let sizes = (
        prop::sample::select(vec![1024_u32, 2048, 4096, 16384, 65536]),
        prop::sample::select(vec![512_u32, 1024, 2048]),
    );
    let groups = prop_oneof![Just(Groups::Default), (1..9_u32).prop_map(Groups::Count)];
    let features = any::<[bool; 9]>();
    // Off once in eight times each would be drawn too rarely: half of all cases have all.
    (
        sizes,
        0..4_u32,
        groups,
        features,
        any::<bool>(),
        0..5000_u64,
    )
        .prop_map(
            |((block_size, inode_size), larger, groups, off, all, odd)| {
                let mut options = sized(0);
                options.size = 1200 * MIB + odd * 512;
                (options.block_size, options.inode_size) =
                    (block_size, inode_size.min(block_size / 2));
                options.dir_block_size = Some((block_size << larger).clamp(block_size, 65536));
                (options.groups, options.log_size) = (groups, LogSize::Smallest);
                if !all {
                    let features = &mut options.features;
                    let all = [
                        &mut features.finobt,
                        &mut features.inobtcount,
                        &mut features.sparse,
                        &mut features.rmapbt,
                        &mut features.reflink,
                        &mut features.bigtime,
                        &mut features.nrext64,
                        &mut features.exchange,
                        &mut features.parent,
                    ];
                    all.into_iter()
                        .zip(off)
                        .for_each(|(feature, off)| *feature &= !off);
                    features.inobtcount &= features.finobt;
                }
                options
            },
        )
}

#[test]
fn random_trees_please_all_judges() {
    let strategy = (
        prop::collection::vec(grown(1 << 33), 0..40),
        options(),
        any::<bool>(),
    );
    let judged = runner("XFS_CASES", 24).run(&strategy, |(grown, options, dedupe)| {
        let tree = tree(&grown);
        let dedupe = dedupe && options.features.reflink && options.block_size == 4096;
        let write_options = WriteOptions {
            dedupe,
            ..WriteOptions::default()
        };
        let image = Image::with(&tree, &options, write_options).unwrap();
        assert_sound(&tree, &image);
        Ok(())
    });
    judged.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Many more, judged by our own checker alone.
#[test]
fn many_random_trees_please_our_checker() {
    let strategy = (prop::collection::vec(grown(1 << 33), 0..15), options());
    let judged = runner("XFS_CASES", 150).run(&strategy, |(grown, options)| {
        assert_checked(&Image::make(&tree(&grown), &options).unwrap());
        Ok(())
    });
    judged.unwrap_or_else(|failure| panic!("{failure}"));
}
