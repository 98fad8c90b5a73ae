//! What was read or decoded last, so that reading on or reading back does not do it again.
//! Bounded by bytes; what was used longest ago goes first.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use std::hash::Hash;
use std::sync::Arc;

/// Pieces of bytes by key.
#[derive(Debug)]
pub(crate) struct Cache<K> {
    pieces: HashMap<K, (Arc<[u8]>, u64), FxBuildHasher>,
    most: usize,
    bytes: usize,
    clock: u64,
}

/// A piece counts for at least so much, for what it costs besides its bytes.
const LEAST: usize = 1 << 10;

impl<K: Hash + Eq + Copy> Cache<K> {
    /// One that holds `most` bytes, and one piece even if it has more.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            pieces: HashMap::with_hasher(FxBuildHasher),
            most,
            bytes: 0,
            clock: 0,
        }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<Arc<[u8]>> {
        self.clock += 1;
        let (piece, used) = self.pieces.get_mut(key)?;
        *used = self.clock;
        Some(Arc::clone(piece))
    }

    pub(crate) fn put(&mut self, key: K, piece: &Arc<[u8]>) {
        self.clock += 1;
        let before = self.pieces.insert(key, (Arc::clone(piece), self.clock));
        self.bytes += piece.len().max(LEAST);
        if let Some((old, _)) = before {
            self.bytes -= old.len().max(LEAST);
        }
        if self.bytes > self.most {
            self.shrink();
        }
    }

    /// Lets half of it go at once, so that the search for the oldest is rare.
    fn shrink(&mut self) {
        let mut uses: Vec<u64> = self.pieces.values().map(|(_, used)| *used).collect();
        uses.sort_unstable();
        let oldest = uses.get(uses.len() / 2).copied().unwrap_or(0);
        self.pieces.retain(|_, (_, used)| *used >= oldest);
        let held = self.pieces.values();
        self.bytes = held.map(|(piece, _)| piece.len().max(LEAST)).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay_within_the_bound() {
        let mut cache = Cache::new(100 * LEAST);
        for key in 0..1000 {
            cache.put(key, &Arc::from(vec![key as u8; LEAST]));
            assert!(cache.bytes <= 100 * LEAST);
            assert_eq!(cache.get(&key).unwrap()[0], key as u8);
        }
        assert!(cache.get(&0).is_none() && cache.get(&990).is_some());
        cache.put(990, &Arc::from(vec![0; 10 * LEAST]));
        let held: usize = cache.pieces.values().map(|(piece, _)| piece.len()).sum();
        assert_eq!(held, cache.bytes);
        // One piece is held whatever its size.
        cache.put(5, &Arc::from(vec![0; 200 * LEAST]));
        assert_eq!(cache.get(&5).unwrap().len(), 200 * LEAST);
    }
}
