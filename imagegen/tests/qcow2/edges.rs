//! Sizes, names and contents at the edges of what the format can say.

use crate::command::said;
use crate::images::{Qemu, begin};
use imagegen::qcow2::open::{Format, open};
use imagegen::qcow2::write::{Contents, Options, Targets, Version, write};
use imagegen::target::{Overwrite, Target};
use imagegen::tree::Progress;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// Converts, which must go well.
fn convert(dir: &Path, words: &[&str]) -> String {
    let (text, code) = said(dir, &[&["convert"], words].concat());
    assert_eq!(code, 0, "{words:?}: {text}");
    text
}

fn check(qemu: &Qemu, image: &Path, what: &str) {
    let (told, code) = qemu.img(&["check", "-f", "qcow2", image.to_str().unwrap()]);
    assert_eq!(code, 0, "{what}: {told}");
}

/// Of a cluster some parts are zeroes and the others those of the backing file.
#[test]
fn zeroes_hide_only_what_they_are_above() {
    let Some((qemu, dir)) = begin() else { return };
    let dir = dir.path();
    let base = vec![9; 256 << 10];
    let mut top = base.clone();
    top[2048..6144].fill(0);
    top[128 << 10..192 << 10].fill(0);
    fs::write(dir.join("base.raw"), &base).unwrap();
    fs::write(dir.join("top.raw"), &top).unwrap();
    convert(
        dir,
        &[
            "-f",
            "raw",
            "-b",
            "base.raw",
            "-F",
            "raw",
            "--extended-l2",
            "top.raw",
            "top.qcow2",
        ],
    );
    let image = dir.join("top.qcow2");
    assert!(qemu.contents(&image, None) == top);
    check(&qemu, &image, "mixed");
}

/// QEMU counts sectors of 512 bytes, and sees nothing of a part of one.
#[test]
fn the_last_bytes_of_an_odd_disk_are_kept() {
    let Some(qemu) = Qemu::find() else { return };
    for size in [1, 511, 513, (1 << 20) + 100] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut bytes = vec![7; size];
        fs::write(dir.join("odd.raw"), &bytes).unwrap();
        bytes.resize(size.next_multiple_of(512), 0);
        for (what, more) in [
            ("plain", &[][..]),
            ("old", &["--version", "2"]),
            ("packed", &["-c", "zstd"]),
            ("small", &["--cluster-size", "512"]),
            ("beside", &["--data-file", "data.raw"]),
        ] {
            let image = format!("{what}.qcow2");
            let words = [&["-f", "raw", "-O", "qcow2"], more, &["odd.raw", &image]].concat();
            convert(dir, &words);
            let image = dir.join(image);
            check(&qemu, &image, what);
            assert!(qemu.contents(&image, None) == bytes, "{size}, {what}");
        }
        assert!(fs::read(dir.join("data.raw")).unwrap() == bytes, "{size}");
    }
}

#[test]
fn the_last_bytes_of_odd_snapshots_are_kept() {
    let Some((qemu, dir)) = begin() else { return };
    let (raw, image) = (dir.path().join("odd.raw"), dir.path().join("odd.qcow2"));
    let mut bytes = vec![7; 100_001];
    fs::write(&raw, &bytes).unwrap();
    let disk = || open(&raw, Some(Format::Raw), None).unwrap().disk;
    let version = Version {
        id: "1".into(),
        name: "monday".into(),
        taken: Duration::ZERO,
        vm_clock: Duration::ZERO,
        disk: disk(),
    };
    let disk = disk();
    let contents = Contents {
        versions: &[version],
        ..Contents::of(&disk)
    };
    let target = Target::growing(&image, 0, Overwrite::Refuse).unwrap();
    let (targets, options) = (Targets::alone(&target), Options::default());
    let written = write(&contents, targets, &options, &Progress::default()).unwrap();
    target.finish_at(written.length, false).unwrap();
    check(&qemu, &image, "odd");
    bytes.resize(100_001_usize.next_multiple_of(512), 0);
    assert!(qemu.contents(&image, Some("monday")) == bytes);
    assert!(qemu.contents(&image, None) == bytes);
}

