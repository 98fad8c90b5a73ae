//! What is remembered of every inode: 1 byte of kind and marks, 4 of links still to be
//! found, 8 to compare parent pointers with entries.

use super::inode_trees::InodeTrees;
use crate::xfs::geometry::{CHUNK_INODES, Geometry};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Marks beside the kind, which is `mode >> 12`.
pub(super) mod mark {
    /// Mask of the kind; 0 for free.
    pub(crate) const KIND: u8 = 0x0f;
    /// Kind of one that cannot be read.
    pub(crate) const DAMAGED: u8 = 0x0f;
    /// Its flag says that blocks may be shared.
    pub(crate) const REFLINK: u8 = 0x10;
    /// Belongs to the file system: no entry names it.
    pub(crate) const OWN: u8 = 0x20;
    /// An entry names it.
    pub(crate) const NAMED: u8 = 0x40;
}

pub(super) struct Table {
    /// First index of each group.
    first: Vec<usize>,
    pub(super) marks: Vec<u8>,
    /// Links the inode claims less those found, wrapping.
    pub(super) links: Vec<u32>,
    /// Sum over entries less sum over parent pointers, wrapping.
    pub(super) parents: Vec<u64>,
}

impl Table {
    pub(super) fn new(trees: &InodeTrees, parents: bool) -> Self {
        let mut first = Vec::new();
        let mut count = 0;
        for group in &trees.groups {
            first.push(count);
            count += group.chunks.len() * CHUNK_INODES as usize;
        }
        Self {
            first,
            marks: vec![0; count],
            links: vec![0; count],
            parents: vec![0; if parents { count } else { 0 }],
        }
    }

    /// Where inode `ino` lies in the table; none if no chunk holds it.
    pub(super) fn index(&self, geometry: &Geometry, trees: &InodeTrees, ino: u64) -> Option<usize> {
        let (ag, number) = geometry.inode_group(ino);
        let ag = usize::try_from(ag).ok()?;
        let chunks = &trees.groups.get(ag)?.chunks;
        let after = chunks.partition_point(|chunk| chunk.start.get() <= number);
        let at = after.checked_sub(1)?;
        let inside = number - chunks.get(at)?.start.get();
        let index = *self.first.get(ag)? + at * CHUNK_INODES as usize + inside as usize;
        (inside < CHUNK_INODES).then_some(index)
    }

    /// Adds an entry, or with `add` false a parent pointer, to the comparison.
    pub(super) fn parent(&mut self, index: usize, key: u64, add: bool) {
        if let Some(sum) = self.parents.get_mut(index) {
            *sum = if add {
                sum.wrapping_add(key)
            } else {
                sum.wrapping_sub(key)
            };
        }
    }
}

/// A number for one entry of a directory, the same from both sides.
pub(super) fn entry_key(directory: u64, generation: u32, name: &[u8], child: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (directory, generation, name, child).hash(&mut hasher);
    hasher.finish()
}
