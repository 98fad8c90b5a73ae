//! What an inode may have more of than memory holds: the blocks of a directory, extents.
//! They are read one by one, while they are written.

use crate::erofs::read::{
    Area, Coding, Extent, Image, Inode, Map, Nid, ReadError, Where, directory_block,
};
use crate::medium::Source;
use crate::shown;
use serde::{Serialize, Serializer};
use std::cell::{Ref, RefCell};

/// What cannot be read. Each part ends with the first, so there are few.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Flaws(RefCell<Vec<String>>);

impl Flaws {
    pub(super) fn note(&self, flaw: &ReadError) {
        self.0.borrow_mut().push(flaw.to_string());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    pub(super) fn list(&self) -> Ref<'_, Vec<String>> {
        self.0.borrow()
    }
}

/// A block of a directory.
#[derive(Debug, Serialize)]
pub(super) struct Block {
    pub(super) offset: u64,
    pub(super) entries: Vec<Name>,
}

#[derive(Debug, Serialize)]
pub(super) struct Name {
    pub(super) name: String,
    pub(super) nid: String,
    pub(super) kind: u8,
}

/// An extent: where in the contents, and where it is stored.
#[derive(Debug, Serialize)]
pub(super) struct Mapped {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) place: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) device: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stored: Option<u64>,
    pub(super) coding: Coding,
    pub(super) partial: bool,
}

/// The blocks of a directory.
#[derive(Debug)]
pub(super) struct Blocks<'a, S> {
    image: &'a Image<S>,
    inode: &'a Inode,
    flaws: &'a Flaws,
}

impl<'a, S: Source> Blocks<'a, S> {
    pub(super) fn new(image: &'a Image<S>, inode: &'a Inode, flaws: &'a Flaws) -> Self {
        Self {
            image,
            inode,
            flaws,
        }
    }

    /// Whether there are none.
    pub(super) fn is_none(&self) -> bool {
        !self.inode.is_directory() || self.inode.size == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Block> + '_ {
        // If it cannot be opened the extents say so.
        let mut contents = match self.is_none() {
            true => None,
            false => self.image.contents(self.inode).ok(),
        };
        let mut numbers = 0..contents.as_ref().map_or(0, |contents| contents.blocks());
        std::iter::from_fn(move || {
            let number = numbers.next()?;
            let open = contents.as_mut()?;
            let offset = number * open.block_size() as u64;
            match directory_block(open, number) {
                Ok(entries) => Some(Block {
                    offset,
                    entries: entries.iter().map(Name::from).collect(),
                }),
                Err(error) => {
                    self.flaws.note(&error);
                    contents = None;
                    None
                }
            }
        })
        .fuse()
    }
}

impl<S: Source> Serialize for Blocks<'_, S> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// The extents of an inode that has contents.
#[derive(Debug)]
pub(super) struct Extents<'a, S> {
    image: &'a Image<S>,
    inode: &'a Inode,
    flaws: &'a Flaws,
}

impl<'a, S: Source> Extents<'a, S> {
    pub(super) fn new(image: &'a Image<S>, inode: &'a Inode, flaws: &'a Flaws) -> Self {
        Self {
            image,
            inode,
            flaws,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Mapped> + '_ {
        let inode = self.inode;
        let map = match inode.is_file() || inode.is_directory() || inode.is_symlink() {
            true => self
                .image
                .map(inode)
                .map_err(|error| self.flaws.note(&error)),
            false => Err(()),
        };
        let extents = map.into_iter().flat_map(Map::extents);
        extents.filter_map(|extent| match extent {
            Ok(extent) => Some(Mapped::from(extent)),
            Err(error) => {
                self.flaws.note(&error);
                None
            }
        })
    }
}

impl<S: Source> Serialize for Extents<'_, S> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl From<&crate::erofs::read::Entry> for Name {
    fn from(entry: &crate::erofs::read::Entry) -> Self {
        Self {
            name: shown::name(&entry.name),
            nid: Nid(entry.nid).to_string(),
            kind: entry.kind,
        }
    }
}

impl From<Extent> for Mapped {
    fn from(extent: Extent) -> Self {
        let (place, device, at, stored) = match extent.place {
            Where::Hole => ("hole", None, None, None),
            Where::Device(device, at, stored) => ("device", Some(device.0), Some(at), Some(stored)),
            Where::Metadata(Area::Image, at, stored) => ("inline", Some(0), Some(at), Some(stored)),
            Where::Metadata(Area::Metabox, at, stored) => ("metabox", None, Some(at), Some(stored)),
            Where::Packed(at) => ("packed", None, Some(at), None),
        };
        Self {
            offset: extent.offset,
            length: extent.length,
            place,
            device,
            at,
            stored,
            coding: extent.coding,
            partial: extent.partial,
        }
    }
}
