//! Where everything lies in an image: inodes in the order of the version, behind them the
//! shared attributes, then whole blocks.

use super::attributes::Shared;
use super::directory::divide;
use super::limits::chunk_bits;
use super::tree::{Body, Number, Object, ROOT, Tree};
use super::{BLOCK, ComposefsError, Version};
use crate::erofs::format::inode::{COMPACT, EXTENDED};
use crate::erofs::format::superblock::{AT, SIZE};
use crate::erofs::format::{NID_UNIT, chunk, xattr};
use crate::tree::Time;
use rustc_hash::FxHashSet;
use std::collections::VecDeque;

/// Where the first inode can lie.
pub(super) const FIRST: u64 = AT + SIZE as u64;

/// Where an object lies.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    /// Of its inode, in bytes.
    pub(super) at: u64,
    /// Whether that is the short form.
    pub(super) compact: bool,
    /// Bytes of its attributes there.
    pub(super) xattrs: u32,
    /// Blocks, and the first one if there are any.
    pub(super) blocks: u32,
    pub(super) first_block: u32,
    /// Bytes behind the inode's attributes.
    pub(super) tail: u32,
}

impl Place {
    pub(super) fn nid(&self) -> u64 {
        self.at / NID_UNIT
    }

    pub(super) fn inode(&self) -> u64 {
        match self.compact {
            true => COMPACT as u64,
            false => EXTENDED as u64,
        }
    }

    /// Where the inode, its attributes and its tail end.
    fn end(&self) -> u64 {
        self.at + self.inode() + u64::from(self.xattrs) + u64::from(self.tail)
    }
}

/// Where everything lies.
pub(super) struct Places {
    /// Objects in the order of their inodes.
    pub(super) order: Vec<Number>,
    /// By the object's number.
    by_number: Vec<Place>,
    /// Smallest time, which compact inodes have.
    pub(super) epoch: Time,
    /// Where the shared attributes begin: behind the last inode.
    pub(super) shared: u64,
    /// First block behind them.
    pub(super) data_block: u64,
    /// All blocks.
    pub(super) blocks: u32,
}

impl Places {
    /// # Errors
    /// If something lies where no number reaches.
    pub(super) fn of(
        tree: &Tree,
        shared: &Shared<'_>,
        version: Version,
    ) -> Result<Self, ComposefsError> {
        let order = match version {
            Version::V2 => depth_first(tree),
            _ => breadth_first(tree),
        };
        let epoch = tree.objects().map(|object| object.mtime).min();
        let epoch = epoch.unwrap_or_default();
        let mut by_number = vec![Place::default(); tree.len()];
        let mut at = FIRST;
        for &number in &order {
            let Some((object, place)) = tree.object(number).zip(by_number.get_mut(number as usize))
            else {
                continue;
            };
            *place = sized(object, shared, version, epoch)
                .map_err(|reason| tree.forbidden(number, reason))?;
            place.at = at.next_multiple_of(NID_UNIT);
            match version {
                Version::V2 => put_extended(place, object),
                _ => put(place, object),
            }
            at = place.end();
        }
        let shared_at = at.next_multiple_of(NID_UNIT);
        let data_block = (shared_at + shared.length()).div_ceil(BLOCK);
        let mut next = data_block;
        for &number in &order {
            if let Some(place) = by_number.get_mut(number as usize)
                && place.blocks > 0
            {
                place.first_block = next as u32; // checked below
                next += u64::from(place.blocks);
            }
        }
        let too_large = || ComposefsError::TooLarge { blocks: next };
        // Version 2 numbers shared attributes from the image's beginning.
        let reach = u64::from(u32::MAX) * xattr::ALIGN as u64;
        if version == Version::V2 && data_block * BLOCK > reach {
            return Err(too_large());
        }
        Ok(Self {
            order,
            by_number,
            epoch,
            shared: shared_at,
            data_block,
            blocks: u32::try_from(next).map_err(|_| too_large())?,
        })
    }

    pub(super) fn of_object(&self, number: Number) -> Place {
        self.by_number
            .get(number as usize)
            .copied()
            .unwrap_or_default()
    }
}

