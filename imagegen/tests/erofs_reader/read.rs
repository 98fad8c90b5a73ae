//! What the reader says of an image equals the tree that mkfs.erofs made it of, and the
//! checker is silent about it: whatever the options.

use crate::images::{Made, Tree, made};
use crate::tools::Suite::{self, Newest, Stable};
use crate::trees::observe::{View, assert_same};
use crate::view;
use imagegen::erofs::check::check;
use imagegen::erofs::format::superblock::incompat;
use imagegen::erofs::read::{Image, Step};
use imagegen::tree::Progress;
use std::fs::File;

/// A compressible file of more than 1 MiB, so that large clusters are filled.
const LARGE: usize = 1_300_000;

pub(crate) fn open(made: &Made) -> Image<File> {
    let devices = made.devices.iter().map(|path| File::open(path).unwrap());
    Image::with_devices(File::open(&made.image).unwrap(), devices.collect()).unwrap()
}

fn assert_clean(made: &Made, what: &str) {
    let devices = made.devices.iter().map(|path| File::open(path).unwrap());
    let image = File::open(&made.image).unwrap();
    let report = check(image, devices.collect(), &Progress::default());
    let mut text = Vec::new();
    report.write(false, &mut text).unwrap();
    assert_eq!(
        report.exit_code(),
        0,
        "{what}: {}",
        String::from_utf8(text).unwrap()
    );
    assert_eq!(report.unseen, 0, "{what}");
}

/// What is left out of the comparison.
#[derive(Clone, Copy, PartialEq)]
enum But {
    Nothing,
    /// 48-bit images of mkfs.erofs have whole seconds in compact inodes.
    Nanoseconds,
    Xattrs,
}

fn equals(suites: &[Suite], options: &[&str], but: But) {
    let tree = Tree::new(LARGE);
    let plain = view::of_directory(tree.path());
    for suite in suites {
        for options in options {
            let what = format!("{suite:?} {options}");
            let Some(made) = made(*suite, options, tree.path()) else {
                return;
            };
            let image = open(&made);
            let (mut meant, mut seen) = (plain.clone(), view::of_image(&image));
            leave_out(but, &mut meant);
            leave_out(but, &mut seen);
            eprintln!("{what}"); // shown if it fails
            assert_same(&meant, &seen);
            assert_clean(&made, &what);
        }
    }
}

fn leave_out(but: But, view: &mut View) {
    // The root's time is that of the image if it was made within a second.
    view.get_mut(&b""[..]).unwrap().mtime = (0, 0);
    for seen in view.values_mut() {
        match but {
            But::Nothing => {}
            But::Nanoseconds => seen.mtime.1 = 0,
            But::Xattrs => seen.xattrs.clear(),
        }
    }
}

#[test]
fn not_compressed() {
    let options = [
        "",
        "-Eforce-inode-extended",
        "-Enoinline_data",
        "-b512",
        "-b2048 -T1 --mkfs-time",
    ];
    equals(&[Newest, Stable], &options, But::Nothing);
}

#[test]
fn chunks_and_devices() {
    let both = [
        "--chunksize=4096",
        "--chunksize=65536 -Eforce-chunk-indexes",
    ];
    equals(&[Newest, Stable], &both, But::Nothing);
    let blob = "--chunksize=4096 --blobdev=BLOB";
    equals(&[Newest], &[blob], But::Nothing);
    equals(&[Newest], &["-E48bit --chunksize=4096"], But::Nanoseconds);
}

#[test]
fn attributes() {
    let both = [
        "-x1",
        "-Exattr-name-filter",
        "--xattr-prefix=user.long.pre --xattr-prefix=trusted.overlay.",
        "-zlz4 -Efragments --xattr-prefix=user.com",
    ];
    equals(&[Newest, Stable], &both, But::Nothing);
    let plain = "-Eplain-xattr-prefixes --xattr-prefix=user.";
    equals(&[Newest], &[plain], But::Nothing);
    equals(&[Newest], &["-x-1"], But::Xattrs);
}

#[test]
fn lz4_in_all_kinds_of_indexes() {
    let options = [
        "-zlz4",
        "-zlz4 -Elegacy-compress",
        "-zlz4hc,12 -C65536",
        "-zlz4 -b512 -C1048576",
        "-zlz4 --max-extent-bytes=65536",
        "-zlz4:deflate --compress-hints=HINTS -C16384",
    ];
    equals(&[Stable], &options, But::Nothing);
    let options = &options[..5];
    equals(&[Newest], options, But::Nothing);
    equals(&[Newest], &["-zlz4 --zD"], But::Nothing);
}

#[test]
fn deflate_and_lzma() {
    let options = [
        "-zdeflate",
        "-zlibdeflate,6 -b1024 -C8192",
        "-zlzma,1 -C65536",
    ];
    equals(&[Newest], &options, But::Nothing);
    equals(&[Stable], &options[2..], But::Nothing);
}

#[test]
fn zstd() {
    equals(
        &[Newest],
        &["-zzstd,1", "-zzstd,1 -C65536 --zD"],
        But::Nothing,
    );
    equals(&[Stable], &["-zzstd,1 -C65536"], But::Nothing);
}

