//! Encoded extents: records in the order of the contents, whose size says what is left out
//! of each.
//!
//! With 16 bytes or more a record says where its extent begins; with less there is one for
//! each logical cluster, and with 4 bytes they lie one after the other from a byte on that
//! stands before the first.
//!
//! Contents that no record with 16 bytes or more speaks of, those before the first one, are
//! a hole, as the kernel has it (`z_erofs_map_blocks_ext`).

use super::super::error::{ReadError, Result, damaged};
use super::super::{Area, Image, Inode};
use super::{Coding, Extent, NAME, Where, fragment};
use crate::erofs::format::U64;
use crate::erofs::format::compressed::{
    EXTENT_FORMAT_SHIFT, EXTENT_LENGTH_MASK, EXTENT_PARTIAL, Extent as Raw, MapHeader, advise,
};
use crate::medium::Source;
use parking_lot::Mutex;
use std::sync::Arc;

/// Of so many records of 4 bytes one is known where its data lies.
const STEP: u64 = 256;

/// An inode with encoded extents.
#[derive(Debug, Clone)]
pub(in crate::erofs::read) struct Encoded {
    area: Area,
    /// First record.
    at: u64,
    /// Bytes of a record: 4, 8, 16 or 32.
    record: u64,
    count: u64,
    advise: u16,
    /// Logarithm of a logical cluster's size.
    bits: u32,
    /// With records of 4 bytes: one of them and where its data lies.
    known: (u64, u64),
    /// Where the data of every [`STEP`]th lies, as far as it was wanted; every reader of
    /// the inode knows what one found out.
    sums: Arc<Mutex<Vec<u64>>>,
}

impl Encoded {
    pub(super) fn open<S: Source>(
        image: &Image<S>,
        inode: &Inode,
        header: &MapHeader,
        at: u64,
    ) -> Result<Self> {
        let advise = header.advise.get();
        let log = (advise >> advise::EXTENT_SIZE_SHIFT) & advise::EXTENT_SIZE_MASK;
        let record = 4 << log;
        let high = u16::from_le_bytes([header.algorithms, header.cluster_bits]);
        let bits = u32::from(image.superblock.block_bits) + u32::from(header.cluster_bits & 15);
        let mut this = Self {
            area: inode.area,
            at: (at + size_of::<MapHeader>() as u64).next_multiple_of(record),
            record,
            count: u64::from(header.word.get()) | u64::from(high) << 32,
            advise,
            bits,
            known: (0, 0),
            sums: Arc::default(),
        };
        if record < 16 {
            this.count = inode.size.div_ceil(1 << bits);
        }
        if record == 4 {
            let first: U64 = image.structure(inode.area, this.at)?;
            this.known = (0, first.get());
            this.sums = Arc::new(Mutex::new(vec![first.get()]));
            this.at += size_of::<U64>() as u64;
        }
        let room = image.area_size(inode.area).saturating_sub(this.at);
        if this.count > room / record {
            let flaw = format!("{} extents, for which there is no room", this.count);
            return Err(damaged(NAME, inode.place(), flaw));
        }
        Ok(this)
    }

    /// The byte after the records.
    pub(super) fn metadata_end(&self) -> u64 {
        // Within the area, as `open` saw.
        self.at + self.count * self.record
    }

    /// The extent that holds byte `offset`.
    pub(super) fn extent<S: Source>(
        &mut self,
        image: &Image<S>,
        inode: &Inode,
        offset: u64,
    ) -> Result<Extent> {
        let (number, begin, end) = match self.record {
            4 | 8 => {
                let number = offset >> self.bits;
                (number, number << self.bits, (number + 1) << self.bits)
            }
            _ => match self.search(image, inode, offset)? {
                Found::Record(number, begin, end) => (number, begin, end),
                Found::Hole(end) => return Ok(hole(offset, end)),
            },
        };
        let length = end.min(inode.size).saturating_sub(begin);
        let raw = self.raw(image, number)?;
        let word = raw.length.get();
        let at = self.place(image, number, &raw)?;
        if number + 1 == self.count && self.advise & advise::FRAGMENT != 0 {
            let high = if self.record > 4 { at << 32 } else { 0 };
            return Ok(fragment(begin, length, u64::from(word) | high));
        }
        let stored = u64::from(word & EXTENT_LENGTH_MASK);
        let mut extent = Extent {
            partial: word & EXTENT_PARTIAL != 0,
            ..hole(begin, begin + length)
        };
        if stored != 0 {
            extent.coding = self.coding(image, inode, word, at | stored, begin)?;
            let (device, at) = image.locate(at);
            extent.place = Where::Device(device, at, stored);
        }
        Ok(extent)
    }

