//! Contents that are not compressed: blocks that follow each other, the tail perhaps beside
//! the inode, and chunks.

use super::super::error::{Result, damaged};
use super::super::{Device, Image, Inode, Layout};
use super::{Coding, Extent, NAME, Where};
use crate::erofs::format::chunk::{BLOCK_ENTRY, HOLE, INDEX, Index, format};
use crate::erofs::format::{U32, superblock::incompat};
use crate::medium::Source;

/// The extent of a flat inode that holds byte `offset`.
pub(super) fn extent<S: Source>(image: &Image<S>, inode: &Inode, offset: u64) -> Result<Extent> {
    let block = image.superblock.block_size() as u64;
    let inline = inode.layout == Layout::Inline;
    // Sizes are below 2^63.
    let tail = match inline {
        true => inode.size.saturating_sub(1) / block * block,
        false => inode.size,
    };
    if inline && offset >= tail {
        return inline_tail(inode, tail, block);
    }
    let place = if inode.no_blocks {
        Where::Hole
    } else {
        let at = byte(image, inode, inode.data, offset)?;
        at.checked_add(tail).ok_or_else(|| beyond(inode, offset))?;
        let (device, at) = image.locate(at);
        Where::Device(device, at, tail)
    };
    Ok(raw(0, tail, place))
}

fn inline_tail(inode: &Inode, tail: u64, block: u64) -> Result<Extent> {
    let length = inode.size - tail;
    let at = inode.body_end();
    if at % block + length > block {
        let flaw = format!("a tail of {length} bytes that crosses into another block");
        return Err(damaged(NAME, inode.place(), flaw));
    }
    Ok(raw(tail, length, Where::Metadata(inode.area, at, length)))
}

/// The extent of an inode in chunks that holds byte `offset`.
pub(super) fn chunk<S: Source>(image: &Image<S>, inode: &Inode, offset: u64) -> Result<Extent> {
    let format = inode.data as u32;
    let bits = u32::from(image.superblock.block_bits) + (format & format::BLOCK_BITS);
    // At most 16 + 31.
    let number = offset >> bits;
    let begin = number << bits;
    let length = (1 << bits).min(inode.size.saturating_sub(begin));
    let indexes = format & format::INDEXES != 0;
    let unit = unit(format);
    // The table cannot be longer than its area, which the read finds out.
    let table = inode.body_end().next_multiple_of(unit);
    let at = number
        .checked_mul(unit)
        .and_then(|at| table.checked_add(at));
    let at = at.ok_or_else(|| beyond(inode, offset))?;
    let (block, device) = if indexes {
        let index: Index = image.structure(inode.area, at)?;
        let low = u64::from(index.block_low.get());
        let wide = format & format::BIT48 != 0;
        let high = if wide { index.block_high.get() } else { 0 };
        let hole = index.block_low.get() == HOLE && (!wide || high == u16::MAX);
        let block = (!hole).then_some(low | u64::from(high) << 32);
        (block, index.device.get() & mask(image))
    } else {
        let entry: U32 = image.structure(inode.area, at)?;
        let block = (entry.get() != HOLE).then_some(entry.get().into());
        (block, 0)
    };
    let place = match block {
        None => Where::Hole,
        Some(block) => {
            let at = byte(image, inode, block, offset)?;
            let (device, at) = match device {
                0 => image.locate(at),
                number => (Device(number), at),
            };
            Where::Device(device, at, length)
        }
    };
    Ok(raw(begin, length, place))
}

/// The byte after the table of chunks.
pub(super) fn table_end<S: Source>(image: &Image<S>, inode: &Inode) -> u64 {
    let format = inode.data as u32;
    let bits = u32::from(image.superblock.block_bits) + (format & format::BLOCK_BITS);
    let unit = unit(format);
    let table = inode.body_end().next_multiple_of(unit);
    let chunks = inode.size.div_ceil(1 << bits);
    table.saturating_add(chunks.saturating_mul(unit))
}

/// Bytes of an entry.
fn unit(format: u32) -> u64 {
    match format & format::INDEXES {
        0 => BLOCK_ENTRY as u64,
        _ => INDEX as u64,
    }
}

/// The bits of a chunk's device that mean something (as many as the devices need).
fn mask<S: Source>(image: &Image<S>) -> u16 {
    let devices = image.superblock.devices.len();
    if !image.superblock.has(incompat::DEVICE_TABLE) || devices == 0 {
        return 0;
    }
    u16::try_from((devices + 1).next_power_of_two() - 1).unwrap_or(u16::MAX)
}

fn byte<S: Source>(image: &Image<S>, inode: &Inode, block: u64, offset: u64) -> Result<u64> {
    let size = image.superblock.block_size() as u64;
    let byte = block.checked_mul(size);
    byte.ok_or_else(|| beyond(inode, offset))
}

fn beyond(inode: &Inode, offset: u64) -> super::super::ReadError {
    let flaw = "it lies beyond any device";
    damaged(NAME, inode.contents_at(offset), flaw)
}

fn raw(offset: u64, length: u64, place: Where) -> Extent {
    Extent {
        offset,
        length,
        place,
        coding: Coding::Plain,
        partial: false,
    }
}
