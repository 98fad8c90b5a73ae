//! The kernel below: modules, what it complained of, which ublk devices it has.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::e2e::fault::Trying;
use crate::e2e::{Fault, Outcome, tools};
use crate::ensure;

/// Refuses to go on outside the guest: these tests load modules and overwrite disks.
///
/// # Errors
/// If this is not the guest.
pub fn inside() -> Outcome {
    ensure!(
        Path::new("/.guest/conf").is_file(),
        "this program runs inside the guest only: `make guest-test`"
    );
    Ok(())
}

/// Whether the running kernel is at least this one.
///
/// # Errors
/// If its release says nothing of the kind.
pub fn at_least(major: u32, minor: u32) -> Outcome<bool> {
    let release = super::text("/proc/sys/kernel/osrelease")?;
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || parts.next().and_then(|part| part.parse::<u32>().ok());
    match (next(), next()) {
        (Some(a), Some(b)) => Ok((a, b) >= (major, minor)),
        _ => Err(Fault::wrong(format!("an odd kernel release: {release}"))),
    }
}

/// Loads a module with its options, as `modprobe` takes them.
///
/// # Errors
/// If it does not load.
pub fn load(module: &str) -> Outcome {
    let words = module.split_whitespace();
    tools::run(tools::program("modprobe").args(words)).map(drop)
}

/// Unloads a module; whoever used it a moment ago may take a moment to let go.
///
/// # Errors
/// If it is still in use after some seconds.
pub fn unload(module: &str) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let gone = tools::run(tools::program("modprobe").args(["-r", module]));
        if gone.is_ok() || Instant::now() > deadline {
            return gone.map(drop);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Where the kernel's log was at some moment.
#[derive(Clone, Debug)]
pub struct Mark {
    lines: usize,
}

/// The kernel's log up to now.
///
/// # Errors
/// If it cannot be read.
pub fn mark() -> Outcome<Mark> {
    let lines = log()?.lines().count();
    Ok(Mark { lines })
}

fn log() -> Outcome<String> {
    tools::run(tools::program("dmesg").arg("--kernel"))
}

/// What no test ever provokes: errors of devices are not among it.
const TROUBLE: [&str; 10] = [
    "WARNING:",
    "BUG:",
    "Oops",
    "blocked for more than",
    "general protection fault",
    "soft lockup",
    "detected stalls",
    "refcount_t",
    "UBSAN",
    "possible recursive locking",
];

/// Demands that the kernel had nothing to complain of since then.
///
/// # Errors
/// Shows what it said around the first complaint.
pub fn quiet_since(mark: &Mark) -> Outcome {
    let log = log()?;
    let lines: Vec<&str> = log.lines().skip(mark.lines).collect();
    let bad = |line: &&str| TROUBLE.iter().any(|word| line.contains(word));
    match lines.iter().position(bad) {
        None => Ok(()),
        Some(at) => {
            let end = (at + 40).min(lines.len());
            let story = lines[at.saturating_sub(5)..end].join("\n");
            Err(Fault::wrong(format!("the kernel complained:\n{story}")))
        }
    }
}

/// Of what the kernel said of XFS, that which is no complaint.
const XFS_IN_ORDER: [&str; 6] = [
    "with ACLs, security attributes",
    "Mounting V5 Filesystem",
    "Ending clean mount",
    "Unmounting Filesystem",
    "EXPERIMENTAL",
    "in no-recovery mode",
];

/// Demands that since then the kernel said nothing of XFS but what is in order, and that
/// it said at least `mounts` times that it mounted one cleanly.
///
/// # Errors
/// Shows all that is not.
pub fn xfs_content_since(mark: &Mark, mounts: usize) -> Outcome {
    let log = log()?;
    let lines: Vec<&str> = log.lines().skip(mark.lines).collect();
    let in_order = |line: &&str| XFS_IN_ORDER.iter().any(|words| line.contains(words));
    let said = lines.iter().filter(|line| line.contains("XFS"));
    let bad: Vec<&str> = said.filter(|line| !in_order(line)).copied().collect();
    ensure!(bad.is_empty(), "the kernel says:\n{}", bad.join("\n"));
    let clean = lines
        .iter()
        .filter(|line| line.contains("Ending clean mount"));
    let clean = clean.count();
    ensure!(clean >= mounts, "{clean} clean mounts noted of {mounts}");
    Ok(())
}

/// The ublk devices there are, by their names in sysfs (`ublkc3`).
///
/// # Errors
/// If sysfs cannot be read.
pub fn ublk_devices() -> Outcome<Vec<String>> {
    names_in(Path::new("/sys/class/ublk-char"))
}

fn names_in(dir: &Path) -> Outcome<Vec<String>> {
    if !dir.is_dir() {
        return Ok(Vec::new()); // the module is not loaded
    }
    let story = || format!("list {}", dir.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).trying(story)? {
        let entry = entry.trying(story)?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Waits until udev has done all it wants to do, where it runs.
///
/// # Errors
/// If it takes minutes.
pub fn settle() -> Outcome {
    if Path::new("/run/udev/control").exists() {
        tools::run(tools::program("udevadm").args(["settle", "--timeout=120"]))?;
    }
    Ok(())
}

/// Tries until it works.
///
/// # Errors
/// The last one, after `patience`.
pub fn eventually<T>(
    what: &str,
    patience: Duration,
    mut attempt: impl FnMut() -> Outcome<T>,
) -> Outcome<T> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Err(fault) if Instant::now() > deadline => {
                return Err(Fault::wrong(format!(
                    "{what}: not within {patience:?}: {fault}"
                )));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
            done => return done,
        }
    }
}
