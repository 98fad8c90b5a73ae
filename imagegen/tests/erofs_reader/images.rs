//! Trees on disk, and images that mkfs.erofs makes of them.

use crate::tools::{Suite, erofs_utils};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A tree with what makes an image use all its forms.
pub(crate) struct Tree {
    dir: tempfile::TempDir,
}

/// Words, so that contents compress, but not to nothing.
pub(crate) fn text(random: &mut ChaCha8Rng, length: usize) -> Vec<u8> {
    let words: Vec<Vec<u8>> = (0..300)
        .map(|_| {
            let letters = random.random_range(2..10);
            (0..letters)
                .map(|_| random.random_range(b'a'..=b'z'))
                .collect()
        })
        .collect();
    let mut text = Vec::with_capacity(length + 10);
    while text.len() < length {
        text.extend_from_slice(&words[random.random_range(0..words.len())]);
        text.push(b' ');
    }
    text.truncate(length);
    text
}

pub(crate) fn noise(random: &mut ChaCha8Rng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    random.fill_bytes(&mut bytes);
    bytes
}

impl Tree {
    /// A tree with a compressible file of `large` bytes and what goes with it.
    pub(crate) fn new(large: usize) -> Self {
        let tree = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let mut random = ChaCha8Rng::seed_from_u64(large as u64);
        let big = text(&mut random, large);
        tree.file("large", &big);
        // The same for the most part: what is deduplicated.
        let other = [&big[..large / 2], &text(&mut random, 20_000)].concat();
        tree.file("similar", &other);
        tree.file("noise", &noise(&mut random, large / 10));
        let (one, two) = (text(&mut random, 50_000), noise(&mut random, 30_000));
        tree.file("mixed", &[&one[..], &two, &one[..4001]].concat());
        for size in [
            0, 1, 100, 511, 512, 513, 1024, 4000, 4095, 4096, 4097, 8193, 20_000,
        ] {
            tree.file(&format!("sizes/text-{size}"), &text(&mut random, size));
            tree.file(&format!("sizes/noise-{size}"), &noise(&mut random, size));
        }
        for number in 0..300 {
            let name = format!("many/name-{number:04}-{}", "x".repeat(number % 31));
            tree.file(
                &name,
                &text(&mut random, if number % 5 == 0 { 30 } else { 0 }),
            );
        }
        tree.file("names/one", b"one inode, three names");
        for name in ["names/two", "three"] {
            fs::hard_link(tree.path().join("names/one"), tree.path().join(name)).unwrap();
        }
        symlink("where/it/leads", tree.path().join("link")).unwrap();
        symlink("y".repeat(3000), tree.path().join("long-link")).unwrap();
        fs::create_dir_all(tree.path().join("deep/er/and/deeper")).unwrap();
        tree.special();
        tree.xattrs(&mut random);
        tree.times(&mut random);
        tree
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn file(&self, name: &str, contents: &[u8]) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    fn special(&self) {
        use rustix::fs::{FileType, Mode, makedev, mknodat};
        let path = |name: &str| self.path().join(name);
        let mode = Mode::from_raw_mode(0o640);
        mknodat(CWD, path("fifo"), FileType::Fifo, mode, 0).unwrap();
        mknodat(CWD, path("socket"), FileType::Socket, mode, 0).unwrap();
        if rustix::process::geteuid().is_root() {
            let number = makedev(259, 70_000);
            mknodat(CWD, path("device"), FileType::BlockDevice, mode, number).unwrap();
            std::os::unix::fs::chown(path("noise"), Some(70_000), Some(80_000)).unwrap();
        }
    }

    fn xattrs(&self, random: &mut ChaCha8Rng) {
        for number in [0, 100, 512, 4096] {
            let path = self.path().join(format!("sizes/text-{number}"));
            xattr::set(&path, "user.common", b"the same everywhere").unwrap();
            let own = format!("user.long.prefix.of.{number}");
            xattr::set(&path, own, &noise(random, number / 4)).unwrap();
        }
        if rustix::process::geteuid().is_root() {
            let path = self.path().join("many");
            xattr::set(&path, "trusted.overlay.opaque", b"y").unwrap();
            xattr::set(&path, "security.some", b"label").unwrap();
        }
    }

    /// Every object gets a time of its own, with nanoseconds; not now, because mkfs.erofs
    /// leaves out the nanoseconds of what was changed in the second in which it runs.
    fn times(&self, random: &mut ChaCha8Rng) {
        let mut paths = vec![self.path().to_owned()];
        let mut at = 0;
        while at < paths.len() {
            let path = paths[at].clone();
            at += 1;
            if !path.is_symlink() && path.is_dir() {
                paths.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            }
        }
        for path in paths.iter().rev() {
            let time = Timespec {
                tv_sec: random.random_range(0..2_000_000_000),
                tv_nsec: random.random_range(0..1_000_000_000),
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
    }
}

/// An image and perhaps a device that it keeps data on.
pub(crate) struct Made {
    _dir: tempfile::TempDir,
    pub(crate) image: PathBuf,
    pub(crate) devices: Vec<PathBuf>,
}

/// An image of `tree` by mkfs.erofs with `options`, in which `BLOB` and `HINTS` stand for
/// files; none, and the test noted as skipped, if there is no mkfs.erofs.
pub(crate) fn made(suite: Suite, options: &str, tree: &Path) -> Option<Made> {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let blob = dir.path().join("blob");
    let hints = dir.path().join("hints");
    fs::write(&hints, "65536 0 large\n16384 1 mixed\n").unwrap();
    let mut mkfs = erofs_utils(suite, "mkfs.erofs")?;
    mkfs.arg("--quiet");
    for option in options.split_whitespace() {
        let option = option.replace("BLOB", blob.to_str().unwrap());
        mkfs.arg(option.replace("HINTS", hints.to_str().unwrap()));
    }
    let output = mkfs.arg(&image).arg(tree).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{suite:?} {options}: {said}");
    let devices = Vec::from_iter(blob.exists().then_some(blob));
    Some(Made {
        _dir: dir,
        image,
        devices,
    })
}
