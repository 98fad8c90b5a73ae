//! A disk as plain bytes.

use super::piece::{Piece, State};
use super::pipeline::{Crew, From as Bytes, Part, Placed};
use super::views::{Stretch, Views};
use super::{Contents, Options, WriteError};
use crate::medium::{Medium, Ordered, Source};
use crate::qcow2::read::Disk;
use crate::tree::Progress;
use std::io::Write;

/// log2 of the blocks that are looked at for zeroes.
const BLOCK_BITS: u32 = 12;

/// Writes the disk into `medium` as it is. What is zeroes is zeroed there, or left alone if
/// all of `medium` `is_zero` already. `progress` is told how many bytes were dealt with.
///
/// # Errors
/// If the disk cannot be read, or `medium` not written.
pub fn write_raw<S: Source + Send + Sync>(
    disk: &Disk<S>,
    medium: &dyn Medium,
    is_zero: bool,
    threads: usize,
    progress: &Progress,
) -> Result<(), WriteError> {
    let options = Options {
        cluster_bits: BLOCK_BITS,
        threads,
        ..Options::default()
    };
    let size = disk.size();
    let crew = Crew {
        views: Views::new(&Contents::of(disk), &options),
        medium,
        options: &options,
        progress,
    };
    let zero = |first: u64, end: u64| {
        let (from, to) = (first << BLOCK_BITS, (end << BLOCK_BITS).min(size));
        match is_zero {
            true => Ok(()),
            false => medium.zero(from, to - from),
        }
    };
    let mut place = |placed: Placed<'_>| match placed {
        Placed::Piece(_, piece) => parts(piece, size, &zero),
        Placed::Unread(Stretch::Same(_, blocks, _)) => {
            zero(blocks.start, blocks.end)?;
            Ok(Vec::new())
        }
        Placed::Unread(_) => Ok(Vec::new()),
    };
    crew.run(&mut crew.views.stretches(progress), &mut place)
}

/// Writes the disk to `out` as it is, byte after byte, holes as zeroes.
///
/// # Errors
/// If the disk cannot be read, or `out` not written.
pub fn stream_raw<S: Source + Send + Sync>(
    disk: &Disk<S>,
    out: impl Write + Send,
    threads: usize,
    progress: &Progress,
) -> Result<(), WriteError> {
    let pipe = Ordered::new(out);
    write_raw(disk, &pipe, false, threads, progress)?;
    Ok(pipe.finish(disk.size())?)
}

/// Where the blocks of a piece go; `zero` takes those that are zeroes.
fn parts(
    piece: &Piece,
    size: u64,
    zero: &dyn Fn(u64, u64) -> std::io::Result<()>,
) -> Result<Vec<Part>, WriteError> {
    let mut parts = Vec::new();
    let mut first = 0;
    let plain = |state: &State| matches!(state, State::Plain(_));
    for alike in piece.states.chunk_by(|one, two| plain(one) == plain(two)) {
        let blocks = piece.first + first as u64..piece.first + (first + alike.len()) as u64;
        if alike.first().is_some_and(plain) {
            let at = blocks.start << BLOCK_BITS;
            let length = ((blocks.end << BLOCK_BITS).min(size) - at) as usize;
            let begin = first << BLOCK_BITS;
            let from = Bytes::Plain(begin..begin + length);
            parts.push(Part { at, from });
        } else {
            zero(blocks.start, blocks.end)?;
        }
        first += alike.len();
    }
    Ok(parts)
}
