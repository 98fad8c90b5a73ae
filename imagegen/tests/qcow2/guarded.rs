//! What must not be read, written over or given away.

use crate::command::said;
use crate::images::{Qemu, begin};
use crate::tools::Loop;
use rand::{Rng, SeedableRng};
use std::fs;
use std::io::Read;
use std::path::Path;

/// Refused as wrong usage; what was said.
fn refused(dir: &Path, words: &[&str]) -> String {
    let (text, code) = said(dir, words);
    assert_eq!(code, 2, "{words:?}: {text}");
    text
}

fn converted(dir: &Path, words: &[&str]) {
    let (text, code) = said(dir, &[&["convert"], words].concat());
    assert_eq!(code, 0, "{words:?}: {text}");
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand_chacha::ChaCha8Rng::seed_from_u64(3).fill_bytes(&mut bytes);
    bytes
}

/// `data.raw` with `image.qcow2` before it; `base.raw` with `middle.qcow2` above it.
fn files(qemu: &Qemu, dir: &Path) {
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    fs::write(dir.join("base.raw"), noise(1 << 20)).unwrap();
    fs::write(dir.join("disk.raw"), noise(1 << 20)).unwrap();
    let (base, data) = (path("base.raw"), format!("data_file={}", path("data.raw")));
    let middle = path("middle.qcow2");
    qemu.create(&middle, &["-F", "raw", "-b", &base]);
    qemu.create(path("image.qcow2"), &["-o", &data, "1M"]);
    qemu.io(&dir.join("image.qcow2"), &["write -P 7 0 1M".into()]);
}

#[test]
fn nothing_is_written_over_what_is_read() {
    let Some((qemu, dir)) = begin() else { return };
    let dir = dir.path();
    files(&qemu, dir);
    let before = |name: &str| fs::read(dir.join(name)).unwrap();
    let (data, base) = (before("data.raw"), before("base.raw"));
    let force = ["convert", "--force", "-O"];
    for words in [
        &["raw", "-f", "qcow2", "image.qcow2", "data.raw"][..],
        &["qcow2", "-f", "qcow2", "image.qcow2", "data.raw"],
        &[
            "qcow2",
            "-f",
            "qcow2",
            "--data-file",
            "data.raw",
            "image.qcow2",
            "new",
        ],
        &[
            "qcow2",
            "-f",
            "qcow2",
            "--data-file",
            "base.raw",
            "middle.qcow2",
            "new",
        ],
        &[
            "qcow2",
            "-f",
            "raw",
            "-b",
            "middle.qcow2",
            "-F",
            "qcow2",
            "disk.raw",
            "base.raw",
        ],
        &[
            "qcow2",
            "-f",
            "raw",
            "-b",
            "image.qcow2",
            "-F",
            "qcow2",
            "disk.raw",
            "data.raw",
        ],
        &["raw", "-f", "qcow2", "middle.qcow2", "base.raw"],
    ] {
        refused(dir, &[&force[..], words].concat());
        assert!(!dir.join("new").exists());
        assert!(
            before("data.raw") == data && before("base.raw") == base,
            "{words:?}"
        );
    }
}

/// Nothing is recognised on a raw device, so nothing else keeps it from being written.
#[test]
fn a_device_that_is_read_is_not_written() {
    let Some((qemu, dir)) = begin() else { return };
    let dir = dir.path();
    let Some(device) = Loop::new(&dir.join("disk"), 1 << 20) else {
        return;
    };
    let name = device.0.to_str().unwrap();
    let image = dir.join("image.qcow2");
    let options = format!("data_file={name},data_file_raw=on");
    qemu.create(&image, &["-o", &options, "1M"]);
    fs::write(&device.0, noise(1 << 20)).unwrap();
    refused(
        dir,
        &["convert", "-f", "qcow2", "-O", "raw", "image.qcow2", name],
    );
    assert!(fs::read(&device.0).unwrap() == noise(1 << 20));
}

/// A guest wrote an image into its disk, which leads to a file of the host.
#[test]
fn what_only_looks_like_an_image_leads_nowhere() {
    let Some((qemu, dir)) = begin() else { return };
    let dir = dir.path();
    files(&qemu, dir);
    for name in ["middle.qcow2", "image.qcow2"] {
        for words in [
            &["convert", "-O", "raw", name, "x"][..],
            &["map", name],
            &["compare", "-F", "raw", name, "disk.raw"],
        ] {
            let text = refused(dir, words);
            assert!(text.contains("-f qcow2"), "{text}");
        }
        let text = refused(dir, &["compare", "-f", "raw", "disk.raw", name]);
        assert!(text.contains("-F qcow2"), "{text}");
        assert_eq!(said(dir, &["map", "-f", "qcow2", name]).1, 0);
    }
    assert!(!dir.join("x").exists());
}

