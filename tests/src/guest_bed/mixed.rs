//! A heavy mixed load on a mounted file system, on the objects it holds already: files
//! are made, removed, renamed, exchanged, linked, cut, punched and shared, attributes
//! set and removed, by several threads. Beside it runs stress-ng.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::fs::{CWD, FallocateFlags, RenameFlags};
use rustix::io::Errno;

use crate::e2e::fault::Trying;
use crate::e2e::{Fault, Outcome, tools};
use crate::ensure;

const THREADS: u64 = 3;
/// What stress-ng does beside, one process each.
const STRESS: &str = "--dir 1 --rename 1 --xattr 1 --fpunch 1 --link 1 --quiet";

/// Loads what is mounted at `root` for this long; returns how many steps our own threads
/// made.
///
/// # Errors
/// If the file system refuses a step for any reason but that names came and went.
pub fn load(root: &Path, seed: u64, time: Duration) -> Outcome<u64> {
    let stress = stress_ng(root, time)?;
    let mut dirs = Vec::new();
    let mut files = Vec::new();
    walk(root, &mut dirs, &mut files)?;
    let end = Instant::now() + time;
    let steps = std::thread::scope(|scope| {
        let worker = |number| {
            let mut worker = Worker {
                random: ChaCha8Rng::seed_from_u64(seed ^ number),
                dirs: &dirs,
                files: files.clone(),
                made: 0,
                own: seed ^ number,
            };
            scope.spawn(move || worker.work(end))
        };
        let threads: Vec<_> = (0..THREADS).map(worker).collect();
        let ended = threads.into_iter().map(|thread| {
            let panicked = |_| Fault::wrong("a thread of the load panicked");
            thread.join().map_err(panicked)?
        });
        ended.sum::<Outcome<u64>>()
    });
    let stressed = stress
        .wait_with_output()
        .trying(|| "end stress-ng".into())?;
    ensure!(
        stressed.status.success(),
        "stress-ng ended with {}: {}",
        stressed.status,
        String::from_utf8_lossy(&stressed.stderr)
    );
    steps
}

fn stress_ng(root: &Path, time: Duration) -> Outcome<Child> {
    let mut stress = tools::program("stress-ng");
    stress.args(STRESS.split(' '));
    stress.args(["--dir-dirs", "512"]);
    stress.args(["--timeout", &format!("{}s", time.as_secs().max(1))]);
    stress.arg("--temp-path").arg(root);
    stress.stdout(Stdio::null()).stderr(Stdio::piped());
    stress.spawn().trying(|| "start stress-ng".into())
}

fn walk(dir: &Path, dirs: &mut Vec<PathBuf>, files: &mut Vec<PathBuf>) -> Outcome {
    let story = || format!("list {dir:?}");
    dirs.push(dir.to_path_buf());
    for entry in fs::read_dir(dir).trying(story)? {
        let entry = entry.trying(story)?;
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                let own = entry
                    .file_name()
                    .as_encoded_bytes()
                    .starts_with(b"tmp-stress");
                if !own {
                    walk(&entry.path(), dirs, files)?;
                }
            }
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    Ok(())
}

struct Worker<'a> {
    random: ChaCha8Rng,
    dirs: &'a [PathBuf],
    files: Vec<PathBuf>,
    made: u64,
    /// What its names begin with, apart from those of other threads and loads.
    own: u64,
}

impl Worker<'_> {
    fn work(&mut self, end: Instant) -> Outcome<u64> {
        let mut steps = 0;
        while Instant::now() < end {
            let what = self.random.random_range(0..16);
            match self.step(what) {
                Ok(()) => steps += 1,
                Err(error) if passing(&error) => {}
                Err(error) => return Err(error).trying(|| format!("step {what} of the load")),
            }
        }
        Ok(steps)
    }

    fn any(&mut self) -> PathBuf {
        let number = self.random.random_range(0..self.files.len());
        self.files[number].clone()
    }

    /// A new name in any directory.
    fn fresh(&mut self) -> PathBuf {
        self.made += 1;
        let dir = self.random.random_range(0..self.dirs.len());
        self.dirs[dir].join(format!("made-{:x}-{}", self.own, self.made))
    }

    fn opened(&mut self) -> io::Result<File> {
        File::options().read(true).write(true).open(self.any())
    }

    fn noise(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.random.random_range(1..most)];
        self.random.fill_bytes(&mut bytes);
        bytes
    }

    /// A place in the first part of a file.
    fn place(&mut self) -> u64 {
        self.random.random_range(0..256 << 10)
    }

    fn step(&mut self, what: u32) -> io::Result<()> {
        match what {
            0 | 1 => self.make(),
            2 | 3 => fs::remove_file(self.any()),
            4 | 5 => self.rename(),
            6 => {
                let (one, other) = (self.any(), self.any());
                let exchange = RenameFlags::EXCHANGE;
                Ok(rustix::fs::renameat_with(CWD, one, CWD, other, exchange)?)
            }
            7 => {
                let (from, to) = (self.any(), self.fresh());
                fs::hard_link(from, &to)?;
                self.files.push(to);
                Ok(())
            }
            8 => std::os::unix::fs::symlink(self.any(), self.fresh()),
            9 => self.set_attribute(),
            10 => self.remove_attributes(),
            11 => {
                let size = self.place();
                self.opened()?.set_len(size)
            }
            12 => {
                let (at, length) = (self.place() & !4095, self.place() + 1);
                let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                Ok(rustix::fs::fallocate(self.opened()?, how, at, length)?)
            }
            13 => {
                let to = self.fresh();
                rustix::fs::ioctl_ficlone(File::create(&to)?, self.opened()?)?;
                self.files.push(to);
                Ok(())
            }
            14 => {
                let (bytes, at) = (self.noise(16 << 10), self.place());
                let file = self.opened()?;
                file.write_all_at(&bytes, at)?;
                if at % 16 == 0 {
                    file.sync_all()
                } else {
                    Ok(())
                }
            }
            _ => self.directories(),
        }
    }

    fn make(&mut self) -> io::Result<()> {
        let (path, bytes) = (self.fresh(), self.noise(20_000));
        fs::write(&path, bytes)?;
        self.files.push(path);
        Ok(())
    }

    fn rename(&mut self) -> io::Result<()> {
        let (from, to) = (self.any(), self.fresh());
        fs::rename(from, &to)?;
        self.files.push(to);
        Ok(())
    }

    fn set_attribute(&mut self) -> io::Result<()> {
        let most = [50, 300, 3000, 30_000][self.random.random_range(0..4)];
        let name = format!("user.by-load-{}", self.random.random_range(0..40));
        let value = self.noise(most);
        xattr::set(self.any(), name, &value)
    }

    fn remove_attributes(&mut self) -> io::Result<()> {
        let path = self.any();
        for name in xattr::list(&path)? {
            if name.as_encoded_bytes().starts_with(b"user.") {
                xattr::remove(&path, name)?;
            }
        }
        Ok(())
    }

    /// Directories that come, move and go.
    fn directories(&mut self) -> io::Result<()> {
        let (one, other) = (self.fresh(), self.fresh());
        fs::create_dir(&one)?;
        fs::write(one.join("inside"), b"x")?;
        fs::rename(&one, &other)?;
        fs::remove_file(other.join("inside"))?;
        fs::remove_dir(&other)
    }
}

/// Whether this comes of names or attributes that another thread took away or made.
fn passing(error: &io::Error) -> bool {
    let harmless = [Errno::NOENT, Errno::EXIST, Errno::NODATA];
    harmless
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
