//! Damages of inodes, forks, directories, attributes.

use super::{Damage, damage};
use crate::damage::{Patient, modify};
use imagegen::xfs::check::Kind::{
    Attributes, Connectivity, Directory, DirectoryIndex, Extents, Inode, Links, ParentPointer,
    Space, Symlink,
};
use imagegen::xfs::format::attr::{self, LeafHeader as AttrHeader, RemoteHeader};
use imagegen::xfs::format::btree::{LONG_CRC_AT, LongHeader};
use imagegen::xfs::format::dir::{
    self, BestFree, DataHeader, FREE_OFFSET, FreeHeader, LEAF_OFFSET, LeafEntry, NODE_CRC_AT,
    NodeEntry,
};
use imagegen::xfs::format::extent::{Extent, Packed};
use imagegen::xfs::format::symlink::{self, SymlinkHeader};
use imagegen::xfs::format::{U16, U32, U64};
use imagegen::xfs::read::{self, ForkMap, Which};

fn ino(p: &Patient, path: &str) -> u64 {
    p.find(path).ino
}

pub(super) const INODES: &[Damage] = &[
    damage("inode: mode", Inode, |p| {
        p.inode(ino(p, "sparse"), |core| core.mode = 0o644.into())
    }),
    damage("inode: a socket with extents", Inode, |p| {
        p.inode(ino(p, "sparse"), |core| core.mode = 0o140_644.into());
    }),
    damage("inode: of another number", Inode, |p| {
        p.inode(ino(p, "sparse"), |core| core.ino += 1);
    }),
    damage("inode: of another file system", Inode, |p| {
        p.inode(ino(p, "sparse"), |core| core.uuid[5] ^= 1);
    }),
    damage("inode: version", Inode, |p| {
        p.inode(ino(p, "sparse"), |core| core.version = 2)
    }),
    damage("inode: links of a file", Links, |p| {
        p.inode(ino(p, "sparse"), |core| core.nlink += 1);
    }),
    damage("inode: links of a directory", Links, |p| {
        p.inode(ino(p, "files"), |core| core.nlink += 1);
    }),
    damage("inode: no links", Inode, |p| {
        p.inode(ino(p, "sparse"), |core| core.nlink = 0.into());
    }),
    damage("inode: in use, but empty", Inode, |p| {
        p.inode(ino(p, "sparse"), |core| core.mode = 0.into());
    }),
    damage("inode: blocks", Inode, |p| {
        p.inode(ino(p, "sparse"), |core| core.nblocks += 1)
    }),
    damage("inode: extents", Inode, |p| {
        p.inode(ino(p, "sparse"), |core| core.big_nextents -= 1);
    }),
    damage("inode: extents of attributes", Inode, |p| {
        p.inode(ino(p, "attrs-20-30"), |core| core.nextents -= 1);
    }),
    damage("inode: attribute fork beyond its end", Inode, |p| {
        p.inode(ino(p, "attrs-20-30"), |core| core.fork_offset = 200);
    }),
    damage("inode: form", Inode, |p| {
        p.inode(ino(p, "sparse"), |core| core.format = 1)
    }),
    damage("inode: unknown flags", Inode, |p| {
        p.inode(ino(p, "sparse"), |core| core.flags2 |= U64::new(1 << 40));
    }),
    damage("inode: on a realtime device", Inode, |p| {
        p.inode(ino(p, "sparse"), |core| core.flags |= U16::new(1));
    }),
    damage("inode: a size hint without its flag", Inode, |p| {
        p.inode(ino(p, "sparse"), |core| core.extent_size = 16.into());
    }),
    damage("inode: size", Inode, |p| {
        p.inode(ino(p, "sparse"), |core| core.size = u64::MAX.into());
    }),
    damage("inode: no reflink flag", Inode, |p| {
        p.inode(ino(p, "clone1"), |core| core.flags2 &= U64::new(!2));
    }),
    damage("inode: a device with the reflink flag", Inode, |p| {
        p.inode(ino(p, "a-socket"), |core| core.flags2 |= U64::new(2));
    }),
    damage("inode: in a list of unlinked inodes", Inode, |p| {
        p.inode(ino(p, "sparse"), |core| core.next_unlinked = 200.into());
    }),
    damage("inode: padding", Inode, |p| {
        p.inode(ino(p, "sparse"), |core| core.pad[7] = 1)
    }),
    damage("symbolic link: size", Symlink, |p| {
        p.inode(ino(p, "link5"), |core| core.size += 1);
    }),
    damage("symbolic link: of another inode", Symlink, |p| {
        let link = p.find("link5");
        p.fork_block(&link, Which::Data, 0, symlink::CRC_AT, |bytes| {
            modify(bytes, 0, |header: &mut SymlinkHeader| header.owner += 1);
        });
    }),
    damage("symbolic link: NUL inside", Symlink, |p| {
        let link = p.find("link1");
        p.fork(&link, Which::Data, |bytes| bytes[3] = 0);
    }),
];

