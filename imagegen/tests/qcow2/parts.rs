//! What lies beside the disk: snapshots, bitmaps, backing files, data files, pipes.

use crate::convert::{disk, options};
use crate::images::{self, Qemu, begin, text};
use imagegen::qcow2::check;
use imagegen::qcow2::format::{BitmapFlag, CompressionType, RefcountWidth};
use imagegen::qcow2::open::{Format, open, versions};
use imagegen::qcow2::provenance::Provenance;
use imagegen::qcow2::read::{Image, Layer};
use imagegen::qcow2::write::{Bits, Contents, Options, Targets, needed, stream, stream_raw, write};
use imagegen::target::{Overwrite, Target};
use imagegen::tree::Progress;
use rand::RngExt;
use std::fs::File;
use std::num::NonZeroU64;
use std::path::Path;

fn file(path: &Path) -> Target {
    Target::growing(path, 0, Overwrite::Force).unwrap()
}

/// Makes an image, and asks both checks about it.
fn made(qemu: &Qemu, contents: &Contents<'_, File>, options: &Options, image: &Path, what: &str) {
    let target = file(image);
    let written = write(
        contents,
        Targets::alone(&target),
        options,
        &Progress::default(),
    );
    let length = written.unwrap().length;
    target.finish_at(length, false).unwrap();
    let most = needed(contents, options, u64::MAX, &Progress::default()).unwrap();
    assert!(most >= length, "{what}: {length} bytes, not {most}");
    sound(qemu, image, what);
}

fn sound(qemu: &Qemu, image: &Path, what: &str) {
    let report = check::check(File::open(image).unwrap());
    assert_eq!(report.exit_code(), 0, "{what}: {report:?}");
    let (told, code) = qemu.img(&["check", "-f", "qcow2", text(image)]);
    assert_eq!(code, 0, "{what}: {told}");
}

#[test]
fn snapshots_come_along_and_what_they_share_is_written_once() {
    let Some(qemu) = Qemu::find() else { return };
    let mut random = images::random();
    let mut seen = 0;
    for round in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let (from, names) = images::make(&qemu, dir.path(), &mut random);
        let chain = open(&from, Some(Format::Qcow2), None).unwrap();
        let versions = versions(&chain).unwrap();
        assert_eq!(versions.len(), names.len());
        let mut options = options(&mut random);
        if options.refcounts.order() < 2 {
            options.refcounts = RefcountWidth::V2;
        }
        let what = format!("round {round}, {options:?}");
        let image = dir.path().join("again.qcow2");
        let contents = Contents {
            versions: &versions,
            ..Contents::of(&chain.disk)
        };
        made(&qemu, &contents, &options, &image, &what);
        let listed = qemu.done(&["snapshot", "-l", text(&image)]);
        assert!(names.iter().all(|name| listed.contains(name)), "{listed}");
        assert!(
            qemu.contents(&image, None) == qemu.contents(&from, None),
            "{what}"
        );
        for name in &names {
            seen += 1;
            let (ours, theirs) = (
                qemu.contents(&image, Some(name)),
                qemu.contents(&from, Some(name)),
            );
            assert!(ours == theirs, "{what}, {name}");
        }
        // Applied, the marks of being used once are QEMU's to bring up to date.
        if let Some(name) = names.first() {
            let then = qemu.contents(&from, Some(name));
            let (told, code) = qemu.img(&["snapshot", "-a", name, text(&image)]);
            let info = qemu.done(&["info", text(&image)]);
            assert_eq!(code, 0, "{what}: {told} {info}");
            sound(&qemu, &image, &what);
            assert!(qemu.contents(&image, None) == then, "{what}");
        }
    }
    assert!(seen > 0, "no image had a snapshot");
}

