//! Extended attributes in all their forms, with remote values and parent pointers.

use super::block::Wanted;
use super::dir::leaf::{MAX_DEPTH, hash_block, node, records};
use super::{ForkMap, Inode, Label, Place, Reader, Result, Source, Which, shape, take};
use crate::xfs::format::attr::{
    LEAF_MAGIC, LeafEntry, LeafHeader, LocalName, ParentRecord, REMOTE_CRC_AT, REMOTE_MAGIC,
    RemoteHeader, RemoteName, ShortEntry, ShortHeader, flags,
};
use crate::xfs::format::dir::magic;
use crate::xfs::format::inode::format;
use zerocopy::FromBytes;

/// Longest value in bytes (`XATTR_SIZE_MAX` of Linux).
pub const MAX_VALUE: u32 = 65_536;

/// An attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Namespace and place: bits of `format::attr::flags`.
    pub flags: u8,
    /// Name without its namespace.
    pub name: Vec<u8>,
    /// Value, or where it lies.
    pub value: Value,
}

/// Value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The value itself.
    Here(Vec<u8>),
    /// It lies in blocks of its own: first block in the attribute fork, bytes.
    Remote {
        /// First block in the attribute fork.
        block: u32,
        /// Bytes.
        length: u32,
    },
}

/// A directory entry as the inode it names remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The directory.
    pub ino: u64,
    /// Its generation.
    pub generation: u32,
    /// Name of the entry.
    pub name: Vec<u8>,
}

impl Attribute {
    /// The parent pointer that this is; none if it is another attribute, or one that
    /// cannot be.
    pub fn parent(&self) -> Option<Parent> {
        let Value::Here(value) = &self.value else {
            return None;
        };
        if self.flags & flags::NAMESPACE != flags::PARENT {
            return None;
        }
        let record = ParentRecord::read_from_bytes(value).ok()?;
        Some(Parent {
            ino: record.ino.get(),
            generation: record.generation.get(),
            name: self.name.clone(),
        })
    }

    /// Blocks of `block_size` bytes that a value of `length` bytes fills.
    pub(crate) fn value_blocks(block_size: usize, length: u32) -> u64 {
        let room = block_size - size_of::<RemoteHeader>();
        (length as usize).div_ceil(room) as u64
    }
}

/// A leaf of attributes.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) header: LeafHeader,
    pub(crate) entries: Vec<LeafEntry>,
    /// Attributes in the order of `entries`, each with the bytes it takes at its place.
    pub(crate) attributes: Vec<(Attribute, usize)>,
}

/// A block of the tree of attributes.
pub(crate) enum AttrBlock {
    Leaf(Leaf),
    Node(super::dir::leaf::Node),
}

const NAME: &str = "attribute leaf";

impl<S: Source> Reader<S> {
    /// The attributes of `inode`, parent pointers and incomplete ones too. Holds one leaf.
    ///
    /// # Errors
    /// If the short form or the extents of the fork are damaged.
    pub fn attributes(&self, inode: &Inode) -> Result<Attributes<'_, S>> {
        let (map, next, ready) = if inode.core.fork_offset == 0 {
            (None, None, Vec::new())
        } else if inode.form(Which::Attr) == format::LOCAL {
            (None, None, short(inode)?)
        } else {
            let map = ForkMap::load(self, inode, Which::Attr)?;
            let next = (!map.extents().is_empty()).then_some(0);
            (Some(map), next, Vec::new())
        };
        let left = map.as_ref().map_or(0, ForkMap::blocks);
        Ok(Attributes {
            reader: self,
            map,
            ready: ready.into_iter(),
            next,
            left,
            depth: MAX_DEPTH + 1,
        })
    }

    /// The value of `attribute` of `inode`.
    ///
    /// # Errors
    /// If it is remote, and a block of it damaged.
    pub fn attribute_value(&self, inode: &Inode, attribute: &Attribute) -> Result<Vec<u8>> {
        match &attribute.value {
            Value::Here(value) => Ok(value.clone()),
            Value::Remote { block, length } => {
                let map = ForkMap::load(self, inode, Which::Attr)?;
                remote(self, &map, (*block).into(), *length)
            }
        }
    }
}

