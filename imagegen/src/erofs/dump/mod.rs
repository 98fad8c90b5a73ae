//! Structures of an image for people and programs: the superblock, or an inode with its
//! attributes, the blocks of a directory, and where its contents lie.

mod text;

use super::format::superblock::{algorithm, compat, incompat};
use super::list::Row;
use super::read::{
    Area, Coding, Extent, Form, Image, Inode, Layout, Nid, ReadError, Superblock, Where,
    XattrPlace, directory_block,
};
use crate::medium::Source;
use crate::shown;
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

/// An inode in JSON.
#[derive(Debug, Serialize)]
struct Dumped {
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    directory: Vec<Block>,
    extents: Vec<Mapped>,
    /// What cannot be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damaged: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Attribute {
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shared: Option<u32>,
    value: String,
}

/// A block of a directory.
#[derive(Debug, Serialize)]
struct Block {
    offset: u64,
    entries: Vec<Name>,
}

#[derive(Debug, Serialize)]
struct Name {
    name: String,
    nid: String,
    kind: u8,
}

/// An extent: where in the contents, and where it is stored.
#[derive(Debug, Serialize)]
struct Mapped {
    offset: u64,
    length: u64,
    place: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<u64>,
    coding: Coding,
    partial: bool,
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

/// Writes `inode` of `image` to `out`; `path` is what it is called. Returns whether all of
/// it could be read.
///
/// # Errors
/// If `out` takes no more.
pub fn inode<S: Source>(
    image: &Image<S>,
    inode: &Inode,
    path: String,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<bool> {
    let dumped = Dumped::new(image, inode, path);
    match json {
        true => as_json(&dumped, out)?,
        false => text::inode(&dumped, out)?,
    }
    Ok(dumped.damaged.is_empty())
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

impl Dumped {
    fn new<S: Source>(image: &Image<S>, inode: &Inode, path: String) -> Self {
        let mut damaged = Vec::new();
        let mut note = |error: ReadError| damaged.push(error.to_string());
        let xattrs = image.xattrs(inode).map_err(&mut note).unwrap_or_default();
        let extents = extents(image, inode, &mut note);
        let row = Row::new(image, path.clone(), inode);
        let row = row.unwrap_or_else(|error| {
            note(error);
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
            directory: blocks(image, inode, &mut note),
            extents,
            damaged,
        }
    }
}

fn extents<S: Source>(
    image: &Image<S>,
    inode: &Inode,
    note: &mut impl FnMut(ReadError),
) -> Vec<Mapped> {
    if !inode.is_file() && !inode.is_directory() && !inode.is_symlink() {
        return Vec::new();
    }
    let mut list = Vec::new();
    match image.map(inode) {
        Ok(map) => {
            for extent in map.extents() {
                match extent {
                    Ok(extent) => list.push(Mapped::from(extent)),
                    Err(error) => note(error),
                }
            }
        }
        Err(error) => note(error),
    }
    list
}

fn blocks<S: Source>(
    image: &Image<S>,
    inode: &Inode,
    note: &mut impl FnMut(ReadError),
) -> Vec<Block> {
    let mut blocks = Vec::new();
    if !inode.is_directory() {
        return blocks;
    }
    let mut contents = match image.contents(inode) {
        Ok(contents) => contents,
        // The extents say so.
        Err(_) => return blocks,
    };
    for number in 0..contents.blocks() {
        let entries = match directory_block(&mut contents, number) {
            Ok(entries) => entries,
            Err(error) => {
                note(error);
                break;
            }
        };
        let names = entries.iter().map(|entry| Name {
            name: shown::name(&entry.name),
            nid: Nid(entry.nid).to_string(),
            kind: entry.kind,
        });
        blocks.push(Block {
            offset: number * contents.block_size() as u64,
            entries: names.collect(),
        });
    }
    blocks
}

impl From<Extent> for Mapped {
    fn from(extent: Extent) -> Self {
        let (place, device, at, stored) = match extent.place {
            Where::Hole => ("hole", None, None, None),
            Where::Device(device, at, stored) => ("device", Some(device.0), Some(at), Some(stored)),
            Where::Metadata(Area::Image, at, stored) => ("inline", Some(0), Some(at), Some(stored)),
            Where::Metadata(Area::Metabox, at, stored) => ("metabox", None, Some(at), Some(stored)),
            Where::Packed(at) => ("packed", None, Some(at), None),
        };
        Self {
            offset: extent.offset,
            length: extent.length,
            place,
            device,
            at,
            stored,
            coding: extent.coding,
            partial: extent.partial,
        }
    }
}
