//! The fast path of origin writes: "this chunk is unique since the newest
//! snapshot", in memory, readable by any thread without a lock.
//!
//! One 64-bit word holds a 32-bit epoch and 32 chunk bits, so a take clears
//! every bit by one increment: bits of an older epoch do not count. A volume
//! without snapshots skips even the word.
//!
//! Contract:
//! - `all_unique` may be called from any thread that may issue origin writes
//!   (that is: not between a pause of the volume and its resume).
//! - `set`, `advance` and `set_shared` are called by the engine only. A bit is
//!   set only after its exception is published and the chunk's readers drained.
//! - `advance` runs only while the volume is paused.
//! - `reserve` and `grow` are the engine's too, at any time: words never move, so
//!   whoever looks at the map meanwhile sees it as it was or larger.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use zerocopy::FromZeros;

const CHUNKS_PER_WORD: u64 = 32;
/// How often a map can double; far beyond any memory.
const PIECES: usize = 40;

/// The unique bits of one volume. See the module for who may call what.
#[derive(Debug)]
pub struct UniqueMap {
    epoch: AtomicU32,
    shared: AtomicBool,
    chunks: AtomicU64,
    words: Box<[AtomicU64]>,
    /// What the volume grew by: piece `k` has `words.len() << k` words and follows
    /// `words` and all pieces before it, which are as many.
    grown: [OnceLock<Box<[AtomicU64]>>; PIECES],
}

impl UniqueMap {
    /// A map for `chunks` chunks with no bit set and no snapshot. The words are
    /// zero pages until first written, so a sparse volume costs little.
    ///
    /// # Errors
    /// [`zerocopy::AllocError`] when the words do not fit the address space or memory.
    pub fn new(chunks: u64) -> Result<Self, zerocopy::AllocError> {
        let words = words_for(chunks)?;
        Ok(Self {
            // Words start at epoch 0, which therefore never counts.
            epoch: AtomicU32::new(1),
            shared: AtomicBool::new(false),
            chunks: AtomicU64::new(chunks),
            words: <[AtomicU64]>::new_box_zeroed_with_elems(words)?,
            grown: [const { OnceLock::new() }; PIECES],
        })
    }

    /// Makes room for `chunks` chunks, so that [`Self::grow`] to as many cannot
    /// fail. Engine only.
    ///
    /// # Errors
    /// [`zerocopy::AllocError`] when the words do not fit the address space or
    /// memory; the map is as before.
    pub fn reserve(&self, chunks: u64) -> Result<(), zerocopy::AllocError> {
        let wanted = words_for(chunks)?;
        let mut len = self.words.len();
        for piece in &self.grown {
            if len >= wanted {
                break;
            }
            if piece.get().is_none() {
                let words = <[AtomicU64]>::new_box_zeroed_with_elems(len)?;
                // The engine is the only one to grow a map: the place is empty.
                let _ = piece.set(words);
            }
            len = len.checked_mul(2).ok_or(zerocopy::AllocError)?;
        }
        if len >= wanted {
            Ok(())
        } else {
            Err(zerocopy::AllocError)
        }
    }

    /// The volume has `chunks` chunks from now on, not fewer than before; the new
    /// ones have no bit set. Engine only.
    ///
    /// # Errors
    /// As [`Self::reserve`]: none after it.
    pub fn grow(&self, chunks: u64) -> Result<(), zerocopy::AllocError> {
        self.reserve(chunks)?;
        self.chunks.fetch_max(chunks, Ordering::Release);
        Ok(())
    }

    /// The current epoch. A write granted under another epoch must ask again.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Whether the volume has any snapshot at all.
    #[must_use]
    pub fn has_snapshots(&self) -> bool {
        self.shared.load(Ordering::Acquire)
    }

    /// Whether chunks `first .. first + count` may be overwritten in place.
    /// `false` is always safe: the caller asks the engine.
    #[must_use]
    pub fn all_unique(&self, first: u64, count: u64) -> bool {
        if !self.has_snapshots() {
            return true;
        }
        let Some(end) = first
            .checked_add(count)
            .filter(|&e| e <= self.chunks.load(Ordering::Acquire))
        else {
            return false;
        };
        let epoch = self.epoch();
        let mut at = first;
        while at < end {
            let bit = at % CHUNKS_PER_WORD;
            let run = (CHUNKS_PER_WORD - bit).min(end - at);
            let mask = (u32::MAX >> (CHUNKS_PER_WORD - run)) << bit;
            let Some(word) = self.word(at) else {
                return false;
            };
            let word = word.load(Ordering::Acquire);
            if (word >> 32) as u32 != epoch || word as u32 & mask != mask {
                return false;
            }
            at += run;
        }
        true
    }

    /// The first of the chunks `first .. end` that may be overwritten in place; `end` if
    /// there is none. Goes over 32 chunks at a time.
    #[must_use]
    pub fn next_unique(&self, first: u64, end: u64) -> u64 {
        if !self.has_snapshots() {
            return first.min(end);
        }
        let epoch = self.epoch();
        let known = end.min(self.chunks.load(Ordering::Acquire));
        let mut at = first;
        while at < known {
            let bit = at % CHUNKS_PER_WORD;
            let word = self.word(at).map_or(0, |word| word.load(Ordering::Acquire));
            let unique = match (word >> 32) as u32 == epoch {
                true => word as u32 >> bit,
                false => 0,
            };
            if unique != 0 {
                return (at + u64::from(unique.trailing_zeros())).min(end);
            }
            at += CHUNKS_PER_WORD - bit;
        }
        end
    }

