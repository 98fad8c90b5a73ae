//! Directories in all their forms: short, block, leaf, node.
//!
//! Listing reads the data blocks in their order; looking up a name goes through the
//! leaves by hash. Both give entries whose name, number and kind could be; whether
//! leaves and data agree is `check`'s matter, which uses `block` and `leaf` too.

pub(crate) mod block;
pub(crate) mod leaf;
mod short;

use super::{ForkMap, Inode, Place, Reader, Result, Source, Which, shape};
use crate::xfs::format::dir::LEAF_OFFSET;
use crate::xfs::format::hash;
use crate::xfs::format::inode::{format, kind};
use crate::xfs::geometry::Geometry;
use block::{DataBlock, Item};

pub(crate) use short::ShortDir;

/// An entry of a directory. `.` and `..` of the larger forms are entries too; of the
/// short form they are made up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// The inode.
    pub ino: u64,
    /// Kind of file, of `format::dir::file_type`.
    pub file_type: u8,
    /// Address in the directory in units of 8 bytes.
    pub address: u32,
}

/// A directory that is open.
pub struct Directory<'r, S> {
    reader: &'r Reader<S>,
    ino: u64,
    form: Form,
}

enum Form {
    Short(ShortDir),
    Blocks(ForkMap),
}

impl<S: Source> Reader<S> {
    /// Opens the directory that `inode` is.
    ///
    /// # Errors
    /// If it is none, or its short form or extents are damaged.
    pub fn directory(&self, inode: &Inode) -> Result<Directory<'_, S>> {
        if inode.kind() != kind::DIRECTORY {
            let place = Place::Inode(inode.ino);
            return Err(shape("inode", place, "it is no directory"));
        }
        let form = if inode.form(Which::Data) == format::LOCAL {
            Form::Short(ShortDir::parse(self.geometry(), inode)?)
        } else {
            Form::Blocks(ForkMap::load(self, inode, Which::Data)?)
        };
        Ok(Directory {
            reader: self,
            ino: inode.ino,
            form,
        })
    }
}

/// Blocks of the fork that come before the leaves.
pub(crate) fn data_end(geometry: &Geometry) -> u64 {
    LEAF_OFFSET >> geometry.block_log
}

impl<'r, S: Source> Directory<'r, S> {
    /// All entries, in the order of their addresses, with `.` and `..`. Holds one block.
    /// After a damaged block the next one follows.
    pub fn entries(self) -> impl Iterator<Item = Result<Entry>> + use<'r, S> {
        let Self { reader, ino, form } = self;
        let (short, map) = match form {
            Form::Short(short) => (short.entries(ino), None),
            Form::Blocks(map) => (Vec::new(), Some(map)),
        };
        let blocks = map.into_iter().flat_map(move |map| {
            let offsets = data_offsets(reader.geometry(), &map);
            offsets.into_iter().flat_map(move |offset| {
                match DataBlock::read(reader, &map, offset) {
                    Ok(block) => block.entries().into_iter().map(Ok).collect::<Vec<_>>(),
                    Err(error) => vec![Err(error)],
                }
            })
        });
        short.into_iter().map(Ok).chain(blocks)
    }

    /// The entry called `name`, by the hash of it. With names that compare without case
    /// only the exact name is found, by listing.
    ///
    /// # Errors
    /// If what the way to it leads through is damaged.
    pub fn lookup(self, name: &[u8]) -> Result<Option<Entry>> {
        if self.reader.geometry().features.ascii_ci {
            for entry in self.entries() {
                let entry = entry?;
                if entry.name == name {
                    return Ok(Some(entry));
                }
            }
            return Ok(None);
        }
        match &self.form {
            Form::Short(short) => {
                let entries = short.entries(self.ino);
                Ok(entries.into_iter().find(|entry| entry.name == name))
            }
            Form::Blocks(map) => leaf::lookup(self.reader, map, hash::name(name), name),
        }
    }
}

/// First blocks of the directory blocks that hold entries.
pub(crate) fn data_offsets(geometry: &Geometry, map: &ForkMap) -> Vec<u64> {
    let step = geometry.dir_block_blocks();
    let end = data_end(geometry);
    let mut offsets: Vec<u64> = Vec::new();
    for extent in map.extents() {
        if extent.offset >= end {
            break;
        }
        let first = extent.offset / step * step;
        let last = (extent.offset + extent.count).min(end);
        offsets.extend((first..last).step_by(step as usize));
    }
    offsets.dedup();
    offsets
}

/// The entry at `address`, if there is one.
pub(crate) fn entry_at<S: Source>(
    reader: &Reader<S>,
    map: &ForkMap,
    address: u32,
) -> Result<Option<Entry>> {
    let geometry = reader.geometry();
    let byte = u64::from(address) * 8;
    let index = byte / geometry.dir_block_size() as u64;
    let block = DataBlock::read(reader, map, index * geometry.dir_block_blocks())?;
    let entry = block.items.iter().find_map(|item| match item {
        Item::Entry(entry) if entry.address == address => Some(entry.clone()),
        _ => None,
    });
    Ok(entry)
}