/// A disk of which little changed between two snapshots is hardly larger with them.
#[test]
fn many_snapshots_of_one_disk_cost_what_changed() {
    let Some((qemu, dir)) = begin() else { return };
    let path = |name: &str| dir.path().join(name);
    let from = path("from.qcow2");
    qemu.create(&from, &["64M"]);
    qemu.io(&from, &["write -P 3 0 32M".into()]);
    for number in 0..10 {
        qemu.done(&["snapshot", "-c", &format!("s{number}"), text(&from)]);
        qemu.io(&from, &[format!("write -P {number} {number}M 64k")]);
    }
    // Back to an old one: what it shares with now lies beyond its neighbours.
    qemu.done(&["snapshot", "-a", "s2", text(&from)]);
    let chain = open(&from, Some(Format::Qcow2), None).unwrap();
    let versions = versions(&chain).unwrap();
    let contents = Contents {
        versions: &versions,
        ..Contents::of(&chain.disk)
    };
    for cluster_bits in [12, 16, 21] {
        let image = path("again.qcow2");
        let options = Options {
            cluster_bits,
            ..Options::default()
        };
        made(
            &qemu,
            &contents,
            &options,
            &image,
            &format!("{cluster_bits}"),
        );
        let length = std::fs::metadata(&image).unwrap().len();
        // Of the clusters that ten writes touched, and of every table, a copy each.
        let most = (32 << 20)
            + 10 * (1 << cluster_bits).max(64 << 10)
            + (11 + 11 + 8) * (1 << cluster_bits);
        let tables = 11 * (64 << 20 >> cluster_bits) * 8;
        assert!(length <= most + tables, "{cluster_bits}: {length}");
        assert!(qemu.contents(&image, Some("s9")) == qemu.contents(&from, Some("s9")));
    }
}

#[test]
fn bitmaps_come_along() {
    let Some(qemu) = Qemu::find() else { return };
    let mut random = images::random();
    for cluster_bits in [9, 16, 20] {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let from = path("from.qcow2");
        qemu.create(&from, &["40M"]);
        for (name, granularity) in [("monday", "4k"), ("tuesday", "512")] {
            qemu.done(&["bitmap", "--add", "-g", granularity, text(&from), name]);
        }
        let writes = (0..20).map(|_| {
            let at = 512 * random.random_range(0..80_000u64);
            format!("write -P 5 {at} 512")
        });
        qemu.io(&from, &writes.collect::<Vec<_>>());
        let read = |image: &Path| -> Vec<Bits> {
            let chain = open(image, Some(Format::Qcow2), None).unwrap();
            let Some(Layer::Qcow2(image)) = chain.disk.layers().next() else {
                panic!("no image");
            };
            let bitmaps = image.bitmaps().unwrap();
            let bits = |bitmap: &imagegen::qcow2::read::Bitmap| Bits {
                name: bitmap.name.clone(),
                granularity_bits: bitmap.granularity_bits,
                flags: bitmap.flags,
                bits: image.bits(bitmap).unwrap(),
            };
            bitmaps.iter().map(bits).collect()
        };
        let bitmaps = read(&from);
        assert_eq!(bitmaps.len(), 2);
        assert!(
            bitmaps
                .iter()
                .all(|bitmap| bitmap.bits.iter().any(|byte| *byte > 0))
        );
        assert_eq!(bitmaps[0].flags, BitmapFlag::Auto.mask());
        let chain = open(&from, Some(Format::Qcow2), None).unwrap();
        let contents = Contents {
            bitmaps: &bitmaps,
            ..Contents::of(&chain.disk)
        };
        let options = Options {
            cluster_bits,
            ..Options::default()
        };
        let image = path("again.qcow2");
        made(
            &qemu,
            &contents,
            &options,
            &image,
            &format!("{cluster_bits}"),
        );
        let bits = |all: Vec<Bits>| all.into_iter().map(|one| one.bits).collect::<Vec<_>>();
        assert_eq!(bits(read(&image)), bits(bitmaps));
        // QEMU's own reading of them, over one that is empty.
        let merged = path("merged.qcow2");
        qemu.create(&merged, &["40M"]);
        qemu.done(&["bitmap", "--add", "-g", "512", text(&merged), "tuesday"]);
        let words = [
            "bitmap",
            "--merge",
            "tuesday",
            "-b",
            text(&image),
            "-F",
            "qcow2",
        ];
        qemu.done(&[&words[..], &[text(&merged), "tuesday"]].concat());
        assert_eq!(read(&merged)[0].bits, read(&image)[1].bits);
    }
}

