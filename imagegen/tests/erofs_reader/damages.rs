//! Named damages, each with the kind of finding that the checker must report.

use crate::patient::Patient;
use imagegen::erofs::check::Kind::{
    self, Attributes, Checksum, Connectivity, Contents, Device, Directory, Inode, Links, Map,
    Space, Sums, Superblock, Symlink,
};
use imagegen::erofs::format::compressed::{Index, MapHeader};
use imagegen::erofs::format::directory::{Entry, kind};
use imagegen::erofs::format::superblock::{DeviceSlot, incompat};
use imagegen::erofs::format::xattr::{self, ENTRY as XATTR, HEADER, Header};
use imagegen::erofs::format::{U16, U32, U64, chunk, compressed};
use imagegen::erofs::read::Where;

/// One damage.
pub(crate) struct Damage {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) act: fn(&mut Patient),
}

const fn damage(name: &'static str, kind: Kind, act: fn(&mut Patient)) -> Damage {
    Damage { name, kind, act }
}

/// Damages by the options of the image that they are done to.
pub(crate) const ALL: &[(&str, &[Damage])] = &[
    (PLAIN, SUPERBLOCK),
    (PLAIN, INODES),
    (PLAIN, DIRECTORIES),
    (PLAIN, XATTRS),
    (PLAIN, FLAT),
    ("-Eforce-inode-extended --xattr-prefix=user.long.", PREFIXES),
    ("--chunksize=4096 -Eforce-inode-extended", CHUNKS),
    ("-zlz4 -Elegacy-compress", FULL),
    ("-zlz4 -C16384", COMPACT),
    ("-E48bit -zlz4hc -C65536", ENCODED),
    ("-zlz4 -Eall-fragments", FRAGMENTS),
    ("-zlzma,1", GARBAGE),
    ("-zdeflate", GARBAGE),
    ("-zzstd,1", GARBAGE),
    ("-m4096", METABOX),
];

const PLAIN: &str = "-Eforce-inode-extended";

