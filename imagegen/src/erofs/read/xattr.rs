//! Extended attributes: those beside an inode, those that inodes share, and the long
//! prefixes of their names.

use super::error::{Result, damaged};
use super::{Area, Image, Inode};
use crate::erofs::format::superblock::compat;
use crate::erofs::format::xattr::{
    ALIGN, ENTRY, Entry, FILTER_SEED, HEADER, Header, LONG_PREFIX, PREFIXES,
};
use crate::erofs::format::{U16, U32};
use crate::medium::Source;
use twox_hash::XxHash32;

const NAME: &str = "attributes";

/// A long prefix of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// The short prefix that it begins with.
    pub base: u8,
    /// What follows that.
    pub infix: Vec<u8>,
}

/// An attribute as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Its full name; none if its prefix says nothing, which the kernel does not show.
    pub name: Option<Vec<u8>>,
    /// Its value.
    pub value: Vec<u8>,
    /// Where it was.
    pub place: XattrPlace,
    /// Index of its short prefix and the name without, for the name filter.
    pub(crate) key: (u8, Vec<u8>),
}

/// Where an attribute lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrPlace {
    /// Beside its inode.
    Inode,
    /// Among the shared ones, by number.
    Shared(u32),
}

/// All attributes of an inode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Xattrs {
    /// One by one.
    pub list: Vec<Xattr>,
    /// The name filter: a bit is 1 if no name of that hash is there.
    pub filter: u32,
    /// Bytes of the header that should be zero are not.
    pub(crate) reserved: bool,
}

impl Xattrs {
    /// Whether overlayfs finds the contents elsewhere, as of composefs in a store of objects:
    /// those of the file are zeroes that stand for them.
    #[must_use]
    pub fn lead_elsewhere(&self) -> bool {
        let mut names = self.list.iter().filter_map(|xattr| xattr.name.as_deref());
        names.any(|name| name == b"trusted.overlay.metacopy")
    }
}

impl<S: Source> Image<S> {
    /// The attributes of `inode`.
    ///
    /// # Errors
    /// If they cannot be read or are damaged.
    pub fn xattrs(&self, inode: &Inode) -> Result<Xattrs> {
        if inode.xattr_size == 0 {
            return Ok(Xattrs::default());
        }
        let mut body = vec![0; inode.xattr_size as usize];
        self.metadata(inode.area, inode.at + inode.length(), &mut body)?;
        let bad = |flaw: String| damaged(NAME, inode.place(), flaw);
        let short = || bad(format!("{} bytes are too few", body.len()));
        let (header, rest) = body.split_at_checked(HEADER).ok_or_else(short)?;
        let header: Header = zerocopy::FromBytes::read_from_bytes(header).map_err(|_| short())?;
        let shared = usize::from(header.shared) * ALIGN;
        let (shared, mut own) = rest.split_at_checked(shared).ok_or_else(short)?;
        let mut all = Xattrs {
            list: Vec::new(),
            filter: header.name_filter.get(),
            reserved: header.reserved != [0; 7],
        };
        while !own.is_empty() {
            let (xattr, rest) = self
                .xattr(own, XattrPlace::Inode)
                .ok_or_else(|| bad("an attribute that is longer than all together".into()))?;
            all.list.push(xattr);
            own = rest;
        }
        for number in shared.chunks_exact(ALIGN) {
            let number = zerocopy::FromBytes::read_from_bytes(number).map_or(0, U32::get);
            all.list.push(self.shared(inode, number)?);
        }
        Ok(all)
    }

