//! What a mounted tree holds, seen through system calls alone: by this an image is
//! compared with what it was made from. Uses no code of the program under test.
//!
//! Directories are reached through descriptors, so that paths may be of any length.

use super::model::{Tree, What, rounded};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, openat, readlinkat, seek, statat,
};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// All of a tree by path, the root's empty.
pub(crate) type View = BTreeMap<Vec<u8>, Seen>;

/// Everything that can be seen of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Kind and permissions.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u64,
    pub(crate) mtime: (i64, u32),
    pub(crate) ctime: (i64, u32),
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) contents: Contents,
    /// Path of the first of its names.
    pub(crate) first: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Size, where data lies rounded to blocks, and a checksum over that.
    File {
        size: u64,
        data: Vec<Range<u64>>,
        sum: u32,
    },
    Symlink(Vec<u8>),
    Device(u32, u32),
    Nothing,
}

/// Reads the tree at `root`; places of data are rounded to `block` bytes. Names for which
/// `skip` holds are left out.
pub(crate) fn observe(root: &Path, block: u64, skip: &dyn Fn(&[u8]) -> bool) -> View {
    watch(root, block, false, skip)
}

/// The same where a hole may have become zeroes, or zeroes a hole: blocks of zeroes count as
/// holes.
pub(crate) fn observe_bytes(root: &Path, block: u64) -> View {
    watch(root, block, true, &|_| false)
}

fn watch(root: &Path, block: u64, zeroes: bool, skip: &dyn Fn(&[u8]) -> bool) -> View {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = openat(rustix::fs::CWD, root, flags, Mode::empty()).unwrap();
    let mut watcher = Watcher {
        block,
        zeroes,
        skip,
        view: View::new(),
        first: HashMap::new(),
    };
    watcher.object(top.as_fd(), b".", Vec::new());
    watcher.directory(top.as_fd(), Vec::new());
    watcher.view
}

struct Watcher<'a> {
    block: u64,
    /// Whether blocks of zeroes are holes.
    zeroes: bool,
    skip: &'a dyn Fn(&[u8]) -> bool,
    view: View,
    /// First path by inode.
    first: HashMap<u64, Vec<u8>>,
}

impl Watcher<'_> {
    fn directory(&mut self, fd: BorrowedFd<'_>, path: Vec<u8>) {
        let mut names: Vec<Vec<u8>> = Dir::read_from(fd)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_bytes().to_vec())
            .filter(|name| name != b"." && name != b"..")
            .collect();
        names.sort_unstable();
        for name in names {
            let below = if path.is_empty() {
                name.clone()
            } else {
                [&path[..], b"/", &name].concat()
            };
            if (self.skip)(&below) {
                continue;
            }
            if self.object(fd, &name, below.clone()) == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let child = openat(fd, &*name, flags, Mode::empty()).unwrap();
                self.directory(child.as_fd(), below);
            }
        }
    }

    fn object(&mut self, fd: BorrowedFd<'_>, name: &[u8], path: Vec<u8>) -> FileType {
        let stat = statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .unwrap_or_else(|error| panic!("stat of {}: {error}", path.escape_ascii()));
        let kind = FileType::from_raw_mode(stat.st_mode);
        if let Some(first) = self.first.get(&stat.st_ino) {
            // The same object: what was seen of it holds.
            let seen = self.view[first].clone();
            self.view.insert(path, seen);
            return kind;
        }
        let contents = match kind {
            FileType::RegularFile => self.file(fd, name, stat.st_size as u64),
            FileType::Symlink => {
                let target = readlinkat(fd, name, Vec::new()).unwrap().into_bytes();
                assert_eq!(
                    target.len() as i64,
                    stat.st_size,
                    "size of {}",
                    path.escape_ascii()
                );
                Contents::Symlink(target)
            }
            FileType::CharacterDevice | FileType::BlockDevice => Contents::Device(
                rustix::fs::major(stat.st_rdev),
                rustix::fs::minor(stat.st_rdev),
            ),
            _ => Contents::Nothing,
        };
        self.first.insert(stat.st_ino, path.clone());
        let seen = Seen {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            links: stat.st_nlink,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime, stat.st_ctime_nsec as u32),
            xattrs: xattrs(fd, name),
            contents,
            first: path.clone(),
        };
        self.view.insert(path, seen);
        kind
    }

    fn file(&self, fd: BorrowedFd<'_>, name: &[u8], size: u64) -> Contents {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::CLOEXEC;
        let file = File::from(openat(fd, name, flags, Mode::empty()).unwrap());
        let mut ranges = rounded(&data_ranges(&file, size), self.block);
        if self.zeroes {
            ranges = without_zeroes(&file, size, &ranges, self.block);
        }
        let mut sum = 0;
        let mut buffer = vec![0; 256 << 10];
        for range in &ranges {
            let mut at = range.start;
            while at < range.end.min(size) {
                let now = (range.end.min(size) - at).min(buffer.len() as u64) as usize;
                file.read_exact_at(&mut buffer[..now], at).unwrap();
                sum = crc32c::crc32c_append(sum, &buffer[..now]);
                at += now as u64;
            }
        }
        Contents::File {
            size,
            data: ranges,
            sum,
        }
    }
}

