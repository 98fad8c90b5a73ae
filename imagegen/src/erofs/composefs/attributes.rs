//! Extended attributes in an image: behind an inode, or once for all that have the same.

use super::Version;
use crate::erofs::format::xattr::{
    ALIGN, ENTRY, Entry, FILTER_SEED, HEADER, Header, PREFIXES, index,
};
use crate::tree::Xattr;
use rustc_hash::FxHashMap;
use std::cmp::Ordering;
use std::io::{self, Write};
use twox_hash::XxHash32;
use zerocopy::IntoBytes;

/// Shared attributes an inode refers to at most in versions 0 and 1; further ones it has
/// for itself.
const MOST_SHARED: usize = 128;
/// In version 2 all that are shared must be referred to.
pub(super) const MOST_SHARED_V2: usize = 253; // besides metacopy and redirect
/// Largest value: its size has 16 bits.
const VALUE_MAX: usize = u16::MAX as usize;
/// What of an attribute cannot be kept. Names of at most 255 bytes can, escaped as well.
pub(super) fn check(xattr: &Xattr) -> Result<(), String> {
    match xattr.value.len() {
        length if length > VALUE_MAX => Err(format!("{length} bytes, at most {VALUE_MAX} fit")),
        _ => Ok(()),
    }
}

/// Index of a name's prefix, and the rest of the name.
fn split(name: &[u8], version: Version) -> (u8, &[u8]) {
    let known = |&&(number, _): &&(u8, &[u8])| {
        version == Version::V2 || number != index::LUSTRE // libcomposefs does not know it
    };
    PREFIXES
        .iter()
        .filter(known)
        .find_map(|(number, prefix)| Some((*number, name.strip_prefix(*prefix)?)))
        .unwrap_or((0, name))
}

/// Which attributes are shared, and where each lies among them.
pub(super) struct Shared<'a> {
    version: Version,
    /// Offsets of those that are.
    offsets: FxHashMap<(&'a [u8], &'a [u8]), u64>,
    order: Vec<&'a Xattr>,
    length: u64,
}

/// What becomes of an inode's attributes.
pub(super) struct Parted<'a> {
    /// Offsets among the shared ones.
    shared: Vec<u64>,
    own: Vec<&'a Xattr>,
}

fn key(xattr: &Xattr) -> (&[u8], &[u8]) {
    (&xattr.name, &xattr.value)
}

impl<'a> Shared<'a> {
    /// Of the attributes of all inodes those that come more than once.
    pub(super) fn of(version: Version, all: impl Iterator<Item = &'a Xattr>) -> Self {
        let mut seen: FxHashMap<_, u64> = FxHashMap::default();
        let mut order = Vec::new();
        for xattr in all {
            let times = seen.entry(key(xattr)).or_insert(0);
            *times += 1;
            if *times == 2 {
                order.push(xattr);
            }
        }
        drop(seen);
        order.sort_unstable_by(|a, b| compare(version, a, b));
        let mut offsets = FxHashMap::default();
        let mut length = 0;
        for xattr in &order {
            offsets.insert(key(xattr), length);
            length += size(xattr, version) as u64;
        }
        Self {
            version,
            offsets,
            order,
            length,
        }
    }

    /// Bytes of all of them.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Divides an inode's attributes.
    pub(super) fn part(&self, xattrs: &'a [Xattr]) -> Parted<'a> {
        let most = match self.version {
            Version::V2 => usize::MAX,
            _ => MOST_SHARED,
        };
        let (mut shared, mut own) = (Vec::new(), Vec::new());
        for xattr in xattrs {
            match self.offsets.get(&key(xattr)) {
                Some(&offset) if shared.len() < most => shared.push(offset),
                _ => own.push(xattr),
            }
        }
        Parted { shared, own }
    }

    /// Bytes that an inode's attributes take behind it.
    pub(super) fn size(&self, xattrs: &'a [Xattr]) -> usize {
        if xattrs.is_empty() {
            return 0;
        }
        let Parted { shared, own } = self.part(xattrs);
        let own: usize = own.iter().map(|xattr| size(xattr, self.version)).sum();
        HEADER + shared.len() * ALIGN + own
    }

    /// Writes what lies behind an inode; `base` is where the shared ones begin, counted from
    /// their first block.
    pub(super) fn write_inode(
        &self,
        xattrs: &'a [Xattr],
        base: u64,
        out: &mut impl Write,
    ) -> io::Result<()> {
        if xattrs.is_empty() {
            return Ok(());
        }
        let Parted { shared, own } = self.part(xattrs);
        let header = Header {
            name_filter: (!filter(xattrs, self.version)).into(),
            shared: shared.len() as u8,
            ..Header::default()
        };
        out.write_all(header.as_bytes())?;
        for offset in shared {
            let number = ((base + offset) / ALIGN as u64) as u32;
            out.write_all(&number.to_le_bytes())?;
        }
        own.iter()
            .try_for_each(|xattr| write(xattr, self.version, out))
    }

    /// Writes the shared ones.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.order
            .iter()
            .try_for_each(|xattr| write(xattr, self.version, out))
    }
}

/// The order of shared attributes: from the last name to the first, longest value first; in
/// version 2 from the first to the last, by the index of the prefix.
fn compare(version: Version, a: &Xattr, b: &Xattr) -> Ordering {
    match version {
        Version::V2 => {
            let names = split(&a.name, version).cmp(&split(&b.name, version));
            names.then(a.value.cmp(&b.value))
        }
        _ => {
            let names = b.name.cmp(&a.name);
            let lengths = b.value.len().cmp(&a.value.len());
            names.then(lengths).then(b.value.cmp(&a.value))
        }
    }
}

/// Bit per name that is there.
fn filter(xattrs: &[Xattr], version: Version) -> u32 {
    xattrs.iter().fold(0, |bits, xattr| {
        let (index, rest) = split(&xattr.name, version);
        let hash = XxHash32::oneshot(FILTER_SEED.wrapping_add(index.into()), rest);
        bits | 1 << (hash % 32)
    })
}

fn size(xattr: &Xattr, version: Version) -> usize {
    let (_, rest) = split(&xattr.name, version);
    (ENTRY + rest.len() + xattr.value.len()).next_multiple_of(ALIGN)
}

fn write(xattr: &Xattr, version: Version, out: &mut impl Write) -> io::Result<()> {
    let (index, rest) = split(&xattr.name, version);
    let entry = Entry {
        name_length: rest.len() as u8,
        index,
        value_size: (xattr.value.len() as u16).into(),
    };
    let length = ENTRY + rest.len() + xattr.value.len();
    let filled = length.next_multiple_of(ALIGN) - length;
    out.write_all(entry.as_bytes())?;
    out.write_all(rest)?;
    out.write_all(&xattr.value)?;
    out.write_all(&[0; ALIGN][..filled])
}
