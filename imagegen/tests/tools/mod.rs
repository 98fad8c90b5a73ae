//! xfsprogs, erofs-utils and composefs of Debian's stable and newest suites, for tests to
//! compare with.
//!
//! `scripts/judges` fetches them into `target/tools`. They run with their own loader
//! and libraries, so this machine's libc does not matter. A test that finds none is noted
//! as skipped, where `make test` counts it.
#![allow(dead_code)] // every test program uses another part
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A suite of Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suite {
    /// The stable release.
    Stable,
    /// What is newest.
    Newest,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Newest => "newest",
        }
    }
}

/// Cargo's target directory.
pub(crate) fn target_dir() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from)
}

/// The command that runs `tool` (`mkfs.xfs`, `xfs_db`, `xfs_repair`, `xfs_io` ...) of a
/// suite, nothing on its standard input; none, and the running test noted as skipped, if
/// they are not there.
pub(crate) fn xfsprogs(suite: Suite, tool: &str) -> Option<Command> {
    judge("xfsprogs", suite, tool)
}

/// The same for `mkfs.erofs`, `fsck.erofs`, `dump.erofs` ...
pub(crate) fn erofs_utils(suite: Suite, tool: &str) -> Option<Command> {
    judge("erofs-utils", suite, tool)
}

/// The same for `mkcomposefs` and `composefs-info`, which only the newest suite has.
pub(crate) fn composefs(tool: &str) -> Option<Command> {
    judge("composefs", Suite::Newest, tool)
}

/// The command that makes images by the crate `composefs`.
pub(crate) fn composefs_crate() -> Option<Command> {
    let program = target_dir().join("tools/composefs-crate/debug/composefs-oracle");
    if !program.is_file() {
        skip("no program of the crate composefs; run scripts/judges");
        return None;
    }
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    Some(command)
}

fn judge(package: &str, suite: Suite, tool: &str) -> Option<Command> {
    let root = target_dir()
        .join(format!("tools/{package}-{}", suite.name()))
        .join("root");
    let program = ["usr/sbin", "sbin", "usr/bin"]
        .map(|dir| root.join(dir).join(tool))
        .into_iter()
        .find(|path| path.is_file());
    let Some(program) = program else {
        skip(&format!(
            "no {tool} of Debian's {} suite; run scripts/judges",
            suite.name()
        ));
        return None;
    };
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
    command
        .arg("--library-path")
        .arg(libraries)
        .arg(program)
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    Some(command)
}

/// What makes commands of a program of this machine; none, and the running test noted as
/// skipped, if it is not there.
pub(crate) fn machine(program: &'static str) -> Option<impl FnMut() -> Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .chain(sbin)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("no {program} on this machine; run scripts/setup"));
    }
    found.map(|program| {
        move || {
            let mut command = Command::new(&program);
            command.env("LC_ALL", "C").stdin(Stdio::null());
            command
        }
    })
}

/// Notes the running test as skipped, for the summary of `make test`.
pub(crate) fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("SKIPPED: {test}: {reason}");
    let notes = target_dir().join("e2e");
    std::fs::create_dir_all(&notes).unwrap();
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(notes.join("skipped.tsv"));
    writeln!(file.unwrap(), "{test}\t{reason}").unwrap();
}

/// A loop device over a file, detached when dropped.
pub(crate) struct Loop(pub(crate) PathBuf);

impl Loop {
    /// Over a new file of `size` bytes; none, and the running test noted as skipped, if
    /// there can be none.
    pub(crate) fn new(file: &Path, size: u64) -> Option<Self> {
        std::fs::File::create(file).unwrap().set_len(size).unwrap();
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output();
        let output = output.unwrap();
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            skip(&format!("no loop device: {why}"));
            return None;
        }
        Some(Self(
            String::from_utf8(output.stdout).unwrap().trim().into(),
        ))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}
