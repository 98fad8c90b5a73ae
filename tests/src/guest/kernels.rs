//! Debian's cloud kernels: which package, fetched, unpacked, made ready to boot.
//!
//! A kernel is asked for by series (`7.2`); the newest package of the series is
//! taken, and when the suites no longer carry the series, the newest later one of
//! the same major number. The cache holds, per release, `vmlinux`, `modules.img`
//! (ext4) and `initramfs.img`. All of it is decompressed here: doing that under
//! emulation costs seconds of every run.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::apt::Apt;
use super::cache::{Cache, make_dir, remove_dir, rename, write};
use super::cpio::Archive;
use super::error::{Error, Result, Trying};
use super::sources::Source;
use super::tool::{run, tool};

/// Suites that carry cloud kernels newer than Debian 12's own.
pub const SUITES: [&str; 3] = ["trixie-backports", "trixie", "bookworm-backports"];

/// What tests run on.
pub const TESTED: [Series; 2] = [Series(7, 2), Series(6, 12)];

const PREFIX: &str = "linux-image-";
const SUFFIX: &str = "-cloud-amd64";

/// A kernel series, as `7.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series(pub u32, pub u32);

impl FromStr for Series {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('.');
        let parsed = parts.and_then(|(a, b)| Some(Self(a.parse().ok()?, b.parse().ok()?)));
        parsed.ok_or_else(|| Error::Argument(format!("{text:?} is no kernel series like 7.2")))
    }
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A kernel ready to boot.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    /// The kernel image.
    pub image: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// An ext4 image of `/usr/lib/modules`.
    pub modules: PathBuf,
}

/// The release to take for a series out of the names of packages.
#[must_use]
pub fn newest(names: &[String], series: Series) -> Option<String> {
    let releases = names.iter().filter_map(|name| {
        let release = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        Some((numbers(release)?, release))
    });
    let of = |found: &[u64]| Series(found[0] as u32, found[1] as u32);
    let fit = releases.filter(|(found, _)| {
        let found = of(found);
        found.0 == series.0 && found >= series
    });
    // The series itself first, then the newest of the later ones.
    fit.max_by_key(|(found, _)| (of(found) == series, found.clone()))
        .map(|(_, release)| format!("{release}{SUFFIX}"))
}

/// The numbers of a release like `7.2.12+deb13`; none if it is not one.
fn numbers(release: &str) -> Option<Vec<u64>> {
    let words = release.split(|c: char| !c.is_ascii_digit());
    let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    let starts = release.starts_with(|c: char| c.is_ascii_digit());
    (starts && numbers.len() >= 2).then_some(numbers)
}

/// The packages of a release that hold files, out of the names there are.
#[must_use]
pub fn packages_of(release: &str, names: &[String]) -> Vec<String> {
    // Until 6.16 one package holds all; later the image is an empty one.
    let parts = ["linux-modules-", "linux-binary-", "linux-base-", PREFIX];
    let wanted = parts.map(|part| format!("{part}{release}"));
    let there = wanted.into_iter().filter(|name| names.contains(name));
    there.collect()
}

/// The kernel of a series from the cache, if it was prepared.
#[must_use]
pub fn cached(cache: &Cache, series: Series) -> Option<Kernel> {
    let chosen = fs::read_to_string(cache.path("kernels").join(series.to_string())).ok()?;
    let kernel = at(cache, chosen.trim());
    kernel.modules.is_file().then_some(kernel)
}

/// Counted up when the way the files are made changes.
const RECIPE: u32 = 2;
const INITRAMFS: &str = include_str!("inside/initramfs.sh");

fn place(cache: &Cache, release: &str) -> PathBuf {
    let hash = crc32c::crc32c(format!("{RECIPE} {INITRAMFS}").as_bytes());
    cache.path("kernels").join(format!("{release}-{hash:08x}"))
}

fn at(cache: &Cache, release: &str) -> Kernel {
    let dir = place(cache, release);
    Kernel {
        release: release.into(),
        image: dir.join("vmlinux"),
        initramfs: dir.join("initramfs.img"),
        modules: dir.join("modules.img"),
    }
}

