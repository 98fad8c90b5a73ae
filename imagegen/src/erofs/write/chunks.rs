//! Files in chunks: holes as chunks that lie nowhere, chunks with the same contents at the
//! same place.

use super::super::format::chunk::{BLOCK_ENTRY, HOLE, INDEX, Index, format};
use super::super::format::inode::layout;
use super::contents::{Body, Placing};
use super::fault::Fault;
use super::head::Device;
use super::inode::Lying;
use super::options::{DataIn, Options};
use super::space::{Full, Space};
use crate::digest;
use crate::medium::{Stretch, send};
use crate::tree::{Bytes, Content};
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};
use std::ops::Range;
use zerocopy::IntoBytes;

/// Bytes that the digests of a walk are made of.
pub(crate) const DIGESTED: u64 = 4096;
/// Chunks of one file at most: so many indexes are held.
const MOST_CHUNKS: u64 = 1 << 22;

/// How files become chunks.
#[derive(Debug)]
pub(crate) struct Chunks {
    /// Logarithm of the bytes of a chunk, if all files come in chunks.
    asked: Option<u32>,
    /// First block of every chunk by its contents, if equal ones share it.
    places: Option<FxHashMap<digest::Short, u64>>,
    /// Blocks of the second file, if data goes there.
    blob: Option<Space>,
    /// Whether files stay in the archive they come from.
    indexed: bool,
    /// Whether any file came in chunks.
    used: bool,
    shared: u64,
}

/// Block of a chunk of zeroes, which lies nowhere.
const NOWHERE: u64 = u64::MAX;

impl Chunks {
    /// As the options say.
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            asked: options.chunk_size.map(u64::trailing_zeros),
            places: options.dedupe.then(FxHashMap::default),
            blob: match options.data {
                DataIn::Blob { .. } => Some(Space::new(options.block_bits())),
                _ => None,
            },
            indexed: matches!(options.data, DataIn::Archive { .. }),
            used: false,
            shared: 0,
        }
    }

    /// Whether any file came in chunks.
    pub(crate) fn any(&self) -> bool {
        self.used
    }

    /// The second device, if there is one.
    pub(crate) fn device(&self, options: &Options) -> Option<Device> {
        match (&options.data, &self.blob) {
            (DataIn::Blob { tag }, Some(blob)) => Some(Device {
                tag: tag.clone(),
                blocks: blob.blocks(),
            }),
            (DataIn::Archive { bytes }, _) => Some(Device {
                tag: Vec::new(),
                blocks: bytes.div_ceil(u64::from(options.block_size)),
            }),
            _ => None,
        }
    }

    /// A file that stays where it is: its chunks lie in the archive it comes from, if they
    /// begin with blocks there.
    pub(crate) fn index(&mut self, content: &Content, space: &Space) -> Option<Body> {
        let Bytes::At { offsets, .. } = &content.bytes else {
            return None;
        };
        let ([all], [offset], true) = (&content.data[..], &offsets[..], self.indexed) else {
            return None;
        };
        let block = space.block_size() as u64;
        if *all != (0..content.size) || offset % block != 0 {
            return None;
        }
        let blocks = space.blocks_of(content.size);
        let bits = blocks
            .next_power_of_two()
            .trailing_zeros()
            .min(format::BLOCK_BITS);
        let chunks =
            (0..blocks.div_ceil(1 << bits)).map(|number| offset / block + (number << bits));
        self.used = true;
        Some(body(bits, &Vec::from_iter(chunks), 1))
    }

    /// Whether a file may come in chunks.
    pub(crate) fn expects(&self, content: &Content, space: &Space) -> bool {
        content.size > 0 && (self.indexed || self.of(content, space).is_some())
    }

    /// Blocks that were not needed, because they are shared.
    pub(crate) fn shared(&self) -> u64 {
        self.shared
    }

    /// Logarithm of a file's chunk size, if it comes in chunks: because all do, or because
    /// holes are worth it. The one with which it is smallest if none was asked for, or that
    /// makes too many.
    pub(crate) fn of(&self, content: &Content, space: &Space) -> Option<u32> {
        if content.size == 0 {
            return None;
        }
        let block_bits = space.block_size().trailing_zeros();
        let largest = block_bits + format::BLOCK_BITS;
        let possible = |bits: &u32| *bits < 63 && content.size >> *bits <= MOST_CHUNKS;
        if let Some(asked) = self.asked
            && possible(&asked)
        {
            return Some(asked);
        }
        let smallest = self.asked.unwrap_or(block_bits);
        let sizes = (smallest..=largest).filter(possible);
        let costs = sizes.map(|bits| (cost(content, bits, space), bits));
        let (cost, bits) = costs.min()?;
        let whole = content.size.next_multiple_of(1 << block_bits);
        (cost < whole || self.asked.is_some()).then_some(bits)
    }

    /// Gives a file its chunks of `1 << bits` bytes, and sends them there.
    pub(crate) fn place(
        &mut self,
        content: Content,
        bits: u32,
        placing: &mut Placing<'_, '_, '_>,
    ) -> Result<Body, Fault> {
        self.used = true;
        let mut chunks = Vec::new();
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut sums = Sums::new(&content);
        for range in ranges(content.size, bits) {
            let chunk = self.chunk(&content, &range, &mut sums, placing.space, &mut stretches)?;
            chunks.push(chunk);
        }
        let outlet = &mut *placing.outlet;
        let (lane, device) = match &mut outlet.blob {
            Some(blob) => (blob, 1),
            None => (&mut outlet.data, 0),
        };
        send(content, &stretches, lane)?;
        let block_bits = placing.space.block_size().trailing_zeros();
        Ok(body(bits - block_bits, &chunks, device))
    }

    fn chunk(
        &mut self,
        content: &Content,
        range: &Range<u64>,
        sums: &mut Sums<'_>,
        space: &mut Space,
        stretches: &mut Vec<Stretch>,
    ) -> Result<u64, Full> {
        if !touches(&content.data, range) {
            return Ok(NOWHERE); // and none of the digests is of its blocks
        }
        let sum = sums.next(range);
        let space = self.blob.as_mut().unwrap_or(space);
        let count = space.blocks_of(range.end - range.start);
        let known = self.places.as_ref().and_then(|places| places.get(&sum?));
        if let Some(block) = known {
            self.shared += count;
            return Ok(*block);
        }
        let block = space.take(count)?;
        if let (Some(places), Some(sum)) = (&mut self.places, sum) {
            places.insert(sum, block);
        }
        let (at, end) = (space.byte_of(block), range.start + space.byte_of(count));
        match stretches.last_mut() {
            Some(last)
                if last.file.end == range.start
                    && last.at + (last.file.end - last.file.start) == at =>
            {
                last.file.end = end;
            }
            _ => stretches.push(Stretch {
                file: range.start..end,
                at,
            }),
        }
        Ok(block)
    }
}

