//! Who has a block device open, as far as `/proc` and `/sys` tell.
//!
//! Best effort: the driver alone knows for sure (`TRY_STOP`), but it does not say
//! who. Without privileges (`CAP_SYS_PTRACE`, a whole `/proc`) programs and mounts of
//! others are not seen; so the device is also asked whether somebody claims it, which
//! every mount, swap area and device on top of it or of a partition of it does.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::UblkError;

/// Those who use a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Openers {
    /// Where it is mounted.
    pub mounts: Vec<PathBuf>,
    /// Devices on top of it.
    pub holders: Vec<String>,
    /// Programs that have it open: process number and name.
    pub programs: Vec<(u32, String)>,
    /// Somebody claims it for himself.
    pub claimed: bool,
}

impl Openers {
    /// Who uses `/dev/ublkbN`.
    ///
    /// # Errors
    /// When `/proc` or the device cannot be read.
    pub fn of(id: u32) -> Result<Self, UblkError> {
        let node = super::char::disk(id);
        let failed = |source| UblkError::Openers { id, source };
        let device = match fs::metadata(&node) {
            Ok(metadata) => metadata.rdev(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(failed(error)),
        };
        Ok(Self {
            mounts: mounts_of(device).map_err(failed)?,
            holders: holders_of(id),
            programs: programs_with(device).map_err(failed)?,
            claimed: is_claimed(&node),
        })
    }

    /// Nobody seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mounts.is_empty()
            && self.holders.is_empty()
            && self.programs.is_empty()
            && !self.claimed
    }
}

impl fmt::Display for Openers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = Vec::new();
        all.extend(
            self.mounts
                .iter()
                .map(|at| format!("mounted at {}", at.display())),
        );
        all.extend(self.holders.iter().map(|name| format!("part of {name}")));
        let open = |(pid, name): &(u32, String)| format!("opened by {name} (process {pid})");
        all.extend(self.programs.iter().map(open));
        match all.is_empty() {
            true if self.claimed => f.write_str("mounted, used as swap, or part of another device"),
            true => f.write_str("somebody has it open"),
            false => f.write_str(&all.join(", ")),
        }
    }
}

/// Whether an exclusive open is refused: then the device or a partition of it is
/// mounted, swapped to, or below another device, in whatever namespace.
fn is_claimed(node: &Path) -> bool {
    let mut options = fs::File::options();
    let open = options.read(true).custom_flags(libc::O_EXCL).open(node);
    open.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
}

/// Mount points of every process's view, since a mount may hide in a namespace.
fn mounts_of(device: u64) -> std::io::Result<Vec<PathBuf>> {
    let wanted = format!(
        "{}:{}",
        nix::sys::stat::major(device),
        nix::sys::stat::minor(device)
    );
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for process in processes()? {
        // One look at each namespace; a process may have ended meanwhile.
        let Ok(namespace) = fs::read_link(process.join("ns/mnt")) else {
            continue;
        };
        if seen.insert(namespace)
            && let Ok(table) = fs::read_to_string(process.join("mountinfo"))
        {
            found.extend(mounted(&table, &wanted));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Fields of `/proc/PID/mountinfo`: id, parent, device, root, mount point, ...
fn mounted<'a>(table: &'a str, device: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
    table.lines().filter_map(move |line| {
        let mut fields = line.split(' ').skip(2);
        let matches = fields.next()? == device;
        matches.then(|| fields.nth(1).map(PathBuf::from)).flatten()
    })
}

fn holders_of(id: u32) -> Vec<String> {
    // A device without holders has an empty directory; one that is gone has none.
    let entries = fs::read_dir(format!("/sys/block/ublkb{id}/holders"));
    entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn programs_with(device: u64) -> std::io::Result<Vec<(u32, String)>> {
    let mut found = Vec::new();
    for process in processes()? {
        let Some(pid) = number(&process) else {
            continue;
        };
        // A process that has ended meanwhile has nothing open.
        let files = fs::read_dir(process.join("fd")).into_iter().flatten();
        let open = files.flatten().any(|file| is_device(&file.path(), device));
        if open {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            found.push((pid, name.trim().to_owned()));
        }
    }
    Ok(found)
}

/// Whether an open file is the device. Only links into `/dev` are followed: others
/// may lie on a file system that does not answer.
fn is_device(file: &Path, device: u64) -> bool {
    fs::read_link(file).is_ok_and(|target| target.starts_with("/dev"))
        && fs::metadata(file).is_ok_and(|metadata| {
            metadata.file_type().is_block_device() && metadata.rdev() == device
        })
}

fn processes() -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
    Ok(entries.filter(|path| number(path).is_some()).collect())
}

fn number(process: &Path) -> Option<u32> {
    process.file_name()?.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_found_by_device() {
        let table = "36 35 259:3 / /mnt/a rw,noatime - xfs /dev/ublkb3 rw\n\
                     37 35 259:31 / /mnt/b rw - ext4 /dev/x rw\nshort\n";
        let found: Vec<PathBuf> = mounted(table, "259:3").collect();
        assert_eq!(found, [PathBuf::from("/mnt/a")]);
    }

    #[test]
    fn those_in_the_way_are_named() {
        let openers = Openers {
            mounts: vec!["/mnt".into()],
            holders: vec!["dm-0".into()],
            programs: vec![(7, "fio".into())],
            claimed: true,
        };
        assert_eq!(
            openers.to_string(),
            "mounted at /mnt, part of dm-0, opened by fio (process 7)"
        );
        assert!(!openers.is_empty());
        assert!(Openers::default().is_empty());
        let claimed = Openers {
            claimed: true,
            ..Openers::default()
        };
        assert!(!claimed.is_empty());
        assert!(claimed.to_string().starts_with("mounted"), "{claimed}");
    }
}
