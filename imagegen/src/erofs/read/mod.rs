//! Reading EROFS, trusting nothing: whatever `mkfs.erofs` 1.9 writes, and whatever else
//! somebody put into a file.
//!
//! An [`Image`] stands on anything that gives bytes at offsets, the image itself and the
//! devices of its table. Whatever it hands out was verified as far as a place or a length
//! is computed from it. It writes nothing, and several threads may use one.
//!
//! Bounds: nothing is allocated by a length from the disk that was not compared with what
//! can be there; a compressed cluster gives at most 12 MiB; contents in the packed inode
//! or in the metabox lead to other inodes at most twice, because these are refused
//! fragments, or to lie in the metabox, themselves; two caches hold at most
//! `PIECES` and `CLUSTERS` bytes. How often a hostile image makes a caller ask is the
//! caller's to bound: directories may lead in circles.

mod cluster;
mod contents;
mod decode;
mod directory;
mod error;
mod inode;
mod map;
mod path;
mod superblock;
mod walk;
mod xattr;

pub use contents::Contents;
pub(crate) use directory::block as directory_block;
pub use directory::{Entries, Entry};
pub use error::{Device, Nid, Place, ReadError, Result};
pub(crate) use inode::kind;
pub use inode::{Form, Inode, Layout};
pub use map::{Coding, Extent, Extents, Map, Where};
pub(crate) use path::brief;
pub use path::show;
pub use superblock::{Slot, Superblock};
pub use walk::{Step, Walk};
pub use xattr::{Prefix, Xattr, XattrPlace, Xattrs};

pub(crate) use error::damaged;

use super::format::directory::IN_METABOX;
use super::format::{NID_UNIT, compressed};
use crate::medium::{Cache, Source};
use cluster::ClusterKey;
use parking_lot::Mutex;
use std::sync::Arc;
use zerocopy::FromBytes;

/// Bytes of metadata that are kept.
const PIECES: usize = 16 << 20;
/// Decoded bytes that are kept.
const CLUSTERS: usize = 32 << 20;
/// Metadata is read in pieces of so many bytes.
const PIECE: u64 = 16 << 10;

/// Where metadata lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// The image itself.
    Image,
    /// The contents of the metabox inode.
    Metabox,
}

impl Area {
    /// A place there.
    pub(crate) fn place(self, at: u64) -> Place {
        match self {
            Self::Image => Place::Byte(at),
            Self::Metabox => Place::Metabox(at),
        }
    }
}

/// An image that is read.
#[derive(Debug)]
pub struct Image<S> {
    sources: Vec<(S, u64)>,
    superblock: Superblock,
    metabox: Option<Inode>,
    packed: Option<Inode>,
    prefixes: Vec<Prefix>,
    pieces: Mutex<Cache<(Area, u64)>>,
    clusters: Mutex<Cache<ClusterKey>>,
    forms: Mutex<Vec<(u64, map::Form)>>,
}

impl<S: Source> Image<S> {
    /// Opens the image that `source` holds, whose data lies there only.
    ///
    /// # Errors
    /// If it cannot be read, is no EROFS that this program knows, or its superblock is
    /// damaged. Data on devices that are not given is an error only when it is read.
    pub fn open(source: S) -> Result<Self> {
        Self::with_devices(source, Vec::new())
    }

    /// The same with the devices of its table, in the table's order; the last ones may be
    /// left out.
    ///
    /// # Errors
    /// As [`Self::open`], and if there are more devices than the table has.
    pub fn with_devices(source: S, devices: Vec<S>) -> Result<Self> {
        let given = devices.len();
        let mut sources = Vec::with_capacity(given + 1);
        for (number, source) in std::iter::once(source).chain(devices).enumerate() {
            let device = Device(u16::try_from(number).unwrap_or(u16::MAX));
            let size = source.size().map_err(|cause| ReadError::Io {
                device,
                offset: 0,
                length: 0,
                cause,
            })?;
            sources.push((source, size));
        }
        let superblock = match sources.first() {
            Some((source, size)) => Superblock::read(source, *size)?,
            None => return Err(ReadError::Devices { given, named: 0 }),
        };
        let named = superblock.devices.len();
        if given > named {
            return Err(ReadError::Devices { given, named });
        }
        let mut image = Self {
            sources,
            superblock,
            metabox: None,
            packed: None,
            prefixes: Vec::new(),
            pieces: Mutex::new(Cache::new(PIECES)),
            clusters: Mutex::new(Cache::new(CLUSTERS)),
            forms: Mutex::default(),
        };
        let special = |nid: Option<u64>| nid.map(|nid| image.inode(nid)).transpose();
        let (metabox, packed) = (
            special(image.superblock.metabox)?,
            special(image.superblock.packed)?,
        );
        (image.metabox, image.packed) = (metabox, packed);
        image.prefixes = image.read_prefixes()?;
        Ok(image)
    }

