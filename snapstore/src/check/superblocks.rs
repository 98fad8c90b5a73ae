//! Both superblocks. One may be damaged and the store still opens, but then the
//! next torn write is the end: so it is a problem.

use super::Checker;
use crate::device::BlockDevice;
use crate::engine::TREES;
use crate::format::Ptr;
use crate::format::superblock::Superblock;
use crate::recover::{Newest, read_block};

/// One superblock, or why there is none.
pub(crate) fn read_copy(dev: &mut impl BlockDevice, at: u64) -> Result<(Superblock, u64), String> {
    let block = read_block(dev, at, "superblock").map_err(|error| error.to_string())?;
    Superblock::decode(&block, at).map_err(|damage| damage.to_string())
}

impl<D: BlockDevice> Checker<'_, D> {
    pub(super) fn check_superblocks(&mut self) {
        let last = self.geometry.blocks - 1;
        for at in [0, last] {
            self.report.blocks += 1;
            if let Err(reason) = self.check_copy(at) {
                self.problems
                    .add(format_args!("superblock, block {at}: {reason}"));
            }
            self.claim("superblock", at, 1);
        }
        self.claim(
            "journal",
            self.geometry.journal_first,
            self.geometry.journal_blocks,
        );
        self.check_generations();
    }

    fn check_copy(&mut self, at: u64) -> Result<(), String> {
        let (copy, generation) = read_copy(self.dev, at)?;
        let newest = self.newest.generation;
        if identity(&copy) != identity(&self.newest.superblock) {
            return Err("it is of another store than the other superblock".to_owned());
        }
        // A store that was just made has generation 1 in both places.
        let made = generation == 1 && newest == 1;
        if copy.address(generation) != at && !made {
            return Err(format!(
                "it is of checkpoint {generation}, whose place is the other one"
            ));
        }
        if newest - generation.min(newest) > 1 {
            return Err(format!(
                "it is of checkpoint {generation}, but the other is of checkpoint {newest}: a write was lost"
            ));
        }
        Ok(())
    }

    /// Nothing a checkpoint refers to is newer than itself.
    fn check_generations(&mut self) {
        let Newest {
            superblock,
            generation,
        } = self.newest;
        let bitmap = ("allocation bitmap", Ptr::from(superblock.bitmap));
        let roots = self.roots;
        let trees = TREES.iter().map(|tree| (tree.name(), roots.get(*tree).ptr));
        for (what, ptr) in trees.chain([bitmap]) {
            if ptr.generation > generation {
                self.problems.add(format_args!(
                    "{what}, block {}: it is of checkpoint {}, newer than the superblock's {generation}",
                    ptr.block, ptr.generation
                ));
            }
        }
    }

    /// Gives blocks an owner, and reports when they have one or do not exist.
    pub(super) fn claim(&mut self, what: &str, first: u64, count: u64) {
        if let Err(clash) = self.owners.claim(first, count) {
            self.problems.add(format_args!("{what}: {clash}"));
        }
    }
}

/// What never changes in the life of a store.
fn identity(copy: &Superblock) -> [u64; 8] {
    let (low, high) = copy.uuid.split_at(8);
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    [
        word(low),
        word(high),
        copy.blocks.get(),
        copy.chunk_size.get().into(),
        copy.created_ms.get(),
        copy.journal_first.get(),
        copy.journal_blocks.get(),
        copy.checksum.get().into(),
    ]
}
