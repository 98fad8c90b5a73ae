//! A directory of this host as a source.
//!
//! Every object is reached relative to the descriptor of the directory it lies in, so
//! paths may be of any length and a directory that is renamed meanwhile does no harm.
//! One thread lists, sorts and stats; others read attributes, targets and contents of
//! batches, which come back in order. Memory is bounded by the entries of the directories
//! open on the path, by a table of the objects with several names of which some are still
//! to come, and by a few batches in flight.
//!
//! - Special files are never opened: a file is opened only where a regular one was seen,
//!   without blocking, and must then be the same object of the same size.
//! - Extended attributes kept: `user.*`, `trusted.*` (shown to root only), `security.*` and
//!   the two POSIX ACLs. Others, as `system.nfs4_acl` or `btrfs.*`, are made by the file
//!   system they lie on and mean nothing elsewhere; they are left out.
//! - Project ids are not read: the kernel tells them by an ioctl only, for which there is
//!   no safe wrapper. They come as 0; [`Adjust::project`](super::Adjust) sets one for all.
//! - On overlayfs and the like files may have other device numbers than directories, so
//!   staying in one file system is decided at directories alone, as rsync does.

mod exclude;
mod lister;
mod object;
mod pool;
mod xattrs;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::Uid;

use super::{Detail, Source, TreeError, Walk};
use exclude::Excludes;
pub(crate) use exclude::glob;
use lister::Lister;

/// What of a directory is taken, and how.
#[derive(Debug, Clone, Default)]
pub struct WalkOptions {
    /// Directories that lie on another file system than the root come without contents.
    pub one_file_system: bool,
    /// Patterns of what is left out, with everything below it. `*`, `?` and `[...]` do not
    /// match a slash, `**` does. A pattern that begins with a slash is anchored at the
    /// root of the tree; any other matches at the end of a path, from any directory on
    /// (`*.o`, `build/out`). One that ends in a slash matches directories only.
    pub exclude: Vec<String>,
    /// How many threads read objects; 0 for as many as there are processors, but 4 at
    /// least: what is not in the page cache is waited for by several at a time.
    pub threads: usize,
}

/// A directory, to be walked.
#[derive(Debug)]
pub struct Directory {
    shared: Arc<Shared>,
}

/// What every part of a walk needs.
struct Shared {
    root: OwnedFd,
    /// The root's path, for errors.
    path: Box<[u8]>,
    one_file_system: bool,
    excludes: Excludes,
    threads: usize,
    /// Whose process this is.
    user: Uid,
    /// Whether `/proc/self/fd` is there, by which attributes are read of what must not be
    /// opened.
    proc: bool,
    /// Called with the path of each file before it is opened.
    #[cfg(test)]
    before_open: Option<Hook>,
}

#[cfg(test)]
type Hook = Box<dyn Fn(&[u8]) + Send + Sync>;

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("path", &super::error::show(&self.path))
            .finish_non_exhaustive()
    }
}

impl Directory {
    /// The directory at `path` (a symbolic link to one is followed).
    ///
    /// # Errors
    /// If it cannot be opened, or a pattern of `options` is none.
    pub fn open(path: &Path, options: &WalkOptions) -> Result<Self, TreeError> {
        Shared::new(path, options).map(Self::from)
    }
}

impl Shared {
    fn new(path: &Path, options: &WalkOptions) -> Result<Self, TreeError> {
        let name = path.as_os_str().as_bytes();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty())
            .map_err(|cause| TreeError::io(name, "open it as a directory", cause))?;
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            root,
            path: name.into(),
            one_file_system: options.one_file_system,
            excludes: Excludes::new(&options.exclude)?,
            threads: match options.threads {
                0 => processors().max(4),
                given => given,
            },
            user: rustix::process::geteuid(),
            proc: rustix::fs::stat("/proc/self/fd").is_ok(),
            #[cfg(test)]
            before_open: None,
        })
    }

    /// Whether what belongs to `uid` is treated as ours: root owns everything.
    fn owns(&self, uid: u32) -> bool {
        self.user.is_root() || self.user.as_raw() == uid
    }
}

impl From<Shared> for Directory {
    fn from(shared: Shared) -> Self {
        let shared = Arc::new(shared);
        Self { shared }
    }
}

impl Source for Directory {
    fn walk(&self, detail: Detail) -> Result<Walk<'_>, TreeError> {
        let lister = Lister::new(Arc::clone(&self.shared))?;
        Ok(match detail {
            Detail::Names => Box::new(lister.map(|found| found.map(object::named))),
            _ => pool::start(lister, detail, self.shared.threads)?,
        })
    }
}
