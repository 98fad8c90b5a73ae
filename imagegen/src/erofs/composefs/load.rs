//! The tree of an image, as it was before it was rewritten: attributes that were escaped,
//! whiteouts and paths of objects have their first form again, and the whiteouts for the
//! object store are gone. An image of the tree is the same image.

use super::tree::{Body, Digest, Entry, External, Number, Object, ROOT, Tree};
use super::{BLOCK, ComposefsError};
use crate::erofs::format::composefs::{HEADER_VERSION, Header, MAGIC};
use crate::erofs::read::{Image, Inode, Layout, ReadError, Step, Xattr as Found, damaged, kind};
use crate::medium::Source;
use crate::tree::{Xattr, show};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use zerocopy::FromBytes;

/// Files in an image are no longer than this, however the image was made.
const INLINE_MAX: u64 = 2 * BLOCK;
/// What overlayfs is told, and what that was before.
const OVERLAY: &[u8] = b"trusted.overlay.";
const ESCAPED: &[u8] = b"trusted.overlay.overlay.";

/// Reads the tree of an image, of the root only what is called one of `names` (unless there
/// are none).
///
/// # Errors
/// If it cannot be read, is damaged, or is no image of composefs.
pub fn load<S: Source>(source: S, names: &[Vec<u8>]) -> Result<Tree, ComposefsError> {
    let mut header = Header::default();
    let mut bytes = [0; size_of::<Header>()];
    if source.read_at(0, &mut bytes).is_ok() {
        header = Header::read_from_bytes(&bytes).unwrap_or_default();
    }
    if header.magic != MAGIC {
        return Err(ComposefsError::Alien);
    }
    if header.version != HEADER_VERSION {
        return Err(ComposefsError::Newer(header.version.get()));
    }
    let image = Image::open(source).map_err(|cause| broken(b"", cause))?;
    let root = image.root().map_err(|cause| broken(b"", cause))?;
    let mut loader = Loader {
        image: &image,
        tree: Tree::new(object(&image, &root).map_err(|cause| broken(b"", cause))?),
        open: Vec::new(),
        seen: FxHashMap::default(),
        names,
    };
    let mut walk = image.walk(root);
    while let Some(step) = walk.next() {
        let path = walk.path().to_vec();
        let wanted = loader.is_wanted(&path);
        match step {
            Step::Enter(_) if path.is_empty() => loader.open.push(ROOT),
            Step::Enter(_) if !wanted => walk.skip(),
            Step::Enter(inode) => {
                if let Some(number) = loader.take(&path, &inode)? {
                    loader.open.push(number);
                }
            }
            Step::Node(inode) if wanted => drop(loader.take(&path, &inode)?),
            Step::Node(_) => {}
            Step::Leave => drop(loader.open.pop()),
            Step::Broken(cause) => return Err(broken(&path, cause)),
        }
    }
    Ok(loader.tree)
}

fn broken(path: &[u8], cause: ReadError) -> ComposefsError {
    let path = format!("/{}", show(path));
    ComposefsError::Read { path, cause }
}

struct Loader<'a, S> {
    image: &'a Image<S>,
    tree: Tree,
    /// The directories on the path.
    open: Vec<Number>,
    /// Objects by the numbers of their inodes.
    seen: FxHashMap<u64, Number>,
    names: &'a [Vec<u8>],
}

impl<S: Source> Loader<'_, S> {
    fn is_wanted(&self, path: &[u8]) -> bool {
        let first = path.split(|byte| *byte == b'/').next().unwrap_or_default();
        self.names.is_empty() || self.names.iter().any(|name| name == first)
    }

    /// Adds an object or a further name of one; none if it is a whiteout for the store.
    fn take(&mut self, path: &[u8], inode: &Inode) -> Result<Option<Number>, ComposefsError> {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let parent = self.open.last().copied().unwrap_or(ROOT);
        let odd = |reason: String| ComposefsError::Forbidden {
            path: format!("/{}", show(path)),
            reason,
        };
        if inode.kind() == kind::CHARACTER && inode.data == 0 {
            return Ok(None);
        }
        let (number, first) = match self.seen.get(&inode.nid) {
            Some(&number) if !inode.is_directory() => (number, false),
            _ => {
                let object = object(self.image, inode).map_err(|cause| broken(path, cause))?;
                let number = self.tree.add(object).map_err(odd)?;
                self.seen.insert(inode.nid, number);
                (number, true)
            }
        };
        let entry = Entry {
            object: number,
            first,
        };
        self.tree.name(parent, name, entry).map_err(odd)?;
        Ok(Some(number))
    }
}

fn object<S: Source>(image: &Image<S>, inode: &Inode) -> Result<Object, ReadError> {
    let found = image.xattrs(inode)?.list;
    let body = match inode.kind() {
        kind::DIRECTORY => Body::Directory(BTreeMap::new()),
        kind::SYMLINK => Body::Symlink(image.link(inode)?.into()),
        kind::CHARACTER => Body::CharDevice(inode.data as u32),
        kind::BLOCK => Body::BlockDevice(inode.data as u32),
        kind::FIFO => Body::Fifo,
        kind::SOCKET => Body::Socket,
        _ if inode.layout == Layout::Chunks => Body::External(External::default()),
        _ => {
            if inode.size > INLINE_MAX {
                let flaw = format!("{} bytes, where files are inline", inode.size);
                return Err(damaged("file", inode.place(), flaw));
            }
            let mut bytes = vec![0; inode.size as usize];
            image.contents(inode)?.read_exact_at(0, &mut bytes)?;
            Body::Inline(bytes.into())
        }
    };
    let size = match &body {
        Body::Inline(bytes) => bytes.len() as u64,
        _ => inode.size,
    };
    let mut object = Object {
        mode: inode.mode & 0o7777,
        uid: inode.uid,
        gid: inode.gid,
        mtime: inode.mtime,
        nlink: inode.links,
        names: 0,
        size,
        xattrs: Vec::new(),
        body,
    };
    found
        .into_iter()
        .for_each(|xattr| restore(&mut object, xattr));
    Ok(object)
}

/// Gives an attribute its first form, or the object what it stands for.
fn restore(object: &mut Object, found: Found) {
    let name = match (found.name, found.key) {
        (Some(name), _) | (None, (0, name)) => name,
        _ => return,
    };
    let value = found.value;
    match (&*name, &mut object.body) {
        (b"trusted.overlay.redirect", Body::External(file)) => {
            let path = value.strip_prefix(b"/").unwrap_or(&value);
            file.payload = Some(path.into());
        }
        (b"trusted.overlay.metacopy", Body::External(file)) => {
            let digest = value.get(4..).map(Digest::try_from);
            file.digest = digest.and_then(Result::ok);
        }
        (b"trusted.overlay.overlay.whiteout", Body::Inline(_) | Body::External(_)) => {
            object.body = Body::CharDevice(0);
            object.size = 0;
        }
        (
            b"trusted.overlay.overlay.whiteouts"
            | b"user.overlay.whiteout"
            | b"user.overlay.whiteouts",
            _,
        ) => {}
        _ => {
            let name = match (name.strip_prefix(ESCAPED), name.starts_with(OVERLAY)) {
                (Some(rest), _) => [OVERLAY, rest].concat(),
                (None, true) => return,
                (None, false) => name,
            };
            let (name, value) = (name.into(), value.into());
            object.xattrs.push(Xattr { name, value });
        }
    }
}