/// Fetches the newest kernel of a series and makes it ready; `busybox` is put into
/// its initramfs. Returns what the cache has when that is it.
///
/// # Errors
/// If there is none, or a step fails.
pub fn prepare(cache: &Cache, mirror: &Source, series: Series) -> Result<Kernel> {
    let apt = Apt::new(cache, "kernels", mirror, &SUITES)?;
    let names = apt.names("linux-")?;
    let release = newest(&names, series).ok_or_else(|| Error::NoKernel {
        series: series.to_string(),
        suites: SUITES.join(", "),
        present: present(&names),
    })?;
    let kernel = at(cache, &release);
    if !kernel.modules.is_file() {
        let work = cache.path("kernels").join(format!("{release}.new"));
        remove_dir(&work)?;
        make_dir(&work)?;
        let packages = packages_of(&release, &names);
        apt.download(&packages, &work.join("packages"))?;
        build(&work, &release)?;
        let place = place(cache, &release);
        remove_dir(&place)?;
        rename(&work, &place)?;
    }
    let chosen = cache.path("kernels").join(series.to_string());
    write(&chosen, format!("{release}\n"))?;
    Ok(kernel)
}

fn present(names: &[String]) -> String {
    let cloud = names.iter().filter_map(|name| {
        let release = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        numbers(release).map(|numbers| (numbers, release))
    });
    let mut cloud: Vec<_> = cloud.collect();
    cloud.sort();
    let names: Vec<&str> = cloud.into_iter().map(|(_, release)| release).collect();
    names.join(" ")
}

/// In `work`, with the packages in `work/packages`.
fn build(work: &Path, release: &str) -> Result {
    let tree = work.join("tree");
    for package in list(&work.join("packages"))? {
        run(tool("dpkg-deb").arg("-x").arg(&package).arg(&tree))?;
    }
    let modules = tree.join("usr/lib/modules").join(release);
    let images = [
        modules.join("vmlinuz"),
        tree.join("boot").join(format!("vmlinuz-{release}")),
    ];
    let image = images.iter().find(|path| path.is_file());
    let image = image.ok_or_else(|| Error::Broken {
        path: tree.clone(),
        problem: "the packages hold no kernel image".into(),
    })?;
    uncompressed(image, &work.join("vmlinux"))?;
    decompress(&modules)?;
    run(tool("depmod").arg("-b").arg(tree.join("usr")).arg(release))?;
    let driver = modules.join("kernel/drivers/block/virtio_blk.ko");
    let driver = fs::read(&driver).trying(|| format!("read {}", driver.display()))?;
    let busybox = fs::read("/bin/busybox").trying(|| "read /bin/busybox".into())?;
    write(&work.join("initramfs.img"), initramfs(&driver, &busybox))?;
    image_of(
        &tree.join("usr/lib/modules"),
        &work.join("modules.img"),
        "320M",
    )?;
    remove_dir(&tree)?;
    remove_dir(&work.join("packages"))
}

/// What `initramfs.sh` calls.
const APPLETS: [&str; 10] = [
    "cat",
    "chroot",
    "insmod",
    "mkdir",
    "mount",
    "poweroff",
    "sh",
    "sleep",
    "switch_root",
    "umount",
];

fn initramfs(driver: &[u8], busybox: &[u8]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.directory("bin");
    archive.directory("dev");
    archive.file("bin/busybox", busybox);
    archive.file("virtio_blk.ko", driver);
    for name in APPLETS {
        archive.link(&format!("bin/{name}"), "busybox");
    }
    archive.file("init", INITRAMFS.as_bytes());
    archive.finish()
}

/// Takes the kernel out of a compressed image; qemu enters it by its PVH note.
fn uncompressed(image: &Path, to: &Path) -> Result {
    let bytes = fs::read(image).trying(|| format!("read {}", image.display()))?;
    let broken = |problem: &str| Error::Broken {
        path: image.into(),
        problem: problem.into(),
    };
    let payload = payload(&bytes).ok_or_else(|| broken("this is no bzImage"))?;
    let unpacker = match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "xz",
        _ => return Err(broken("compressed in a way not known here")),
    };
    let packed = to.with_extension("packed");
    write(&packed, payload)?;
    let story = || format!("unpack {}", packed.display());
    let input = fs::File::open(&packed).trying(story)?;
    let output = fs::File::create(to).trying(story)?;
    run(tool(unpacker).arg("-dc").stdin(input).stdout(output))?;
    fs::remove_file(&packed).trying(story)
}

