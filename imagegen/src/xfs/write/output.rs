//! How finished blocks of a fork leave an encoder: sealed with address, owner, identity
//! and checksum, wherever the caller placed them.

use crate::xfs::format::checksum;
use crate::xfs::format::dir::{BlockHeader, NodeInfo};
use crate::xfs::geometry::Geometry;
use zerocopy::{Immutable, IntoBytes};

/// The fsblock that holds a block of the fork, given its offset in the fork in blocks.
pub type Place<'a> = &'a dyn Fn(u64) -> u64;

/// Takes finished bytes, a multiple of the block size, that begin at an fsblock.
pub type Sink<'a> = &'a mut dyn FnMut(u64, &[u8]);

/// The blocks of one fork on their way out.
pub(super) struct Output<'a> {
    pub(super) geometry: &'a Geometry,
    /// The inode.
    pub(super) owner: u64,
    pub(super) place: Place<'a>,
    pub(super) sink: Sink<'a>,
}

impl Output<'_> {
    /// Address in units of 512 bytes of the block at `offset` of the fork.
    pub(super) fn daddr(&self, offset: u64) -> u64 {
        self.geometry.daddr((self.place)(offset))
    }

    /// Header of a data block or block of free spaces of a directory, without checksum.
    pub(super) fn block_header(&self, magic: u32, offset: u64) -> BlockHeader {
        BlockHeader {
            magic: magic.into(),
            daddr: self.daddr(offset).into(),
            uuid: *self.geometry.uuid.as_bytes(),
            owner: self.owner.into(),
            ..BlockHeader::default()
        }
    }

    /// Header of a leaf or node between its neighbours, without checksum.
    pub(super) fn node_info(&self, magic: u16, offset: u64, siblings: Siblings) -> NodeInfo {
        NodeInfo {
            forward: siblings.forward.into(),
            back: siblings.back.into(),
            magic: magic.into(),
            daddr: self.daddr(offset).into(),
            uuid: *self.geometry.uuid.as_bytes(),
            owner: self.owner.into(),
            ..NodeInfo::default()
        }
    }

    /// Puts the checksum at `crc_at` and hands out `bytes`, which begin at `offset` of
    /// the fork: in one piece if its blocks follow each other on the device.
    pub(super) fn write(&mut self, offset: u64, bytes: &mut [u8], crc_at: usize) {
        checksum::seal(bytes, crc_at);
        let size = self.geometry.block_size();
        let places: Vec<u64> = (offset..)
            .take(bytes.len() / size)
            .map(self.place)
            .collect();
        let mut rest = &*bytes;
        for run in places.chunk_by(|left, right| left + 1 == *right) {
            let (piece, after) = rest.split_at(run.len() * size);
            (self.sink)(run[0], piece);
            rest = after;
        }
    }
}

/// Neighbours of a leaf or node, in blocks of the fork; 0 for none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Siblings {
    pub(super) forward: u32,
    pub(super) back: u32,
}

/// Writes `value` at `at` of a block.
///
/// # Panics
/// If it does not lie inside the block: a mistake of the encoder.
pub(super) fn put<T: IntoBytes + Immutable + ?Sized>(block: &mut [u8], at: usize, value: &T) {
    let bytes = value.as_bytes();
    block[at..at + bytes.len()].copy_from_slice(bytes);
}
