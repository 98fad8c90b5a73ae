//! All that can be seen of a mounted tree, by system calls alone: two trees that should
//! be the same are compared by it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;

use crate::e2e::fault::Trying;
use crate::e2e::{Fault, Outcome};

/// The objects of a tree by path; the root's is empty.
pub type View = BTreeMap<PathBuf, Seen>;

/// Attributes by name.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What can be seen of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Kind and permissions.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Names.
    pub links: u64,
    /// The first of its names.
    pub first: PathBuf,
    /// Last change of the contents, in seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Last change of the inode.
    pub ctime: (i64, i64),
    /// Attributes.
    pub xattrs: Xattrs,
    /// Contents.
    pub contents: Contents,
}

/// Contents by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Of a regular file.
    File {
        /// Bytes.
        size: u64,
        /// Where data lies.
        data: Vec<Range<u64>>,
        /// CRC32C of that, with places and without blocks of zeroes: holes or not, equal
        /// contents have the same.
        sum: u32,
    },
    /// A symbolic link's target.
    Target(PathBuf),
    /// A device's number.
    Device(u64),
    /// Nothing.
    Nothing,
}

/// Looks at everything below `root`.
///
/// # Errors
/// If anything cannot be read.
pub fn view(root: &Path) -> Outcome<View> {
    let mut viewer = Viewer {
        root,
        view: View::new(),
        first: HashMap::new(),
    };
    viewer.visit(root)?;
    Ok(viewer.view)
}

/// Demands that both are the same.
///
/// # Errors
/// Names the first few objects that differ, and how.
pub fn same(meant: &View, seen: &View, what: &str) -> Outcome {
    let mut differences = Vec::new();
    for (path, meant) in meant {
        match seen.get(path) {
            Some(seen) if seen == meant => {}
            Some(seen) => differences.push(format!("{path:?}: {}", difference(meant, seen))),
            None => differences.push(format!("{path:?}: missing")),
        }
    }
    let more = seen.keys().filter(|path| !meant.contains_key(*path));
    differences.extend(more.map(|path| format!("{path:?}: should not be there")));
    if differences.is_empty() {
        return Ok(());
    }
    let (count, all) = (differences.len(), meant.len());
    differences.truncate(5);
    Err(Fault::wrong(format!(
        "{what}: {count} of {all} objects differ:\n{}",
        differences.join("\n")
    )))
}

fn difference(meant: &Seen, seen: &Seen) -> String {
    let names = meant.xattrs.keys().chain(seen.xattrs.keys());
    for name in names {
        let value = |object: &Seen| object.xattrs.get(name).map(|value| short(value));
        if meant.xattrs.get(name) != seen.xattrs.get(name) {
            let (meant, seen) = (value(meant), value(seen));
            return format!(
                "attribute {}: {meant:?} became {seen:?}",
                name.escape_ascii()
            );
        }
    }
    let rest = |object: &Seen| {
        let text = format!("{:?}", {
            let mut object = object.clone();
            object.xattrs.clear();
            object
        });
        text.chars().take(1000).collect::<String>()
    };
    format!("\n    {}\n    became {}", rest(meant), rest(seen))
}

fn short(value: &[u8]) -> String {
    let begin = value.get(..40).unwrap_or(value);
    format!("{} ({} bytes)", begin.escape_ascii(), value.len())
}

struct Viewer<'a> {
    root: &'a Path,
    view: View,
    /// First path by inode.
    first: HashMap<u64, PathBuf>,
}

impl Viewer<'_> {
    fn visit(&mut self, path: &Path) -> Outcome {
        let story = || format!("look at {path:?}");
        let meta = fs::symlink_metadata(path).trying(story)?;
        let name = path.strip_prefix(self.root).unwrap_or(path).to_path_buf();
        let first = self.first.entry(meta.ino()).or_insert_with(|| name.clone());
        let seen = Seen {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            links: meta.nlink(),
            first: first.clone(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
            xattrs: xattrs(path)?,
            contents: contents(path, &meta)?,
        };
        self.view.insert(name, seen);
        if !meta.is_dir() {
            return Ok(());
        }
        let entries = fs::read_dir(path).trying(story)?;
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.trying(story)?.path());
        }
        paths.sort_unstable();
        paths.iter().try_for_each(|path| self.visit(path))
    }
}

/// XFS shows lists of access a second time as it keeps them; these are left out.
fn xattrs(path: &Path) -> Outcome<Xattrs> {
    let story = || format!("read the attributes of {path:?}");
    let mut found = Xattrs::new();
    for name in xattr::list(path).trying(story)? {
        if !name.as_bytes().starts_with(b"trusted.SGI_ACL_") {
            let value = xattr::get(path, &name).trying(story)?;
            found.insert(name.as_bytes().to_vec(), value.unwrap_or_default());
        }
    }
    Ok(found)
}

fn contents(path: &Path, meta: &Metadata) -> Outcome<Contents> {
    let kind = meta.file_type();
    let story = || format!("read {path:?}");
    if kind.is_file() {
        let file = File::open(path).trying(story)?;
        let size = meta.len();
        let data = data(&file, size).trying(story)?;
        let sum = sum(&file, &data).trying(story)?;
        Ok(Contents::File { size, data, sum })
    } else if kind.is_symlink() {
        fs::read_link(path).trying(story).map(Contents::Target)
    } else if kind.is_block_device() || kind.is_char_device() {
        Ok(Contents::Device(meta.rdev()))
    } else {
        Ok(Contents::Nothing)
    }
}

/// As in [`Contents::File`]; blocks of 4096 bytes count.
fn sum(file: &File, data: &[Range<u64>]) -> std::io::Result<u32> {
    const BLOCK: u64 = 4096;
    let mut sum = 0;
    let mut buffer = vec![0; 256 << 10];
    for range in data {
        let mut at = range.start;
        while at < range.end {
            // Up to a multiple of the buffer, so that blocks are whole.
            let end = (at / BLOCK * BLOCK + buffer.len() as u64).min(range.end);
            let part = &mut buffer[..(end - at) as usize];
            file.read_exact_at(part, at)?;
            let mut rest = &*part;
            while !rest.is_empty() {
                let to_border = (BLOCK - at % BLOCK) as usize;
                let (block, after) = rest.split_at(to_border.min(rest.len()));
                if block.iter().any(|byte| *byte != 0) {
                    sum = crc32c::crc32c_append(sum, &at.to_le_bytes());
                    sum = crc32c::crc32c_append(sum, block);
                }
                at += block.len() as u64;
                rest = after;
            }
        }
    }
    Ok(sum)
}

/// Where data lies in a file.
fn data(file: &File, size: u64) -> std::io::Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(begin) => {
                at = rustix::fs::seek(file, SeekFrom::Hole(begin))?;
                ranges.push(begin..at);
            }
            // Nothing but a hole to the end.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ranges)
}
