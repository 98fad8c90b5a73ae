//! Damage laid over an image without changing it: a field is patched, the checksum
//! computed again.

use imagegen::xfs::check::{Report, check};
use imagegen::xfs::format::group::{AGF_CRC_AT, AGFL_CRC_AT, AGI_CRC_AT, Agf, Agi};
use imagegen::xfs::format::inode::{CRC_AT, Inode as Core, kind};
use imagegen::xfs::format::superblock::{self, Superblock};
use imagegen::xfs::format::{attr, btree, checksum, dir, symlink};
use imagegen::xfs::geometry::Geometry;
use imagegen::xfs::read::btree::{Visit, Walk};
use imagegen::xfs::read::{ForkMap, Inode, Reader, Source, Tree, Which};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::rc::Rc;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// An image with patches over it.
#[derive(Clone)]
pub(crate) struct Overlay {
    base: Rc<File>,
    patches: BTreeMap<u64, Vec<u8>>,
    size: u64,
}

impl Source for Overlay {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.base.read_at(offset, buffer)?;
        let end = offset + buffer.len() as u64;
        // Patches are no longer than 64 KiB.
        for (at, bytes) in self.patches.range(offset.saturating_sub(1 << 16)..end) {
            let from = (*at).max(offset);
            let to = (at + bytes.len() as u64).min(end);
            if from < to {
                let part = &bytes[(from - at) as usize..(to - at) as usize];
                buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(part);
            }
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}

/// A piece of metadata under one checksum.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) length: usize,
    pub(crate) crc_at: usize,
}

/// An image that damage is done to.
pub(crate) struct Patient {
    /// As it was.
    pub(crate) reader: Reader<Overlay>,
    pub(crate) overlay: Overlay,
    /// Whether checksums are put right after a patch.
    pub(crate) seals: bool,
}

pub(crate) fn modify<T>(bytes: &mut [u8], at: usize, change: impl FnOnce(&mut T))
where
    T: FromBytes + IntoBytes + Immutable,
{
    let part = &mut bytes[at..at + size_of::<T>()];
    let mut value = T::read_from_bytes(part).unwrap();
    change(&mut value);
    value.write_to(part).unwrap();
}

impl Patient {
    pub(crate) fn new(file: File) -> Self {
        let size = Source::size(&file).unwrap();
        let overlay = Overlay {
            base: Rc::new(file),
            patches: BTreeMap::new(),
            size,
        };
        Self {
            reader: Reader::open(overlay.clone()).unwrap(),
            overlay,
            seals: true,
        }
    }

    pub(crate) fn heal(&mut self) {
        self.overlay.patches.clear();
        self.overlay.size = Source::size(&*self.overlay.base).unwrap();
    }

    pub(crate) fn truncate(&mut self, size: u64) {
        self.overlay.size = size;
    }

    pub(crate) fn check(&self) -> Report {
        check(self.overlay.clone())
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        self.reader.geometry()
    }

    /// Changes bytes that have no checksum.
    pub(crate) fn raw(&mut self, offset: u64, length: usize, change: impl FnOnce(&mut [u8])) {
        let mut bytes = vec![0; length];
        self.overlay.read_at(offset, &mut bytes).unwrap();
        let before = bytes.clone();
        change(&mut bytes);
        assert!(before != bytes, "nothing was changed");
        self.overlay.patches.insert(offset, bytes);
    }

    pub(crate) fn piece(&mut self, piece: Piece, change: impl FnOnce(&mut [u8])) {
        let seals = self.seals;
        self.raw(piece.offset, piece.length, |bytes| {
            change(bytes);
            if seals {
                checksum::seal(bytes, piece.crc_at);
            }
        });
    }

    pub(crate) fn header(&self, ag: u32, index: u64, crc_at: usize) -> Piece {
        let sector = self.geometry().sector_size();
        Piece {
            offset: self.geometry().byte(ag, 0) + index * sector as u64,
            length: sector,
            crc_at,
        }
    }

    pub(crate) fn superblock(&mut self, ag: u32, change: impl FnOnce(&mut Superblock)) {
        let piece = self.header(ag, 0, superblock::CRC_AT);
        self.piece(piece, |bytes| modify(bytes, 0, change));
    }

