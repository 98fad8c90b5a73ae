//! Tree nodes that rot while the store is served: what they cost, what goes on.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::check::newest_store;
use crate::check::tests::world::{CHUNKS, Disk as Store, World, report};
use crate::format::exception::Place;
use crate::recover::{geometry_of, read_block, roots_of};
use crate::repair::{RepairOptions, repair};
use crate::tree::{Key, Missing, Node, Root, Span, Walk};

pub(super) const A: VolumeId = VolumeId(1);
pub(super) const B: VolumeId = VolumeId(2);

/// A chunk of a snapshot.
pub(super) type View = (VolumeId, Tag, u64);

/// Two volumes, snapshots of both, trees of two levels, all of it in a checkpoint.
fn history() -> World {
    let mut world = World::new();
    assert_eq!((world.volume("a"), world.volume("b")), (A, B));
    for round in 0..4 {
        world.take(A, &format!("a{round}"));
        world.write(A, u64::from(round) * 11, 70, round + 1);
        if round % 2 == 1 {
            world.take(B, &format!("b{round}"));
            world.write(B, 30 + u64::from(round), 50, round + 100);
        }
    }
    world.command(Command::Close);
    world
}

/// The good nodes of a tree.
pub(super) fn nodes(store: &Store, tree: TreeId) -> Vec<(Missing, Node)> {
    let mut store = store.clone();
    let superblock = newest_store(&mut store).unwrap().superblock;
    let (geometry, roots) = (geometry_of(&superblock), roots_of(&superblock));
    let mut walk = Walk::new(*roots.get(tree)).unwrap();
    let mut found = Vec::new();
    while let Some(missing) = walk.next() {
        let block = read_block(&mut store, missing.ptr.block, "tree").unwrap();
        let shape = geometry.shape(tree);
        if let Ok(node) = Node::verify(block.into(), missing.ptr, &shape, missing.level) {
            walk.enter(&node).unwrap();
            found.push((missing, node));
        }
    }
    found
}

fn open(was: &World, damaged: &[u64]) -> World {
    let mut disk = was.disk.clone();
    damaged
        .iter()
        .for_each(|at| disk.0[*at as usize].0[77] ^= 4);
    let mut now = World::open(disk, was.origins.clone());
    now.images = was.images.clone();
    now
}

/// Reads every chunk of every live snapshot: what is served is right. Returns what
/// is not served.
pub(super) fn failing(world: &mut World) -> BTreeSet<View> {
    let mut failing = BTreeSet::new();
    for id in [A, B] {
        for tag in world.snapshots(id).0 {
            let image = world.images[&(id, tag)].clone();
            for (chunk, byte) in (0..).zip(image) {
                match world.view(id, tag, chunk) {
                    Some(found) => assert_eq!(found, byte, "{id}@{tag}, chunk {chunk}"),
                    None => {
                        failing.insert((id, tag, chunk));
                    }
                }
            }
        }
    }
    failing
}

/// What live snapshots need of the exceptions in `span`.
fn needed(was: &World, span: Span) -> BTreeSet<View> {
    let mut needed = BTreeSet::new();
    let all = nodes(&was.disk, TreeId::Exceptions);
    for (_, leaf) in all.iter().filter(|(_, node)| node.level() == 0) {
        for index in 0..leaf.len() {
            let (key, place) = (leaf.key(index), Place::decode(leaf.value(index)));
            let id = VolumeId(key.a as u32);
            let live = was.snapshots(id).0.into_iter();
            let inside = live.filter(|tag| place.pred < *tag && tag.0 <= key.c);
            let inside = inside.filter(|_| span.covers(key));
            needed.extend(inside.map(|tag| (id, tag, key.b)));
        }
    }
    needed
}

pub(super) fn write_everything(world: &mut World, byte: u8) {
    for id in [A, B] {
        for first in (0..CHUNKS).step_by(16) {
            world.write(id, first, 16, byte);
        }
    }
}

pub(super) fn told(world: &World) -> Vec<u64> {
    world.damage.iter().map(|(block, _)| *block).collect()
}

