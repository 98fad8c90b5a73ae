//! XFS images judged by others: xfs_repair and xfs_db of Debian's stable and newest
//! suites, the kernel of this machine, and a comparison of what is mounted with what was
//! meant.
//!
//! One test per boundary between two forms of a structure; a *sweep* makes one image that
//! crosses it with certainty and asserts that both forms are there.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod agreement;
mod attributes;
mod db;
mod directories;
mod extents;
mod geometries;
mod image;
mod kinds;
mod limits;
mod load;
mod mount;
mod random;
mod repair;
mod same;
mod sizing;
#[path = "../tools/mod.rs"]
mod tools;
#[path = "../trees/mod.rs"]
mod trees;
mod used;

use image::Image;
use imagegen::xfs::geometry::Options;
use model::Tree;
use mount::{How, Mounted};
use std::fs::File;
use trees::{model, observe};

/// The judges of every image: both xfs_repair, our own checker, and the mounted tree equal
/// to `tree`. Returns the image for more.
fn judge(tree: &Tree, options: &Options) -> Image {
    let image = Image::make(tree, options).unwrap_or_else(|error| panic!("{error}"));
    assert_sound(tree, &image);
    image
}

/// The same for an image that is there.
fn assert_sound(tree: &Tree, image: &Image) {
    repair::assert_clean(&image.path(), image.geometry.ag_count);
    assert_checked(image);
    compare(tree, image);
}

/// Our own checker finds nothing.
fn assert_checked(image: &Image) {
    let report = imagegen::xfs::check::check(File::open(image.path()).unwrap());
    let (problems, failure) = (&report.problems, &report.failure);
    assert!(
        report.exit_code() == 0,
        "our own checker: {failure:?} {problems:?}"
    );
}

/// Mounts read-only and compares.
fn compare(tree: &Tree, image: &Image) {
    if mount::possible() {
        let block = image.geometry.block_size() as u64;
        let mounted = Mounted::new(image, How::ReadOnly);
        let seen = observe::observe(mounted.root(), block, &|_| false);
        mounted.end();
        observe::assert_same(&observe::expected(tree, block, &image.root_xattrs), &seen);
    }
}
