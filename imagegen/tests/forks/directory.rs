//! Directories: the form that is chosen at every boundary, and all that is in them.

use crate::naive::{self, Entry, Form};
use crate::placed::{Layout, Placed, geometry};
use imagegen::xfs::geometry::Geometry;
use imagegen::xfs::write::ForkError;
use imagegen::xfs::write::directory::{Directory, DirectoryFork};
use proptest::prelude::*;

const INO: u64 = 131;
const PARENT: u64 = 128;
const SPACE: usize = 336;

fn entry(name: impl Into<Vec<u8>>, ino: u64) -> Entry {
    Entry {
        name: name.into(),
        ino,
        kind: 1,
    }
}

/// `count` entries whose names have 8 bytes.
fn entries(count: usize) -> Vec<Entry> {
    let name = |number| entry(format!("{number:08}"), 1000 + number as u64);
    (0..count).map(name).collect()
}

fn finish<'a>(geometry: &'a Geometry, entries: &[Entry], space: usize) -> DirectoryFork<'a> {
    let mut directory = Directory::new(geometry, INO, PARENT);
    for entry in entries {
        directory.push(&entry.name, entry.ino, entry.kind).unwrap();
    }
    directory.finish(space).unwrap()
}

/// Encodes and decodes; fails unless the entries are the same. None for short form.
fn form(geometry: &Geometry, entries: &[Entry], layout: Layout) -> Option<Form> {
    let fork = finish(geometry, entries, SPACE);
    let ranges = fork.ranges();
    if let Some(bytes) = fork.short_form() {
        assert!(bytes.len() <= SPACE && ranges.is_empty());
        assert_eq!(fork.size(), bytes.len() as u64);
        assert_eq!(naive::short(bytes), (PARENT, entries.to_vec()));
        return None;
    }
    let placed = Placed::gather(geometry, INO, &ranges, layout, |place, sink| {
        fork.encode(place, sink);
    });
    let folded = geometry.features.ascii_ci;
    let (form, found) = naive::directory(&placed, fork.size(), folded);
    let dots = [(".", INO), ("..", PARENT)].map(|(name, ino)| Entry {
        name: name.into(),
        ino,
        kind: 2,
    });
    assert_eq!(found[..2], dots);
    assert_eq!(&found[2..], entries);
    Some(form)
}

fn together(geometry: &Geometry, count: usize) -> Option<Form> {
    form(geometry, &entries(count), Layout::Together)
}

/// Fails unless `last` entries give one form and one more the other.
fn boundary(geometry: &Geometry, last: usize, before: Option<Form>, after: Option<Form>) {
    assert_eq!(together(geometry, last), before, "{last} entries");
    assert_eq!(together(geometry, last + 1), after, "one more than {last}");
}

