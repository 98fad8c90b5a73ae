//! Reading XFS version 5, trusting nothing.
//!
//! A [`Reader`] stands on anything that gives bytes at offsets. Whatever it hands out was
//! verified: checksum, magic number, identity, own address and owner of its block, and
//! every field that a place or a length is computed from. It writes nothing, keeps no
//! cache and no state, so several threads may use one.
//!
//! Bounds: no recursion; a walk through a tree holds one path of it and one leaf; a
//! B-tree's child must begin with the key its parent says, and keys rise, so a block
//! that is reached twice is refused the second time and no cycle is walked; nothing is
//! allocated by a length from the disk that was not compared with what can be there.

pub mod attr;
mod block;
pub mod btree;
mod chunk;
pub mod dir;
mod error;
mod file;
mod fork;
mod group;
mod inode;

mod tree;

pub use crate::medium::Source;
pub use chunk::Chunk;
pub use error::{Flaw, Place, ReadError, Result};
pub use fork::{Extents, ForkMap, Which};
pub use inode::Inode;
pub use tree::{Bmap, Bno, Cnt, Finobt, Inobt, Refcount, Rmap, Tree};

pub(crate) use block::Label;
pub(crate) use error::{damaged, shape};
pub(crate) use tree::existing;

use super::format::superblock::{self, Superblock, incompat};
use super::geometry::Geometry;
use zerocopy::FromBytes;

/// A file system that is read.
#[derive(Debug)]
pub struct Reader<S> {
    source: S,
    size: u64,
    geometry: Geometry,
    superblock: Superblock,
    meta_uuid: [u8; 16],
    newest: Option<u64>,
}

impl<S: Source> Reader<S> {
    /// Reads the superblock of `source` and believes it once its checksum and its fields
    /// were checked.
    ///
    /// # Errors
    /// If it cannot be read, is no XFS that csnap reads, or is damaged.
    pub fn open(source: S) -> Result<Self> {
        let mut start = vec![0; size_of::<Superblock>()];
        read_exactly(&source, 0, &mut start)?;
        let superblock: Superblock = take("superblock", Place::Group(0), &start, 0)?;
        let geometry = Geometry::from_superblock(&superblock)?;
        let mut sector = vec![0; geometry.sector_size()];
        read_exactly(&source, 0, &mut sector)?;
        if !super::format::checksum::holds(&sector, superblock::CRC_AT) {
            return Err(damaged("superblock", Place::Group(0), Flaw::Checksum));
        }
        let other = superblock.features_incompat.get() & incompat::META_UUID != 0;
        let size = source.size().map_err(|cause| ReadError::Io {
            offset: 0,
            length: 0,
            cause,
        })?;
        Ok(Self {
            source,
            size,
            meta_uuid: if other {
                superblock.meta_uuid
            } else {
                superblock.uuid
            },
            geometry,
            superblock,
            newest: None,
        })
    }

    /// From here on refuses what was changed after `newest`, a sequence number of the
    /// log, as the kernel does (`xfs_log_check_lsn`).
    pub fn set_newest(&mut self, newest: Option<u64>) {
        self.newest = newest;
    }

    /// Where things lie.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The first superblock, as it was when the reader was opened.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The identity that metadata carries.
    pub fn meta_uuid(&self) -> &[u8; 16] {
        &self.meta_uuid
    }

    /// What it reads from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Bytes of the image or device.
    pub fn device_size(&self) -> u64 {
        self.size
    }

    /// `length` bytes of the device from byte `offset` on.
    pub(crate) fn bytes(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let end = offset.checked_add(length as u64);
        if end.is_none_or(|end| end > self.size) {
            let cause = std::io::ErrorKind::UnexpectedEof.into();
            return Err(ReadError::Io {
                offset,
                length,
                cause,
            });
        }
        let mut bytes = vec![0; length];
        read_exactly(&self.source, offset, &mut bytes)?;
        Ok(bytes)
    }

    /// One block, given as fsblock.
    pub(crate) fn block(&self, fsblock: u64) -> Result<Vec<u8>> {
        self.bytes(self.geometry.byte_of(fsblock), self.geometry.block_size())
    }

    /// The place of an fsblock.
    pub(crate) fn place(&self, fsblock: u64) -> Place {
        let (ag, block) = self.geometry.group_of(fsblock);
        Place::Block(ag as u32, block)
    }
}

fn read_exactly<S: Source>(source: &S, offset: u64, buffer: &mut [u8]) -> Result<()> {
    let length = buffer.len();
    source
        .read_at(offset, buffer)
        .map_err(|cause| ReadError::Io {
            offset,
            length,
            cause,
        })
}

/// The structure at byte `at` of `bytes`; an error if it does not fit.
pub(crate) fn take<T: FromBytes>(
    structure: &'static str,
    place: Place,
    bytes: &[u8],
    at: usize,
) -> Result<T> {
    bytes
        .get(at..)
        .and_then(|rest| T::read_from_prefix(rest).ok())
        .map(|(value, _)| value)
        .ok_or_else(|| {
            shape(
                structure,
                place,
                format!("it ends before byte {at} is whole"),
            )
        })
}