#[test]
fn a_device_is_bytes_unless_told_otherwise() {
    let Some((qemu, dir)) = begin() else { return };
    let dir = dir.path();
    let Some(device) = Loop::new(&dir.join("disk"), 4 << 20) else {
        return;
    };
    let name = device.0.to_str().unwrap();
    let image = dir.join("image.qcow2");
    qemu.create(&image, &["1M"]);
    qemu.io(&image, &["write -P 7 0 64k".into()]);
    let mut bytes = fs::read(&image).unwrap();
    bytes.resize(4 << 20, 0);
    fs::write(&device.0, &bytes).unwrap();
    converted(dir, &["-O", "raw", name, "bytes.raw"]);
    assert!(fs::read(dir.join("bytes.raw")).unwrap() == bytes);
    converted(dir, &["-f", "qcow2", "-O", "raw", name, "disk.raw"]);
    assert_eq!(
        fs::read(dir.join("disk.raw")).unwrap()[..65_536],
        [7; 65_536]
    );
}

/// QEMU looks for such a file where it is started, and not where the image lies.
#[test]
fn names_that_mean_something_else_to_qemu_are_refused() {
    let Some((qemu, dir)) = begin() else { return };
    let dir = dir.path();
    files(&qemu, dir);
    let image = dir.join("top.qcow2");
    qemu.create(&image, &["-u", "-F", "raw", "-b", "file:base.raw", "1M"]);
    let (text, code) = said(dir, &["map", "-f", "qcow2", "top.qcow2"]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("file:base.raw") && text.contains("rebase"),
        "{text}"
    );
    let backing = ["convert", "-f", "raw", "-O", "qcow2", "-F", "raw", "-b"];
    for to in ["x", "-"] {
        refused(
            dir,
            &[&backing[..], &["file:base.raw", "disk.raw", to]].concat(),
        );
    }
    assert!(!dir.join("x").exists());
    // Absolute, it is the same file for everybody.
    let whole = format!("file:{}", dir.join("base.raw").display());
    converted(
        dir,
        &[
            "-f", "raw", "-F", "raw", "-b", &whole, "disk.raw", "y.qcow2",
        ],
    );
    assert_eq!(qemu.contents(&dir.join("y.qcow2"), None), noise(1 << 20));
}

#[test]
fn an_image_that_a_machine_uses_is_not_replaced() {
    let Some((qemu, dir)) = begin() else { return };
    let dir = dir.path();
    files(&qemu, dir);
    let image = dir.join("used.qcow2");
    qemu.create(&image, &["1M"]);
    let before = fs::read(&image).unwrap();
    let holder = qemu.hold(&image);
    let words = ["convert", "--force", "-f", "raw", "disk.raw", "used.qcow2"];
    let (text, code) = said(dir, &words);
    assert_eq!((code, text.contains("in use")), (4, true), "{text}");
    assert!(fs::read(&image).unwrap() == before);
    drop(holder);
    converted(dir, &words[1..]);
    assert_eq!(qemu.contents(&image, None), noise(1 << 20));
}

/// A device full of old bytes.
fn old_device(dir: &Path, size: u64) -> Option<Loop> {
    let device = Loop::new(&dir.join("disk"), size)?;
    fs::write(&device.0, vec![0x5a; size as usize]).unwrap();
    Some(device)
}

#[test]
fn a_device_too_small_keeps_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let Some(device) = old_device(dir, 1 << 20) else {
        return;
    };
    let name = device.0.to_str().unwrap();
    let mut bytes = noise(2 << 20);
    fs::write(dir.join("large.raw"), &bytes).unwrap();
    bytes[1 << 18..].fill(0);
    fs::write(dir.join("small.raw"), &bytes).unwrap();
    let words = ["-f", "raw", "-O", "qcow2", "-c", "zstd"];
    for force in [&[][..], &["--force"]] {
        let all = [&["convert"], force, &words, &["large.raw", name]].concat();
        let (text, code) = said(dir, &all);
        assert_eq!((code, text.contains("are needed")), (5, true), "{text}");
        assert!(fs::read(&device.0).unwrap() == vec![0x5a; 1 << 20]);
    }
    converted(dir, &[&words[..], &["small.raw", name]].concat());
    let text = said(
        dir,
        &["compare", "-F", "qcow2", "-f", "raw", "small.raw", name],
    );
    assert_eq!(text.1, 0, "{}", text.0);
}

/// Between what is compressed nothing is left of what was there.
#[test]
fn an_image_on_a_device_holds_nothing_old() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let Some(device) = old_device(dir, 8 << 20) else {
        return;
    };
    let name = device.0.to_str().unwrap();
    // More than what is wiped at both ends of a device.
    let bytes: Vec<u8> = noise(3 << 20).iter().map(|byte| byte & 15).collect();
    fs::write(dir.join("disk.raw"), &bytes).unwrap();
    let words = ["-f", "raw", "-O", "qcow2", "-c", "zlib", "disk.raw"];
    converted(dir, &[&words[..], &["file.qcow2"]].concat());
    converted(dir, &[&words[..], &[name]].concat());
    let meant = fs::read(dir.join("file.qcow2")).unwrap();
    let mut found = vec![0; meant.len()];
    fs::File::open(&device.0)
        .unwrap()
        .read_exact(&mut found)
        .unwrap();
    assert_eq!(
        meant.iter().zip(&found).position(|(one, two)| one != two),
        None
    );
}
