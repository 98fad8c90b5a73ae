//! Every directory: entries against inodes, leaves against entries, longest free spaces
//! against free spaces.

use super::hashes::{Loaded, walk};
use super::inodes::Scan;
use super::problem::{Kind, Problems};
use super::table::{entry_key, mark};
use crate::xfs::format::dir::{LeafEntry, NULL_OFFSET, file_type};
use crate::xfs::format::hash;
use crate::xfs::format::inode::{format, kind};
use crate::xfs::read::dir::block::{DataBlock, Item};
use crate::xfs::read::dir::leaf::{self, HashBlock};
use crate::xfs::read::dir::{Entry, ShortDir, data_offsets, entry_at};
use crate::xfs::read::{ForkMap, Inode, Place, Reader, Source, Which};
use rustc_hash::FxHashSet;

pub(super) fn check<S: Source>(
    reader: &Reader<S>,
    scan: &mut Scan<'_, S>,
    problems: &mut Problems,
) {
    for at in 0..scan.directories.len() {
        let ino = scan.directories[at].ino;
        let Some(inode) = problems.ok(Kind::Inode, reader.inode(ino)) else {
            continue;
        };
        let known = check_one(reader, &inode, at, scan, problems);
        scan.entries_known &= known.is_some();
    }
}

/// Hash and address of each entry.
type Index = Vec<(u32, u32)>;

/// Data blocks: number of the directory block, and its longest free space.
type Bests = Vec<(u64, u16)>;

fn check_one<S: Source>(
    reader: &Reader<S>,
    inode: &Inode,
    at: usize,
    scan: &mut Scan<'_, S>,
    problems: &mut Problems,
) -> Option<()> {
    if inode.form(Which::Data) == format::LOCAL {
        let short = ShortDir::parse(reader.geometry(), inode);
        let short = problems.ok(Kind::Directory, short)?;
        check_short(inode, &short, problems);
        for entry in short.entries(inode.ino) {
            take_entry(inode, &entry, at, scan, problems);
        }
        return Some(());
    }
    let map = problems.ok(Kind::Directory, ForkMap::load(reader, inode, Which::Data))?;
    let mut found = Found::default();
    for offset in data_offsets(reader.geometry(), &map) {
        let block = DataBlock::read(reader, &map, offset);
        match problems.ok(Kind::Directory, block) {
            Some(block) => found.take(reader, inode, &map, offset, block, at, scan, problems),
            None => found.damaged = true,
        }
    }
    found.check_size(reader, inode, &map, problems);
    if found.damaged {
        return None;
    }
    found.index.sort_unstable();
    check_names(reader, &map, &found.index, problems);
    check_index(reader, &map, found, problems)
}

fn check_short(inode: &Inode, short: &ShortDir, problems: &mut Problems) {
    let place = Place::Inode(inode.ino);
    let numbers = short
        .children
        .iter()
        .map(|entry| entry.ino)
        .chain([short.parent]);
    let big = numbers.filter(|ino| *ino > u32::MAX.into()).count();
    let text = || {
        format!(
            "short directory: {} large numbers, but {big} are",
            short.big
        )
    };
    problems.expect(usize::from(short.big) == big, Kind::Directory, place, text);
    let mut names: Vec<_> = short.children.iter().map(|entry| &entry.name).collect();
    names.sort_unstable();
    if let Some(two) = names.windows(2).find(|two| two[0] == two[1]) {
        let text = format!("directory: \"{}\" twice", two[0].escape_ascii());
        problems.add(Kind::Directory, place, text);
    }
}

