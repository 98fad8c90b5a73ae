//! Damages of superblocks, log, headers of groups and their B-trees.

use super::{Damage, damage};
use crate::damage::{Overlay, Patient, modify};
use imagegen::xfs::check::Kind::{
    BackupSuperblock, Connectivity, Device, DirtyLog, FreeInodeTree, FreeSpace, GroupHeader, Inode,
    InodeTree, Log, Refcount, ReverseMap, Space, Sums, Superblock,
};
use imagegen::xfs::format::btree::{
    FreeRecord, InodeRecord, RefcountRecord, RmapKey, RmapRecord, ShortHeader, owner, rmap_offset,
};
use imagegen::xfs::format::log::RecordHeader;
use imagegen::xfs::format::{U16, U32, U64};
use imagegen::xfs::read::btree::Walk;
use imagegen::xfs::read::{Bno, Cnt, Finobt, Inobt, Reader, Refcount as Counts, Rmap};

pub(super) const SUPERS: &[Damage] = &[
    damage(
        "backup superblock of another identity",
        BackupSuperblock,
        |p| {
            p.superblock(2, |sb| sb.uuid[3] ^= 1);
        },
    ),
    damage(
        "backup superblock of another geometry",
        BackupSuperblock,
        |p| {
            p.superblock(1, |sb| sb.ag_blocks += 1);
        },
    ),
    damage(
        "backup superblock without a feature",
        BackupSuperblock,
        |p| {
            p.superblock(3, |sb| sb.features_ro_compat &= U32::new(!2));
        },
    ),
    damage(
        "backup superblock without a magic number",
        BackupSuperblock,
        |p| {
            p.superblock(3, |sb| sb.magic = 0.into());
        },
    ),
    damage("sum of inodes", Sums, |p| {
        p.superblock(0, |sb| sb.icount += 64)
    }),
    damage("sum of free inodes", Sums, |p| {
        p.superblock(0, |sb| sb.ifree += 1)
    }),
    damage("sum of free blocks", Sums, |p| {
        p.superblock(0, |sb| sb.fdblocks -= 1)
    }),
    damage("first superblock unsealed", Superblock, |p| {
        p.seals = false;
        p.superblock(0, |sb| sb.icount += 1);
        p.seals = true;
    }),
    damage("features2 twice differently", Superblock, |p| {
        p.superblock(0, |sb| sb.bad_features2 ^= U32::new(2));
    }),
    damage("another root inode", Connectivity, |p| {
        let ino = p.find("fragmented").ino;
        p.superblock(0, |sb| sb.root_ino = ino.into());
    }),
    damage("a device too small", Device, |p| {
        p.truncate((1 << 30) - 4096)
    }),
    damage("log of another identity", Log, |p| {
        record(p, |record| record.uuid[0] ^= 1);
    }),
    damage("last record of another place", Log, |p| {
        record(p, |record| record.lsn += 1)
    }),
    damage("last record without an unmount", DirtyLog, |p| {
        record(p, |record| record.operations = 2.into());
    }),
    damage("an inode changed after the log's end", Inode, |p| {
        let ino = p.find("sparse").ino;
        p.inode(ino, |core| core.lsn = (9_u64 << 40).into());
    }),
    damage("a superblock changed after the log's end", Log, |p| {
        p.superblock(0, |sb| sb.lsn = (9_u64 << 40).into());
    }),
    damage("a B-tree changed after the log's end", ReverseMap, |p| {
        p.tree(0, rmap, |bytes| {
            head(bytes, |head| head.lsn = (9_u64 << 40).into())
        });
    }),
    damage("an AGF changed after the log's end", GroupHeader, |p| {
        p.agf(1, |agf| agf.lsn = (9_u64 << 40).into());
    }),
];

/// Changes the last record of the log: the one with the highest sequence number.
fn record(p: &mut Patient, change: impl FnOnce(&mut RecordHeader)) {
    use imagegen::xfs::read::Source;
    let geometry = p.geometry();
    let begin = geometry.byte_of(geometry.log_start);
    let mut all = vec![0; (u64::from(geometry.log_blocks) << geometry.block_log) as usize];
    p.overlay.read_at(begin, &mut all).unwrap();
    let magic = 0xfeed_babe_u32.to_be_bytes();
    let sectors = all
        .chunks(512)
        .enumerate()
        .filter(|(_, sector)| sector[..4] == magic);
    let last = sectors
        .max_by_key(|(_, sector)| sector[16..24].to_vec())
        .unwrap()
        .0;
    p.raw(begin + last as u64 * 512, 512, |bytes| {
        modify(bytes, 0, change)
    });
}

