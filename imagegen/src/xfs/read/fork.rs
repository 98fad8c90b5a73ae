//! The extents of a fork, from the list in the inode or from its B-tree.

use super::btree::{TreeOwner, Visit, Walk, children};
use super::tree::Tree;
use super::{Bmap, Inode, Place, Reader, Result, Source, shape};
use crate::xfs::format::btree::ForkRoot;
use crate::xfs::format::extent::{Extent, MAX_OFFSET, Packed};
use crate::xfs::format::inode::format;
use crate::xfs::geometry::Geometry;
use std::fmt;
use std::ops::Range;
use zerocopy::FromBytes;

/// One of the two forks of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Contents.
    Data,
    /// Extended attributes.
    Attr,
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "data",
            Self::Attr => "attribute",
        })
    }
}

/// Why an extent cannot be.
pub(super) fn bad_extent(geometry: &Geometry, extent: &Extent) -> Option<&'static str> {
    if extent.count == 0 {
        Some("an extent without blocks")
    } else if !geometry.holds(extent.block, extent.count) {
        Some("an extent outside its group")
    } else if extent.offset + extent.count > MAX_OFFSET + 1 {
        Some("an extent beyond the largest offset")
    } else {
        None
    }
}

/// The extents of a fork in order, and the blocks of its B-tree.
pub struct Extents<'r, S> {
    from: From<'r, S>,
    place: Place,
    /// Where the next extent may begin.
    next: u64,
}

enum From<'r, S> {
    List(std::vec::IntoIter<Extent>),
    Tree(Box<Walk<'r, S, Bmap>>),
}

impl<S: Source> Extents<'_, S> {
    /// The next extent, or block of the B-tree. Extents rise and do not overlap.
    pub fn visit(&mut self) -> Option<Result<Visit<Extent>>> {
        let extent = match &mut self.from {
            From::List(list) => list.next()?,
            From::Tree(walk) => match walk.next()? {
                Ok(Visit::Record(packed)) => Extent::unpack(&packed),
                Ok(Visit::Block { fsblock, level }) => {
                    return Some(Ok(Visit::Block { fsblock, level }));
                }
                Err(error) => return Some(Err(error)),
            },
        };
        if extent.offset < self.next {
            let text = format!("the extent at offset {} overlaps", extent.offset);
            return Some(Err(shape(Bmap::NAME, self.place, text)));
        }
        self.next = extent.offset + extent.count;
        Some(Ok(Visit::Record(extent)))
    }
}

impl<S: Source> Iterator for Extents<'_, S> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.visit()? {
                Ok(Visit::Record(extent)) => return Some(Ok(extent)),
                Ok(Visit::Block { .. }) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl<S: Source> Reader<S> {
    /// The extents of a fork that touch `range`, given in blocks. A fork in the inode
    /// itself has none.
    ///
    /// # Errors
    /// If the list or the root of the B-tree cannot be.
    pub fn extents(
        &self,
        inode: &Inode,
        which: Which,
        range: Range<u64>,
    ) -> Result<Extents<'_, S>> {
        let place = Place::Inode(inode.ino);
        let from = match inode.form(which) {
            format::EXTENTS => From::List(self.extent_list(inode, which, &range)?.into_iter()),
            format::BTREE => From::Tree(Box::new(self.extent_tree(inode, which, range)?)),
            _ => From::List(Vec::new().into_iter()),
        };
        Ok(Extents {
            from,
            place,
            next: 0,
        })
    }

    fn extent_list(&self, inode: &Inode, which: Which, range: &Range<u64>) -> Result<Vec<Extent>> {
        let records = inode.fork(which).chunks_exact(size_of::<Packed>());
        let count = usize::try_from(inode.extent_count(which)).unwrap_or(usize::MAX);
        let mut list = Vec::new();
        for bytes in records.take(count) {
            let Ok(packed) = Packed::read_from_bytes(bytes) else {
                continue;
            };
            let extent = Extent::unpack(&packed);
            if let Some(flaw) = bad_extent(&self.geometry, &extent) {
                let text = format!("{which} fork: {flaw}: {extent:?}");
                return Err(shape("inode", Place::Inode(inode.ino), text));
            }
            if extent.offset < range.end && extent.offset + extent.count > range.start {
                list.push(extent);
            }
        }
        Ok(list)
    }

    fn extent_tree(
        &self,
        inode: &Inode,
        which: Which,
        range: Range<u64>,
    ) -> Result<Walk<'_, S, Bmap>> {
        let bad = |text: String| shape(Bmap::NAME, Place::Inode(inode.ino), text);
        let fork = inode.fork(which);
        let (root, body) = ForkRoot::read_from_prefix(fork)
            .map_err(|_| bad(format!("no room for the root of the {which} fork")))?;
        let (level, count) = (u32::from(root.level.get()), usize::from(root.count.get()));
        let most = body.len() / 16;
        if level == 0 || level > super::group::MAX_LEVELS || count == 0 || count > most {
            let text = format!("root of the {which} fork: {count} children of level {level}");
            return Err(bad(text));
        }
        let children = children::<Bmap>(body, count, most, |block| block)
            .ok_or_else(|| bad("keys that cannot be read".into()))?;
        if children.windows(2).any(|two| two[0].low >= two[1].low) {
            return Err(bad(format!("root of the {which} fork: keys out of order")));
        }
        let owner = TreeOwner::Fork(inode.ino);
        Ok(Walk::of_fork(self, owner, level - 1, children, range))
    }
}

