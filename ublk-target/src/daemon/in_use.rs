//! Who uses a device: mounts and swap areas, named for a person.
//!
//! The exclusive open of [`crate::device`] is what keeps csnap off a device that
//! is in use; this only says by whom, and finds uses that an exclusive open of a
//! *file* cannot see (a loop device or swap over it).

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// How a device or file is in use, for people; empty if nothing is known.
#[must_use]
pub fn uses(path: &Path) -> Vec<String> {
    let Ok(meta) = fs::metadata(path) else {
        return Vec::new();
    };
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    if meta.file_type().is_block_device() {
        let number = meta.rdev();
        let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
        let mut uses = mounts(&read("/proc/self/mountinfo"), &format!("{major}:{minor}"));
        uses.extend(swaps(&read("/proc/swaps"), |swap| {
            fs::metadata(swap).is_ok_and(|other| other.rdev() == number)
        }));
        return uses;
    }
    let same = |other: &str| {
        fs::metadata(other).is_ok_and(|o| (o.dev(), o.ino()) == (meta.dev(), meta.ino()))
    };
    let mut uses = swaps(&read("/proc/swaps"), same);
    uses.extend(loops(same));
    uses
}

/// Mount points of device `number` (`major:minor`) in a mountinfo table.
fn mounts(mountinfo: &str, number: &str) -> Vec<String> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(2);
            let device = fields.next()?;
            let point = fields.nth(1)?;
            (device == number).then(|| format!("mounted on {}", unescape(point)))
        })
        .collect()
}

fn swaps(table: &str, same: impl Fn(&str) -> bool) -> Vec<String> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .filter(|swap| same(&unescape(swap)))
        .map(|_| "used as swap".to_owned())
        .collect()
}

fn loops(same: impl Fn(&str) -> bool) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| {
            let backing = fs::read_to_string(entry.path().join("loop/backing_file"));
            backing.is_ok_and(|backing| same(backing.trim_end()))
        })
        .map(|entry| format!("used by /dev/{}", entry.file_name().to_string_lossy()))
        .collect()
}

/// The kernel writes blanks and backslashes in these tables as `\ooo`.
pub(super) fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.as_bytes();
    while let Some((&byte, rest)) = bytes.split_first() {
        let code = rest.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) if byte == b'\\' => {
                out.push(value);
                bytes = rest.get(3..).unwrap_or(&[]);
            }
            _ => {
                out.push(byte);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_number_and_named() {
        let table = "22 27 0:20 / /proc rw,nosuid shared:5 - proc proc rw\n\
                     35 27 8:1 / /mnt/my\\040disk rw shared:1 - xfs /dev/sda1 rw\n\
                     36 27 8:17 / /x rw - xfs /dev/sdb1 rw\n";
        assert_eq!(mounts(table, "8:1"), ["mounted on /mnt/my disk"]);
        assert_eq!(mounts(table, "8:2"), Vec::<String>::new());
    }

    #[test]
    fn swap_areas_are_found() {
        let table = "Filename\t\t\tType\t\tSize\n/dev/sda2   partition 100 0 -2\n";
        assert_eq!(swaps(table, |path| path == "/dev/sda2"), ["used as swap"]);
        assert!(swaps(table, |path| path == "/dev/sda3").is_empty());
    }

    #[test]
    fn a_new_file_is_in_no_use() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(uses(file.path()).is_empty());
    }
}
