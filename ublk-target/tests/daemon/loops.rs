//! Loop devices: block devices made of files.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

/// Counts the running test as skipped, for the summary of `make test`.
pub(super) fn skip(reason: &str) {
    let program = std::env::current_exe().unwrap();
    let notes = program.ancestors().nth(3).unwrap().join("e2e/skipped.tsv");
    std::fs::create_dir_all(notes.parent().unwrap()).unwrap();
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(notes);
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    writeln!(file.unwrap(), "{test}\t{reason}").unwrap();
}

/// A loop device, detached when dropped.
pub(super) struct Loop(pub(super) String);

impl Loop {
    /// One over a file; `None` where none can be made.
    pub(super) fn new(file: &str) -> Option<Self> {
        Self::made(&["--find", "--show", file])
    }

    fn made(args: &[&str]) -> Option<Self> {
        Some(Self(losetup(args)?.trim().to_owned()))
    }

    /// Changes it.
    pub(super) fn set(&self, option: &[&str]) -> Option<String> {
        losetup(&[option, &[&self.0]].concat())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.set(&["--detach"]);
    }
}

/// A new file system on a device, mounted until dropped.
pub(super) struct Mounted(String);

impl Mounted {
    /// `None` where none can be mounted.
    pub(super) fn new(device: &str, dir: &str) -> Option<Self> {
        let done = |program: &str, args: &[&str]| {
            let output = Command::new(program).args(args).output();
            output.is_ok_and(|output| output.status.success())
        };
        let made = done("mkfs.ext4", &["-q", device]) && done("mount", &[device, dir]);
        made.then(|| Self(dir.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a test that failed may still use it.
        let umount = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(umount.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn losetup(args: &[&str]) -> Option<String> {
    let output = Command::new("losetup").args(args).output().ok()?;
    let success = output.status.success();
    success.then(|| String::from_utf8(output.stdout).unwrap())
}

/// A loop device over a file with one partition from 1 MiB to 32 MiB, and that.
pub(super) fn partitioned(file: &str) -> Option<(Loop, String)> {
    let mut sector = [0u8; 512];
    sector[446 + 4] = 0x83;
    sector[446 + 8..446 + 12].copy_from_slice(&2048u32.to_le_bytes());
    sector[446 + 12..446 + 16].copy_from_slice(&(31u32 * 2048).to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let table = std::fs::File::options().write(true).open(file);
    table.unwrap().write_all(&sector).unwrap();
    let disk = Loop::made(&["--partscan", "--find", "--show", file])?;
    let partition = format!("{}p1", disk.0);
    let until = Instant::now() + Duration::from_secs(3);
    while !std::path::Path::new(&partition).exists() {
        if Instant::now() > until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Some((disk, partition))
}
