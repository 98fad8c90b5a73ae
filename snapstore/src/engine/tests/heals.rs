//! Nodes made anew while other things happen.

use super::*;
use crate::format::Kind;
use crate::tree::{Node, Root};

/// Many snapshots of few chunks: what one leaf of the exceptions holds is spread over
/// all leaves of the era tree. Opened again with the smallest cache, the first leaf of
/// the exceptions damaged.
fn spread() -> (Rig, u64) {
    let mut rig = Rig::new(8192, Policy::OriginFirst);
    for round in 0..40 {
        rig.write(1, 0, 64);
        rig.take(&format!("s{round}"));
    }
    rig.command(Command::Close);
    let leaf = first_leaf(&rig, TreeId::Exceptions);
    rig.disk.0[leaf as usize].0[100] ^= 1;
    let config = Config {
        cache_blocks: 0,
        ..Config::default()
    };
    let leaves = rig.engine.roots.eras.leaves;
    assert!(leaves > 2 * MIN_CACHE as u64, "{leaves} leaves");
    (Rig::open_with(rig.disk, config), leaves)
}

fn first_leaf(rig: &Rig, tree: TreeId) -> u64 {
    let root = *rig.engine.roots.get(tree);
    assert_eq!(root.height, 2);
    let block = Arc::new(rig.disk.0[root.ptr.block as usize].clone());
    let shape = rig.engine.geometry.shape(tree);
    let node = Node::verify(block, root.ptr, &shape, 1).unwrap();
    node.child(0).block
}

/// Answers every read but those of the era tree.
fn answer_others(rig: &mut Rig) {
    let is_era = |rig: &Rig, effect: &Effect| match effect {
        Effect::ReadBlock { block, .. } => {
            let header = crate::format::header(&rig.disk.0[*block as usize]);
            header.kind.get() == Kind::EraNode as u32
        }
        _ => false,
    };
    while let Some(at) = rig.held.iter().position(|effect| !is_era(rig, effect)) {
        let effect = rig.held.remove(at);
        rig.answer(effect);
    }
}

#[test]
fn a_write_waits_for_a_search_that_checkpoints_do_not_hold_up() {
    let (mut rig, leaves) = spread();
    rig.hold_reads = true;
    rig.write(7, 0, 1);
    let mut rounds = 0;
    loop {
        answer_others(&mut rig);
        if rig.granted == [Owner(7)] {
            break;
        }
        // A checkpoint after every block that the search reads.
        let id = rig.command(Command::Checkpoint);
        answer_others(&mut rig);
        assert_eq!(rig.result(id), Some(Ok(Reply::Done)));
        let read = rig.held.pop().expect("the search waits for nothing");
        assert!(rig.held.is_empty(), "one block at a time");
        rig.answer(read);
        rounds += 1;
        assert!(
            rounds <= leaves + 2,
            "{rounds} checkpoints, {leaves} leaves"
        );
    }
    assert!(
        rounds > leaves / 2,
        "{rounds} of {leaves}: it was all in the cache"
    );
    assert_eq!(rig.engine.failed, None);
}

/// A nearly full store whose exceptions hang below one damaged node, and how many leaves.
fn tight() -> (Rig, u64) {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    (0..512)
        .step_by(64)
        .for_each(|first| rig.write(1, first, 64));
    rig.command(Command::Close);
    let Root {
        ptr,
        leaves,
        height,
        ..
    } = rig.engine.roots.exceptions;
    assert_eq!(height, 2);
    rig.disk.0[ptr.block as usize].0[100] ^= 1;
    let mut rig = Rig::open(rig.disk);
    while rig.engine.room_for_made(leaves + 1) {
        let block = rig.engine.alloc.alloc_block().unwrap();
        rig.engine.alloc.claim(block, 1);
    }
    (rig, leaves)
}

#[test]
fn a_read_takes_no_room_that_writes_need() {
    let (mut rig, _) = tight();
    let room = rig.engine.room_for_copies();
    assert!(room > 0);
    assert_eq!(rig.read(Tag(1), 600, 1), None, "nobody knows where it is");
    assert_eq!(
        (rig.engine.cache.kept(), rig.engine.room_for_copies()),
        (0, room)
    );
    assert!(rig.engine.reads.is_empty());
    assert_eq!(costs(&rig), [false]);
    // A write has to know.
    rig.write(2, 600, 1);
    assert_eq!(rig.granted, [Owner(2)]);
    assert!(rig.engine.cache.kept() > 1);
    assert_eq!(costs(&rig), [false, true]);
    assert_eq!(
        (rig.live(), rig.engine.failed.clone()),
        (vec![Tag(1)], None)
    );
    assert!(rig.read(Tag(1), 700, 1).is_some(), "now it is at hand");
}

/// Of each damage told: whether with what it cost.
fn costs(rig: &Rig) -> Vec<bool> {
    let told = rig.seen.iter().filter_map(|effect| match effect {
        Effect::Notice(Notice::Damage { reason, .. }) => Some(reason.contains("are lost")),
        _ => None,
    });
    told.collect()
}

#[test]
fn what_a_node_cost_is_told_also_when_reads_told_of_it_before() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    (0..512)
        .step_by(64)
        .for_each(|first| rig.write(1, first, 64));
    rig.command(Command::Close);
    let leaf = first_leaf(&rig, TreeId::Exceptions);
    let mut rig = Rig::open(rig.disk);
    rig.disk.1 = Some(leaf);
    for _ in 0..2 {
        assert_eq!(rig.read(Tag(1), 0, 1), None, "it may be readable later");
        assert_eq!(costs(&rig), [false]);
    }
    for chunk in 0..2 {
        rig.write(2, chunk, 1);
        assert_eq!(costs(&rig), [false, true]);
    }
}