/// Changes extent `index` of the list in the inode.
fn extent(p: &mut Patient, path: &str, index: usize, change: impl FnOnce(&mut Extent)) {
    let inode = p.find(path);
    p.fork(&inode, Which::Data, |bytes| {
        modify(bytes, index * 16, |packed: &mut Packed| {
            let mut extent = Extent::unpack(packed);
            change(&mut extent);
            *packed = extent.pack();
        });
    });
}

/// The first extent of a file.
fn first(p: &Patient, path: &str) -> Extent {
    let inode = p.find(path);
    p.reader
        .extents(&inode, Which::Data, 0..u64::MAX)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
}

/// Changes the first leaf of the extent B-tree of `fragmented`.
fn bmap(p: &mut Patient, change: impl FnOnce(&mut [u8])) {
    let inode = p.find("fragmented");
    let mut extents = p.reader.extents(&inode, Which::Data, 0..u64::MAX).unwrap();
    let Some(Ok(read::btree::Visit::Block { fsblock, level: 0 })) = extents.visit() else {
        panic!("no B-tree");
    };
    let piece = p.block_at(fsblock, LONG_CRC_AT);
    p.piece(piece, change);
}

pub(super) const FORKS: &[Damage] = &[
    damage("extent: space of another file", Space, |p| {
        let other = first(p, "truncated").block;
        extent(p, "unwritten", 0, |extent| extent.block = other);
    }),
    damage("extent: beyond the device", Extents, |p| {
        extent(p, "unwritten", 0, |extent| extent.block = 1 << 40);
    }),
    damage("extent: without blocks", Extents, |p| {
        extent(p, "unwritten", 0, |extent| extent.count = 0);
    }),
    damage("extent: out of order", Extents, |p| {
        extent(p, "unwritten", 1, |extent| extent.offset = 0);
    }),
    damage("extent: too long", Space, |p| {
        extent(p, "truncated", 0, |extent| extent.count += 1);
    }),
    damage("extent: unwritten in a directory", Extents, |p| {
        extent(p, "d1200", 0, |extent| extent.unwritten = true);
    }),
    damage("extent B-tree: of another inode", Extents, |p| {
        bmap(p, |bytes| {
            modify(bytes, 0, |head: &mut LongHeader| head.owner += 1)
        });
    }),
    damage("extent B-tree: a record is gone", Inode, |p| {
        bmap(p, |bytes| {
            modify(bytes, 0, |head: &mut LongHeader| head.count -= 1)
        });
    }),
    damage("extent B-tree: another first offset", Extents, |p| {
        bmap(p, |bytes| {
            modify(bytes, 72, |packed: &mut Packed| {
                let mut extent = Extent::unpack(packed);
                extent.offset += 7;
                *packed = extent.pack();
            })
        });
    }),
    damage("extent B-tree: another neighbour", Extents, |p| {
        bmap(p, |bytes| {
            modify(bytes, 0, |head: &mut LongHeader| head.left = 99.into())
        });
    }),
    damage("extent B-tree: root in the inode", Extents, |p| {
        let inode = p.find("fragmented");
        p.fork(&inode, Which::Data, |bytes| {
            modify(bytes, 0, |level: &mut U16| *level += 1)
        });
    }),
];

