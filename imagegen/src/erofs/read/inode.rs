//! An inode, verified so far that its contents and attributes can be looked for.

use super::error::{Result, damaged, unknown};
use super::{Area, Image, Place};
use crate::erofs::format::inode::{COMPACT, Compact, EXTENDED, Extended, NO_BLOCK, format, layout};
use crate::erofs::format::superblock::incompat;
use crate::erofs::format::{chunk, directory, xattr};
use crate::medium::Source;
use crate::tree::{Device, Time};
use serde::Serialize;

const NAME: &str = "inode";

/// An inode's fields, joined from their halves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub nid: u64,
    /// Where it lies.
    pub area: Area,
    /// Its first byte there.
    pub at: u64,
    /// How long it is.
    pub form: Form,
    /// How its contents lie.
    pub layout: Layout,
    /// Kind and permissions, as `st_mode`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names.
    pub links: u32,
    /// Bytes of contents.
    pub size: u64,
    /// When its contents were last changed.
    pub mtime: Time,
    /// A number for programs that know 32 bits.
    pub ino: u32,
    /// A directory without an entry for itself.
    pub dot_omitted: bool,
    /// Bytes of attributes after it.
    pub xattr_size: u32,
    /// The word whose meaning depends on kind and layout, with its upper half: first block,
    /// count of blocks, device number or chunk format.
    pub data: u64,
    /// None of its bytes lie in blocks: a flat inode all of holes.
    pub(crate) no_blocks: bool,
    /// Fields that should be zero are not.
    pub(crate) reserved: bool,
}

/// The two forms of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// 32 bytes.
    Compact,
    /// 64 bytes.
    Extended,
}

/// How contents lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// In blocks that follow each other.
    Plain,
    /// The same, the last bytes after the inode.
    Inline,
    /// Compressed, indexes of 8 bytes or encoded extents.
    Full,
    /// Compressed, compact indexes.
    Compact,
    /// In chunks.
    Chunks,
}

/// Kinds of `st_mode`.
pub(crate) mod kind {
    pub(crate) const MASK: u16 = 0o170_000;
    pub(crate) const FIFO: u16 = 0o010_000;
    pub(crate) const CHARACTER: u16 = 0o020_000;
    pub(crate) const DIRECTORY: u16 = 0o040_000;
    pub(crate) const BLOCK: u16 = 0o060_000;
    pub(crate) const FILE: u16 = 0o100_000;
    pub(crate) const SYMLINK: u16 = 0o120_000;
    pub(crate) const SOCKET: u16 = 0o140_000;
}

impl Inode {
    /// The kind, as in `st_mode` (`S_IFMT`).
    pub fn kind(&self) -> u16 {
        self.mode & kind::MASK
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind() == kind::DIRECTORY
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind() == kind::FILE
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind() == kind::SYMLINK
    }

    /// Whether its contents are compressed.
    pub fn is_compressed(&self) -> bool {
        matches!(self.layout, Layout::Full | Layout::Compact)
    }

    /// The device number of a device's inode (`new_encode_dev` of Linux).
    pub fn device(&self) -> Option<Device> {
        let number = self.data as u32;
        matches!(self.kind(), kind::CHARACTER | kind::BLOCK).then_some(Device {
            major: (number >> 8) & 0xfff,
            minor: (number & 0xff) | ((number >> 12) & 0xf_ff00),
        })
    }

    /// What a directory entry says of this kind.
    pub(crate) fn entry_kind(&self) -> u8 {
        match self.kind() {
            kind::FILE => directory::kind::FILE,
            kind::DIRECTORY => directory::kind::DIRECTORY,
            kind::CHARACTER => directory::kind::CHARACTER,
            kind::BLOCK => directory::kind::BLOCK,
            kind::FIFO => directory::kind::FIFO,
            kind::SOCKET => directory::kind::SOCKET,
            kind::SYMLINK => directory::kind::SYMLINK,
            _ => directory::kind::UNKNOWN,
        }
    }

    /// Bytes of the inode itself.
    pub fn length(&self) -> u64 {
        match self.form {
            Form::Compact => COMPACT as u64,
            Form::Extended => EXTENDED as u64,
        }
    }

    /// The byte after its attributes, where its layout goes on.
    pub(crate) fn body_end(&self) -> u64 {
        // Both are small and the inode lies within its area.
        self.at + self.length() + u64::from(self.xattr_size)
    }

    pub(crate) fn place(&self) -> Place {
        Place::Inode(self.nid)
    }

    pub(crate) fn contents_at(&self, offset: u64) -> Place {
        Place::Contents(self.nid, offset)
    }
}

