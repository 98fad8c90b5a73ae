//! Bytes of unknown origin. Checksums are made right again, so that what lies
//! behind them is reached.

use proptest::prelude::*;

use super::super::*;
use super::world::{Batch, World};
use crate::block::Block;
use crate::format::{Damage, Kind, seal};

/// A tree of two levels: its root and first leaf.
fn nodes(value_len: usize) -> (World, Arc<Node>, Arc<Node>) {
    let mut world = World::new(value_len);
    let keys = (0..400).map(|b| Key::new(5, b, b * 3));
    let batch: Batch = keys.map(|key| (key, Some(world.value(key, 1)))).collect();
    world.apply(&batch, 1000, 100);
    let mut reader = super::world::Reader::new(1);
    let root = reader.read(
        Missing {
            ptr: world.root.ptr,
            level: world.root.height - 1,
            span: Span::ALL,
        },
        &world,
    );
    let first = reader.read(
        Missing {
            ptr: root.child(0),
            level: root.level() - 1,
            span: Span::ALL,
        },
        &world,
    );
    (world, root, first)
}

/// Seals `block` as `node` was sealed and verifies it.
fn verify(world: &World, node: &Node, mut block: Block) -> Result<Node, Damage> {
    let ptr = node.ptr();
    seal(
        &mut block,
        world.shape.kind,
        ptr.block,
        world.shape.store,
        ptr.generation,
    );
    Node::verify(Arc::new(block), ptr, &world.shape, node.level())
}

fn with(node: &Node, at: usize, bytes: &[u8]) -> Block {
    let mut block = Block::clone(&node.to_block());
    block.0[at..at + bytes.len()].copy_from_slice(bytes);
    block
}

#[test]
fn each_field_is_checked() {
    let (world, root, leaf) = nodes(24);
    let refuse = |node: &Node, at: usize, bytes: &[u8]| {
        verify(&world, node, with(node, at, bytes)).expect_err("damage not seen")
    };
    assert_eq!(
        refuse(&leaf, 32, &[1, 0]),
        Damage::Field("node of another level")
    );
    let count = Damage::Field("impossible number of records");
    assert_eq!(refuse(&leaf, 34, &[0, 0]), count);
    assert_eq!(refuse(&leaf, 34, &[255, 255]), count);
    assert_eq!(
        refuse(&leaf, 36, &[23, 0]),
        Damage::Field("record size of another tree")
    );
    let reserved = Damage::Field("reserved bytes are not zero");
    assert_eq!(refuse(&leaf, 38, &[1]), reserved);
    assert_eq!(refuse(&leaf, 63, &[1]), reserved);
    assert_eq!(refuse(&root, 40, &[1]), reserved);
    let order = Damage::Field("records out of order");
    assert_eq!(refuse(&leaf, 64, &[255; 8]), order);
    // The second record again as the first.
    let second: Vec<u8> = leaf.to_block().0[64 + 40..64 + 80].to_vec();
    assert_eq!(refuse(&leaf, 64, &second), order);
    let address = Damage::Field("impossible child address");
    assert_eq!(refuse(&root, 64 + 24, &[0; 8]), address);
    assert_eq!(
        refuse(&root, 64 + 24, &root.ptr().block.to_le_bytes()),
        address
    );
    assert_eq!(
        refuse(&root, 64 + 32, &[9; 8]),
        Damage::Field("child newer than its parent")
    );
}

