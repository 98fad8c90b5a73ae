//! Places for inodes with what lies beside them: in blocks of their own, between the data.
//!
//! An inode that fits into a block with all of it lies in one block: no kernel reads an
//! inline tail across blocks. Each goes to the block with the least room in which it fits,
//! among the last [`WINDOW`] bytes; blocks that are older leave in the order of their
//! places. What is reserved may be filled later: a directory's inode gets its place before
//! its children, its contents after them, and its block waits for that.

use super::super::format::NID_UNIT;
use super::super::format::directory::IN_METABOX;
use super::space::Space;
use crate::medium::Failure;
use rustc_hash::FxHashMap;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

/// Bytes of blocks that are looked at for room.
const WINDOW: usize = 4 << 20;
/// Bytes of blocks for inodes that follow each other at most, data on both sides.
const SEGMENT: u64 = 256 << 10;

/// Which part of all blocks for inodes may be left over.
const LOST: u64 = 32;

/// Where blocks go that are full.
pub(crate) trait Blocks {
    /// Takes the block that begins at byte `at`; each comes once.
    fn put(&mut self, at: u64, block: &[u8]) -> Result<(), Failure>;
}

/// What holds inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Area {
    /// The image itself.
    Image,
    /// The contents of the metabox.
    Metabox,
}

/// A block that is not written yet.
#[derive(Debug)]
struct Block {
    /// Where it lies, in bytes.
    at: u64,
    bytes: Box<[u8]>,
    used: usize,
    /// What is reserved and not filled.
    pending: u32,
}

/// A place that is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Number of its first block.
    number: u64,
    /// Where it begins in that.
    offset: usize,
    length: usize,
    /// Where it lies.
    pub(crate) area: Area,
    /// Where it begins there, in bytes.
    pub(crate) at: u64,
}

impl Slot {
    /// Number of the inode that begins there.
    pub(crate) fn nid(&self) -> u64 {
        let number = self.at / NID_UNIT;
        match self.area {
            Area::Image => number,
            Area::Metabox => number | IN_METABOX,
        }
    }
}

/// Blocks of inodes.
#[derive(Debug)]
pub(crate) struct Slots {
    area: Area,
    block: usize,
    window: VecDeque<Block>,
    /// Number of the window's first block.
    first: u64,
    /// Room and number of every block in the window that has any.
    rooms: BTreeSet<(usize, u64)>,
    /// Blocks that left the window before they were full.
    held: FxHashMap<u64, Block>,
    /// Blocks that were taken and not begun.
    segment: Range<u64>,
    /// Bytes that will be reserved yet, about.
    expected: u64,
    /// Bytes that were.
    reserved: u64,
}

impl Slots {
    /// With none, where about `expected` bytes will be reserved.
    pub(crate) fn new(area: Area, block: usize, expected: u64) -> Self {
        Self {
            area,
            block,
            window: VecDeque::new(),
            first: 0,
            rooms: BTreeSet::new(),
            held: FxHashMap::default(),
            segment: 0..0,
            expected,
            reserved: 0,
        }
    }

    /// Reserves `length` bytes for an inode.
    pub(crate) fn reserve(
        &mut self,
        length: usize,
        space: &mut Space,
        out: &mut dyn Blocks,
    ) -> Result<Slot, Failure> {
        self.expected = self.expected.saturating_sub(length as u64);
        self.reserved += length as u64;
        if length > self.block {
            return self.reserve_blocks(length, space, out);
        }
        let found = self.rooms.range((length, 0)..).next().copied();
        let number = match found {
            Some((_, number)) => number,
            None => {
                let block = self.next_block(space)?;
                self.push(space.byte_of(block), out)?
            }
        };
        Ok(self.place(number, length))
    }

    /// Places something in the block `number`, in which it fits.
    fn place(&mut self, number: u64, length: usize) -> Slot {
        let Some(block) = self.window.get_mut((number - self.first) as usize) else {
            unreachable!("a block with room is in the window");
        };
        self.rooms.remove(&(self.block - block.used, number));
        let offset = block.used;
        block.used = (offset + length).next_multiple_of(NID_UNIT as usize);
        block.pending += 1;
        if block.used < self.block {
            self.rooms.insert((self.block - block.used, number));
        }
        Slot {
            number,
            offset,
            length,
            area: self.area,
            at: block.at + offset as u64,
        }
    }

