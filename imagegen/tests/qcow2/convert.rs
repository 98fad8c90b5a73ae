//! What is written is what it was made of, by QEMU's judgement and by our own.

use crate::images::{self, Qemu, begin};
use imagegen::qcow2::check;
use imagegen::qcow2::format::{CompressionType, RefcountWidth};
use imagegen::qcow2::open::{Format, open};
use imagegen::qcow2::write::{Compression, Contents, Options, Targets, needed, write, write_raw};
use imagegen::target::{Overwrite, Target};
use imagegen::tree::Progress;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A raw disk with holes, zeroes, noise and what compresses.
pub(crate) fn disk(path: &Path, random: &mut ChaCha8Rng) {
    let file = File::create(path).unwrap();
    let size = (random.random_range(1..10u64) << 20) + 512 * random.random_range(0..9u64);
    file.set_len(size).unwrap();
    for _ in 0..random.random_range(0..40) {
        let at = 512 * random.random_range(0..size / 512);
        let length = (512 * random.random_range(1..700u64)).min(size - at) as usize;
        let mut bytes = vec![random.random_range(0..4u8) * 17; length];
        if random.random_bool(0.5) {
            let noise = random.random_range(0..=length);
            random.fill_bytes(&mut bytes[..noise]);
        }
        file.write_all_at(&bytes, at).unwrap();
    }
}

/// Options of every kind, as far as they go together.
pub(crate) fn options(random: &mut ChaCha8Rng) -> Options {
    let version = if random.random_ratio(1, 5) { 2 } else { 3 };
    let extended = version == 3 && random.random_ratio(1, 3);
    let zstd = version == 3 && random.random_bool(0.5);
    let least = if extended { 14 } else { 9 };
    Options {
        version,
        cluster_bits: random.random_range(least..=21),
        refcounts: match version {
            2 => RefcountWidth::V2,
            _ => RefcountWidth::from_order(random.random_range(0..=6)).unwrap(),
        },
        extended,
        compression: random.random_bool(0.6).then_some(Compression {
            kind: if zstd {
                CompressionType::Zstd
            } else {
                CompressionType::Deflate
            },
            level: random.random_range(1..=9),
        }),
        backing: None,
        data_file: None,
        provenance: None,
        threads: random.random_range(1..5),
    }
}

fn convert(from: &Path, to: &Path, options: &Options) -> u64 {
    let disk = open(from, Some(Format::Raw), None).unwrap().disk;
    let target = Target::growing(to, 0, Overwrite::Force).unwrap();
    let contents = Contents::of(&disk);
    let written = write(
        &contents,
        Targets::alone(&target),
        options,
        &Progress::default(),
    );
    let written = written.unwrap();
    target.finish_at(written.length, false).unwrap();
    written.length
}

#[test]
fn random_disks_in_images_of_every_kind() {
    let Some(qemu) = Qemu::find() else { return };
    let mut random = images::random();
    for round in 0..24 {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (raw, image) = (path("disk.raw"), path("disk.qcow2"));
        disk(&raw, &mut random);
        let options = options(&mut random);
        let what = format!("round {round}, {options:?}");
        let length = convert(&raw, &image, &options);
        let disk = open(&raw, Some(Format::Raw), None).unwrap().disk;
        let needed = |room| {
            let contents = Contents::of(&disk);
            needed(&contents, &options, room, &Progress::default()).unwrap()
        };
        assert_eq!(needed(0), length, "{what}");
        assert!(needed(u64::MAX) >= length, "{what}");
        let report = check::check(File::open(&image).unwrap());
        assert_eq!(report.exit_code(), 0, "{what}: {report:?}");
        let (told, code) = qemu.img(&["check", "-f", "qcow2", image.to_str().unwrap()]);
        assert_eq!(code, 0, "{what}: {told}");
        let words = ["compare", "-f", "raw", "-F", "qcow2"];
        let [from, to] = [&raw, &image].map(|path| path.to_str().unwrap());
        qemu.done(&[&words[..], &[from, to]].concat());
        // And back, over what was there.
        let back = path("back.raw");
        std::fs::write(&back, vec![0xee; 12 << 20]).unwrap();
        let disk = open(&image, Some(Format::Qcow2), None).unwrap().disk;
        let target = Target::create(&back, disk.size(), Overwrite::Force).unwrap();
        write_raw(&disk, &target, true, 2, &Progress::default()).unwrap();
        target.finish_at(disk.size(), false).unwrap();
        assert!(
            std::fs::read(&back).unwrap() == std::fs::read(&raw).unwrap(),
            "{what}"
        );
        // Whatever the number of threads.
        let again = path("again.qcow2");
        let threads = options.threads % 3 + 1;
        convert(&raw, &again, &Options { threads, ..options });
        assert!(
            std::fs::read(&again).unwrap() == std::fs::read(&image).unwrap(),
            "{what}"
        );
    }
}

