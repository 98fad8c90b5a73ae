//! Sequences of batches, random and nasty, against a `BTreeMap`.

use proptest::prelude::*;

use super::super::*;
use super::world::{Batch, World};

/// One batch, before it meets the oracle.
#[derive(Clone, Debug)]
enum Plan {
    /// Puts (and with `true` deletes) of scattered keys.
    Scatter(Vec<(u64, u64, u64, bool)>),
    /// Ascending puts from `(a, b, 0)`.
    Run { a: u64, b: u64, len: u64, salt: u8 },
    /// One record each in `len` different `a`s: a leaf each.
    Spread { a: u64, len: u64, salt: u8 },
    /// Deletes from the `skip`th part in 8 of what is there, `part` parts long, but
    /// every `keep`th stays.
    Purge {
        skip: usize,
        part: usize,
        keep: usize,
    },
    /// Deletes what is absent and puts what is there.
    Nothing { step: usize },
}

fn plan() -> impl Strategy<Value = Plan> {
    let key = (0..6u64, 0..400u64, 0..5u64, prop::bool::weighted(0.4));
    prop_oneof![
        3 => prop::collection::vec(key, 1..300).prop_map(Plan::Scatter),
        2 => (0..6u64, 0..400u64, 1..1500u64, any::<u8>())
            .prop_map(|(a, b, len, salt)| Plan::Run { a, b, len, salt }),
        1 => (0..600u64, 1..700u64, any::<u8>())
            .prop_map(|(a, len, salt)| Plan::Spread { a, len, salt }),
        3 => (0..8usize, 1..9usize, 2..40usize)
            .prop_map(|(skip, part, keep)| Plan::Purge { skip, part, keep }),
        1 => (0..8usize).prop_map(|skip| Plan::Purge { skip, part: 8, keep: usize::MAX }),
        1 => (1..20usize).prop_map(|step| Plan::Nothing { step }),
    ]
}

fn batch(plan: &Plan, world: &World) -> Batch {
    let put = |key, salt| (key, Some(world.value(key, salt)));
    match *plan {
        Plan::Scatter(ref keys) => keys
            .iter()
            .map(|&(a, b, c, delete)| {
                let key = Key::new(a, b, c);
                if delete {
                    (key, None)
                } else {
                    put(key, (a + b + c) as u8)
                }
            })
            .collect(),
        Plan::Run { a, b, len, salt } => (0..len)
            .map(|i| put(Key::new(a, b + i / 3, i % 3), salt))
            .collect(),
        Plan::Spread { a, len, salt } => {
            (0..len).map(|i| put(Key::new(a + i, 7, 7), salt)).collect()
        }
        Plan::Purge { skip, part, keep } => {
            let eighth = world.oracle.len() / 8 + 1;
            let keys = world.oracle.keys().skip(skip * eighth).take(part * eighth);
            keys.enumerate()
                .filter(|(i, _)| i % keep != keep - 1)
                .map(|(_, k)| (*k, None))
                .collect()
        }
        Plan::Nothing { step } => {
            let held = world
                .oracle
                .iter()
                .step_by(step)
                .map(|(k, v)| (*k, Some(v.clone())));
            let absent = (0..50).map(|i| (Key::new(i, i, 1 << 40), None));
            held.chain(absent).collect()
        }
    }
}