/// The parts of a file that its chunks hold.
fn ranges(size: u64, bits: u32) -> impl Iterator<Item = Range<u64>> {
    let count = size.div_ceil(1 << bits);
    (0..count).map(move |number| number << bits..((number + 1) << bits).min(size))
}

/// Bytes of blocks and indexes with chunks of `1 << bits` bytes.
fn cost(content: &Content, bits: u32, space: &Space) -> u64 {
    let block = space.block_size() as u64;
    let mut blocks = 0;
    let mut counted = 0; // chunks before this one are
    for range in &content.data {
        let first = (range.start >> bits).max(counted);
        let end = ((range.end - 1) >> bits) + 1;
        if first < end {
            let bytes = (end << bits).min(content.size) - (first << bits);
            blocks += bytes.div_ceil(block);
            counted = end;
        }
    }
    blocks * block + content.size.div_ceil(1 << bits) * INDEX as u64
}

/// Whether any data lies in `part`.
fn touches(data: &[Range<u64>], part: &Range<u64>) -> bool {
    let after = data.partition_point(|range| range.end <= part.start);
    data.get(after).is_some_and(|range| range.start < part.end)
}

/// What an inode says of its chunks, given the first block of each on the device.
fn body(bits: u32, chunks: &[u64], device: u16) -> Body {
    let far = |block: &u64| *block >= u64::from(HOLE) && *block != NOWHERE;
    let far = chunks.iter().any(far);
    // Entries of 4 bytes can say "hole" too, but erofs-utils 1.9.4 reads that as a block.
    let indexes = far || device > 0 || chunks.contains(&NOWHERE);
    let unit = if indexes { INDEX } else { BLOCK_ENTRY };
    let mut map = Vec::with_capacity(chunks.len() * unit);
    for block in chunks {
        let index = Index {
            block_high: if far { (block >> 32) as u16 } else { 0 }.into(),
            device: if *block == NOWHERE { 0 } else { device }.into(),
            block_low: (*block as u32).into(),
        };
        match indexes {
            true => map.extend_from_slice(index.as_bytes()),
            false => map.extend_from_slice(index.block_low.as_bytes()),
        }
    }
    let flags = [(indexes, format::INDEXES), (far, format::BIT48)];
    let flags = flags.iter().filter(|(set, _)| *set);
    Body {
        lying: Lying {
            layout: layout::CHUNKS,
            data: flags.fold(bits, |data, (_, flag)| data | flag),
            ..Lying::default()
        },
        map,
        map_align: unit,
        tail: Vec::new(),
    }
}

/// Digests of chunks, made of those of their blocks.
struct Sums<'a> {
    content: &'a Content,
    /// How many of the blocks' digests were taken.
    taken: usize,
}

impl<'a> Sums<'a> {
    fn new(content: &'a Content) -> Self {
        Self { content, taken: 0 }
    }

    /// That of the next chunk: the same if its bytes and its length are.
    fn next(&mut self, range: &Range<u64>) -> Option<digest::Short> {
        if self.content.digests.is_empty() {
            return None;
        }
        let mut digest = Sha256::new();
        digest.update((range.end - range.start).to_le_bytes());
        let blocks = range.start / DIGESTED..range.end.div_ceil(DIGESTED);
        for block in blocks {
            let bytes = block * DIGESTED..(block + 1) * DIGESTED;
            // A hole and a block of zeroes are not the same here, which only costs space.
            if touches(&self.content.data, &bytes) {
                digest.update([1]);
                digest.update(self.content.digests.get(self.taken)?);
                self.taken += 1;
            } else {
                digest.update([0]);
            }
        }
        Some(digest::short(digest))
    }
}