/// Attributes, one after the other.
pub struct Attributes<'r, S> {
    reader: &'r Reader<S>,
    map: Option<ForkMap>,
    ready: std::vec::IntoIter<Attribute>,
    next: Option<u64>,
    /// Blocks that may still be read: there are not more in the fork.
    left: u64,
    depth: u16,
}

impl<S: Source> Attributes<'_, S> {
    fn load(&mut self, offset: u64) -> Result<()> {
        let Some(map) = &self.map else {
            return Ok(());
        };
        let bad = |text: &str| Err(shape(NAME, map.place(offset), text));
        if self.left == 0 {
            return bad("the leaves form a ring");
        }
        self.left -= 1;
        match block(self.reader, map, offset)? {
            AttrBlock::Node(node) if node.level < self.depth => {
                self.depth = node.level;
                self.next = node.entries.first().map(|entry| entry.before.get().into());
            }
            AttrBlock::Node(_) => return bad("a node where a lower one should be"),
            AttrBlock::Leaf(leaf) => {
                self.depth = 0;
                let forward = leaf.header.info.forward.get();
                self.next = (forward != 0).then_some(forward.into());
                let attributes = leaf.attributes.into_iter().map(|(attribute, _)| attribute);
                self.ready = attributes.collect::<Vec<_>>().into_iter();
            }
        }
        Ok(())
    }
}

impl<S: Source> Iterator for Attributes<'_, S> {
    type Item = Result<Attribute>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(attribute) = self.ready.next() {
                return Some(Ok(attribute));
            }
            let offset = self.next.take()?;
            if let Err(error) = self.load(offset) {
                return Some(Err(error));
            }
        }
    }
}

/// The attributes of the short form.
pub(crate) fn short(inode: &Inode) -> Result<Vec<Attribute>> {
    const NAME: &str = "short attributes";
    let place = Place::Inode(inode.ino);
    let fork = inode.fork(Which::Attr);
    let header: ShortHeader = take(NAME, place, fork, 0)?;
    let size = usize::from(header.size.get());
    let bad = |at: usize| shape(NAME, place, format!("{size} bytes, cut off at byte {at}"));
    let fork = fork.get(..size).ok_or_else(|| bad(0))?;
    let mut at = size_of::<ShortHeader>();
    let mut all = Vec::new();
    for _ in 0..header.count {
        let entry: ShortEntry = take(NAME, place, fork, at)?;
        at += size_of::<ShortEntry>();
        let (name, value) = (
            usize::from(entry.name_length),
            usize::from(entry.value_length),
        );
        let (Some(name_bytes), Some(value_bytes)) = (
            fork.get(at..at + name),
            fork.get(at + name..at + name + value),
        ) else {
            return Err(bad(at));
        };
        let attribute = Attribute {
            flags: entry.flags,
            name: name_bytes.to_vec(),
            value: Value::Here(value_bytes.to_vec()),
        };
        check_attribute(NAME, place, &attribute)?;
        all.push(attribute);
        at += name + value;
    }
    if at != size {
        return Err(bad(at));
    }
    Ok(all)
}

fn check_attribute(structure: &'static str, place: Place, attribute: &Attribute) -> Result<()> {
    let namespaces = (attribute.flags & flags::NAMESPACE).count_ones();
    let known = flags::LOCAL | flags::NAMESPACE | flags::INCOMPLETE;
    let flaw = if attribute.name.is_empty() {
        "an empty name"
    } else if namespaces > 1 || attribute.flags & !known != 0 {
        "flags that cannot be"
    } else if attribute.flags & flags::PARENT != 0 && attribute.parent().is_none() {
        "a parent pointer that cannot be"
    } else {
        return Ok(());
    };
    let name = attribute.name.escape_ascii();
    let text = format!("\"{name}\" with flags {:#x}: {flaw}", attribute.flags);
    Err(shape(structure, place, text))
}

/// The leaf or node at block `offset`.
pub(crate) fn block<S: Source>(
    reader: &Reader<S>,
    map: &ForkMap,
    offset: u64,
) -> Result<AttrBlock> {
    let allowed = [LEAF_MAGIC.into(), magic::NODE.into()];
    let (bytes, info) = hash_block(reader, map, offset, NAME, &allowed)?;
    if info.magic.get() == magic::NODE {
        return Ok(AttrBlock::Node(node(map, offset, &bytes)?));
    }
    leaf(map.place(offset), &bytes).map(AttrBlock::Leaf)
}

