//! Which extents a fork has: a list in the inode, or a B-tree whose root lies there
//! (`xfs_bmap_btree.c`).

use super::ForkError;
use super::hash_tree::share;
use super::output::{Sink, put};
use crate::xfs::format::btree::{ForkRoot, LONG_CRC_AT, LongHeader, magic};
use crate::xfs::format::extent::{Extent, Packed};
use crate::xfs::format::{NULL_FS_BLOCK, U64, checksum, inode};
use crate::xfs::geometry::Geometry;

/// Bytes of a key with its pointer.
const CHILD: usize = size_of::<U64>() + size_of::<U64>();

/// A fork as it lies in the inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFork {
    /// `format::inode::format::EXTENTS` or `BTREE`.
    pub format: u8,
    /// Its bytes, at most the space given.
    pub bytes: Vec<u8>,
}

/// A block of a tree that was handed out: what its parent says of it.
#[derive(Clone, Copy)]
struct Child {
    /// First offset below it.
    key: u64,
    block: u64,
}

/// Extents that the inode itself holds in `space` bytes.
pub fn inline_extents(space: usize) -> usize {
    space / size_of::<Packed>()
}

/// Blocks of the B-tree for `extents` extents, its root having `space` bytes in the
/// inode; 0 if the inode holds them itself.
///
/// # Errors
/// If they do not fit the inode, and not even the smallest root does.
pub fn blocks_needed(geometry: &Geometry, extents: usize, space: usize) -> Result<u64, ForkError> {
    if extents <= inline_extents(space) {
        return Ok(0);
    }
    let widths = widths(geometry, extents, space)?;
    Ok(widths.iter().map(|&width| width as u64).sum())
}

/// The fork of inode `owner` with these extents, sorted and without overlap, none longer
/// than a record can say. Blocks of the tree are handed out at `blocks`, of which there
/// must be as many as [`blocks_needed`] says.
///
/// # Errors
/// As [`blocks_needed`], or if `blocks` are too few.
pub fn encode(
    geometry: &Geometry,
    owner: u64,
    extents: &[Extent],
    space: usize,
    blocks: &[u64],
    sink: Sink<'_>,
) -> Result<InlineFork, ForkError> {
    debug_assert!(extents.is_sorted_by(|a, b| a.offset + a.count <= b.offset));
    debug_assert!(extents.iter().all(|extent| extent.count > 0));
    if extents.len() <= inline_extents(space) {
        let mut bytes = vec![0; extents.len() * size_of::<Packed>()];
        put_records(&mut bytes, 0, extents);
        return Ok(InlineFork {
            format: inode::format::EXTENTS,
            bytes,
        });
    }
    let widths = widths(geometry, extents.len(), space)?;
    let mut tree = Tree {
        geometry,
        owner,
        blocks,
        sink,
    };
    let mut children = tree.leaves(extents, widths[0])?;
    for (below, &width) in widths.iter().enumerate().skip(1) {
        children = tree.nodes(&children, width, below as u16)?;
    }
    Ok(InlineFork {
        format: inode::format::BTREE,
        bytes: root(&children, widths.len() as u16, space),
    })
}

/// Records of a leaf, and children of a node (`xfs_bmbt_maxrecs`).
fn per_block(geometry: &Geometry) -> usize {
    (geometry.block_size() - size_of::<LongHeader>()) / size_of::<Packed>()
}

/// Children of a root in the inode (`xfs_bmdr_maxrecs`).
fn per_root(space: usize) -> usize {
    space.saturating_sub(size_of::<ForkRoot>()) / CHILD
}

/// Blocks of each level from the leaves, until the root holds all of one level.
fn widths(geometry: &Geometry, extents: usize, space: usize) -> Result<Vec<usize>, ForkError> {
    let (most, root) = (per_block(geometry), per_root(space));
    if root == 0 {
        return Err(ForkError::NoRoom { space });
    }
    let leaves = extents.div_ceil(most);
    let above = |&width: &usize| (width > root).then(|| width.div_ceil(most));
    Ok(std::iter::successors(Some(leaves), above).collect())
}

/// The tree on its way out.
struct Tree<'a> {
    geometry: &'a Geometry,
    owner: u64,
    /// Blocks not yet used.
    blocks: &'a [u64],
    sink: Sink<'a>,
}

impl<'a> Tree<'a> {
    fn leaves(&mut self, extents: &[Extent], width: usize) -> Result<Vec<Child>, ForkError> {
        self.level(width, 0, |block, index| {
            let records = &extents[share(extents.len(), width, index)];
            put_records(block, size_of::<LongHeader>(), records);
            (records.len(), records[0].offset)
        })
    }

    fn nodes(
        &mut self,
        below: &[Child],
        width: usize,
        level: u16,
    ) -> Result<Vec<Child>, ForkError> {
        let most = per_block(self.geometry);
        self.level(width, level, |block, index| {
            let children = &below[share(below.len(), width, index)];
            put_children(block, size_of::<LongHeader>(), most, children);
            (children.len(), children[0].key)
        })
    }

    /// Hands out the `width` blocks of a level. `fill` puts in what is after the header
    /// and says how many records or keys that is, and the first offset.
    fn level(
        &mut self,
        width: usize,
        level: u16,
        fill: impl Fn(&mut [u8], usize) -> (usize, u64),
    ) -> Result<Vec<Child>, ForkError> {
        let (places, rest) = self
            .blocks
            .split_at_checked(width)
            .ok_or(ForkError::TooFewBlocks)?;
        self.blocks = rest;
        let mut children = Vec::with_capacity(width);
        for (index, &place) in places.iter().enumerate() {
            let neighbour = |index: Option<usize>| {
                index
                    .and_then(|index| places.get(index))
                    .copied()
                    .unwrap_or(NULL_FS_BLOCK)
            };
            let mut block = vec![0; self.geometry.block_size()];
            let (count, key) = fill(&mut block, index);
            let header = LongHeader {
                magic: magic::BMAP.into(),
                level: level.into(),
                count: (count as u16).into(),
                left: neighbour(index.checked_sub(1)).into(),
                right: neighbour(index.checked_add(1)).into(),
                daddr: self.geometry.daddr(place).into(),
                uuid: *self.geometry.uuid.as_bytes(),
                owner: self.owner.into(),
                ..LongHeader::default()
            };
            put(&mut block, 0, &header);
            checksum::seal(&mut block, LONG_CRC_AT);
            (self.sink)(place, &block);
            children.push(Child { key, block: place });
        }
        Ok(children)
    }
}

fn root(children: &[Child], level: u16, space: usize) -> Vec<u8> {
    let most = per_root(space);
    let mut bytes = vec![0; size_of::<ForkRoot>() + most * CHILD];
    let header = ForkRoot {
        level: level.into(),
        count: (children.len() as u16).into(),
    };
    put(&mut bytes, 0, &header);
    put_children(&mut bytes, size_of::<ForkRoot>(), most, children);
    bytes
}

fn put_records(block: &mut [u8], mut at: usize, extents: &[Extent]) {
    for extent in extents {
        put(block, at, &extent.pack());
        at += size_of::<Packed>();
    }
}

/// Keys from `at`, pointers after the place for `most` keys.
fn put_children(block: &mut [u8], at: usize, most: usize, children: &[Child]) {
    let size = size_of::<U64>();
    for (index, child) in children.iter().enumerate() {
        put(block, at + index * size, &U64::new(child.key));
        put(block, at + (most + index) * size, &U64::new(child.block));
    }
}
