//! A heavy mixed load on a mounted image: several threads that make, change and remove
//! whatever a file system has, in directories and files of the image as in their own.
//!
//! Errors belong to it (a name is gone, another is there, no space is left); only those
//! by which a file system says that it is damaged end the test.

use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags, XattrFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a thread may touch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Victims {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) directories: Vec<PathBuf>,
}

/// Draws numbers; the same ones for the same seed.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit.max(1)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len() as u64) as usize)
    }
}

/// Loads the file system at `root` for a while, with threads that share `victims`; how
/// often each kind of operation succeeded.
pub(crate) fn run(root: &Path, victims: &Victims, seed: u64, lasting: Duration) -> Vec<u64> {
    let until = Instant::now() + lasting;
    let threads = 4;
    std::thread::scope(|scope| {
        let works: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn(move || {
                    let own = root.join(format!("load-{number}"));
                    fs::create_dir(&own).unwrap();
                    let mut worker = Worker {
                        draw: Draw(seed * 1000 + number),
                        directories: victims
                            .directories
                            .iter()
                            .cloned()
                            .chain([own, root.to_owned()])
                            .collect(),
                        files: victims.files.clone(),
                        attributes: Vec::new(),
                        done: vec![0; OPERATIONS.len()],
                        number,
                        made: 0,
                    };
                    worker.work(until);
                    worker.done
                })
            })
            .collect();
        let mut done = vec![0; OPERATIONS.len()];
        for work in works {
            let counts = work
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            done.iter_mut()
                .zip(counts)
                .for_each(|(sum, count)| *sum += count);
        }
        done
    })
}

pub(crate) struct Worker {
    draw: Draw,
    directories: Vec<PathBuf>,
    files: Vec<PathBuf>,
    /// Those it set, if nobody took them or their file away.
    attributes: Vec<(PathBuf, String)>,
    done: Vec<u64>,
    number: u64,
    made: u64,
}

pub(crate) type Operation = fn(&mut Worker) -> io::Result<()>;

/// Each is as likely as any other.
pub(crate) const OPERATIONS: &[(&str, Operation)] = &[
    ("create", Worker::create),
    ("create", Worker::create),
    ("write", Worker::write),
    ("write", Worker::write),
    ("truncate", Worker::truncate),
    ("allocate", |worker| {
        worker.allocate(FallocateFlags::empty())
    }),
    ("punch", |worker| {
        worker.allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE)
    }),
    ("zero", |worker| worker.allocate(FallocateFlags::ZERO_RANGE)),
    ("collapse", |worker| {
        worker.allocate(FallocateFlags::COLLAPSE_RANGE)
    }),
    ("insert", |worker| {
        worker.allocate(FallocateFlags::INSERT_RANGE)
    }),
    ("fragment", Worker::fragment),
    ("clone", Worker::clone_file),
    ("copy", Worker::copy_range),
    ("rename", Worker::rename),
    ("exchange", Worker::exchange),
    ("link", Worker::link),
    ("unlink", Worker::unlink),
    ("mkdir", Worker::mkdir),
    ("rmdir", Worker::rmdir),
    ("symlink", Worker::symlink),
    ("mknod", Worker::mknod),
    ("set attribute", Worker::set_attribute),
    ("set attribute", Worker::set_attribute),
    ("remove attribute", Worker::remove_attribute),
    ("fsync", Worker::fsync),
    ("chown", Worker::chown),
    ("read", Worker::read),
];

impl Worker {
    fn work(&mut self, until: Instant) {
        while Instant::now() < until {
            let which = self.draw.below(OPERATIONS.len() as u64) as usize;
            let (name, operation) = OPERATIONS[which];
            match operation(self) {
                Ok(()) => self.done[which] += 1,
                Err(error) => {
                    let bad = [Errno::IO, Errno::UCLEAN, Errno::BADMSG, Errno::SHUTDOWN];
                    let damaged = bad
                        .iter()
                        .any(|bad| error.raw_os_error() == Some(bad.raw_os_error()));
                    assert!(!damaged, "{name}: {error}");
                }
            }
        }
    }

    fn new_path(&mut self) -> PathBuf {
        self.made += 1;
        let length = 1 + self.draw.below(60) as usize;
        let name = format!("new-{}-{:0>length$}", self.number, self.made);
        self.draw.pick(&self.directories).unwrap().join(name)
    }