#[test]
fn a_pointer_must_fit_the_block() {
    let (world, root, leaf) = nodes(24);
    let open = |block: u64, generation: u64, shape: &Shape, level: u16| {
        let ptr = Ptr { block, generation };
        Node::verify(leaf.to_block(), ptr, shape, level).map(|_| ())
    };
    let Ptr { block, generation } = leaf.ptr();
    assert_eq!(open(block, generation, &world.shape, 0), Ok(()));
    assert_eq!(
        open(block + 1, generation, &world.shape, 0),
        Err(Damage::Address)
    );
    assert_eq!(
        open(block, generation + 1, &world.shape, 0),
        Err(Damage::Generation)
    );
    assert!(open(block, generation, &world.shape, 1).is_err());
    let other = Shape {
        kind: Kind::EraNode,
        ..world.shape
    };
    assert_eq!(open(block, generation, &other, 0), Err(Damage::Kind));
    let other = Shape {
        store: 1,
        ..world.shape
    };
    assert_eq!(open(block, generation, &other, 0), Err(Damage::Store));
    let torn = with(&root, 3000, &[1, 2, 3]);
    let torn = Node::verify(Arc::new(torn), root.ptr(), &world.shape, 1);
    assert_eq!(torn.map(|_| ()), Err(Damage::Checksum));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever passes can be used in every way without a panic.
    #[test]
    fn hostile_nodes_never_panic(
        interior in any::<bool>(),
        value_len in prop::sample::select(vec![8usize, 24, 1080]),
        edits in prop::collection::vec((32usize..4096, any::<u8>()), 0..6),
        head in prop::option::of((any::<u16>(), 0..300u16)),
        noise in prop::option::of(any::<u64>()),
    ) {
        let (world, root, leaf) = nodes(value_len);
        let node = if interior { root } else { leaf };
        let mut block = Block::clone(&node.to_block());
        if let Some(mut noise) = noise {
            for byte in &mut block.0[64..] {
                noise = noise.wrapping_mul(6364136223846793005).wrapping_add(1);
                *byte = (noise >> 56) as u8;
            }
        }
        if let Some((level, count)) = head {
            block.0[32..34].copy_from_slice(&(level % 3).to_le_bytes());
            block.0[34..36].copy_from_slice(&count.to_le_bytes());
        }
        for (at, byte) in edits {
            block.0[at] = byte;
        }
        if let Ok(node) = verify(&world, &node, block) {
            for i in 0..node.len() {
                let key = node.key(i);
                prop_assert_eq!(node.lower_bound(&key), i);
                prop_assert_eq!(node.child_for(&key), i);
                prop_assert_eq!(node.value(i).len(), world.shape.value_len_at(node.level()));
            }
        }
    }
}

/// A node that is good by itself but lies outside its parent's bounds.
#[test]
fn a_merge_refuses_a_node_in_the_wrong_place() {
    let (world, root, _) = nodes(24);
    // Children 0 and 1 change places; each is still the node its pointer names.
    let mut block = Block::clone(&root.to_block());
    let (first, second) = (64 + 24..64 + 40, 104 + 24..104 + 40);
    block.0[first.clone()].copy_from_slice(&root.to_block().0[second.clone()]);
    block.0[second].copy_from_slice(&root.to_block().0[first]);
    let root = Arc::new(verify(&world, &root, block).unwrap());
    let mut cache = Cache::new(100);
    let mut walk = Walk::new(world.root).unwrap();
    let mut reader = super::world::Reader::new(1);
    let mut faults = Vec::new();
    while let Some(missing) = walk.next() {
        let node = if missing.ptr == root.ptr() {
            Arc::clone(&root)
        } else {
            reader.read(missing, &world)
        };
        faults.extend(walk.enter(&node).err());
        cache.insert(node);
    }
    assert_eq!(faults.len(), 2);
    assert!(matches!(walk.finish(), Err(Fault::Counts { .. })));
    let mut changes = Changes::new(&world.shape);
    changes.push(Key::new(5, 0, 0), None).unwrap();
    changes.push(Key::new(5, 399, 0), Some(&[1; 24])).unwrap();
    let mut merge = Merge::new(world.shape, world.root, changes, 9);
    let mut disk = world.disk.clone();
    disk.room = 100;
    let refused = merge.advance(&mut cache, &mut disk, &mut Vec::new(), 1000);
    assert_eq!(
        refused,
        Err(MergeError::Disorder {
            block: root.child(0).block
        })
    );
    // A probe goes astray there, but comes back.
    let found = neighbours(&world.root, Key::new(5, 0, 0), &mut cache).unwrap();
    assert!(found.ceil.is_none());
}
