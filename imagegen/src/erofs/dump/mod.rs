//! Structures of an image for people and programs: the superblock, or an inode with its
//! attributes, the blocks of a directory, and where its contents lie.

mod parts;
mod text;

use super::format::superblock::{algorithm, compat, incompat};
use super::list::Row;
use super::read::{Area, Form, Image, Inode, Layout, Nid, Superblock, XattrPlace};
use crate::medium::Source;
use crate::shown;
use parts::{Blocks, Extents, Flaws};
use serde::Serialize;
use std::io::{self, Write};
use uuid::Uuid;

/// The superblock in JSON. Sizes are in bytes, times since 1970.
#[derive(Debug, Serialize)]
struct Super {
    block_size: u64,
    blocks: u64,
    inodes: u64,
    root: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    packed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metabox: Option<String>,
    uuid: Uuid,
    label: String,
    epoch: i64,
    nanoseconds: u32,
    built: i64,
    metadata_block: u32,
    shared_attributes_block: u32,
    extension_slots: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
    checksum_holds: Option<bool>,
    features: Vec<&'static str>,
    incompatible: Vec<&'static str>,
    algorithms: Vec<&'static str>,
    devices: Vec<Slot>,
    prefixes: Vec<Prefix>,
}

#[derive(Debug, Serialize)]
struct Slot {
    tag: String,
    blocks: u64,
    address: u64,
}

#[derive(Debug, Serialize)]
struct Prefix {
    base: u8,
    infix: String,
}

/// An inode in JSON. The blocks of a directory and the extents are read while they are
/// written: there may be more than memory holds.
#[derive(Debug, Serialize)]
#[serde(bound = "S: Source")]
struct Dumped<'a, S> {
    #[serde(flatten)]
    row: Row,
    area: &'static str,
    at: u64,
    form: Form,
    layout: Layout,
    ino: u32,
    attributes_size: u32,
    data: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_filter: Option<u32>,
    attributes: Vec<Attribute>,
    #[serde(skip_serializing_if = "Blocks::is_none")]
    directory: Blocks<'a, S>,
    extents: Extents<'a, S>,
    /// What cannot be read; known once all else was written.
    #[serde(skip_serializing_if = "Flaws::is_empty")]
    damaged: &'a Flaws,
}

#[derive(Debug, Serialize)]
struct Attribute {
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shared: Option<u32>,
    value: String,
}

/// What came of showing an inode.
#[derive(Debug)]
pub struct Outcome {
    /// Whether all of it could be read, as far as it was shown.
    pub sound: bool,
    /// Whether the output took it.
    pub output: io::Result<()>,
}

/// Writes the superblock of `image` to `out`.
///
/// # Errors
/// If `out` takes no more.
pub fn superblock<S: Source>(image: &Image<S>, json: bool, out: &mut dyn Write) -> io::Result<()> {
    let dumped = Super::new(image);
    match json {
        true => as_json(&dumped, out),
        false => text::superblock(&dumped, out),
    }
}

/// Writes `inode` of `image` to `out`; `path` is what it is called.
pub fn inode<S: Source>(
    image: &Image<S>,
    inode: &Inode,
    path: String,
    json: bool,
    out: &mut dyn Write,
) -> Outcome {
    let flaws = Flaws::default();
    let dumped = Dumped::new(image, inode, path, &flaws);
    let output = match json {
        true => as_json(&dumped, out),
        false => text::inode(&dumped, out),
    };
    Outcome {
        sound: flaws.is_empty(),
        output,
    }
}