#[test]
fn above_a_backing_file_stands_what_differs() {
    let Some(qemu) = Qemu::find() else { return };
    let mut random = images::random();
    for round in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (base, top, image) = (path("base.raw"), path("top.raw"), path("image.qcow2"));
        disk(&base, &mut random);
        disk(&top, &mut random);
        // Some of it is the same.
        let mut bytes = std::fs::read(&top).unwrap();
        let below = std::fs::read(&base).unwrap();
        for _ in 0..8 {
            let most = bytes.len().min(below.len());
            let at = random.random_range(0..most);
            let end = random.random_range(at..most);
            bytes[at..end].copy_from_slice(&below[at..end]);
        }
        std::fs::write(&top, &bytes).unwrap();
        let raw = |path: &Path| open(path, Some(Format::Raw), None).unwrap().disk;
        let options = Options {
            backing: Some(("base.raw".into(), Format::Raw)),
            ..options(&mut random)
        };
        if options.cluster_bits == 9 {
            continue; // no room for the name beside the header
        }
        let what = format!("round {round}, {options:?}");
        let (disk, below) = (raw(&top), raw(&base));
        let contents = Contents {
            below: Some(&below),
            ..Contents::of(&disk)
        };
        made(&qemu, &contents, &options, &image, &what);
        assert!(qemu.contents(&image, None) == bytes, "{what}");
        // The same disk above itself is nothing.
        let contents = Contents {
            below: Some(&disk),
            ..Contents::of(&disk)
        };
        let target = file(&path("nothing.qcow2"));
        let written = write(
            &contents,
            Targets::alone(&target),
            &options,
            &Progress::default(),
        );
        assert_eq!(written.unwrap().data_clusters, 0, "{what}");
        // Committed, the base is what it was made of.
        if bytes.len() >= std::fs::metadata(&base).unwrap().len() as usize {
            qemu.done(&["commit", "-q", "-f", "qcow2", text(&image)]);
            assert!(std::fs::read(&base).unwrap() == bytes, "{what}");
        }
    }
}

#[test]
fn a_data_file_is_the_disk() {
    let Some(qemu) = Qemu::find() else { return };
    let mut random = images::random();
    for round in 0..16 {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (raw, image, data) = (path("disk.raw"), path("image.qcow2"), path("image.data"));
        disk(&raw, &mut random);
        let mut options = options(&mut random);
        options.compression = None;
        (options.version, options.data_file) = (3, Some(text(&data).to_owned()));
        let what = format!("round {round}, {options:?}");
        if options.cluster_bits == 9 {
            continue;
        }
        let disk = open(&raw, Some(Format::Raw), None).unwrap().disk;
        let (target, data_target) = (file(&image), file(&data));
        let targets = Targets {
            image: &target,
            data: Some(&data_target),
        };
        let contents = Contents::of(&disk);
        let written = write(&contents, targets, &options, &Progress::default());
        target.finish_at(written.unwrap().length, false).unwrap();
        data_target.finish_at(disk.size(), false).unwrap();
        assert!(
            std::fs::read(&data).unwrap() == std::fs::read(&raw).unwrap(),
            "{what}"
        );
        sound(&qemu, &image, &what);
        assert!(
            qemu.contents(&image, None) == std::fs::read(&raw).unwrap(),
            "{what}"
        );
        let about = qemu.done(&["info", "--output=json", text(&image)]);
        assert!(about.contains("\"data-file-raw\": true"), "{about}");
    }
}

