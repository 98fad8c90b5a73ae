//! Attributes: the form that is chosen at every boundary, and all that is in them.

use crate::naive::{Tree, be16, be32, be64, hash, node_info};
use crate::placed::{Layout, Placed, geometry};
use imagegen::tree::Xattr;
use imagegen::xfs::format::checksum;
use imagegen::xfs::geometry::Geometry;
use imagegen::xfs::write::ForkError;
use imagegen::xfs::write::attributes::{AttributeFork, Attributes};
use proptest::prelude::*;

const INO: u64 = 0x1_0000_0083;
/// Namespace PARENT.
const PARENT: u8 = 8;

/// An attribute as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Attribute {
    namespace: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

fn attribute(namespace: u8, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Attribute {
    Attribute {
        namespace,
        name: name.into(),
        value: value.into(),
    }
}

/// What a fork is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Short,
    Leaf,
    /// With how many levels of nodes.
    Node(u16),
}

fn finish<'a>(geometry: &'a Geometry, some: &[Attribute], space: usize) -> AttributeFork<'a> {
    let mut attributes = Attributes::new(geometry);
    for attribute in some {
        let Attribute {
            namespace,
            name,
            value,
        } = attribute;
        if *namespace == PARENT {
            let (ino, generation) = (be64(value, 0), be32(value, 8));
            attributes.push_parent(name, ino, generation).unwrap();
        } else {
            attributes.push(*namespace, name, value).unwrap();
        }
    }
    attributes.finish(INO, space).unwrap()
}

/// Encodes and decodes; fails unless the attributes are the same.
fn form(geometry: &Geometry, some: &[Attribute], space: usize, layout: Layout) -> Form {
    let fork = finish(geometry, some, space);
    let ranges = fork.ranges();
    if let Some(bytes) = fork.short_form() {
        assert!(bytes.len() <= space && ranges.is_empty());
        assert_eq!(short(bytes), some);
        return Form::Short;
    }
    assert_eq!((ranges.len(), ranges[0].0), (1, 0));
    let placed = Placed::gather(geometry, INO, &ranges, layout, |place, sink| {
        fork.encode(place, sink);
    });
    let (form, mut found) = decode(&placed);
    let mut expected = some.to_vec();
    expected.sort();
    found.sort();
    assert!(found == expected, "not the same attributes");
    form
}

fn short(bytes: &[u8]) -> Vec<Attribute> {
    if bytes.is_empty() {
        return Vec::new();
    }
    assert_eq!((usize::from(be16(bytes, 0)), bytes[3]), (bytes.len(), 0));
    let mut at = 4;
    let mut found = Vec::new();
    for _ in 0..bytes[2] {
        let [name, value, flags] = [0, 1, 2].map(|field| bytes[at + field]);
        let (name, value) = (usize::from(name), usize::from(value));
        assert!(name > 0);
        let split = at + 3 + name;
        let end = split + value;
        found.push(attribute(flags, &bytes[at + 3..split], &bytes[split..end]));
        at = end;
    }
    assert_eq!(at, bytes.len());
    found
}

fn decode(placed: &Placed) -> (Form, Vec<Attribute>) {
    let mut tree = Tree::new(placed, 0, 1, 0x3bee);
    let level = tree.walk();
    let mut used = tree.visited;
    let mut found = Vec::new();
    let mut last = 0;
    for offset in &tree.leaves {
        leaf(placed, *offset, &mut last, &mut used, &mut found);
    }
    assert_eq!(used, placed.blocks.len(), "blocks that belong to nothing");
    match level {
        0 => (Form::Leaf, found),
        level => (Form::Node(level), found),
    }
}

/// As `xfs_attr3_leaf_verify` and `process_leaf_attr_block` of xfs_repair.
fn leaf(placed: &Placed, offset: u64, last: &mut u32, used: &mut usize, all: &mut Vec<Attribute>) {
    let bytes = &placed.bytes(offset, 1);
    node_info(placed, bytes, offset);
    let (count, bytes_used) = (usize::from(be16(bytes, 56)), be16(bytes, 58));
    let first_used = usize::from(be16(bytes, 60));
    assert_eq!((bytes[62], bytes[63]), (0, 0));
    let entries_end = 80 + 8 * count;
    assert!(entries_end <= first_used && first_used < bytes.len());
    let mut map = vec![false; bytes.len()];
    let mut sizes = 0;
    for at in (80..entries_end).step_by(8) {
        let (hashed, name_at, flags) = (be32(bytes, at), be16(bytes, at + 4), bytes[at + 6]);
        assert!(hashed >= *last, "hashes are not in order");
        *last = hashed;
        let name_at = usize::from(name_at);
        assert!(name_at % 4 == 0 && name_at >= first_used);
        let (found, size) = if flags & 1 == 1 {
            local(&bytes[name_at..], flags & !1)
        } else {
            remote(placed, &bytes[name_at..], flags, used)
        };
        for byte in &mut map[name_at..name_at + size] {
            assert!(!std::mem::replace(byte, true), "used twice");
        }
        sizes += size;
        let mut expected = hash(&found.name);
        if flags & PARENT != 0 {
            let ino = be64(&found.value, 0);
            expected ^= (ino >> 32) as u32 ^ ino as u32;
        }
        assert_eq!(hashed, expected);
        all.push(found);
    }
    assert_eq!(sizes, usize::from(bytes_used));
    assert_eq!(map.iter().position(|used| *used), Some(first_used));
    let free = [64, 66].map(|at| usize::from(be16(bytes, at)));
    assert_eq!(free, [entries_end, first_used - entries_end]);
    assert_eq!(
        bytes.len() - entries_end - sizes,
        free[1],
        "free space is not in one piece"
    );
    assert_eq!(bytes[68..80], [0; 12]);
}

