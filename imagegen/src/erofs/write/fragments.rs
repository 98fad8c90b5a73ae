//! The packed inode: ends of files, or whole ones, that are compressed together. The same
//! bytes are kept once.
//!
//! An inode tells of a fragment or of an end beside it, in the same word: where files have
//! fragments, the packed inode is the only one to have its own end beside it.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::super::compress::algorithm::{Algorithm, Family};
use super::super::compress::choice::{Compression, Method};
use super::super::compress::extent::Tail;
use super::super::compress::segment::{End, SEGMENT};
use super::super::compress::{Ahead, Promised};
use super::clusters::{Clusters, Shape};
use super::contents::{Body, Placing};
use super::fault::Fault;
use crate::digest;
use crate::medium::read_part;
use crate::tree::Content;

/// Segments that are compressed before the first of them gets its place. Not a matter of
/// threads, because blocks are given out in the order in which this happens.
const WAITING: usize = 4;

/// What goes into the packed inode.
pub(crate) struct Fragments {
    algorithm: Algorithm,
    cluster: u32,
    /// What becomes of the end of all this.
    end: End,
    /// Bytes that were not given to a thread yet.
    open: Vec<u8>,
    waiting: VecDeque<Promised>,
    placed: Clusters,
    size: u64,
    known: FxHashMap<digest::Long, u64>,
}

impl Fragments {
    /// With nothing in it.
    pub(crate) fn new(compression: &Compression) -> Self {
        let algorithm = match compression.usual {
            Method::By(algorithm) => algorithm,
            Method::Auto | Method::Plain => {
                let all = compression.algorithms();
                let zstd = Algorithm::usual(Family::Zstd);
                all.last().copied().unwrap_or(zstd)
            }
        };
        Self {
            algorithm,
            cluster: compression.cluster,
            end: match compression.inline_tails {
                true => End::Inline,
                false => End::Blocks,
            },
            open: Vec::new(),
            waiting: VecDeque::new(),
            placed: Clusters::default(),
            size: 0,
            known: FxHashMap::default(),
        }
    }

    /// Where `bytes` lie.
    pub(crate) fn add(
        &mut self,
        bytes: Vec<u8>,
        ahead: &Ahead<'_, '_>,
        placing: &mut Placing<'_, '_, '_>,
    ) -> Result<u64, Fault> {
        let key = digest::long(&bytes);
        if let Some(at) = self.known.get(&key) {
            return Ok(*at);
        }
        let at = self.size;
        self.known.insert(key, at);
        self.append(&bytes, ahead, placing)?;
        Ok(at)
    }

    /// Where all bytes of a file lie.
    pub(crate) fn add_whole(
        &mut self,
        content: &Content,
        ahead: &Ahead<'_, '_>,
        placing: &mut Placing<'_, '_, '_>,
    ) -> Result<Tail, Fault> {
        let (length, first) = (content.size, self.size);
        if length <= SEGMENT {
            let at = self.add(read_part(content, &(0..length))?, ahead, placing)?;
            return Ok(Tail::Fragment { length, at });
        }
        let mut at = 0;
        while at < length {
            let end = (at + SEGMENT).min(length);
            self.append(&read_part(content, &(at..end))?, ahead, placing)?;
            at = end;
        }
        Ok(Tail::Fragment { length, at: first })
    }

    fn append(
        &mut self,
        bytes: &[u8],
        ahead: &Ahead<'_, '_>,
        placing: &mut Placing<'_, '_, '_>,
    ) -> Result<(), Fault> {
        self.size += bytes.len() as u64;
        self.open.extend_from_slice(bytes);
        while self.open.len() >= SEGMENT as usize {
            let later = self.open.split_off(SEGMENT as usize);
            let segment = std::mem::replace(&mut self.open, later);
            self.hand_on(segment, End::Blocks, ahead);
            if self.waiting.len() > WAITING {
                self.place_first(ahead, placing)?;
            }
        }
        Ok(())
    }

    fn hand_on(&mut self, segment: Vec<u8>, end: End, ahead: &Ahead<'_, '_>) {
        let promise = ahead.submit(segment, self.algorithm, self.cluster, end);
        self.waiting.push_back(promise);
    }

    fn place_first(
        &mut self,
        ahead: &Ahead<'_, '_>,
        placing: &mut Placing<'_, '_, '_>,
    ) -> Result<(), Fault> {
        if let Some(promise) = self.waiting.pop_front() {
            let packed = promise.wait()?;
            self.placed.add(packed, ahead, placing)?;
        }
        Ok(())
    }

    /// Bytes of its clusters at most.
    pub(crate) fn cluster(&self) -> u32 {
        self.cluster
    }

    /// All is there: bytes of the packed inode's contents, and what it says of them. None
    /// if nothing is in it.
    pub(crate) fn finish(
        mut self,
        shape: Shape,
        beside: usize,
        ahead: &Ahead<'_, '_>,
        placing: &mut Placing<'_, '_, '_>,
    ) -> Result<Option<(u64, Body)>, Fault> {
        if self.size == 0 {
            return Ok(None);
        }
        if !self.open.is_empty() {
            let segment = std::mem::take(&mut self.open);
            self.hand_on(segment, self.end, ahead);
        }
        while !self.waiting.is_empty() {
            self.place_first(ahead, placing)?;
        }
        let size = self.size;
        let body = self
            .placed
            .finish(shape, beside, &mut None, ahead, placing)?;
        Ok(Some((size, body)))
    }
}
