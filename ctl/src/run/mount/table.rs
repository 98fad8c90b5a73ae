//! What is mounted where, from which snapshot, and who uses it.
//!
//! That a mount is ours, and that it mapped its snapshot, stands in the mount's own
//! user options (`x-csnap=...`), which mount(8) keeps beside the kernel's table for
//! as long as the mount lives. There is no file of our own that could disagree with
//! what is mounted; where the options are lost, a snapshot stays mapped.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ublk_target::daemon::mounts::{self, Mount};
use ublk_target::device::Identity;

use crate::names::SnapshotArg;

/// Most users of a file system that are named.
const NAMED: usize = 8;

/// User option that says which snapshot it is.
pub(super) const OF: &str = "x-csnap";

/// User option of a mount that mapped its snapshot.
pub(super) const MAPPED: &str = "x-csnap.mapped";

/// The mounts on a block device, also through a loop device, uppermost last.
pub(super) fn on_device(device: &Path) -> Vec<Mount> {
    let number = fs::metadata(device).map_or(0, |meta| meta.rdev());
    if number == 0 {
        return Vec::new();
    }
    let wanted = Identity::Block(number);
    let on = |mount: &Mount| mount.is_on(|device| device.layers().contains(&wanted));
    seen().into_iter().filter(on).collect()
}

/// The uppermost mount on a directory.
pub(super) fn at(dir: &Path) -> Option<Mount> {
    seen().into_iter().rev().find(|mount| mount.point == dir)
}

fn seen() -> Vec<Mount> {
    mounts::seen().unwrap_or_default()
}

/// What csnapctl noted about a mount when it made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// The snapshot.
    pub(super) snapshot: Option<SnapshotArg>,
    /// Mounting it mapped it.
    pub(super) mapped: bool,
}

/// The note on the uppermost mount on `dir`; empty if it is none of ours. The user
/// options stand in the table of findmnt(8) that is called after `/etc/mtab`.
pub(super) fn note(dir: &Path) -> Note {
    let asked = Command::new("findmnt")
        .args([
            "--mtab",
            "--noheadings",
            "--raw",
            "--first-only",
            "--output",
            "OPTIONS",
            "--mountpoint",
        ])
        .arg(dir)
        .output();
    let options = asked.map_or(Vec::new(), |output| output.stdout);
    parse(&String::from_utf8_lossy(&options))
}

fn parse(options: &str) -> Note {
    let mut note = Note::default();
    for option in options.trim().split(',') {
        match option.split_once('=') {
            Some((OF, snapshot)) => note.snapshot = snapshot.parse().ok(),
            None if option == MAPPED => note.mapped = true,
            _ => {}
        }
    }
    note
}

/// Who uses the file system mounted on `dir`: mounts below it but those in `going`, and
/// processes with something of it open, running or as their directory.
pub(super) fn users(dir: &Path, going: &[PathBuf]) -> Vec<String> {
    let below = |point: &PathBuf| point.starts_with(dir) && point != dir && !going.contains(point);
    let points = seen().into_iter().map(|mount| mount.point).filter(below);
    let mut users: Vec<String> = points
        .map(|point| format!("the mount on {}", point.display()))
        .collect();
    users.extend(processes(dir));
    let more = users.len().saturating_sub(NAMED);
    if more > 0 {
        users.truncate(NAMED);
        users.push(format!("{more} more"));
    }
    users
}

fn processes(dir: &Path) -> impl Iterator<Item = String> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    numbers.filter_map(move |entry| {
        let number: u32 = entry.file_name().to_str()?.parse().ok()?;
        // The shell that started this very program is named if it is there.
        if number == std::process::id() {
            return None;
        }
        let proc = entry.path();
        // The links are read, not followed: a file elsewhere may hang.
        let in_dir = |link: PathBuf| fs::read_link(link).is_ok_and(|to| to.starts_with(dir));
        let mut open = fs::read_dir(proc.join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        let uses = ["cwd", "root", "exe"]
            .iter()
            .any(|link| in_dir(proc.join(link)))
            || open.any(|fd| in_dir(fd.path()));
        let name = fs::read_to_string(proc.join("comm")).unwrap_or_default();
        uses.then(|| format!("{} (process {number})", name.trim_end()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_back() {
        let note = parse("ro,nosuid,nodev,x-csnap=web@monday,x-csnap.mapped\n");
        assert_eq!(
            note.snapshot.map(|s| s.to_string()).as_deref(),
            Some("web@monday")
        );
        assert!(note.mapped);
        assert_eq!(parse("rw,relatime,x-csnapp=web@a"), Note::default());
        assert_eq!(parse(""), Note::default());
        let odd = parse("x-csnap=no/name");
        assert_eq!(odd.snapshot, None);
    }

    #[test]
    fn a_process_in_a_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        assert_eq!(users(&dir, &[]), Vec::<String>::new());
        let mut child = Command::new("sleep")
            .arg("60")
            .current_dir(&dir)
            .spawn()
            .unwrap();
        let expected = format!("(process {})", child.id());
        let found = users(&dir, &[]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            found.iter().any(|user| user.ends_with(&expected)),
            "{found:?}"
        );
    }
}