const SUPERBLOCK: &[Damage] = &[
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

const INODES: &[Damage] = &[
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

const DIRECTORIES: &[Damage] = &[
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

const XATTRS: &[Damage] = &[
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

const PREFIXES: &[Damage] = &[
    damage("a prefix of no bytes", Superblock, |p| {
        let at = p.image().superblock().raw.xattr_prefix_at.get() as usize * 4;
        p.bytes[at..at + 2].fill(0);
    }),
    damage("more prefixes than there are", Superblock, |p| {
        p.superblock(|sb| sb.xattr_prefixes = 255);
    }),
];

const FLAT: &[Damage] = &[
    damage("contents beyond the end", Map, |p| {
        p.inode("noise", |i| i.data = 1_000_000.into());
    }),
    damage("a tail that crosses a block", Map, |p| {
        p.inode("sizes/text-100", |i| i.size = 4090.into());
    }),
    damage("two files in the same blocks", Space, |p| {
        let block = p.find("noise").data as u32;
        p.inode("mixed", |i| i.data = block.into());
    }),
    damage("a file over inodes", Space, |p| {
        let block = p.find("mixed").at / 4096;
        p.inode("noise", |i| i.data = (block as u32).into());
    }),
];

const CHUNKS: &[Damage] = &[
    damage("no feature", Inode, |p| {
        p.superblock(|sb| sb.feature_incompat &= U32::new(!incompat::CHUNKED_FILE));
    }),
    damage("unknown format", Inode, |p| {
        p.inode("noise", |i| i.data |= U32::new(1 << 12));
    }),
    damage("a chunk beyond the end", Map, |p| {
        let indexes = p.find("noise").data as u32 & chunk::format::INDEXES != 0;
        let at = p
            .body("noise")
            .next_multiple_of(if indexes { 8 } else { 4 });
        let at = at + if indexes { 4 } else { 0 };
        p.modify(at, |block: &mut U32| *block = 1_000_000.into());
    }),
    damage("a table beyond the end", Map, |p| {
        p.inode("noise", |i| i.size = U64::new(1 << 50));
    }),
];

/// Where the map header of a file lies.
fn header(p: &Patient, path: &str) -> u64 {
    p.body(path).next_multiple_of(compressed::MAP_ALIGN)
}

/// The entry of a cluster in full indexes.
fn full(p: &mut Patient, path: &str, number: u64, change: impl FnOnce(&mut Index)) {
    let at = header(p, path) + 16 + number * 8;
    p.modify(at, change);
}

const FULL: &[Damage] = &[
    damage("an extent that begins beyond its cluster", Map, |p| {
        full(p, "large", 0, |index| index.offset = 5000.into());
    }),
    damage("the first cluster has no head", Map, |p| {
        full(p, "large", 0, |index| {
            index.advise = 2.into();
            index.value = 1.into();
        });
    }),
    damage("a head that is itself", Map, |p| {
        full(p, "large", 1, |index| {
            index.advise = 2.into();
            index.value = 0.into();
        });
    }),
    damage("a count of blocks where all have one", Map, |p| {
        full(p, "large", 1, |index| {
            index.advise = 2.into();
            index.value = U32::new(compressed::BLOCK_COUNT.into());
        });
    }),
    damage("a block beyond the end", Map, |p| {
        full(p, "large", 0, |index| index.value = 1_000_000.into());
    }),
    damage("plain, longer than its blocks", Map, |p| {
        full(p, "large", 0, |index| index.advise = 0.into());
    }),
    damage("an algorithm that does not exist", Map, |p| {
        let at = header(p, "large");
        p.modify(at, |h: &mut MapHeader| h.algorithms = 9);
    }),
    damage("an algorithm that the superblock does not name", Map, |p| {
        let at = header(p, "large");
        p.modify(at, |h: &mut MapHeader| h.algorithms = 2);
    }),
    damage("the same cluster twice", Space, |p| {
        let extents = p.extents("large");
        let Where::Device(_, at, _) = extents[0].place else {
            panic!("{extents:?}");
        };
        full(p, "similar", 0, |index| {
            assert_ne!(u64::from(index.value.get()), at / 4096);
            index.value = U32::new((at / 4096) as u32);
        });
    }),
    damage("nothing but zeroes", Contents, zeroes),
];

const COMPACT: &[Damage] = &[
    damage("a fragment, but no packed inode", Map, |p| {
        let at = header(p, "large");
        p.modify(at, |h: &mut MapHeader| h.cluster_bits = 0x80);
    }),
    damage("one kind of head with several blocks", Map, |p| {
        let at = header(p, "large");
        p.modify(at, |h: &mut MapHeader| h.advise ^= U16::new(2));
    }),
    damage("clusters that are too large", Map, |p| {
        let at = header(p, "large");
        p.modify(at, |h: &mut MapHeader| h.cluster_bits = 9);
    }),
    damage("nothing but inner clusters", Map, |p| {
        let at = header(p, "large") as usize + 8;
        p.bytes[at..at + 600].fill(0xaa);
    }),
    damage("a block number beyond the end", Map, |p| {
        let at = header(p, "large") as usize + 8;
        let pack = if at.is_multiple_of(32) {
            at + 28
        } else {
            at + 4
        };
        p.bytes[pack + 2] = 0x77;
    }),
    damage("garbage", Contents, garbage),
    damage("nothing but zeroes", Contents, zeroes),
];

const ENCODED: &[Damage] = &[
    damage("more extents than fit", Map, |p| {
        let at = encoded(p);
        p.modify(at, |h: &mut MapHeader| {
            h.word = u32::MAX.into();
            h.advise |= U16::new(2 << 1);
        });
    }),
    damage("an order that cannot be", Map, |p| {
        let at = record(p) + 16 + 12;
        p.bytes[at..at + 4].fill(0xff);
    }),
    damage("no extent for the beginning", Map, |p| {
        let at = record(p) + 12;
        p.bytes[at] = 1;
    }),
    damage("an algorithm that does not exist", Map, |p| {
        let at = record(p);
        p.bytes[at + 3] = 0xf0;
    }),
    damage("a cluster of more than 1 MiB", Map, |p| {
        let at = record(p);
        p.bytes[at..at + 3].copy_from_slice(&[0xff, 0xff, 0x1f]);
    }),
    damage("garbage", Contents, garbage),
];

/// The map header of the large file, which has encoded extents.
fn encoded(p: &Patient) -> u64 {
    let at = header(p, "large");
    assert_eq!(p.bytes[at as usize + 4] & 1, 1, "no encoded extents");
    at
}

/// Its first record.
fn record(p: &Patient) -> usize {
    let at = encoded(p) as usize;
    let length = 4usize << ((p.bytes[at + 4] >> 1) & 3);
    let first = (at + 8).next_multiple_of(length);
    first + if length == 4 { 8 } else { 0 }
}

const FRAGMENTS: &[Damage] = &[
    damage("a fragment beyond the packed inode", Map, |p| {
        let at = header(p, "mixed") as usize;
        p.bytes[at + 3] = 0x7f;
    }),
    damage("the packed inode in the metabox", Superblock, |p| {
        p.superblock(|sb| sb.packed_nid |= U64::new(1 << 63));
    }),
    damage("the packed inode a fragment of itself", Superblock, |p| {
        let packed = p.image().superblock().packed.unwrap();
        let inode = p.image().inode(packed).unwrap();
        let at = (inode.at + inode.length()).next_multiple_of(8) as usize;
        p.bytes[at + 7] |= 0x80;
        // Somebody must read from it.
        let nid = p.find("mixed").nid;
        p.superblock(|sb| {
            sb.xattr_prefixes = 1;
            sb.packed_nid = packed.into();
            let _ = nid;
        });
    }),
];

const GARBAGE: &[Damage] = &[
    damage("garbage", Contents, garbage),
    damage("nothing but zeroes", Contents, zeroes),
];

const METABOX: &[Damage] = &[
    damage("no slot", Superblock, |p| {
        p.superblock(|sb| sb.extension_slots = 0)
    }),
    damage("the metabox in itself", Superblock, |p| {
        p.bytes[1024 + 128 + 7] |= 0x80;
    }),
    damage("nothing but zeroes", Contents, |p| {
        let image = p.image();
        let inode = image.metabox().unwrap();
        let mut extents = image.map(inode).unwrap().extents().map(Result::unwrap);
        let extent = extents
            .find(|extent| extent.coding.is_compressed())
            .unwrap();
        let Where::Device(_, at, length) = extent.place else {
            panic!("{extent:?}");
        };
        let (at, length) = (at as usize, length as usize);
        p.bytes[at..at + length].fill(0);
    }),
];

fn cluster(p: &Patient) -> (usize, usize) {
    let extents = p.extents("large");
    let mut extents = extents
        .iter()
        .filter(|extent| extent.coding.is_compressed());
    match extents.nth(1).unwrap().place {
        Where::Device(_, at, length) => (at as usize, length as usize),
        other => panic!("{other:?}"),
    }
}

fn garbage(p: &mut Patient) {
    let (at, length) = cluster(p);
    let mut state = 7u32;
    for byte in &mut p.bytes[at + length / 2..at + length] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
}

fn zeroes(p: &mut Patient) {
    let (at, length) = cluster(p);
    p.bytes[at..at + length].fill(0);
}
