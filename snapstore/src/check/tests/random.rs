//! Random stores are sound, random damage is found, random bytes never panic.

use proptest::prelude::*;

use super::super::dump;
use super::super::{CheckOptions, check};
use super::world::{BLOCKS, CHUNKS, Disk, World, metadata, report, reseal, store};
use crate::block::BLOCK_SIZE;
use crate::engine::{Command, DropReason};
use crate::ids::{Tag, VolumeId};
use crate::recover::load;

#[derive(Clone, Debug)]
pub(crate) enum Action {
    Take(bool),
    Write(bool, u64, u64, u8),
    Delete(usize),
    Drop(bool),
    Checkpoint,
    Restart,
}

pub(crate) fn action() -> impl Strategy<Value = Action> {
    let volume = any::<bool>();
    let write = (volume, 0..CHUNKS, 1..40u64, any::<u8>());
    prop_oneof![
        3 => volume.prop_map(Action::Take),
        6 => write.prop_map(|(v, first, count, byte)| {
            Action::Write(v, first, count.min(CHUNKS - first), byte)
        }),
        2 => any::<usize>().prop_map(Action::Delete),
        1 => volume.prop_map(Action::Drop),
        2 => Just(Action::Checkpoint),
        1 => Just(Action::Restart),
    ]
}

/// Names are made from `step`, so that none is used twice.
pub(crate) fn run(
    world: &mut World,
    volumes: [VolumeId; 2],
    taken: &mut Vec<(VolumeId, Tag)>,
    step: usize,
    action: &Action,
) {
    let pick = |second: bool| volumes[usize::from(second)];
    match *action {
        Action::Take(second) => {
            let volume = pick(second);
            taken.push((volume, world.take(volume, &format!("s{step}"))));
        }
        Action::Write(second, first, count, byte) => world.write(pick(second), first, count, byte),
        Action::Delete(index) => {
            if !taken.is_empty() {
                let (volume, tag) = taken.remove(index % taken.len());
                world.delete(volume, tag);
            }
        }
        Action::Drop(second) => {
            let (volume, reason) = (pick(second), DropReason::Asked);
            world.command(Command::DropSnapshots { volume, reason });
        }
        Action::Checkpoint => world.checkpoint(),
        Action::Restart => {
            let images = std::mem::take(&mut world.images);
            *world = World::open(world.disk.clone(), world.origins.clone());
            world.images = images;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_the_engine_writes_is_sound(actions in prop::collection::vec(action(), 1..60)) {
        let mut world = World::new();
        let volumes = [world.volume("alpha"), world.volume("beta")];
        let mut taken = Vec::new();
        for (step, action) in actions.iter().enumerate() {
            run(&mut world, volumes, &mut taken, step, action);
            let report = report(&mut world.disk, true);
            prop_assert_eq!(&report.problems, &Vec::<String>::new(), "after {:?}", action);
        }
    }

    /// One flipped bit in any metadata block of the checkpoint, or of the journal
    /// as far as it is known flushed.
    #[test]
    fn every_flip_is_found(position in any::<u64>(), bit in 0..8u32) {
        let mut disk = store().disk;
        for (salt, at) in (0u64..).zip(metadata(&mut disk)) {
            let byte = (position.rotate_left(salt as u32 % 64) ^ salt) as usize % BLOCK_SIZE;
            disk.0[at as usize].0[byte] ^= 1 << bit;
            let found = report(&mut disk, false).problems;
            prop_assert!(!found.is_empty(), "block {}, byte {}", at, byte);
            disk.0[at as usize].0[byte] ^= 1 << bit;
        }
        prop_assert_eq!(report(&mut disk, true).problems, Vec::<String>::new());
    }

    /// Contents that make no sense under good checksums.
    #[test]
    fn no_bytes_make_it_panic(
        edits in prop::collection::vec((any::<usize>(), 32..BLOCK_SIZE / 8, value()), 1..6)
    ) {
        let mut disk = store().disk;
        let blocks = metadata(&mut disk);
        for (block, word, value) in edits {
            for at in [blocks[block % blocks.len()], blocks[block % 2]] {
                let at = at as usize;
                let was = Box::new(disk.0[at].clone());
                // Most of what means something is near the beginning.
                for word in [word, 4 + word % 48] {
                    disk.0[at].0[word * 8..word * 8 + 8].copy_from_slice(&value.to_le_bytes());
                }
                reseal(&mut disk.0[at], &was);
                survives(&mut disk);
                if block % 3 == 0 {
                    disk.0[at] = (*was).clone();
                }
            }
        }
    }
}

/// Numbers that break arithmetic, and small ones that are mistaken for others.
pub(crate) fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..BLOCKS + 4,
        Just(0),
        Just(u64::MAX),
        Just(u64::MAX - 1),
        Just(1 << 63),
        (0..64u32).prop_map(|bit| 1 << bit),
    ]
}

fn survives(disk: &mut Disk) {
    // Whether they report or refuse: they return.
    let _ = check(disk, CheckOptions { data: true }, &mut |_, _| ());
    let mut text = String::new();
    let _ = dump(disk, &mut text);
    let _ = load(disk);
}