/// Directories of the larger forms.
fn has(p: &Patient, map: &ForkMap, byte: u64) -> bool {
    map.find(byte >> p.geometry().block_log).is_some()
}

fn block_dir(p: &Patient) -> read::Inode {
    p.directory(|inode, map| inode.core.format == 2 && map.blocks() == 1)
}

fn leaf_dir(p: &Patient) -> read::Inode {
    p.directory(|_, map| has(p, map, LEAF_OFFSET) && !has(p, map, FREE_OFFSET))
}

fn node_dir(p: &Patient) -> read::Inode {
    p.directory(|_, map| has(p, map, FREE_OFFSET) && map.blocks() > 20)
}

/// Changes the data block 0 of a directory.
fn data(p: &mut Patient, inode: &read::Inode, change: impl FnOnce(&mut [u8])) {
    p.fork_block(inode, Which::Data, 0, dir::CRC_AT, change);
}

/// Changes the block of the fork at byte `at`, sealed as leaves and nodes are.
fn hashed(p: &mut Patient, inode: &read::Inode, at: u64, change: impl FnOnce(&mut [u8])) {
    let offset = at >> p.geometry().block_log;
    p.fork_block(inode, Which::Data, offset, NODE_CRC_AT, change);
}

/// The third entry of data block 0: its offset and the length of its name.
fn third(bytes: &[u8]) -> (usize, usize) {
    let mut at = 64 + 32;
    while bytes[at..at + 2] == [0xff, 0xff] {
        at += usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
    }
    (at, bytes[at + 8].into())
}

/// Where the leaf of the only block begins.
fn tail_leaf(bytes: &[u8]) -> usize {
    let tail = bytes.len() - 8;
    let count = u32::from_be_bytes(bytes[tail..tail + 4].try_into().unwrap());
    tail - 8 * count as usize
}