/// The compressed kernel in a bzImage, by its header (`Documentation/arch/x86/boot.rst`):
/// `setup_sects` at 0x1f1, `payload_offset` and `payload_length` at 0x248 and 0x24c;
/// the last four bytes are the size unpacked.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let start = (usize::from(image[0x1f1]) + 1) * 512 + word(0x248)?;
    let end = start.checked_add(word(0x24c)?.checked_sub(4)?)?;
    image.get(start..end)
}

fn decompress(modules: &Path) -> Result {
    let mut find = tool("find");
    find.arg(modules)
        .args(["-name", "*.ko.xz", "-exec", "xz", "-d", "{}", "+"]);
    run(&mut find).map(drop)
}

/// An ext4 image of a directory, without a journal.
pub(super) fn image_of(dir: &Path, image: &Path, size: &str) -> Result {
    let mut mke2fs = tool("mke2fs");
    mke2fs
        .args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-O",
            "^has_journal",
            "-m",
            "0",
            "-d",
        ])
        .arg(dir)
        .arg(image)
        .arg(size);
    run(&mut mke2fs).map(drop)
}

fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).trying(|| format!("list {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_newest_of_a_series_by_number_not_by_letter() {
        let names = names(&[
            "linux-image-7.2.9+deb13-cloud-amd64",
            "linux-image-7.2.12+deb13-cloud-amd64",
            "linux-image-7.2.13+deb13-cloud-amd64-unsigned",
            "linux-image-7.2.14+deb13-cloud-amd64-dbg",
            "linux-image-7.2.15+deb13-rt-amd64",
            "linux-image-7.3.1+deb13-cloud-amd64",
            "linux-image-6.12.95+deb12-cloud-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64",
            "linux-image-cloud-amd64",
        ]);
        let newest = |series: &str| newest(&names, series.parse().unwrap());
        assert_eq!(newest("7.2").as_deref(), Some("7.2.12+deb13-cloud-amd64"));
        assert_eq!(
            newest("6.12").as_deref(),
            Some("6.12.107+deb13-cloud-amd64")
        );
        // 7.1 is gone: the newest later one of 7; 8 was never there.
        assert_eq!(newest("7.1").as_deref(), Some("7.3.1+deb13-cloud-amd64"));
        assert_eq!(newest("8.0"), None);
        assert_eq!(newest("6.13"), None);
    }

    #[test]
    fn only_packages_that_exist_are_fetched() {
        let names = names(&[
            "linux-image-7.2.12+deb13-cloud-amd64",
            "linux-binary-7.2.12+deb13-cloud-amd64",
            "linux-binary-unsigned-7.2.12+deb13-cloud-amd64",
            "linux-modules-7.2.12+deb13-cloud-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64-unsigned",
        ]);
        assert_eq!(packages_of("7.2.12+deb13-cloud-amd64", &names).len(), 3);
        assert_eq!(
            packages_of("6.12.107+deb13-cloud-amd64", &names),
            ["linux-image-6.12.107+deb13-cloud-amd64"]
        );
    }

    #[test]
    fn a_kernel_is_found_in_its_image_or_refused() {
        let mut image = vec![0; 2048];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&6u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&8u32.to_le_bytes());
        image[1030..1038].copy_from_slice(b"coresize");
        assert_eq!(payload(&image), Some(&b"core"[..]));
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(payload(&image), None);
        assert_eq!(payload(&image[..0x204]), None);
        assert_eq!(payload(&[0; 4096]), None);
    }

    #[test]
    fn a_series_is_two_numbers() {
        assert_eq!("6.12".parse::<Series>().unwrap(), Series(6, 12));
        for wrong in ["", "7", "7.x", "7.2.1", "seven.two"] {
            assert!(wrong.parse::<Series>().is_err(), "{wrong}");
        }
    }
}
