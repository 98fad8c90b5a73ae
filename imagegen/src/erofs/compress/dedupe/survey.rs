//! Which parts of files come more than once, from a walk before the one that writes.
//!
//! Files are cut into content-defined chunks. Two neighbours are joined if neither stands
//! beside anything else anywhere; what is joined comes everywhere as a whole, so pieces
//! begin and end only where copies really differ. A few bytes are kept for each chunk.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};

use super::chunks::chunks;
use super::{FilePlan, Stamp, Step};
use crate::digest;
use crate::erofs::compress::SegmentError;
use crate::erofs::compress::choice::Method;
use crate::erofs::compress::pool::{Pool, Promise};
use crate::erofs::compress::segment::SEGMENT;
use crate::medium::read_part;
use crate::tree::Content;
use std::sync::Arc;

/// Bytes of a file that are cut on their own.
const REGION: u64 = 16 << 20;
/// Regions that wait for each thread.
const WAITING: usize = 3;

/// What stands before or after a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Neighbour {
    Unknown,
    /// Always this chunk.
    Only(u32),
    /// Different ones, or a file's end.
    Many,
}

impl Neighbour {
    fn note(&mut self, seen: Option<u32>) {
        *self = match (*self, seen) {
            (Self::Unknown, Some(seen)) => Self::Only(seen),
            (Self::Only(before), Some(seen)) if before == seen => Self::Only(seen),
            _ => Self::Many,
        };
    }
}

/// A chunk, wherever it comes.
#[derive(Debug)]
struct Chunk {
    length: u32,
    count: u32,
    before: Neighbour,
    after: Neighbour,
}

/// Digests and lengths of a region's chunks.
type Cut = Result<Vec<(digest::Short, u32)>, SegmentError>;

/// A file as its chunks.
struct File {
    stamp: Stamp,
    chunks: Vec<u32>,
}

/// What was seen so far.
pub(crate) struct Survey<'p, 'scope> {
    pool: &'p Pool<'scope>,
    known: FxHashMap<digest::Short, u32>,
    chunks: Vec<Chunk>,
    files: Vec<File>,
    /// Regions being cut, with the numbers of their files.
    waiting: VecDeque<(usize, Promise<Cut>)>,
}

impl<'p, 'scope> Survey<'p, 'scope> {
    pub(crate) fn new(pool: &'p Pool<'scope>) -> Self {
        Self {
            pool,
            known: FxHashMap::default(),
            chunks: Vec::new(),
            files: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Looks at a file that will be compressed by `method` in clusters of up to `cluster`
    /// bytes: only files that are compressed the same way share anything.
    pub(crate) fn add(
        &mut self,
        content: Content,
        (method, cluster): (Method, u32),
    ) -> Result<(), SegmentError> {
        let number = self.files.len();
        self.files.push(File {
            stamp: Stamp::of(&content),
            chunks: Vec::new(),
        });
        let content = Arc::new(content);
        for region in 0..content.size.div_ceil(REGION) {
            let range = region * REGION..((region + 1) * REGION).min(content.size);
            let content = Arc::clone(&content);
            let key = format!("{method:?} {cluster}");
            let promise = self.pool.submit(move |_| -> Cut {
                let bytes = read_part(&content, &range).map_err(SegmentError::Read)?;
                let digests =
                    chunks(&bytes).map(|chunk| (known_by(&key, chunk), chunk.len() as u32));
                Ok(digests.collect())
            });
            self.waiting.push_back((number, promise));
            while self.waiting.len() > WAITING * self.pool.threads() {
                self.take_first()?;
            }
        }
        Ok(())
    }

    fn take_first(&mut self) -> Result<(), SegmentError> {
        let Some((number, promise)) = self.waiting.pop_front() else {
            return Ok(());
        };
        let cut = promise.wait().unwrap_or(Err(SegmentError::Lost))?;
        for (digest, length) in cut {
            let id = self.chunk(digest, length);
            if let Some(file) = self.files.get_mut(number) {
                file.chunks.push(id);
            }
        }
        Ok(())
    }

    fn chunk(&mut self, digest: digest::Short, length: u32) -> u32 {
        let next = self.chunks.len() as u32; // chunks of 8 KiB: enough for 32 TiB
        let id = *self.known.entry(digest).or_insert(next);
        if id == next {
            self.chunks.push(Chunk {
                length,
                count: 0,
                before: Neighbour::Unknown,
                after: Neighbour::Unknown,
            });
        }
        if let Some(chunk) = self.chunks.get_mut(id as usize) {
            chunk.count += 1;
        }
        id
    }

    /// All files were added: how each consists of pieces, in their order, and how many
    /// pieces are shared.
    pub(crate) fn finish(mut self) -> Result<(Vec<FilePlan>, usize), SegmentError> {
        while !self.waiting.is_empty() {
            self.take_first()?;
        }
        self.known = FxHashMap::default();
        self.note_neighbours();
        let mut pieces = FxHashMap::default();
        let files = std::mem::take(&mut self.files);
        let plans = files.iter().map(|file| FilePlan {
            stamp: file.stamp,
            steps: self.steps(&file.chunks, &mut pieces),
        });
        let plans = plans.collect();
        Ok((plans, pieces.len()))
    }

    fn note_neighbours(&mut self) {
        for file in &self.files {
            let mut before = None;
            for id in &file.chunks {
                if let Some(chunk) = self.chunks.get_mut(*id as usize) {
                    chunk.before.note(before);
                }
                if let Some(chunk) = before.and_then(|b: u32| self.chunks.get_mut(b as usize)) {
                    chunk.after.note(Some(*id));
                }
                before = Some(*id);
            }
            if let Some(chunk) = before.and_then(|b| self.chunks.get_mut(b as usize)) {
                chunk.after.note(None);
            }
        }
    }

    /// A file's pieces; shared ones are numbered as they come.
    fn steps(&self, chunks: &[u32], pieces: &mut FxHashMap<u32, u32>) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        let mut joined = None;
        for &id in chunks {
            let Some(chunk) = self.chunks.get(id as usize) else {
                continue;
            };
            let length = chunk.length;
            let goes_on = chunk.before != Neighbour::Many && joined == Some(id);
            joined = match chunk.after {
                Neighbour::Only(after) => Some(after),
                Neighbour::Unknown | Neighbour::Many => None,
            };
            let shared = chunk.count > 1;
            match steps.last_mut() {
                Some(Step {
                    length: so_far,
                    piece: None,
                }) if !shared => {
                    *so_far += u64::from(length);
                }
                Some(Step {
                    length: so_far,
                    piece: Some(_),
                }) if shared && goes_on && *so_far + u64::from(length) <= SEGMENT => {
                    *so_far += u64::from(length);
                }
                _ => {
                    let next = pieces.len() as u32;
                    let piece = shared.then(|| *pieces.entry(id).or_insert(next));
                    steps.push(Step {
                        length: length.into(),
                        piece,
                    });
                }
            }
        }
        steps
    }
}

/// What a chunk is known by. Nobody compares the bytes: see [`digest::Short`] for what that
/// means.
fn known_by(key: &str, chunk: &[u8]) -> digest::Short {
    let mut digest = Sha256::new();
    digest.update(key);
    digest.update(chunk);
    digest::short(digest)
}