/// What an entry says, against the inode it names.
fn take_entry<S: Source>(
    directory: &Inode,
    entry: &Entry,
    at: usize,
    scan: &mut Scan<'_, S>,
    problems: &mut Problems,
) {
    let place = Place::Inode(directory.ino);
    let mut bad = |text: String| {
        let name = entry.name.escape_ascii();
        problems.add(Kind::Directory, place, format!("entry \"{name}\": {text}"));
    };
    let index = scan.index(entry.ino);
    let marks = scan.marks(entry.ino);
    let Some(index) = index.filter(|_| marks & mark::KIND != 0) else {
        return bad(format!("inode {} is free", entry.ino));
    };
    if marks & mark::KIND != mark::DAMAGED && marks & mark::KIND != kind_of(entry.file_type) {
        bad(format!("another kind of file than inode {}", entry.ino));
    }
    if marks & mark::OWN != 0 {
        bad(format!("inode {} belongs to the file system", entry.ino));
    }
    scan.table.links[index] = scan.table.links[index].wrapping_sub(1);
    match entry.name.as_slice() {
        b"." if entry.ino != directory.ino => bad(format!("inode {}", entry.ino)),
        b"." => {}
        b".." => scan.directories[at].dotdot = entry.ino,
        name => {
            scan.table.marks[index] |= mark::NAMED;
            let key = entry_key(directory.ino, directory.generation(), name, entry.ino);
            scan.table.parent(index, key, true);
            let child = scan
                .directories
                .binary_search_by_key(&entry.ino, |child| child.ino);
            if let Ok(child) = child {
                let child = &mut scan.directories[child];
                if child.parent != 0 {
                    bad(format!("directory {} has another entry", entry.ino));
                }
                child.parent = directory.ino;
            }
        }
    }
}

/// `mode >> 12` of a kind of file in entries.
fn kind_of(file_type: u8) -> u8 {
    let kind = match file_type {
        file_type::REGULAR => kind::REGULAR,
        file_type::DIRECTORY => kind::DIRECTORY,
        file_type::CHARACTER => kind::CHARACTER,
        file_type::BLOCK => kind::BLOCK,
        file_type::FIFO => kind::FIFO,
        file_type::SOCKET => kind::SOCKET,
        _ => kind::SYMLINK,
    };
    (kind >> 12) as u8
}

/// What the data blocks of a directory hold.
#[derive(Default)]
struct Found {
    index: Index,
    bests: Bests,
    /// The leaf in the only block.
    leaf: Option<(Vec<LeafEntry>, u32)>,
    damaged: bool,
}

impl Found {
    #[allow(clippy::too_many_arguments)] // one block and all it is compared with
    fn take<S: Source>(
        &mut self,
        reader: &Reader<S>,
        inode: &Inode,
        map: &ForkMap,
        offset: u64,
        block: DataBlock,
        at: usize,
        scan: &mut Scan<'_, S>,
        problems: &mut Problems,
    ) {
        let place = map.place(offset);
        let longest = check_bests(place, &block, problems);
        let number = offset / reader.geometry().dir_block_blocks();
        self.bests.push((number, longest));
        if let Some((leaf, tail)) = &block.leaf {
            self.leaf = Some((leaf.clone(), tail.stale.get()));
        }
        let entries = block.entries();
        if offset == 0 {
            let names: Vec<&[u8]> = entries.iter().map(|e| e.name.as_slice()).take(2).collect();
            let first = names == [&b"."[..], &b".."[..]];
            let text = || "directory: \".\" and \"..\" do not come first".to_owned();
            problems.expect(first, Kind::Directory, place, text);
        }
        let fold = reader.geometry().features.ascii_ci;
        for (position, entry) in entries.iter().enumerate() {
            self.index
                .push((hash::entry(&entry.name, fold), entry.address));
            let dots = entry.name == b"." || entry.name == b"..";
            let text = || "directory: \".\" or \"..\" in the middle".to_owned();
            let right = !dots || (offset == 0 && position < 2);
            problems.expect(right, Kind::Directory, place, text);
            take_entry(inode, entry, at, scan, problems);
        }
    }

    fn check_size<S: Source>(
        &self,
        reader: &Reader<S>,
        inode: &Inode,
        map: &ForkMap,
        problems: &mut Problems,
    ) {
        let geometry = reader.geometry();
        let last = data_offsets(geometry, map).last().copied();
        let blocks = last.map_or(0, |last| last + geometry.dir_block_blocks());
        let (said, found) = (inode.core.size.get(), blocks << geometry.block_log);
        let text = || format!("directory: size is {said}, but its blocks hold {found}");
        problems.expect(
            said == found,
            Kind::Directory,
            Place::Inode(inode.ino),
            text,
        );
    }
}