    pub(crate) fn agf(&mut self, ag: u32, change: impl FnOnce(&mut Agf)) {
        let piece = self.header(ag, 1, AGF_CRC_AT);
        self.piece(piece, |bytes| modify(bytes, 0, change));
    }

    pub(crate) fn agi(&mut self, ag: u32, change: impl FnOnce(&mut Agi)) {
        let piece = self.header(ag, 2, AGI_CRC_AT);
        self.piece(piece, |bytes| modify(bytes, 0, change));
    }

    pub(crate) fn agfl(&mut self, ag: u32, change: impl FnOnce(&mut [u8])) {
        let piece = self.header(ag, 3, AGFL_CRC_AT);
        self.piece(piece, change);
    }

    pub(crate) fn block_at(&self, fsblock: u64, crc_at: usize) -> Piece {
        Piece {
            offset: self.geometry().byte_of(fsblock),
            length: self.geometry().block_size(),
            crc_at,
        }
    }

    /// Changes the first block of `level` that `walk` meets.
    pub(crate) fn tree<T: Tree>(
        &mut self,
        level: u32,
        walk: impl FnOnce(&Reader<Overlay>) -> Walk<'_, Overlay, T>,
        change: impl FnOnce(&mut [u8]),
    ) {
        let found = walk(&self.reader).find_map(|visit| match visit.unwrap() {
            Visit::Block { fsblock, level: at } if at == level => Some(fsblock),
            _ => None,
        });
        let piece = self.block_at(found.unwrap(), btree::SHORT_CRC_AT);
        self.piece(piece, change);
    }

    pub(crate) fn inode_at(&self, ino: u64) -> Piece {
        Piece {
            offset: self.geometry().inode_byte(ino),
            length: self.geometry().inode_size(),
            crc_at: CRC_AT,
        }
    }

    pub(crate) fn inode(&mut self, ino: u64, change: impl FnOnce(&mut Core)) {
        let piece = self.inode_at(ino);
        self.piece(piece, |bytes| modify(bytes, 0, change));
    }

    /// Changes the bytes of a fork inside the inode.
    pub(crate) fn fork(&mut self, inode: &Inode, which: Which, change: impl FnOnce(&mut [u8])) {
        let piece = self.inode_at(inode.ino);
        let from = match which {
            Which::Data => 176,
            Which::Attr => 176 + usize::from(inode.core.fork_offset) * 8,
        };
        self.piece(piece, |bytes| change(&mut bytes[from..]));
    }

    /// Changes the block of a fork at `offset`.
    pub(crate) fn fork_block(
        &mut self,
        inode: &Inode,
        which: Which,
        offset: u64,
        crc_at: usize,
        change: impl FnOnce(&mut [u8]),
    ) {
        let map = ForkMap::load(&self.reader, inode, which).unwrap();
        let (fsblock, _) = map.find(offset).unwrap();
        let piece = self.block_at(fsblock, crc_at);
        self.piece(piece, change);
    }

    /// The inode at `path` of names.
    pub(crate) fn find(&self, path: &str) -> Inode {
        let mut inode = self
            .reader
            .inode(self.reader.superblock().root_ino.get())
            .unwrap();
        for name in path.split('/') {
            let open = self.reader.directory(&inode).unwrap();
            let entry = open.lookup(name.as_bytes()).unwrap().expect(path);
            inode = self.reader.inode(entry.ino).unwrap();
        }
        inode
    }

    /// First directory in the root that `fits`.
    pub(crate) fn directory(&self, fits: impl Fn(&Inode, &ForkMap) -> bool) -> Inode {
        let root = self
            .reader
            .inode(self.reader.superblock().root_ino.get())
            .unwrap();
        let entries = self
            .reader
            .directory(&root)
            .unwrap()
            .entries()
            .map(Result::unwrap);
        let mut inodes = entries
            .filter(|entry| entry.file_type == dir::file_type::DIRECTORY)
            .filter(|entry| !entry.name.starts_with(b"."))
            .map(|entry| self.reader.inode(entry.ino).unwrap());
        inodes
            .find(|inode| {
                fits(
                    inode,
                    &ForkMap::load(&self.reader, inode, Which::Data).unwrap(),
                )
            })
            .unwrap()
    }
}

