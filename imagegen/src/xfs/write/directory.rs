//! A directory: from its entries to its data fork (`xfs_dir2.c` and its kin).
//!
//! [`Directory`] takes entries in any order and packs them at once as the kernel does
//! when it adds them one after the other: into data blocks, `.` and `..` first. That is
//! all it holds in memory. [`Directory::finish`] takes the smallest of the four forms
//! (`format::dir`) that can hold them, which is the one the kernel would have reached:
//! short form if it fits the inode *and* a block could hold the same, one block, data
//! blocks with one leaf, or with a tree of leaves.

mod data;
mod leaf;
mod short;

use super::hash_tree::{HashTree, Shape};
use super::output::{Output, Place, Sink};
use super::{ForkError, hash_tree};
use crate::xfs::format::dir::{
    BlockTail, DataHeader, FREE_OFFSET, FreeHeader, LEAF_OFFSET, LeafEntry, LeafHeader, file_type,
};
use crate::xfs::geometry::Geometry;
use data::Data;

/// A directory whose entries are being gathered.
#[derive(Debug)]
pub struct Directory<'a> {
    geometry: &'a Geometry,
    ino: u64,
    parent: u64,
    data: Data,
    short: short::Size,
}

impl<'a> Directory<'a> {
    /// Directory `ino`, without entries, in directory `parent` (itself for the root).
    pub fn new(geometry: &'a Geometry, ino: u64, parent: u64) -> Self {
        let mut data = Data::new(geometry.dir_block_size());
        data.push(b".", ino, file_type::DIRECTORY);
        data.push(b"..", parent, file_type::DIRECTORY);
        Self {
            geometry,
            ino,
            parent,
            data,
            short: short::Size::new(parent),
        }
    }

    /// Adds an entry; `file_type` is one of `format::dir::file_type`.
    ///
    /// # Errors
    /// If the name's length is not 1 to 255, or the directory's 32 GiB are full.
    pub fn push(&mut self, name: &[u8], ino: u64, file_type: u8) -> Result<(), ForkError> {
        if name.is_empty() || name.len() > usize::from(u8::MAX) {
            return Err(ForkError::NameLength { bytes: name.len() });
        }
        if self.data.bytes() >= LEAF_OFFSET {
            return Err(ForkError::TooMany { what: "entries" });
        }
        self.data.push(name, ino, file_type);
        self.short.add(name, ino);
        Ok(())
    }

    /// How many bytes of the inode its short form takes, whether or not it fits.
    pub fn short_size(&self) -> usize {
        self.short.bytes()
    }

    /// The fork, in an inode that has `space` bytes for it.
    ///
    /// # Errors
    /// If two names are the same.
    pub fn finish(self, space: usize) -> Result<DirectoryFork<'a>, ForkError> {
        let folded = self.geometry.features.ascii_ci;
        let index = leaf::Index::of(&self.data, folded)?;
        let size = self.geometry.dir_block_size();
        let one_block = self.data.is_one_block_with(index.len());
        let form = if one_block && self.short.fits(space) {
            Form::Short(short::encode(&self.data, self.parent, &self.short))
        } else if one_block {
            Form::Block
        } else if leaf::fits_one(size, index.len(), self.data.count()) {
            Form::Leaf
        } else {
            Form::Node(leaf::tree(self.geometry, &index))
        };
        Ok(DirectoryFork {
            geometry: self.geometry,
            ino: self.ino,
            data: self.data,
            index,
            form,
        })
    }
}

/// How a directory lies in its fork.
#[derive(Debug)]
enum Form {
    Short(Vec<u8>),
    Block,
    Leaf,
    Node(HashTree),
}

/// A directory's fork, ready to be placed.
#[derive(Debug)]
pub struct DirectoryFork<'a> {
    geometry: &'a Geometry,
    ino: u64,
    data: Data,
    index: leaf::Index,
    form: Form,
}

impl DirectoryFork<'_> {
    /// The fork itself if it is in short form; then it needs no blocks.
    pub fn short_form(&self) -> Option<&[u8]> {
        match &self.form {
            Form::Short(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The inode's size in bytes: of the short form, or of all data blocks.
    pub fn size(&self) -> u64 {
        match &self.form {
            Form::Short(bytes) => bytes.len() as u64,
            _ => self.data.bytes(),
        }
    }

    /// Which blocks of the fork must exist, in ascending order: offset and count, both
    /// in blocks of the file system.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        let unit = self.geometry.dir_block_blocks();
        let data = (0, self.data.count() as u64 * unit);
        let leaves = |blocks: u64| (self.block_of(LEAF_OFFSET), blocks * unit);
        match &self.form {
            Form::Short(_) => Vec::new(),
            Form::Block => vec![data],
            Form::Leaf => vec![data, leaves(1)],
            Form::Node(tree) => {
                let free = leaf::free_blocks(self.geometry.dir_block_size(), self.data.count());
                let free = (self.block_of(FREE_OFFSET), free as u64 * unit);
                vec![data, leaves(tree.blocks()), free]
            }
        }
    }

    /// Hands out every block of [`ranges`](Self::ranges), placed as `place` says. The
    /// blocks of one directory block need not lie together, but best do.
    pub fn encode(&self, place: Place<'_>, sink: Sink<'_>) {
        let output = &mut Output {
            geometry: self.geometry,
            owner: self.ino,
            place,
            sink,
        };
        match &self.form {
            Form::Short(_) => {}
            Form::Block => self.data.encode_with_leaf(&self.index, output),
            Form::Leaf => {
                self.data.encode(output);
                let free = self.data.longest_free();
                leaf::encode_one(&self.index, free, output);
            }
            Form::Node(tree) => {
                self.data.encode(output);
                leaf::encode_tree(&self.index, tree, output);
                leaf::encode_free(self.data.longest_free(), output);
            }
        }
    }

    fn block_of(&self, offset: u64) -> u64 {
        offset >> self.geometry.block_log
    }
}
