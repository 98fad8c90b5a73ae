//! `composefs-oracle v0|v1|v2 dump FILE` and `... dir DIRECTORY`: the image on standard
//! output.

use anyhow::{Context, Result, bail};
use composefs::dumpfile::dumpfile_to_filesystem;
use composefs::erofs::format::FormatVersion;
use composefs::erofs::writer::{ValidatedFileSystem, mkfs_erofs_versioned};
use composefs::fs::read_filesystem;
use composefs::fsverity::Sha256HashValue;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::io::Write;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [version, kind, path] = words.as_slice() else {
        bail!("three words are wanted");
    };
    let version = match version.as_str() {
        "v0" => FormatVersion::V0,
        "v1" => FormatVersion::V1,
        "v2" => FormatVersion::V2,
        other => bail!("version {other}?"),
    };
    let tree = match kind.as_str() {
        "dump" => dumpfile_to_filesystem::<Sha256HashValue>(&std::fs::read_to_string(path)?)?,
        "dir" => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = openat(CWD, path, flags, Mode::empty()).context("opening it")?;
            let runtime = tokio::runtime::Runtime::new()?;
            runtime.block_on(read_filesystem(dir, ".".into(), None))?
        }
        other => bail!("a source of kind {other}?"),
    };
    let tree = ValidatedFileSystem::new(tree)?;
    std::io::stdout().write_all(&mkfs_erofs_versioned(&tree, version))?;
    Ok(())
}
