//! Chunks of 64 inodes, read in one go.

use super::tree::existing;
use super::{Inode, Place, Reader, Result, Source, shape};
use crate::xfs::format::btree::InodeRecord;
use crate::xfs::geometry::CHUNK_INODES;

/// The inodes of one record of the inode B-tree.
#[derive(Debug)]
pub struct Chunk {
    /// Group.
    pub ag: u32,
    /// The record.
    pub record: InodeRecord,
    first: u64,
    bytes: Vec<u8>,
    size: usize,
}

impl<S: Source> Reader<S> {
    /// Reads the inodes of `record` of group `ag`, verifying none yet.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn chunk(&self, ag: u32, record: &InodeRecord) -> Result<Chunk> {
        let size = self.geometry.inode_size();
        let first = self.geometry.inode(ag, record.start.get());
        let exist = existing(record);
        let skip = exist.trailing_zeros().min(CHUNK_INODES - 1) as usize;
        let end = (CHUNK_INODES - exist.leading_zeros().min(CHUNK_INODES - 1)) as usize;
        let mut bytes = vec![0; skip * size];
        let from = self.geometry.inode_byte(first) + (skip * size) as u64;
        bytes.extend(self.bytes(from, (end.max(skip) - skip) * size)?);
        Ok(Chunk {
            ag,
            record: *record,
            first,
            bytes,
            size,
        })
    }

    /// Inode `ino`, verified, and in use.
    ///
    /// # Errors
    /// If there can be none of that number, it cannot be read, is damaged or free.
    pub fn inode(&self, ino: u64) -> Result<Inode> {
        let (ag, number) = self.geometry.inode_group(ino);
        let block = number >> self.geometry.inodes_per_block_log();
        let exists =
            ag < self.geometry.ag_count.into() && block < self.geometry.group_blocks(ag as u32);
        if !exists {
            return Err(shape(
                "inode",
                Place::Inode(ino),
                "no inode has this number",
            ));
        }
        let bytes = self.bytes(self.geometry.inode_byte(ino), self.geometry.inode_size())?;
        let inode = Inode::parse(self, ino, bytes)?;
        if inode.core.mode.get() == 0 {
            return Err(shape("inode", Place::Inode(ino), "it is free"));
        }
        Ok(inode)
    }
}

impl Chunk {
    /// Numbers of the inodes that exist, each with whether the record calls it free.
    pub fn numbers(&self) -> impl Iterator<Item = (u64, bool)> + use<> {
        let (first, exist, free) = (self.first, existing(&self.record), self.record.free.get());
        (0..u64::from(CHUNK_INODES))
            .filter(move |index| exist >> index & 1 == 1)
            .map(move |index| (first + index, free >> index & 1 == 1))
    }

    /// One of its inodes, verified; of a free one the mode is 0.
    ///
    /// # Errors
    /// If it is not of the chunk, or is damaged.
    pub fn inode<S: Source>(&self, reader: &Reader<S>, ino: u64) -> Result<Inode> {
        let at = ino
            .checked_sub(self.first)
            .map(|index| index as usize * self.size);
        let bytes = at.and_then(|at| self.bytes.get(at..at + self.size));
        match bytes {
            Some(bytes) => Inode::parse(reader, ino, bytes.to_vec()),
            None => Err(shape("inode", Place::Inode(ino), "not of this chunk")),
        }
    }
}
