//! A decoder of directories and attribute forks that shares nothing with the encoder but
//! the checksum: it reads bytes at the places the format names, and fails on anything
//! the kernel's verifiers or xfs_repair would not have.

use crate::placed::Placed;
use imagegen::xfs::format::checksum;

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(crate) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The hash, one byte after the other.
pub(crate) fn hash(name: &[u8]) -> u32 {
    name.iter()
        .fold(0, |hash: u32, byte| u32::from(*byte) ^ hash.rotate_left(7))
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) ino: u64,
    pub(crate) kind: u8,
}

/// Where an entry lies.
struct Found {
    address: u32,
    entry: Entry,
}

/// What a data block holds.
struct Block {
    entries: Vec<Found>,
    longest: u16,
    end: usize,
}

/// The entries of a short form, without `.` and `..`; `parent` first.
pub(crate) fn short(bytes: &[u8]) -> (u64, Vec<Entry>) {
    let (count, big) = (bytes[0], bytes[1]);
    let width = if big > 0 { 8 } else { 4 };
    let number = |at: usize| match width {
        8 => be64(bytes, at),
        _ => be32(bytes, at).into(),
    };
    let mut at = 2 + width;
    let mut least = 64 + 16 + 16;
    let mut entries = Vec::new();
    for _ in 0..count {
        let length = usize::from(bytes[at]);
        assert!(length > 0);
        let offset = be16(bytes, at + 1);
        assert_eq!(offset, least, "nothing was removed, so no gaps");
        least += (12 + length).next_multiple_of(8) as u16;
        let name = bytes[at + 3..at + 3 + length].to_vec();
        entries.push(Entry {
            name,
            kind: bytes[at + 3 + length],
            ino: number(at + 4 + length),
        });
        at += 4 + length + width;
    }
    assert_eq!(at, bytes.len());
    let parent = number(2);
    let numbers = entries.iter().map(|entry| entry.ino).chain([parent]);
    let really_big = numbers.filter(|ino| *ino > 0xffff_ffff).count();
    assert_eq!(really_big, usize::from(big));
    (parent, entries)
}

fn block_header(placed: &Placed, bytes: &[u8], offset: u64) {
    assert!(checksum::holds(bytes, 4));
    assert_eq!(be64(bytes, 8), placed.daddr(offset));
    assert_eq!(be64(bytes, 16), 0);
    assert_eq!(bytes[24..40], *placed.geometry.uuid.as_bytes());
    assert_eq!(be64(bytes, 40), placed.owner);
}

/// A data block from its header to `end`.
fn data(bytes: &[u8], first: u64, end: usize) -> Block {
    let mut at = 64;
    let mut free = Vec::new();
    let mut entries = Vec::new();
    while at < end {
        if be16(bytes, at) == 0xffff {
            let length = usize::from(be16(bytes, at + 2));
            assert!(length > 0 && length % 8 == 0);
            assert_eq!(usize::from(be16(bytes, at + length - 2)), at);
            free.push((length as u16, at as u16));
            at += length;
            continue;
        }
        let length = usize::from(bytes[at + 8]);
        assert!(length > 0);
        let size = (12 + length).next_multiple_of(8);
        assert_eq!(usize::from(be16(bytes, at + size - 2)), at);
        let entry = Entry {
            name: bytes[at + 9..at + 9 + length].to_vec(),
            ino: be64(bytes, at),
            kind: bytes[at + 9 + length],
        };
        let address = u32::try_from((first + at as u64) / 8).unwrap();
        entries.push(Found { address, entry });
        at += size;
    }
    assert_eq!(at, end);
    free.sort_unstable_by(|a, b| b.cmp(a));
    free.resize(3, (0, 0));
    for (slot, (length, offset)) in free.iter().enumerate() {
        assert_eq!(be16(bytes, 48 + slot * 4), *offset);
        assert_eq!(be16(bytes, 50 + slot * 4), *length);
    }
    Block {
        entries,
        longest: free[0].0,
        end: at,
    }
}

/// Which form a directory with blocks has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Block,
    Leaf,
    /// With how many levels of nodes; 0 if its only leaf is the root.
    Node(u16),
}

