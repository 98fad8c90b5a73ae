//! The guest's root: Debian as on this machine, so that programs built here find
//! the same libc, in one ext4 image that no run changes (`snapshot=on`).

use std::fs;
use std::path::PathBuf;

use super::cache::{Cache, make_dir, remove_dir, rename};
use super::error::{Error, Result, Trying};
use super::kernels::image_of;
use super::sources::Source;
use super::tool::{run, tool};

/// What is in it besides `minbase`.
pub const PACKAGES: [&str; 31] = [
    "acl",
    "attr",
    "bash-completion",
    "bsdextrautils",
    "busybox-static",
    "dbus",
    "dmsetup",
    "e2fsprogs",
    "erofs-utils",
    "fdisk",
    "file",
    "fio",
    "jq",
    "kmod",
    "less",
    "libnbd-bin",
    "lsof",
    "lvm2",
    "nbd-client",
    "procps",
    "psmisc",
    "qemu-utils",
    "strace",
    "stress-ng",
    "systemd-sysv",
    "thin-provisioning-tools",
    "time",
    "udev",
    "xfsprogs",
    "xxd",
    "xz-utils",
];

const SIZE: &str = "3G";
/// Counted up when the way the image is made changes.
const RECIPE: u32 = 1;

/// Place of the image for this suite and package list.
#[must_use]
pub fn image(cache: &Cache, suite: &str) -> PathBuf {
    let key = format!("{RECIPE} {suite} {SIZE} {}", PACKAGES.join(" "));
    let hash = crc32c::crc32c(key.as_bytes());
    cache.path("root").join(format!("{suite}-{hash:08x}.img"))
}

/// The image, built if it is not there.
///
/// # Errors
/// Without root's rights, or if a step fails.
pub fn prepare(cache: &Cache, mirror: &Source, suite: &str) -> Result<PathBuf> {
    let image = image(cache, suite);
    if image.is_file() {
        return Ok(image);
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NeedsRoot(image));
    }
    let tree = cache.path("root/tree.new");
    remove_dir(&tree)?;
    make_dir(&tree)?;
    let mut debootstrap = tool("debootstrap");
    debootstrap.arg("--variant=minbase");
    if let Some(keyring) = &mirror.signed_by {
        debootstrap.arg(format!("--keyring={keyring}"));
    }
    debootstrap
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg(suite)
        .arg(&tree)
        .arg(&mirror.uri);
    run(&mut debootstrap)?;
    finish(&tree)?;
    let new = image.with_extension("new");
    image_of(&tree, &new, SIZE)?;
    rename(&new, &image)?;
    remove_dir(&tree)?;
    Ok(image)
}

/// What debootstrap leaves and the guest does not need or would stumble over.
fn finish(tree: &std::path::Path) -> Result {
    let remove = |name: &str| remove_dir(&tree.join(name));
    remove("var/cache/apt/archives")?;
    remove("var/lib/apt/lists")?;
    remove("usr/share/doc")?;
    make_dir(&tree.join("usr/lib/modules"))?;
    let shadow = tree.join("etc/shadow");
    let text = fs::read_to_string(&shadow).trying(|| format!("read {}", shadow.display()))?;
    super::cache::write(&shadow, text.replacen("root:*:", "root::", 1))
}