    /// Marks `chunk` unique. Engine only: after publish and with no reader left.
    pub fn set(&self, chunk: u64) {
        let Some(word) = self.word(chunk) else { return };
        let epoch = u64::from(self.epoch());
        let bit = 1u64 << (chunk % CHUNKS_PER_WORD);
        let old = word.load(Ordering::Relaxed);
        let kept = if old >> 32 == epoch { old } else { epoch << 32 };
        // The engine is the only writer, so load and store need no exchange.
        word.store(kept | bit, Ordering::Release);
    }

    /// Clears every bit: a snapshot was taken. Engine only, volume paused.
    pub fn advance(&self) {
        let next = self.epoch().wrapping_add(1);
        if next == 0 {
            // Once in 2^32 takes: old words could look current again.
            let grown = self.grown.iter().filter_map(OnceLock::get).flatten();
            for word in self.words.iter().chain(grown) {
                word.store(0, Ordering::Relaxed);
            }
        }
        self.epoch.store(next.max(1), Ordering::Release);
        self.shared.store(true, Ordering::Release);
    }

    /// Says whether the volume has snapshots. Engine only. `true` only while
    /// paused or before any write; `false` once the last delete is durable.
    pub fn set_shared(&self, shared: bool) {
        self.shared.store(shared, Ordering::Release);
    }

    fn word(&self, chunk: u64) -> Option<&AtomicU64> {
        let index = (chunk / CHUNKS_PER_WORD) as usize;
        self.words.get(index).or_else(|| self.grown_word(index))
    }

    /// A word beyond those the map was made with: piece `k` begins at word
    /// `words.len() << k`.
    fn grown_word(&self, index: usize) -> Option<&AtomicU64> {
        let len = self.words.len();
        let piece = index.checked_div(len)?.checked_ilog2()?;
        let words = self.grown.get(piece as usize)?.get()?;
        words.get(index - (len << piece))
    }
}

/// Words for so many chunks.
fn words_for(chunks: u64) -> Result<usize, zerocopy::AllocError> {
    usize::try_from(chunks.div_ceil(CHUNKS_PER_WORD)).map_err(|_| zerocopy::AllocError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_follow_a_naive_model_through_epochs() {
        let map = UniqueMap::new(100).unwrap();
        assert!(map.all_unique(0, 100), "no snapshot: everything is unique");
        map.advance();
        let mut naive = [false; 100];
        for chunk in (0..100).filter(|c| c % 7 < 5) {
            map.set(chunk);
            naive[chunk as usize] = true;
        }
        for first in 0..100u64 {
            for count in 1..=(100 - first) {
                let range = first as usize..(first + count) as usize;
                assert_eq!(
                    map.all_unique(first, count),
                    naive[range].iter().all(|b| *b)
                );
            }
        }
        for first in 0..=100u64 {
            for end in first..=100 {
                let found = (first..end).find(|chunk| naive[*chunk as usize]);
                assert_eq!(map.next_unique(first, end), found.unwrap_or(end));
            }
        }
        assert_eq!(
            map.next_unique(100, 200),
            200,
            "nothing is known beyond the end"
        );
        assert!(!map.all_unique(99, 2), "beyond the end is never unique");
        map.advance();
        assert!(
            (0..100).all(|c| !map.all_unique(c, 1)),
            "a take clears every bit"
        );
    }

    #[test]
    fn a_grown_map_keeps_its_bits_and_has_none_beyond() {
        let map = UniqueMap::new(70).unwrap();
        map.advance();
        let mut chunks = 70;
        for grown in [70, 71, 96, 97, 191, 193, 1000, 5000] {
            (0..chunks).for_each(|c| map.set(c));
            assert!(map.all_unique(0, chunks));
            assert!(!map.all_unique(chunks - 1, 2), "beyond {chunks}");
            map.grow(grown).unwrap();
            assert!(map.all_unique(0, chunks), "{chunks} grown to {grown}");
            assert!((chunks..grown).all(|c| !map.all_unique(c, 1)));
            chunks = grown;
        }
        map.set(4999);
        assert!(map.all_unique(4999, 1));
        map.epoch.store(u32::MAX, Ordering::Relaxed);
        map.advance();
        assert!((0..chunks).all(|c| !map.all_unique(c, 1)));
        map.grow(10).unwrap();
        map.set(4999);
        assert!(map.all_unique(4999, 1), "a map never shrinks");
        assert!(map.grow(u64::MAX).is_err());
    }

    /// Resident memory of this process in bytes.
    fn resident() -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    }

    /// 64 TiB in chunks of 16 KiB: 1 GiB of words, of which those written count.
    #[test]
    fn a_sparse_map_takes_no_memory_for_what_is_not_written() {
        let (before, chunks) = (resident(), 1 << 32);
        let map = UniqueMap::new(chunks).unwrap();
        map.set_shared(true);
        for round in 0..3 {
            map.advance();
            (0..100).for_each(|n| map.set(n * (chunks / 100) + round));
        }
        assert!(map.all_unique(2, 1) && !map.all_unique(1, 1));
        // Other tests run beside this one.
        let grown = resident().saturating_sub(before);
        assert!(grown < 256 << 20, "{grown} bytes");
    }

    #[test]
    fn the_epoch_wraps_without_reviving_old_bits() {
        let map = UniqueMap::new(64).unwrap();
        map.advance();
        map.set(3);
        map.epoch.store(u32::MAX, Ordering::Relaxed);
        map.advance();
        assert_eq!(map.epoch(), 1);
        assert!(!map.all_unique(3, 1));
    }
}