/// The three longest free spaces of a block; returns the longest.
fn check_bests(place: Place, block: &DataBlock, problems: &mut Problems) -> u16 {
    let spaces = block.items.iter().filter_map(|item| match item {
        Item::Unused(at, length) => Some((*at, *length)),
        Item::Entry(_) => None,
    });
    let spaces: Vec<(usize, usize)> = spaces.collect();
    let mut lengths: Vec<usize> = spaces.iter().map(|(_, length)| *length).collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    lengths.resize(3, 0);
    let said = block.header.best_free;
    let right = said.iter().zip(&lengths).all(|(best, length)| {
        let pair = (
            usize::from(best.offset.get()),
            usize::from(best.length.get()),
        );
        pair.1 == *length && (pair == (0, 0) || spaces.contains(&pair))
    });
    let text = || "directory block: its longest free spaces are others".to_owned();
    problems.expect(right, Kind::Directory, place, text);
    said[0].length.get()
}

/// No name twice: entries of equal hash are looked at again.
fn check_names<S: Source>(
    reader: &Reader<S>,
    map: &ForkMap,
    index: &Index,
    problems: &mut Problems,
) {
    for same in index
        .chunk_by(|a, b| a.0 == b.0)
        .filter(|same| same.len() > 1)
    {
        let mut names = FxHashSet::default();
        for (_, address) in same {
            let Ok(Some(entry)) = entry_at(reader, map, *address) else {
                continue;
            };
            let name = entry.name.escape_ascii().to_string();
            if !names.insert(entry.name) {
                let text = format!("directory: \"{name}\" twice");
                problems.add(Kind::Directory, Place::Inode(map.ino), text);
            }
        }
    }
}

/// The index of a directory against its entries.
fn check_index<S: Source>(
    reader: &Reader<S>,
    map: &ForkMap,
    found: Found,
    problems: &mut Problems,
) -> Option<()> {
    let place = Place::Inode(map.ino);
    let root = leaf::leaf_offset(reader);
    let mut pairs = Pairs::default();
    match (&found.leaf, map.find(root)) {
        (Some((entries, stale)), None) => {
            pairs.take(map.place(0), entries, *stale, problems);
            let only = map.blocks() == reader.geometry().dir_block_blocks();
            let text = || "directory: blocks beside the only one".to_owned();
            problems.expect(only, Kind::DirectoryIndex, place, text);
        }
        (None, Some(_)) => check_leaves(reader, map, &found, &mut pairs, problems)?,
        (Some(_), Some(_)) => {
            problems.add(
                Kind::DirectoryIndex,
                place,
                "directory: two kinds of leaves",
            );
        }
        (None, None) => problems.add(Kind::DirectoryIndex, place, "directory: no leaf"),
    }
    pairs.list.sort_unstable();
    if pairs.list != found.index {
        let text = format!(
            "directory: {} leaf entries and {} entries do not name each other",
            pairs.list.len(),
            found.index.len()
        );
        problems.add(Kind::DirectoryIndex, place, text);
    }
    Some(())
}

/// Leaf entries that are not stale, from left to right.
#[derive(Default)]
struct Pairs {
    list: Index,
    last: u32,
}

impl Pairs {
    fn take(&mut self, place: Place, entries: &[LeafEntry], stale: u32, problems: &mut Problems) {
        let mut rule = |holds, text: &str| {
            let text = || format!("directory leaf: {text}");
            problems.expect(holds, Kind::DirectoryIndex, place, text);
        };
        let mut found = 0;
        for entry in entries {
            let (hash, address) = (entry.hash.get(), entry.address.get());
            rule(hash >= self.last, "hashes out of order");
            self.last = hash;
            if address == leaf::STALE {
                found += 1;
            } else {
                self.list.push((hash, address));
            }
        }
        rule(found == stale, "another number of stale entries");
    }
}

