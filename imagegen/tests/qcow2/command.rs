//! `imagegen qcow2`, as people call it.

use crate::images::begin;
use serde_json::json;
use std::path::Path;
use std::process::{Command, Output};

fn imagegen(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagegen"));
    command
        .arg("qcow2")
        .args(words)
        .current_dir(dir)
        .output()
        .unwrap()
}

/// Its answer and its complaint, and its exit code.
pub(crate) fn said(dir: &Path, words: &[&str]) -> (String, i32) {
    let out = imagegen(dir, words);
    let text = [out.stdout, out.stderr].concat();
    (String::from_utf8(text).unwrap(), out.status.code().unwrap())
}

#[test]
fn an_image_is_described_checked_mapped_and_compared() {
    let Some((qemu, dir)) = begin() else { return };
    let dir = dir.path();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let base = path("base.raw");
    std::fs::File::create(&base)
        .unwrap()
        .set_len(3 << 20)
        .unwrap();
    let image = path("image.qcow2");
    qemu.create(&image, &["-F", "raw", "-b", &base, "4M"]);
    qemu.io(
        Path::new(&image),
        &["write -P 7 64k 64k".into(), "write -z 1M 64k".into()],
    );
    qemu.done(&["snapshot", "-c", "monday", &image]);
    qemu.io(Path::new(&image), &["write -P 8 64k 64k".into()]);

    let (text, code) = said(dir, &["info", "image.qcow2"]);
    assert_eq!(code, 0, "{text}");
    for word in ["4194304", "65536", "base.raw", "monday"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    let (text, _) = said(dir, &["info", "--json", "image.qcow2"]);
    let about: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(about["backing_format"], "raw");
    assert_eq!(about["snapshots"][0]["name"], "monday");

    assert_eq!(said(dir, &["check", "image.qcow2"]).1, 0);
    let (text, code) = said(dir, &["map", "-f", "qcow2", "image.qcow2"]);
    assert_eq!(code, 0, "{text}");
    let (ours, _) = said(dir, &["map", "-f", "qcow2", "--json", "image.qcow2"]);
    let lines = |text: &str| -> Vec<serde_json::Value> { serde_json::from_str(text).unwrap() };
    let theirs = qemu.done(&["map", "-f", "qcow2", "--output=json", &image]);
    assert_eq!(lines(&ours), lines(&theirs));
    assert!(ours.contains("\"data\":true"), "{ours}");

    qemu.contents(Path::new(&image), None);
    let (text, code) = said(dir, &["compare", "-f", "qcow2", "image.qcow2", "image.raw"]);
    assert_eq!(code, 0, "{text}");
    qemu.contents(Path::new(&image), Some("monday"));
    let (text, code) = said(dir, &["compare", "-f", "qcow2", "image.qcow2", "image.raw"]);
    assert_eq!((text.contains("byte 65536"), code), (true, 1), "{text}");
    let words = [
        "compare",
        "-f",
        "qcow2",
        "--json",
        "image.qcow2",
        "image.raw",
    ];
    let (text, code) = said(dir, &words);
    assert_eq!(code, 1, "{text}");
    let first = text.lines().next().unwrap();
    let told: serde_json::Value = serde_json::from_str(first).unwrap();
    assert_eq!(told["same"], json!(false));
    assert_eq!(told["differs_at"], json!(65536));
    let (text, code) = said(
        dir,
        &["compare", "-s", "-f", "qcow2", "image.qcow2", "base.raw"],
    );
    assert_eq!(code, 1, "{text}");
}

#[test]
fn what_a_guest_could_have_written_leads_nowhere() {
    let Some((qemu, dir)) = begin() else { return };
    let dir = dir.path();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (base, image) = (path("base"), path("image.qcow2"));
    qemu.done(&["create", "-q", "-f", "raw", &base, "1M"]);
    qemu.create(&image, &["-F", "raw", "-b", &base]);
    // The guest writes an image into its disk; it stays bytes.
    let inner = path("inner.qcow2");
    qemu.create(&inner, &["1M"]);
    let mut bytes = std::fs::read(&inner).unwrap();
    bytes.resize(1 << 20, 0);
    std::fs::write(&base, &bytes).unwrap();
    assert_eq!(
        said(
            dir,
            &["compare", "-f", "qcow2", "-F", "raw", "image.qcow2", "base"]
        )
        .1,
        0
    );
    // Without a stated format it is refused, not guessed.
    let mut header = std::fs::read(&image).unwrap();
    let at = header
        .windows(4)
        .position(|four| four == [0xe2, 0x79, 0x2a, 0xca])
        .unwrap();
    header[at..at + 4].copy_from_slice(b"none");
    std::fs::write(&image, header).unwrap();
    let (text, code) = said(dir, &["map", "-f", "qcow2", "image.qcow2"]);
    assert_eq!(
        (text.contains("does not state the format"), code),
        (true, 1),
        "{text}"
    );
    // What is to be done is said whole.
    assert!(text.contains("-F raw|qcow2 image.qcow2"), "{text}");
}

#[test]
fn what_is_no_image_or_damaged_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("text"), "no image at all").unwrap();
    let (text, code) = said(dir, &["info", "text"]);
    assert_eq!((text.contains("no QCOW2"), code), (true, 1), "{text}");
    let (text, code) = said(dir, &["check", "text"]);
    assert_eq!((text.contains("no QCOW2"), code), (true, 1), "{text}");
    let (text, code) = said(dir, &["check", "nowhere"]);
    assert_eq!((text.contains("nowhere"), code), (true, 1), "{text}");
    std::fs::write(dir.join("cut"), b"QFI\xfb\0\0\0\x03").unwrap();
    let (text, code) = said(dir, &["info", "cut"]);
    assert_eq!(code, 6, "{text}");
}