#[test]
fn an_empty_directory_is_its_parents_number() {
    let geometry = geometry(12, 0);
    assert_eq!(
        finish(&geometry, &[], SPACE).short_form().unwrap(),
        [0, 0, 0, 0, 0, 128]
    );
    let high = Directory::new(&geometry, INO, 1 << 32)
        .finish(SPACE)
        .unwrap();
    assert_eq!(high.short_form().unwrap(), [0, 1, 0, 0, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn the_last_short_form_is_followed_by_a_block() {
    // 6 bytes of header; 16 bytes an entry: 20 entries take 326, 21 would take 342.
    boundary(&geometry(12, 0), 20, None, Some(Form::Block));
}

#[test]
fn one_large_number_makes_all_large() {
    let geometry = geometry(12, 0);
    let mut some = entries(16);
    some[7].ino = 0x1_0000_0000;
    let fork = finish(&geometry, &some, SPACE);
    assert_eq!(fork.short_form().unwrap().len(), 10 + 16 * 20);
    form(&geometry, &some, Layout::Together);
    some[8].ino = 0xffff_ffff;
    assert_eq!(finish(&geometry, &some, SPACE).short_form().unwrap()[1], 1);
    some.push(entry("one more", 0));
    assert_eq!(form(&geometry, &some, Layout::Together), Some(Form::Block));
}

#[test]
fn what_a_small_block_cannot_hold_is_no_short_form() {
    let geometry = geometry(10, 0);
    let name = |number: usize| entry(vec![b'0' + number as u8], 9);
    // In short form 9 bytes each; in a block of 1024 bytes 24 with the leaf's entry.
    let some: Vec<_> = (0..38).map(name).collect();
    let fork = finish(&geometry, &some[..37], 400);
    assert!(fork.short_form().is_some());
    let fork = finish(&geometry, &some, 400);
    assert!(fork.short_form().is_none());
    assert_eq!(fork.size(), 1024);
}

#[test]
fn the_last_block_is_followed_by_a_leaf() {
    // Header 64, dots 32, tail 8 and 16 for their leaf entries; 24 + 8 an entry.
    boundary(&geometry(12, 0), 124, Some(Form::Block), Some(Form::Leaf));
    let large = (65536 - 120) / 32;
    boundary(&geometry(12, 4), large, Some(Form::Block), Some(Form::Leaf));
    boundary(&geometry(16, 0), large, Some(Form::Block), Some(Form::Leaf));
}

#[test]
fn the_last_leaf_is_followed_by_nodes() {
    // 64 + 8 * 502 + 2 * 3 data blocks + 4 = 4090; with 503 entries 4098.
    boundary(&geometry(12, 0), 500, Some(Form::Leaf), Some(Form::Node(0)));
    boundary(
        &geometry(12, 0),
        502,
        Some(Form::Node(0)),
        Some(Form::Node(1)),
    );
}

#[test]
fn a_second_level_comes_when_a_node_is_full() {
    // 120 entries a leaf, 120 leaves a node; `.` and `..` count.
    let small = geometry(10, 0);
    boundary(&small, 14_398, Some(Form::Node(1)), Some(Form::Node(2)));
    assert_eq!(together(&small, 30_000), Some(Form::Node(2)));
}

#[test]
fn a_second_block_of_free_spaces_comes_when_the_first_is_full() {
    // 480 data blocks of 1024 bytes: the first holds 38 entries, the others 40.
    let small = geometry(10, 0);
    let last = 38 + 479 * 40;
    for (count, free) in [(last, 1), (last + 1, 2)] {
        assert_eq!(together(&small, count), Some(Form::Node(2)));
        let ranges = finish(&small, &entries(count), SPACE).ranges();
        assert_eq!(ranges[2], (1 << 26, free));
    }
}

#[test]
fn directory_blocks_of_several_blocks_may_be_scattered() {
    for (block_log, dir_block_log) in [(10, 2), (12, 0), (12, 2), (12, 4), (10, 6)] {
        let geometry = geometry(block_log, dir_block_log);
        for count in [30, 3000, 40_000] {
            for layout in [Layout::Together, Layout::Scattered] {
                form(&geometry, &entries(count), layout);
            }
        }
    }
}

#[test]
fn what_lies_together_is_handed_out_in_one_piece() {
    let geometry = geometry(12, 3);
    let fork = finish(&geometry, &entries(3000), SPACE);
    let writes = |layout| {
        let ranges = fork.ranges();
        Placed::gather(&geometry, INO, &ranges, layout, |place, sink| {
            fork.encode(place, sink);
        })
        .writes
    };
    assert_eq!(writes(Layout::Together) * 8, writes(Layout::Scattered));
}

/// Names of one hash: what the first byte of a pair changes, the second undoes.
pub(crate) fn colliding(count: usize) -> Vec<Vec<u8>> {
    let pair = |number: usize, bit: usize| match number >> bit & 1 {
        0 => *b"ab",
        _ => *b"`\xe2",
    };
    let name = |number| (0..14).flat_map(|bit| pair(number, bit)).collect();
    (0..count).map(name).collect()
}

#[test]
fn names_of_one_hash_span_leaves() {
    let geometry = geometry(10, 0);
    let some = colliding(1000).into_iter();
    let mut some: Vec<_> = some.map(|name| entry(name, 5)).collect();
    let same = naive::hash(&some[0].name);
    assert!(some.iter().all(|entry| naive::hash(&entry.name) == same));
    some.extend(entries(1000));
    assert_eq!(
        form(&geometry, &some, Layout::Together),
        Some(Form::Node(1))
    );
}

#[test]
fn without_case_names_hash_in_lower_case() {
    let mut geometry = geometry(12, 0);
    geometry.features.ascii_ci = true;
    let upper = |number| entry(format!("NAME{number}\u{c4}"), 7);
    let some: Vec<_> = (0..200).map(upper).collect();
    assert_eq!(form(&geometry, &some, Layout::Together), Some(Form::Leaf));
}

#[test]
fn the_same_name_twice_is_refused() {
    let mut geometry = geometry(12, 0);
    let finish = |geometry: &Geometry, names: &[&[u8]]| {
        let mut directory = Directory::new(geometry, INO, PARENT);
        for name in names {
            directory.push(name, 5, 1).unwrap();
        }
        directory.finish(SPACE).map(|_| ())
    };
    let repeated = |name: &str| Err(ForkError::Repeated { name: name.into() });
    assert_eq!(
        finish(&geometry, &[b"a", b"b\xff", b"b\xff"]),
        repeated("b\\xff")
    );
    assert_eq!(finish(&geometry, &[b".."]), repeated(".."));
    assert_eq!(finish(&geometry, &[b"Name", b"nAME"]), Ok(()));
    let (left, right) = (b"xab".as_slice(), b"x`\xe2".as_slice());
    assert_eq!(naive::hash(left), naive::hash(right));
    assert_eq!(finish(&geometry, &[left, right]), Ok(()));
    geometry.features.ascii_ci = true;
    assert_eq!(finish(&geometry, &[b"Name", b"nAME"]), repeated("name"));
}

#[test]
fn names_have_1_to_255_bytes() {
    let geometry = geometry(12, 0);
    let mut directory = Directory::new(&geometry, INO, PARENT);
    let refused = |bytes| Err(ForkError::NameLength { bytes });
    assert_eq!(directory.push(b"", 5, 1), refused(0));
    assert_eq!(directory.push(&[b'x'; 256], 5, 1), refused(256));
    assert_eq!(directory.push(&[b'x'; 255], 5, 1), Ok(()));
    assert_eq!(directory.short_size(), 6 + 255 + 8);
}

#[test]
fn a_million_entries_are_read_back() {
    let geometry = geometry(12, 0);
    assert_eq!(together(&geometry, 1_000_000), Some(Form::Node(2)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn whatever_goes_in_comes_out(
        names in prop::collection::btree_set(prop::collection::vec(1_u8..=255, 1..=255), 0..600),
        logs in prop::sample::select(vec![(10, 0), (10, 2), (12, 0), (12, 1), (16, 0)]),
        large in any::<bool>(),
        scattered in any::<bool>(),
    ) {
        let geometry = geometry(logs.0, logs.1);
        let some: Vec<_> = names
            .into_iter()
            .filter(|name| !matches!(&name[..], b"." | b".."))
            .enumerate()
            .map(|(number, name)| {
                let high = u64::from(large && number % 3 == 0) << 40;
                entry(name, high + number as u64)
            })
            .collect();
        let layout = if scattered { Layout::Scattered } else { Layout::Together };
        form(&geometry, &some, layout);
    }
}
