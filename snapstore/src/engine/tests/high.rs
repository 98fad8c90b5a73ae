//! Nodes high in a tree that rot: in service they are in memory, at attach they are not
//! done without.

use super::rot::{A, B, failing, nodes, told, write_everything};
use super::*;
use crate::check::tests::world::{CHUNKS, World, report};
use crate::recover::{OpenError, load};
use crate::repair::{RepairOptions, repair};
use crate::tree::HIGH;

/// Two volumes, and so many exceptions that both trees have a high node.
fn tall() -> World {
    let mut world = World::sized(Checksum::default(), 36 << 10);
    assert_eq!((world.volume("a"), world.volume("b")), (A, B));
    for round in 0..120 {
        let volume = if round % 8 == 7 { B } else { A };
        world.take(volume, &format!("s{round}"));
        for first in (0..CHUNKS).step_by(16) {
            world.write(volume, first, 16, round + 1);
        }
    }
    world.command(Command::Close);
    world
}

/// Blocks of the high nodes of both trees.
fn high(world: &World) -> Vec<u64> {
    let both = [TreeId::Exceptions, TreeId::Eras].map(|tree| {
        let mut all = nodes(&world.disk, tree);
        all.retain(|(_, node)| node.level() >= HIGH);
        assert!(!all.is_empty(), "the {} is too low", tree.name());
        all
    });
    both.iter()
        .flatten()
        .map(|(missing, _)| missing.ptr.block)
        .collect()
}

#[test]
fn a_high_node_that_rots_in_service_costs_nothing() {
    let was = tall();
    let rotten = high(&was);
    // Whatever may leave the cache does.
    let config = Config {
        cache_blocks: 1,
        ..Config::default()
    };
    let mut now = World::open_with(was.disk, was.origins, config);
    now.images = was.images;
    for at in &rotten {
        now.disk.0[*at as usize].0[77] ^= 4;
    }
    assert!(failing(&mut now).is_empty());
    write_everything(&mut now, 200);
    now.take(A, "new");
    write_everything(&mut now, 201);
    now.delete(A, Tag(2));
    now.checkpoint();
    assert_eq!(now.info().failed, None);
    assert!(failing(&mut now).is_empty() && told(&now).is_empty());
    now.command(Command::Close);
    let report = report(&mut now.disk, true);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn a_store_without_a_high_node_is_refused_and_repaired_at_no_cost() {
    let was = tall();
    for at in high(&was) {
        let mut disk = was.disk.clone();
        disk.0[at as usize].0[77] ^= 4;
        match load(&mut disk) {
            Err(OpenError::Damaged { block, .. }) => assert_eq!(block, at),
            other => panic!("block {at}: {other:?}"),
        }
        let repaired = repair(&mut disk, RepairOptions::default(), &mut |_, _| ()).unwrap();
        assert!(repaired.losses.is_empty(), "block {at}: {repaired:?}");
        let mut now = World::open(disk, was.origins.clone());
        now.images = was.images.clone();
        assert!(failing(&mut now).is_empty(), "block {at}");
    }
}