pub(super) const HEADERS: &[Damage] = &[
    damage("AGF: free blocks", GroupHeader, |p| {
        p.agf(0, |agf| agf.free_blocks += 1)
    }),
    damage("AGF: longest", GroupHeader, |p| {
        p.agf(1, |agf| agf.longest -= 1)
    }),
    damage("AGF: blocks of B-trees", GroupHeader, |p| {
        p.agf(2, |agf| agf.btree_blocks += 1)
    }),
    damage("AGF: blocks of reverse mappings", GroupHeader, |p| {
        p.agf(0, |agf| agf.rmap_blocks += 1);
    }),
    damage("AGF: blocks of reference counts", GroupHeader, |p| {
        p.agf(0, |agf| agf.refcount_blocks += 1);
    }),
    damage("AGF: of another group", GroupHeader, |p| {
        p.agf(1, |agf| agf.seqno = 2.into())
    }),
    damage("AGF: of another file system", GroupHeader, |p| {
        p.agf(1, |agf| agf.uuid[1] ^= 1)
    }),
    damage("AGF: length", GroupHeader, |p| {
        p.agf(1, |agf| agf.length -= 1)
    }),
    damage("AGF: a root outside", GroupHeader, |p| {
        p.agf(1, |agf| agf.bno_root = u32::MAX.into())
    }),
    damage("AGF: levels", FreeSpace, |p| {
        p.agf(1, |agf| agf.cnt_level += 1)
    }),
    damage("AGFL: a slot outside", GroupHeader, |p| {
        p.agf(0, |agf| agf.fl_first = 1000.into());
    }),
    damage("AGFL: one block less", GroupHeader, |p| {
        p.agf(0, |agf| agf.fl_count -= 1)
    }),
    damage("AGFL: a block twice", GroupHeader, |p| {
        slots(p, |first, last| *first = *last);
    }),
    damage("AGFL: no block", GroupHeader, |p| {
        slots(p, |first, _| *first = u32::MAX.into())
    }),
    damage("AGFL: a block in use", Space, |p| {
        slots(p, |first, _| *first = 1.into())
    }),
    damage("AGI: inodes", GroupHeader, |p| {
        p.agi(0, |agi| agi.count += 64)
    }),
    damage("AGI: free inodes", GroupHeader, |p| {
        p.agi(0, |agi| agi.free_count += 1)
    }),
    damage("AGI: blocks of the free tree", GroupHeader, |p| {
        p.agi(0, |agi| agi.fblocks += 1)
    }),
    damage("AGI: newest chunk outside", GroupHeader, |p| {
        p.agi(0, |agi| agi.new_ino = 0x7fff_ff00.into());
    }),
    damage("AGI: a list of unlinked inodes that are not", Inode, |p| {
        let ino = p.find("sparse").ino;
        p.agi(0, |agi| {
            agi.unlinked[ino as usize % 64] = (ino as u32).into()
        });
    }),
];

/// Changes the first and last slot of the AGFL of group 0 that are in use.
fn slots(p: &mut Patient, change: fn(&mut U32, &mut U32)) {
    let agf = p.reader.agf(0).unwrap();
    let at = |slot: U32| 36 + 4 * slot.get() as usize;
    let (first, last) = (at(agf.fl_first), at(agf.fl_last));
    p.agfl(0, |bytes| {
        let mut other = U32::new(u32::from_be_bytes(
            bytes[last..last + 4].try_into().unwrap(),
        ));
        modify(bytes, first, |one: &mut U32| change(one, &mut other));
    });
}

type R = Reader<Overlay>;

fn bno(reader: &R) -> Walk<'_, Overlay, Bno> {
    reader.bno(0, &reader.agf(0).unwrap(), 0..u64::MAX)
}

fn cnt(reader: &R) -> Walk<'_, Overlay, Cnt> {
    reader.cnt(0, &reader.agf(0).unwrap(), 0..u64::MAX)
}

fn rmap(reader: &R) -> Walk<'_, Overlay, Rmap> {
    reader.rmap(0, &reader.agf(0).unwrap(), 0..u64::MAX)
}

