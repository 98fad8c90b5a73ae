//! Random stores, random damage.

use proptest::prelude::*;

use super::{judge, mend};
use crate::block::BLOCK_SIZE;
use crate::check::tests::random::{action, run, value};
use crate::check::tests::world::{BLOCKS, World, metadata, report, reseal, store};
use crate::format::HEADER_LEN;
use crate::format::superblock::COUNT_LIMIT;

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

    /// The same with fields that mean something, changed to what others mean.
    #[test]
    fn no_field_makes_it_panic(edits in prop::collection::vec(edit(), 1..6)) {
        let was = store();
        let (mut disk, origins) = (was.disk, was.origins);
        let blocks = metadata(&mut disk);
        for (block, place, value, short) in edits {
            let at = blocks[block % blocks.len()] as usize;
            let was = Box::new(disk.0[at].clone());
            let used = was.0.iter().rposition(|byte| *byte != 0).map_or(0, |last| last / 4 + 1);
            let fields = (used * 4).min(BLOCK_SIZE - 8).saturating_sub(HEADER_LEN) / 4;
            let field = HEADER_LEN + place % fields.max(1) * 4;
            let value = match value {
                Value::Plain(value) => value,
                Value::Like(other) => {
                    let other = HEADER_LEN + other % fields.max(1) * 4;
                    u64::from_le_bytes(was.0[other..][..8].try_into().unwrap())
                }
            };
            let len = if short { 4 } else { 8 };
            disk.0[at].0[field..][..len].copy_from_slice(&value.to_le_bytes()[..len]);
            reseal(&mut disk.0[at], &was);
        }
        if let Ok(found) = mend(&mut disk) {
            prop_assert_eq!(&found.remaining, &Vec::<String>::new());
            if found.problems.is_empty() {
                return Ok(());
            }
            // Opened, purged and checkpointed it is still sound.
            let mut world = World::open(disk, origins);
            world.checkpoint();
            prop_assert_eq!(report(&mut world.disk, false).problems, Vec::<String>::new());
        }
    }
}

/// What a field is changed to.
#[derive(Clone, Debug)]
enum Value {
    Plain(u64),
    /// What another field of the block holds.
    Like(usize),
}

/// Block, field, its new value, and whether that is four bytes only.
fn edit() -> impl Strategy<Value = (usize, usize, Value, bool)> {
    let value = prop_oneof![
        value().prop_map(Value::Plain),
        (0..16u64).prop_map(Value::Plain),
        (0..3u32).prop_map(|less| Value::Plain((u32::MAX - less).into())),
        (0..3u64).prop_map(|less| Value::Plain(COUNT_LIMIT - less)),
        any::<usize>().prop_map(Value::Like),
    ];
    (any::<usize>(), any::<usize>(), value, any::<bool>())
}
