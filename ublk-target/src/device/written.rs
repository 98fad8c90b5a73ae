//! How much was written to a block device: the kernel counts, whoever writes.
//!
//! Contract: the count holds every write of file systems and programs to the device
//! itself; a disk's those to its partitions too. What goes around the device is not in
//! it: writes to the disk a partition is on, to what a mapped device lies on, those of
//! another machine. Some devices do not count at all (`queue/iostats`, some drivers):
//! their count stands still.

use std::fs;
use std::path::Path;

use super::{Device, Identity};

/// Drivers whose disks outlive what is in them, with their count: loop and nbd.
const REUSED: [u64; 2] = [7, 43];

/// What the kernel's counter of a block device says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Sectors of 512 bytes written since the kernel made the disk.
    pub sectors: u64,
    /// Which disk it is: another one, or one that came back, has another number.
    pub disk: u64,
    /// Nothing but this disk is in the count.
    pub from_zero: bool,
    /// How often one write is counted at most.
    pub times: u64,
}

impl Device {
    /// What the kernel counted. `None` for files, and where it does not say.
    #[must_use]
    pub fn written(&self) -> Option<Written> {
        let Identity::Block(number) = self.identity() else {
            return None;
        };
        // Through the page cache, writes are counted long after they are done.
        if !self.is_direct() {
            return None;
        }
        let (major, minor) = (libc::major(number), libc::minor(number));
        let dir = format!("/sys/dev/block/{major}:{minor}");
        Written::read(Path::new(&dir), major.into())
    }
}

impl Written {
    /// From the directory of a device, or a partition, in sysfs.
    fn read(dir: &Path, major: u64) -> Option<Self> {
        let dir = dir.canonicalize().ok()?;
        let is_partition = dir.join("partition").exists();
        let disk = dir.parent().filter(|_| is_partition).unwrap_or(&dir);
        let text = |path: &Path| fs::read_to_string(path).ok();
        let stat = text(&dir.join("stat"))?;
        let number = text(&disk.join("diskseq"))?;
        let removable = text(&disk.join("removable"))?;
        // Where a driver takes whole requests, each is counted when it is done. Else
        // one that would have had to wait may be counted once more when it did.
        let requests = disk.join("mq").is_dir();
        Some(Self {
            sectors: stat.split_whitespace().nth(6)?.parse().ok()?,
            disk: number.trim().parse().ok()?,
            from_zero: removable.trim() == "0" && !REUSED.contains(&major),
            times: if requests { 1 } else { 2 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk as sysfs shows it, and a partition of it.
    fn disk() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        fs::create_dir_all(dir.path().join("part")).unwrap();
        put("stat", "  10  0 80  4 7 0   4711 3 0 5 7 0 0 0 0 0 0\n");
        put("diskseq", "12\n");
        put("removable", "0\n");
        put("part/partition", "1\n");
        put("part/stat", "1 2 3 4 5 6 42 8 9 10 11\n");
        dir
    }

    #[test]
    fn a_disk_and_its_partitions_count_for_themselves() {
        let disk = disk();
        let whole = Written {
            sectors: 4711,
            disk: 12,
            from_zero: true,
            times: 2,
        };
        assert_eq!(Written::read(disk.path(), 8), Some(whole));
        let partition = Written {
            sectors: 42,
            ..whole
        };
        let part = disk.path().join("part");
        assert_eq!(Written::read(&part, 8), Some(partition));
        fs::create_dir(disk.path().join("mq")).unwrap();
        assert_eq!(Written::read(&part, 8).map(|w| w.times), Some(1));
    }

    #[test]
    fn counts_that_may_be_of_something_else_are_told_from_others() {
        let disk = disk();
        let from_zero = |major| Written::read(disk.path(), major).map(|w| w.from_zero);
        assert_eq!([8, 7, 43].map(from_zero), [true, false, false].map(Some));
        fs::write(disk.path().join("removable"), "1\n").unwrap();
        assert_eq!(from_zero(8), Some(false));
        fs::write(disk.path().join("stat"), "1 2 3\n").unwrap();
        assert_eq!(Written::read(disk.path(), 8), None);
        assert_eq!(Written::read(&disk.path().join("none"), 8), None);
    }
}