    fn coding<S: Source>(
        &self,
        image: &Image<S>,
        inode: &Inode,
        word: u32,
        edges: u64,
        begin: u64,
    ) -> Result<Coding> {
        let aligned = edges.is_multiple_of(image.superblock.block_size() as u64);
        match word >> EXTENT_FORMAT_SHIFT {
            0 if aligned && self.advise & advise::INTERLACED != 0 => Ok(Coding::Interlaced),
            0 => Ok(Coding::Plain),
            format => Coding::of(format as u8 - 1)
                .ok_or_else(|| flaw(inode, begin, "an algorithm that does not exist")),
        }
    }

    /// Where the data of record `number` lies.
    fn place<S: Source>(&mut self, image: &Image<S>, number: u64, raw: &Raw) -> Result<u64> {
        if self.record > 4 {
            return Ok(u64::from(raw.at_low.get()) | u64::from(raw.at_high.get()) << 32);
        }
        let (known, at) = match self.known {
            near if near.0 <= number && number - near.0 <= STEP => near,
            _ => self.sum(image, number / STEP)?,
        };
        let at = self.sum_up(image, known, number, at)?;
        self.known = (number, at);
        Ok(at)
    }

    /// The first record of a step and where its data lies.
    fn sum<S: Source>(&self, image: &Image<S>, step: u64) -> Result<(u64, u64)> {
        let mut sums = self.sums.lock();
        loop {
            let last = sums.len().saturating_sub(1) as u64;
            if let Some(at) = sums.get(step as usize) {
                return Ok((step * STEP, *at));
            }
            let at = sums.last().copied().unwrap_or(0);
            let next = self.sum_up(image, last * STEP, (last + 1) * STEP, at)?;
            sums.push(next);
        }
    }

    /// Where the data of record `to` lies, if that of record `from` lies at `at`.
    fn sum_up<S: Source>(&self, image: &Image<S>, from: u64, to: u64, at: u64) -> Result<u64> {
        let mut at = at;
        for number in from..to {
            let stored = self.raw(image, number)?.length.get() & EXTENT_LENGTH_MASK;
            at = at.saturating_add(stored.into());
        }
        Ok(at)
    }

    /// The record whose extent holds `offset`, by binary search.
    fn search<S: Source>(&self, image: &Image<S>, inode: &Inode, offset: u64) -> Result<Found> {
        let (mut from, mut to) = (0, self.count);
        let (mut begin, mut end) = (None, inode.size);
        while from < to {
            let middle = from + (to - from) / 2;
            let raw = self.raw(image, middle)?;
            let low = u64::from(raw.logical_low.get());
            let at = low | u64::from(raw.logical_high.get()) << 32;
            if at > end || begin.is_some_and(|begin| at < begin) {
                return Err(flaw(inode, offset, "extents that are not in order"));
            }
            if at > offset {
                (to, end) = (middle, at);
            } else {
                (from, begin) = (middle + 1, Some(at));
            }
        }
        Ok(match begin {
            Some(begin) => Found::Record(from - 1, begin, end),
            None => Found::Hole(end),
        })
    }

    fn raw<S: Source>(&self, image: &Image<S>, number: u64) -> Result<Raw> {
        // Within the room that `open` saw.
        let at = self.at.saturating_add(number.saturating_mul(self.record));
        image.prefix_of(self.area, at, self.record as usize)
    }
}

/// What a search found.
enum Found {
    /// A record: its number, and where its extent and the next one begin.
    Record(u64, u64, u64),
    /// Nothing up to this byte, where the first one begins.
    Hole(u64),
}

fn hole(begin: u64, end: u64) -> Extent {
    Extent {
        offset: begin,
        length: end - begin,
        place: Where::Hole,
        coding: Coding::Plain,
        partial: false,
    }
}

fn flaw(inode: &Inode, offset: u64, flaw: &str) -> ReadError {
    damaged(NAME, inode.contents_at(offset), flaw)
}