/// The blocks of `ranges` that are not all zeroes.
fn without_zeroes(file: &File, size: u64, ranges: &[Range<u64>], block: u64) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    let mut buffer = vec![0; (256 << 10) / block as usize * block as usize];
    for range in ranges {
        let mut at = range.start;
        while at < range.end.min(size) {
            let now = (range.end.min(size) - at).min(buffer.len() as u64) as usize;
            file.read_exact_at(&mut buffer[..now], at).unwrap();
            for (number, bytes) in buffer[..now].chunks(block as usize).enumerate() {
                if bytes.iter().any(|byte| *byte != 0) {
                    let begin = at + number as u64 * block;
                    left.push(begin..begin + block);
                }
            }
            at += now as u64;
        }
    }
    rounded(&left, block)
}

fn data_ranges(file: &File, size: u64) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let Ok(begin) = seek(file, SeekFrom::Data(at)) else {
            break;
        };
        let end = seek(file, SeekFrom::Hole(begin)).unwrap();
        ranges.push(begin..end);
        at = end;
    }
    ranges
}

/// Attributes by the name in `/proc`, because symbolic links and devices are not opened.
/// XFS shows ACLs once more as it keeps them; these are left out.
fn xattrs(fd: BorrowedFd<'_>, name: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut path = format!("/proc/self/fd/{}/", fd.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let path = std::ffi::OsString::from_vec(path);
    let names = xattr::list(&path)
        .unwrap()
        .filter(|name| !name.as_bytes().starts_with(b"trusted.SGI_ACL_"));
    names
        .map(|name| {
            (
                name.clone().into_vec(),
                xattr::get(&path, &name).unwrap().unwrap(),
            )
        })
        .collect()
}