#[test]
fn tails_and_fragments() {
    let options = [
        "-zlz4 -Eztailpacking",
        "-zzstd,1 -C16384 -Eztailpacking",
        "-zlz4 -Efragments",
        "-zlz4 -Eall-fragments",
        "-zlz4 -Efragments,ztailpacking",
        "-zdeflate -C8192 -b512 -Eall-fragments,dedupe,ztailpacking",
    ];
    equals(&[Newest, Stable], &options, But::Nothing);
}

#[test]
fn deduplicated() {
    let options = ["-zlz4 -Ededupe", "-zlz4hc -C65536 -Eall-fragments,dedupe"];
    equals(&[Newest, Stable], &options, But::Nothing);
}

#[test]
fn wide_block_numbers_and_encoded_extents() {
    let options = [
        "-E48bit",
        "-Edot-omitted",
        "-E48bit -zlz4",
        "-E48bit -zzstd,1 -C65536",
        "-E48bit -zlz4 -Efragments",
        "-E48bit -zlz4 -Ededupe",
        // Records of 4 bytes, of 8 and 16, and of 16.
        "-E48bit -zzstd,1 -C65536 -Efragments",
        "-E48bit -zlz4hc -C65536 -Ededupe",
        "-E48bit -zlz4 -Eztailpacking,fragments -b1024",
    ];
    equals(&[Newest], &options, But::Nanoseconds);
}

#[test]
fn metadata_in_a_metabox() {
    let options = ["-m4096", "-m4096 -x1", "-m4096 --xattr-prefix=user.com"];
    equals(&[Newest], &options, But::Nanoseconds);
}

/// mkfs.erofs 1.9.4 keeps directories in a metadata zone where their numbers do not lead;
/// its own fsck says so, too.
#[test]
fn a_metabox_with_directories_elsewhere_is_found_wanting() {
    let tree = Tree::new(10_000);
    let Some(made) = made(Newest, "-m4096:lz4 --MZ=id", tree.path()) else {
        return;
    };
    let image = open(&made);
    assert!(image.superblock().has(incompat::METABOX));
    let mut fsck = crate::tools::erofs_utils(Newest, "fsck.erofs").unwrap();
    let judged = fsck.arg(&made.image).output().unwrap().status.success();
    let mut walk = image.walk(image.root().unwrap());
    let mut broken = 0;
    while let Some(step) = walk.next() {
        broken += u64::from(matches!(step, Step::Broken(_)));
    }
    assert_eq!(
        broken == 0,
        judged,
        "{broken} broken, and fsck.erofs says {judged}"
    );
}

/// Names are found by binary search, those that are not there are not.
#[test]
fn names_are_looked_up() {
    let tree = Tree::new(10_000);
    let Some(made) = made(Newest, "-b512", tree.path()) else {
        return;
    };
    let image = open(&made);
    let many = image.find(b"/many/").unwrap();
    assert!(many.size > 10 * 512);
    let mut found = 0;
    for entry in image.entries(&many).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            image.lookup(&many, &entry.name).unwrap(),
            Some(entry.clone())
        );
        let absent = [&entry.name[..], b"!"].concat();
        assert_eq!(image.lookup(&many, &absent).unwrap(), None);
        found += 1;
    }
    assert_eq!(found, 302);
    assert_eq!(
        image.find(b"names/./two").unwrap(),
        image.find(b"three").unwrap()
    );
    for path in ["no", "names/../three", "link/it", "three/x"] {
        let error = image.find(path.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("/{path}: ")), "{error}");
    }
}

/// Any range of contents equals the same range of the file.
#[test]
fn contents_are_read_at_any_offset() {
    let tree = Tree::new(LARGE);
    let whole = std::fs::read(tree.path().join("similar")).unwrap();
    for options in [
        "-zlz4 -Ededupe,fragments -C65536",
        "-E48bit -zlz4hc",
        "--chunksize=4096",
    ] {
        let Some(made) = made(Newest, options, tree.path()) else {
            return;
        };
        let image = open(&made);
        let mut contents = image.contents(&image.find(b"similar").unwrap()).unwrap();
        let length = whole.len();
        for at in [
            0,
            1,
            4095,
            65_537,
            300_000,
            length - 5,
            17,
            length,
            length + 9,
        ] {
            for wanted in [0, 1, 4096, 100_001] {
                let mut buffer = vec![0xaa; wanted];
                let got = contents.read_at(at as u64, &mut buffer).unwrap();
                let part = whole.get(at..).unwrap_or_default();
                let part = &part[..part.len().min(wanted)];
                assert!(buffer[..got] == *part, "{options}: {wanted} at {at}");
            }
        }
    }
}

/// Data on a device that is not given is missed when it is read, by the device's number.
#[test]
fn a_missing_device_is_named() {
    let tree = Tree::new(10_000);
    let Some(made) = made(Newest, "--chunksize=4096 --blobdev=BLOB", tree.path()) else {
        return;
    };
    let image = Image::open(File::open(&made.image).unwrap()).unwrap();
    let inode = image.find(b"large").unwrap();
    let mut contents = image.contents(&inode).unwrap();
    let error = contents.read_at(0, &mut [0; 10]).unwrap_err().to_string();
    assert!(
        error.contains("device 1") && error.contains("--device"),
        "{error}"
    );
    let devices = (0..2).map(|_| File::open(&made.devices[0]).unwrap());
    let image = File::open(&made.image).unwrap();
    let error = Image::with_devices(image, devices.collect()).unwrap_err();
    assert!(
        error.to_string().contains("2 devices were given"),
        "{error}"
    );
}
