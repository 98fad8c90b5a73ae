//! Damages of the superblock, inodes, directories, attributes.

use super::{Damage, damage};
use crate::patient::Patient;
use imagegen::erofs::check::Kind::{
    Attributes, Checksum, Connectivity, Device, Directory, Inode, Links, Sums, Superblock, Symlink,
};
use imagegen::erofs::format::directory::{Entry, kind};
use imagegen::erofs::format::superblock::{DeviceSlot, incompat};
use imagegen::erofs::format::xattr::{self, ENTRY as XATTR, HEADER, Header};
use imagegen::erofs::format::{U16, U32, U64};

pub(super) const SUPERBLOCK: &[Damage] = &[
    damage("checksum", Checksum, |p| {
        p.seals = false;
        p.superblock(|sb| sb.label[3] ^= 1);
    }),
    damage("reserved", Superblock, |p| {
        p.superblock(|sb| sb.reserved[1] = 1)
    }),
    damage("nanoseconds", Superblock, |p| {
        p.superblock(|sb| sb.fixed_nanoseconds = u32::MAX.into());
    }),
    damage("more blocks than there are", Device, |p| {
        p.superblock(|sb| sb.blocks_low += 100);
    }),
    damage("cut off", Device, |p| {
        let length = p.bytes.len();
        p.bytes.truncate(length - 4096);
    }),
    damage("metadata beyond the end", Superblock, |p| {
        p.superblock(|sb| sb.meta_block = 1_000_000.into());
    }),
    damage("shared attributes beyond the end", Superblock, |p| {
        p.superblock(|sb| sb.xattr_block = 1_000_000.into());
    }),
    damage("fewer inodes than there are", Sums, |p| {
        p.superblock(|sb| sb.inodes = 5.into());
    }),
    damage("block size", Superblock, |p| {
        p.superblock(|sb| sb.block_bits = 40)
    }),
    damage("a metabox without a slot", Superblock, |p| {
        p.superblock(|sb| sb.feature_incompat |= U32::new(incompat::METABOX));
    }),
    damage("devices one over the other", Superblock, |p| {
        p.superblock(|sb| {
            sb.feature_incompat |= U32::new(incompat::DEVICE_TABLE);
            sb.extra_devices = 2.into();
            sb.device_table = 9.into();
        });
        for at in [9 * 128, 10 * 128] {
            p.modify(at, |slot: &mut DeviceSlot| {
                slot.address_low = 5000.into();
                slot.blocks_low = 9.into();
            });
        }
    }),
    damage("the root is a file", Directory, |p| {
        let nid = p.find("noise").nid;
        p.superblock(|sb| sb.root_nid_or_blocks_high = U16::new(nid as u16));
    }),
];

pub(super) const INODES: &[Damage] = &[
    damage("reserved", Inode, |p| {
        p.inode("noise", |i| i.reserved[7] = 1)
    }),
    damage("no links", Inode, |p| {
        p.inode("noise", |i| i.nlink = 0.into())
    }),
    damage("one link too many", Links, |p| {
        p.inode("noise", |i| i.nlink += 1)
    }),
    damage("links of a directory", Links, |p| {
        p.inode("deep", |i| i.nlink += 1)
    }),
    damage("no kind", Inode, |p| {
        p.inode("noise", |i| i.mode = 0.into())
    }),
    damage("unknown format", Inode, |p| {
        p.inode("noise", |i| i.format |= U16::new(1 << 9));
    }),
    damage("unknown layout", Inode, |p| {
        p.inode("noise", |i| i.format |= U16::new(7 << 1));
    }),
    damage("nanoseconds", Inode, |p| {
        p.inode("noise", |i| i.mtime_nanoseconds = 1_000_000_000.into());
    }),
    damage("size", Inode, |p| {
        p.inode("noise", |i| i.size = u64::MAX.into())
    }),
    damage("a fifo with contents", Inode, |p| {
        p.inode("fifo", |i| i.size = 5.into())
    }),
    damage("a directory without `.` and no feature", Inode, |p| {
        p.inode("deep", |i| i.format |= U16::new(1 << 4));
    }),
    damage("a link to nothing", Symlink, |p| {
        p.inode("link", |i| i.size = 0.into())
    }),
    damage("a link that is too long", Symlink, |p| {
        p.inode("link", |i| i.size = 4096.into());
    }),
    damage("a zero byte in a link", Symlink, |p| {
        let at = p.byte("link", 3);
        p.bytes[at as usize] = 0;
    }),
];

fn entry(p: &mut Patient, directory: &str, name: &str, change: impl FnOnce(&mut Entry)) {
    let at = p.entry(directory, name);
    p.modify(at, change);
}

fn rename(p: &mut Patient, directory: &str, name: &str, new: &str) {
    assert_eq!(name.len(), new.len());
    let at = p.name(directory, name);
    p.bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
}

