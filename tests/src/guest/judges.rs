//! Programs of other suites of Debian that judge images: unpacked below
//! `target/tools/PACKAGE-NAME/root` with every library they need, down to libc and its
//! loader, so they run on any machine. Nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};

use super::apt::Apt;
use super::cache::{Cache, make_dir, remove_dir, rename, target_dir, write};
use super::error::{Error, Result, Trying};
use super::sources::Source;
use super::tool::{run, tool};

/// A name in `target/tools`, and the suite it stands for.
type Suite = (&'static str, &'static str);

const STABLE: Suite = ("stable", "trixie");
const NEWEST: Suite = ("newest", "sid");

/// A package whose programs judge.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    /// What Debian calls it.
    pub name: &'static str,
    /// Which suites have it: names in `target/tools`, and suites.
    pub suites: &'static [Suite],
    /// One of its programs, below the root.
    program: &'static str,
}

/// All of them.
pub const PACKAGES: [Package; 3] = [
    Package {
        name: "xfsprogs",
        suites: &[STABLE, NEWEST],
        program: "usr/sbin/mkfs.xfs",
    },
    Package {
        name: "erofs-utils",
        suites: &[STABLE, NEWEST],
        program: "usr/bin/mkfs.erofs",
    },
    Package {
        name: "composefs",
        suites: &[NEWEST],
        program: "usr/bin/mkcomposefs",
    },
];

/// Where a package of a suite's name is.
fn place(package: &Package, name: &str) -> PathBuf {
    target_dir().join(format!("tools/{}-{name}", package.name))
}

/// Which version is there; none if none is.
#[must_use]
pub fn version(package: &Package, name: &str) -> Option<String> {
    let text = fs::read_to_string(place(package, name).join("version")).ok()?;
    Some(text.trim().to_owned())
}

/// Fetches a package of a suite, unless it is there, and returns its version.
///
/// # Errors
/// If it cannot be fetched, unpacked or run.
pub fn prepare(
    cache: &Cache,
    mirror: &Source,
    package: &Package,
    name: &str,
    suite: &str,
) -> Result<String> {
    if let Some(version) = version(package, name) {
        return Ok(version);
    }
    let place = place(package, name);
    let work = place.with_extension("new");
    remove_dir(&work)?;
    make_dir(&work)?;
    let archives = fetch(cache, mirror, package, suite)?;
    for archive in &archives {
        run(tool("dpkg-deb")
            .arg("-x")
            .arg(archive)
            .arg(work.join("root")))?;
    }
    prove(&work.join("root"), package)?;
    let version = archives.iter().find_map(|path| version_of(path, package));
    let version = version.unwrap_or("unknown");
    write(&work.join("version"), version)?;
    remove_dir(&place)?;
    rename(&work, &place)?;
    Ok(version.to_owned())
}

/// The version in the name of an archive, if it is the package's.
fn version_of<'a>(archive: &'a Path, package: &Package) -> Option<&'a str> {
    let name = archive.file_name()?.to_str()?;
    let rest = name.strip_prefix(package.name)?.strip_prefix('_')?;
    rest.split('_').next()
}

/// The archives of a package and of all it depends on, as if nothing were installed.
fn fetch(cache: &Cache, mirror: &Source, package: &Package, suite: &str) -> Result<Vec<PathBuf>> {
    let name = format!("{}-{suite}", package.name);
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
    run(command.args(nothing).args(install).arg(package.name))?;
    let archives = cache.path("apt").join(name).join("cache/archives");
    let entries = fs::read_dir(&archives).trying(|| format!("list {}", archives.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths
        .filter(|path| path.extension().is_some_and(|e| e == "deb"))
        .collect())
}

/// Whether a program of it would run: the loader below `root` finds all its libraries there.
fn prove(root: &Path, package: &Package) -> Result<()> {
    let loader = root.join("usr/lib64/ld-linux-x86-64.so.2");
    let program = root.join(package.program);
    if !loader.is_file() || !program.is_file() {
        return Err(Error::Broken {
            path: root.to_owned(),
            problem: format!("the packages hold no {} or no loader", package.program),
        });
    }
    let mut command = tool(loader);
    command
        .arg("--library-path")
        .arg(root.join("usr/lib/x86_64-linux-gnu"))
        .arg("--list")
        .arg(program);
    run(&mut command).map(drop)
}