/// What a mounted image of `tree` must look like, with `root_xattrs` at its root.
pub(crate) fn expected(tree: &Tree, block: u64, root_xattrs: &[(Vec<u8>, Vec<u8>)]) -> View {
    let paths = tree.paths();
    let mut names: HashMap<usize, (u64, Vec<u8>)> = HashMap::new();
    for (path, id) in &paths {
        names.entry(*id).or_insert_with(|| (0, path.clone())).0 += 1;
    }
    let mut sums = HashMap::new();
    let seen = |id: usize, sums: &mut HashMap<usize, u32>| {
        let object = &tree.objects[id];
        let (links, first) = names[&id].clone();
        let (kind, contents, links) = match &object.what {
            What::Directory(entries) => {
                let below = entries
                    .values()
                    .filter(|id| matches!(tree.objects[**id].what, What::Directory(_)));
                (
                    FileType::Directory,
                    Contents::Nothing,
                    2 + below.count() as u64,
                )
            }
            What::File(data) => {
                let ranges = rounded(&data.ranges, block);
                let sum = *sums.entry(id).or_insert_with(|| sum_of(tree, id, &ranges));
                (
                    FileType::RegularFile,
                    Contents::File {
                        size: data.size,
                        data: ranges,
                        sum,
                    },
                    links,
                )
            }
            What::Symlink(target) => (FileType::Symlink, Contents::Symlink(target.clone()), links),
            What::Char(major, minor) => (
                FileType::CharacterDevice,
                Contents::Device(*major, *minor),
                links,
            ),
            What::Block(major, minor) => (
                FileType::BlockDevice,
                Contents::Device(*major, *minor),
                links,
            ),
            What::Fifo => (FileType::Fifo, Contents::Nothing, links),
            What::Socket => (FileType::Socket, Contents::Nothing, links),
        };
        let mut xattrs = object.xattrs.clone();
        if id == 0 {
            xattrs.extend(root_xattrs.iter().cloned());
        }
        let meta = &object.meta;
        Seen {
            mode: kind.as_raw_mode() | u32::from(meta.mode),
            uid: meta.uid,
            gid: meta.gid,
            links,
            mtime: (meta.mtime.seconds, meta.mtime.nanoseconds),
            ctime: (meta.ctime.seconds, meta.ctime.nanoseconds),
            xattrs,
            contents,
            first,
        }
    };
    paths
        .into_iter()
        .map(|(path, id)| (path, seen(id, &mut sums)))
        .collect()
}

fn sum_of(tree: &Tree, id: usize, ranges: &[Range<u64>]) -> u32 {
    let What::File(data) = &tree.objects[id].what else {
        return 0;
    };
    let mut sum = 0;
    let mut buffer = Vec::new();
    let mut sources = data.ranges.iter().peekable();
    for range in ranges {
        let mut at = range.start;
        let end = range.end.min(data.size);
        let mut zero = |from: u64, to: u64, sum: &mut u32| {
            buffer.clear();
            buffer.resize((to - from) as usize, 0);
            *sum = crc32c::crc32c_append(*sum, &buffer);
        };
        while let Some(source) = sources.next_if(|source| source.start < end) {
            zero(at, source.start, &mut sum);
            let mut bytes = Vec::new();
            data.bytes(source.clone(), &mut bytes);
            sum = crc32c::crc32c_append(sum, &bytes);
            at = source.end;
        }
        zero(at, end, &mut sum);
    }
    sum
}

/// Fails with the first few differences, each with its path.
pub(crate) fn assert_same(meant: &View, seen: &View) {
    let mut differences = Vec::new();
    for (path, meant) in meant {
        match seen.get(path) {
            None => differences.push(format!("{}: missing", path.escape_ascii())),
            Some(seen) if seen != meant => {
                differences.push(format!(
                    "{}: {}",
                    path.escape_ascii(),
                    difference(meant, seen)
                ));
            }
            Some(_) => {}
        }
    }
    let more = seen.keys().filter(|path| !meant.contains_key(*path));
    differences.extend(more.map(|path| format!("{}: not meant to be there", path.escape_ascii())));
    let first: Vec<&str> = differences.iter().take(5).map(String::as_str).collect();
    assert!(
        first.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        meant.len(),
        first.join("\n")
    );
}

/// What differs between two that do.
fn difference(meant: &Seen, seen: &Seen) -> String {
    for name in meant.xattrs.keys().chain(seen.xattrs.keys()) {
        let value = |seen: &Seen| {
            seen.xattrs
                .get(name)
                .map(|value| value.escape_ascii().to_string())
        };
        let (meant, seen) = (value(meant), value(seen));
        if meant != seen {
            return short(&format!(
                "{}: meant {meant:?}, seen {seen:?}",
                name.escape_ascii()
            ));
        }
    }
    let rest = |seen: &Seen| {
        short(&format!(
            "{:?}",
            Seen {
                xattrs: BTreeMap::new(),
                ..seen.clone()
            }
        ))
    };
    format!("\n  meant {}\n  seen  {}", rest(meant), rest(seen))
}

fn short(text: &str) -> String {
    text.chars().take(1000).collect()
}