fn counts(reader: &R) -> Walk<'_, Overlay, Counts> {
    reader.refcount(0, &reader.agf(0).unwrap(), 0..u64::MAX)
}

fn inobt(reader: &R) -> Walk<'_, Overlay, Inobt> {
    reader.inobt(0, &reader.agi(0).unwrap(), 0..u64::MAX)
}

fn finobt(reader: &R) -> Walk<'_, Overlay, Finobt> {
    reader.finobt(0, &reader.agi(0).unwrap(), 0..u64::MAX)
}

fn head(bytes: &mut [u8], change: fn(&mut ShortHeader)) {
    modify(bytes, 0, change);
}

/// Changes record `index` of a leaf.
fn nth<T>(bytes: &mut [u8], index: usize, change: impl FnOnce(&mut T))
where
    T: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable,
{
    modify(bytes, 56 + index * size_of::<T>(), change);
}

/// Changes the first reverse mapping of a leaf that fits.
fn mapping(bytes: &mut [u8], fits: fn(&RmapRecord) -> bool, change: fn(&mut RmapRecord)) {
    let count = usize::from(u16::from_be_bytes([bytes[6], bytes[7]]));
    let at = |index: usize| 56 + index * 24;
    let index = (0..count).find(|index| {
        let mut fitting = false;
        modify(bytes, at(*index), |record| fitting = fits(record));
        fitting
    });
    modify(bytes, at(index.unwrap()), change);
}

fn of_file(record: &RmapRecord) -> bool {
    !owner::is_special(record.owner.get()) && record.offset.get() >> 60 == 0
}