impl<S: Source> Image<S> {
    /// Inode `nid`.
    ///
    /// # Errors
    /// If it cannot be read, has features that are not known, or is damaged.
    pub fn inode(&self, nid: u64) -> Result<Inode> {
        let (area, at) = self.inode_at(nid)?;
        if area == Area::Metabox && self.metabox.is_none() {
            let flaw = "it lies in the metabox, but there is none";
            return Err(damaged(NAME, Place::Inode(nid), flaw));
        }
        let first: Compact = self.structure(area, at)?;
        let bits = first.format.get();
        let place = Place::Inode(nid);
        if bits & !format::ALL != 0 {
            return Err(unknown(NAME, place, format!("format {bits:#06x}")));
        }
        let layout = match (bits >> format::LAYOUT_SHIFT) & format::LAYOUT_MASK {
            layout::PLAIN => Layout::Plain,
            layout::COMPRESSED_FULL => Layout::Full,
            layout::INLINE => Layout::Inline,
            layout::COMPRESSED_COMPACT => Layout::Compact,
            layout::CHUNKS => Layout::Chunks,
            other => return Err(unknown(NAME, place, format!("layout {other}"))),
        };
        let mut inode = if bits & format::EXTENDED == 0 {
            self.compact(&first, layout)
        } else {
            self.extended(&self.structure(area, at)?, layout)
        };
        (inode.nid, inode.area, inode.at) = (nid, area, at);
        self.verify(&inode)?;
        Ok(inode)
    }

    fn compact(&self, raw: &Compact, layout: Layout) -> Inode {
        let directory = raw.mode.get() & kind::MASK == kind::DIRECTORY;
        let one = raw.format.get() & format::NLINK_1 != 0 && !directory;
        let field = raw.nlink_or_high.get();
        let (links, high) = if one { (1, field) } else { (field.into(), 0) };
        Inode {
            nid: 0,
            area: Area::Image,
            at: 0,
            form: Form::Compact,
            layout,
            mode: raw.mode.get(),
            uid: raw.uid.get().into(),
            gid: raw.gid.get().into(),
            links,
            size: raw.size.get().into(),
            mtime: Time {
                seconds: (self.superblock.epoch).wrapping_add(raw.mtime.get().into()),
                nanoseconds: self.superblock.raw.fixed_nanoseconds.get(),
            },
            ino: raw.ino.get(),
            dot_omitted: directory && raw.format.get() & format::DOT_OMITTED != 0,
            xattr_size: xattr_size(raw.xattr_count.get()),
            data: join(raw.data.get(), high),
            no_blocks: raw.data.get() == NO_BLOCK && (!one || high == u16::MAX),
            reserved: raw.reserved.get() != 0,
        }
    }

    fn extended(&self, raw: &Extended, layout: Layout) -> Inode {
        let directory = raw.mode.get() & kind::MASK == kind::DIRECTORY;
        let bit = raw.format.get() & format::DOT_OMITTED != 0;
        let wide = self.superblock.has(incompat::BIT48);
        Inode {
            nid: 0,
            area: Area::Image,
            at: 0,
            form: Form::Extended,
            layout,
            mode: raw.mode.get(),
            uid: raw.uid.get(),
            gid: raw.gid.get(),
            links: raw.nlink.get(),
            size: raw.size.get(),
            mtime: Time {
                seconds: raw.mtime.get() as i64,
                nanoseconds: raw.mtime_nanoseconds.get(),
            },
            ino: raw.ino.get(),
            dot_omitted: directory && bit,
            xattr_size: xattr_size(raw.xattr_count.get()),
            data: join(raw.data.get(), raw.high.get()),
            no_blocks: raw.data.get() == NO_BLOCK && (!wide || raw.high.get() == u16::MAX),
            reserved: raw.reserved != [0; 16] || (bit && !directory),
        }
    }

    /// What everything else relies on.
    fn verify(&self, inode: &Inode) -> Result<()> {
        let bad = |flaw: String| Err(damaged(NAME, inode.place(), flaw));
        let end = self.area_size(inode.area);
        if inode.body_end() > end {
            return bad(format!("with its attributes it ends after byte {end}"));
        }
        if inode.entry_kind() == directory::kind::UNKNOWN {
            return bad(format!("mode {:#o} is of no kind", inode.mode));
        }
        if inode.size > i64::MAX as u64 {
            return bad(format!("a size of {} bytes", inode.size));
        }
        if inode.mtime.nanoseconds >= 1_000_000_000 {
            return bad(format!("{} nanoseconds", inode.mtime.nanoseconds));
        }
        let format = inode.data as u32;
        if inode.layout == Layout::Chunks && format & 0xffff & !chunk::format::ALL != 0 {
            return Err(unknown(NAME, inode.place(), format!("chunks {format:#x}")));
        }
        Ok(())
    }
}

fn join(low: u32, high: u16) -> u64 {
    u64::from(low) | (u64::from(high) << 32)
}

fn xattr_size(count: u16) -> u32 {
    match u32::from(count).checked_sub(1) {
        Some(more) => xattr::HEADER as u32 + more * xattr::ALIGN as u32,
        None => 0,
    }
}
