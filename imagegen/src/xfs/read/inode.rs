//! An inode, verified so far that its forks can be read without further doubt about
//! where they lie (`xfs_dinode_verify` in `xfs_inode_buf.c`).

use super::block::Wanted;
use super::{Label, Place, Reader, Result, Source, Which, shape, take};
use crate::xfs::format::U32;
use crate::xfs::format::inode::{self, CRC_AT, FORKS_AT, flags2, format, kind};
use zerocopy::FromBytes;

/// An inode with its forks as bytes.
#[derive(Debug, Clone)]
pub struct Inode {
    /// Its number.
    pub ino: u64,
    /// Its fields.
    pub core: inode::Inode,
    pub(crate) bytes: Vec<u8>,
}

const NAME: &str = "inode";

impl Inode {
    pub(crate) fn parse<S: Source>(reader: &Reader<S>, ino: u64, bytes: Vec<u8>) -> Result<Self> {
        let place = Place::Inode(ino);
        let core: inode::Inode = take(NAME, place, &bytes, 0)?;
        let label = Label {
            magic: core.magic.get().into(),
            uuid: core.uuid,
            daddr: None,
            owner: Some(core.ino.get()),
            lsn: core.lsn.get(),
        };
        let wanted = Wanted {
            structure: NAME,
            place,
            magic: &[inode::MAGIC.into()],
            crc_at: CRC_AT,
            daddr: 0,
            owner: ino,
        };
        reader.verify(&bytes, &label, &wanted)?;
        if core.version != 3 {
            return Err(shape(NAME, place, format!("version {}", core.version)));
        }
        let inode = Self { ino, core, bytes };
        if inode.core.mode.get() != 0 {
            inode.verify_forks()?;
        }
        Ok(inode)
    }

    fn verify_forks(&self) -> Result<()> {
        let bad = |text: String| Err(shape(NAME, Place::Inode(self.ino), text));
        let core = &self.core;
        let fits = match (self.kind(), core.format) {
            (kind::REGULAR, form) => matches!(form, format::EXTENTS | format::BTREE),
            (kind::DIRECTORY | kind::SYMLINK, form) => {
                matches!(form, format::LOCAL | format::EXTENTS | format::BTREE)
            }
            (kind::CHARACTER | kind::BLOCK | kind::FIFO | kind::SOCKET, form) => {
                form == format::DEV
            }
            _ => return bad(format!("mode {:#o}", core.mode)),
        };
        if !fits {
            return bad(format!(
                "mode {:#o} with data fork of form {}",
                core.mode, core.format
            ));
        }
        if core.size.get() > i64::MAX as u64 {
            return bad(format!("size {}", core.size));
        }
        let forks = self.bytes.len() - FORKS_AT;
        if usize::from(core.fork_offset) * 8 >= forks && core.fork_offset != 0 {
            return bad(format!(
                "attribute fork at {} of {forks} bytes",
                core.fork_offset
            ));
        }
        let attr = match core.attr_format {
            format::LOCAL | format::BTREE => core.fork_offset != 0,
            form => form == format::EXTENTS,
        };
        if !attr {
            return bad(format!("attribute fork of form {}", core.attr_format));
        }
        self.verify_counts(Which::Data)?;
        self.verify_counts(Which::Attr)
    }

    fn verify_counts(&self, which: Which) -> Result<()> {
        let (form, extents) = (self.form(which), self.extent_count(which));
        let bytes = self.fork(which).len();
        let right = match form {
            format::LOCAL | format::DEV => extents == 0,
            format::EXTENTS => extents <= (bytes / 16) as u64,
            _ => extents > (bytes / 16) as u64,
        };
        let inline =
            which == Which::Data && form == format::LOCAL && self.core.size.get() > bytes as u64;
        if right && !inline {
            return Ok(());
        }
        let text = format!("{which} fork of form {form} and {bytes} bytes: {extents} extents");
        Err(shape(NAME, Place::Inode(self.ino), text))
    }

    /// Kind of file: one of [`kind`].
    pub fn kind(&self) -> u16 {
        self.core.mode.get() & kind::MASK
    }

    /// Form of a fork: one of [`mod@format`].
    pub fn form(&self, which: Which) -> u8 {
        match which {
            Which::Data => self.core.format,
            Which::Attr => self.core.attr_format,
        }
    }

    /// Bytes of a fork; none of an attribute fork that does not exist.
    pub fn fork(&self, which: Which) -> &[u8] {
        let forks = self.bytes.get(FORKS_AT..).unwrap_or_default();
        let split = usize::from(self.core.fork_offset) * 8;
        match (which, split) {
            (Which::Data, 0) => forks,
            (Which::Attr, 0) => &[],
            (Which::Data, _) => forks.get(..split).unwrap_or_default(),
            (Which::Attr, _) => forks.get(split..).unwrap_or_default(),
        }
    }

    /// Whether extent counters are of 64 bits.
    pub fn big_counters(&self) -> bool {
        self.core.flags2.get() & flags2::NREXT64 != 0
    }

    /// Extents of a fork, by its counter.
    pub fn extent_count(&self, which: Which) -> u64 {
        let core = &self.core;
        match (which, self.big_counters()) {
            (Which::Data, true) => core.big_nextents.get(),
            (Which::Data, false) => core.nextents.get().into(),
            (Which::Attr, true) => core.nextents.get().into(),
            (Which::Attr, false) => core.small_anextents.get().into(),
        }
    }

    /// Major and minor number of a device node; none of other files.
    pub fn device(&self) -> Option<(u32, u32)> {
        let number = U32::read_from_prefix(self.fork(Which::Data)).ok()?.0.get();
        let device = matches!(self.kind(), kind::BLOCK | kind::CHARACTER);
        device.then_some((number >> 18 & 0x3fff, number & 0x3_ffff))
    }

    /// Generation.
    pub fn generation(&self) -> u32 {
        self.core.generation.get()
    }
}