    /// The attribute that `bytes` begin with, and what follows it.
    fn xattr<'b>(&self, bytes: &'b [u8], place: XattrPlace) -> Option<(Xattr, &'b [u8])> {
        let entry: Entry = zerocopy::FromBytes::read_from_bytes(bytes.get(..ENTRY)?).ok()?;
        let name_end = ENTRY + usize::from(entry.name_length);
        let end = name_end + usize::from(entry.value_size.get());
        let name = bytes.get(ENTRY..name_end)?;
        let value = bytes.get(name_end..end)?.to_vec();
        let key = self.key(entry.index, name);
        let xattr = Xattr {
            name: full_name(&key),
            value,
            place,
            key,
        };
        Some((xattr, bytes.get(end.next_multiple_of(ALIGN)..)?))
    }

    fn shared(&self, inode: &Inode, number: u32) -> Result<Xattr> {
        let area = match self.superblock.compat & compat::SHARED_XATTRS_IN_METABOX {
            0 => Area::Image,
            _ => Area::Metabox,
        };
        let first = u64::from(self.superblock.raw.xattr_block.get());
        let at = (first << self.superblock.block_bits) + u64::from(number) * ALIGN as u64;
        let entry: Entry = self.structure(area, at)?;
        let length = ENTRY + usize::from(entry.name_length) + usize::from(entry.value_size.get());
        // What fills the last one up may not be there.
        let mut bytes = vec![0; length.next_multiple_of(ALIGN)];
        let part = bytes.get_mut(..length).unwrap_or_default();
        self.metadata(area, at, part)?;
        let xattr = self.xattr(&bytes, XattrPlace::Shared(number));
        let (xattr, _) = xattr.ok_or_else(|| {
            let flaw = format!("shared attribute {number} is cut off");
            damaged(NAME, inode.place(), flaw)
        })?;
        Ok(xattr)
    }

    /// The short prefix that `index` begins with, and what follows it.
    fn key(&self, index: u8, name: &[u8]) -> (u8, Vec<u8>) {
        if index & LONG_PREFIX == 0 {
            return (index, name.to_vec());
        }
        match self.prefixes.get(usize::from(index & !LONG_PREFIX)) {
            Some(prefix) => (prefix.base, [&prefix.infix, name].concat()),
            None => (index, name.to_vec()),
        }
    }

    /// The long prefixes.
    pub fn prefixes(&self) -> &[Prefix] {
        &self.prefixes
    }

    pub(super) fn read_prefixes(&self) -> Result<Vec<Prefix>> {
        let count = self.superblock.raw.xattr_prefixes;
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut at = u64::from(self.superblock.raw.xattr_prefix_at.get()) * ALIGN as u64;
        let plain = self.superblock.compat & compat::PLAIN_XATTR_PREFIXES != 0;
        let inode = match (&self.metabox, &self.packed) {
            _ if plain => None,
            (Some(inode), _) | (None, Some(inode)) => Some(inode),
            (None, None) => None,
        };
        let mut contents = inode.map(|inode| self.contents(inode)).transpose()?;
        let mut read = |at: u64, bytes: &mut [u8]| match &mut contents {
            Some(contents) => contents.read_exact_at(at, bytes),
            None => self.metadata(Area::Image, at, bytes),
        };
        let mut prefixes = Vec::with_capacity(count.into());
        for number in 0..count {
            let mut length = [0; size_of::<U16>()];
            read(at, &mut length)?;
            let mut bytes = vec![0; u16::from_le_bytes(length).into()];
            read(at + size_of::<U16>() as u64, &mut bytes)?;
            let (base, infix) = match bytes.split_first() {
                Some((base, infix)) if infix.len() <= 255 => (*base, infix),
                _ => {
                    let flaw = format!("long prefix {number} has {} bytes", bytes.len());
                    return Err(damaged(NAME, super::Place::Byte(at), flaw));
                }
            };
            let infix = infix.to_vec();
            at += (size_of::<U16>() + bytes.len()) as u64;
            at = at.next_multiple_of(ALIGN as u64);
            prefixes.push(Prefix { base, infix });
        }
        Ok(prefixes)
    }
}

fn full_name((index, name): &(u8, Vec<u8>)) -> Option<Vec<u8>> {
    let (_, prefix) = PREFIXES.iter().find(|(number, _)| number == index)?;
    Some([prefix, &name[..]].concat())
}

impl Xattr {
    /// The bit of the name filter that stands for its name.
    pub(crate) fn filter_bit(&self) -> u32 {
        let (index, name) = &self.key;
        let seed = FILTER_SEED.wrapping_add((*index).into());
        1 << (XxHash32::oneshot(seed, name) % 32)
    }
}