    fn file(&mut self) -> io::Result<PathBuf> {
        self.draw
            .pick(&self.files)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open(&mut self) -> io::Result<File> {
        let path = self.file()?;
        if !fs::symlink_metadata(&path)?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        File::options().read(true).write(true).open(path)
    }

    /// Offsets up to 4 MiB, mostly multiples of a block.
    fn offset(&mut self) -> u64 {
        let at = self.draw.below(4 << 20);
        if self.draw.below(4) == 0 {
            at
        } else {
            at & !4095
        }
    }

    fn create(&mut self) -> io::Result<()> {
        let path = self.new_path();
        let file = File::create_new(&path)?;
        self.files.push(path);
        let length = self.draw.below(20_000) as usize;
        file.write_all_at(&vec![7; length], 0)
    }

    fn write(&mut self) -> io::Result<()> {
        let (at, length) = (self.offset(), 1 + self.draw.below(100_000) as usize);
        self.open()?.write_all_at(&vec![9; length], at)
    }

    fn truncate(&mut self) -> io::Result<()> {
        let size = self.offset();
        self.open()?.set_len(size)
    }

    fn allocate(&mut self, how: FallocateFlags) -> io::Result<()> {
        let (at, length) = (self.offset(), (1 + self.draw.below(60)) * 4096);
        Ok(rustix::fs::fallocate(self.open()?, how, at, length)?)
    }

    /// Holes between all blocks of a part: many extents.
    fn fragment(&mut self) -> io::Result<()> {
        let (file, at) = (self.open()?, self.offset() & !4095);
        file.write_all_at(&vec![3; 200 << 10], at)?;
        for block in 0..25 {
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&file, how, at + block * 8192, 4096)?;
        }
        Ok(())
    }

    fn clone_file(&mut self) -> io::Result<()> {
        let from = self.open()?;
        let path = self.new_path();
        let to = File::create_new(&path)?;
        self.files.push(path);
        Ok(rustix::fs::ioctl_ficlone(to, from)?)
    }

    fn copy_range(&mut self) -> io::Result<()> {
        let (from, to) = (self.open()?, self.open()?);
        let (mut at, mut there) = (self.offset(), self.offset());
        rustix::fs::copy_file_range(&from, Some(&mut at), &to, Some(&mut there), 300 << 10)?;
        Ok(())
    }

    fn rename(&mut self) -> io::Result<()> {
        let (from, to) = (self.file()?, self.new_path());
        fs::rename(&from, &to)?;
        self.files.push(to);
        Ok(())
    }

    fn exchange(&mut self) -> io::Result<()> {
        let (from, to) = (self.file()?, self.file()?);
        Ok(rustix::fs::renameat_with(
            CWD,
            &from,
            CWD,
            &to,
            RenameFlags::EXCHANGE,
        )?)
    }

    fn link(&mut self) -> io::Result<()> {
        let (from, to) = (self.file()?, self.new_path());
        fs::hard_link(&from, &to)?;
        self.files.push(to);
        Ok(())
    }

    fn unlink(&mut self) -> io::Result<()> {
        let at = self.draw.below(self.files.len() as u64) as usize;
        if at >= self.files.len() {
            return Err(io::ErrorKind::NotFound.into());
        }
        fs::remove_file(self.files.swap_remove(at))
    }

    fn mkdir(&mut self) -> io::Result<()> {
        let path = self.new_path();
        fs::create_dir(&path)?;
        self.directories.push(path);
        Ok(())
    }

    /// Of those made here only: others' contents are looked at afterwards.
    fn rmdir(&mut self) -> io::Result<()> {
        let path = self.new_path();
        fs::create_dir(&path)?;
        File::create_new(path.join("inside"))?;
        fs::remove_dir_all(path)
    }

    fn symlink(&mut self) -> io::Result<()> {
        let (path, length) = (self.new_path(), 1 + self.draw.below(1000) as usize);
        std::os::unix::fs::symlink("t".repeat(length), &path)?;
        self.files.push(path);
        Ok(())
    }

    fn mknod(&mut self) -> io::Result<()> {
        let path = self.new_path();
        rustix::fs::mknodat(
            CWD,
            &path,
            FileType::CharacterDevice,
            Mode::RWXU,
            rustix::fs::makedev(5, 7),
        )?;
        self.files.push(path);
        Ok(())
    }

    fn set_attribute(&mut self) -> io::Result<()> {
        let path = self.file()?;
        let longest = [30, 300, 3000, 60_000][self.draw.below(4) as usize];
        let name = format!("trusted.load-{}", self.draw.below(30));
        let value = vec![b'v'; self.draw.below(longest) as usize];
        rustix::fs::lsetxattr(&path, &name, &value, XattrFlags::empty())?;
        self.attributes.push((path, name));
        Ok(())
    }

    /// One of those set here: of thousands of files few have one of that name.
    fn remove_attribute(&mut self) -> io::Result<()> {
        let at = self.draw.below(self.attributes.len() as u64) as usize;
        if at >= self.attributes.len() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (path, name) = self.attributes.swap_remove(at);
        Ok(rustix::fs::lremovexattr(path, name)?)
    }

    fn fsync(&mut self) -> io::Result<()> {
        match self.draw.below(4) {
            0 => self.open()?.sync_all(),
            _ => Ok(()),
        }
    }

    fn chown(&mut self) -> io::Result<()> {
        let (path, owner) = (self.file()?, self.draw.below(1 << 30) as u32);
        let owner = rustix::fs::Uid::from_raw(owner);
        Ok(rustix::fs::chownat(
            CWD,
            path,
            Some(owner),
            None,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    fn read(&mut self) -> io::Result<()> {
        let at = self.offset();
        self.open()?.read_at(&mut vec![0; 50_000], at)?;
        let directory = self.draw.pick(&self.directories).unwrap();
        fs::read_dir(directory)?
            .take(1000)
            .try_for_each(|entry| entry.map(drop))
    }
}
