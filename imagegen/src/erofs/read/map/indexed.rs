//! Extents out of the entries of logical clusters: each reaches from where it begins to
//! where the next one does.

use super::super::error::{ReadError, Result, damaged};
use super::super::{DECODED_MAX, Image, Inode};
use super::index::{Index, Table};
use super::{Coding, Extent, NAME, Where, fragment};
use crate::erofs::format::compressed::{MapHeader, advise, kind};
use crate::medium::Source;

/// An inode whose clusters are indexed.
#[derive(Debug, Clone)]
pub(in crate::erofs::read) struct Indexed {
    table: Table,
    advise: u16,
    codings: [Option<Coding>; 2],
    tail: Tail,
}

/// What is special about the last extent.
#[derive(Debug, Clone, Copy)]
enum Tail {
    No,
    /// Where it begins in the file, and in the packed inode.
    Fragment(u64, u64),
    /// Where it begins in the file; first byte and bytes in the metadata.
    Inline(u64, u64, u64),
}

/// Where an extent begins.
struct Head {
    number: u64,
    kind: u8,
    at: u64,
    block: u64,
    partial: bool,
}

impl Indexed {
    pub(super) fn open<S: Source>(
        image: &Image<S>,
        inode: &Inode,
        header: &MapHeader,
        at: u64,
    ) -> Result<Self> {
        let numbers = [header.algorithms & 15, header.algorithms >> 4];
        let mut this = Self {
            table: Table::open(image, inode, header, at)?,
            advise: header.advise.get(),
            codings: numbers.map(Coding::of),
            tail: Tail::No,
        };
        let word = header.word.get();
        let last = inode.size.saturating_sub(1);
        if this.says(advise::FRAGMENT) {
            let head = this.head(image, inode, last)?;
            // Full indexes have room for the place's upper half.
            let high = if inode.layout == super::Layout::Full {
                head.block << 32
            } else {
                0
            };
            this.tail = Tail::Fragment(head.at, u64::from(word) | high);
        } else if this.says(advise::INLINE_CLUSTER) && word >> 16 != 0 {
            let head = this.head(image, inode, last)?;
            let begin = this.table.end_of(last >> this.table.bits);
            let length = u64::from(word >> 16);
            let block = image.superblock.block_size() as u64;
            if begin % block + length > block {
                let flaw = format!("a tail of {length} bytes that crosses into another block");
                return Err(damaged(NAME, inode.place(), flaw));
            }
            this.tail = Tail::Inline(head.at, begin, length);
        }
        Ok(this)
    }

    /// The byte after the indexes.
    pub(super) fn metadata_end(&self, inode: &Inode) -> u64 {
        let last = inode.size.saturating_sub(1) >> self.table.bits;
        self.table.end_of(last)
    }

    fn says(&self, flag: u16) -> bool {
        self.advise & flag != 0
    }

    /// The extent that holds byte `offset`.
    pub(super) fn extent<S: Source>(
        &self,
        image: &Image<S>,
        inode: &Inode,
        offset: u64,
    ) -> Result<Extent> {
        let head = self.head(image, inode, offset)?;
        match self.tail {
            Tail::Fragment(begin, at) if head.at == begin => {
                return Ok(fragment(begin, inode.size - begin, at));
            }
            _ => {}
        }
        let end = self.end(image, inode, &head)?;
        let coding = self.coding(inode, &head)?;
        let place = match self.tail {
            Tail::Inline(begin, at, length) if head.at == begin => {
                Where::Metadata(inode.area, at, length)
            }
            _ => {
                let blocks = self.blocks(image, inode, &head)?;
                let bits = image.superblock.block_bits;
                // Block numbers have 32 bits here.
                let (device, at) = image.locate(head.block << bits);
                Where::Device(device, at, blocks << bits)
            }
        };
        Ok(Extent {
            offset: head.at,
            length: end - head.at,
            place,
            coding,
            partial: head.partial,
        })
    }

    /// Where the extent begins that holds byte `offset`.
    fn head<S: Source>(&self, image: &Image<S>, inode: &Inode, offset: u64) -> Result<Head> {
        let bits = self.table.bits;
        let mut number = offset >> bits;
        let inside = offset & ((1 << bits) - 1);
        let bad = |flaw: &str| damaged(NAME, inode.contents_at(offset), flaw);
        // A step leads back by 2047 clusters or to what is left of them, so a file that
        // was made honestly needs few.
        let most = 64 + number / 512;
        for _ in 0..most {
            let back = match self.table.entry(image, inode, number)? {
                Index::Head {
                    kind,
                    offset: begin,
                    block,
                    partial,
                } => {
                    if number != offset >> bits || begin <= inside {
                        return Ok(Head {
                            number,
                            kind,
                            at: (number << bits) + begin,
                            block,
                            partial,
                        });
                    }
                    1
                }
                Index::Inner { back, .. } => back,
            };
            number = number
                .checked_sub(back)
                .ok_or_else(|| bad("its extent begins before the file"))?;
        }
        Err(bad("too many steps back to where its extent begins"))
    }

    /// Where the extent of `head` ends: where the next begins.
    fn end<S: Source>(&self, image: &Image<S>, inode: &Inode, head: &Head) -> Result<u64> {
        let bits = self.table.bits;
        let mut number = head.number + 1;
        while number << bits < inode.size {
            if (number << bits) - head.at > DECODED_MAX {
                return Err(self.flaw(inode, head, "it gives more than 12 MiB"));
            }
            if let Index::Head { offset, .. } = self.table.entry(image, inode, number)? {
                return Ok(((number << bits) + offset).min(inode.size));
            }
            number += 1;
        }
        Ok(inode.size)
    }

    fn coding(&self, inode: &Inode, head: &Head) -> Result<Coding> {
        let [first, second] = self.codings;
        let coding = match head.kind {
            kind::PLAIN if self.says(advise::INTERLACED) => Some(Coding::Interlaced),
            kind::PLAIN => Some(Coding::Plain),
            kind::HEAD1 => first,
            _ => second,
        };
        coding.ok_or_else(|| self.flaw(inode, head, "an algorithm that does not exist"))
    }

    /// Blocks that the extent of `head` has.
    fn blocks<S: Source>(&self, image: &Image<S>, inode: &Inode, head: &Head) -> Result<u64> {
        let big = match head.kind {
            kind::HEAD1 => self.says(advise::BIG_CLUSTER_1),
            _ => self.says(advise::BIG_CLUSTER_2),
        };
        let next = head.number + 1;
        if !big || next << self.table.bits >= inode.size {
            return Ok(1);
        }
        match self.table.entry(image, inode, next)? {
            Index::Head { .. } => Ok(1),
            Index::Inner {
                blocks: Some(blocks),
                ..
            } if blocks > 0 => Ok(blocks),
            Index::Inner { .. } => {
                let flaw = "a cluster of several blocks without a count";
                Err(self.flaw(inode, head, flaw))
            }
        }
    }

    fn flaw(&self, inode: &Inode, head: &Head, flaw: &str) -> ReadError {
        damaged(NAME, inode.contents_at(head.at), flaw)
    }
}
