//! Whether a disk failed, or only cannot be reached: what is on it is not lost then.
//!
//! The block layer has errors of its own for a way that is cut off, but a disk that its
//! driver gave up (offline, no path left) often says no more than `EIO`, and stays in
//! sysfs. SCSI and NVMe tell there how the disk, or its controllers, are.
//!
//! What lies on several disks cannot be reached if one of them is cut off, unless it can do
//! without: then an error is one of the disks that answer, such as a bad sector.

use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::fstat;

use super::Identity;
use super::stack::{DEPTH, SYS, beneath};

/// States in which a disk does not answer for itself: of `scsi_device` and of NVMe
/// controllers. Others, such as those of other drivers, tell nothing.
const CUT_OFF: [&str; 12] = [
    "offline",
    "transport-offline",
    "blocked",
    "created-blocked",
    "quiesce",
    "cancel",
    "deleted",
    "connecting",
    "resetting",
    "deleting",
    "deleting (no IO)",
    "dead",
];

/// Whether an operation that failed with `errno` on what is open here says nothing of
/// the disk.
pub(crate) fn is_unreachable(fd: BorrowedFd<'_>, errno: i32) -> bool {
    let by_state = || {
        let found = fstat(fd).map(|stat| match stat.st_rdev {
            0 => Identity::File {
                device: stat.st_dev,
                inode: stat.st_ino,
            },
            number => Identity::Block(number),
        });
        found.is_ok_and(|found| is_cut_off(Path::new(SYS), found, DEPTH))
    };
    match errno {
        libc::ENODEV | libc::ENXIO | libc::ENOLINK | libc::ETIMEDOUT => true,
        libc::EIO => by_state(),
        _ => false,
    }
}

/// Whether a device is cut off, or more of what it lies on than it can do without, through
/// so many layers.
fn is_cut_off(sys: &Path, device: Identity, depth: u32) -> bool {
    let node = node_of(sys, device);
    if node.as_deref().is_some_and(does_not_answer) {
        return true;
    }
    let Some(depth) = depth.checked_sub(1) else {
        return false;
    };
    let below = beneath(sys, device);
    let all = below.len();
    let cut_off = below
        .into_iter()
        .filter(|below| is_cut_off(sys, *below, depth));
    cut_off.count() > node.map_or(0, |node| spare(&node, all))
}

fn node_of(sys: &Path, device: Identity) -> Option<PathBuf> {
    match device {
        Identity::Block(number) => {
            let (major, minor) = (libc::major(number), libc::minor(number));
            Some(sys.join(format!("dev/block/{major}:{minor}")))
        }
        Identity::File { .. } => None,
    }
}

/// How many of `all` that a device lies on it surely can do without. (LVM does not say in
/// sysfs which of its volumes are redundant: none.)
fn spare(node: &Path, all: usize) -> usize {
    let text = |name: &str| fs::read_to_string(node.join(name)).unwrap_or_default();
    if text("dm/uuid").starts_with("mpath-") {
        return all.saturating_sub(1);
    }
    match text("md/level").trim() {
        "raid1" => all.saturating_sub(1),
        "raid4" | "raid5" | "raid10" => 1,
        "raid6" => 2,
        _ => 0,
    }
}

/// Whether the disk of this directory in sysfs is cut off.
fn does_not_answer(node: &Path) -> bool {
    let device = node.join("device");
    match fs::read_to_string(device.join("state")) {
        Ok(state) => CUT_OFF.contains(&state.trim()),
        Err(_) => no_controller_answers(&device),
    }
}