#[test]
fn a_node_of_the_exception_tree_costs_what_it_led_to() {
    let was = history();
    let all = nodes(&was.disk, TreeId::Exceptions);
    assert!(all.len() > 3 && all[0].1.level() == 1, "{}", all.len());
    for (missing, _) in all {
        let at = missing.ptr.block;
        let lost = needed(&was, missing.span);
        assert!(!lost.is_empty());
        let mut now = open(&was, &[at]);
        assert_eq!(failing(&mut now), lost, "block {at}");
        assert_eq!(told(&now), [at]);
        // Writes go on, and what they copy is right: before a checkpoint and after it.
        write_everything(&mut now, 200);
        assert_eq!(failing(&mut now), lost, "block {at}, written");
        now.take(A, "new");
        write_everything(&mut now, 201);
        now.checkpoint();
        assert_eq!(now.info().failed, None);
        assert_eq!(failing(&mut now), lost, "block {at}, in a checkpoint");
        // A snapshot that goes gives its room back.
        let (used, first) = (now.info().used, Tag(1));
        now.delete(A, first);
        now.checkpoint();
        assert_eq!((now.info().purging, now.info().failed), (0, None));
        assert!(now.info().used < used, "block {at}");
        let left = lost.iter().filter(|(id, tag, _)| (*id, *tag) != (A, first));
        let left: BTreeSet<View> = left.copied().collect();
        assert_eq!(failing(&mut now), left, "block {at}, purged");
        assert_eq!(told(&now), [at], "told of once");
        now.command(Command::Close);
        after(now, at, &left);
    }
}

/// What stands on disk: opened again it serves the same, a check says that the trees
/// differ, a repair settles it.
fn after(was: World, at: u64, left: &BTreeSet<View>) {
    let mut again = open(&was, &[]);
    assert_eq!(failing(&mut again), *left, "block {at}, opened again");
    assert!(told(&again).is_empty(), "the damaged node is replaced");
    let mut disk = was.disk.clone();
    let problems = report(&mut disk, true).problems;
    let differ =
        |line: &String| line.contains("tell different places") || line.contains("the root counts");
    assert!(problems.iter().any(differ), "{problems:#?}");
    let repaired = repair(&mut disk, RepairOptions::default(), &mut |_, _| ()).unwrap();
    assert_eq!(repaired.remaining, Vec::<String>::new());
    let mut mended = World::open(disk, was.origins.clone());
    mended.images = was.images.clone();
    assert_eq!(failing(&mut mended), *left, "block {at}, repaired");
}

#[test]
fn a_node_of_the_era_tree_costs_nothing() {
    let was = history();
    let all = nodes(&was.disk, TreeId::Eras);
    assert!(all.len() > 3 && all[0].1.level() == 1, "{}", all.len());
    let used = |damaged: &[u64]| {
        let mut now = open(&was, damaged);
        for tag in [1, 3, 2] {
            let volume = if now.snapshots(A).0.contains(&Tag(tag)) {
                A
            } else {
                B
            };
            now.delete(volume, Tag(tag));
            now.checkpoint();
        }
        write_everything(&mut now, 200);
        now.checkpoint();
        assert_eq!((now.info().purging, now.info().failed), (0, None));
        assert_eq!(failing(&mut now), BTreeSet::new(), "{damaged:?}");
        let told = told(&now);
        assert!(told.len() <= 1 && told.iter().all(|at| damaged.contains(at)));
        now.command(Command::Close);
        let problems = report(&mut now.disk, true).problems;
        (now.info().used, told.len(), problems)
    };
    let (sound, _, problems) = used(&[]);
    assert_eq!(problems, Vec::<String>::new());
    let mut met = 0;
    for (missing, _) in &all {
        let at = missing.ptr.block;
        let (rotten, told, problems) = used(&[at]);
        met += told;
        if missing.level == 0 {
            assert_eq!(rotten, sound, "block {at}");
            let named = |line: &String| told == 0 && line.contains(&format!("block {at}:"));
            assert!(problems.iter().all(named), "{problems:#?}");
        } else {
            // Where its leaves were is not known any more.
            let leaves = (all.len() - 1) as u64 * BLOCK_SIZE as u64;
            assert!(rotten <= sound + leaves, "{rotten} {sound}");
            assert!(!problems.is_empty());
        }
    }
    assert!(met > 1, "hardly any was met");
}

