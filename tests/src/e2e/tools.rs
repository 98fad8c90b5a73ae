//! Running outside programs, and saying so when one is absent.
//!
//! Every program runs under `timeout`, so a hang is a failure with a name and
//! not a test that never ends.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::fault::{Fault, Outcome, Trying};

/// Seconds after which a program counts as hung.
pub const HUNG_AFTER: u32 = 300;

/// A command line under [`HUNG_AFTER`].
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["-k", "5", &HUNG_AFTER.to_string()])
        .arg(name)
        .stdin(Stdio::null());
    command
}

/// Runs it and hands back how it went, whatever that was.
///
/// # Errors
/// Only if it could not be started.
pub fn run_any(command: &mut Command) -> Outcome<Output> {
    command
        .output()
        .trying(|| format!("start {}", line_of(command)))
}

/// Runs it and hands back its stdout.
///
/// # Errors
/// If it could not be started or ended with anything but success.
pub fn run(command: &mut Command) -> Outcome<String> {
    let output = run_any(command)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(failed(
            command,
            &output,
            &format!("ended with {}", output.status),
        ))
    }
}

/// Runs it and demands that it fails (as a judge must on bad data).
///
/// # Errors
/// If it succeeded, could not be started, or hung.
pub fn run_failing(command: &mut Command) -> Outcome<String> {
    let output = run_any(command)?;
    match output.status.code() {
        Some(124 | 137) => Err(failed(command, &output, "hung")),
        Some(0) | None => Err(failed(command, &output, "should have failed and did not")),
        Some(_) => Ok(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The fault for a program that ended the wrong way.
#[must_use]
pub fn failed(command: &Command, output: &Output, how: &str) -> Fault {
    Fault::Program {
        command: line_of(command),
        how: how.to_owned(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The first of the named programs that is not installed, as a reason to skip.
#[must_use]
pub fn missing(names: &[&str]) -> Option<String> {
    let found = |name: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
    };
    let absent = names.iter().find(|name| !found(name))?;
    Some(format!(
        "{absent} is not installed; scripts/setup installs it"
    ))
}

/// A program of the newest `package` that `scripts/judges` fetched, with its own loader and
/// libraries; none if it is not there.
///
/// # Errors
/// If the target directory is not known.
pub fn judge(package: &str, name: &str) -> Outcome<Option<Command>> {
    let root = target_dir()?.join(format!("tools/{package}-newest/root/usr"));
    let found = ["sbin", "bin"]
        .map(|dir| root.join(dir).join(name))
        .into_iter()
        .find(|path| path.is_file());
    Ok(found.map(|path| {
        let mut command = program(root.join("lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path");
        command.arg(root.join("lib/x86_64-linux-gnu")).arg(path);
        command
    }))
}

/// Counts `test` as skipped, for the summary of `make test`.
///
/// # Errors
/// If the note cannot be written.
pub fn skip(test: &str, reason: &str) -> Outcome {
    let path = target_dir()?.join("e2e").join("skipped.tsv");
    let note = || format!("note a skipped test in {}", path.display());
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).trying(note)?;
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .trying(note)?;
    writeln!(file, "{test}\t{reason}").trying(note)
}

/// Cargo's target directory: the one this very program was built into.
///
/// # Errors
/// If the program lies elsewhere.
pub fn target_dir() -> Outcome<PathBuf> {
    let profile = profile_dir()?;
    let dir = profile.parent().map(Path::to_path_buf);
    dir.ok_or_else(|| Fault::wrong("not run from a cargo target directory"))
}

/// Where cargo put the programs of this build: `target/debug` or `target/release`.
/// A test lies in `deps` below it. (Cargo's own marker file cannot be asked: it is
/// missing where something else made `target` before cargo did.)
fn profile_dir() -> Outcome<PathBuf> {
    let exe = std::env::current_exe().trying(|| "find this program's path".into())?;
    let dir = exe.parent().unwrap_or(Path::new("."));
    let is_deps = dir.file_name().is_some_and(|name| name == "deps");
    let profile = if is_deps { dir.parent() } else { Some(dir) };
    let profile = profile.map(Path::to_path_buf);
    profile.ok_or_else(|| Fault::wrong("not run from a cargo target directory"))
}

/// One of csnap's own programs: from `CSNAP_BIN_DIR`, else of the same build as
/// this test.
///
/// # Errors
/// If it was not built.
pub fn csnap_program(name: &str) -> Outcome<PathBuf> {
    let dir = match std::env::var_os("CSNAP_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => profile_dir()?,
    };
    let path = dir.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Fault::wrong(format!(
        "{} was not built; run the tests with `make e2e`, or set CSNAP_BIN_DIR",
        path.display()
    )))
}
