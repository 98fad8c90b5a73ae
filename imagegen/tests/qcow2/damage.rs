//! Images that are cut off, stale or led to by odd names: what is said of them is what
//! QEMU says.

use crate::command::said;
use crate::images::{Qemu, begin, text};
use imagegen::qcow2::check;
use imagegen::qcow2::open::{Format, open};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::File;
use std::path::Path;

/// The exit codes of both checks, and how many leaks each found.
#[track_caller]
fn both_say(qemu: &Qemu, image: &Path, what: &str) -> i32 {
    let report = check::check(File::open(image).unwrap());
    let (told, code) = qemu.img(&["check", "--output=json", text(image)]);
    assert_eq!(
        i32::from(report.exit_code()),
        code,
        "{what}: {report:?} {told}"
    );
    code
}

#[test]
fn a_check_goes_on_where_an_image_is_cut_off() {
    let Some((qemu, dir)) = begin() else { return };
    let image = dir.path().join("image.qcow2");
    qemu.create(&image, &["4M"]);
    qemu.io(&image, &["write -P 7 0 1M".into()]);
    qemu.done(&["snapshot", "-c", "monday", text(&image)]);
    qemu.io(&image, &["write -P 8 0 128k".into()]);
    let length = std::fs::metadata(&image).unwrap().len();
    for length in (0..length).step_by(30_000).skip(1) {
        let file = File::options().write(true).open(&image).unwrap();
        let whole = std::fs::read(&image).unwrap();
        file.set_len(length).unwrap();
        both_say(&qemu, &image, &format!("{length} bytes"));
        let report = check::check(File::open(&image).unwrap());
        assert_eq!(report.failure, None, "{length} bytes");
        std::fs::write(&image, whole).unwrap();
    }
    File::options()
        .write(true)
        .open(&image)
        .unwrap()
        .set_len(1_500_000)
        .unwrap();
    let (told, code) = said(dir.path(), &["check", "image.qcow2"]);
    assert_eq!(
        (told.contains("clusters are allocated"), code),
        (true, 6),
        "{told}"
    );
}

/// QEMU may leave the last cluster short; what lies beyond it is no zeroes.
#[test]
fn what_was_cut_off_is_not_read_as_zeroes() {
    let Some((qemu, dir)) = begin() else { return };
    let path = |name: &str| dir.path().join(name);
    let (raw, image, data) = (path("raw"), path("image.qcow2"), path("data"));
    std::fs::write(&raw, vec![7; 4 << 20]).unwrap();
    let beside = format!("data_file={}", text(&data));
    for (more, cut) in [(&[][..], &image), (&["-o", &beside], &data)] {
        let words = ["convert", "-f", "raw", "-O", "qcow2"];
        qemu.done(&[&words, more, &[text(&raw), text(&image)]].concat());
        let length = std::fs::metadata(cut).unwrap().len();
        for missing in [0, 1000, 65_535, 65_536, 65_537, 900_000] {
            let file = File::options().write(true).open(cut).unwrap();
            file.set_len(length - missing).unwrap();
            let disk = open(&image, Some(Format::Qcow2), None).unwrap().disk;
            let mut found = vec![1; 4 << 20];
            match disk.read_at(0, &mut found) {
                Ok(()) => assert!(missing < 65_536, "{missing} bytes are missing"),
                Err(error) => {
                    assert!(missing >= 65_536, "{missing}: {error}");
                    assert!(error.to_string().contains("beyond"), "{error}");
                    continue;
                }
            }
            let zeroes = found.iter().filter(|byte| **byte == 0).count();
            assert_eq!(zeroes as u64, missing);
            // Also what lies behind the end alone.
            for at in (0..found.len()).step_by(512) {
                let mut part = [1; 512];
                disk.read_at(at as u64, &mut part).unwrap();
                assert_eq!(part, found[at..][..512]);
            }
        }
    }
}

