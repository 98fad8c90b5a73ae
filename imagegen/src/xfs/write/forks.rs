//! How the forks of an inode share its room, and where their blocks lie.
//!
//! Attributes stay in the inode if they can, because every file has one at least (its
//! parent pointer) and reading them should cost nothing; the data fork gets the rest.

use super::super::format::btree::rmap_offset::{ATTR_FORK, BMBT_BLOCK};
use super::super::format::extent::Extent;
use super::super::format::inode::format;
use super::super::geometry::Geometry;
use super::attributes::Attributes;
use super::directory::Directory;
use super::inode::Fork;
use super::outlet::Outlet;
use super::space::{For, Piece, Space, SpaceError};
use super::{ForkError, fork_map, symlink};

/// Contents of an inode, before they have a form.
pub(crate) enum Data<'a> {
    /// A device number, zero for pipes and sockets.
    Device(u32),
    /// The extents of a file.
    Extents(Vec<Extent>),
    /// The entries of a directory.
    Directory(Directory<'a>),
    /// The target of a symbolic link.
    Symlink(Box<[u8]>),
}

/// Both forks with their blocks.
pub(crate) struct Forks {
    pub(crate) data: Fork,
    pub(crate) attributes: Option<Fork>,
    /// Bytes of the inode that the data fork gets.
    pub(crate) data_space: usize,
    /// Blocks of both.
    pub(crate) blocks: u64,
    /// The inode's size.
    pub(crate) size: u64,
}

/// Why forks could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error(transparent)]
    Space(#[from] SpaceError),
    #[error(transparent)]
    Fork(#[from] ForkError),
}

/// The least a data fork must keep for the root of a B-tree with three children
/// (`MINDBTPTRS` in `xfs_attr_shortform_bytesfit`).
const LEAST_DATA: usize = 56;
/// The least an attribute fork must keep likewise, with two (`MINABTPTRS`).
const LEAST_ATTRIBUTES: usize = 40;
/// The data fork of a device (`xfs_dinode_verify_forkoff`).
const DEVICE: usize = 8;

/// Places the forks of inode `ino`, whose file is `size` bytes long if it is one.
pub(crate) fn place<'a>(
    geometry: &'a Geometry,
    space: &mut Space<'_>,
    ino: u64,
    data: Data<'a>,
    attributes: Attributes<'a>,
    outlet: &mut Outlet<'_, '_>,
) -> Result<Forks, PlaceError> {
    let room = geometry.forks_size();
    let mut maker = Maker {
        geometry,
        space,
        ino,
        outlet,
        count: 0,
    };
    let (attributes, taken) = if attributes.is_empty() {
        (None, 0)
    } else {
        let least = if matches!(data, Data::Device(_)) {
            DEVICE
        } else {
            LEAST_DATA
        };
        let fork = maker.attributes(attributes, room - least)?;
        let taken = fork.bytes.len().next_multiple_of(8).max(LEAST_ATTRIBUTES);
        (Some(fork), taken)
    };
    let data_space = if matches!(data, Data::Device(_)) {
        DEVICE
    } else {
        room - taken
    };
    let (data, size) = maker.data(data, data_space)?;
    let blocks = maker.count;
    Ok(Forks {
        data,
        attributes,
        data_space,
        blocks,
        size,
    })
}

/// Makes the forks of one inode.
struct Maker<'a, 'b, 's, 'c, 'd> {
    geometry: &'a Geometry,
    space: &'b mut Space<'s>,
    ino: u64,
    outlet: &'b mut Outlet<'c, 'd>,
    /// Blocks both forks take.
    count: u64,
}

impl<'a> Maker<'a, '_, '_, '_, '_> {
    fn attributes(&mut self, attributes: Attributes<'a>, space: usize) -> Result<Fork, PlaceError> {
        let fork = attributes.finish(self.ino, space)?;
        if let Some(short) = fork.short_form().filter(|_| fork.ranges().is_empty()) {
            return Ok(Fork {
                format: format::LOCAL,
                bytes: short.to_vec(),
                extents: 0,
            });
        }
        let extents = self.allocate(&fork.ranges(), ATTR_FORK, 1)?;
        let outlet = &mut *self.outlet;
        fork.encode(&|offset| at(&extents, offset), &mut |block, bytes| {
            outlet.put(block, bytes)
        });
        self.map(&extents, space, ATTR_FORK)
    }

    fn data(&mut self, data: Data<'a>, space: usize) -> Result<(Fork, u64), PlaceError> {
        match data {
            Data::Device(number) => {
                let bytes = number.to_be_bytes().to_vec();
                Ok((
                    Fork {
                        format: format::DEV,
                        bytes,
                        extents: 0,
                    },
                    0,
                ))
            }
            Data::Extents(extents) => {
                self.count += extents.iter().map(|extent| extent.count).sum::<u64>();
                Ok((self.map(&extents, space, 0)?, 0))
            }
            Data::Directory(directory) => self.directory(directory, space),
            Data::Symlink(target) => self.symlink(&target, space),
        }
    }