/// Into a pipe goes what would go into a file, byte for byte.
#[test]
fn a_pipe_gets_what_a_file_gets() {
    let Some(qemu) = Qemu::find() else { return };
    let mut random = images::random();
    for round in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let (from, _) = images::make(&qemu, dir.path(), &mut random);
        let chain = open(&from, Some(Format::Qcow2), None).unwrap();
        let mut options = options(&mut random);
        if options.refcounts.order() < 2 {
            options.refcounts = RefcountWidth::V2;
        }
        let what = format!("round {round}, {options:?}");
        let versions = versions(&chain).unwrap();
        let contents = Contents {
            versions: &versions,
            ..Contents::of(&chain.disk)
        };
        let image = dir.path().join("again.qcow2");
        made(&qemu, &contents, &options, &image, &what);
        let mut piped = Vec::new();
        let written = stream(&contents, &mut piped, &options, &Progress::default()).unwrap();
        assert_eq!(written.length, piped.len() as u64);
        assert!(piped == std::fs::read(&image).unwrap(), "{what}");
        let mut raw = Vec::new();
        stream_raw(&chain.disk, &mut raw, 3, &Progress::default()).unwrap();
        assert!(raw == qemu.contents(&from, None), "{what}");
    }
}

/// Many tiny compressed clusters in one, used by many: counts do not overflow.
#[test]
fn narrow_counts_are_never_exceeded() {
    let Some((qemu, dir)) = begin() else { return };
    let path = |name: &str| dir.path().join(name);
    let from = path("from.qcow2");
    qemu.create(&from, &["16M"]);
    qemu.io(&from, &["write -P 3 0 16M".into()]);
    for number in 0..6 {
        qemu.done(&["snapshot", "-c", &format!("s{number}"), text(&from)]);
    }
    let chain = open(&from, Some(Format::Qcow2), None).unwrap();
    let versions = versions(&chain).unwrap();
    let contents = Contents {
        versions: &versions,
        ..Contents::of(&chain.disk)
    };
    // Of 2 bits, 4 and 8; seven use what is there, and one more while a snapshot is applied.
    for (order, is_enough) in [(1, false), (2, true), (3, true)] {
        let mut options = Options {
            refcounts: RefcountWidth::from_order(order).unwrap(),
            ..Options::default()
        };
        options.compression = Some(imagegen::qcow2::write::Compression {
            kind: CompressionType::Zstd,
            level: 1,
        });
        assert_eq!(options.verify(&contents).is_ok(), is_enough, "{order}");
        if is_enough {
            let image = path("again.qcow2");
            made(&qemu, &contents, &options, &image, &format!("{order}"));
            qemu.done(&["snapshot", "-a", "s3", text(&image)]);
            sound(&qemu, &image, &format!("{order}, applied"));
        }
    }
}

#[test]
fn of_what_it_was_made_an_image_tells_also_when_qemu_wrote_to_it() {
    let Some(qemu) = Qemu::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let raw = path("disk.raw");
    std::fs::write(&raw, vec![7; 1 << 20]).unwrap();
    qemu.done(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        text(&path("below.qcow2")),
        "1M",
    ]);
    let provenance = Provenance {
        disk: uuid::Uuid::from_u128(0x1234_5678_9abc_def0),
        version: 77,
        since: NonZeroU64::new(76),
    };
    let told = |image: &Path| {
        let image = Image::open(File::open(image).unwrap()).unwrap();
        image.extensions().provenance
    };
    for (version, cluster_bits) in [(2, 9), (2, 16), (3, 9), (3, 16), (3, 21)] {
        let chain = open(&raw, Some(Format::Raw), None).unwrap();
        let options = Options {
            version,
            cluster_bits,
            backing: Some(("below.qcow2".into(), Format::Qcow2)),
            provenance: Some(provenance),
            ..Options::default()
        };
        let image = path("image.qcow2");
        let what = format!("version {version}, clusters of 2^{cluster_bits} bytes");
        made(&qemu, &Contents::of(&chain.disk), &options, &image, &what);
        assert_eq!(told(&image), Some(provenance), "{what}");
        qemu.io(&image, &["write -P 9 4096 512".into()]);
        qemu.done(&["rebase", "-u", "-b", "", text(&image)]);
        sound(&qemu, &image, &what);
        assert_eq!(told(&image), Some(provenance), "{what}, written to");
    }
}
