//! Who owns which bytes of the device: the reverse mappings, merged with free space in
//! the order of the device, record for record what the kernel's `FS_IOC_GETFSMAP` says
//! of the same file system (`xfs_fsmap.c`).
//!
//! Contract, as the kernel has it: a mapping that begins before the range or ends after
//! it comes whole, only free (or unknown) space is cut to the range; mappings of shared
//! space come one for each owner, ordered by start, owner and offset; neighbours are not
//! merged; `shared` is said of plain written data only. A file system without reverse
//! mappings gives free and unknown space.
//!
//! A query reads the blocks of the B-trees that lead to its range, and no others.

mod output;
mod paths;
mod query;

pub use output::{Options, RunError, run};
pub use query::Query;

use super::format::btree::owner;
use super::geometry::Geometry;
use super::read::{Reader, Result, Source};
use serde::{Serialize, Serializer};
use std::ops::Range;

/// The map of one file system. Several queries may run at once.
#[derive(Debug)]
pub struct Fsmap<S> {
    reader: Reader<S>,
}

/// Whose space it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// Nobody's.
    Free,
    /// Not known: there are no reverse mappings.
    Unknown,
    /// Superblock and headers of a group.
    Headers,
    /// The log.
    Log,
    /// B-trees of a group for space and reverse mappings, with the AGFL.
    Group,
    /// Inode B-trees.
    InodeTree,
    /// Inodes.
    Inodes,
    /// Reference count B-tree.
    RefcountTree,
    /// Space set aside for copies on write.
    CopyOnWrite,
    /// An inode: its contents, attributes or extent B-tree.
    Inode(u64),
}

impl Owner {
    /// The owner of a reverse mapping.
    pub(crate) fn of_rmap(number: u64) -> Self {
        match number {
            owner::FS => Self::Headers,
            owner::LOG => Self::Log,
            owner::AG => Self::Group,
            owner::INOBT => Self::InodeTree,
            owner::INODES => Self::Inodes,
            owner::REFCOUNT => Self::RefcountTree,
            owner::COW => Self::CopyOnWrite,
            number if owner::is_special(number) => Self::Unknown,
            ino => Self::Inode(ino),
        }
    }

    /// In words, those of `xfs_io -c fsmap`; inodes are just that.
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free space",
            Self::Unknown => "unknown",
            Self::Headers => "static fs metadata",
            Self::Log => "journalling log",
            Self::Group => "per-AG metadata",
            Self::InodeTree => "inode btree",
            Self::Inodes => "inodes",
            Self::RefcountTree => "refcount btree",
            Self::CopyOnWrite => "cow reservation",
            Self::Inode(_) => "inode",
        }
    }
}

/// In JSON: the number of an inode, or the words of [`Owner::name`].
impl Serialize for Owner {
    fn serialize<T: Serializer>(&self, serializer: T) -> std::result::Result<T::Ok, T::Error> {
        match self {
            Self::Inode(ino) => serializer.serialize_u64(*ino),
            other => serializer.serialize_str(other.name()),
        }
    }
}

/// What is special about a mapping of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Flags {
    /// It belongs to the attribute fork.
    pub attribute_fork: bool,
    /// It is a block of the fork's extent B-tree.
    pub extent_map: bool,
    /// Allocated, but reads as zeroes.
    pub unwritten: bool,
    /// Some of it has further owners. Said of plain data only.
    pub shared: bool,
}

/// One extent of the device and one owner of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Mapping {
    /// First byte on the device.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// Whose.
    pub owner: Owner,
    /// Where in the owner's fork, in bytes; 0 for other owners and for extent maps.
    pub offset: u64,
    /// What is special.
    #[serde(flatten)]
    pub flags: Flags,
}

impl Mapping {
    /// The byte after the last.
    pub fn end(&self) -> u64 {
        self.start + self.length
    }

    /// The bytes of the device.
    pub fn range(&self) -> Range<u64> {
        self.start..self.end()
    }
}

impl<S: Source> Fsmap<S> {
    /// The map of the file system that `reader` reads.
    pub fn open(reader: Reader<S>) -> Self {
        Self { reader }
    }

    /// Whether the file system records who owns its space. If not, a query gives free
    /// and unknown space only.
    pub fn knows_owners(&self) -> bool {
        self.geometry().features.rmapbt
    }

    /// Geometry of the file system.
    pub fn geometry(&self) -> &Geometry {
        self.reader.geometry()
    }

    /// The reader below.
    pub fn reader(&self) -> &Reader<S> {
        &self.reader
    }

    /// Bytes of the file system.
    pub fn size(&self) -> u64 {
        self.geometry().blocks << self.geometry().block_log
    }

    /// The mappings that touch `range`, in bytes of the device, in order. A damaged block
    /// of a B-tree ends the query with an error.
    pub fn query(&self, range: Range<u64>) -> Query<'_, S> {
        Query::new(&self.reader, range)
    }

    /// Calls `found` with every path of inode `ino`, from the root, without a leading
    /// slash; the root's own is empty. An inode without a name has none. By parent
    /// pointers where the file system has them, else by a walk through all directories.
    ///
    /// # Errors
    /// If an inode or directory on the way is damaged.
    pub fn paths(&self, ino: u64, found: &mut dyn FnMut(&[u8])) -> Result<()> {
        if self.geometry().features.parent {
            paths::Climber::new(&self.reader).paths(ino, found)
        } else {
            let wanted = [ino].into_iter().collect();
            paths::search(&self.reader, &wanted, &mut |_, path| found(path))
        }
    }
}
