//! The bytes of an image, from the first to the last.

use super::attributes::Shared;
use super::directory::{self, Named, divide, kind_of};
use super::place::{Place, Places};
use super::tree::{Body, Entry, ROOT, Tree};
use super::{BLOCK, Version, inode};
use crate::erofs::format::composefs::{HAS_ACL, HEADER_VERSION, Header, MAGIC};
use crate::erofs::format::superblock::{self, AT, Superblock, compat};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use zerocopy::IntoBytes;

/// Names with a meaning in Linux, of which the header tells.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
/// Chunks of a hole, as many as a block holds.
const NO_CHUNKS: [u8; BLOCK as usize] = [0xff; BLOCK as usize];

/// An image that is laid out.
pub struct Image<'a> {
    tree: &'a Tree,
    version: Version,
    shared: Shared<'a>,
    places: Places,
}

impl<'a> Image<'a> {
    pub(super) fn new(
        tree: &'a Tree,
        version: Version,
        shared: Shared<'a>,
        places: Places,
    ) -> Self {
        Self {
            tree,
            version,
            shared,
            places,
        }
    }

    /// Its bytes.
    pub fn length(&self) -> u64 {
        u64::from(self.places.blocks) * BLOCK
    }

    /// Its objects, whiteouts for the object store included.
    pub fn objects(&self) -> u64 {
        self.places.order.len() as u64
    }

    /// Writes it: small pieces, in order.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut out = Out { out, at: 0 };
        out.write_all(self.header().as_bytes())?;
        out.fill(AT)?;
        out.write_all(self.superblock().as_bytes())?;
        let base = self.places.shared - self.xattr_block() * BLOCK;
        for (position, &number) in self.places.order.iter().enumerate() {
            let place = self.places.of_object(number);
            if let Some(object) = self.tree.object(number) {
                out.fill(place.at)?;
                inode::write(object, &place, position as u32, self.version, &mut out)?;
                self.shared.write_inode(&object.xattrs, base, &mut out)?;
                self.tail(&object.body, &place, &mut out)?;
            }
        }
        out.fill(self.places.shared)?;
        self.shared.write(&mut out)?;
        out.fill(self.places.data_block * BLOCK)?;
        for &number in &self.places.order {
            let place = self.places.of_object(number);
            if let Some(object) = self.tree.object(number)
                && place.blocks > 0
            {
                self.blocks(&object.body, &place, &mut out)?;
            }
        }
        Ok(())
    }

    fn header(&self) -> Header {
        let mut xattrs = self.tree.objects().flat_map(|object| &object.xattrs);
        let acl = xattrs.any(|xattr| ACLS.contains(&&*xattr.name));
        let flags = match acl && self.version != Version::V2 {
            true => HAS_ACL,
            false => 0,
        };
        Header {
            magic: MAGIC.into(),
            version: HEADER_VERSION.into(),
            flags: flags.into(),
            composefs_version: self.version.number().into(),
            unused: [0; 16],
        }
    }

    fn superblock(&self) -> Superblock {
        let root = self.places.of_object(ROOT);
        let mut superblock = Superblock {
            magic: superblock::MAGIC.into(),
            feature_compat: (compat::MTIME | compat::XATTR_FILTER).into(),
            block_bits: BLOCK.ilog2() as u8,
            root_nid_or_blocks_high: (root.nid() as u16).into(),
            inodes: self.objects().into(),
            blocks_low: self.places.blocks.into(),
            xattr_block: (self.xattr_block() as u32).into(),
            ..Superblock::default()
        };
        // Version 2 has no inodes that need a time.
        if self.version != Version::V2 {
            superblock.epoch = (self.places.epoch.seconds as u64).into();
            superblock.fixed_nanoseconds = self.places.epoch.nanoseconds.into();
        }
        superblock
    }

    /// Where numbers of shared attributes are counted from.
    fn xattr_block(&self) -> u64 {
        match self.version {
            Version::V2 => 0,
            _ => self.places.shared / BLOCK,
        }
    }

    /// What lies behind an inode's attributes.
    fn tail(&self, body: &Body, place: &Place, out: &mut Out<'_>) -> io::Result<()> {
        let length = place.tail as usize;
        match body {
            Body::Directory(entries) => {
                let division = divide(entries.keys().map(|name| name.len()));
                self.entries(entries, &[division.tail], out)
            }
            Body::Inline(bytes) | Body::Symlink(bytes) => {
                let before = bytes.len().saturating_sub(length);
                out.write_all(bytes.get(before..).unwrap_or_default())
            }
            Body::External(_) => out.write_all(NO_CHUNKS.get(..length).unwrap_or_default()),
            _ => Ok(()),
        }
    }

    /// What lies in blocks.
    fn blocks(&self, body: &Body, place: &Place, out: &mut Out<'_>) -> io::Result<()> {
        match body {
            Body::Directory(entries) => {
                let division = divide(entries.keys().map(|name| name.len()));
                self.entries(entries, &division.blocks, out)?;
            }
            Body::Inline(bytes) | Body::Symlink(bytes) => {
                let before = bytes.len().saturating_sub(place.tail as usize);
                out.write_all(bytes.get(..before).unwrap_or_default())?;
            }
            Body::External(_) => out.write_all(&NO_CHUNKS)?,
            _ => {}
        }
        out.fill(out.at.next_multiple_of(BLOCK))
    }

    /// Writes entries range by range, each but the last filled up to a block.
    fn entries(
        &self,
        entries: &BTreeMap<Box<[u8]>, Entry>,
        ranges: &[Range<usize>],
        out: &mut Out<'_>,
    ) -> io::Result<()> {
        let mut rest = entries.iter();
        // The tail comes after entries that lie in blocks.
        if let Some(first) = ranges.first()
            && let Some(before) = first.start.checked_sub(1)
        {
            rest.nth(before);
        }
        for (number, range) in ranges.iter().enumerate() {
            if number > 0 {
                out.fill(out.at.next_multiple_of(BLOCK))?;
            }
            let named: Vec<Named<'_>> = rest
                .by_ref()
                .take(range.len())
                .map(|(name, entry)| self.named(name, *entry))
                .collect();
            directory::write(&named, out)?;
        }
        Ok(())
    }

    fn named<'n>(&self, name: &'n [u8], entry: Entry) -> Named<'n> {
        let kind = self.tree.object(entry.object).map(|o| kind_of(&o.body));
        Named {
            name,
            nid: self.places.of_object(entry.object).nid(),
            kind: kind.unwrap_or_default(),
        }
    }
}

/// Counts what is written.
struct Out<'a> {
    out: &'a mut dyn Write,
    at: u64,
}

impl Out<'_> {
    /// Writes zeroes up to byte `to`.
    fn fill(&mut self, to: u64) -> io::Result<()> {
        const ZEROES: [u8; BLOCK as usize] = [0; BLOCK as usize];
        while self.at < to {
            let now = (to - self.at).min(BLOCK) as usize;
            self.write_all(ZEROES.get(..now).unwrap_or_default())?;
        }
        Ok(())
    }
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