/// A program that knows no bitmaps wrote to the image: they say nothing any more.
#[test]
fn stale_bitmaps_are_marked_leaked_and_left() {
    let Some((qemu, dir)) = begin() else { return };
    let image = dir.path().join("image.qcow2");
    qemu.create(&image, &["4M"]);
    qemu.done(&["bitmap", "--add", text(&image), "since"]);
    qemu.io(&image, &["write -P 8 1M 64k".into()]);
    assert_eq!(both_say(&qemu, &image, "kept"), 0);
    let info = |words: &[&str]| said(dir.path(), &[&["info"], words, &["image.qcow2"]].concat());
    assert!(!info(&[]).0.contains("stale"), "{}", info(&[]).0);
    let mut bytes = std::fs::read(&image).unwrap();
    assert_eq!(bytes[95], 1);
    bytes[95] = 0;
    std::fs::write(&image, bytes).unwrap();
    assert_eq!(both_say(&qemu, &image, "stale"), 3);
    assert!(info(&[]).0.contains("stale"), "{}", info(&[]).0);
    let about: serde_json::Value = serde_json::from_str(&info(&["--json"]).0).unwrap();
    assert_eq!(about["bitmaps"][0]["stale"], true, "{about}");
    let words = ["convert", "-O", "qcow2", "--bitmaps", "image.qcow2", "x"];
    let (told, code) = said(dir.path(), &words);
    assert_eq!((told.contains("stale"), code), (true, 2), "{told}");
    assert!(!dir.path().join("x").exists());
}

/// As `qemu-img compare`: 1 is said of disks that differ alone.
#[test]
fn a_comparison_that_failed_is_no_difference() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("one"), [1; 512]).unwrap();
    std::fs::write(dir.join("two"), [2; 512]).unwrap();
    assert_eq!(said(dir, &["compare", "one", "two"]).1, 1);
    for words in [["one", "nowhere"], ["nowhere", "two"], ["-fqcow2", "one"]] {
        let (told, code) = said(dir, &[&["compare"], &words[..]].concat());
        assert_eq!(code, 2, "{told}");
    }
    let (told, code) = said(dir, &["compare", "-F", "qcow2", "one", "two"]);
    assert_eq!((told.contains("two"), code), (true, 2), "{told}");
}

#[test]
fn only_files_and_block_devices_are_opened() {
    let Some((qemu, dir)) = begin() else { return };
    let dir = dir.path();
    let fifo = dir.join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let image = dir.join("image.qcow2");
    qemu.create(&image, &["-u", "-F", "raw", "-b", "fifo", "1M"]);
    for words in [
        &["map", "-fqcow2", "image.qcow2"][..],
        &["info", "fifo"],
        &["check", "fifo"],
    ] {
        let (told, code) = said(dir, words);
        assert_eq!(
            (told.contains("fifo: it is a FIFO"), code),
            (true, 1),
            "{words:?}: {told}"
        );
    }
    let (told, _) = said(dir, &["map", "."]);
    assert!(told.contains("it is a directory"), "{told}");
}

#[test]
fn names_in_images_say_nothing_to_a_terminal() {
    let Some((qemu, dir)) = begin() else { return };
    let dir = dir.path();
    let (base, image) = (dir.join("b\x1b[31m"), dir.join("image.qcow2"));
    std::fs::write(&base, vec![7; 1 << 20]).unwrap();
    qemu.create(&image, &["-F", "raw", "-b", text(&base)]);
    let (told, code) = said(dir, &["map", "-fqcow2", "image.qcow2"]);
    assert_eq!((told.contains("b\\u{1b}[31m"), code), (true, 0), "{told}");
    assert!(!told.contains('\x1b'), "{told}");
    std::fs::remove_file(&base).unwrap();
    let (told, code) = said(dir, &["map", "-fqcow2", "image.qcow2"]);
    assert_eq!((told.contains("b\\u{1b}[31m"), code), (true, 1), "{told}");
    assert!(!told.contains('\x1b'), "{told}");
}

/// Not the image that leads to it.
#[test]
fn the_file_that_cannot_be_read_is_named() {
    let Some((qemu, dir)) = begin() else { return };
    let (base, image) = (
        dir.path().join("base.qcow2"),
        dir.path().join("image.qcow2"),
    );
    qemu.create(&base, &["1M"]);
    qemu.io(&base, &["write -P 7 0 64k".into()]);
    qemu.create(&image, &["-F", "qcow2", "-b", text(&base)]);
    // Entry 0 of its table of level 2 gets a reserved bit.
    let mut bytes = std::fs::read(&base).unwrap();
    let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let level2 = number(number(40) as usize) & 0x00ff_ffff_ffff_fe00;
    bytes[level2 as usize + 7] |= 2;
    std::fs::write(&base, bytes).unwrap();
    let (told, code) = said(dir.path(), &["convert", "-fqcow2", "image.qcow2", "x"]);
    assert_eq!(
        (told.contains("base.qcow2: level 2 table"), code),
        (true, 3),
        "{told}"
    );
    let (told, code) = said(dir.path(), &["map", "-fqcow2", "image.qcow2"]);
    assert_eq!(
        (told.contains("base.qcow2: level 2 table"), code),
        (true, 6),
        "{told}"
    );
}
