//! Those of libnbd's own tests that take a socket, whoever serves it: fetched as what
//! Debian builds libnbd from, and compiled into `target/tools/libnbd-tests`.
//!
//! They are changed in two ways. They connect to the export that `EXPORT` names, since csnapd
//! has none without a name; and they read and write at multiples of 512 bytes instead of at
//! any byte, since csnapd's origins have blocks.

use std::fs;
use std::path::{Path, PathBuf};

use super::apt::Apt;
use super::cache::{Cache, make_dir, remove_dir, rename, target_dir, write};
use super::error::{Error, Result, Trying};
use super::host;
use super::sources::Source;
use super::tool::{run, tool};

/// The tests: programs that take a socket, and the bytes that the export must have.
pub const TESTS: [(&str, u64); 3] = [
    ("synch-parallel", 8 << 20),
    ("aio-parallel", 64 << 20),
    ("aio-parallel-load", 64 << 20),
];

/// Connects to the export that `EXPORT` names.
const CONNECT: &str = "\
#include <libnbd.h>
#include <stdlib.h>
static inline int connect_to_export (struct nbd_handle *nbd, const char *path)
{
  if (nbd_set_export_name (nbd, getenv (\"EXPORT\")) == -1)
    return -1;
  return nbd_connect_unix (nbd, path);
}
#define nbd_connect_unix connect_to_export
";

/// Where they are.
#[must_use]
pub fn place() -> PathBuf {
    target_dir().join("tools/libnbd-tests")
}

/// Makes them, unless they are there.
///
/// # Errors
/// If the source cannot be fetched, is not as expected, or cannot be compiled.
pub fn prepare(cache: &Cache, mirror: &Source) -> Result {
    let place = place();
    if place.is_dir() {
        return Ok(());
    }
    let work = place.with_extension("new");
    remove_dir(&work)?;
    make_dir(&work)?;
    run(tool("tar")
        .arg("-C")
        .arg(&work)
        .arg("--strip-components=2")
        .arg("--wildcards")
        .arg("-xf")
        .arg(fetch(cache, mirror)?)
        .args(["*/tests/*.c", "*/common/include"]))?;
    // What the tests include besides.
    write(&work.join("config.h"), "")?;
    write(&work.join("connect.h"), CONNECT)?;
    for (name, _) in TESTS {
        compile(&work, name)?;
    }
    rename(&work, &place)
}

/// The archive with the source of this machine's libnbd.
fn fetch(cache: &Cache, mirror: &Source) -> Result<PathBuf> {
    let apt = Apt::of_sources(cache, "libnbd", mirror, &[&host::suite()?])?;
    let into = cache.path("apt/libnbd/source");
    remove_dir(&into)?;
    make_dir(&into)?;
    let mut command = apt.command("apt-get");
    run(command
        .args(["source", "--download-only", "libnbd"])
        .current_dir(&into))?;
    let entries = fs::read_dir(&into).trying(|| format!("list {}", into.display()))?;
    let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let archive = paths.find(|path| path.to_string_lossy().ends_with(".orig.tar.gz"));
    archive.ok_or_else(|| Error::Broken {
        path: into,
        problem: "the source of libnbd has no .orig.tar.gz".into(),
    })
}

fn compile(work: &Path, name: &str) -> Result {
    let path = work.join(format!("{name}.c"));
    let source = fs::read_to_string(&path).trying(|| format!("read {}", path.display()))?;
    let aligned = aligned(&source).ok_or_else(|| Error::Broken {
        path: path.clone(),
        problem: "it does not choose its places as expected".into(),
    })?;
    write(&path, aligned)?;
    let mut command = tool("cc");
    command.current_dir(work);
    command.args([
        "-O1",
        "-w",
        "-I.",
        "-Iinclude",
        "-include",
        "connect.h",
        "-o",
    ]);
    command.args([name, &format!("{name}.c"), "-lnbd", "-lpthread"]);
    run(&mut command).map(drop)
}

/// The source with places that are multiples of 512 bytes: where it takes a random number
/// below what stands in parentheses.
fn aligned(source: &str) -> Option<String> {
    let (before, rest) = source.split_once("rand () % (")?;
    let (most, after) = rest.split_once(')')?;
    Some(format!("{before}rand () % ({most}) / 512 * 512{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_become_multiples_of_512() {
        let source = "a; offset = first + (rand () % (length - SIZE)); b = rand () & 1;";
        let expected =
            "a; offset = first + (rand () % (length - SIZE) / 512 * 512); b = rand () & 1;";
        assert_eq!(aligned(source).as_deref(), Some(expected));
        assert_eq!(aligned("b = rand () & 1;"), None);
    }
}