    /// Several whole blocks, for what does not fit into one.
    fn reserve_blocks(
        &mut self,
        length: usize,
        space: &mut Space,
        out: &mut dyn Blocks,
    ) -> Result<Slot, Failure> {
        let count = length.div_ceil(self.block);
        let taken = space.take(count as u64)?;
        let mut at = space.byte_of(taken);
        let mut first = None;
        let mut left = length;
        while left > 0 {
            let number = self.push(at, out)?;
            let slot = self.place(number, left.min(self.block));
            first.get_or_insert(slot);
            at += self.block as u64;
            left -= slot.length;
        }
        let Some(first) = first else {
            unreachable!("more than a block is more than nothing");
        };
        Ok(Slot { length, ..first })
    }

    /// The next block of the segment, or the first of a new one: no more of them than will
    /// be used, as far as is known. What is expected to lie beside inodes may turn out to
    /// compress, and then what is left of the last segment is lost: so it has at most a
    /// [`LOST`]th of what there is.
    fn next_block(&mut self, space: &mut Space) -> Result<u64, Failure> {
        if self.segment.is_empty() {
            let most = self.expected.min(SEGMENT).min(self.reserved / LOST);
            let count = space.blocks_of(most).max(1);
            let first = space.take(count)?;
            self.segment = first..first + count;
        }
        let block = self.segment.start;
        self.segment.start += 1;
        Ok(block)
    }

    /// Adds the block at `at` to the window; its number.
    fn push(&mut self, at: u64, out: &mut dyn Blocks) -> Result<u64, Failure> {
        if self.window.len() >= (WINDOW / self.block).max(16) {
            self.pop(out)?;
        }
        let number = self.first + self.window.len() as u64;
        self.window.push_back(Block {
            at,
            bytes: vec![0; self.block].into_boxed_slice(),
            used: 0,
            pending: 0,
        });
        self.rooms.insert((self.block, number));
        Ok(number)
    }

    /// The oldest block leaves the window.
    fn pop(&mut self, out: &mut dyn Blocks) -> Result<(), Failure> {
        let Some(block) = self.window.pop_front() else {
            return Ok(());
        };
        let number = self.first;
        self.first += 1;
        self.rooms.remove(&(self.block - block.used, number));
        match block.pending {
            0 => out.put(block.at, &block.bytes),
            _ => {
                self.held.insert(number, block);
                Ok(())
            }
        }
    }

    /// Fills what was reserved, from its beginning on.
    pub(crate) fn fill(
        &mut self,
        slot: &Slot,
        bytes: &[u8],
        out: &mut dyn Blocks,
    ) -> Result<(), Failure> {
        debug_assert!(bytes.len() <= slot.length);
        let (mut number, mut offset, mut left) = (slot.number, slot.offset, slot.length);
        let mut bytes = bytes;
        while left > 0 {
            let now = left.min(self.block - offset);
            let (part, rest) = bytes.split_at(now.min(bytes.len()));
            self.fill_block(number, offset, part, out)?;
            (bytes, left) = (rest, left - now);
            (number, offset) = (number + 1, 0);
        }
        Ok(())
    }

    fn fill_block(
        &mut self,
        number: u64,
        offset: usize,
        bytes: &[u8],
        out: &mut dyn Blocks,
    ) -> Result<(), Failure> {
        let found = match number.checked_sub(self.first) {
            Some(place) => self.window.get_mut(place as usize),
            None => self.held.get_mut(&number),
        };
        let Some(block) = found else {
            unreachable!("a block is there until all that was reserved is filled");
        };
        block.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        block.pending -= 1;
        if number < self.first
            && block.pending == 0
            && let Some(block) = self.held.remove(&number)
        {
            out.put(block.at, &block.bytes)?;
        }
        Ok(())
    }

    /// All that was reserved is filled, but the slot `last`: writes the rest, and returns the
    /// bytes of the blocks that one lies in.
    pub(crate) fn finish(
        &mut self,
        last: Option<&Slot>,
        space: &mut Space,
        out: &mut dyn Blocks,
    ) -> Result<Vec<u8>, Failure> {
        while !self.window.is_empty() {
            self.pop(out)?;
        }
        if !space.give_back(self.segment.clone()) {
            for block in self.segment.clone() {
                out.put(space.byte_of(block), &vec![0; self.block])?;
            }
        }
        let mut bytes = Vec::new();
        let Some(mut number) = last.map(|last| last.number) else {
            return Ok(bytes);
        };
        while let Some(block) = self.held.remove(&number) {
            bytes.extend_from_slice(&block.bytes);
            number += 1;
        }
        Ok(bytes)
    }
}