#[test]
fn where_both_trees_are_damaged_the_other_volume_goes_on() {
    let was = history();
    let leaf = |tree| {
        let all = nodes(&was.disk, tree);
        let mut leaves = all.into_iter().filter(|(_, node)| node.level() == 0);
        leaves.next().unwrap().0
    };
    let (exceptions, eras) = (leaf(TreeId::Exceptions), leaf(TreeId::Eras));
    let mut now = open(&was, &[exceptions.ptr.block, eras.ptr.block]);
    // Nobody knows what lies below: not even what no exception spoke of is served.
    let below =
        |(id, tag, chunk): &View| exceptions.span.covers(Key::new(id.0.into(), *chunk, tag.0));
    let lost = failing(&mut now);
    assert!(needed(&was, exceptions.span).is_subset(&lost));
    assert!(!lost.is_empty() && lost.iter().all(|view| view.0 == A && view.2 < CHUNKS / 2));
    assert!(lost.iter().any(below));
    let (kept, used) = (now.snapshots(B).0, now.info().used);
    now.write(A, 0, 1, 7);
    assert!(now.snapshots(A).0.is_empty(), "the origin comes first");
    now.checkpoint();
    assert_eq!((now.info().purging, now.info().failed), (0, None));
    assert!(now.info().used < used, "most of the room is back");
    for first in (0..CHUNKS).step_by(16) {
        now.write(B, first, 16, 9);
    }
    now.checkpoint();
    assert_eq!((now.snapshots(B).0, now.info().failed), (kept, None));
    assert_eq!(failing(&mut now), BTreeSet::new());
    let mut told = told(&now);
    told.sort_unstable();
    let mut both = [exceptions.ptr.block, eras.ptr.block];
    both.sort_unstable();
    assert_eq!(told, both);
}

#[test]
fn a_table_that_rots_in_service_is_written_anew() {
    for tree in [TreeId::Volumes, TreeId::Snapshots, TreeId::Sharing] {
        let mut now = open(&history(), &[]);
        let at = nodes(&now.disk, tree)[0].0.ptr.block;
        now.disk.0[at as usize].0[77] ^= 4;
        write_everything(&mut now, 50);
        now.take(A, "late");
        now.delete(B, now.snapshots(B).0[0]);
        now.checkpoint();
        assert_eq!(now.info().failed, None);
        assert_eq!(told(&now), [at], "{}", tree.name());
        now.command(Command::Close);
        let problems = report(&mut now.disk, true).problems;
        let leaked = |line: &String| line.contains("nothing refers to it");
        assert!(problems.iter().all(leaked), "{problems:#?}");
        let mut again = open(&now, &[]);
        for id in [A, B] {
            assert_eq!(again.snapshots(id), now.snapshots(id));
        }
        assert_eq!(failing(&mut again), BTreeSet::new());
    }
}

#[test]
fn sharing_counters_are_counted_anew_at_attach() {
    let was = history();
    let own = |world: &World| {
        let all = [A, B].map(|id| world.exclusive(id));
        assert!(all.iter().flatten().any(|bytes| *bytes > 0));
        all
    };
    let sound = own(&was);
    for (missing, _) in nodes(&was.disk, TreeId::Sharing) {
        let at = missing.ptr.block;
        let mut now = open(&was, &[at]);
        assert_eq!(own(&now), sound);
        now.checkpoint();
        assert_eq!(told(&now), [at]);
        now.command(Command::Close);
        let problems = report(&mut now.disk, true).problems;
        let leaked = |line: &String| line.contains("nothing refers to it");
        assert!(problems.iter().all(leaked), "{problems:#?}");
        assert_eq!(own(&open(&now, &[])), sound);
    }
}