/// All pieces of metadata with a checksum, of every kind.
pub(crate) fn pieces(patient: &Patient) -> Vec<Piece> {
    let (reader, geometry) = (&patient.reader, patient.geometry());
    let mut all = Vec::new();
    let mut inodes = Vec::new();
    for ag in 0..geometry.ag_count {
        let crcs = [superblock::CRC_AT, AGF_CRC_AT, AGI_CRC_AT, AGFL_CRC_AT];
        all.extend((0..4).map(|index| patient.header(ag, index, crcs[index as usize])));
        let (agf, agi) = (reader.agf(ag).unwrap(), reader.agi(ag).unwrap());
        let whole = 0..u64::MAX;
        let mut blocks = Vec::new();
        add(&mut blocks, reader.bno(ag, &agf, whole.clone()));
        add(&mut blocks, reader.cnt(ag, &agf, whole.clone()));
        add(&mut blocks, reader.inobt(ag, &agi, whole.clone()));
        let features = &geometry.features;
        if features.finobt {
            add(&mut blocks, reader.finobt(ag, &agi, whole.clone()));
        }
        if features.rmapbt {
            add(&mut blocks, reader.rmap(ag, &agf, whole.clone()));
        }
        if features.reflink {
            add(&mut blocks, reader.refcount(ag, &agf, whole.clone()));
        }
        all.extend(
            blocks
                .iter()
                .map(|block| patient.block_at(*block, btree::SHORT_CRC_AT)),
        );
        for record in reader.inobt(ag, &agi, whole).records() {
            let chunk = reader.chunk(ag, &record.unwrap()).unwrap();
            let used = chunk.numbers().filter(|(_, free)| !free);
            inodes.extend(used.map(|(ino, _)| ino));
        }
    }
    for ino in inodes {
        all.push(patient.inode_at(ino));
        fork_pieces(patient, &reader.inode(ino).unwrap(), &mut all);
    }
    all
}

fn add<T: Tree>(blocks: &mut Vec<u64>, walk: Walk<'_, Overlay, T>) {
    blocks.extend(walk.filter_map(|visit| match visit.unwrap() {
        Visit::Block { fsblock, .. } => Some(fsblock),
        Visit::Record(_) => None,
    }));
}

fn fork_pieces(patient: &Patient, inode: &Inode, all: &mut Vec<Piece>) {
    for which in [Which::Data, Which::Attr] {
        let mut extents = patient.reader.extents(inode, which, 0..u64::MAX).unwrap();
        while let Some(visit) = extents.visit() {
            match visit.unwrap() {
                Visit::Block { fsblock, .. } => {
                    all.push(patient.block_at(fsblock, btree::LONG_CRC_AT));
                }
                Visit::Record(extent) => {
                    let is_directory = which == Which::Data && inode.kind() == kind::DIRECTORY;
                    let step = match is_directory {
                        true => patient.geometry().dir_block_blocks(),
                        false => 1,
                    };
                    // A directory block in several extents is left alone.
                    let skip = extent.offset.next_multiple_of(step) - extent.offset;
                    let last = (extent.block + extent.count).saturating_sub(step - 1);
                    for block in (extent.block + skip..last).step_by(step as usize) {
                        let mut piece = patient.block_at(block, 0);
                        if let Some(crc_at) = crc_of(patient, piece) {
                            piece.crc_at = crc_at;
                            piece.length *= step as usize;
                            all.push(piece);
                        }
                    }
                }
            }
        }
    }
}

/// Where the checksum of a block of directory, attribute or link lies, by its magic.
fn crc_of(patient: &Patient, piece: Piece) -> Option<usize> {
    let mut start = [0; 16];
    patient.overlay.read_at(piece.offset, &mut start).unwrap();
    let long = u32::from_be_bytes(start[..4].try_into().unwrap());
    let short = u16::from_be_bytes(start[8..10].try_into().unwrap());
    match (long, short) {
        (dir::magic::BLOCK | dir::magic::DATA | dir::magic::FREE, _) => Some(dir::CRC_AT),
        (attr::REMOTE_MAGIC, _) => Some(attr::REMOTE_CRC_AT),
        (symlink::MAGIC, _) => Some(symlink::CRC_AT),
        (_, dir::magic::LEAF1 | dir::magic::LEAFN | dir::magic::NODE | attr::LEAF_MAGIC) => {
            Some(dir::NODE_CRC_AT)
        }
        _ => None,
    }
}
