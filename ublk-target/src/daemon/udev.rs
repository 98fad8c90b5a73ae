//! What udev's rules learn of our block devices: one file for each, in the run
//! directory, read by `59-csnap.rules` when the device appears.
//!
//! Rules cannot ask the daemon: udev waits for them, and the daemon may be waiting
//! for udev to close the device. Contract: the file is whole before the device is
//! started, for the rules run at once, and goes when its number is forgotten, for
//! that may become somebody else's. It may stay after a kill: the next csnapd makes
//! it again, or clears it away. Names in it were checked by the engine (letters, digits, `.`,
//! `_`, `-`), so nothing in a value needs quoting.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where the files are.
#[derive(Clone, Debug)]
pub struct Announcements {
    dir: PathBuf,
}

impl Announcements {
    /// In a run directory. Nothing is made yet.
    #[must_use]
    pub fn new(run_dir: &Path) -> Self {
        Self {
            dir: run_dir.join("udev"),
        }
    }

    /// Says what `/dev/ublkb<number>` will be: a volume, or a snapshot of it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn announce(&self, number: u32, volume: &str, snapshot: Option<&str>) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let path = self.path(number);
        let new = path.with_extension("new");
        fs::File::create(&new)?.write_all(text(volume, snapshot).as_bytes())?;
        fs::rename(new, path)
    }

    /// Forgets a device that is gone.
    pub fn withdraw(&self, number: u32) {
        let _ = fs::remove_file(self.path(number));
    }

    /// Forgets all devices but those of these numbers.
    pub fn keep_only(&self, numbers: &[u32]) {
        let kept: Vec<PathBuf> = numbers.iter().map(|&number| self.path(number)).collect();
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        for path in paths.filter(|path| !kept.contains(path)) {
            let _ = fs::remove_file(path);
        }
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("ublkb{number}"))
    }
}

fn text(volume: &str, snapshot: Option<&str>) -> String {
    match snapshot {
        Some(snapshot) => {
            format!(
                "CSNAP_NAME={volume}@{snapshot}\nCSNAP_VOLUME={volume}\nCSNAP_SNAPSHOT={snapshot}\n"
            )
        }
        None => format!("CSNAP_NAME={volume}\nCSNAP_VOLUME={volume}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_announced_and_withdrawn() {
        let run = tempfile::tempdir().unwrap();
        let devices = Announcements::new(run.path());
        let file = run.path().join("udev/ublkb3");
        devices.announce(3, "web", Some("monday")).unwrap();
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            "CSNAP_NAME=web@monday\nCSNAP_VOLUME=web\nCSNAP_SNAPSHOT=monday\n"
        );
        devices.announce(3, "web", None).unwrap();
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            "CSNAP_NAME=web\nCSNAP_VOLUME=web\n"
        );
        devices.withdraw(3);
        devices.withdraw(3);
        assert_eq!(fs::read_dir(run.path().join("udev")).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_daemon_left_behind_is_cleared_away() {
        let run = tempfile::tempdir().unwrap();
        let devices = Announcements::new(run.path());
        devices.keep_only(&[]);
        for number in [3, 4, 33] {
            devices.announce(number, "web", None).unwrap();
        }
        fs::write(run.path().join("udev/ublkb5.new"), b"CSNAP_").unwrap();
        devices.keep_only(&[3, 7]);
        let left: Vec<_> = fs::read_dir(run.path().join("udev"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["ublkb3"]);
    }
}