/// The extents of a fork of directory or attribute blocks, held in memory for looking up
/// blocks in any order. No larger than the fork's own list of extents.
#[derive(Debug)]
pub struct ForkMap {
    pub(crate) ino: u64,
    pub(crate) which: Which,
    extents: Vec<Extent>,
}

impl ForkMap {
    /// Reads all extents of a fork.
    ///
    /// # Errors
    /// If any is damaged.
    pub fn load<S: Source>(reader: &Reader<S>, inode: &Inode, which: Which) -> Result<Self> {
        let extents = reader.extents(inode, which, 0..u64::MAX)?;
        Ok(Self {
            ino: inode.ino,
            which,
            extents: extents.collect::<Result<_>>()?,
        })
    }

    /// The extents, by offset.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The fsblock at block `offset` of the fork, and how many follow it there.
    pub fn find(&self, offset: u64) -> Option<(u64, u64)> {
        let after = self
            .extents
            .partition_point(|extent| extent.offset <= offset);
        let extent = self.extents.get(after.checked_sub(1)?)?;
        let inside = offset - extent.offset;
        (inside < extent.count).then(|| (extent.block + inside, extent.count - inside))
    }

    /// Blocks of the fork.
    pub fn blocks(&self) -> u64 {
        self.extents.iter().map(|extent| extent.count).sum()
    }

    /// The place of block `offset`.
    pub fn place(&self, offset: u64) -> Place {
        Place::Fork(self.ino, self.which == Which::Attr, offset)
    }

    /// `count` blocks of the fork from `offset` on, which may lie in several extents, and
    /// the daddr of the first.
    ///
    /// # Errors
    /// If one of them is a hole or cannot be read.
    pub(crate) fn read<S: Source>(
        &self,
        reader: &Reader<S>,
        offset: u64,
        count: u64,
    ) -> Result<(Vec<u8>, u64)> {
        let hole = || shape("fork", self.place(offset), "a block is missing");
        let (first, run) = self.find(offset).ok_or_else(hole)?;
        let geometry = reader.geometry();
        let daddr = geometry.daddr(first);
        let size = geometry.block_size();
        if run >= count {
            return Ok((
                reader.bytes(geometry.byte_of(first), count as usize * size)?,
                daddr,
            ));
        }
        let mut bytes = Vec::new();
        for block in offset..offset + count {
            let (fsblock, _) = self.find(block).ok_or_else(hole)?;
            bytes.extend(reader.block(fsblock)?);
        }
        Ok((bytes, daddr))
    }
}
