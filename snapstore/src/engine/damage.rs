//! Blocks of copied-out chunks that readers found damaged.
//!
//! The engine never sees data: whoever reads it for a snapshot tells of a block that
//! does not match its checksum, and keeps the grant until it has. Each chunk is told of
//! once, with the block found first, for as long as its place holds the same.

use std::collections::BTreeSet;

use super::{Effect, Effects, Engine, Notice};
use crate::format::tables::text;
use crate::ids::{Tag, VolumeId};

/// Most chunks remembered. With more, some are told of again.
const MOST: usize = 4096;

/// First blocks of the chunks that were told of.
#[derive(Debug, Default)]
pub(super) struct Rotten(BTreeSet<u64>);

impl Rotten {
    /// Whether this one was not told of yet.
    fn is_new(&mut self, chunk: u64) -> bool {
        if self.0.len() == MOST && !self.0.contains(&chunk) {
            self.0.pop_first();
        }
        self.0.insert(chunk)
    }

    /// Something else will be written there.
    pub(super) fn freed(&mut self, chunk: u64) {
        self.0.remove(&chunk);
    }
}

impl Engine {
    pub(super) fn data_damaged(
        &mut self,
        volume: VolumeId,
        tag: Tag,
        chunk: u64,
        block: u64,
        out: &mut Effects,
    ) {
        let first = block - block % u64::from(self.geometry.chunk_blocks);
        if !self.rotten.is_new(first) {
            return;
        }
        let known = self.state.volumes.get(&volume);
        let record = known.and_then(|known| known.snapshots.get(&tag));
        let name = record.map_or_else(|| tag.to_string(), |record| text(&record.name));
        out.list.push(Effect::Notice(Notice::DataDamaged {
            volume,
            tag,
            name,
            chunk,
            block,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten_with_the_chunk() {
        let mut rotten = Rotten::default();
        assert!((0..2 * MOST as u64).all(|chunk| rotten.is_new(chunk)));
        assert_eq!(rotten.0.len(), MOST);
        let last = 2 * MOST as u64 - 1;
        assert!(!rotten.is_new(last));
        rotten.freed(last);
        assert!(rotten.is_new(last));
    }
}
