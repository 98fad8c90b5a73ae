//! Lookups against the oracle with nothing cached, and the cache itself.

use proptest::prelude::*;

use super::super::*;
use super::world::{Batch, Oracle, Reader, World};

fn floor(oracle: &Oracle, key: Key) -> Option<Key> {
    oracle
        .range(Key { c: 0, ..key }..key)
        .next_back()
        .map(|(key, _)| *key)
}

fn ceil(oracle: &Oracle, key: Key) -> Option<Key> {
    oracle
        .range(key..=Key { c: u64::MAX, ..key })
        .next()
        .map(|(key, _)| *key)
}

/// Lists of many lengths, so that they cross leaf borders in every way.
fn world(value_len: usize, lists: &[(u64, u64, u64, u64)]) -> World {
    let mut world = World::new(value_len);
    for &(a, b, len, step) in lists {
        let keys = (0..len).map(|i| Key::new(a, b, i * step));
        let batch: Batch = keys.map(|key| (key, Some(world.value(key, 3)))).collect();
        world.apply(&batch, 1000, 1000);
    }
    world
}

fn compare(world: &World, key: Key, reader: &mut Reader) {
    let found = reader.retry(world, |nodes| neighbours(&world.root, key, nodes));
    assert_eq!(
        found.floor.as_ref().map(|f| f.key),
        floor(&world.oracle, key),
        "below {key}"
    );
    assert_eq!(
        found.ceil.as_ref().map(|f| f.key),
        ceil(&world.oracle, key),
        "from {key}"
    );
    for found in found.floor.iter().chain(&found.ceil) {
        assert_eq!(found.value(), world.oracle[&found.key].as_slice());
    }
    assert_eq!(found.leaf.is_some(), !world.oracle.is_empty());
}

/// All records of `from..to` by scanning.
fn scanned(world: &World, from: Key, to: Key, reader: &mut Reader) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut next = Some(from);
    while let Some(from) = next {
        let (records, on) = reader.retry(world, |nodes| scan(&world.root, from, to, nodes));
        if let Some((node, range)) = records {
            keys.extend(range.map(|i| node.key(i)));
        }
        assert!(on.is_none_or(|on| on > from && on < to));
        next = on;
    }
    keys
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn probes_equal_the_oracle(
        value_len in prop::sample::select(vec![8usize, 200, 1080]),
        lists in prop::collection::vec((0..3u64, 0..12u64, 1..60u64, 1..5u64), 1..12),
        keys in prop::collection::vec((0..4u64, 0..13u64, 0..300u64), 100),
        cache in prop::sample::select(vec![1usize, 64]),
    ) {
        let world = world(value_len, &lists);
        let mut reader = Reader::new(cache);
        let keys: Vec<_> = keys.iter().map(|&(a, b, c)| Key::new(a, b, c)).collect();
        for &key in &keys {
            compare(&world, key, &mut reader);
        }
        for pair in keys.chunks(2).take(20) {
            let (from, to) = (pair[0], pair[pair.len() - 1]);
            let expected: Vec<_> = match from < to {
                true => world.oracle.range(from..to).map(|(key, _)| *key).collect(),
                false => Vec::new(),
            };
            prop_assert_eq!(scanned(&world, from, to, &mut reader), expected);
        }
    }
}

#[test]
fn every_key_at_and_next_to_every_border() {
    let world = world(
        1080,
        &[(1, 1, 40, 2), (1, 2, 7, 1), (2, 0, 3, 1), (2, 9, 20, 3)],
    );
    let mut reader = Reader::new(2);
    for key in world.oracle.keys() {
        compare(&world, *key, &mut reader);
        compare(
            &world,
            Key {
                c: key.c + 1,
                ..*key
            },
            &mut reader,
        );
        compare(
            &world,
            Key {
                c: key.c.saturating_sub(1),
                ..*key
            },
            &mut reader,
        );
        compare(&world, Key { c: 0, ..*key }, &mut reader);
        compare(
            &world,
            Key {
                c: u64::MAX,
                ..*key
            },
            &mut reader,
        );
    }
    compare(&world, Key::MIN, &mut reader);
    compare(&world, Key::MAX, &mut reader);
}

#[test]
fn a_neighbour_leaf_is_read_only_when_it_can_matter() {
    // One record a list: three to a leaf, and no list reaches into the next leaf.
    let lists: Vec<_> = (0..60).map(|b| (1, b, 1, 1)).collect();
    let world = world(1080, &lists);
    assert_eq!(world.root.height, 2);
    for b in 0..60 {
        let mut reader = Reader::new(1);
        reader.retry(&world, |nodes| {
            neighbours(&world.root, Key::new(1, b, 0), nodes)
        });
        assert_eq!(reader.reads, 2, "the root and one leaf for list {b}");
    }
}

#[test]
fn an_empty_tree_finds_nothing() {
    let world = World::new(8);
    let mut reader = Reader::new(1);
    compare(&world, Key::new(1, 2, 3), &mut reader);
    assert!(scanned(&world, Key::MIN, Key::MAX, &mut reader).is_empty());
    assert_eq!(reader.reads, 0);
}

#[test]
fn the_cache_is_bounded_and_prefers_what_is_used() {
    let world = world(1080, &[(1, 1, 90, 1)]);
    let mut walk = Walk::new(world.root).unwrap();
    let mut reader = Reader::new(8);
    let mut leaves = Vec::new();
    while let Some(missing) = walk.next() {
        let node = reader.read(missing, &world);
        walk.enter(&node).unwrap();
        leaves.extend((node.level() == 0).then_some(node));
    }
    let mut cache = Cache::new(8);
    let favourite = leaves[0].ptr();
    cache.insert(Arc::clone(&leaves[0]));
    for leaf in &leaves[1..] {
        assert!(cache.get(favourite).is_some());
        cache.insert(Arc::clone(leaf));
        assert!(cache.len() <= 8);
    }
    assert!(cache.get(favourite).is_some(), "always used, yet dropped");
    assert!(cache.get(leaves[1].ptr()).is_none(), "never used, yet kept");
    let stale = Ptr {
        generation: favourite.generation + 1,
        ..favourite
    };
    assert!(
        cache.get(stale).is_none(),
        "another generation of the block"
    );
    cache.remove(favourite.block);
    assert!(cache.get(favourite).is_none());
    assert_eq!(cache.len(), 7);
    cache.insert(Arc::clone(&leaves[0]));
    cache.insert(Arc::clone(&leaves[0]));
    assert_eq!(cache.len(), 8);
}
