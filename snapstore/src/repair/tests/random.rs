//! Random stores, random damage.

use proptest::prelude::*;

use super::{judge, mend};
use crate::block::BLOCK_SIZE;
use crate::check::tests::random::{action, run, value};
use crate::check::tests::world::{BLOCKS, World, metadata, report, reseal, store};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_damage_is_repaired(
        actions in prop::collection::vec(action(), 1..40),
        damage in prop::collection::vec((any::<usize>(), 0..BLOCK_SIZE, 1..=255u8), 1..6),
    ) {
        let mut world = World::new();
        let volumes = [world.volume("alpha"), world.volume("beta")];
        let mut taken = Vec::new();
        for (step, action) in actions.iter().enumerate() {
            run(&mut world, volumes, &mut taken, step, action);
        }
        let mut disk = world.disk.clone();
        let blocks = metadata(&mut disk);
        let mut hit = Vec::new();
        for (index, byte, mask) in damage {
            let at = blocks[index % blocks.len()];
            disk.0[at as usize].0[byte] ^= mask;
            hit.push(at);
        }
        let result = mend(&mut disk);
        if hit.contains(&0) && hit.contains(&(BLOCKS - 1)) {
            return Ok(());
        }
        let found = result.unwrap();
        prop_assert_eq!(&found.remaining, &Vec::<String>::new());
        prop_assert_eq!(report(&mut disk, false).problems, Vec::<String>::new());
        judge(&world, disk, &found);
    }

    /// Contents that make no sense under good checksums: it ends, and what it calls
    /// sound is.
    #[test]
    fn no_bytes_make_it_panic(
        edits in prop::collection::vec((any::<usize>(), 32..BLOCK_SIZE / 8, value()), 1..6)
    ) {
        let mut disk = store().disk;
        let blocks = metadata(&mut disk);
        for (block, word, value) in edits {
            let at = blocks[block % blocks.len()] as usize;
            let was = Box::new(disk.0[at].clone());
            // Most of what means something is near the beginning.
            for word in [word, 4 + word % 48] {
                disk.0[at].0[word * 8..word * 8 + 8].copy_from_slice(&value.to_le_bytes());
            }
            reseal(&mut disk.0[at], &was);
        }
        if let Ok(found) = mend(&mut disk) {
            prop_assert_eq!(&found.remaining, &Vec::<String>::new());
        }
    }
}