/// Form and entries, with `.` and `..`, of a directory with blocks, whose size is
/// `size` bytes.
pub(crate) fn directory(placed: &Placed, size: u64, folded: bool) -> (Form, Vec<Entry>) {
    let geometry = &placed.geometry;
    let (bytes, unit) = (geometry.dir_block_size(), geometry.dir_block_blocks());
    assert_eq!(size % bytes as u64, 0);
    let blocks = size / bytes as u64;
    let mut rest = placed.blocks.len() as u64 - blocks * unit;
    let mut found = Vec::new();
    let mut longest = Vec::new();
    let leaf_base = (32 << 30) >> geometry.block_log;
    let free_base = (64 << 30) >> geometry.block_log;
    let mut index = Vec::new();
    let mut form = Form::Leaf;
    for block in 0..blocks {
        let bytes = &placed.bytes(block * unit, unit);
        block_header(placed, bytes, block * unit);
        let only = be32(bytes, 0) == 0x5844_4233;
        assert!(only || be32(bytes, 0) == 0x5844_4433);
        let mut end = bytes.len();
        if only {
            assert_eq!(blocks, 1);
            form = Form::Block;
            let count = be32(bytes, end - 8) as usize;
            assert_eq!(be32(bytes, end - 4), 0);
            end -= 8 + count * 8;
            index = pairs(&bytes[end..], count);
        }
        let block = data(bytes, block * bytes.len() as u64, end);
        assert_eq!(block.end, end);
        found.extend(block.entries);
        longest.push(block.longest);
    }
    if form != Form::Block {
        let magic = be16(&placed.bytes(leaf_base, unit), 8);
        rest -= unit;
        if magic == 0x3df1 {
            index = only_leaf(placed, leaf_base, &longest);
        } else {
            let mut tree = Tree::new(placed, leaf_base, unit, 0x3dff);
            let level = tree.walk();
            rest -= (tree.visited as u64 - 1) * unit;
            for leaf in &tree.leaves {
                let bytes = &placed.bytes(*leaf, unit);
                let count = usize::from(be16(bytes, 56));
                assert_eq!(be16(bytes, 58), 0);
                index.extend(pairs(&bytes[64..], count));
            }
            rest -= free_blocks(placed, free_base, &longest);
            form = Form::Node(level);
        }
    }
    assert_eq!(rest, 0, "blocks that belong to nothing");
    check_index(&index, &found, folded);
    (form, found.into_iter().map(|found| found.entry).collect())
}

fn pairs(bytes: &[u8], count: usize) -> Vec<(u32, u32)> {
    let pair = |number| (be32(bytes, number * 8), be32(bytes, number * 8 + 4));
    (0..count).map(pair).collect()
}

/// Lower case of ASCII and of Latin-1, one byte at a time.
fn small(byte: u8) -> u8 {
    let upper = byte.is_ascii_uppercase() || (0xc0..=0xde).contains(&byte) && byte != 0xd7;
    byte + 32 * u8::from(upper)
}

fn check_index(index: &[(u32, u32)], found: &[Found], folded: bool) {
    let mut expected: Vec<(u32, u32)> = found
        .iter()
        .map(|found| {
            let name = &found.entry.name;
            let lower: Vec<u8> = name.iter().map(|byte| small(*byte)).collect();
            (hash(if folded { &lower } else { name }), found.address)
        })
        .collect();
    expected.sort_unstable();
    assert_eq!(index, expected);
}

fn only_leaf(placed: &Placed, offset: u64, longest: &[u16]) -> Vec<(u32, u32)> {
    let bytes = &placed.bytes(offset, placed.geometry.dir_block_blocks());
    node_info(placed, bytes, offset);
    assert_eq!((be32(bytes, 0), be32(bytes, 4)), (0, 0));
    let count = usize::from(be16(bytes, 56));
    assert_eq!(be16(bytes, 58), 0);
    let blocks = be32(bytes, bytes.len() - 4) as usize;
    assert_eq!(blocks, longest.len());
    let at = bytes.len() - 4 - 2 * blocks;
    assert!(64 + count * 8 <= at);
    for (number, length) in longest.iter().enumerate() {
        assert_eq!(be16(bytes, at + 2 * number), *length);
    }
    pairs(&bytes[64..], count)
}