fn local(bytes: &[u8], namespace: u8) -> (Attribute, usize) {
    let (value, name) = (usize::from(be16(bytes, 0)), usize::from(bytes[2]));
    let end = 3 + name + value;
    let found = attribute(namespace, &bytes[3..3 + name], &bytes[3 + name..end]);
    (found, end.next_multiple_of(4))
}

fn remote(placed: &Placed, bytes: &[u8], flags: u8, used: &mut usize) -> (Attribute, usize) {
    let (first, length) = (u64::from(be32(bytes, 0)), be32(bytes, 4) as usize);
    let name = usize::from(bytes[8]);
    assert!(first > 0 && flags & PARENT == 0);
    let room = placed.geometry.block_size() - 56;
    let mut value = Vec::new();
    for (offset, begin) in (first..).zip((0..length).step_by(room)) {
        let block = placed.bytes(offset, 1);
        assert!(checksum::holds(&block, 12));
        let part = (length - begin).min(room);
        assert_eq!(be32(&block, 0), 0x5841_524d);
        assert_eq!(be32(&block, 4) as usize, begin);
        assert_eq!(be32(&block, 8) as usize, part);
        assert_eq!(block[16..32], *placed.geometry.uuid.as_bytes());
        assert_eq!(
            (be64(&block, 32), be64(&block, 40)),
            (INO, placed.daddr(offset))
        );
        assert_eq!(be64(&block, 48), u64::MAX);
        value.extend(&block[56..56 + part]);
        *used += 1;
    }
    let found = attribute(flags, &bytes[9..9 + name], value);
    (found, (11 + name).next_multiple_of(4))
}

/// Parent pointers with names of 8 bytes: 24 bytes in a leaf, 8 for the entry.
fn parents(count: usize) -> Vec<Attribute> {
    let value = |number: usize| {
        let (ino, generation) = (number as u64 % 3 + (7 << 33), number as u32);
        [&ino.to_be_bytes()[..], &generation.to_be_bytes()].concat()
    };
    let name = |number| format!("{number:08}");
    (0..count)
        .map(|number| attribute(PARENT, name(number), value(number)))
        .collect()
}

fn of(geometry: &Geometry, some: &[Attribute]) -> Form {
    form(geometry, some, 100, Layout::Together)
}

#[test]
fn the_last_short_form_is_followed_by_a_leaf() {
    let geometry = geometry(12, 0);
    let some = |value: usize| [attribute(2, "name", vec![7; value]), attribute(4, "x", "")];
    // 4 and twice 3 bytes of headers, 5 of names.
    assert_eq!(of(&geometry, &some(85)), Form::Short);
    assert_eq!(of(&geometry, &some(86)), Form::Leaf);
    let large = |value: usize| form(&geometry, &some(value), 1000, Layout::Together);
    assert_eq!([large(255), large(256)], [Form::Short, Form::Leaf]);
    let mut attributes = Attributes::new(&geometry);
    assert!(attributes.is_empty());
    assert_eq!(finish(&geometry, &[], 0).short_form(), Some(&[][..]));
    attributes.push(0, b"x", &[0; 255]).unwrap();
    assert_eq!(attributes.short_size(), Some(4 + 3 + 1 + 255));
    attributes.push(0, b"y", &[0; 256]).unwrap();
    assert_eq!(attributes.short_size(), None);
}

#[test]
fn short_form_has_no_more_than_255_attributes() {
    let geometry = geometry(12, 0);
    let some: Vec<_> = (0..=255)
        .map(|number| attribute(0, vec![1, number], ""))
        .collect();
    let large = |some: &[Attribute]| form(&geometry, some, 2000, Layout::Together);
    assert_eq!(
        [large(&some[..255]), large(&some)],
        [Form::Short, Form::Node(1)]
    );
}

