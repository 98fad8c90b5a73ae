//! EROFS images judged by others: the kernel of this machine, which mounts them, fsck.erofs
//! and dump.erofs of Debian's stable and newest suites, and a comparison of what is mounted
//! with what was meant.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]
#![allow(clippy::single_range_in_vec_init)] // a file has a list of ranges

mod boundaries;
mod changed;
mod chunks;
mod compress;
mod far;
mod fsck;
mod image;
mod kinds;
mod metabox;
mod random;
mod same;
mod tails;
#[path = "../tools/mod.rs"]
mod tools;
#[path = "../trees/mod.rs"]
mod trees;
mod xattrs;

use image::Image;
use imagegen::erofs::check::check;
use imagegen::erofs::write::Options;
use imagegen::tree::Progress;
use std::fs::File;
use std::path::PathBuf;
use trees::model::{Object, Tree, What};
use trees::observe::{View, assert_same, expected, observe_bytes};
use trees::{model, mount};

/// Blocks in which contents are compared, whatever the image's are.
const COMPARED: u64 = 4096;

/// The judges of every image: both fsck.erofs, and the mounted tree equal to `tree`. Returns
/// the image for more.
fn judge(tree: &Tree, options: &Options) -> Image {
    let image = Image::make(tree, options).unwrap_or_else(|error| panic!("{error}"));
    let size = |object: &Object| match &object.what {
        What::File(data) => data.size,
        _ => 0,
    };
    let size = tree.objects.iter().map(size).sum();
    fsck::assert_clean(&image.path(), image.device().as_deref(), options, size);
    assert_checked(&image);
    compare(tree, &image);
    image
}

/// Our own checker finds nothing.
fn assert_checked(image: &Image) {
    let devices = image.device().into_iter().map(open).collect();
    let report = check(open(image.path()), devices, &Progress::default());
    let (problems, failure) = (&report.problems, &report.failure);
    assert!(
        report.exit_code() == 0,
        "our own checker: {failure:?} {problems:?}"
    );
}

fn open(path: PathBuf) -> File {
    File::open(path).unwrap()
}

/// Mounts and compares.
fn compare(tree: &Tree, image: &Image) {
    let block = u64::from(image.options.block_size);
    if mount::possible("erofs") && block <= rustix::param::page_size() as u64 {
        assert_same(&meant(tree), &seen(image));
    }
}

/// What the mounted image holds.
fn seen(image: &Image) -> View {
    let point = image.dir().join("mnt");
    let device = image.device();
    let more = Vec::from_iter(device.as_deref());
    let mounted = mount::Mounted::new("erofs", &image.path(), &more, &point, "ro");
    let mounted = mounted.unwrap_or_else(|said| panic!("{said}"));
    let seen = observe_bytes(mounted.root(), COMPARED);
    let said = mounted.end();
    let harmless = ["mounted with root inode", "EXPERIMENTAL"];
    let complains = |line: &&String| !harmless.iter().any(|harmless| line.contains(harmless));
    let complaints: Vec<&String> = said.iter().filter(complains).collect();
    assert!(complaints.is_empty(), "the kernel says: {complaints:#?}");
    seen
}

/// What a mounted image of `tree` must look like: EROFS keeps one time of an object.
fn meant(tree: &Tree) -> View {
    let mut meant = expected(tree, COMPARED, &[]);
    meant
        .values_mut()
        .for_each(|object| object.ctime = object.mtime);
    meant
}
