//! Where the harness keeps what it fetched and built.
//!
//! Below `target/guest`, or where `CSNAP_GUEST_DIR` says (several work trees may
//! share one). Everything is made beside its place and renamed into it, under one
//! lock, so that a file which is there is whole.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::error::{Result, Trying};

/// The directory.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The place by default.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open() -> Result<Self> {
        let root = std::env::var_os("CSNAP_GUEST_DIR")
            .map_or_else(|| target_dir().join("guest"), PathBuf::from);
        make_dir(&root)?;
        let root = fs::canonicalize(&root).trying(|| format!("find {}", root.display()))?;
        Ok(Self { root })
    }

    /// A place in it.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// Keeps other processes from building while the result lives.
    ///
    /// # Errors
    /// If the lock cannot be had at all.
    pub fn lock(&self) -> Result<File> {
        let path = self.path("lock");
        let story = || format!("lock {}", path.display());
        let file = File::create(&path).trying(story)?;
        file.lock().trying(story)?;
        Ok(file)
    }

    /// A new directory below `runs`, numbered; old ones beyond twenty are removed.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new_run(&self) -> Result<PathBuf> {
        let runs = target_dir().join("guest/runs");
        make_dir(&runs)?;
        let entries = fs::read_dir(&runs).trying(|| format!("list {}", runs.display()))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut numbers: Vec<u64> = names.filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        let mut number = numbers.last().map_or(1, |last| last + 1);
        let old = numbers.len().saturating_sub(KEPT_RUNS);
        for old in &numbers[..old] {
            // Somebody may look at it just now; the next run tries again.
            let _ = fs::remove_dir_all(runs.join(old.to_string()));
        }
        loop {
            let dir = runs.join(number.to_string());
            match fs::create_dir(&dir) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                made => {
                    made.trying(|| format!("make {}", dir.display()))?;
                    return fs::canonicalize(&dir).trying(|| format!("find {}", dir.display()));
                }
            }
        }
    }
}

const KEPT_RUNS: usize = 20;

/// Cargo's target directory of this workspace.
#[must_use]
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    )
}

/// Makes a directory and those above it.
pub(super) fn make_dir(path: &Path) -> Result {
    fs::create_dir_all(path).trying(|| format!("make {}", path.display()))
}

/// Removes a directory if it is there.
pub(super) fn remove_dir(path: &Path) -> Result {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.trying(|| format!("remove {}", path.display())),
    }
}

/// Writes a file.
pub(super) fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result {
    fs::write(path, contents).trying(|| format!("write {}", path.display()))
}

/// Renames a file or directory into its place.
pub(super) fn rename(from: &Path, to: &Path) -> Result {
    fs::rename(from, to).trying(|| format!("move {} to {}", from.display(), to.display()))
}