#[test]
fn a_disk_without_bytes_leaks_nothing() {
    let Some((qemu, dir)) = begin() else { return };
    let dir = dir.path();
    fs::write(dir.join("empty.raw"), "").unwrap();
    for (number, more) in [
        &[][..],
        &["--version", "2"],
        &["--cluster-size", "512"],
        &["--extended-l2"],
    ]
    .into_iter()
    .enumerate()
    {
        let image = format!("{number}.qcow2");
        convert(
            dir,
            &[&["-f", "raw"], more, &["empty.raw", &image]].concat(),
        );
        check(&qemu, &dir.join(&image), &image);
        assert_eq!(said(dir, &["check", &image]).1, 0, "{image}");
        assert_eq!(qemu.contents(&dir.join(&image), None), b"");
    }
}

#[test]
fn names_that_do_not_fit_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("disk.raw");
    fs::write(&raw, [7; 4096]).unwrap();
    let disk = open(&raw, Some(Format::Raw), None).unwrap().disk;
    let with = |cluster_bits, name: &str| {
        let options = Options {
            cluster_bits,
            backing: Some((name.to_owned(), Format::Raw)),
            ..Options::default()
        };
        options.verify(&Contents::of(&disk)).is_ok()
    };
    assert!(with(16, &"a".repeat(1023)));
    assert!(!with(16, &"a".repeat(1024)));
    assert!(with(9, &"a".repeat(300)));
    assert!(!with(9, &"a".repeat(400)));
    assert!(!with(16, "file:base.raw"));
    assert!(!with(16, "nbd:localhost:1"));
    assert!(with(16, "file:/srv/base.raw"));
    let data = Options {
        cluster_bits: 9,
        data_file: Some("a".repeat(500)),
        ..Options::default()
    };
    assert!(data.verify(&Contents::of(&disk)).is_err());
}

/// Version 2 does not say how large a disk was when a snapshot was taken.
#[test]
fn an_old_image_has_no_snapshots_of_other_sizes() {
    let Some((qemu, dir)) = begin() else { return };
    let dir = dir.path();
    let from = dir.join("from.qcow2").to_str().unwrap().to_owned();
    qemu.create(&from, &["4M"]);
    qemu.done(&["snapshot", "-c", "monday", &from]);
    let words = |version, to| {
        [
            "-O",
            "qcow2",
            "--snapshots",
            "--version",
            version,
            "from.qcow2",
            to,
        ]
    };
    convert(dir, &words("2", "same.qcow2"));
    qemu.done(&["resize", "-q", &from, "8M"]);
    convert(dir, &words("3", "new.qcow2"));
    let (text, code) = said(dir, &[&["convert"], &words("2", "x")[..]].concat());
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("version 3"), "{text}");
}

#[test]
fn the_state_of_a_machine_is_not_left_out_silently() {
    let Some((qemu, dir)) = begin() else { return };
    let dir = dir.path();
    let from = dir.join("from.qcow2");
    qemu.create(&from, &["4M"]);
    qemu.done(&["snapshot", "-c", "monday", from.to_str().unwrap()]);
    let chain = open(&from, Some(Format::Qcow2), None).unwrap();
    let Some(imagegen::qcow2::read::Layer::Qcow2(image)) = chain.disk.layers().next() else {
        panic!("no image");
    };
    let entry = image.snapshots().unwrap()[0].entry.0;
    // The size of the state, of 64 bits: the first of the extra data.
    let file = fs::File::options().write(true).open(&from).unwrap();
    file.write_all_at(&12_345_u64.to_be_bytes(), entry + 40)
        .unwrap();
    let words = ["-O", "qcow2", "--snapshots", "from.qcow2", "to.qcow2"];
    let text = convert(dir, &words);
    assert!(text.contains("monday") && text.contains("12345"), "{text}");
    // Losing it is no matter of a summary.
    let quiet = convert(dir, &[&["--force", "--quiet"], &words[..]].concat());
    assert!(quiet.contains("warning"), "{quiet}");
}