fn free_blocks(placed: &Placed, base: u64, longest: &[u16]) -> u64 {
    let unit = placed.geometry.dir_block_blocks();
    let most = (placed.geometry.dir_block_size() - 64) / 2;
    let mut offset = base;
    for (number, lengths) in longest.chunks(most).enumerate() {
        let bytes = &placed.bytes(offset, unit);
        block_header(placed, bytes, offset);
        assert_eq!(be32(bytes, 0), 0x5844_4633);
        assert_eq!(be32(bytes, 48) as usize, number * most);
        assert_eq!(be32(bytes, 52) as usize, lengths.len());
        assert_eq!(be32(bytes, 56) as usize, lengths.len());
        for (number, length) in lengths.iter().enumerate() {
            assert_eq!(be16(bytes, 64 + number * 2), *length);
        }
        offset += unit;
    }
    offset - base
}

pub(crate) fn node_info(placed: &Placed, bytes: &[u8], offset: u64) {
    assert!(checksum::holds(bytes, 12));
    assert_eq!(be64(bytes, 16), placed.daddr(offset));
    assert_eq!(be64(bytes, 24), 0);
    assert_eq!(bytes[32..48], *placed.geometry.uuid.as_bytes());
    assert_eq!(be64(bytes, 48), placed.owner);
}

/// A walk over a tree of nodes above leaves.
pub(crate) struct Tree<'a> {
    placed: &'a Placed,
    base: u64,
    unit: u64,
    leaf_magic: u16,
    /// By level: what was seen last, as offset and forward link.
    last: Vec<Option<(u64, u64)>>,
    /// Offsets of all leaves, in order.
    pub(crate) leaves: Vec<u64>,
    /// Blocks seen.
    pub(crate) visited: usize,
}

impl<'a> Tree<'a> {
    pub(crate) fn new(placed: &'a Placed, base: u64, unit: u64, leaf_magic: u16) -> Self {
        Self {
            placed,
            base,
            unit,
            leaf_magic,
            last: vec![None; 6],
            leaves: Vec::new(),
            visited: 0,
        }
    }

    /// Walks from the root; returns its level.
    pub(crate) fn walk(&mut self) -> u16 {
        let bytes = self.placed.bytes(self.base, self.unit);
        let is_leaf = be16(&bytes, 8) == self.leaf_magic;
        let level = if is_leaf { 0 } else { be16(&bytes, 58) };
        self.visit(self.base, level);
        for last in self.last.iter().flatten() {
            assert_eq!(last.1, 0, "the last of a level has a right neighbour");
        }
        level
    }

    /// Checks a block and all below; returns its highest hash.
    fn visit(&mut self, offset: u64, level: u16) -> u32 {
        self.visited += 1;
        let bytes = &self.placed.bytes(offset, self.unit);
        node_info(self.placed, bytes, offset);
        let (forward, back) = (be32(bytes, 0).into(), u64::from(be32(bytes, 4)));
        match self.last[usize::from(level)].replace((offset, forward)) {
            Some((left, its_forward)) => assert_eq!((left, offset), (back, its_forward)),
            None => assert_eq!(back, 0),
        }
        let count = usize::from(be16(bytes, 56));
        assert!(count > 0);
        if level == 0 {
            assert_eq!(be16(bytes, 8), self.leaf_magic);
            self.leaves.push(offset);
            let header = if self.leaf_magic == 0x3bee { 80 } else { 64 };
            return be32(bytes, header + (count - 1) * 8);
        }
        assert_eq!(be16(bytes, 8), 0x3ebe);
        assert_eq!(be16(bytes, 58), level);
        let children = pairs(&bytes[64..], count);
        for (hash, child) in &children {
            let below = self.visit((*child).into(), level - 1);
            assert_eq!(below, *hash);
        }
        assert!(children.is_sorted_by_key(|(hash, _)| *hash));
        children[count - 1].0
    }
}