fn leaf(place: Place, bytes: &[u8]) -> Result<Leaf> {
    let header: LeafHeader = take(NAME, place, bytes, 0)?;
    let count = usize::from(header.count.get());
    let entries = records::<LeafEntry>(bytes, size_of::<LeafHeader>(), count)
        .ok_or_else(|| shape(NAME, place, format!("{count} attributes")))?;
    let floor = size_of::<LeafHeader>() + count * size_of::<LeafEntry>();
    let attributes = entries.iter().map(|entry| {
        let at = usize::from(entry.name_at.get());
        let found = (at >= floor)
            .then(|| read_name(bytes, at, entry.flags))
            .flatten();
        let Some((attribute, length)) = found else {
            let text = format!("an attribute at byte {at} that is cut off");
            return Err(shape(NAME, place, text));
        };
        check_attribute(NAME, place, &attribute)?;
        Ok((attribute, length))
    });
    let attributes = attributes.collect::<Result<Vec<_>>>()?;
    Ok(Leaf {
        header,
        entries,
        attributes,
    })
}

/// The attribute whose name entry begins at byte `at`, and its length there.
fn read_name(bytes: &[u8], at: usize, entry_flags: u8) -> Option<(Attribute, usize)> {
    let rest = bytes.get(at..)?;
    let (name, value, length) = if entry_flags & flags::LOCAL != 0 {
        let (local, rest) = LocalName::read_from_prefix(rest).ok()?;
        let (name, value) = (
            usize::from(local.name_length),
            local.value_length.get().into(),
        );
        let value = rest.get(name..)?.get(..value)?;
        let length = size_of::<LocalName>() + name + value.len();
        (rest.get(..name)?, Value::Here(value.to_vec()), length)
    } else {
        let (remote, rest) = RemoteName::read_from_prefix(rest).ok()?;
        let name = usize::from(remote.name_length);
        let value = Value::Remote {
            block: remote.value_block.get(),
            length: remote.value_length.get(),
        };
        // Two bytes more than its fields have, which the kernel counts as well
        // (`xfs_attr_leaf_entsize_remote`).
        (rest.get(..name)?, value, size_of::<RemoteName>() + 2 + name)
    };
    let attribute = Attribute {
        flags: entry_flags,
        name: name.to_vec(),
        value,
    };
    Some((attribute, length.next_multiple_of(4)))
}

/// A remote value of `length` bytes that begins at block `first`.
pub(crate) fn remote<S: Source>(
    reader: &Reader<S>,
    map: &ForkMap,
    first: u64,
    length: u32,
) -> Result<Vec<u8>> {
    const NAME: &str = "remote attribute value";
    if length > MAX_VALUE {
        return Err(shape(NAME, map.place(first), format!("{length} bytes")));
    }
    let length = length as usize;
    let mut value = Vec::with_capacity(length);
    let mut offset = first;
    while value.len() < length {
        let place = map.place(offset);
        let (bytes, daddr) = map.read(reader, offset, 1)?;
        let header: RemoteHeader = take(NAME, place, &bytes, 0)?;
        let label = Label {
            magic: header.magic.get(),
            uuid: header.uuid,
            daddr: Some(header.daddr.get()),
            owner: Some(header.owner.get()),
            lsn: header.lsn.get(),
        };
        let wanted = Wanted {
            structure: NAME,
            place,
            magic: &[REMOTE_MAGIC],
            crc_at: REMOTE_CRC_AT,
            daddr,
            owner: map.ino,
        };
        reader.verify(&bytes, &label, &wanted)?;
        let room = bytes.len() - size_of::<RemoteHeader>();
        let part = room.min(length - value.len());
        let (at, said) = (header.offset.get() as usize, header.bytes.get() as usize);
        if at != value.len() || said != part {
            let text = format!(
                "bytes {at} and {said} more instead of {} and {part}",
                value.len()
            );
            return Err(shape(NAME, place, text));
        }
        let body = bytes.get(size_of::<RemoteHeader>()..);
        value.extend(body.and_then(|body| body.get(..part)).unwrap_or_default());
        offset += 1;
    }
    Ok(value)
}
