//! The metabox: an inode whose contents are all other inodes, compressed.
//!
//! Inodes get their places as they do in an image, in blocks of the metabox instead. Blocks
//! that leave the window are joined to parts of [`PART`] bytes; a part that is whole is
//! compressed by any thread and placed, so parts come to lie in the order in which they
//! became whole. A part waits for every directory that is open and has its inode there: no
//! more parts than the tree is deep are held beyond the window, and the compressed ones'
//! extents.

use super::super::compress::segment::End;
use super::super::compress::{Ahead, Promised};
use super::clusters::Clusters;
use super::contents::{Body, Contents, Placing};
use super::fault::Fault;
use super::options::{Metadata, Options};
use super::slots::{Area, Blocks, Slot, Slots};
use super::space::Space;
use crate::medium::Failure;
use std::collections::{BTreeMap, VecDeque};

/// Bytes that are compressed on their own: several blocks of any size. More would be held for
/// every directory that is open, and a few make the clusters full that they begin.
const PART: u64 = 256 << 10;

/// Parts that are compressed before the first of them gets its place. Not a matter of threads,
/// because blocks are given out in the order in which this happens.
const WAITING: usize = 8;

/// Inodes on their way into the metabox.
pub(crate) struct Metabox {
    how: Metadata,
    /// What becomes of the end of all this.
    end: End,
    /// The last part, once it is known.
    last: Option<u64>,
    /// Blocks of its contents.
    space: Space,
    slots: Slots,
    parts: Parts,
    waiting: VecDeque<(u64, Promised)>,
    /// Parts that have their place in the image, by their numbers.
    placed: BTreeMap<u64, Clusters>,
}

impl Metabox {
    /// With nothing in it, if inodes are compressed; about `expected` bytes will come.
    pub(crate) fn new(options: &Options, expected: u64) -> Option<Self> {
        let block = options.block_size as usize;
        let inline = options.compression.as_ref().is_some_and(|c| c.inline_tails);
        Some(Self {
            how: options.metadata?,
            end: if inline { End::Inline } else { End::Blocks },
            last: None,
            space: Space::new(options.block_bits()),
            slots: Slots::new(Area::Metabox, block, expected),
            parts: Parts::default(),
            waiting: VecDeque::new(),
            placed: BTreeMap::new(),
        })
    }

    /// Reserves `length` bytes for an inode.
    pub(crate) fn reserve(&mut self, length: usize) -> Result<Slot, Failure> {
        self.slots.reserve(length, &mut self.space, &mut self.parts)
    }

    /// Fills what was reserved, from its beginning on.
    pub(crate) fn fill(&mut self, slot: &Slot, bytes: &[u8]) -> Result<(), Failure> {
        self.slots.fill(slot, bytes, &mut self.parts)
    }

    /// Has the parts compressed that are whole, and places those that were.
    pub(crate) fn advance(
        &mut self,
        ahead: &Ahead<'_, '_>,
        placing: &mut Placing<'_, '_, '_>,
    ) -> Result<(), Fault> {
        while let Some((number, bytes)) = self.parts.whole.pop_front() {
            let Metadata { algorithm, cluster } = self.how;
            let end = match self.last == Some(number) {
                true => self.end,
                false => End::Blocks,
            };
            let promise = ahead.submit(bytes, algorithm, cluster, end);
            self.waiting.push_back((number, promise));
            if self.waiting.len() > WAITING {
                self.place_first(ahead, placing)?;
            }
        }
        Ok(())
    }

    fn place_first(
        &mut self,
        ahead: &Ahead<'_, '_>,
        placing: &mut Placing<'_, '_, '_>,
    ) -> Result<(), Fault> {
        if let Some((number, promise)) = self.waiting.pop_front() {
            let clusters = self.placed.entry(number).or_default();
            clusters.add(promise.wait()?, ahead, placing)?;
        }
        Ok(())
    }

    /// All inodes are filled: bytes of the metabox's contents, and what it says of them; it
    /// has `beside` bytes itself.
    pub(crate) fn finish(
        mut self,
        contents: &mut Contents,
        beside: usize,
        ahead: &Ahead<'_, '_>,
        placing: &mut Placing<'_, '_, '_>,
    ) -> Result<(u64, Body), Fault> {
        self.slots.finish(None, &mut self.space, &mut self.parts)?;
        let size = self.space.byte_of(self.space.blocks());
        self.parts.end(size);
        self.last = Some(size.saturating_sub(1) / PART);
        self.advance(ahead, placing)?;
        while !self.waiting.is_empty() {
            self.place_first(ahead, placing)?;
        }
        let mut all = Clusters::default();
        for clusters in self.placed.into_values() {
            all.append(clusters);
        }
        let shape = contents.shape_within(self.how.cluster, placing);
        let body = all.finish(shape, beside, &mut None, ahead, placing)?;
        contents.note(&body);
        Ok((size, body))
    }
}

/// Blocks of the metabox, joined to parts.
#[derive(Debug, Default)]
struct Parts {
    open: BTreeMap<u64, Part>,
    /// Parts that nobody was told of yet, with their numbers.
    whole: VecDeque<(u64, Vec<u8>)>,
}

/// A part of which not all blocks are there.
#[derive(Debug)]
struct Part {
    bytes: Vec<u8>,
    /// How many of these came.
    there: u64,
}

impl Parts {
    /// No more blocks come, and the last part ends at byte `size`.
    fn end(&mut self, size: u64) {
        for (number, mut part) in std::mem::take(&mut self.open) {
            let length = size.saturating_sub(number * PART).min(PART);
            debug_assert_eq!(part.there, length, "every block came once");
            part.bytes.truncate(length as usize);
            self.whole.push_back((number, part.bytes));
        }
    }
}

impl Blocks for Parts {
    fn put(&mut self, at: u64, block: &[u8]) -> Result<(), Failure> {
        let (number, inside) = (at / PART, (at % PART) as usize);
        let part = self.open.entry(number).or_insert_with(|| Part {
            bytes: vec![0; PART as usize],
            there: 0,
        });
        if let Some(place) = part.bytes.get_mut(inside..inside + block.len()) {
            place.copy_from_slice(block);
        }
        part.there += block.len() as u64;
        if part.there == PART
            && let Some(part) = self.open.remove(&number)
        {
            self.whole.push_back((number, part.bytes));
        }
        Ok(())
    }
}
