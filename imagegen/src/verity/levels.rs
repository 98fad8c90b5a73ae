//! The tree above the leaves: hashes fill blocks, whose hashes fill the blocks of the next
//! level, until there is one.

use super::hash::{Hash, Salted};

/// The tree as far as it is not complete: a block of each level.
pub(super) struct Levels {
    function: Salted,
    /// Bytes of a block, which holds at least two hashes.
    block: usize,
    levels: Vec<Level>,
}

struct Level {
    block: Vec<u8>,
    /// How many blocks came before.
    full: u64,
}

impl Levels {
    /// With no leaves yet.
    pub(super) fn new(function: Salted, block: usize) -> Self {
        Self {
            function,
            block,
            levels: Vec::new(),
        }
    }

    /// The hash of a leaf.
    pub(super) fn hash(&self, leaf: &[u8]) -> Hash {
        self.function.hash(leaf)
    }

    /// Adds the hash of the next leaf. Every block that is complete is given to `keep`, with
    /// its level (0 holds the leaves' hashes) and its number there.
    pub(super) fn push<E>(
        &mut self,
        leaf: &[u8],
        keep: &mut impl FnMut(usize, u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.add(0, leaf, keep)
    }

    /// Adds a hash to a level. A full block goes up only when the next hash comes: one that
    /// stays alone is the root.
    fn add<E>(
        &mut self,
        at: usize,
        hash: &[u8],
        keep: &mut impl FnMut(usize, u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(level) = self.levels.get_mut(at) else {
            let mut block = Vec::with_capacity(self.block);
            block.extend_from_slice(hash);
            self.levels.push(Level { block, full: 0 });
            return Ok(());
        };
        if level.block.len() < self.block {
            level.block.extend_from_slice(hash);
            return Ok(());
        }
        keep(at, level.full, &level.block)?;
        let above = self.function.hash(&level.block);
        level.full += 1;
        level.block.clear();
        level.block.extend_from_slice(hash);
        self.add(at + 1, above.bytes(), keep)
    }

    /// Fills up with zeroes what is not complete, and returns the hash above all: of no
    /// leaves all zero, of a single leaf its own, with no block kept.
    pub(super) fn finish<E>(
        mut self,
        keep: &mut impl FnMut(usize, u64, &[u8]) -> Result<(), E>,
    ) -> Result<Hash, E> {
        let algorithm = self.function.algorithm();
        let mut at = 0;
        while let Some(level) = self.levels.get_mut(at) {
            if level.full == 0 && level.block.len() == algorithm.size() {
                return Ok(Hash::from_bytes(algorithm, &level.block));
            }
            level.block.resize(self.block, 0);
            keep(at, level.full, &level.block)?;
            let above = self.function.hash(&level.block);
            at += 1;
            self.add(at, above.bytes(), keep)?;
        }
        Ok(Hash::zero(algorithm))
    }
}