fn run(value_len: usize, plans: &[Plan], budget: usize, cache: usize) {
    let mut world = World::new(value_len);
    for plan in plans {
        let batch = batch(plan, &world);
        world.apply(&batch, budget, cache);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn batches_equal_the_oracle(
        value_len in prop::sample::select(vec![8usize, 24, 200, 1080]),
        plans in prop::collection::vec(plan(), 1..12),
        budget in prop::sample::select(vec![1usize, 3, 1000]),
        cache in prop::sample::select(vec![1usize, 5, 10_000]),
    ) {
        run(value_len, &plans, budget, cache);
    }

    #[test]
    fn no_new_node_points_to_a_loose_one(
        value_len in prop::sample::select(vec![24usize, 200]),
        plans in prop::collection::vec(plan(), 1..6),
        which in any::<usize>(),
        last in plan(),
        budget in prop::sample::select(vec![1usize, 1000]),
    ) {
        let mut world = World::new(value_len);
        for plan in &plans {
            let batch = batch(plan, &world);
            world.apply(&batch, 1000, 1000);
        }
        if world.root.height > 1 {
            world.loosen(which);
        }
        let batch = batch(&last, &world);
        world.merge(&batch, budget, 5);
        for (key, value) in batch {
            match value {
                Some(value) => drop(world.oracle.insert(key, value)),
                None => drop(world.oracle.remove(&key)),
            }
        }
        prop_assert_eq!(world.records(), world.oracle);
    }
}

#[test]
fn a_tall_tree_grows_and_collapses() {
    let mut world = World::new(8);
    let keys: Vec<_> = (0..25_000u64).map(|a| Key::new(a * 2, 0, 0)).collect();
    let all: Batch = keys
        .iter()
        .map(|&key| (key, Some(world.value(key, 1))))
        .collect();
    world.apply(&all, 64, 16);
    assert_eq!((world.root.height, world.root.leaves), (4, 25_000));
    // Between, before and after the old leaves.
    let more = (0..300u64).map(|i| Key::new(i * 161 + 1, 5, i));
    let more: Batch = more.map(|key| (key, Some(world.value(key, 2)))).collect();
    world.apply(&more, 7, 1);
    // Everything but the last leaf, then that one too.
    let last = *world.oracle.keys().next_back().unwrap();
    let most: Batch = world
        .oracle
        .keys()
        .filter(|k| **k != last)
        .map(|k| (*k, None))
        .collect();
    world.apply(&most, 64, 1);
    assert_eq!(
        (world.root.height, world.root.nodes, world.root.records),
        (1, 1, 1)
    );
    world.apply(&Batch::from([(last, None)]), 1, 1);
    assert_eq!(world.root, Root::EMPTY);
    assert_eq!(world.disk.allocated, world.disk.freed);
}

#[test]
fn the_survivor_may_hang_anywhere() {
    for survivor in [0u64, 1, 99, 100, 101, 4_999, 10_000, 10_199] {
        let mut world = World::new(8);
        let keys: Vec<_> = (0..10_200u64).map(|a| Key::new(a, 3, 3)).collect();
        let all: Batch = keys
            .iter()
            .map(|&key| (key, Some(world.value(key, 1))))
            .collect();
        world.apply(&all, 1000, 10);
        let rest: Batch = keys
            .iter()
            .filter(|k| k.a != survivor)
            .map(|k| (*k, None))
            .collect();
        world.apply(&rest, 1000, 1);
        assert_eq!(
            (world.root.height, world.root.nodes),
            (1, 1),
            "survivor {survivor}"
        );
        // The lowest key must still find its way below a separator that was higher.
        let low = Key::MIN;
        world.apply(&Batch::from([(low, Some(world.value(low, 9)))]), 1, 1);
    }
}

#[test]
fn a_purge_leaves_no_poor_leaves_behind() {
    let mut world = World::new(24);
    let put = |b| (Key::new(1, b, 9), Some(vec![7; 24]));
    world.apply(&(0..20_000).map(put).collect(), 100, 50);
    let full = world.root.leaves;
    let thin: Batch = world
        .oracle
        .keys()
        .filter(|k| k.b % 20 != 0)
        .map(|k| (*k, None))
        .collect();
    world.apply(&thin, 100, 50);
    assert_eq!(world.root.records, 1000);
    // A twentieth of the records; a quarter full each would be a fifth of the leaves.
    assert!(
        world.root.leaves * 5 <= full + 20,
        "{} of {full}",
        world.root.leaves
    );
}

/// The reservation (`apply` lets a merge allocate no more) when it is needed most.
#[test]
fn one_insert_splits_every_full_leaf() {
    for value_len in [8, 1080] {
        let mut world = World::new(value_len);
        let full = world.shape.capacity(0) as u64;
        let keys = (0..full * 150).map(|i| Key::new(1, i * 2, 0));
        let load: Batch = keys.map(|key| (key, Some(world.value(key, 1)))).collect();
        world.apply(&load, 1000, 1000);
        assert_eq!(world.root.leaves, 150);
        let keys = (0..150).map(|leaf| Key::new(1, leaf * full * 2 + 1, 0));
        let middles: Batch = keys.map(|key| (key, Some(world.value(key, 1)))).collect();
        world.apply(&middles, 1000, 1);
        assert_eq!(world.root.leaves, 300);
    }
}

#[test]
fn a_small_change_touches_one_path() {
    let mut world = World::new(24);
    let keys = (0..500).map(|a| Key::new(a, 1, 1));
    let load: Batch = keys.map(|key| (key, Some(world.value(key, 1)))).collect();
    world.apply(&load, 1000, 1000);
    let height = usize::from(world.root.height);
    assert_eq!((height, world.root.leaves), (3, 500));
    // Its leaf is poor, but no sibling has records of the same `a` to give.
    let key = Key::new(250, 1, 2);
    let put = Batch::from([(key, Some(world.value(key, 1)))]);
    assert_eq!(world.merge(&put, 1000, 1), (height, height));
}

#[test]
fn an_ascending_load_fills_its_leaves() {
    let mut world = World::new(16);
    for step in 0..40 {
        let load = (0..100).map(|i| Key::new(3, step * 100 + i, 1));
        let load: Batch = load.map(|key| (key, Some(world.value(key, 0)))).collect();
        world.apply(&load, 100, 50);
    }
    let capacity = world.shape.capacity(0) as u64;
    assert_eq!(world.root.leaves, 4000u64.div_ceil(capacity));
}

#[test]
fn a_full_disk_stops_a_merge_and_room_continues_it() {
    let world = World::new(8);
    let mut disk = super::world::Disk {
        room: 2,
        ..Default::default()
    };
    let mut reader = super::world::Reader::new(4);
    let mut changes = Changes::new(&world.shape);
    for b in 0..1000 {
        changes.push(Key::new(1, b, 0), Some(&[1; 8])).unwrap();
    }
    let mut merge = Merge::new(world.shape, Root::EMPTY, changes, 1);
    let mut out = Vec::new();
    let full = merge.advance(&mut reader, &mut disk, &mut out, 100);
    assert_eq!(full, Err(MergeError::NoSpace));
    assert_eq!(out.len(), 2);
    disk.room = 100;
    let Ok(Progress::Done(root)) = merge.advance(&mut reader, &mut disk, &mut out, 100) else {
        panic!("the merge did not finish");
    };
    assert_eq!((root.records, root.nodes), (1000, out.len() as u64));
    assert_eq!(disk.allocated.len(), out.len());
}

#[test]
fn batches_refuse_disorder_and_foreign_values() {
    let world = World::new(8);
    let mut changes = Changes::new(&world.shape);
    let key = Key::new(1, 2, 3);
    changes.push(key, None).unwrap();
    assert_eq!(changes.push(key, None), Err(BadChange::Order(key)));
    assert_eq!(
        changes.push(Key::MAX, Some(&[0; 9])),
        Err(BadChange::Length(Key::MAX))
    );
    assert_eq!(changes.len(), 1);
    let shape = Shape {
        value_len: 24,
        ..world.shape
    };
    let mut merge = Merge::new(shape, Root::EMPTY, changes, 1);
    let mut disk = super::world::Disk::default();
    let refused = merge.advance(&mut Cache::new(1), &mut disk, &mut Vec::new(), 1);
    assert_eq!(
        refused,
        Err(MergeError::ValueLength {
            changes: 8,
            tree: 24
        })
    );
}