/// As small as QEMU's, and holes cost nothing.
#[test]
fn it_is_no_larger_than_qemus() {
    let Some((qemu, dir)) = begin() else { return };
    let mut random = images::random();
    let path = |name: &str| dir.path().join(name);
    let (raw, ours, theirs) = (path("disk.raw"), path("ours.qcow2"), path("theirs.qcow2"));
    let file = File::create(&raw).unwrap();
    file.set_len(1 << 40).unwrap();
    let mut noise = vec![0; 3 << 20];
    random.fill_bytes(&mut noise);
    file.write_all_at(&noise, 700 << 30).unwrap();
    file.write_all_at(&[5; 4096], 5 << 30).unwrap();
    let length = convert(&raw, &ours, &Options::default());
    let [from, to] = [&raw, &theirs].map(|path| path.to_str().unwrap());
    qemu.done(&["convert", "-f", "raw", "-O", "qcow2", from, to]);
    let theirs = std::fs::metadata(&theirs).unwrap().len();
    assert!(
        length <= theirs + theirs / 100,
        "{length} bytes, QEMU's has {theirs}"
    );
}

/// Zeroes above a backing file must be said; what no layer has must show it.
#[test]
fn above_a_backing_file_zeroes_hide_it_and_nothing_shows_it() {
    let Some(qemu) = Qemu::find() else { return };
    for (version, extended) in [(2, false), (3, false), (3, true)] {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let base = path("base.raw");
        std::fs::write(&base, vec![9; 4 << 20]).unwrap();
        // The disk: what one image alone holds, without what is below it.
        let top = path("top.qcow2");
        qemu.create(&top, &["4M"]);
        qemu.io(
            &top,
            &["write -P 5 64k 64k".into(), "write -z 1M 256k".into()],
        );
        let disk = open(&top, Some(Format::Qcow2), None).unwrap().disk;
        let options = Options {
            version,
            extended,
            backing: Some(("base.raw".into(), Format::Raw)),
            ..Options::default()
        };
        let image = path("image.qcow2");
        let target = Target::growing(&image, 0, Overwrite::Refuse).unwrap();
        let contents = Contents::of(&disk);
        let written = write(
            &contents,
            Targets::alone(&target),
            &options,
            &Progress::default(),
        );
        let written = written.unwrap();
        target.finish_at(written.length, false).unwrap();
        let mut meant = vec![9; 4 << 20];
        meant[64 << 10..128 << 10].fill(5);
        meant[1 << 20..(1 << 20) + (256 << 10)].fill(0);
        assert!(qemu.contents(&image, None) == meant, "version {version}");
        let (told, code) = qemu.img(&["check", image.to_str().unwrap()]);
        assert_eq!(code, 0, "{told}");
        let mut ours = vec![0; meant.len()];
        open(&image, Some(Format::Qcow2), None)
            .unwrap()
            .disk
            .read_at(0, &mut ours)
            .unwrap();
        assert!(ours == meant, "version {version}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("disk.raw");
    File::create(&raw).unwrap().set_len(1 << 42).unwrap();
    let disk = open(&raw, Some(Format::Raw), None).unwrap().disk;
    let refused = |options: &Options| {
        assert!(options.verify(&Contents::of(&disk)).is_err(), "{options:?}");
    };
    let usual = Options::default;
    assert!(usual().verify(&Contents::of(&disk)).is_ok());
    refused(&Options {
        cluster_bits: 9,
        ..usual()
    });
    refused(&Options {
        cluster_bits: 22,
        ..usual()
    });
    refused(&Options {
        version: 4,
        ..usual()
    });
    refused(&Options {
        version: 2,
        extended: true,
        ..usual()
    });
    let refcounts = RefcountWidth::from_order(0).unwrap();
    refused(&Options {
        version: 2,
        refcounts,
        ..usual()
    });
    refused(&Options {
        data_file: Some("data".into()),
        backing: Some(("base".into(), Format::Raw)),
        ..usual()
    });
}