/// How large an object is in the image, before it is known where it lies.
fn sized(
    object: &Object,
    shared: &Shared<'_>,
    version: Version,
    epoch: Time,
) -> Result<Place, String> {
    let bytes = shared.size(&object.xattrs);
    let most = xattr::HEADER + (usize::from(u16::MAX) - 1) * xattr::ALIGN;
    if bytes > most {
        return Err(format!(
            "its attributes take {bytes} bytes, at most {most} fit"
        ));
    }
    let (blocks, tail) = match &object.body {
        Body::Directory(entries) => {
            let division = divide(entries.keys().map(|name| name.len()));
            (division.blocks.len(), division.tail_length)
        }
        Body::Symlink(target) => (0, target.len()),
        Body::Inline(bytes) if version == Version::V2 => (0, bytes.len()),
        Body::Inline(bytes) => inline(bytes.len()),
        Body::External(_) if version == Version::V2 => (0, chunk::BLOCK_ENTRY),
        Body::External(_) => {
            let chunks = object.size.div_ceil(1 << chunk_bits(object.size)) as usize;
            (0, chunks * chunk::BLOCK_ENTRY)
        }
        _ => (0, 0),
    };
    let blocks = u32::try_from(blocks).map_err(|_| "too large a directory")?;
    let place = Place {
        xattrs: bytes as u32,
        blocks,
        tail: tail as u32,
        ..Place::default()
    };
    Ok(Place {
        compact: version != Version::V2 && fits_compact(object, &place, epoch),
        ..place
    })
}

/// Whole blocks and tail of a file in the image; a tail of more than half a block gets one.
fn inline(bytes: usize) -> (usize, usize) {
    let block = BLOCK as usize;
    match (bytes / block, bytes % block) {
        (blocks, tail) if tail > block / 2 => (blocks + 1, 0),
        divided => divided,
    }
}

fn fits_compact(object: &Object, place: &Place, epoch: Time) -> bool {
    let size = match object.body {
        Body::Directory(_) => u64::from(place.blocks) * BLOCK + u64::from(place.tail),
        _ => object.size,
    };
    let short = |number: u32| number <= u16::MAX.into();
    object.mtime == epoch
        && [object.nlink, object.uid, object.gid]
            .into_iter()
            .all(short)
        && size <= u32::MAX.into()
}

/// Moves an object of version 0 or 1 on, so that its tail lies in one block; what cannot is
/// put into a block.
fn put(place: &mut Place, object: &Object) {
    let tail = u64::from(place.tail);
    let fixed = place.inode() + u64::from(place.xattrs);
    if let Body::Symlink(_) = object.body {
        // Inode and target are to lie in one block, or the target in one of its own.
        let (first, last) = (place.at / BLOCK, (place.end() - 1) / BLOCK);
        if fixed + tail >= BLOCK {
            place.blocks += 1;
            place.tail = 0;
        }
        if first != last {
            place.at = place.at.next_multiple_of(BLOCK);
        }
        return;
    }
    let left = |at: u64| BLOCK - (at + fixed) % BLOCK;
    let room = left(place.at);
    if room >= tail {
        return;
    }
    let moved = room.next_multiple_of(NID_UNIT);
    if tail <= left(place.at + moved) {
        place.at += moved;
    } else {
        place.blocks += 1;
        place.tail = 0;
        place.at = place.at.next_multiple_of(BLOCK);
    }
}

/// The same in version 2.
fn put_extended(place: &mut Place, object: &Object) {
    if place.tail == 0 || matches!(object.body, Body::External(_)) {
        return;
    }
    let begin = place.at + place.inode() + u64::from(place.xattrs);
    let (last, end) = (begin - 1, begin + u64::from(place.tail));
    if last / BLOCK != end / BLOCK {
        let moved = BLOCK - last % BLOCK;
        place.at = (place.at + moved).next_multiple_of(NID_UNIT);
    }
}

/// Every directory's children together, directories in the order in which they came.
fn breadth_first(tree: &Tree) -> Vec<Number> {
    let mut order = Vec::with_capacity(tree.len());
    let mut queue = VecDeque::from([ROOT]);
    while let Some(number) = queue.pop_front() {
        order.push(number);
        let entries = tree.entries(number).into_iter().flat_map(|e| e.values());
        queue.extend(
            entries
                .filter(|entry| entry.first)
                .map(|entry| entry.object),
        );
    }
    order
}

/// All below a child before the next child; an object with several names at the first of
/// them.
fn depth_first(tree: &Tree) -> Vec<Number> {
    let mut order = Vec::with_capacity(tree.len());
    let mut seen = FxHashSet::default();
    let mut stack = vec![ROOT];
    while let Some(number) = stack.pop() {
        if !seen.insert(number) {
            continue;
        }
        order.push(number);
        let entries = tree.entries(number).into_iter().flatten();
        let children = entries.filter(|(name, _)| !matches!(&***name, b"." | b".."));
        stack.extend(children.rev().map(|(_, entry)| entry.object));
    }
    order
}
