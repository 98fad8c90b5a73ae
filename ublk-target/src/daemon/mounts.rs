//! An own view of the mounts, without those on ublk devices.
//!
//! When a process ends, the mounts only it can still see are unmounted: that
//! writes to their device and waits. If the device is one the process served, it
//! waits for itself, never ends, and no new daemon can take over. So csnapd keeps
//! file systems on ublk devices out of its mount namespace.
//!
//! The namespace follows the machine's (it is a slave of it, not private): a file
//! system with origins or stores as files may be mounted while the daemon runs,
//! and one that is unmounted must not stay busy because the daemon still has it.
//! It therefore also gets every new mount on a ublk device; a thread waits for the
//! kernel's notice and detaches them at once. Detaching here is not seen outside.
//!
//! Where the machine's mounts are not shared (no systemd, no `mount --make-rshared /`)
//! a namespace cannot follow them and would keep every file system busy that is
//! mounted when it is made. There csnapd stays in the machine's namespace, which
//! outlives it.
//!
//! ublk devices have no major number of their own (they share `blkext`), so they
//! are known by their name in sysfs. Those of other servers go too: which are ours
//! is not known before they are recovered.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::makedev;

use super::in_use::unescape;
use crate::device::Identity;

const TABLE: &str = "/proc/self/mountinfo";

/// Gives the process its own view of the mounts and keeps it clean. Call it
/// before any thread exists: only the calling thread and its children get it.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; the machine's mounts are not shared; or the
/// thread cannot be started.
pub fn isolate() -> io::Result<()> {
    if !propagates(&read_table()?) {
        let message = "they are not shared and could not be followed (mount --make-rshared /)";
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    let table = File::open(TABLE)?;
    detach_ours();
    std::thread::Builder::new()
        .name("mounts".into())
        .spawn(move || follow(&table))?;
    Ok(())
}

/// Detaches what appears, for as long as the process lives.
fn follow(table: &File) {
    let mut watched = [PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
    loop {
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) => detach_ours(),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot wait for mounts: looking every few seconds");
                std::thread::sleep(Duration::from_secs(5));
                detach_ours();
            }
        }
    }
}

/// Detaches every mount on a ublk device.
fn detach_ours() {
    let Ok(mounts) = seen() else { return };
    for mount in mounts.iter().rev().filter(|m| m.is_on(is_ublk)) {
        match umount2(&mount.point, MntFlags::MNT_DETACH) {
            Ok(()) => {
                tracing::debug!(point = %mount.point.display(), "not in this mount namespace")
            }
            // Gone in the meantime, or its parent took it along.
            Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(error) => {
                tracing::warn!(point = %mount.point.display(), %error, "cannot detach a mount on a ublk device");
            }
        }
    }
}

fn read_table() -> io::Result<String> {
    // A path that is not UTF-8 is no path of ours; its device number is read all
    // the same.
    Ok(String::from_utf8_lossy(&fs::read(TABLE)?).into_owned())
}

/// Whether what is mounted and unmounted elsewhere reaches a copy of these mounts,
/// going by the root's.
fn propagates(table: &str) -> bool {
    let root = table.lines().filter_map(|line| line.split_once(" - "));
    let mut root = root.map(|(front, _)| front.split(' ').skip(4));
    let Some(fields) = root.find(|fields| fields.clone().next() == Some("/")) else {
        return false;
    };
    let mut optional = fields.skip(2);
    optional.any(|field| field.starts_with("shared:") || field.starts_with("master:"))
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Device number of the file system; of no device for some (btrfs).
    pub device: u64,
    /// Where it is mounted.
    pub point: PathBuf,
    /// What was mounted.
    pub source: PathBuf,
}

impl Mount {
    /// Whether one of the devices it can be on is what `ours` says.
    pub fn is_on(&self, ours: impl Fn(Identity) -> bool) -> bool {
        let source = fs::metadata(&self.source).map_or(0, |meta| meta.rdev());
        let numbers = [self.device, source];
        let mut numbers = numbers.into_iter().filter(|&number| number != 0);
        numbers.any(|number| ours(Identity::Block(number)))
    }
}