#[test]
fn disks_are_converted_there_and_back() {
    let Some((qemu, dir)) = begin() else { return };
    let dir = dir.path();
    let mut bytes = vec![0; 3 << 20];
    bytes[100_000..900_000].fill(7);
    std::fs::write(dir.join("disk.raw"), &bytes).unwrap();
    let (text, code) = said(
        dir,
        &["convert", "-c", "zstd", "--json", "disk.raw", "disk.qcow2"],
    );
    assert_eq!(code, 0, "{text}");
    let about: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&about["format"], &about["size"]),
        (&"qcow2".into(), &(3 << 20).into())
    );
    let image = dir.join("disk.qcow2");
    assert_eq!(qemu.contents(&image, None), bytes);
    let (text, code) = said(dir, &["convert", "disk.qcow2", "back.raw"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(std::fs::read(dir.join("back.raw")).unwrap(), bytes);
    // What is there stays, unless it shall go; nothing is written over what is read.
    let (text, code) = said(dir, &["convert", "disk.qcow2", "back.raw"]);
    assert_eq!(code, 4, "{text}");
    assert_eq!(
        said(dir, &["convert", "--force", "disk.qcow2", "back.raw"]).1,
        0
    );
    let (text, code) = said(dir, &["convert", "--force", "disk.qcow2", "disk.qcow2"]);
    assert_eq!(code, 2, "{text}");
    let (text, code) = said(
        dir,
        &["convert", "--cluster-size", "3k", "disk.raw", "new.qcow2"],
    );
    assert_eq!(code, 2, "{text}");
    assert!(!dir.join("new.qcow2").exists());
}

/// Snapshots, bitmaps, backing and data files come along as they were asked for.
#[test]
fn what_lies_beside_a_disk_is_converted_too() {
    let Some((qemu, dir)) = begin() else { return };
    let dir = dir.path();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let from = path("from.qcow2");
    qemu.create(&from, &["4M"]);
    qemu.io(Path::new(&from), &["write -P 7 64k 64k".into()]);
    qemu.done(&["snapshot", "-c", "monday", &from]);
    qemu.done(&["bitmap", "--add", &from, "since"]);
    qemu.io(Path::new(&from), &["write -P 8 1M 64k".into()]);
    let done = |words: &[&str]| {
        let (text, code) = said(dir, &[&["convert", "--quiet"], words].concat());
        assert_eq!(code, 0, "{words:?}: {text}");
    };
    let now = qemu.contents(Path::new(&from), None);
    let then = qemu.contents(Path::new(&from), Some("monday"));

    done(&[
        "--to",
        "qcow2",
        "--snapshots",
        "--bitmaps",
        "from.qcow2",
        "all.qcow2",
    ]);
    let all = path("all.qcow2");
    assert_eq!(qemu.contents(Path::new(&all), Some("monday")), then);
    assert!(qemu.done(&["info", &all]).contains("since"));

    done(&["-l", "monday", "from.qcow2", "base.raw"]);
    done(&[
        "-O",
        "qcow2",
        "-b",
        "base.raw",
        "-F",
        "raw",
        "from.qcow2",
        "top.qcow2",
    ]);
    let top = path("top.qcow2");
    assert_eq!(qemu.contents(Path::new(&top), None), now);
    let map = qemu.done(&["map", "--output=json", &top]);
    let own = map.matches("\"depth\": 0").count();
    assert_eq!(own, 1, "{map}");

    done(&[
        "-O",
        "qcow2",
        "--data-file",
        "data.raw",
        "from.qcow2",
        "beside.qcow2",
    ]);
    assert_eq!(std::fs::read(dir.join("data.raw")).unwrap(), now);
    assert_eq!(qemu.contents(&dir.join("beside.qcow2"), None), now);

    // A pipe: what a file would hold, and nothing else.
    for (to, file) in [("qcow2", "again.qcow2"), ("raw", "again.raw")] {
        done(&["-O", to, "from.qcow2", file]);
        let piped = imagegen(dir, &["convert", "-O", to, "from.qcow2", "-"]);
        assert_eq!(piped.status.code(), Some(0));
        assert!(
            piped.stdout == std::fs::read(dir.join(file)).unwrap(),
            "{to}"
        );
    }

    // What would have no effect, or is not what somebody thinks, is refused.
    for words in [
        &["-O", "raw", "--snapshots", "from.qcow2", "x"][..],
        &["-O", "raw", "-c", "zstd", "from.qcow2", "x"],
        &["-O", "qcow2", "-b", "base.raw", "from.qcow2", "x"],
        &["-O", "qcow2", "-b", "x", "-F", "raw", "from.qcow2", "x"],
        &[
            "-O",
            "qcow2",
            "--snapshots",
            "-l",
            "monday",
            "from.qcow2",
            "x",
        ],
        &["-O", "qcow2", "--json", "from.qcow2", "-"],
        &["-O", "qcow2", "--data-file", "x", "from.qcow2", "x"],
        &[
            "-O",
            "qcow2",
            "--data-file",
            "from.qcow2",
            "from.qcow2",
            "x",
        ],
        &[
            "-O",
            "qcow2",
            "--version",
            "2",
            "--bitmaps",
            "from.qcow2",
            "x",
        ],
    ] {
        let (text, code) = said(dir, &[&["convert"], words].concat());
        assert_eq!(code, 2, "{words:?}: {text}");
        assert!(!dir.join("x").exists(), "{words:?}");
    }
}
