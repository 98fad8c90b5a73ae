//! Directories in an image: how their entries are divided into blocks and a tail.

use crate::erofs::format::directory::{ENTRY, Entry, kind};
use std::io::{self, Write};
use std::ops::Range;
use zerocopy::IntoBytes;

use super::BLOCK;

/// Longest tail beside an inode; a longer one gets a block.
const TAIL_MAX: usize = BLOCK as usize / 2;

/// Entries by number: those of each block, and those of the tail, which may be none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Division {
    pub(super) blocks: Vec<Range<usize>>,
    pub(super) tail: Range<usize>,
    /// Bytes of the tail.
    pub(super) tail_length: usize,
}

/// Divides entries with names of these lengths, in their order.
pub(super) fn divide(lengths: impl Iterator<Item = usize>) -> Division {
    let mut blocks = Vec::new();
    let (mut first, mut used, mut count) = (0, 0, 0);
    for length in lengths {
        let entry = ENTRY + length;
        if used + entry > BLOCK as usize {
            blocks.push(first..count);
            (first, used) = (count, 0);
        }
        used += entry;
        count += 1;
    }
    if used > TAIL_MAX {
        blocks.push(first..count);
        (first, used) = (count, 0);
    }
    Division {
        blocks,
        tail: first..count,
        tail_length: used,
    }
}

/// An entry to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) name: &'a [u8],
    /// Number of the inode on disk.
    pub(super) nid: u64,
    pub(super) kind: u8,
}

/// Writes the entries of a block or tail, and returns how many bytes those are.
pub(super) fn write(entries: &[Named<'_>], out: &mut impl Write) -> io::Result<usize> {
    let mut at = entries.len() * ENTRY;
    for entry in entries {
        let written = Entry {
            nid: entry.nid.into(),
            name_at: (at as u16).into(),
            kind: entry.kind,
            reserved: 0,
        };
        out.write_all(written.as_bytes())?;
        at += entry.name.len();
    }
    for entry in entries {
        out.write_all(entry.name)?;
    }
    Ok(at)
}

/// Kind of an entry for a body.
pub(super) fn kind_of(body: &super::tree::Body) -> u8 {
    use super::tree::Body;
    match body {
        Body::Directory(_) => kind::DIRECTORY,
        Body::Inline(_) | Body::External(_) => kind::FILE,
        Body::Symlink(_) => kind::SYMLINK,
        Body::CharDevice(_) => kind::CHARACTER,
        Body::BlockDevice(_) => kind::BLOCK,
        Body::Fifo => kind::FIFO,
        Body::Socket => kind::SOCKET,
    }
}
