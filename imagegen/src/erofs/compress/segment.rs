//! A segment of a file becomes extents: what fits a cluster is compressed into it, what is
//! not worth it stays plain, block by block.
//!
//! Segments begin and end at blocks of the file, but the last, so that no logical cluster
//! has the heads of two extents whatever stands on both sides of a border.

use super::codec::{Codec, CodecError, Fit, Room};
use super::extent::{Extent, Kind};

/// Bytes of a file that are compressed on their own. A cluster less per segment is full,
/// so they are large; and several are in memory for each thread, so they are not larger.
pub const SEGMENT: u64 = 4 << 20;

/// How a segment is cut.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Bytes of a block.
    pub block: usize,
    /// Bytes of a cluster at most.
    pub cluster: usize,
    /// Plain blocks lie as in the file, wrapped.
    pub interlaced: bool,
    /// What becomes of the end: only the last segment of a file has one.
    pub end: End,
}

/// What may be done with the end of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is not the file's end, or it lies in blocks as all of it.
    Blocks,
    /// A last cluster of less than a block may lie behind the index.
    Inline,
    /// A last cluster that is not full goes to the packed inode, not compressed here.
    Fragment,
}

/// A segment's extents, whose places count from the segment's first byte in the image.
#[derive(Debug, Default)]
pub struct Segment {
    /// All but the end that lies elsewhere.
    pub extents: Vec<Extent>,
    /// The clusters.
    pub data: Vec<u8>,
    /// What lies elsewhere.
    pub rest: Option<Rest>,
}

/// An end that lies elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// A cluster of less than a block.
    Inline {
        /// Bytes of the file.
        length: u32,
        /// What it holds.
        kind: Kind,
        /// The cluster.
        bytes: Vec<u8>,
    },
    /// The file's last bytes.
    Fragment(Vec<u8>),
}

impl Segment {
    /// Whether anything was compressed, or lies elsewhere.
    pub fn gains(&self) -> bool {
        self.rest.is_some() || self.extents.iter().any(|extent| extent.kind != Kind::Plain)
    }
}

/// Compresses a segment.
///
/// # Errors
/// If the library fails.
pub fn compress(input: &[u8], cut: &Cut, codec: &mut dyn Codec) -> Result<Segment, CodecError> {
    codec.forget();
    let mut work = Work {
        cut,
        done: Segment::default(),
        at: 0,
    };
    let mut out = Vec::new();
    while let Some(rest) = input.get(work.at..).filter(|rest| !rest.is_empty()) {
        if work.keep_rest(rest) {
            break;
        }
        match codec.fit(rest, work.room(cut.cluster), &mut out)? {
            Fit::Plain(count) => work.plain(rest.get(..count).unwrap_or(rest)),
            Fit::Compressed(taken) if taken < rest.len() => work.cluster(taken, &out),
            Fit::Compressed(_) => work.end(rest, &mut out, codec)?,
        }
    }
    Ok(work.done)
}

struct Work<'a> {
    cut: &'a Cut,
    done: Segment,
    /// Bytes that were dealt with.
    at: usize,
}

impl Work<'_> {
    fn room(&self, bytes: usize) -> Room {
        Room {
            bytes,
            block: self.cut.block,
        }
    }

    /// Deals with a rest that needs no codec; whether it was one.
    fn keep_rest(&mut self, rest: &[u8]) -> bool {
        match self.cut.end {
            End::Fragment if rest.len() <= self.cut.cluster => {
                self.done.rest = Some(Rest::Fragment(rest.to_vec()));
            }
            End::Inline | End::Fragment => return false,
            End::Blocks if rest.len() <= self.cut.block => self.plain(rest),
            End::Blocks => return false,
        }
        true
    }

    /// A cluster that takes all of `rest`, which ends the segment.
    fn end(
        &mut self,
        rest: &[u8],
        out: &mut Vec<u8>,
        codec: &mut dyn Codec,
    ) -> Result<(), CodecError> {
        match self.cut.end {
            End::Fragment if out.len() < self.cut.cluster => {
                self.done.rest = Some(Rest::Fragment(rest.to_vec()));
                self.at += rest.len();
                return Ok(());
            }
            End::Inline => {}
            End::Blocks | End::Fragment => {
                self.cluster(rest.len(), out);
                return Ok(());
            }
        }
        if out.len() < self.cut.block {
            self.inline(rest, Kind::First, std::mem::take(out));
            return Ok(());
        }
        // The last block is not full: what is in it may lie behind the index as well.
        let whole = out.len() / self.cut.block * self.cut.block;
        let mut shorter = Vec::new();
        match codec.fit(rest, self.room(whole), &mut shorter)? {
            Fit::Compressed(taken) if taken < rest.len() && whole < out.len() => {
                let (head, tail) = rest.split_at(taken);
                let mut last = Vec::new();
                let fit = codec.fit(tail, self.room(self.cut.block), &mut last)?;
                if fit == Fit::Compressed(tail.len()) && last.len() < self.cut.block {
                    self.cluster(head.len(), &shorter);
                    self.inline(tail, Kind::First, last);
                    return Ok(());
                }
            }
            _ => {}
        }
        self.cluster(rest.len(), out);
        Ok(())
    }

    fn inline(&mut self, rest: &[u8], kind: Kind, bytes: Vec<u8>) {
        self.at += rest.len();
        self.done.rest = Some(Rest::Inline {
            length: rest.len() as u32, // less than a segment
            kind,
            bytes,
        });
    }

    /// A cluster that holds `taken` bytes, at the end of its blocks.
    fn cluster(&mut self, taken: usize, bytes: &[u8]) {
        let size = self.room(self.cut.cluster).occupied(bytes.len());
        let begin = self.done.data.len();
        self.done.data.resize(begin + size - bytes.len(), 0);
        self.done.data.extend_from_slice(bytes);
        self.push(taken, size, begin, Kind::First);
    }

    fn push(&mut self, length: usize, size: usize, at: usize, kind: Kind) {
        self.at += length;
        self.done.extents.push(Extent {
            length: length as u32, // less than a segment, as all of these
            size: size as u32,
            at: at as u64,
            kind,
            partial: false,
        });
    }

    /// Blocks that are not compressed.
    fn plain(&mut self, bytes: &[u8]) {
        let block = self.cut.block;
        if self.cut.end == End::Inline && bytes.len() < block {
            self.inline(bytes, Kind::Plain, bytes.to_vec());
            return;
        }
        for part in bytes.chunks(block) {
            let begin = self.done.data.len();
            let wrapped = match self.cut.interlaced {
                true => part.len().min(block - self.at % block),
                false => part.len(),
            };
            let offset = if self.cut.interlaced {
                self.at % block
            } else {
                0
            };
            let (first, second) = part.split_at(wrapped);
            self.done.data.resize(begin + offset, 0);
            if let Some(before) = self.done.data.get_mut(begin..begin + second.len()) {
                before.copy_from_slice(second);
            }
            self.done.data.extend_from_slice(first);
            self.done.data.resize(begin + block, 0);
            self.push(part.len(), block, begin, Kind::Plain);
        }
    }
}

/// The segment as it is, without compressing it.
pub fn plain(input: &[u8], cut: &Cut) -> Segment {
    let mut work = Work {
        cut,
        done: Segment::default(),
        at: 0,
    };
    match cut.end {
        End::Fragment if input.len() <= cut.cluster => {
            work.keep_rest(input);
        }
        _ => work.plain(input),
    }
    work.done
}
