//! Who has a block device open, as far as `/proc` and `/sys` tell.
//!
//! Best effort: the driver alone knows for sure (`TRY_STOP`), but it does not say
//! who. Without privileges (`CAP_SYS_PTRACE`, a whole `/proc`) programs and mounts of
//! others are not seen; so before a device is removed it is also asked whether somebody
//! claims it, which every mount, swap area and device on top of it or of a partition of
//! it does. To ask is to claim it for a moment, and a mount at that moment fails: whoever
//! only counts users ([`Openers::of_all`]) does not ask.

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
    /// Who uses `/dev/ublkbN`, which is to be removed: asks for claims, too.
    ///
    /// # Errors
    /// When `/proc` or the device cannot be read.
    pub fn of(id: u32) -> Result<Self, UblkError> {
        let seen = Self::of_all(&[id])?.into_iter().next();
        let mut openers = seen.unwrap_or_default();
        openers.claimed |= is_claimed(&super::char::disk(id));
        Ok(openers)
    }

    /// Who uses each of these, with one look at the processes for all of them, and
    /// without opening any.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn of_all(ids: &[u32]) -> Result<Vec<Self>, UblkError> {
        let devices = ids.iter().map(|id| number_of(*id));
        let devices = devices.collect::<Result<Vec<_>, _>>()?;
        let mut all = vec![Self::default(); ids.len()];
        let Some(id) = ids.first().copied() else {
            return Ok(all);
        };
        let failed = |source| UblkError::Openers { id, source };
        find_mounts(&devices, &mut all).map_err(failed)?;
        find_programs(&devices, &mut all).map_err(failed)?;
        let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
        for ((id, device), openers) in ids.iter().zip(devices).zip(&mut all) {
            if device.is_some() {
                openers.holders = holders_of(*id);
                openers.claimed = is_swap(&swaps, &super::char::disk(*id));
            }
        }
        Ok(all)
    }

    /// How many they are, as far as they can be seen: a claim alone is one.
    #[must_use]
    pub fn count(&self) -> u64 {
        let seen = self.mounts.len() + self.holders.len() + self.programs.len();
        seen.max(self.claimed.into()) as u64
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

/// Whether the device is an area in this table of `/proc/swaps`.
fn is_swap(table: &str, node: &Path) -> bool {
    let mut areas = table.lines().skip(1);
    areas.any(|line| line.split_whitespace().next().map(Path::new) == Some(node))
}

/// The device's number, if it is there.
fn number_of(id: u32) -> Result<Option<u64>, UblkError> {
    match fs::metadata(super::char::disk(id)) {
        Ok(metadata) => Ok(Some(metadata.rdev())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(UblkError::Openers { id, source }),
    }
}

/// Mount points of every process's view, since a mount may hide in a namespace.
fn find_mounts(devices: &[Option<u64>], all: &mut [Openers]) -> std::io::Result<()> {
    let (major, minor) = (nix::sys::stat::major, nix::sys::stat::minor);
    let name =
        |device: &Option<u64>| device.map(|number| format!("{}:{}", major(number), minor(number)));
    let wanted: Vec<Option<String>> = devices.iter().map(name).collect();
    let mut seen = HashSet::new();
    for process in processes()? {
        // One look at each namespace; a process may have ended meanwhile.
        let Ok(namespace) = fs::read_link(process.join("ns/mnt")) else {
            continue;
        };
        if seen.insert(namespace)
            && let Ok(table) = fs::read_to_string(process.join("mountinfo"))
        {
            for (device, openers) in wanted.iter().zip(&mut *all) {
                let points = device.iter().flat_map(|device| mounted(&table, device));
                openers.mounts.extend(points);
            }
        }
    }
    for openers in all {
        openers.mounts.sort();
        openers.mounts.dedup();
    }
    Ok(())
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

fn find_programs(devices: &[Option<u64>], all: &mut [Openers]) -> std::io::Result<()> {
    for process in processes()? {
        let Some(pid) = number(&process) else {
            continue;
        };
        // A process that has ended meanwhile has nothing open.
        let files = fs::read_dir(process.join("fd")).into_iter().flatten();
        let open: HashSet<u64> = files
            .flatten()
            .filter_map(|file| block_device(&file.path()))
            .collect();
        for (device, openers) in devices.iter().zip(&mut *all) {
            if device.is_some_and(|device| open.contains(&device)) {
                let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
                openers.programs.push((pid, name.trim().to_owned()));
            }
        }
    }
    Ok(())
}

/// The block device that an open file is. Only links into `/dev` are followed: others
/// may lie on a file system that does not answer.
fn block_device(file: &Path) -> Option<u64> {
    let target = fs::read_link(file).ok()?;
    let metadata = target
        .starts_with("/dev")
        .then(|| fs::metadata(file).ok())??;
    let is_block = metadata.file_type().is_block_device();
    is_block.then(|| metadata.rdev())
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
    fn what_is_not_there_nobody_uses() {
        let all = Openers::of_all(&[4_000_000, 4_000_001]).unwrap();
        assert_eq!(all, [Openers::default(), Openers::default()]);
        assert_eq!(Openers::of_all(&[]).unwrap(), []);
    }

    #[test]
    fn swap_areas_are_seen() {
        let table = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
                     /dev/ublkb3                             partition\t8188\t\t0\t\t-2\n";
        assert!(is_swap(table, Path::new("/dev/ublkb3")));
        assert!(!is_swap(table, Path::new("/dev/ublkb33")));
        assert!(!is_swap("Filename /dev/ublkb3\n", Path::new("/dev/ublkb3")));
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
        let counts = [&openers, &claimed, &Openers::default()].map(Openers::count);
        assert_eq!(counts, [3, 1, 0]);
    }
}
