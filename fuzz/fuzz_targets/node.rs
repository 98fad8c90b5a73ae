//! A node of any tree: its records are in order and found again, alone and through
//! a probe, and its values can be taken apart.
#![no_main]

use std::sync::Arc;

use csnap_fuzz::blocks::sealed;
use libfuzzer_sys::fuzz_target;
use snapstore::format::exception::{ERA_LEN, EXCEPTION_FIXED, Place, crcs_of};
use snapstore::format::tables::{SHARING_LEN, SNAPSHOT_LEN, VOLUME_LEN};
use snapstore::format::{HEADER_LEN, Header, Kind, Ptr};
use snapstore::tree::{Node, Nodes, Root, Shape, Walk, neighbours};
use snapstore::{BLOCK_SIZE, Block};

struct Only(Arc<Node>);

impl Nodes for Only {
    fn get(&mut self, ptr: Ptr, level: u16) -> Option<Arc<Node>> {
        (self.0.ptr() == ptr && self.0.level() == level).then(|| self.0.clone())
    }
}

/// The shape the block claims, if there is such a tree: exceptions with chunks of
/// 4 KiB or of 64 KiB.
fn shape(block: &Block, header: &Header) -> Option<Shape> {
    let claimed = u16::from_le_bytes([block.0[HEADER_LEN + 4], block.0[HEADER_LEN + 5]]);
    let kind = header.kind()?;
    let value_len = match kind {
        Kind::ExceptionNode if usize::from(claimed) == EXCEPTION_FIXED + 4 => EXCEPTION_FIXED + 4,
        Kind::ExceptionNode => EXCEPTION_FIXED + 64,
        Kind::EraNode => ERA_LEN,
        Kind::VolumeNode => VOLUME_LEN,
        Kind::SnapshotNode => SNAPSHOT_LEN,
        Kind::SharingNode => SHARING_LEN,
        _ => return None,
    };
    let store = header.store.get();
    Some(Shape {
        kind,
        value_len,
        store,
    })
}

fuzz_target!(|data: &[u8]| {
    let (block, header) = sealed(data);
    let Some(shape) = shape(&block, &header) else {
        return;
    };
    let level = u16::from_le_bytes([block.0[HEADER_LEN], block.0[HEADER_LEN + 1]]);
    let ptr = Ptr {
        block: header.block.get(),
        generation: header.generation.get(),
    };
    let Ok(node) = Node::verify(block.into(), ptr, &shape, level) else {
        return;
    };
    assert!((1..BLOCK_SIZE / 24).contains(&node.len()));
    for index in 0..node.len() {
        let key = node.key(index);
        assert_eq!(node.lower_bound(&key), index);
        assert_eq!(node.value(index).len(), shape.value_len_at(level));
        if level > 0 {
            assert_eq!(node.child_for(&key), index);
            assert!(!node.child(index).is_null());
        } else if shape.kind == Kind::ExceptionNode {
            let mut bytes = Vec::new();
            Place::decode(node.value(index)).encode(&mut bytes);
            bytes.extend(crcs_of(node.value(index)).flat_map(u32::to_le_bytes));
            assert_eq!(bytes, node.value(index));
        }
    }
    probe(Arc::new(node), ptr, level);
});

/// As the top of a tree.
fn probe(node: Arc<Node>, ptr: Ptr, level: u16) {
    let records = if level == 0 { node.len() as u64 } else { 0 };
    let root = Root {
        ptr,
        height: level + 1,
        nodes: 1,
        leaves: u64::from(level == 0),
        records,
    };
    let mut walk = Walk::new(root).expect("no higher than a node may lie");
    assert_eq!(walk.next().map(|missing| missing.ptr), Some(ptr));
    walk.enter(&node).expect("the root has no bounds");
    let mut nodes = Only(node.clone());
    for index in 0..node.len() {
        let key = node.key(index);
        let found = neighbours(&root, key, &mut nodes);
        if level == 0 {
            let ceil = found.expect("one node is all there is").ceil;
            assert_eq!(ceil.map(|found| found.key), Some(key));
        }
    }
    if level == 0 {
        assert_eq!(walk.next(), None);
        walk.finish().expect("the root counts right");
    }
}
