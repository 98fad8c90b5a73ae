//! What a disk says of itself: serial numbers and the like, to know it again when it
//! was away. Nothing is proved by it: many disks say nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Identity;

/// Files of a disk in sysfs that stay the same as long as it is the same disk.
const OF_DISK: [&str; 6] = [
    "wwid",
    "device/wwid",
    "serial",
    "device/serial",
    "dm/uuid",
    "md/uuid",
];
/// Likewise of a partition: which part of the disk it is.
const OF_PARTITION: [&str; 2] = ["partition", "start"];

/// What was found, by the name of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plate(BTreeMap<String, String>);

impl Plate {
    /// Of a block device that is there; of anything else nothing is found.
    pub(super) fn of(identity: Identity) -> Self {
        let Identity::Block(number) = identity else {
            return Self::default();
        };
        let (major, minor) = (libc::major(number), libc::minor(number));
        Self::read(Path::new(&format!("/sys/dev/block/{major}:{minor}")))
    }

    fn read(dir: &Path) -> Self {
        let Ok(dir) = dir.canonicalize() else {
            return Self::default();
        };
        let is_partition = dir.join("partition").exists();
        let disk = dir.parent().filter(|_| is_partition).unwrap_or(&dir);
        let of_disk = OF_DISK.map(|name| (name, disk.join(name)));
        let of_partition = OF_PARTITION.map(|name| (name, dir.join(name)));
        let found = of_disk
            .into_iter()
            .chain(of_partition)
            .filter_map(|(name, path)| {
                let text = fs::read_to_string(path).ok()?;
                let text = text.trim().to_owned();
                (!text.is_empty()).then_some((name.to_owned(), text))
            });
        Self(found.collect())
    }

    /// Whether both say something of the same kind, and not the same.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        let differs =
            |(name, text): (&String, &String)| other.0.get(name).is_some_and(|other| other != text);
        self.0.iter().any(differs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_and_partitions_are_known_again_by_what_both_say() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let read = |name: &str| Plate::read(&dir.path().join(name));
        assert_eq!(read(""), Plate::default());
        fs::create_dir_all(dir.path().join("device")).unwrap();
        fs::create_dir_all(dir.path().join("part")).unwrap();
        put("device/serial", "A1 \n");
        put("part/partition", "2\n");
        put("part/start", "2048\n");
        let (disk, part) = (read(""), read("part"));
        assert_eq!(disk.0["device/serial"], "A1");
        assert_eq!(disk.0.len(), 1);
        assert_eq!(part.0.len(), 3);
        assert!(!disk.contradicts(&disk) && !disk.contradicts(&part));
        assert!(!disk.contradicts(&Plate::default()) && !Plate::default().contradicts(&disk));
        put("part/start", "4096\n");
        assert!(part.contradicts(&read("part")));
        put("device/serial", "B2\n");
        put("wwid", "naa.5\n");
        assert!(read("").contradicts(&disk) && disk.contradicts(&read("")));
    }
}
