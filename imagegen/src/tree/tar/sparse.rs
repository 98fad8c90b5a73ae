//! Maps of sparse files: in headers of GNU tar, in pax records, or before the contents.

use std::ops::Range;

use super::header::{BLOCK, Block, number};
use super::pax::decimal;
use super::reader::Blocks;

/// Most pieces of a file: each is remembered.
const MOST: usize = 1 << 22;

/// Where in the header the first entries stand, and how many in it and in those after.
const FIRST: usize = 386;
const IN_HEADER: usize = 4;
const IN_EXTENSION: usize = 21;
/// Bytes of an entry: where a piece begins, and how long it is.
const ENTRY: usize = 24;
/// Whether an extension follows.
const HEADER_MORE: usize = 482;
const EXTENSION_MORE: usize = 504;
/// Size of the file, holes included.
const REAL_SIZE: Range<usize> = 483..495;

/// A map as it was written: beginnings and lengths, by turns.
pub(super) type Map = Vec<u64>;

/// The map in a header of type `S`, the size of the file, and where the contents begin if
/// extensions begin at `at`.
pub(super) fn old(
    header: &Block,
    blocks: &mut Blocks<'_>,
    mut at: u64,
) -> Result<(Map, u64, u64), String> {
    let mut map = Map::new();
    let size = field(&header[REAL_SIZE])?;
    entries(&header[FIRST..], IN_HEADER, &mut map)?;
    let mut more = header[HEADER_MORE] != 0;
    while more {
        let block = blocks
            .block(at)?
            .ok_or("the archive ends within its map of holes")?;
        entries(&block, IN_EXTENSION, &mut map)?;
        more = block[EXTENSION_MORE] != 0;
        at += BLOCK;
    }
    Ok((map, size, at))
}

fn entries(from: &[u8], count: usize, map: &mut Map) -> Result<(), String> {
    for entry in from.chunks_exact(ENTRY).take(count) {
        let (begin, length) = entry.split_at(ENTRY / 2);
        if begin[0] == 0 && length[0] == 0 {
            break;
        }
        add(map, field(begin)?)?;
        add(map, field(length)?)?;
    }
    Ok(())
}

fn field(bytes: &[u8]) -> Result<u64, String> {
    let number = number(bytes)
        .ok()
        .and_then(|number| u64::try_from(number).ok());
    number.ok_or_else(|| "its map of holes holds what is no number".into())
}

fn add(map: &mut Map, number: u64) -> Result<(), String> {
    map.push(number);
    match map.len() > 2 * MOST {
        true => Err(format!("it has more than {MOST} pieces between holes")),
        false => Ok(()),
    }
}

/// The map that stands before the contents (format 1.0) from `at` on, and where they begin.
pub(super) fn before(blocks: &mut Blocks<'_>, at: u64, end: u64) -> Result<(Map, u64), String> {
    let mut map = Map::new();
    let mut line = Vec::new();
    let mut wanted: Option<u64> = None;
    for block in (at..end).step_by(BLOCK as usize) {
        let bytes = blocks
            .block(block)?
            .ok_or("the archive ends within its map of holes")?;
        for byte in bytes {
            if byte != b'\n' {
                line.push(byte);
                if line.len() > 20 {
                    return Err("its map of holes holds what is no number".into());
                }
                continue;
            }
            let number = decimal(&line).ok_or("its map of holes holds what is no number")?;
            line.clear();
            match wanted {
                None => wanted = Some(number.saturating_mul(2)),
                Some(_) => add(&mut map, number)?,
            }
            if wanted == Some(map.len() as u64) {
                return Ok((map, block + BLOCK));
            }
        }
    }
    Err("its map of holes does not end".into())
}

/// The pieces of a file of `size` bytes, of which `stored` are in the archive from `at` on.
pub(super) fn pieces(
    map: &Map,
    size: u64,
    stored: u64,
    at: u64,
) -> Result<Vec<(Range<u64>, u64)>, String> {
    let wrong = || "its map of holes contradicts itself".to_owned();
    let mut pieces: Vec<(Range<u64>, u64)> = Vec::new();
    let (mut end, mut taken) = (0, 0u64);
    for piece in map.chunks(2) {
        let &[begin, length] = piece else {
            return Err(wrong());
        };
        let stop = begin
            .checked_add(length)
            .filter(|stop| *stop <= size && begin >= end);
        let stop = stop.ok_or_else(wrong)?;
        match pieces.last_mut() {
            _ if length == 0 => {}
            Some((last, _)) if last.end == begin => last.end = stop,
            _ => pieces.push((begin..stop, at + taken)),
        }
        end = stop;
        taken = taken
            .checked_add(length)
            .filter(|taken| *taken <= stored)
            .ok_or_else(wrong)?;
    }
    match taken == stored {
        true => Ok(pieces),
        false => Err(wrong()),
    }
}
