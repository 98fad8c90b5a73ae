//! A power cut at any write of a repair: what was not flushed persists in part, torn,
//! in any order. The repair is done again.

use super::{judge, mend};
use crate::block::Block;
use crate::check::tests::world::{Disk, metadata, store};
use crate::device::{BlockDevice, IoError};

/// A disk with a cache that loses power after some writes.
struct Fragile {
    durable: Disk,
    now: Disk,
    unflushed: Vec<(u64, Box<Block>)>,
    left: usize,
}

impl Fragile {
    fn new(disk: &Disk, left: usize) -> Self {
        Self {
            durable: disk.clone(),
            now: disk.clone(),
            unflushed: Vec::new(),
            left,
        }
    }

    /// What is found after the cut: by `seed` some sectors of some writes.
    fn after(mut self, mut seed: u64) -> Disk {
        for (at, block) in std::mem::take(&mut self.unflushed) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            for sector in (0..8).filter(|sector| seed >> (40 + sector) & 1 == 1) {
                let range = sector * 512..(sector + 1) * 512;
                let own = &mut self.durable.0[at as usize].0[range.clone()];
                own.copy_from_slice(&block.0[range]);
            }
        }
        self.durable
    }
}

impl BlockDevice for Fragile {
    fn blocks(&self) -> u64 {
        self.now.blocks()
    }

    fn read(&mut self, first: u64, out: &mut [Block]) -> Result<(), IoError> {
        self.now.read(first, out)
    }

    fn write(&mut self, first: u64, data: &[Block]) -> Result<(), IoError> {
        self.left = self.left.checked_sub(1).ok_or(IoError::Absent)?;
        self.now.write(first, data)?;
        let blocks = data.iter().map(|block| Box::new(block.clone()));
        self.unflushed.extend((first..).zip(blocks));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.left = self.left.checked_sub(1).ok_or(IoError::Absent)?;
        self.durable = self.now.clone();
        self.unflushed.clear();
        Ok(())
    }
}

#[test]
fn a_cut_anywhere_leaves_a_store_to_be_repaired() {
    let was = store();
    let mut sound = was.disk.clone();
    let blocks = metadata(&mut sound);
    // A superblock, a bitmap block, and blocks of every tree.
    for damaged in [
        0,
        1,
        3,
        blocks.len() / 3,
        blocks.len() / 2,
        blocks.len() - 2,
    ] {
        let mut disk = was.disk.clone();
        disk.0[blocks[damaged] as usize].0[77] ^= 16;
        let mut left = 0;
        loop {
            let mut fragile = Fragile::new(&disk, left);
            let whole = mend(&mut fragile).is_ok();
            let seed = (damaged * 1000 + left) as u64;
            let mut after = fragile.after(seed);
            let again = mend(&mut after).unwrap();
            assert_eq!(
                again.remaining,
                Vec::<String>::new(),
                "{damaged}, cut at {left}"
            );
            if whole {
                break;
            }
            // Losses are told by whichever repair finishes.
            let mut told = again;
            if told.problems.is_empty() {
                told = mend(&mut disk.clone()).unwrap();
            }
            judge(&was, after, &told);
            left += 1 + left / 8;
        }
        assert!(left > 10, "a repair that writes nothing");
    }
}