fn check_leaves<S: Source>(
    reader: &Reader<S>,
    map: &ForkMap,
    found: &Found,
    pairs: &mut Pairs,
    problems: &mut Problems,
) -> Option<()> {
    let mut only = None;
    let root = leaf::leaf_offset(reader);
    let load = |offset: u64, problems: &mut Problems| {
        let block = leaf::read(reader, map, offset);
        let leaf = match problems.ok(Kind::DirectoryIndex, block)? {
            HashBlock::Node(node) => return Some(Loaded::Node(node)),
            HashBlock::Leaf(leaf) => leaf,
        };
        pairs.take(
            map.place(offset),
            &leaf.entries,
            leaf.stale.into(),
            problems,
        );
        if leaf.bests.is_some() {
            only = leaf.bests;
        }
        Some(Loaded::Leaf {
            info: leaf.info,
            last: leaf.entries.last().map(|entry| entry.hash.get()),
        })
    };
    let reached = walk(map, root, Kind::DirectoryIndex, problems, load)?;
    let place = Place::Inode(map.ino);
    let step = reader.geometry().dir_block_blocks();
    let between = |from: u64, to: u64| {
        let extents = map.extents().iter();
        let parts = extents.map(|extent| {
            let end = (extent.offset + extent.count).min(to);
            end.saturating_sub(extent.offset.max(from))
        });
        parts.sum::<u64>()
    };
    let free_at = leaf::free_offset(reader);
    let (said, mapped) = (reached.len() as u64 * step, between(root, free_at));
    let text = || format!("directory: {mapped} blocks of leaves, but {said} are reached");
    problems.expect(said == mapped, Kind::DirectoryIndex, place, text);
    let mut bests = vec![NULL_OFFSET; found.bests.last().map_or(0, |(n, _)| *n as usize + 1)];
    for (number, longest) in &found.bests {
        if let Some(best) = bests.get_mut(*number as usize) {
            *best = *longest;
        }
    }
    if let Some(said) = only {
        let text = || "directory leaf: longest free spaces are not those of the blocks".to_owned();
        problems.expect(said == bests, Kind::DirectoryIndex, place, text);
        let none = between(free_at, u64::MAX) == 0;
        let text = || "directory: free blocks beside an only leaf".to_owned();
        problems.expect(none, Kind::DirectoryIndex, place, text);
    } else {
        check_free(reader, map, &bests, between(free_at, u64::MAX), problems);
    }
    Some(())
}

/// The blocks of longest free spaces against these.
fn check_free<S: Source>(
    reader: &Reader<S>,
    map: &ForkMap,
    bests: &[u16],
    mapped: u64,
    problems: &mut Problems,
) {
    let geometry = reader.geometry();
    let step = geometry.dir_block_blocks();
    let most = (geometry.dir_block_size() - 64) / 2;
    let begin = leaf::free_offset(reader);
    let mut rest = mapped;
    for (number, part) in bests.chunks(most).enumerate() {
        let offset = begin + number as u64 * step;
        let place = map.place(offset);
        let all_holes = part.iter().all(|best| *best == NULL_OFFSET);
        if map.find(offset).is_none() && all_holes {
            continue;
        }
        rest = rest.saturating_sub(step);
        let block = leaf::read_free(reader, map, offset);
        let Some((header, values)) = problems.ok(Kind::DirectoryIndex, block) else {
            continue;
        };
        let mut rule = |holds, text: &str| {
            let text = || format!("directory free block: {text}");
            problems.expect(holds, Kind::DirectoryIndex, place, text);
        };
        rule(
            header.first.get() as usize == number * most,
            "it begins at another block",
        );
        let used = values.iter().filter(|value| **value != NULL_OFFSET).count();
        rule(
            header.used.get() as usize == used,
            "another number of values in use",
        );
        let (known, beyond) = values.split_at(values.len().min(part.len()));
        let right = known == part.get(..known.len()).unwrap_or_default()
            && part
                .iter()
                .skip(known.len())
                .chain(beyond)
                .all(|best| *best == NULL_OFFSET);
        rule(right, "longest free spaces are not those of the blocks");
    }
    let text = || "directory: free blocks without data blocks".to_owned();
    problems.expect(rest == 0, Kind::DirectoryIndex, Place::Inode(map.ino), text);
}