/// The mounts this process sees, in the order they lie on each other.
///
/// # Errors
/// `/proc` cannot be read.
pub fn seen() -> io::Result<Vec<Mount>> {
    Ok(mounts(&read_table()?))
}

fn mounts(table: &str) -> Vec<Mount> {
    table.lines().filter_map(entry).collect()
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [OPTIONAL...] - TYPE SOURCE OPTIONS`
fn entry(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(2);
    let (major, minor) = front.next()?.split_once(':')?;
    let point = front.nth(1)?;
    let source = back.split(' ').nth(1)?;
    Some(Mount {
        device: makedev(major.parse().ok()?, minor.parse().ok()?),
        point: PathBuf::from(unescape(point)),
        source: PathBuf::from(unescape(source)),
    })
}

/// Whether a device is a ublk block device or lies on one.
fn is_ublk(device: Identity) -> bool {
    let named = |device: &Identity| match *device {
        Identity::Block(number) => node(number).is_some_and(|node| is_ublk_node(&node)),
        Identity::File { .. } => false,
    };
    device.layers().iter().any(named)
}

fn node(number: u64) -> Option<PathBuf> {
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()
}

/// `/sys/devices/virtual/block/ublkbN`, or a partition below it.
fn is_ublk_node(node: &Path) -> bool {
    let ublk = |name: &std::ffi::OsStr| {
        let number = name.to_str().and_then(|name| name.strip_prefix("ublkb"));
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    node.iter().any(ublk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_table_are_understood() {
        let table = "22 27 0:20 / /proc rw,nosuid shared:5 - proc proc rw\n\
                     35 27 259:3 / /srv/my\\040web rw shared:1 master:2 - xfs /dev/ublkb0 rw\n\
                     36 27 0:44 /a /x rw - btrfs /dev/ublkb1 rw,subvol=/a\n\
                     nonsense\n36 27 x:y / /x rw - a b c\n";
        let found = mounts(table);
        assert_eq!(found.len(), 3);
        let web = found.get(1).unwrap();
        assert_eq!(web.device, makedev(259, 3));
        assert_eq!(web.point, Path::new("/srv/my web"));
        assert_eq!(web.source, Path::new("/dev/ublkb0"));
    }

    #[test]
    fn a_root_that_is_not_shared_is_not_copied() {
        let proc = "22 27 0:20 / /proc rw shared:5 - proc proc rw\n";
        for (root, is) in [
            ("27 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n", true),
            (
                "27 1 8:1 / / rw,relatime master:4 - ext4 /dev/sda1 rw\n",
                true,
            ),
            ("27 1 8:1 / / rw - ext4 /dev/sda1 rw\n", false),
            ("27 1 8:1 / / rw unbindable - ext4 /dev/sda1 rw\n", false),
            ("", false),
        ] {
            assert_eq!(propagates(&format!("{proc}{root}")), is, "{root}");
        }
    }

    #[test]
    fn ublk_devices_are_known_by_name() {
        for (path, is) in [
            ("/sys/devices/virtual/block/ublkb0", true),
            ("/sys/devices/virtual/block/ublkb12/ublkb12p1", true),
            ("/sys/devices/virtual/block/ublkb", false),
            ("/sys/devices/virtual/block/loop0", false),
            ("/sys/devices/pci0000:00/ublkbx/block/sda", false),
        ] {
            assert_eq!(is_ublk_node(Path::new(path)), is, "{path}");
        }
    }

    #[test]
    fn a_mount_is_judged_by_its_number_and_by_its_source() {
        let by_number = Mount {
            device: makedev(259, 3),
            point: "/a".into(),
            source: "none".into(),
        };
        let three = |device| device == Identity::Block(makedev(259, 3));
        assert!(by_number.is_on(three));
        assert!(!by_number.is_on(|_| false));
        let null = fs::metadata("/dev/null").unwrap().rdev();
        let by_source = Mount {
            device: makedev(0, 44),
            point: "/a".into(),
            source: "/dev/null".into(),
        };
        assert!(by_source.is_on(|device| device == Identity::Block(null)));
    }
}