pub(super) const DIRECTORIES: &[Damage] = &[
    damage("another kind", Directory, |p| {
        entry(p, "", "noise", |e| e.kind = kind::FIFO);
    }),
    damage("reserved", Directory, |p| {
        entry(p, "", "noise", |e| e.reserved = 1)
    }),
    damage("order", Directory, |p| rename(p, "names", "one", "xne")),
    damage("twice the same name", Directory, |p| {
        rename(p, "names", "one", "two")
    }),
    damage("a slash", Directory, |p| rename(p, "names", "one", "o/e")),
    damage("a zero byte", Directory, |p| {
        rename(p, "names", "one", "o\0e")
    }),
    damage("`.` is another", Directory, |p| {
        let nid = p.find("many").nid;
        entry(p, "names", ".", |e| e.nid = nid.into());
    }),
    damage("`..` is another", Directory, |p| {
        let nid = p.find("many").nid;
        entry(p, "names", "..", |e| e.nid = nid.into());
    }),
    damage("no `..`", Directory, |p| rename(p, "names", "..", ".a")),
    damage("where names begin", Directory, |p| {
        entry(p, "names", ".", |e| e.name_at = 7.into());
    }),
    damage("where a name begins", Directory, |p| {
        entry(p, "names", "two", |e| e.name_at -= 1);
    }),
    damage("two parents", Connectivity, |p| {
        let nid = p.find("deep/er").nid;
        entry(p, "", "many", |e| e.nid = nid.into());
    }),
    damage("a circle", Connectivity, |p| {
        let nid = p.find("").nid;
        entry(p, "deep", "er", |e| e.nid = nid.into());
    }),
    damage("an entry that leads beyond the end", Inode, |p| {
        entry(p, "", "noise", |e| e.nid = U64::new(1 << 40));
    }),
    damage("an entry that leads into no metabox", Inode, |p| {
        entry(p, "", "noise", |e| e.nid = U64::new(1 << 63));
    }),
    damage("an entry for another inode", Links, |p| {
        let nid = p.find("mixed").nid;
        entry(p, "", "noise", |e| e.nid = nid.into());
    }),
];

/// Where the attributes of a file with some begin.
fn xattrs(p: &Patient) -> u64 {
    let inode = p.find("sizes/text-512");
    assert!(inode.xattr_size > 0);
    inode.at + inode.length()
}

/// Where its first own attribute begins.
fn own(p: &Patient) -> u64 {
    let at = xattrs(p);
    let shared = u64::from(p.bytes[at as usize + 4]);
    at + HEADER as u64 + shared * 4
}

pub(super) const XATTRS: &[Damage] = &[
    damage("name filter", Attributes, |p| {
        let at = xattrs(p);
        p.modify(at, |h: &mut Header| h.name_filter = u32::MAX.into());
    }),
    damage("reserved", Attributes, |p| {
        let at = xattrs(p);
        p.modify(at, |h: &mut Header| h.reserved[2] = 1);
    }),
    damage("more shared ones than fit", Attributes, |p| {
        let at = xattrs(p);
        p.modify(at, |h: &mut Header| h.shared = 255);
    }),
    damage("a shared one beyond the end", Attributes, |p| {
        let at = xattrs(p) as usize;
        assert!(p.bytes[at + 4] > 0, "none is shared");
        p.bytes[at + HEADER..at + HEADER + 4].fill(0xff);
    }),
    damage("a value that is too long", Attributes, |p| {
        let at = own(p);
        p.modify(at, |e: &mut xattr::Entry| e.value_size = u16::MAX.into());
    }),
    damage("an unknown prefix", Attributes, |p| {
        let at = own(p);
        p.modify(at, |e: &mut xattr::Entry| e.index = 99);
    }),
    damage("a long prefix that is not there", Attributes, |p| {
        let at = own(p);
        p.modify(at, |e: &mut xattr::Entry| e.index = 0x80 | 7);
    }),
    damage("the same twice", Attributes, |p| {
        // The name of the own one becomes that of the shared one.
        let at = own(p) as usize;
        let length = usize::from(p.bytes[at]);
        let value = length - b"common".len();
        p.bytes[at] = b"common".len() as u8;
        p.modify(at as u64, |e: &mut xattr::Entry| {
            e.value_size += value as u16
        });
        p.bytes[at + XATTR..at + XATTR + 6].copy_from_slice(b"common");
    }),
];

pub(super) const PREFIXES: &[Damage] = &[
    damage("a prefix of no bytes", Superblock, |p| {
        let at = p.image().superblock().raw.xattr_prefix_at.get() as usize * 4;
        p.bytes[at..at + 2].fill(0);
    }),
    damage("more prefixes than there are", Superblock, |p| {
        p.superblock(|sb| sb.xattr_prefixes = 255);
    }),
];