    /// What the image says of itself.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Whether the superblock's checksum holds; none if it has none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn checksum_holds(&self) -> Result<Option<bool>> {
        match self.sources.first() {
            Some((source, size)) => self.superblock.checksum_holds(source, *size),
            None => Ok(None),
        }
    }

    /// The root directory.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn root(&self) -> Result<Inode> {
        self.inode(self.superblock.root)
    }

    /// The inode that holds fragments.
    pub fn packed(&self) -> Option<&Inode> {
        self.packed.as_ref()
    }

    /// The inode that holds compressed metadata.
    pub fn metabox(&self) -> Option<&Inode> {
        self.metabox.as_ref()
    }

    /// Bytes of a device; none if it was not given.
    pub fn device_size(&self, device: Device) -> Option<u64> {
        let (_, size) = self.sources.get(usize::from(device.0))?;
        Some(*size)
    }

    /// Bytes of what holds metadata.
    pub fn area_size(&self, area: Area) -> u64 {
        match area {
            Area::Image => self.device_size(Device(0)).unwrap_or(0),
            Area::Metabox => self.metabox.as_ref().map_or(0, |inode| inode.size),
        }
    }

    /// Where inode `nid` begins.
    pub(crate) fn inode_at(&self, nid: u64) -> Result<(Area, u64)> {
        let number = nid & !IN_METABOX;
        let bad = || damaged("inode", Place::Inode(nid), "its number is beyond any image");
        let at = number.checked_mul(NID_UNIT).ok_or_else(bad)?;
        if nid & IN_METABOX != 0 {
            return Ok((Area::Metabox, at));
        }
        let base = u64::from(self.superblock.raw.meta_block.get()) << self.superblock.block_bits;
        let at = base.checked_add(at).ok_or_else(bad)?;
        Ok((Area::Image, at))
    }

    /// `length` bytes of a device from byte `offset` on.
    pub(crate) fn device_bytes(&self, device: Device, at: u64, length: usize) -> Result<Vec<u8>> {
        match self.sources.get(usize::from(device.0)) {
            Some((source, size)) => bytes_at(source, *size, device, at, length),
            None => Err(ReadError::NoDevice {
                place: Place::Byte(at),
                number: device.0,
                tag: self.device_name(device),
            }),
        }
    }

    /// What the table calls a device.
    pub(crate) fn device_name(&self, device: Device) -> String {
        let index = usize::from(device.0).checked_sub(1);
        let slot = index.and_then(|index| self.superblock.devices.get(index));
        slot.map(Slot::name).unwrap_or_default()
    }

    /// Fills `buffer` with metadata from byte `at` of `area` on.
    pub(crate) fn metadata(&self, area: Area, at: u64, buffer: &mut [u8]) -> Result<()> {
        let size = self.area_size(area);
        let end = at.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > size) {
            let length = buffer.len();
            let flaw = format!("{length} bytes there end after byte {size}, the last");
            return Err(damaged("metadata", area.place(at), flaw));
        }
        let mut at = at;
        let mut rest = buffer;
        while !rest.is_empty() {
            let piece = self.piece(area, at / PIECE, size)?;
            let inside = (at % PIECE) as usize;
            let part = piece.get(inside..).unwrap_or_default();
            let now = part.len().min(rest.len());
            if now == 0 {
                return Err(damaged("metadata", area.place(at), "it ends before"));
            }
            let (head, tail) = rest.split_at_mut(now);
            head.copy_from_slice(part.get(..now).unwrap_or_default());
            at += now as u64;
            rest = tail;
        }
        Ok(())
    }

    fn piece(&self, area: Area, number: u64, size: u64) -> Result<Arc<[u8]>> {
        if let Some(piece) = self.pieces.lock().get(&(area, number)) {
            return Ok(piece);
        }
        let at = number * PIECE;
        let length = (size - at).min(PIECE) as usize;
        let bytes = match (area, &self.metabox) {
            (Area::Metabox, Some(inode)) => {
                let mut bytes = vec![0; length];
                self.contents(inode)?.read_exact_at(at, &mut bytes)?;
                bytes
            }
            _ => self.device_bytes(Device(0), at, length)?,
        };
        let piece = Arc::from(bytes);
        self.pieces.lock().put((area, number), &piece);
        Ok(piece)
    }

    /// The structure at byte `at` of `area`.
    pub(crate) fn structure<T: FromBytes>(&self, area: Area, at: u64) -> Result<T> {
        let mut bytes = vec![0; size_of::<T>()];
        self.metadata(area, at, &mut bytes)?;
        T::read_from_bytes(&bytes)
            .map_err(|_| damaged("metadata", area.place(at), "it ends before it is whole"))
    }
}

/// `length` bytes of `source`, which has `size`.
fn bytes_at<S: Source>(
    source: &S,
    size: u64,
    device: Device,
    offset: u64,
    length: usize,
) -> Result<Vec<u8>> {
    let error = |cause| ReadError::Io {
        device,
        offset,
        length,
        cause,
    };
    let end = offset.checked_add(length as u64);
    if end.is_none_or(|end| end > size) {
        return Err(error(std::io::ErrorKind::UnexpectedEof.into()));
    }
    let mut bytes = vec![0; length];
    source.read_at(offset, &mut bytes).map_err(error)?;
    Ok(bytes)
}

/// Most bytes that a cluster may give.
pub(crate) const DECODED_MAX: u64 = compressed::CLUSTER_DECODED_MAX as u64;
