//! What is extracted equals what the image was made of; and whatever an image says,
//! nothing is written beside the target.

use crate::images::{Tree, made};
use crate::patient::Patient;
use crate::read::open;
use crate::tools::{Suite, skip};
use crate::trees::observe::assert_same;
use crate::view;
use imagegen::erofs::extract::{ExtractError, Options, Report, extract};
use imagegen::erofs::format::U64;
use imagegen::erofs::format::directory::{Entry, kind};
use imagegen::erofs::read::Image;
use imagegen::medium::Source;
use imagegen::tree::Progress;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

fn run<S: Source>(image: &Image<S>, target: &Path, force: bool) -> Result<Report, ExtractError> {
    let root = image.root().unwrap();
    extract(
        image,
        root,
        b"",
        target,
        Options { force },
        &Progress::default(),
    )
}

#[test]
fn a_tree_comes_out_as_it_went_in() {
    if !rustix::process::geteuid().is_root() {
        return skip("owners and devices need root");
    }
    let tree = Tree::new(300_000);
    let sparse = fs::File::create(tree.path().join("sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    // Not now: as `Tree` says of all its times.
    let then = std::time::UNIX_EPOCH + std::time::Duration::new(5, 7);
    sparse.set_modified(then).unwrap();
    let meant = view::of_directory(tree.path());
    for options in [
        "-T1 --mkfs-time",
        "-zlz4 -Eall-fragments -T1 --mkfs-time",
        "--chunksize=4096",
    ] {
        let Some(made) = made(Suite::Newest, options, tree.path()) else {
            return;
        };
        let out = tempfile::tempdir().unwrap();
        let target = out.path().join("new");
        let report = run(&open(&made), &target, false).unwrap();
        assert!(
            report.damaged.is_empty() && report.skipped.is_empty(),
            "{report:?}"
        );
        let mut seen = view::of_directory(&target);
        let mut meant = meant.clone();
        for view in [&mut meant, &mut seen] {
            view.get_mut(&b""[..]).unwrap().mtime = (0, 0);
        }
        eprintln!("{options}"); // shown if it fails
        assert_same(&meant, &seen);
        if options.starts_with("--chunk") {
            let blocks = fs::metadata(target.join("sparse")).unwrap().blocks();
            assert_eq!(blocks, 0, "a hole was filled");
        }
    }
}

#[test]
fn a_part_can_be_had_alone() {
    let tree = Tree::new(10_000);
    let Some(made) = made(Suite::Newest, "", tree.path()) else {
        return;
    };
    let image = open(&made);
    let out = tempfile::tempdir().unwrap();
    let progress = Progress::default();
    let inode = image.find(b"names/one").unwrap();
    let options = Options::default();
    extract(
        &image,
        inode,
        b"one",
        &out.path().join("file"),
        options,
        &progress,
    )
    .unwrap();
    let bytes = fs::read(out.path().join("file/one")).unwrap();
    assert_eq!(bytes, b"one inode, three names");
    let inode = image.find(b"names").unwrap();
    extract(
        &image,
        inode,
        b"names",
        &out.path().join("names"),
        options,
        &progress,
    )
    .unwrap();
    assert_eq!(fs::read(out.path().join("names/two")).unwrap(), bytes);
    let links = fs::metadata(out.path().join("names/one")).unwrap().nlink();
    assert_eq!(links, 2, "of three names two are there");
}

#[test]
fn what_is_there_is_refused_until_forced() {
    let tree = Tree::new(10_000);
    let Some(made) = made(Suite::Newest, "", tree.path()) else {
        return;
    };
    let image = open(&made);
    let out = tempfile::tempdir().unwrap();
    let outside = out.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("one"), "mine").unwrap();
    let target = out.path().join("target");
    fs::create_dir_all(target.join("deep")).unwrap();
    fs::write(target.join("three"), "old").unwrap();
    symlink(&outside, target.join("names")).unwrap();
    symlink(outside.join("one"), target.join("mixed")).unwrap();
    let refused = run(&image, &target, false).unwrap_err();
    assert!(matches!(refused, ExtractError::NotEmpty(_)), "{refused}");
    run(&image, &target, true).unwrap();
    // Links that were there are replaced, not followed.
    assert_eq!(fs::read(outside.join("one")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(
        fs::read(target.join("names/one")).unwrap(),
        b"one inode, three names"
    );
    assert_eq!(
        fs::read(target.join("three")).unwrap(),
        b"one inode, three names"
    );
    assert!(!target.join("mixed").is_symlink());
}

/// A tree with a link that leads out and a directory whose names are as long.
fn trap(outside: &Path) -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    symlink(outside, tree.path().join("aa")).unwrap();
    fs::create_dir(tree.path().join("bb")).unwrap();
    fs::write(tree.path().join("bb/planted"), "evil").unwrap();
    fs::write(tree.path().join("cc"), "evil").unwrap();
    fs::hard_link(tree.path().join("cc"), tree.path().join("bb/link")).unwrap();
    fs::write(tree.path().join("longer-name"), "evil").unwrap();
    tree
}

/// Renames in the image, and extracts it; whether something damaged is said without and
/// with force must be as `loud` says.
fn spring(renames: &[(&str, &str, &str)], loud: [bool; 2]) {
    let out = tempfile::tempdir().unwrap();
    let outside = out.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let tree = trap(&outside);
    let Some(made) = made(Suite::Newest, "", tree.path()) else {
        return;
    };
    let mut patient = Patient::of(&made);
    for (directory, name, new) in renames {
        let at = patient.name(directory, name);
        patient.bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
    }
    let image = Image::open(&patient.bytes[..]).unwrap();
    for (force, loud) in [false, true].into_iter().zip(loud) {
        let target = out.path().join(format!("target-{force}"));
        let report = run(&image, &target, force).unwrap();
        assert_eq!(!report.is_sound(), loud, "{renames:?}: {report:?}");
        let strays = fs::read_dir(&outside).unwrap().count();
        assert_eq!(
            strays, 0,
            "{renames:?}, force {force}: something was planted"
        );
        let names = fs::read_dir(out.path()).unwrap().count();
        assert_eq!(
            names,
            2 + usize::from(force),
            "{renames:?}: beside the target"
        );
    }
}

#[test]
fn a_directory_does_not_go_through_a_link_of_its_name() {
    // With force one takes the other's place.
    spring(&[("", "bb", "aa")], [true, false]);
    spring(&[("", "cc", "aa")], [true, false]);
}

#[test]
fn names_that_lead_upwards_lead_nowhere() {
    // Taken for the directory's own entries.
    spring(&[("", "cc", "..")], [false; 2]);
    spring(&[("bb", "link", "../x")], [true; 2]);
    spring(&[("", "longer-name", "../../../xx")], [true; 2]);
    spring(&[("", "longer-name", "/tmp/strays")], [true; 2]);
}

/// A directory whose entry leads to one above it.
#[test]
fn circles_are_cut() {
    let tree = Tree::new(10_000);
    let Some(mut patient) = Patient::new("", &tree) else {
        return;
    };
    let at = patient.entry("deep/er", "and");
    let root = patient.find("").nid;
    patient.modify(at, |entry: &mut Entry| {
        entry.nid = U64::new(root);
        entry.kind = kind::DIRECTORY;
    });
    let image = Image::open(&patient.bytes[..]).unwrap();
    let out = tempfile::tempdir().unwrap();
    let report = run(&image, out.path(), false).unwrap();
    let problem = &report.damaged[0];
    assert_eq!(problem.path, "/deep/er/and");
    assert!(problem.text.contains("a second time"), "{problem:?}");
    assert_eq!(report.damaged.len(), 1);
}

/// Deeper than descriptors could be held open.
#[test]
fn depth_needs_no_descriptors() {
    let tree = tempfile::tempdir().unwrap();
    let mut deep = tree.path().to_owned();
    for _ in 0..1500 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("end"), "here").unwrap();
    let Some(made) = made(Suite::Newest, "", tree.path()) else {
        return;
    };
    let out = tempfile::tempdir().unwrap();
    let report = run(&open(&made), out.path(), false).unwrap();
    assert!(report.is_sound(), "{report:?}");
    let path = out.path().join(deep.strip_prefix(tree.path()).unwrap());
    assert_eq!(fs::read(path.join("end")).unwrap(), b"here");
}
