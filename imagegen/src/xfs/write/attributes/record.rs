//! Attributes in memory: each as a leaf holds it, one after the other in the order they
//! came, and an index of where they begin.

use crate::xfs::format::attr::{LocalName, RemoteName, ShortEntry, ShortHeader, flags};
use crate::xfs::write::ForkError;
use crate::xfs::write::output::put;
use zerocopy::{FromBytes, IntoBytes};

/// Alignment of names and values in a leaf (`XFS_ATTR_LEAF_NAME_ALIGN`).
const ALIGN: usize = 4;
/// Bytes before the name of a remote value as far as its size counts: two of the
/// structure's padding are part of the format (`xfs_attr_leaf_entsize_remote`).
const REMOTE_OVERHEAD: usize = size_of::<RemoteName>() + 2;

/// Where an attribute lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Indexed {
    /// Hash of its name.
    pub(super) hash: u32,
    /// Where its record begins, in units of [`ALIGN`].
    at: u32,
    /// Bits of `format::attr::flags`, with LOCAL.
    pub(super) flags: u8,
}

/// All attributes of an inode.
#[derive(Debug, Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
    index: Vec<Indexed>,
    /// Names and values of all in short form.
    short_bytes: usize,
    /// Whether some value is too long for it.
    no_short: bool,
}

/// Whether an attribute's value lies in the leaf (`xfs_attr_leaf_newentsize`): if it
/// takes less than three quarters of a block (`xfs_attr_leaf_entsize_local_max`). Parent
/// pointers always do.
pub(super) fn is_local(block_size: usize, name: &[u8], value: &[u8]) -> bool {
    local_size(name.len(), value.len()) < block_size / 2 + block_size / 4
}

fn local_size(name: usize, value: usize) -> usize {
    (size_of::<LocalName>() + name + value).next_multiple_of(ALIGN)
}

fn remote_size(name: usize) -> usize {
    (REMOTE_OVERHEAD + name).next_multiple_of(ALIGN)
}

impl Records {
    /// Adds an attribute whose value lies in the leaf.
    pub(super) fn add_local(
        &mut self,
        hash: u32,
        namespace: u8,
        name_length: u8,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), ForkError> {
        let header = LocalName {
            value_length: (value.len() as u16).into(),
            name_length,
        };
        self.add(
            hash,
            namespace | flags::LOCAL,
            local_size(name.len(), value.len()),
            &[header.as_bytes(), name, value],
        )?;
        self.short_bytes += size_of::<ShortEntry>() + name.len() + value.len();
        self.no_short |= value.len() > usize::from(u8::MAX);
        Ok(())
    }

    /// Adds an attribute whose value lies elsewhere; returns which record it is.
    pub(super) fn add_remote(
        &mut self,
        hash: u32,
        namespace: u8,
        name_length: u8,
        name: &[u8],
        value: &[u8],
    ) -> Result<u32, ForkError> {
        let header = RemoteName {
            value_block: 0.into(),
            value_length: (value.len() as u32).into(),
            name_length,
        };
        self.no_short = true;
        self.add(
            hash,
            namespace,
            remote_size(name.len()),
            &[header.as_bytes(), name],
        )
    }

    fn add(
        &mut self,
        hash: u32,
        flags: u8,
        size: usize,
        parts: &[&[u8]],
    ) -> Result<u32, ForkError> {
        let begin = self.bytes.len();
        let at =
            u32::try_from(begin / ALIGN).map_err(|_| ForkError::TooMany { what: "attributes" })?;
        self.bytes.reserve(size);
        parts.iter().for_each(|part| self.bytes.extend(*part));
        self.bytes.resize(begin + size, 0);
        self.index.push(Indexed { hash, at, flags });
        Ok(at)
    }

    /// Says in the record that its value begins at block `block` of the fork.
    pub(super) fn set_value_block(&mut self, at: u32, block: u32) {
        put(&mut self.bytes, at as usize * ALIGN, &block.to_be_bytes());
    }

    /// Where all are: in the order they came, or that of their hashes once sorted.
    pub(super) fn index(&self) -> &[Indexed] {
        &self.index
    }

    /// Sorts the index by hash.
    pub(super) fn sort(&mut self) {
        self.index.sort_unstable();
    }

    /// An attribute's bytes in a leaf.
    pub(super) fn record(&self, indexed: &Indexed) -> &[u8] {
        let rest = &self.bytes[indexed.at as usize * ALIGN..];
        let size = if indexed.flags & flags::LOCAL == 0 {
            remote_size(usize::from(rest[size_of::<RemoteName>() - 1]))
        } else {
            let (name, value) = local_lengths(rest);
            local_size(name, value)
        };
        &rest[..size]
    }

    /// Bytes of the short form, if there is one (`xfs_attr_shortform_addname`).
    pub(super) fn short_size(&self) -> Option<usize> {
        let short = !self.no_short && self.index.len() <= usize::from(u8::MAX);
        let size = size_of::<ShortHeader>() + self.short_bytes;
        (short && u16::try_from(size).is_ok()).then_some(size)
    }

    /// The short form, of `size` bytes.
    pub(super) fn short_form(&self, size: usize) -> Vec<u8> {
        let header = ShortHeader {
            size: (size as u16).into(),
            count: self.index.len() as u8,
            pad: 0,
        };
        let mut bytes = header.as_bytes().to_vec();
        for indexed in &self.index {
            let record = self.record(indexed);
            let (name, value) = local_lengths(record);
            let entry = ShortEntry {
                name_length: name as u8,
                value_length: value as u8,
                flags: indexed.flags & flags::NAMESPACE,
            };
            bytes.extend(entry.as_bytes());
            bytes.extend(&record[size_of::<LocalName>()..][..name + value]);
        }
        bytes
    }
}

/// Lengths of name and value of a record whose value lies in the leaf.
fn local_lengths(record: &[u8]) -> (usize, usize) {
    LocalName::read_from_prefix(record).map_or((0, 0), |(header, _)| {
        (header.name_length.into(), header.value_length.get().into())
    })
}
