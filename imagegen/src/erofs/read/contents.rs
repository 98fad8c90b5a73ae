//! The bytes of an inode: read at any offset, holes and fragments included.

use super::error::{Result, damaged};
use super::{Extent, Image, Inode, Map, Where};
use crate::medium::Source;

/// An inode open for reading. Decoded clusters are kept with the image.
#[derive(Debug)]
pub struct Contents<'a, S> {
    image: &'a Image<S>,
    inode: Inode,
    map: Map<'a, S>,
    /// The extent that was read last.
    at: Option<Extent>,
    /// The packed inode, once a fragment was read.
    packed: Option<Box<Self>>,
}

impl<S: Source> Image<S> {
    /// Opens `inode` for reading: a regular file, a directory, a symbolic link.
    ///
    /// # Errors
    /// If what says where its contents lie is damaged.
    pub fn contents(&self, inode: &Inode) -> Result<Contents<'_, S>> {
        Ok(Contents {
            image: self,
            inode: inode.clone(),
            map: self.map(inode)?,
            at: None,
            packed: None,
        })
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// If it cannot be read, is longer than any path, or holds a zero byte.
    pub fn link(&self, inode: &Inode) -> Result<Vec<u8>> {
        let bad = |flaw: String| Err(damaged("symbolic link", inode.place(), flaw));
        if !inode.is_symlink() {
            return bad("it is none".into());
        }
        if inode.size == 0 || inode.size >= LINK_MAX {
            return bad(format!("a target of {} bytes", inode.size));
        }
        let mut target = vec![0; inode.size as usize];
        self.contents(inode)?.read_exact_at(0, &mut target)?;
        if target.contains(&0) {
            return bad("a zero byte in its target".into());
        }
        Ok(target)
    }
}

/// The kernel takes shorter targets only (`PATH_MAX`).
const LINK_MAX: u64 = 4096;

impl<'a, S: Source> Contents<'a, S> {
    /// Bytes of it.
    pub fn size(&self) -> u64 {
        self.inode.size
    }

    pub(crate) fn nid(&self) -> u64 {
        self.inode.nid
    }

    pub(crate) fn block_size(&self) -> usize {
        self.image.superblock.block_size()
    }

    /// Blocks of it, the last perhaps not full.
    pub(crate) fn blocks(&self) -> u64 {
        self.inode.size.div_ceil(self.block_size() as u64)
    }

    /// The extent that holds byte `offset`, of which there are that many.
    ///
    /// # Errors
    /// If the map is damaged there.
    pub fn extent(&mut self, offset: u64) -> Result<Extent> {
        let known = self.at.filter(|extent| extent.offset <= offset);
        if let Some(extent) = known.filter(|extent| offset < extent.end()) {
            return Ok(extent);
        }
        let extent = self.map.extent(offset)?;
        self.at = Some(extent);
        Ok(extent)
    }

    /// Fills as much of `buffer` as there is from byte `offset` on; returns how much.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let left = self.inode.size.saturating_sub(offset);
        let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let mut rest = buffer.get_mut(..length).unwrap_or_default();
        let mut at = offset;
        while !rest.is_empty() {
            let extent = self.extent(at)?;
            let now = usize::try_from(extent.end() - at).unwrap_or(usize::MAX);
            let (head, tail) = rest.split_at_mut(now.min(rest.len()));
            self.fill(&extent, at - extent.offset, head)?;
            at += head.len() as u64;
            rest = tail;
        }
        Ok(length)
    }

    /// Fills all of `buffer`.
    ///
    /// # Errors
    /// As [`Self::read_at`], and if the contents end before.
    pub fn read_exact_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let wanted = buffer.len();
        let got = self.read_at(offset, buffer)?;
        if got == wanted {
            return Ok(());
        }
        let place = self.inode.contents_at(offset);
        let flaw = format!(
            "{wanted} bytes from there end after the last, {}",
            self.size()
        );
        Err(damaged("contents", place, flaw))
    }

    /// Fills `buffer` from byte `inside` of `extent` on, which has so many.
    fn fill(&mut self, extent: &Extent, inside: u64, buffer: &mut [u8]) -> Result<()> {
        let image = self.image;
        if extent.coding != super::Coding::Plain {
            let bytes = image.cluster(&self.inode, extent)?;
            let part = bytes.get(inside as usize..).unwrap_or_default();
            if let Some(part) = part.get(..buffer.len()) {
                buffer.copy_from_slice(part);
            }
            return Ok(());
        }
        match extent.place {
            Where::Hole => buffer.fill(0),
            Where::Device(device, at, _) => {
                image.reachable(&self.inode, extent)?;
                let bytes = image.device_bytes(device, at + inside, buffer.len())?;
                buffer.copy_from_slice(&bytes);
            }
            Where::Metadata(area, at, _) => image.metadata(area, at + inside, buffer)?,
            Where::Packed(at) => self.packed(extent, at)?.read_exact_at(
                // Both were compared with the packed inode's size.
                at + inside,
                buffer,
            )?,
        }
        Ok(())
    }

    /// The packed inode, which must hold all of `extent`.
    fn packed(&mut self, extent: &Extent, at: u64) -> Result<&mut Self> {
        let place = self.inode.contents_at(extent.offset);
        let Some(inode) = &self.image.packed else {
            return Err(damaged("fragment", place, "there is no packed inode"));
        };
        let end = at.checked_add(extent.length);
        if end.is_none_or(|end| end > inode.size) {
            let flaw = format!(
                "{} bytes at byte {at} of the packed inode, which has {}",
                extent.length, inode.size
            );
            return Err(damaged("fragment", place, flaw));
        }
        match &mut self.packed {
            Some(packed) => Ok(packed),
            none => Ok(none.insert(Box::new(self.image.contents(inode)?))),
        }
    }
}