/// Of an NVMe namespace with several controllers: the device is the subsystem.
fn no_controller_answers(subsystem: &Path) -> bool {
    let entries = fs::read_dir(subsystem).into_iter().flatten().flatten();
    let controllers = entries.filter(|entry| entry.file_name().as_bytes().starts_with(b"nvme"));
    let mut states = controllers
        .filter_map(|entry| fs::read_to_string(entry.path().join("state")).ok())
        .peekable();
    states.peek().is_some() && states.all(|state| state.trim() != "live")
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// A made-up sysfs.
    struct Sys(tempfile::TempDir);

    impl Sys {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn put(&self, device: u32, name: &str, text: &str) {
            let path = self.0.path().join(format!("dev/block/8:{device}/{name}"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }

        fn lies_on(&self, device: u32, below: &[u32]) {
            for below in below {
                let dev = format!("slaves/d{below}/dev");
                self.put(device, &dev, &format!("8:{below}"));
            }
        }

        /// Four disks, each running or offline.
        fn states(&self, offline: &[u32]) {
            for disk in 1..=4 {
                let state = if offline.contains(&disk) {
                    "offline"
                } else {
                    "running"
                };
                self.put(disk, "device/state", state);
            }
        }

        fn is_cut_off(&self, device: u32) -> bool {
            let number = nix::sys::stat::makedev(8, device.into());
            is_cut_off(self.0.path(), Identity::Block(number), DEPTH)
        }
    }

    #[test]
    fn a_disk_that_its_driver_gave_up_is_told_from_one_that_answers() {
        let sys = Sys::new();
        assert!(!sys.is_cut_off(1), "it says nothing");
        let says = |state: &str| {
            sys.put(1, "device/state", state);
            sys.is_cut_off(1)
        };
        let well = ["running", "live", "Connected", ""].map(says);
        assert_eq!(well, [false; 4]);
        let cut_off = ["offline", "transport-offline", "dead", "connecting"].map(says);
        assert_eq!(cut_off, [true; 4]);
    }

    #[test]
    fn a_namespace_with_several_controllers_is_cut_off_with_the_last() {
        let sys = Sys::new();
        sys.put(1, "device/nvme0n1/size", "8");
        sys.put(1, "device/model", "a disk");
        assert!(!sys.is_cut_off(1), "it says nothing");
        let say = |states: [&str; 2]| {
            sys.put(1, "device/nvme0/state", states[0]);
            sys.put(1, "device/nvme1/state", states[1]);
            sys.is_cut_off(1)
        };
        assert!(!say(["live", "live"]));
        assert!(!say(["dead", "live"]));
        assert!(say(["dead", "connecting"]));
    }

    #[test]
    fn what_lies_on_a_disk_that_is_cut_off_cannot_be_reached() {
        let sys = Sys::new();
        sys.lies_on(10, &[1, 2]);
        sys.lies_on(20, &[10]);
        let cut_off = |offline: &[u32]| {
            sys.states(offline);
            sys.is_cut_off(20)
        };
        assert!(!cut_off(&[]));
        assert!(cut_off(&[2]));
        sys.put(10, "md/level", "raid0");
        assert!(cut_off(&[2]));
        sys.put(20, "dm/uuid", "LVM-0815");
        assert!(cut_off(&[1]));
    }

    #[test]
    fn an_array_that_can_do_without_a_disk_is_not_cut_off_with_it() {
        let sys = Sys::new();
        sys.lies_on(10, &[1, 2, 3, 4]);
        sys.lies_on(20, &[10]);
        let most = |level: &str| {
            sys.put(10, "md/level", level);
            let offline = (0..=4).filter(|n| {
                sys.states(&(1..=*n).collect::<Vec<u32>>());
                !sys.is_cut_off(20)
            });
            offline.max()
        };
        let levels = ["raid0", "raid1", "raid4", "raid5", "raid6", "raid10"].map(most);
        assert_eq!(levels, [0, 3, 1, 1, 2, 1].map(Some));
        sys.put(10, "dm/uuid", "mpath-3600");
        assert_eq!(most("none"), Some(3), "paths to one disk");
    }

    #[test]
    fn a_bad_sector_is_an_error_of_the_disk_and_a_lost_path_is_not() {
        let file = tempfile::tempfile().unwrap();
        let unreachable = |errno| is_unreachable(file.as_fd(), errno);
        assert_eq!(
            [libc::ENOLINK, libc::ETIMEDOUT, libc::ENODEV, libc::ENXIO].map(unreachable),
            [true; 4]
        );
        assert_eq!(
            [libc::EIO, libc::ENODATA, libc::EILSEQ, libc::EREMOTEIO].map(unreachable),
            [false; 4]
        );
    }
}