#[test]
fn the_last_leaf_is_followed_by_nodes() {
    let (small, geometry) = (geometry(10, 0), geometry(12, 0));
    let last = (4096 - 80) / 32;
    assert_eq!(of(&geometry, &parents(last)), Form::Leaf);
    assert_eq!(of(&geometry, &parents(last + 1)), Form::Node(1));
    // 29 a leaf, 120 leaves a node.
    assert_eq!(of(&small, &parents(29 * 120)), Form::Node(1));
    assert_eq!(of(&small, &parents(29 * 120 + 1)), Form::Node(2));
}

#[test]
fn a_full_leaf_of_the_largest_block_is_said_right() {
    let geometry = geometry(16, 0);
    let last = (65536 - 80) / 32;
    assert_eq!(of(&geometry, &parents(last)), Form::Leaf);
    assert_eq!(of(&geometry, &parents(last + 1)), Form::Node(1));
}

#[test]
fn a_value_of_three_quarters_of_a_block_is_remote() {
    for (block_log, most) in [(10, 768), (12, 3072), (16, 49152)] {
        let geometry = geometry(block_log, 0);
        let blocks = |value: usize| {
            let some = [attribute(0, "name", vec![1; value])];
            assert_eq!(of(&geometry, &some), Form::Leaf);
            finish(&geometry, &some, 100).ranges()[0].1
        };
        // Sizes are rounded up to 4: the largest local one is 4 below the limit.
        assert_eq!(blocks(most - 4 - 7), 1);
        assert_eq!(blocks(most - 4 - 6), 2);
    }
}

#[test]
fn remote_values_fill_their_blocks() {
    let geometry = geometry(12, 0);
    for (value, blocks) in [(4040, 2), (4041, 3), (8080, 3), (65536, 1 + 17)] {
        let some = [attribute(0, "name", vec![value as u8; value])];
        assert_eq!(finish(&geometry, &some, 100).ranges(), [(0, blocks)]);
        for layout in [Layout::Together, Layout::Scattered] {
            assert_eq!(form(&geometry, &some, 100, layout), Form::Leaf);
        }
    }
}

#[test]
fn remote_values_lie_behind_a_tree() {
    let geometry = geometry(12, 0);
    let large = |number: usize| attribute(4, format!("large{number}"), vec![3; 5000 + number]);
    let mut some = parents(2000);
    some.extend((0..200).map(large));
    assert_eq!(of(&geometry, &some), Form::Node(1));
}

#[test]
fn a_million_parents_are_read_back() {
    let geometry = geometry(12, 0);
    assert_eq!(of(&geometry, &parents(1_000_000)), Form::Node(2));
}

#[test]
fn parents_hash_without_case_if_names_compare_so() {
    let mut geometry = geometry(12, 0);
    geometry.features.ascii_ci = true;
    let mut some = Attributes::new(&geometry);
    some.push_parent(b"NAME", 128, 0).unwrap();
    let fork = some.finish(INO, 0).unwrap();
    let placed = Placed::gather(
        &geometry,
        INO,
        &fork.ranges(),
        Layout::Together,
        |place, sink| {
            fork.encode(place, sink);
        },
    );
    assert_eq!(be32(&placed.bytes(0, 1), 80), hash(b"name") ^ 128);
}

#[test]
fn names_and_values_have_limits() {
    let geometry = geometry(12, 0);
    let mut some = Attributes::new(&geometry);
    let name = |bytes| Err(ForkError::NameLength { bytes });
    assert_eq!(some.push(0, b"", b""), name(0));
    assert_eq!(some.push(0, &[b'x'; 256], b""), name(256));
    let value = Err(ForkError::ValueLength { bytes: 65537 });
    assert_eq!(some.push(0, b"x", &[0; 65537]), value);
    assert_eq!(some.push(0, &[b'x'; 255], &[0; 65536]), Ok(()));
}

/// The short form of attributes given by their full names.
fn named(some: &[(&str, &[u8])]) -> Result<Vec<Attribute>, ForkError> {
    let geometry = geometry(12, 0);
    let mut attributes = Attributes::new(&geometry);
    for (name, value) in some {
        attributes.push_xattr(&Xattr {
            name: name.as_bytes().into(),
            value: (*value).into(),
        })?;
    }
    Ok(short(attributes.finish(INO, 2000)?.short_form().unwrap()))
}

