//! xfsprogs of other suites of Debian, to judge images with: unpacked below
//! `target/tools/xfsprogs-NAME/root` with every library they need, down to libc and its
//! loader, so they run on any machine. Nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};

use super::apt::Apt;
use super::cache::{Cache, make_dir, remove_dir, rename, target_dir, write};
use super::error::{Error, Result, Trying};
use super::sources::Source;
use super::tool::{run, tool};

/// Names in `target/tools`, and the suites they are of.
pub const SUITES: [(&str, &str); 2] = [("stable", "trixie"), ("newest", "sid")];

/// Where those of a name are.
fn place(name: &str) -> PathBuf {
    target_dir().join(format!("tools/xfsprogs-{name}"))
}

/// What they say their version is; none if they are not there.
#[must_use]
pub fn version(name: &str) -> Option<String> {
    let text = fs::read_to_string(place(name).join("version")).ok()?;
    Some(text.trim().to_owned())
}

/// Fetches those of a name, unless they are there, and returns their version.
///
/// # Errors
/// If they cannot be fetched, unpacked or run.
pub fn prepare(cache: &Cache, mirror: &Source, name: &str, suite: &str) -> Result<String> {
    if let Some(version) = version(name) {
        return Ok(version);
    }
    let place = place(name);
    let work = place.with_extension("new");
    remove_dir(&work)?;
    make_dir(&work)?;
    for package in fetch(cache, mirror, suite)? {
        run(tool("dpkg-deb")
            .arg("-x")
            .arg(&package)
            .arg(work.join("root")))?;
    }
    let version = run_one(&work.join("root"))?;
    write(&work.join("version"), &version)?;
    remove_dir(&place)?;
    rename(&work, &place)?;
    Ok(version.trim().to_owned())
}

/// The packages of xfsprogs and all it depends on, as if nothing were installed.
fn fetch(cache: &Cache, mirror: &Source, suite: &str) -> Result<Vec<PathBuf>> {
    let name = format!("xfsprogs-{suite}");
    let apt = Apt::new(cache, &name, mirror, &[suite])?;
    let nothing = [
        "-o",
        "Dir::State::status=/dev/null",
        "-o",
        "Debug::NoLocking=1",
    ];
    let install = [
        "install",
        "-y",
        "--download-only",
        "--no-install-recommends",
    ];
    let mut command = apt.command("apt-get");
    run(command.args(nothing).args(install).arg("xfsprogs"))?;
    let archives = cache.path("apt").join(name).join("cache/archives");
    let entries = fs::read_dir(&archives).trying(|| format!("list {}", archives.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths
        .filter(|path| path.extension().is_some_and(|e| e == "deb"))
        .collect())
}

/// Whether they run: what mkfs.xfs below `root` says its version is.
fn run_one(root: &Path) -> Result<String> {
    let loader = root.join("usr/lib64/ld-linux-x86-64.so.2");
    let program = root.join("usr/sbin/mkfs.xfs");
    if !loader.is_file() || !program.is_file() {
        return Err(Error::Broken {
            path: root.to_owned(),
            problem: "the packages hold no mkfs.xfs or no loader for it".into(),
        });
    }
    let mut command = tool(loader);
    command
        .arg("--library-path")
        .arg(root.join("usr/lib/x86_64-linux-gnu"))
        .arg(program);
    run(command.arg("-V"))
}