pub(super) const DIRECTORIES: &[Damage] = &[
    damage("short directory: another parent", Connectivity, |p| {
        let (inode, other) = (p.find("d3"), p.find("files").ino as u32);
        p.fork(&inode, Which::Data, |b| {
            modify(b, 2, |parent: &mut U32| *parent = other.into())
        });
    }),
    damage(
        "short directory: more entries than it has",
        Directory,
        |p| {
            let inode = p.find("d3");
            p.fork(&inode, Which::Data, |bytes| bytes[0] += 1);
        },
    ),
    damage("short directory: a name with a slash", Directory, |p| {
        let inode = p.find("d3");
        p.fork(&inode, Which::Data, |bytes| bytes[6 + 3] = b'/');
    }),
    damage("short directory: another offset", Directory, |p| {
        let inode = p.find("d3");
        p.fork(&inode, Which::Data, |b| {
            modify(b, 6 + 1, |at: &mut U16| *at = 8.into())
        });
    }),
    damage(
        "short directory: an offset beyond a block",
        Directory,
        |p| {
            let inode = p.find("d3");
            p.fork(&inode, Which::Data, |b| {
                modify(b, 6 + 1, |at: &mut U16| *at = 0xff0.into())
            });
        },
    ),
    damage("short directory: size", Directory, |p| {
        p.inode(ino(p, "d3"), |core| core.size -= 1);
    }),
    damage("entry: a free inode", Directory, |p| {
        let inode = block_dir(p);
        let free = p.reader.superblock().root_ino.get() as u32 + 50_000;
        data(p, &inode, |bytes| {
            let (at, _) = third(bytes);
            modify(bytes, at + 4, |low: &mut U32| *low = free.into());
        });
    }),
    damage("entry: an inode that cannot be", Directory, |p| {
        let inode = block_dir(p);
        data(p, &inode, |bytes| {
            let (at, _) = third(bytes);
            bytes[at] = 0x7f;
        });
    }),
    damage("entry: another kind of file", Directory, |p| {
        let inode = block_dir(p);
        data(p, &inode, |bytes| {
            let (at, length) = third(bytes);
            bytes[at + 9 + length] = bytes[at + 9 + length] % 7 + 1;
        });
    }),
    damage("entry: another name", DirectoryIndex, |p| {
        let inode = block_dir(p);
        data(p, &inode, |bytes| {
            let (at, _) = third(bytes);
            bytes[at + 9] ^= 1;
        });
    }),
    damage("entry: another tag", Directory, |p| {
        let inode = block_dir(p);
        data(p, &inode, |bytes| bytes[64 + 14] ^= 8);
    }),
    damage("entry: another inode for `.`", Directory, |p| {
        let inode = block_dir(p);
        data(p, &inode, |bytes| bytes[64 + 7] ^= 1);
    }),
    damage("entry: another inode for `..`", Connectivity, |p| {
        let (inode, other) = (block_dir(p), p.find("files").ino as u32);
        data(p, &inode, |b| {
            modify(b, 64 + 16 + 4, |low: &mut U32| *low = other.into())
        });
    }),
    damage("directory block: longest free space", Directory, |p| {
        let inode = leaf_dir(p);
        data(p, &inode, |bytes| {
            modify(bytes, 0, |header: &mut DataHeader| {
                header.best_free[0] = BestFree::default();
            });
        });
    }),
    damage("directory block: of another directory", Directory, |p| {
        let inode = leaf_dir(p);
        data(p, &inode, |b| {
            modify(b, 0, |header: &mut DataHeader| header.block.owner += 1)
        });
    }),
    damage("only block: leaf out of order", DirectoryIndex, |p| {
        let inode = block_dir(p);
        data(p, &inode, |bytes| {
            let leaf = tail_leaf(bytes);
            bytes.copy_within(leaf + 24..leaf + 32, leaf);
        });
    }),
    damage("only block: stale entries", DirectoryIndex, |p| {
        let inode = block_dir(p);
        data(p, &inode, |bytes| {
            let at = bytes.len() - 4;
            modify(bytes, at, |stale: &mut U32| *stale += 1);
        });
    }),
    damage("leaf: another address", DirectoryIndex, |p| {
        let inode = leaf_dir(p);
        hashed(p, &inode, LEAF_OFFSET, |bytes| {
            modify(bytes, 64, |entry: &mut LeafEntry| entry.address += 1);
        });
    }),
    damage("leaf: longest free spaces", DirectoryIndex, |p| {
        let inode = leaf_dir(p);
        hashed(p, &inode, LEAF_OFFSET, |bytes| {
            let at = bytes.len() - 6;
            bytes[at] ^= 1;
        });
    }),
    damage("leaf: one entry less", DirectoryIndex, |p| {
        let inode = leaf_dir(p);
        hashed(p, &inode, LEAF_OFFSET, |b| {
            modify(b, 56, |count: &mut U16| *count -= 1)
        });
    }),
    damage("directory: size", Directory, |p| {
        let inode = leaf_dir(p);
        p.inode(inode.ino, |core| core.size += 4096);
    }),
    damage("node: another hash", DirectoryIndex, |p| {
        let inode = node_dir(p);
        hashed(p, &inode, LEAF_OFFSET, |bytes| {
            modify(bytes, 64, |entry: &mut NodeEntry| entry.hash -= 1);
        });
    }),
    damage("node: a child twice", DirectoryIndex, |p| {
        let inode = node_dir(p);
        hashed(p, &inode, LEAF_OFFSET, |bytes| {
            bytes.copy_within(64..72, 72)
        });
    }),
    damage("node: another level", DirectoryIndex, |p| {
        let inode = node_dir(p);
        hashed(p, &inode, LEAF_OFFSET, |b| {
            modify(b, 58, |level: &mut U16| *level += 1)
        });
    }),
    damage(
        "leaf below a node: another neighbour",
        DirectoryIndex,
        |p| {
            let inode = node_dir(p);
            let second = LEAF_OFFSET + p.geometry().dir_block_size() as u64;
            hashed(p, &inode, second, |b| {
                modify(b, 0, |forward: &mut U32| *forward ^= U32::new(1))
            });
        },
    ),
    damage(
        "free block: another longest free space",
        DirectoryIndex,
        |p| {
            let inode = node_dir(p);
            let offset = FREE_OFFSET >> p.geometry().block_log;
            p.fork_block(&inode, Which::Data, offset, dir::CRC_AT, |bytes| {
                bytes[65] ^= 8
            });
        },
    ),
    damage("free block: values in use", DirectoryIndex, |p| {
        let inode = node_dir(p);
        let offset = FREE_OFFSET >> p.geometry().block_log;
        p.fork_block(&inode, Which::Data, offset, dir::CRC_AT, |bytes| {
            modify(bytes, 0, |header: &mut FreeHeader| header.used += 1);
        });
    }),
];

