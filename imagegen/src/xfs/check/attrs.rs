//! The attributes of an inode: order, hashes, space, remote values.

use super::hashes::{Loaded, walk};
use super::inodes::Scan;
use super::problem::{Kind, Problems};
use super::table::entry_key;
use crate::xfs::format::attr::{LeafEntry, LeafHeader, flags};
use crate::xfs::format::hash;
use crate::xfs::format::inode::format;
use crate::xfs::read::attr::{self, AttrBlock, Attribute, Leaf, Value};
use crate::xfs::read::{ForkMap, Inode, Place, Reader, Source, Which};

pub(super) fn check<S: Source>(
    reader: &Reader<S>,
    inode: &Inode,
    scan: &mut Scan<'_, S>,
    index: usize,
    problems: &mut Problems,
) {
    if inode.core.fork_offset == 0 {
        return;
    }
    let mut seen = Vec::new();
    if inode.form(Which::Attr) == format::LOCAL {
        let Some(list) = problems.ok(Kind::Attributes, attr::short(inode)) else {
            return;
        };
        for attribute in list {
            take(inode, &attribute, scan, index, &mut seen, problems);
        }
    } else {
        let map = ForkMap::load(reader, inode, Which::Attr);
        let Some(map) = problems.ok(Kind::Attributes, map) else {
            return;
        };
        if !map.extents().is_empty() {
            blocks(reader, inode, &map, scan, index, &mut seen, problems);
        }
    }
    seen.sort_unstable();
    let twice = seen.windows(2).any(|two| two[0] == two[1]);
    let text = || "attributes: a name twice".to_owned();
    problems.expect(!twice, Kind::Attributes, Place::Inode(inode.ino), text);
}

/// Hash under which `attribute` is found.
fn hash_of(attribute: &Attribute, folds: bool) -> u32 {
    match attribute.parent() {
        Some(parent) => hash::parent(&parent.name, parent.ino, folds),
        None => hash::name(&attribute.name),
    }
}

/// Notes a parent pointer, and what must not come twice.
fn take<S: Source>(
    inode: &Inode,
    attribute: &Attribute,
    scan: &mut Scan<'_, S>,
    index: usize,
    seen: &mut Vec<u64>,
    problems: &mut Problems,
) {
    let place = Place::Inode(inode.ino);
    let name = attribute.name.escape_ascii();
    let namespace = attribute.flags & flags::NAMESPACE;
    let parent = attribute.parent();
    let whose = parent.as_ref().map_or(0, |parent| parent.ino);
    seen.push(entry_key(whose, namespace.into(), &attribute.name, 0));
    if attribute.flags & flags::INCOMPLETE != 0 {
        let text = format!("attribute \"{name}\" was left half written");
        problems.add(Kind::Attributes, place, text);
    }
    if let Some(parent) = parent {
        let key = entry_key(parent.ino, parent.generation, &parent.name, inode.ino);
        scan.table.parent(index, key, false);
    }
}

fn blocks<S: Source>(
    reader: &Reader<S>,
    inode: &Inode,
    map: &ForkMap,
    scan: &mut Scan<'_, S>,
    index: usize,
    seen: &mut Vec<u64>,
    problems: &mut Problems,
) {
    let mut values = 0;
    let mut last_hash = 0;
    let load = |offset: u64, problems: &mut Problems| {
        let leaf = match problems.ok(Kind::Attributes, attr::block(reader, map, offset))? {
            AttrBlock::Node(node) => return Some(Loaded::Node(node)),
            AttrBlock::Leaf(leaf) => leaf,
        };
        check_leaf(reader, map.place(offset), &leaf, &mut last_hash, problems);
        for (attribute, _) in &leaf.attributes {
            take(inode, attribute, scan, index, seen, problems);
            if let Value::Remote { block, length } = attribute.value {
                let value = attr::remote(reader, map, block.into(), length);
                problems.ok(Kind::Attributes, value);
                let size = reader.geometry().block_size();
                values += Attribute::value_blocks(size, length);
            }
        }
        Some(Loaded::Leaf {
            info: leaf.header.info,
            last: leaf.entries.last().map(|entry| entry.hash.get()),
        })
    };
    if let Some(reached) = walk(map, 0, Kind::Attributes, problems, load) {
        let (found, all) = (reached.len() as u64 + values, map.blocks());
        let text = || format!("attributes: {all} blocks, but {found} are reached");
        problems.expect(
            found == all,
            Kind::Attributes,
            Place::Inode(inode.ino),
            text,
        );
    }
}

fn check_leaf<S: Source>(
    reader: &Reader<S>,
    place: Place,
    leaf: &Leaf,
    last_hash: &mut u32,
    problems: &mut Problems,
) {
    let mut rule = |holds: bool, text: &str| {
        let text = || format!("attribute leaf: {text}");
        problems.expect(holds, Kind::Attributes, place, text);
    };
    let mut spans = Vec::new();
    for (entry, (attribute, length)) in leaf.entries.iter().zip(&leaf.attributes) {
        let hash = entry.hash.get();
        rule(hash >= *last_hash, "hashes out of order");
        *last_hash = hash;
        let folds = reader.geometry().features.ascii_ci;
        rule(
            hash == hash_of(attribute, folds),
            "the hash of another name",
        );
        let at = usize::from(entry.name_at.get());
        spans.push((at, at + length));
    }
    spans.sort_unstable();
    let apart = spans.windows(2).all(|two| two[0].1 <= two[1].0);
    rule(apart, "attributes overlap");
    let used: usize = spans.iter().map(|(from, to)| to - from).sum();
    let header: &LeafHeader = &leaf.header;
    rule(
        usize::from(header.used.get()) == used,
        "usedbytes is another",
    );
    // 65536 does not fit its field and stands there as 0.
    let first = match header.first_used.get() {
        0 => reader.geometry().block_size(),
        first => first.into(),
    };
    let least = spans.first().map_or(first, |span| span.0);
    rule(first <= least, "firstused lies behind an attribute");
    let table = size_of::<LeafHeader>() + leaf.entries.len() * size_of::<LeafEntry>();
    rule(first >= table, "firstused lies in the entries");
}
