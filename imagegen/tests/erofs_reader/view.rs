//! What a tree holds, seen through the reader and seen on disk: to be compared.

use imagegen::erofs::read::{Image, Inode, Step};
use imagegen::medium::Source;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// All of a tree by path, the root's empty.
pub(crate) type View = BTreeMap<Vec<u8>, Seen>;

/// What is seen of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// Not those of directories: not every file system counts these.
    pub(crate) links: u64,
    pub(crate) mtime: (i64, u32),
    pub(crate) device: (u32, u32),
    pub(crate) size: u64,
    /// Checksum of a file's contents, or a link's target.
    pub(crate) contents: u32,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path that leads to the same inode.
    pub(crate) first: Vec<u8>,
}

/// Through the reader; contents are read in pieces of a size that fits nothing.
pub(crate) fn of_image<S: Source>(image: &Image<S>) -> View {
    let mut view = View::new();
    let mut first = HashMap::new();
    let mut walk = image.walk(image.root().unwrap());
    while let Some(step) = walk.next() {
        let path = walk.path().to_vec();
        let inode = match step {
            Step::Enter(inode) | Step::Node(inode) => inode,
            Step::Leave => continue,
            Step::Broken(error) => panic!("{}: {error}", path.escape_ascii()),
        };
        let first = first
            .entry(inode.nid)
            .or_insert_with(|| path.clone())
            .clone();
        view.insert(path, seen(image, &inode, first));
    }
    view
}

fn seen<S: Source>(image: &Image<S>, inode: &Inode, first: Vec<u8>) -> Seen {
    let mut sum = 0;
    if inode.is_file() || inode.is_symlink() {
        let mut contents = image.contents(inode).unwrap();
        let mut buffer = vec![0xaa; 77_777];
        let mut at = 0;
        loop {
            match contents.read_at(at, &mut buffer).unwrap() {
                0 => break,
                got => {
                    sum = crc32c::crc32c_append(sum, &buffer[..got]);
                    at += got as u64;
                }
            }
        }
        assert_eq!(at, inode.size);
    }
    let xattrs = image.xattrs(inode).unwrap().list.into_iter();
    let xattrs = xattrs.map(|xattr| (xattr.name.unwrap(), xattr.value));
    let directory = inode.is_directory();
    Seen {
        mode: inode.mode.into(),
        owner: (inode.uid, inode.gid),
        links: if directory { 0 } else { inode.links.into() },
        mtime: (inode.mtime.seconds, inode.mtime.nanoseconds),
        device: inode
            .device()
            .map_or((0, 0), |device| (device.major, device.minor)),
        size: if directory { 0 } else { inode.size },
        contents: sum,
        xattrs: xattrs.collect(),
        first,
    }
}

/// Through system calls.
pub(crate) fn of_directory(root: &Path) -> View {
    let mut view = View::new();
    let mut first = HashMap::new();
    observe(root, Vec::new(), &mut first, &mut view);
    view
}

fn observe(at: &Path, path: Vec<u8>, first: &mut HashMap<u64, Vec<u8>>, view: &mut View) {
    let stat = fs::symlink_metadata(at).unwrap();
    let kind = stat.file_type();
    let contents = match () {
        () if kind.is_file() => crc32c::crc32c(&fs::read(at).unwrap()),
        () if kind.is_symlink() => {
            crc32c::crc32c(fs::read_link(at).unwrap().as_os_str().as_bytes())
        }
        () => 0,
    };
    let names = xattr::list(at).unwrap();
    let xattrs = names.map(|name| {
        let value = xattr::get(at, &name).unwrap().unwrap();
        (name.as_bytes().to_vec(), value)
    });
    let first_path = first
        .entry(stat.ino())
        .or_insert_with(|| path.clone())
        .clone();
    let number = stat.rdev();
    let seen = Seen {
        mode: stat.mode(),
        owner: (stat.uid(), stat.gid()),
        links: if kind.is_dir() { 0 } else { stat.nlink() },
        mtime: (stat.mtime(), stat.mtime_nsec() as u32),
        device: (rustix::fs::major(number), rustix::fs::minor(number)),
        size: if kind.is_dir() { 0 } else { stat.size() },
        contents,
        xattrs: xattrs.collect(),
        first: first_path,
    };
    view.insert(path.clone(), seen);
    if !kind.is_dir() {
        return;
    }
    let mut names: Vec<_> = fs::read_dir(at)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
    for name in names {
        let mut below = path.clone();
        if !below.is_empty() {
            below.push(b'/');
        }
        below.extend_from_slice(name.as_bytes());
        observe(&at.join(&name), below, first, view);
    }
}

/// Fails with the first few differences.
pub(crate) fn assert_same(what: &str, meant: &View, seen: &View) {
    let paths = meant.keys().chain(seen.keys());
    let mut differ: Vec<_> = paths
        .filter(|path| meant.get(*path) != seen.get(*path))
        .collect();
    differ.sort();
    differ.dedup();
    let shown = differ.iter().take(3).map(|path| {
        let (meant, seen) = (meant.get(*path), seen.get(*path));
        format!(
            "{}:\n  meant {meant:?}\n  seen  {seen:?}",
            path.escape_ascii()
        )
    });
    let shown: Vec<String> = shown.collect();
    assert!(
        shown.is_empty(),
        "{what}: {} differ\n{}",
        differ.len(),
        shown.join("\n")
    );
}
