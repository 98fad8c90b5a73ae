//! Which chunks have been copied: a byte a chunk, shared by all threads.
//!
//! A chunk goes from `UNTOUCHED` over `COPYING` (somebody copies it) and perhaps
//! `AWAITED` (others wait for that) to `DONE`. Whoever claims a run of chunks
//! finishes it without waiting for anybody, so nobody waits for ever.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

const UNTOUCHED: u8 = 0;
const COPYING: u8 = 1;
const AWAITED: u8 = 2;
const DONE: u8 = 3;

/// A request that waits: its thread, and its place there.
pub(super) type Waiter = (u32, u32);

/// What to do about a range of chunks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// All are copied: write.
    Done,
    /// These are the caller's to copy now.
    Copy(Range<u64>),
    /// Somebody else copies this one.
    Busy(u64),
}

/// See the module.
pub(super) struct Copies {
    states: Box<[AtomicU8]>,
    /// Bytes of a chunk.
    pub(super) chunk: u64,
    /// Most chunks in one copy.
    pub(super) most: u64,
    /// Whether a copy counts only once the store has been flushed.
    pub(super) flush: bool,
    /// The next free byte of the store.
    next: AtomicU64,
    waiters: Mutex<HashMap<u64, Vec<Waiter>>>,
}

impl Copies {
    pub(super) fn new(origin_bytes: u64, chunk: u64, most: u64, flush: bool) -> Self {
        let chunks = origin_bytes.div_ceil(chunk);
        Self {
            states: (0..chunks).map(|_| AtomicU8::new(UNTOUCHED)).collect(),
            chunk,
            most,
            flush,
            next: AtomicU64::new(0),
            waiters: Mutex::default(),
        }
    }

    /// Looks at the chunks from `*at` up to `end`, skips those that are done, and
    /// claims the first run that is not.
    pub(super) fn claim(&self, at: &mut u64, end: u64) -> Claim {
        while *at < end && self.state(*at) == DONE {
            *at += 1;
        }
        let first = *at;
        while *at < end && *at - first < self.most && self.swap(*at, UNTOUCHED, COPYING) {
            *at += 1;
        }
        match (first < *at, first < end) {
            (true, _) => Claim::Copy(first..*at),
            (false, true) if self.state(first) == DONE => self.claim(at, end),
            (false, true) => Claim::Busy(first),
            (false, false) => Claim::Done,
        }
    }

    /// Waits for the copy of `chunk`; `false` if it is over already.
    pub(super) fn wait(&self, chunk: u64, waiter: Waiter) -> bool {
        let mut waiters = self.waiters.lock();
        self.swap(chunk, COPYING, AWAITED);
        if self.state(chunk) != AWAITED {
            return false;
        }
        waiters.entry(chunk).or_default().push(waiter);
        true
    }

    /// The copy of `run` is over; who waited for it goes on.
    pub(super) fn finish(&self, run: Range<u64>, copied: bool, out: &mut Vec<Waiter>) {
        let state = if copied { DONE } else { UNTOUCHED };
        for chunk in run {
            let Some(place) = self.states.get(chunk as usize) else {
                continue;
            };
            if place.swap(state, Ordering::AcqRel) == AWAITED {
                // Whoever set AWAITED holds the lock until it is in the list.
                out.extend(self.waiters.lock().remove(&chunk).unwrap_or_default());
            }
        }
    }

    /// Room for `bytes` in the store.
    pub(super) fn place(&self, bytes: u64) -> u64 {
        self.next.fetch_add(bytes, Ordering::Relaxed)
    }

    /// As after a new snapshot: every chunk is to be copied again.
    pub(super) fn reset(&self) {
        for place in &self.states {
            // Those being copied stay so.
            let _ = place.compare_exchange(DONE, UNTOUCHED, Ordering::AcqRel, Ordering::Relaxed);
        }
        self.next.store(0, Ordering::Relaxed);
    }

    fn state(&self, chunk: u64) -> u8 {
        self.states
            .get(chunk as usize)
            .map_or(DONE, |place| place.load(Ordering::Acquire))
    }

    fn swap(&self, chunk: u64, from: u8, to: u8) -> bool {
        self.states.get(chunk as usize).is_some_and(|place| {
            place
                .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_claimed_once_and_bounded() {
        let copies = Copies::new(16 << 14, 1 << 14, 4, false);
        let mut at = 2;
        assert_eq!(copies.claim(&mut at, 9), Claim::Copy(2..6));
        let mut other = 0;
        assert_eq!(copies.claim(&mut other, 9), Claim::Copy(0..2));
        assert_eq!(copies.claim(&mut other, 9), Claim::Busy(2));
        let mut woken = Vec::new();
        copies.finish(2..6, true, &mut woken);
        assert_eq!(copies.claim(&mut other, 9), Claim::Copy(6..9));
        copies.finish(6..9, true, &mut woken);
        assert_eq!(copies.claim(&mut other, 9), Claim::Done);
        assert!(woken.is_empty());
    }

    #[test]
    fn waiters_are_woken_once_whether_the_copy_succeeds_or_not() {
        for copied in [true, false] {
            let copies = Copies::new(4 << 14, 1 << 14, 4, false);
            assert_eq!(copies.claim(&mut 1, 2), Claim::Copy(1..2));
            assert!(copies.wait(1, (0, 7)));
            assert!(copies.wait(1, (1, 9)));
            let mut woken = Vec::new();
            copies.finish(1..2, copied, &mut woken);
            assert_eq!(woken, [(0, 7), (1, 9)]);
            assert!(!copies.wait(1, (0, 7)));
            let again = copies.claim(&mut 1, 2);
            assert_eq!(again == Claim::Done, copied, "{again:?}");
        }
    }

    #[test]
    fn after_a_reset_everything_is_to_be_copied_again() {
        let copies = Copies::new(2 << 14, 1 << 14, 4, false);
        assert_eq!(copies.claim(&mut 0, 2), Claim::Copy(0..2));
        copies.finish(0..2, true, &mut Vec::new());
        assert_eq!((copies.place(512), copies.place(512)), (0, 512));
        copies.reset();
        assert_eq!(copies.claim(&mut 0, 2), Claim::Copy(0..2));
        assert_eq!(copies.place(1), 0);
    }
}
