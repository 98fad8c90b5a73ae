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

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use zerocopy::FromZeros;

const CHUNKS_PER_WORD: u64 = 32;

/// The unique bits of one volume. See the module for who may call what.
#[derive(Debug)]
pub struct UniqueMap {
    epoch: AtomicU32,
    shared: AtomicBool,
    chunks: u64,
    words: Box<[AtomicU64]>,
}

impl UniqueMap {
    /// A map for `chunks` chunks with no bit set and no snapshot. The words are
    /// zero pages until first written, so a sparse volume costs little.
    ///
    /// # Errors
    /// [`zerocopy::AllocError`] when the words do not fit the address space or memory.
    pub fn new(chunks: u64) -> Result<Self, zerocopy::AllocError> {
        let words =
            usize::try_from(chunks.div_ceil(CHUNKS_PER_WORD)).map_err(|_| zerocopy::AllocError)?;
        Ok(Self {
            // Words start at epoch 0, which therefore never counts.
            epoch: AtomicU32::new(1),
            shared: AtomicBool::new(false),
            chunks,
            words: <[AtomicU64]>::new_box_zeroed_with_elems(words)?,
        })
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
        let Some(end) = first.checked_add(count).filter(|&e| e <= self.chunks) else {
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
            for word in &self.words {
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
        self.words.get((chunk / CHUNKS_PER_WORD) as usize)
    }
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
        assert!(!map.all_unique(99, 2), "beyond the end is never unique");
        map.advance();
        assert!(
            (0..100).all(|c| !map.all_unique(c, 1)),
            "a take clears every bit"
        );
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