pub(super) const TREES: &[Damage] = &[
    damage("bno: a longer extent", FreeSpace, |p| {
        p.tree(0, bno, |b| {
            nth(b, 0, |record: &mut FreeRecord| record.count += 1)
        });
    }),
    damage("bno: the first extent is gone", FreeSpace, |p| {
        p.tree(0, bno, |bytes| {
            bytes.copy_within(64.., 56);
            head(bytes, |head| head.count -= 1);
        });
    }),
    damage("bno: out of order", FreeSpace, |p| {
        p.tree(0, bno, |b| {
            nth(b, 3, |record: &mut FreeRecord| record.start = 5.into())
        });
    }),
    damage("bno: an extent beyond the group", FreeSpace, |p| {
        p.tree(0, bno, |b| {
            nth(b, 3, |r: &mut FreeRecord| r.count = 0x7fff_ffff.into())
        });
    }),
    damage("bno: another magic number", FreeSpace, |p| {
        p.tree(0, bno, |bytes| head(bytes, |head| head.magic += 1));
    }),
    damage("bno: another owner", FreeSpace, |p| {
        p.tree(0, bno, |bytes| head(bytes, |head| head.owner += 1));
    }),
    damage("bno: another place", FreeSpace, |p| {
        p.tree(0, bno, |bytes| head(bytes, |head| head.daddr += 8));
    }),
    damage("bno: another identity", FreeSpace, |p| {
        p.tree(0, bno, |bytes| head(bytes, |head| head.uuid[0] ^= 1));
    }),
    damage("bno: another level", FreeSpace, |p| {
        p.tree(0, bno, |bytes| head(bytes, |head| head.level += 1));
    }),
    damage("bno: another neighbour", FreeSpace, |p| {
        p.tree(0, bno, |bytes| head(bytes, |head| head.right = 77.into()));
    }),
    damage("bno: too many records", FreeSpace, |p| {
        p.tree(0, bno, |bytes| {
            head(bytes, |head| head.count = 60_000.into())
        });
    }),
    damage("bno: another key in the root", FreeSpace, |p| {
        p.tree(1, bno, |b| nth(b, 1, |key: &mut FreeRecord| key.start -= 1));
    }),
    damage("bno: a child twice", FreeSpace, |p| {
        p.tree(1, bno, |bytes| {
            let pointers = 56 + (bytes.len() - 56) / 12 * 8;
            bytes.copy_within(pointers..pointers + 4, pointers + 4);
        });
    }),
    damage("bno and cnt: used space is free", Space, |p| {
        let mut found = (0, 0);
        p.tree(0, bno, |b| {
            nth(b, 1, |record: &mut FreeRecord| {
                found = (record.start.get(), record.count.get());
                record.start -= 1;
            })
        });
        assert!(found.1 > 0);
    }),
    damage("cnt: another extent", FreeSpace, |p| {
        p.tree(0, cnt, |b| {
            nth(b, 0, |record: &mut FreeRecord| record.start += 1)
        });
    }),
    damage("inobt: a free bit more", InodeTree, |p| {
        p.tree(0, inobt, |b| {
            nth(b, 0, |record: &mut InodeRecord| record.free |= U64::new(1))
        });
    }),
    damage("inobt: a used inode is free", Inode, |p| {
        p.tree(0, inobt, |b| {
            nth(b, 0, |record: &mut InodeRecord| {
                record.free |= U64::new(1 << 5);
                record.free_count += 1;
            })
        });
    }),
    damage("inobt: the first chunk is gone", Space, |p| {
        p.tree(0, inobt, |bytes| {
            bytes.copy_within(72.., 56);
            head(bytes, |head| head.count -= 1);
        });
    }),
    damage("inobt: holes", InodeTree, |p| {
        p.tree(0, inobt, |b| {
            nth(b, 0, |r: &mut InodeRecord| r.hole_mask |= U16::new(0xff00))
        });
    }),
    damage("inobt: chunks overlap", InodeTree, |p| {
        p.tree(0, inobt, |b| {
            nth(b, 1, |record: &mut InodeRecord| record.start -= 8)
        });
    }),
    damage("finobt: a chunk is gone", FreeInodeTree, |p| {
        p.tree(0, finobt, |bytes| {
            bytes.copy_within(72.., 56);
            head(bytes, |head| head.count -= 1);
        });
    }),
    damage("finobt: another free bit", FreeInodeTree, |p| {
        p.tree(0, finobt, |b| {
            nth(b, 0, |r: &mut InodeRecord| {
                let free = r.free.get();
                let (low, used) = (free & free.wrapping_neg(), !free & (!free).wrapping_neg());
                r.free = (free & !low | used).into();
            })
        });
    }),
    damage("rmap: truncated", ReverseMap, |p| {
        p.tree(
            0,
            |reader| reader.rmap(3, &reader.agf(3).unwrap(), 0..u64::MAX),
            |bytes| {
                head(bytes, |head| head.count -= 1);
            },
        );
    }),
    damage("rmap: a shorter mapping", ReverseMap, |p| {
        p.tree(
            0,
            |reader| reader.rmap(3, &reader.agf(3).unwrap(), 0..u64::MAX),
            |bytes| {
                let count = usize::from(u16::from_be_bytes([bytes[6], bytes[7]]));
                nth(bytes, count - 1, |record: &mut RmapRecord| {
                    record.count -= 1
                });
            },
        );
    }),
    damage("rmap: another owner", ReverseMap, |p| {
        p.tree(0, rmap, |b| mapping(b, of_file, |record| record.owner += 1));
    }),
    damage("rmap: another offset", ReverseMap, |p| {
        p.tree(0, rmap, |b| {
            mapping(b, of_file, |record| record.offset += 1)
        });
    }),
    damage("rmap: unwritten, but it is not", ReverseMap, |p| {
        p.tree(0, rmap, |b| {
            mapping(b, of_file, |record| {
                record.offset |= U64::new(rmap_offset::UNWRITTEN);
            })
        });
    }),
    damage("rmap: an owner that cannot be", ReverseMap, |p| {
        p.tree(0, rmap, |b| {
            mapping(b, of_file, |record| record.owner = (-99_i64 as u64).into())
        });
    }),
    damage("rmap: highest key of a child", ReverseMap, |p| {
        p.tree(1, rmap, |bytes| {
            modify(bytes, 56 + 20, |key: &mut RmapKey| key.start += 1)
        });
    }),
    damage("rmap: lowest key of a child", ReverseMap, |p| {
        p.tree(1, rmap, |bytes| {
            modify(bytes, 56 + 40, |key: &mut RmapKey| key.owner += 1)
        });
    }),
    damage("refcount: another count", Refcount, |p| {
        p.tree(0, counts, |b| {
            nth(b, 0, |record: &mut RefcountRecord| record.references += 1)
        });
    }),
    damage("refcount: a record is gone", Refcount, |p| {
        p.tree(0, counts, |bytes| head(bytes, |head| head.count -= 1));
    }),
    damage("refcount: of one owner", Refcount, |p| {
        p.tree(0, counts, |b| {
            nth(b, 0, |r: &mut RefcountRecord| r.references = 1.into())
        });
    }),
];