#[test]
fn sharing_is_counted_anew_over_damaged_exceptions() {
    let was = history();
    let own = |world: &World| [A, B].map(|id| world.exclusive(id));
    let sound = own(&was);
    let sharing = nodes(&was.disk, TreeId::Sharing)[0].0.ptr.block;
    for (missing, _) in nodes(&was.disk, TreeId::Exceptions) {
        let damaged = [sharing, missing.ptr.block];
        assert_eq!(own(&open(&was, &damaged)), sound, "{damaged:?}");
    }
}

/// A node above the leaves that was made anew leaves the root's counts too high.
#[test]
fn sharing_is_counted_anew_whatever_the_root_counts() {
    let mut rig = Rig::new(8192, Policy::OriginFirst);
    for first in (0..2048).step_by(64) {
        rig.write(1, first, 64);
    }
    rig.command(Command::Checkpoint);
    // One more in each leaf: they are split.
    rig.take("u");
    for first in (0..2048).step_by(50) {
        rig.write(1, first, 1);
    }
    rig.command(Command::Close);
    let root = rig.engine.roots.exceptions;
    assert_eq!(root.height, 2);
    rig.disk.0[root.ptr.block as usize].0[100] ^= 1;
    let mut rig = Rig::open(rig.disk);
    rig.take("t");
    rig.write(2, 0, 4);
    rig.command(Command::Close);
    let problems = report_of(&mut rig);
    let counts = |line: &String| line.contains("the root counts");
    assert!(problems.iter().any(counts), "{problems:#?}");
    let sharing = |rig: &Rig| rig.engine.state.volumes[&VOLUME].sharing.clone();
    let (before, at) = (sharing(&rig), rig.engine.roots.sharing.ptr.block);
    rig.disk.0[at as usize].0[100] ^= 1;
    let rig = Rig::open(rig.disk);
    assert_eq!(sharing(&rig), before);
}

fn report_of(rig: &mut Rig) -> Vec<String> {
    let options = CheckOptions { data: false };
    check(&mut rig.disk, options, &mut |_, _| ())
        .unwrap()
        .problems
}

