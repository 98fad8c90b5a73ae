//! What this machine must have: programs, and which Debian it is.

use super::apt::Apt;
use super::cache::Cache;
use super::error::{Error, Result};
use super::sources::{Source, mirror_of};
use super::tool::{exists, run, succeeds, tool};

/// Program and package.
const NEEDS: [(&str, &str); 10] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("debootstrap", "debootstrap"),
    ("mke2fs", "e2fsprogs"),
    ("depmod", "kmod"),
    ("busybox", "busybox-static"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("strip", "binutils"),
    ("tar", "tar"),
    ("setpriv", "util-linux"),
];

/// The suite of this machine, as `bookworm`.
///
/// # Errors
/// If this is no Debian.
pub fn suite() -> Result<String> {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    match (value("ID="), value("VERSION_CODENAME=")) {
        (Some(id), Some(suite)) if id == "debian" => Ok(suite),
        _ => Err(Error::Argument(
            "this machine is no Debian; the guest's root would have another libc".into(),
        )),
    }
}

/// The Debian mirror this machine uses.
///
/// # Errors
/// If its apt configuration names none.
pub fn mirror() -> Result<Source> {
    mirror_of(&suite()?)
}

/// Installs what is missing.
///
/// # Errors
/// Without root's rights, or if apt fails.
pub fn prepare(cache: &Cache, say: &dyn Fn(&str)) -> Result {
    let missing: Vec<_> = NEEDS.iter().filter(|(name, _)| !exists(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    let install = ["install", "-y", "--no-remove", "--no-install-recommends"];
    if !nix::unistd::geteuid().is_root() {
        let programs: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
        return Err(Error::Missing {
            programs: programs.join(" "),
            command: format!("apt-get {} {}", install.join(" "), packages.join(" ")),
        });
    }
    say(&format!("installing {}", packages.join(" ")));
    // A fresh machine has no package lists yet.
    run(apt_get().arg("update"))?;
    if succeeds(apt_get().args(install).args(&packages))? {
        return Ok(());
    }
    // Where qemu's tools came from backports, Debian's own emulator does not fit them.
    let suite = suite()?;
    let backports = format!("{suite}-backports");
    say(&format!(
        "from {suite} they do not fit what is installed; trying {backports}"
    ));
    let apt = Apt::beside_own(cache, "host", &mirror()?, &[&backports])?;
    let mut command = apt.command("apt-get");
    command
        .args(install)
        .args(["-t", &backports])
        .args(&packages);
    run(&mut command).map(drop)
}

fn apt_get() -> std::process::Command {
    let mut command = tool("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}