/// Changes the block of attributes of `path` at `offset`.
fn attr_block(p: &mut Patient, path: &str, offset: u64, change: impl FnOnce(&mut [u8])) {
    let inode = p.find(path);
    p.fork_block(&inode, Which::Attr, offset, NODE_CRC_AT, change);
}

/// The first block of a remote value.
fn remote(p: &mut Patient, change: impl FnOnce(&mut RemoteHeader)) {
    let inode = p.find("attrs-4-60000");
    let attributes = p.reader.attributes(&inode).unwrap().map(Result::unwrap);
    let block = attributes.filter_map(|attribute| match attribute.value {
        read::attr::Value::Remote { block, .. } => Some(block),
        read::attr::Value::Here(_) => None,
    });
    let block = block.min().unwrap();
    p.fork_block(
        &inode,
        Which::Attr,
        block.into(),
        attr::REMOTE_CRC_AT,
        |bytes| {
            modify(bytes, 0, change);
        },
    );
}

const fn of_parents(name: &'static str, act: fn(&mut Patient)) -> Damage {
    Damage {
        name,
        kind: ParentPointer,
        parent: true,
        act,
    }
}

pub(super) const ATTRIBUTES: &[Damage] = &[
    damage("short attributes: one more", Attributes, |p| {
        let inode = p.find("d3");
        p.fork(&inode, Which::Attr, |bytes| bytes[2] += 1);
    }),
    damage("short attributes: two namespaces", Attributes, |p| {
        let inode = p.find("d3");
        p.fork(&inode, Which::Attr, |bytes| bytes[4 + 2] |= 6);
    }),
    damage("attribute leaf: half written", Attributes, |p| {
        attr_block(p, "attrs-20-30", 0, |bytes| bytes[80 + 6] |= 0x80);
    }),
    damage("attribute leaf: another hash", Attributes, |p| {
        attr_block(p, "attrs-20-30", 0, |b| {
            modify(b, 80, |hash: &mut U32| *hash -= 1)
        });
    }),
    damage("attribute leaf: used bytes", Attributes, |p| {
        attr_block(p, "attrs-20-30", 0, |b| {
            modify(b, 0, |header: &mut AttrHeader| header.used += 4);
        });
    }),
    damage("attribute leaf: a name beyond its end", Attributes, |p| {
        attr_block(p, "attrs-20-30", 0, |bytes| {
            modify(bytes, 80 + 4, |at: &mut U16| *at = 0xfff0.into());
        });
    }),
    damage("attribute leaf: of another inode", Attributes, |p| {
        attr_block(p, "attrs-20-30", 0, |b| {
            modify(b, 0, |header: &mut AttrHeader| header.info.owner += 1);
        });
    }),
    damage("attribute node: another hash", Attributes, |p| {
        attr_block(p, "attrs-400-60", 0, |b| {
            modify(b, 64, |entry: &mut NodeEntry| entry.hash += 1);
        });
    }),
    damage("remote value: another offset", Attributes, |p| {
        remote(p, |header| header.offset += 1)
    }),
    damage("remote value: of another inode", Attributes, |p| {
        remote(p, |header| header.owner += 1);
    }),
    of_parents("parent pointer: another generation of the directory", |p| {
        p.inode(ino(p, "d3"), |core| core.generation += 1);
    }),
    of_parents("parent pointer: another name", |p| {
        let inode = p.find("sparse");
        // Header of the form, of the entry, then the name.
        p.fork(&inode, Which::Attr, |bytes| bytes[4 + 3] ^= 1);
    }),
];
