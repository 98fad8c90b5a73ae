//! Which blocks something refers to: one bit per block of the store.

/// Why blocks cannot be given an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Clash {
    /// Not of this store.
    #[error("block {0} lies beyond the end of the store")]
    Outside(u64),
    /// Something else refers to it.
    #[error("block {0} has another owner already")]
    Taken(u64),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Owners {
    blocks: u64,
    words: Vec<u64>,
}

impl Owners {
    /// No block has an owner.
    pub(super) fn new(blocks: u64) -> Self {
        Self {
            blocks,
            words: vec![0; blocks.div_ceil(64) as usize],
        }
    }

    /// Gives `count` blocks an owner.
    ///
    /// # Errors
    /// Nothing changes when some are outside; else the first that had one is
    /// named, and all have one now.
    pub(super) fn claim(&mut self, first: u64, count: u64) -> Result<(), Clash> {
        let end = first.checked_add(count).filter(|end| *end <= self.blocks);
        let Some(end) = end else {
            return Err(Clash::Outside(first.max(self.blocks)));
        };
        let mut taken = None;
        for block in first..end {
            if let Some(word) = self.words.get_mut((block / 64) as usize) {
                let bit = 1 << (block % 64);
                if *word & bit != 0 {
                    taken.get_or_insert(block);
                }
                *word |= bit;
            }
        }
        taken.map_or(Ok(()), |block| Err(Clash::Taken(block)))
    }

    /// 64 blocks a word.
    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }
}