fn as_json<T: Serialize>(value: &T, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

const COMPAT: [(u32, &str); 6] = [
    (compat::SB_CHKSUM, "checksum"),
    (compat::MTIME, "mtime"),
    (compat::XATTR_FILTER, "xattr-filter"),
    (compat::SHARED_XATTRS_IN_METABOX, "shared-xattrs-in-metabox"),
    (compat::PLAIN_XATTR_PREFIXES, "plain-xattr-prefixes"),
    (compat::ISHARE_XATTRS, "share-xattrs"),
];

/// Bits that mean two things are named after both.
const INCOMPAT: [(u32, &str); 9] = [
    (incompat::LZ4_0PADDING, "0padding"),
    (incompat::BIG_PCLUSTER, "compression-configs"),
    (incompat::CHUNKED_FILE, "chunks"),
    (incompat::DEVICE_TABLE, "device-table-or-head2"),
    (incompat::ZTAILPACKING, "ztailpacking"),
    (incompat::FRAGMENTS, "fragments-or-dedupe"),
    (incompat::XATTR_PREFIXES, "xattr-prefixes"),
    (incompat::BIT48, "48bit"),
    (incompat::METABOX, "metabox"),
];

const ALGORITHMS: [(u8, &str); 4] = [
    (algorithm::LZ4, "lz4"),
    (algorithm::LZMA, "lzma"),
    (algorithm::DEFLATE, "deflate"),
    (algorithm::ZSTD, "zstd"),
];

fn named(bits: u32, names: &[(u32, &'static str)]) -> Vec<&'static str> {
    let set = names.iter().filter(|(bit, _)| bits & bit != 0);
    set.map(|(_, name)| *name).collect()
}

impl Super {
    fn new<S: Source>(image: &Image<S>) -> Self {
        let superblock = image.superblock();
        let raw = &superblock.raw;
        let shown = |nid: Option<u64>| nid.map(|nid| Nid(nid).to_string());
        let summed = superblock.compat & compat::SB_CHKSUM != 0;
        let end = raw.label.iter().position(|byte| *byte == 0);
        let label = raw.label.get(..end.unwrap_or(raw.label.len()));
        let algorithms = ALGORITHMS.map(|(number, name)| (1u32 << number, name));
        Self {
            block_size: superblock.block_size() as u64,
            blocks: superblock.blocks,
            inodes: raw.inodes.get(),
            root: Nid(superblock.root).to_string(),
            packed: shown(superblock.packed),
            metabox: shown(superblock.metabox),
            uuid: Uuid::from_bytes(raw.uuid),
            label: shown::name(label.unwrap_or_default()),
            epoch: superblock.epoch,
            nanoseconds: raw.fixed_nanoseconds.get(),
            built: superblock.epoch.wrapping_add(raw.build_time.get().into()),
            metadata_block: raw.meta_block.get(),
            shared_attributes_block: raw.xattr_block.get(),
            extension_slots: raw.extension_slots,
            checksum: summed.then(|| format!("{:#010x}", raw.checksum.get())),
            checksum_holds: image.checksum_holds().ok().flatten(),
            features: named(superblock.compat, &COMPAT),
            incompatible: named(superblock.incompat, &INCOMPAT),
            algorithms: match compressed(superblock) {
                true => named(superblock.algorithms.into(), &algorithms),
                false => Vec::new(),
            },
            devices: slots(superblock),
            prefixes: prefixes(image),
        }
    }
}

/// Whether the image may hold compressed files.
fn compressed(superblock: &Superblock) -> bool {
    let bits = incompat::LZ4_0PADDING | incompat::COMPRESSION_CONFIGS;
    superblock.has(bits) || superblock.raw.algorithms_or_lz4_distance.get() != 0
}

fn slots(superblock: &Superblock) -> Vec<Slot> {
    let slots = superblock.devices.iter().map(|slot| Slot {
        tag: slot.name(),
        blocks: slot.blocks,
        address: slot.address,
    });
    slots.collect()
}

fn prefixes<S: Source>(image: &Image<S>) -> Vec<Prefix> {
    let prefixes = image.prefixes().iter().map(|prefix| Prefix {
        base: prefix.base,
        infix: shown::name(&prefix.infix),
    });
    prefixes.collect()
}

impl<'a, S: Source> Dumped<'a, S> {
    fn new(image: &'a Image<S>, inode: &'a Inode, path: String, flaws: &'a Flaws) -> Self {
        let xattrs = image.xattrs(inode).map_err(|error| flaws.note(&error));
        let xattrs = xattrs.unwrap_or_default();
        let row = Row::new(image, path.clone(), inode);
        let row = row.unwrap_or_else(|error| {
            flaws.note(&error);
            Row::without_target(path, inode)
        });
        let attributes = xattrs.list.iter().map(|xattr| Attribute {
            name: xattr.name.as_deref().map(shown::name),
            shared: match xattr.place {
                XattrPlace::Inode => None,
                XattrPlace::Shared(number) => Some(number),
            },
            value: shown::name(&xattr.value),
        });
        Self {
            row,
            area: match inode.area {
                Area::Image => "image",
                Area::Metabox => "metabox",
            },
            at: inode.at,
            form: inode.form,
            layout: inode.layout,
            ino: inode.ino,
            attributes_size: inode.xattr_size,
            data: inode.data,
            name_filter: (inode.xattr_size > 0).then_some(xattrs.filter),
            attributes: attributes.collect(),
            directory: Blocks::new(image, inode, flaws),
            extents: Extents::new(image, inode, flaws),
            damaged: flaws,
        }
    }
}
