//! What goes into an image: a tree of files as an ordered stream of events.
//!
//! Sources: [`Directory`], [`Tar`], [`Oci`], [`Dump`]; [`Overlay`] puts several one over the
//! other (or makes an empty tree of none), and [`Adjusted`] changes owners, times, labels
//! and attributes of any of them. A [`Spec`] is one named in a word.
//!
//! Every source (a directory, a tar stream, ...) can be walked more than once: quickly,
//! for how much there is; then with all contents ([`Detail`]). The order is the same
//! whenever the source is the same: a directory's children in bytewise order of their
//! names, and everything below a child before the next child.
//!
//! Contract with whoever writes an image:
//! - The first event is [`Event::Enter`] of the root, whose name is empty; the last is
//!   its [`Event::Leave`]. Enter and Leave nest.
//! - Names are 1 to 255 bytes without NUL or slash, unique in their directory, never `.`
//!   or `..`; they need not be UTF-8.
//! - An object with several names comes once in full ([`Event::Node`], with
//!   [`Node::links`]), then once for each further name as [`Event::Link`].
//! - Errors name the path they are about. After an error no further event comes.

mod adjust;
mod arena;
pub(crate) mod attributes;
mod content;
pub(crate) mod dump;
mod empty;
mod error;
mod oci;
mod overlay;
mod owners;
pub(crate) mod path;
mod progress;
mod selinux;
mod spec;
mod spool;
mod survey;
mod tar;

#[cfg(test)]
mod testing;
mod walk;

pub use adjust::{Adjust, Adjusted, Times};
pub(crate) use content::written;
pub use dump::Dump;
pub use empty::Empty;
pub use error::TreeError;
pub(crate) use error::show;
pub use oci::{Oci, OciOptions};
pub use overlay::Overlay;
pub use owners::{OwnerMap, Owners};
pub use progress::Progress;
pub use selinux::{Contexts, Labels};
pub use spec::{Spec, SpecOptions};
pub use survey::Survey;
pub(crate) use survey::Surveyor;
pub use tar::Tar;
pub(crate) use walk::glob;
pub use walk::{Directory, WalkOptions};

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

/// Length of the longest name, in bytes (`NAME_MAX` of Linux).
pub const NAME_MAX: usize = 255;

/// One step of a walk through a tree.
#[derive(Debug)]
pub enum Event {
    /// A directory; what is in it follows, up to the matching [`Event::Leave`].
    Enter(Node),
    /// Anything but a directory.
    Node(Node),
    /// A further name, in the directory entered last, of an object that came before.
    Link {
        /// The name.
        name: Box<[u8]>,
        /// Which object: [`Links::id`] of its node.
        id: u64,
    },
    /// The directory entered last is complete.
    Leave,
}

/// One object of the tree as it shall appear in the image.
#[derive(Debug)]
pub struct Node {
    /// Its name in the directory it lies in; empty for the root.
    pub name: Box<[u8]>,
    /// What it is, with its contents.
    pub kind: Kind,
    /// Owner, mode and times.
    pub meta: Meta,
    /// Extended attributes, in bytewise order of their full names (`user.mime_type`,
    /// `security.capability`, `system.posix_acl_access` ...), without repetition.
    pub xattrs: Vec<Xattr>,
    /// Set if it may have more than one name.
    pub links: Option<Links>,
}

/// Owner, mode and times of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with set-user-id, set-group-id and sticky: `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Project (quota) id; 0 for none.
    pub project: u32,
    /// When its contents were last changed.
    pub mtime: Time,
    /// When its inode was last changed.
    pub ctime: Time,
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Seconds since 1970-01-01 00:00 UTC; may be negative.
    pub seconds: i64,
    /// Nanoseconds after that, less than 1,000,000,000.
    pub nanoseconds: u32,
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Full name with its namespace: `user.x`, `trusted.x`, `security.x`,
    /// `system.posix_acl_access`.
    pub name: Box<[u8]>,
    /// Value as `getxattr` returns it; at most 64 KiB.
    pub value: Box<[u8]>,
}

/// An object's identity among its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Links {
    /// The same for all names of one object, unique among objects.
    pub id: u64,
    /// How many names there are at most in the tree, this one included. A directory's
    /// file may have names outside the tree, so fewer may come.
    pub at_most: u32,
}

/// What an object is.
#[derive(Debug)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link with its target, 1 to 1023 bytes for XFS, 4095 at most.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// A device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Which driver, up to 2^12 - 1.
    pub major: u32,
    /// Which of its devices, up to 2^20 - 1.
    pub minor: u32,
}

/// The bytes of a regular file.
#[derive(Debug)]
pub struct Content {
    /// Size of the file in bytes, holes included.
    pub size: u64,
    /// Where data lies: ranges of bytes in ascending order, none empty, none touching
    /// the next, none beyond `size`. Everything else is hole and reads as zeroes.
    pub data: Vec<Range<u64>>,
    /// Where the data comes from.
    pub bytes: Bytes,
    /// With [`Detail::Digests`], else empty: a digest of every block of 4096 bytes of the
    /// file that holds data, the first 16 bytes of SHA-256 over the block (its last one
    /// padded with zeroes), in ascending order of the blocks touched by `data`. These are
    /// 16 bytes of memory for each 4096 of the largest file.
    pub digests: Vec<[u8; 16]>,
}

/// Where a file's data comes from.
#[derive(Debug)]
pub enum Bytes {
    /// Not read in this walk.
    Unread,
    /// All bytes of `data`, one range after the other; how small files come.
    Read(Vec<u8>),
    /// To be read from `file`, for what is larger. A short read means that the file shrank
    /// while it was read: an error that names `path`.
    At {
        /// The open file: the object itself, an archive that holds it, or an object store's.
        file: Arc<File>,
        /// What it is called in errors.
        path: Arc<[u8]>,
        /// For each range of `data`, where its first byte lies in `file`.
        offsets: Vec<u64>,
        /// When `file` was last written to, as seen before `data` and digests were found;
        /// none if it cannot tell. Bytes read later belong to these only if it still is so.
        written: Option<Time>,
    },
}

/// How much of each object a walk reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Names and metadata only: quick. Attributes are empty, symbolic links without
    /// target, and a file's `data` is one range as long as what is allocated to it
    /// (`Bytes::Unread`).
    Names,
    /// All that decides how large an image is: with attributes, targets and holes, but
    /// no contents (`Bytes::Unread`).
    Layout,
    /// Everything.
    Contents,
    /// Everything, and digests of the blocks of files.
    Digests,
    /// Everything, and of files that lie in an archive nothing is read: small ones come as
    /// [`Bytes::At`], too.
    Places,
}

/// A tree that can be walked, any number of times and each time the same.
pub trait Source: Sync {
    /// A walk through the whole tree.
    ///
    /// # Errors
    /// If it cannot begin; what goes wrong later comes from the iterator, whose last
    /// item that is.
    fn walk(&self, detail: Detail) -> Result<Walk<'_>, TreeError>;
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn walk(&self, detail: Detail) -> Result<Walk<'_>, TreeError> {
        (**self).walk(detail)
    }
}

/// The events of a walk.
pub type Walk<'a> = Box<dyn Iterator<Item = Result<Event, TreeError>> + Send + 'a>;