    fn directory(
        &mut self,
        directory: Directory<'a>,
        space: usize,
    ) -> Result<(Fork, u64), PlaceError> {
        let fork = directory.finish(space)?;
        let size = fork.size();
        if let Some(short) = fork.short_form() {
            let bytes = short.to_vec();
            return Ok((
                Fork {
                    format: format::LOCAL,
                    bytes,
                    extents: 0,
                },
                size,
            ));
        }
        let granule = self.geometry.dir_block_blocks() as u32;
        let extents = self.allocate(&fork.ranges(), 0, granule)?;
        let outlet = &mut *self.outlet;
        fork.encode(&|offset| at(&extents, offset), &mut |block, bytes| {
            outlet.put(block, bytes)
        });
        Ok((self.map(&extents, space, 0)?, size))
    }

    fn symlink(&mut self, target: &[u8], space: usize) -> Result<(Fork, u64), PlaceError> {
        let size = target.len() as u64;
        if symlink::is_inline(target, space) {
            let bytes = target.to_vec();
            return Ok((
                Fork {
                    format: format::LOCAL,
                    bytes,
                    extents: 0,
                },
                size,
            ));
        }
        let count = symlink::blocks_needed(self.geometry, target);
        let extents = self.allocate(&[(0, count)], 0, 1)?;
        let outlet = &mut *self.outlet;
        symlink::encode(
            self.geometry,
            self.ino,
            target,
            &|offset| at(&extents, offset),
            &mut |block, bytes| outlet.put(block, bytes),
        );
        Ok((self.map(&extents, space, 0)?, size))
    }

    /// Blocks for `ranges` of a fork, whose reverse mappings carry `flags`.
    fn allocate(
        &mut self,
        ranges: &[(u64, u64)],
        flags: u64,
        granule: u32,
    ) -> Result<Vec<Extent>, PlaceError> {
        let mut extents = Vec::new();
        for &(offset, count) in ranges {
            let whom = For {
                owner: self.ino,
                offset: offset | flags,
                moves: true,
            };
            let pieces = self.space.blocks(count, granule, whom)?;
            append(&mut extents, offset, &pieces);
            self.count += count;
        }
        Ok(extents)
    }

    /// Extents are counted in 31 bits, and in 15 for attributes, without nrext64
    /// (`XFS_MAX_EXTCNT_DATA_FORK_SMALL` and `_ATTR_FORK_SMALL`).
    fn check_count(&self, extents: usize, flags: u64) -> Result<(), ForkError> {
        let most = if flags & ATTR_FORK == 0 {
            i32::MAX as usize
        } else {
            i16::MAX as usize
        };
        if extents > most && !self.geometry.features.nrext64 {
            return Err(ForkError::TooMany {
                what: "extents (without the feature nrext64)",
            });
        }
        Ok(())
    }

    /// The fork that has `extents`, with the blocks of its B-tree if it needs one.
    fn map(&mut self, extents: &[Extent], space: usize, flags: u64) -> Result<Fork, PlaceError> {
        self.check_count(extents.len(), flags)?;
        let needed = fork_map::blocks_needed(self.geometry, extents.len(), space)?;
        let whom = For {
            owner: self.ino,
            offset: flags | BMBT_BLOCK,
            moves: false,
        };
        let pieces = self.space.blocks(needed, 1, whom)?;
        let places: Vec<u64> = pieces
            .iter()
            .flat_map(|piece| piece.block..piece.block + piece.count)
            .collect();
        self.count += needed;
        let outlet = &mut *self.outlet;
        let fork = fork_map::encode(
            self.geometry,
            self.ino,
            extents,
            space,
            &places,
            &mut |block, bytes| outlet.put(block, bytes),
        )?;
        Ok(Fork {
            format: fork.format,
            bytes: fork.bytes,
            extents: extents.len() as u64,
        })
    }
}

/// Adds pieces to a fork from `offset` on; one that continues the last extent joins it.
pub(crate) fn append(extents: &mut Vec<Extent>, offset: u64, pieces: &[Piece]) {
    let mut offset = offset;
    for piece in pieces {
        let next = Extent {
            offset,
            block: piece.block,
            count: piece.count,
            unwritten: false,
        };
        offset += piece.count;
        match extents.last_mut() {
            Some(last) if continues(last, &next) => last.count += next.count,
            _ => extents.push(next),
        }
    }
}

fn continues(last: &Extent, next: &Extent) -> bool {
    last.offset + last.count == next.offset
        && last.block + last.count == next.block
        && last.count + next.count <= super::super::format::extent::MAX_LENGTH
}

/// The fsblock at `offset` of a fork with these extents, which hold it.
fn at(extents: &[Extent], offset: u64) -> u64 {
    let after = extents.partition_point(|extent| extent.offset <= offset);
    extents
        .get(after.saturating_sub(1))
        .map_or(0, |extent| extent.block + (offset - extent.offset))
}