#[test]
fn recovery_gets_over_a_damaged_leaf() {
    let mut was = history();
    was = open(&was, &[]);
    // Not in a checkpoint yet.
    write_everything(&mut was, 90);
    for tree in [TreeId::Exceptions, TreeId::Eras] {
        for (missing, _) in nodes(&was.disk, tree) {
            let lost = match tree {
                TreeId::Exceptions => needed(&was, missing.span),
                _ => BTreeSet::new(),
            };
            let mut now = open(&was, &[missing.ptr.block]);
            assert_eq!(failing(&mut now), lost, "block {}", missing.ptr.block);
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Write(VolumeId, u64, u64),
    Take(VolumeId),
    Delete(VolumeId, usize),
    Checkpoint,
    /// An orderly stop, then one node of those there are rots.
    Rot(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let volume = prop::sample::select(vec![A, B]);
    prop_oneof![
        4 => (volume.clone(), 0..CHUNKS - 20, 1..20u64).prop_map(|(v, at, n)| Op::Write(v, at, n)),
        1 => volume.clone().prop_map(Op::Take),
        1 => (volume, 0..8usize).prop_map(|(v, n)| Op::Delete(v, n)),
        1 => Just(Op::Checkpoint),
        2 => (0..1000usize).prop_map(Op::Rot),
    ]
}

/// Stops in order and starts again with one more damaged node; what that costs.
fn rot(world: &mut World, tree: TreeId, which: usize) -> BTreeSet<View> {
    world.command(Command::Close);
    let all = nodes(&world.disk, tree);
    let Some((missing, _)) = all.get(which % all.len().max(1)) else {
        *world = open(world, &[]);
        return BTreeSet::new();
    };
    let lost = match tree {
        TreeId::Exceptions => needed(world, missing.span),
        _ => BTreeSet::new(),
    };
    *world = open(world, &[missing.ptr.block]);
    lost
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn rot_in_one_tree_costs_what_it_hits(
        tree in prop::sample::select(vec![TreeId::Exceptions, TreeId::Eras]),
        ops in prop::collection::vec(op(), 1..30),
    ) {
        let mut world = open(&history(), &[]);
        let mut lost = BTreeSet::new();
        for (step, op) in ops.into_iter().enumerate() {
            match op {
                Op::Write(volume, first, count) => world.write(volume, first, count, step as u8),
                Op::Take(volume) => {
                    world.take(volume, &format!("t{step}"));
                }
                Op::Delete(volume, which) => {
                    let live = world.snapshots(volume).0;
                    if let Some(tag) = live.get(which) {
                        world.delete(volume, *tag);
                    }
                }
                Op::Checkpoint => world.checkpoint(),
                Op::Rot(which) => lost.extend(rot(&mut world, tree, which)),
            }
            prop_assert_eq!(world.info().failed, None);
        }
        let live = |view: &&View| world.snapshots(view.0).0.contains(&view.1);
        let left: BTreeSet<View> = lost.iter().filter(live).copied().collect();
        prop_assert_eq!(failing(&mut world), left);
    }
}

/// One snapshot whose exceptions stand in a leaf at this block.
fn one_leaf() -> (Rig, u64) {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    rig.write(1, 0, 32);
    rig.command(Command::Close);
    let rig = Rig::open(rig.disk);
    let Root { ptr, height, .. } = rig.engine.roots.exceptions;
    assert_eq!(height, 1);
    (rig, ptr.block)
}

#[test]
fn a_read_that_fails_once_costs_nothing() {
    let (mut rig, _) = one_leaf();
    rig.hold_reads = true;
    assert_eq!(rig.read(Tag(1), 5, 1), None, "its leaf is being read");
    rig.fail = Box::new(|_| true);
    let held = rig.held.pop().unwrap();
    rig.answer(held);
    rig.fail = Box::new(|_| false);
    rig.release();
    assert_eq!(rig.engine.cache.kept(), 0);
    assert!(rig.engine.reads.is_empty());
}

#[test]
fn an_unreadable_leaf_is_made_anew_once_and_dropped_when_replaced() {
    let (mut rig, leaf) = one_leaf();
    rig.disk.1 = Some(leaf);
    rig.write(2, 20, 40);
    assert_eq!(
        (&rig.granted[..], rig.engine.cache.kept()),
        (&[Owner(2)][..], 1)
    );
    assert_eq!(rig.copies.last(), Some(&(32, 28 * BLOCK_SIZE as u32)));
    let reads = rig.engine.counters.block_reads;
    rig.write(3, 100, 1);
    assert_eq!(rig.engine.counters.block_reads, reads, "it is at hand");
    rig.command(Command::Checkpoint);
    assert_eq!(rig.engine.failed, None);
    assert_eq!(rig.engine.cache.kept(), 0);
    assert_ne!(rig.engine.roots.exceptions.ptr.block, leaf);
}

#[test]
fn what_cannot_be_read_for_a_while_is_not_given_up_for_readers() {
    let (mut rig, leaf) = one_leaf();
    rig.disk.1 = Some(leaf);
    assert_eq!(rig.read(Tag(1), 5, 1), None, "its checksum is in that leaf");
    assert_eq!(rig.engine.cache.kept(), 0, "nothing was made anew");
    rig.disk.1 = None;
    let (grant, source) = rig.read(Tag(1), 5, 1).unwrap();
    assert!(matches!(source, Source::Store { .. }), "{source:?}");
    rig.read_done(grant);
}

#[test]
fn a_purge_comes_again_to_what_could_not_be_read() {
    let (mut rig, _) = one_leaf();
    let eras = rig.engine.roots.eras.ptr.block;
    rig.disk.1 = Some(eras);
    rig.hold = is_superblock;
    rig.delete(Tag(1));
    assert!(rig.kept() > 0, "nothing could be given back yet");
    assert_eq!(rig.held.len(), 1, "it waits for a checkpoint");
    rig.disk.1 = None;
    rig.release();
    assert_eq!(rig.kept(), 0, "all of it came back");
    rig.is_sound();
}
