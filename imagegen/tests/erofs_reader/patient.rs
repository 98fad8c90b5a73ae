//! An image in memory that damage is done to.

use crate::images::{Made, Tree, made};
use crate::tools::Suite;
use imagegen::erofs::check::{Report, check};
use imagegen::erofs::format::directory::{ENTRY, Entry};
use imagegen::erofs::format::inode::Extended;
use imagegen::erofs::format::superblock::{self, Superblock};
use imagegen::erofs::read::{Area, Device, Extent, Image, Inode, Where};
use imagegen::tree::Progress;
use std::fs;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The image, as it was and as it is.
#[derive(Clone)]
pub(crate) struct Patient {
    sound: Vec<u8>,
    pub(crate) bytes: Vec<u8>,
    /// Whether the superblock's checksum is put right.
    pub(crate) seals: bool,
}

impl Patient {
    pub(crate) fn new(options: &str, tree: &Tree) -> Option<Self> {
        Some(Self::of(&made(Suite::Newest, options, tree.path())?))
    }

    pub(crate) fn of(made: &Made) -> Self {
        let sound = fs::read(&made.image).unwrap();
        Self {
            bytes: sound.clone(),
            sound,
            seals: true,
        }
    }

    pub(crate) fn heal(&mut self) {
        self.bytes.clone_from(&self.sound);
        self.seals = true;
    }

    /// The image as it was.
    pub(crate) fn image(&self) -> Image<&[u8]> {
        Image::open(&self.sound[..]).unwrap()
    }

    pub(crate) fn find(&self, path: &str) -> Inode {
        self.image().find(path.as_bytes()).unwrap()
    }

    /// Changes the structure at a byte.
    pub(crate) fn modify<T>(&mut self, at: u64, change: impl FnOnce(&mut T))
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        let at = at as usize;
        let part = &mut self.bytes[at..at + size_of::<T>()];
        let mut value = T::read_from_bytes(part).unwrap();
        change(&mut value);
        value.write_to(part).unwrap();
    }

    pub(crate) fn superblock(&mut self, change: impl FnOnce(&mut Superblock)) {
        self.modify(superblock::AT, change);
    }

    pub(crate) fn inode(&mut self, path: &str, change: impl FnOnce(&mut Extended)) {
        let inode = self.find(path);
        assert_eq!((inode.area, inode.length()), (Area::Image, 64));
        self.modify(inode.at, change);
    }

    /// The byte after an inode and its attributes.
    pub(crate) fn body(&self, path: &str) -> u64 {
        let inode = self.find(path);
        inode.at + inode.length() + u64::from(inode.xattr_size)
    }

    pub(crate) fn extents(&self, path: &str) -> Vec<Extent> {
        let image = self.image();
        let map = image.map(&self.find(path)).unwrap();
        map.extents().map(Result::unwrap).collect()
    }

    /// Where byte `offset` of contents that are not compressed lies.
    pub(crate) fn byte(&self, path: &str, offset: u64) -> u64 {
        let extents = self.extents(path);
        let extent = extents
            .iter()
            .rfind(|extent| extent.offset <= offset)
            .unwrap();
        match extent.place {
            Where::Device(Device(0), at, _) | Where::Metadata(Area::Image, at, _) => {
                at + offset - extent.offset
            }
            other => panic!("{other:?}"),
        }
    }

    /// Where the entry of `name` in a directory of one block lies.
    pub(crate) fn entry(&self, directory: &str, name: &str) -> u64 {
        let image = self.image();
        let inode = self.find(directory);
        let mut names = image.entries(&inode).unwrap();
        let index = names
            .position(|entry| entry.unwrap().name == name.as_bytes())
            .unwrap();
        self.byte(directory, (index * ENTRY) as u64)
    }

    /// Where the bytes of a name lie.
    pub(crate) fn name(&self, directory: &str, name: &str) -> usize {
        let at = self.entry(directory, name) as usize;
        let entry = Entry::read_from_bytes(&self.sound[at..at + ENTRY]).unwrap();
        let at = self.byte(directory, entry.name_at.get().into()) as usize;
        assert_eq!(&self.sound[at..at + name.len()], name.as_bytes());
        at
    }

    /// Makes the superblock's checksum right again.
    pub(crate) fn seal(&mut self) {
        let at = superblock::AT as usize;
        let block = 1usize << self.sound[at + 12];
        let length = if block > at { block - at } else { block };
        let Some(part) = self.bytes.get_mut(at..at + length) else {
            return;
        };
        part[4..8].fill(0);
        let sum = !crc32c::crc32c(part);
        part[4..8].copy_from_slice(&sum.to_le_bytes());
    }

    pub(crate) fn check(&mut self) -> Report {
        if self.seals {
            self.seal();
        }
        check(&self.bytes[..], Vec::new(), &Progress::default())
    }
}
