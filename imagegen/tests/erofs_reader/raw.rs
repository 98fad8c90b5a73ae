//! Images byte by byte, for what no mkfs.erofs would write.

use imagegen::erofs::format::directory::{ENTRY, Entry};
use imagegen::erofs::format::inode::{Extended, format};
use imagegen::erofs::format::superblock::{AT, MAGIC, Superblock};
use imagegen::erofs::format::{NID_UNIT, U16, U32, U64};
use zerocopy::IntoBytes;

/// An image that grows.
pub(crate) struct Raw {
    pub(crate) bytes: Vec<u8>,
    bits: u8,
    inodes: u64,
}

/// A name, an inode's number, a kind.
pub(crate) type Name = (Vec<u8>, u64, u8);

impl Raw {
    /// With blocks of 2^`bits` bytes.
    pub(crate) fn new(bits: u8) -> Self {
        Self {
            bytes: vec![0; 4096],
            bits,
            inodes: 0,
        }
    }

    /// Where `length` bytes lie that are not used, at a multiple of `align`.
    pub(crate) fn room(&mut self, length: usize, align: usize) -> u64 {
        let at = self.bytes.len().next_multiple_of(align);
        self.bytes.resize(at + length, 0);
        at as u64
    }

    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        self.bytes[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Blocks of their own for `bytes`; the number of the first.
    pub(crate) fn blocks(&mut self, bytes: &[u8]) -> u64 {
        let at = self.room(bytes.len().next_multiple_of(1 << self.bits), 1 << self.bits);
        self.put(at, bytes);
        at >> self.bits
    }

    /// Room for an inode with `more` bytes after it; its number.
    pub(crate) fn reserve(&mut self, more: usize) -> u64 {
        self.room(64 + more, NID_UNIT as usize) / NID_UNIT
    }

    /// Writes inode `nid` and what follows it.
    pub(crate) fn inode(&mut self, nid: u64, layout: u16, inode: Extended, after: &[u8]) {
        let inode = Extended {
            format: U16::new(format::EXTENDED | layout << format::LAYOUT_SHIFT),
            ..inode
        };
        self.put(nid * NID_UNIT, inode.as_bytes());
        self.put(nid * NID_UNIT + 64, after);
        self.inodes += 1;
    }

    /// Writes a directory of these names, in as many blocks as they need.
    pub(crate) fn directory(&mut self, nid: u64, above: u64, names: Vec<Name>) {
        let mut all = vec![(b".".to_vec(), nid, 2), (b"..".to_vec(), above, 2)];
        all.extend(names);
        all.sort();
        let block = 1 << self.bits;
        let (mut bytes, mut rest) = (Vec::new(), &all[..]);
        while !rest.is_empty() {
            let mut room = block;
            let fits = |name: &&Name| {
                let needs = ENTRY + name.0.len();
                let fits = needs <= room;
                room -= needs.min(room);
                fits
            };
            let count = rest.iter().take_while(fits).count();
            let part = entries(&rest[..count]);
            bytes.extend_from_slice(&part);
            rest = &rest[count..];
            if !rest.is_empty() {
                bytes.resize(bytes.len().next_multiple_of(block), 0);
            }
        }
        let first = self.blocks(&bytes);
        let inode = Extended {
            size: U64::new(bytes.len() as u64),
            data: U32::new(first as u32),
            nlink: 2.into(),
            ..plain(0o040_755)
        };
        self.inode(nid, 0, inode, &[]);
    }

    /// The whole image.
    pub(crate) fn finish(mut self, root: u64, incompat: u32, algorithms: u16) -> Vec<u8> {
        let blocks = self.bytes.len().div_ceil(1 << self.bits);
        self.bytes.resize(blocks << self.bits, 0);
        let superblock = Superblock {
            magic: MAGIC.into(),
            block_bits: self.bits,
            root_nid_or_blocks_high: U16::new(root.try_into().unwrap()),
            inodes: self.inodes.into(),
            blocks_low: U32::new(blocks as u32),
            feature_incompat: incompat.into(),
            algorithms_or_lz4_distance: algorithms.into(),
            ..Superblock::default()
        };
        self.put(AT, superblock.as_bytes());
        self.bytes
    }
}

/// An inode of this mode with one link and no contents.
pub(crate) fn plain(mode: u16) -> Extended {
    Extended {
        mode: mode.into(),
        nlink: 1.into(),
        ..Extended::default()
    }
}

/// One block of a directory.
pub(crate) fn entries(names: &[Name]) -> Vec<u8> {
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    for (name, nid, kind) in names {
        let entry = Entry {
            nid: (*nid).into(),
            name_at: U16::new((names.len() * ENTRY + tail.len()) as u16),
            kind: *kind,
            reserved: 0,
        };
        head.extend_from_slice(entry.as_bytes());
        tail.extend_from_slice(name);
    }
    [head, tail].concat()
}
