//! A segment of a file becomes extents: what fits a cluster is compressed into it, what is
//! not worth it stays plain, block by block.
//!
//! Segments begin and end at blocks of the file, but the last, so that no logical cluster
//! has the heads of two extents whatever stands on both sides of a border.

use std::ops::Range;

use super::codec::{Codec, CodecError, Fit, Room};
use super::extent::{Extent, Kind};

/// Bytes of a file that are compressed on their own. A cluster less per segment is full,
/// so they are large; and several are in memory for each thread, so they are not larger.
pub const SEGMENT: u64 = 4 << 20;

/// Bytes that the last extent before a border has more than a block.
const LAST: usize = 256;

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
    /// It is the last segment.
    pub ends_file: bool,
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
    /// Which extents lie in pieces that several files share, in their order.
    pub borrowed: Vec<Borrowed>,
}

/// Extents of a piece, whose places count from the piece's first byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Borrowed {
    /// Which of the segment's extents.
    pub extents: Range<usize>,
    /// Number of the piece.
    pub piece: u32,
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
        let elsewhere = self.rest.is_some() || !self.borrowed.is_empty();
        elsewhere || self.extents.iter().any(|extent| extent.kind != Kind::Plain)
    }
}

/// Compresses a segment.
///
/// # Errors
/// If the library fails.
pub fn compress(input: &[u8], cut: &Cut, codec: &mut dyn Codec) -> Result<Segment, CodecError> {
    codec.forget();
    let mut work = Work::new(cut, 0);
    work.finish(input, cut.end, codec)?;
    Ok(work.done)
}

/// The segment as it is, without compressing it.
pub fn plain(input: &[u8], cut: &Cut) -> Segment {
    let mut work = Work::new(cut, 0);
    if cut.end != End::Fragment || !work.keep_rest(input, End::Fragment) {
        work.plain(input, cut.end);
    }
    work.done
}

/// A segment that is being made.
pub(super) struct Work<'a> {
    pub(super) cut: &'a Cut,
    pub(super) done: Segment,
    /// Where in the file it is, as far as it matters: counted from a block.
    pub(super) at: usize,
}

impl<'a> Work<'a> {
    /// With nothing done yet of what begins `at` bytes after a block of the file.
    pub(super) fn new(cut: &'a Cut, at: usize) -> Self {
        Self {
            cut,
            done: Segment::default(),
            at,
        }
    }

    /// Compresses `input`, after which something else comes: but for a rest that would end
    /// in the block it begins in, whatever block that is if it is not `settled` where
    /// `input` lies. Bytes that were dealt with.
    pub(super) fn run(
        &mut self,
        input: &[u8],
        settled: bool,
        codec: &mut dyn Codec,
    ) -> Result<usize, CodecError> {
        let (block, mut out, mut done) = (self.cut.block, Vec::new(), 0);
        while let Some(rest) = input.get(done..).filter(|rest| !rest.is_empty()) {
            let before = self.at;
            let stands = |at: usize, left: usize| settled && at % block + left >= block;
            if rest.len() <= block {
                if stands(self.at, rest.len()) {
                    self.plain(rest, End::Blocks);
                    done += rest.len();
                }
                break;
            }
            let room = self.room(self.cut.cluster);
            let mut fit = codec.fit(rest, room, &mut out)?;
            if let Fit::Compressed(taken) = fit
                && (1..=block).contains(&(rest.len() - taken))
                && !stands(self.at + taken, rest.len() - taken)
                && let Some(shorter) = rest.get(..rest.len().saturating_sub(block + LAST))
                && !shorter.is_empty()
            {
                // What is left then is enough to be compressed.
                let mut other = Vec::new();
                if let Fit::Compressed(taken) = codec.fit(shorter, room, &mut other)? {
                    (fit, out) = (Fit::Compressed(taken), other);
                }
            }
            match fit {
                Fit::Plain(count) => {
                    let whole = rest.get(..count / block * block).unwrap_or(rest);
                    self.plain(whole, End::Blocks);
                }
                Fit::Compressed(taken) => self.cluster(taken, &out),
            }
            done += self.at - before;
        }
        Ok(done)
    }

    /// Compresses `input`, with which the segment ends as `end` says.
    pub(super) fn finish(
        &mut self,
        input: &[u8],
        end: End,
        codec: &mut dyn Codec,
    ) -> Result<(), CodecError> {
        let (mut out, mut done) = (Vec::new(), 0);
        while let Some(rest) = input.get(done..).filter(|rest| !rest.is_empty()) {
            let before = self.at;
            if self.keep_rest(rest, end) {
                break;
            }
            let room = match end == End::Inline && rest.len() <= self.cut.block {
                true => self.exact(),
                false => self.room(self.cut.cluster),
            };
            match codec.fit(rest, room, &mut out)? {
                Fit::Plain(count) => self.plain(rest.get(..count).unwrap_or(rest), end),
                Fit::Compressed(taken) if taken < rest.len() => self.cluster(taken, &out),
                Fit::Compressed(_) => self.end(rest, end, &mut out, codec)?,
            }
            done += self.at - before;
        }
        Ok(())
    }

    fn room(&self, bytes: usize) -> Room {
        Room {
            bytes,
            block: self.cut.block,
        }
    }

    /// Room beside the inode, where every byte counts.
    fn exact(&self) -> Room {
        Room {
            bytes: self.cut.block,
            block: 1,
        }
    }

    /// Deals with a rest that needs no codec; whether it was one.
    fn keep_rest(&mut self, rest: &[u8], end: End) -> bool {
        match end {
            End::Fragment if rest.len() <= self.cut.cluster => {
                self.done.rest = Some(Rest::Fragment(rest.to_vec()));
                self.at += rest.len();
            }
            End::Blocks if rest.len() <= self.cut.block => self.plain(rest, end),
            End::Blocks | End::Inline | End::Fragment => return false,
        }
        true
    }

    /// A cluster that takes all of `rest`, which ends the segment.
    fn end(
        &mut self,
        rest: &[u8],
        end: End,
        out: &mut Vec<u8>,
        codec: &mut dyn Codec,
    ) -> Result<(), CodecError> {
        match end {
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
                let fit = codec.fit(tail, self.exact(), &mut last)?;
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

    /// Blocks that are not compressed, and what is less than one as `end` says.
    fn plain(&mut self, bytes: &[u8], end: End) {
        let block = self.cut.block;
        let whole = match end {
            End::Inline => bytes.len() / block * block,
            End::Blocks | End::Fragment => bytes.len(),
        };
        let (blocks, rest) = bytes.split_at(whole);
        self.blocks(blocks);
        if !rest.is_empty() {
            self.inline(rest, Kind::Plain, rest.to_vec());
        }
    }

    fn blocks(&mut self, bytes: &[u8]) {
        let block = self.cut.block;
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
