//! A busy tree of files: many small ones made, rewritten, renamed, removed, synced
//! by several threads, and a manifest of what it holds at one moment.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::e2e::fault::Trying;
use crate::e2e::{Fault, Outcome};
use crate::ensure;

const THREADS: u64 = 3;
const FILES: u32 = 200;

/// Files by path below the mount, with length and CRC32C.
pub type Manifest = BTreeMap<PathBuf, (u64, u32)>;

/// Everything below `dir`.
///
/// # Errors
/// If a file cannot be read.
pub fn manifest(dir: &Path) -> Outcome<Manifest> {
    let mut found = Manifest::new();
    walk(dir, dir, &mut found)?;
    Ok(found)
}

fn walk(top: &Path, dir: &Path, found: &mut Manifest) -> Outcome {
    let story = || format!("list {}", dir.display());
    for entry in fs::read_dir(dir).trying(story)? {
        let path = entry.trying(story)?.path();
        if path.is_dir() {
            walk(top, &path, found)?;
        } else {
            let place = path.strip_prefix(top).unwrap_or(&path);
            found.insert(place.to_path_buf(), summary(&path)?);
        }
    }
    Ok(())
}

fn summary(path: &Path) -> Outcome<(u64, u32)> {
    let bytes = fs::read(path).trying(|| format!("read {}", path.display()))?;
    Ok((bytes.len() as u64, crc32c::crc32c(&bytes)))
}

/// Demands that both are the same.
///
/// # Errors
/// Names some of the files that differ.
pub fn same(expected: &Manifest, seen: &Manifest, what: &str) -> Outcome {
    if expected == seen {
        return Ok(());
    }
    let missing = expected
        .iter()
        .filter(|(path, sum)| seen.get(*path) != Some(sum));
    let extra = seen.keys().filter(|path| !expected.contains_key(*path));
    let missing: Vec<_> = missing.map(|(path, _)| path).take(5).collect();
    let extra: Vec<_> = extra.take(5).collect();
    Err(Fault::wrong(format!(
        "{what}: {} files expected, {} seen; wrong or missing {missing:?}, too many {extra:?}",
        expected.len(),
        seen.len()
    )))
}

/// Demands that `seen` has at least these files, as they are here.
///
/// # Errors
/// Names the first that is missing or wrong.
pub fn includes(seen: &Manifest, promised: &Manifest, what: &str) -> Outcome {
    for (path, sum) in promised {
        ensure!(
            seen.get(path) == Some(sum),
            "{what}: {} was synced before the take as {sum:?} and is {:?}",
            path.display(),
            seen.get(path)
        );
    }
    Ok(())
}

/// Threads at work in a directory.
#[derive(Debug)]
pub struct Busy {
    stop: Arc<AtomicBool>,
    kept: Arc<Mutex<Manifest>>,
    threads: Vec<JoinHandle<Outcome<u64>>>,
}

impl Busy {
    /// Starts them below `dir`, the top of a mounted file system.
    ///
    /// # Errors
    /// If their directories cannot be made.
    pub fn start(dir: &Path, seed: u64) -> Outcome<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let kept = Arc::new(Mutex::new(Manifest::new()));
        let mut threads = Vec::new();
        for number in 0..THREADS {
            let own = dir.join(format!("worker{number}"));
            fs::create_dir_all(own.join("kept")).trying(|| format!("make {}", own.display()))?;
            let mut worker = Worker {
                top: dir.to_path_buf(),
                dir: own,
                random: ChaCha8Rng::seed_from_u64(seed ^ number),
                kept: Arc::clone(&kept),
                steps: 0,
            };
            let stop = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    worker.step()?;
                }
                Ok(worker.steps)
            }));
        }
        Ok(Self {
            stop,
            kept,
            threads,
        })
    }

    /// The files that were synced before now and are never touched again.
    #[must_use]
    pub fn promised(&self) -> Manifest {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clone()
    }

    /// Stops; how many steps were made.
    ///
    /// # Errors
    /// If the file system refused one.
    pub fn finish(mut self) -> Outcome<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut steps = 0;
        for thread in std::mem::take(&mut self.threads) {
            let ended = thread
                .join()
                .map_err(|_| Fault::wrong("a worker panicked"))?;
            steps += ended?;
        }
        Ok(steps)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // A failed test: they end with their next step.
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Worker {
    top: PathBuf,
    dir: PathBuf,
    random: ChaCha8Rng,
    kept: Arc<Mutex<Manifest>>,
    steps: u64,
}

impl Worker {
    fn step(&mut self) -> Outcome {
        self.steps += 1;
        match self.random.random_range(0..16) {
            0..8 => self.write(),
            8..12 => self.rename(),
            12..14 => self.remove(),
            _ => self.keep(),
        }
    }

    fn any(&mut self) -> PathBuf {
        let number = self.random.random_range(0..FILES);
        self.dir.join(format!("d{}/f{number}", number % 7))
    }

    fn noise(&mut self) -> Vec<u8> {
        let length = self.random.random_range(1..24_000);
        let mut bytes = vec![0; length];
        self.random.fill_bytes(&mut bytes);
        bytes
    }

    fn write(&mut self) -> Outcome {
        let (path, bytes) = (self.any(), self.noise());
        let story = || format!("write {}", path.display());
        fs::create_dir_all(path.parent().unwrap_or(&self.dir)).trying(story)?;
        fs::write(&path, bytes).trying(story)
    }

    fn rename(&mut self) -> Outcome {
        let (from, to) = (self.any(), self.any());
        if from.exists() && to.parent().is_some_and(Path::is_dir) {
            let story = || format!("rename {}", from.display());
            fs::rename(&from, &to).trying(story)?;
        }
        Ok(())
    }

    fn remove(&mut self) -> Outcome {
        let path = self.any();
        if path.exists() {
            fs::remove_file(&path).trying(|| format!("remove {}", path.display()))?;
        }
        Ok(())
    }

    /// A file written, synced with its directory, and never touched again: from now
    /// on every snapshot must have it.
    fn keep(&mut self) -> Outcome {
        let path = self.dir.join(format!("kept/k{}", self.steps));
        let (bytes, story) = (self.noise(), || format!("keep {}", path.display()));
        let mut file = fs::File::create(&path).trying(story)?;
        file.write_all(&bytes).trying(story)?;
        file.sync_all().trying(story)?;
        let dir = fs::File::open(path.parent().unwrap_or(&self.dir)).trying(story)?;
        dir.sync_all().trying(story)?;
        let place = path.strip_prefix(&self.top).unwrap_or(&path).to_path_buf();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(place, (bytes.len() as u64, crc32c::crc32c(&bytes)));
        Ok(())
    }
}
