//! Images of composefs: EROFS images of metadata alone, whose files lie in an object store
//! under their fs-verity digests. overlayfs puts both together, led by attributes.
//!
//! The bytes of an image follow from the tree alone, so that its own digest can be known
//! before it is made: they are those of `mkcomposefs` (libcomposefs 1.0.8) for
//! [`Version::V0`] and [`Version::V1`], and those of the Rust crate `composefs` 0.9 for
//! [`Version::V2`]. This holds for every tree that either takes, the kernel's view of it
//! notwithstanding; what a format cannot hold is refused.
//!
//! Data flows one way: a [`Tree`] comes from a dump ([`read_dump`]) or from any source
//! ([`collect()`], which fills the [`Store`]); it is rewritten as overlayfs needs it
//! ([`Prepared`]), laid out ([`Image`]), and written from the first byte to the last.
//!
//! - `tree`: objects and names
//! - `dump`, `collect`, `measure`, `store`: where they come from
//! - `dialect`, `limits`: what a dump may not say, and what a format cannot hold
//! - `rewrite`: what overlayfs is told
//! - `load`, `show`: the tree of an image, and a tree as text
//! - `place`: where everything lies
//! - `attributes`, `directory`, `inode`, `write`: the bytes
//! - `output`: where they go

mod attributes;
mod collect;
mod dialect;
mod directory;
mod dump;
mod inode;
mod limits;
mod load;
mod measure;
mod output;
mod place;
mod rewrite;
mod show;
mod store;
mod tree;
mod write;

pub use collect::{Collect, HardLinks, collect};
pub use dump::read as read_dump;
pub use load::load;
pub use store::Store;
pub use tree::Tree;
pub use write::Image;

use crate::erofs::read::ReadError;
use crate::target::TargetError;
use crate::tree::TreeError;
use attributes::Shared;
use place::Places;
use std::io;
use std::path::PathBuf;

/// Bytes of a block, always.
const BLOCK: u64 = 4096;

/// Which format an image gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// As `mkcomposefs` chooses: version 0, or 1 if the tree holds whiteouts.
    #[default]
    Auto,
    /// This one.
    Exactly(Version),
}

/// A version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Compact inodes, breadth first (`mkcomposefs --min-version=0 --max-version=0`).
    V0,
    /// The same, where directories with whiteouts are marked as opaque in the way of Linux
    /// 6.8 (`mkcomposefs --min-version=1`).
    V1,
    /// Extended inodes, depth first, as the Rust crate first made them.
    V2,
}

impl Version {
    /// What the header says.
    pub fn number(self) -> u32 {
        match self {
            Self::V0 => 0,
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ComposefsError {
    /// The source cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The format cannot hold an object.
    #[error("{path}: {reason}")]
    Forbidden {
        /// Which.
        path: String,
        /// Why not, and what can be done.
        reason: String,
    },
    /// The object store cannot be read or written.
    #[error("{}: cannot {action}: {cause}", path.display())]
    Store {
        /// What of it.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why not.
        cause: io::Error,
    },
    /// An object cannot be made.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// An object that is there is not what its name says.
    #[error("{}: is no object of that digest, by its size; remove it", path.display())]
    Object {
        /// Which.
        path: PathBuf,
    },
    /// An image cannot be read.
    #[error("{path}: {cause}")]
    Read {
        /// Which object of it.
        path: String,
        /// Why not.
        cause: ReadError,
    },
    /// Something else.
    #[error("no image of composefs: it does not begin with the magic number 0xd078629a")]
    Alien,
    /// A header that is not known.
    #[error("an image of composefs with a header of version {0}; only a newer program can read it")]
    Newer(u32),
    /// The image cannot be written.
    #[error("cannot write the image: {0}")]
    Write(io::Error),
    /// More blocks than can be counted.
    #[error(
        "the image would have {blocks} blocks, which is too much; leave out what need not be there"
    )]
    TooLarge {
        /// How many.
        blocks: u64,
    },
}

/// A tree as it stands in an image.
#[derive(Debug)]
pub struct Prepared {
    tree: Tree,
    version: Version,
}

impl Prepared {
    /// Rewrites a tree for an image.
    ///
    /// # Errors
    /// If the format cannot hold it.
    pub fn new(mut tree: Tree, format: Format) -> Result<Self, ComposefsError> {
        let version = match format {
            Format::Exactly(version) => version,
            Format::Auto if rewrite::has_whiteouts(&tree) => Version::V1,
            Format::Auto => Version::V0,
        };
        rewrite::rewrite(&mut tree, version)?;
        Ok(Self { tree, version })
    }

    /// Which format it is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Decides where everything lies.
    ///
    /// # Errors
    /// If it is more than an image can hold.
    pub fn lay_out(&self) -> Result<Image<'_>, ComposefsError> {
        let xattrs = self.tree.objects().flat_map(|object| &object.xattrs);
        let shared = Shared::of(self.version, xattrs);
        let places = Places::of(&self.tree, &shared, self.version)?;
        Ok(Image::new(&self.tree, self.version, shared, places))
    }
}