#[test]
fn namespaces_become_flags() {
    let some: [(&str, &[u8]); 3] = [
        ("user.user.x", b"1"),
        ("trusted.overlay.opaque", b"y"),
        ("security.selinux", b"label\0"),
    ];
    let expected = [
        attribute(0, "user.x", "1"),
        attribute(2, "overlay.opaque", "y"),
        attribute(4, "selinux", "label\0"),
    ];
    assert_eq!(named(&some).unwrap(), expected);
    for name in ["btrfs.compression", "system.nfs4_acl", "user", ""] {
        let error = ForkError::Namespace { name: name.into() };
        assert_eq!(named(&[(name, b"1")]), Err(error));
    }
    let error = ForkError::NameLength { bytes: 0 };
    assert_eq!(named(&[("user.", b"1")]), Err(error));
}

/// An ACL as Linux shows it: tag, permissions, id.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

const GOOD: [(u16, u16, u32); 5] = [
    (1, 6, u32::MAX),
    (2, 5, 1000),
    (4, 4, u32::MAX),
    (16, 7, u32::MAX),
    (32, 0, 77),
];

fn good_on_disk() -> Vec<u8> {
    let entry = |tag: u32, id: u32, permissions: u16| {
        [
            &tag.to_be_bytes()[..],
            &id.to_be_bytes(),
            &permissions.to_be_bytes(),
            &[0, 0],
        ]
        .concat()
    };
    let none = u32::MAX;
    [
        5_u32.to_be_bytes().to_vec(),
        entry(1, none, 6),
        entry(2, 1000, 5),
        entry(4, none, 4),
        entry(16, none, 7),
        entry(32, none, 0),
    ]
    .concat()
}

#[test]
fn acls_are_kept_as_xfs_keeps_them() {
    let good = acl(&GOOD);
    let disk = good_on_disk();
    let access = attribute(2, "SGI_ACL_FILE", disk.clone());
    let default = attribute(2, "SGI_ACL_DEFAULT", disk.clone());
    let both: [(&str, &[u8]); 2] = [
        ("system.posix_acl_access", &good),
        ("system.posix_acl_default", &good),
    ];
    assert_eq!(named(&both).unwrap(), [access.clone(), default]);
    // The kernel shows root the same once more.
    let twice: [(&str, &[u8]); 2] = [
        ("system.posix_acl_access", &good),
        ("trusted.SGI_ACL_FILE", &disk),
    ];
    assert_eq!(named(&twice).unwrap(), std::slice::from_ref(&access));
    assert_eq!(named(&[("trusted.SGI_ACL_FILE", &disk)]).unwrap(), [access]);
    assert_eq!(
        named(&[("system.posix_acl_access", &acl(&[]))]).unwrap(),
        []
    );
}

#[test]
fn acls_that_the_kernel_would_not_take_are_refused() {
    let change = |slot: usize, entry: (u16, u16, u32)| {
        let mut entries = GOOD;
        entries[slot] = entry;
        acl(&entries)
    };
    let mut version = acl(&GOOD);
    version[0] = 1;
    let bad = [
        version,
        acl(&GOOD)[..43].to_vec(),
        vec![2, 0],
        change(1, (3, 5, 0)),
        change(1, (2, 8, 0)),
        change(0, (2, 7, 0)),
        change(3, (32, 7, 0)),
        acl(&[GOOD[0], GOOD[1], GOOD[2], GOOD[4]]),
        acl(&[GOOD[2], GOOD[0], GOOD[4]]),
    ];
    for value in &bad {
        let result = named(&[("system.posix_acl_access", value)]);
        assert!(
            matches!(result, Err(ForkError::Acl { .. })),
            "{value:?}: {result:?}"
        );
    }
    let disk = good_on_disk();
    for value in [&disk[..40], b"", &[0, 0, 0, 2]] {
        let result = named(&[("trusted.SGI_ACL_DEFAULT", value)]);
        assert!(
            matches!(result, Err(ForkError::Acl { .. })),
            "{value:?}: {result:?}"
        );
    }
}

fn any_attribute() -> impl Strategy<Value = Attribute> {
    let size = prop_oneof![8 => 0..40_usize, 2 => 0..1000_usize, 1 => 0..9000_usize];
    let name = prop::collection::vec(any::<u8>(), 1..=255);
    let namespace = prop::sample::select(vec![0_u8, 2, 4, PARENT]);
    (namespace, name, size, any::<u8>()).prop_map(|(namespace, name, size, byte)| {
        let size = if namespace == PARENT { 12 } else { size };
        attribute(namespace, name, vec![byte; size])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn whatever_goes_in_comes_out(
        some in prop::collection::vec(any_attribute(), 1..300),
        block_log in prop::sample::select(vec![10, 12, 16]),
        space in 0..1000_usize,
        scattered in any::<bool>(),
    ) {
        let layout = if scattered { Layout::Scattered } else { Layout::Together };
        form(&geometry(block_log, 0), &some, space, layout);
    }
}
