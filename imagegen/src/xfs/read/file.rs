//! Contents of files, and targets of symbolic links.

use super::block::Wanted;
use super::{ForkMap, Inode, Label, Place, Reader, Result, Source, Which, shape, take};
use crate::xfs::format::extent::Extent;
use crate::xfs::format::inode::{format, kind};
use crate::xfs::format::symlink::{CRC_AT, MAGIC, MAX_LENGTH, SymlinkHeader};

impl<S: Source> Reader<S> {
    /// Fills `buffer` with the contents of a regular file from byte `offset` on; holes
    /// and unwritten extents read as zeroes. Returns how many bytes there were before
    /// the file's end.
    ///
    /// # Errors
    /// If its extents are damaged or cannot be read.
    pub fn read_file(&self, inode: &Inode, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        if inode.kind() != kind::REGULAR {
            let place = Place::Inode(inode.ino);
            return Err(shape("inode", place, "it is no regular file"));
        }
        let left = inode.core.size.get().saturating_sub(offset);
        let length = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        buffer.fill(0);
        let end = offset + length as u64;
        let log = self.geometry.block_log;
        let blocks = offset >> log..self.geometry.blocks_of(end);
        for extent in self.extents(inode, Which::Data, blocks)? {
            let extent = extent?;
            if extent.unwritten {
                continue;
            }
            // The last offset times the block size may need 70 bits, but is below `end`.
            let from = (u128::from(extent.offset) << log).max(offset.into()) as u64;
            let to = (u128::from(extent.offset + extent.count) << log).min(end.into()) as u64;
            let skip = u128::from(from) - (u128::from(extent.offset) << log);
            if from >= to {
                continue;
            }
            let bytes = self.bytes(
                self.geometry.byte_of(extent.block) + skip as u64,
                (to - from) as usize,
            )?;
            let at = (from - offset) as usize;
            if let Some(part) = buffer.get_mut(at..at + bytes.len()) {
                part.copy_from_slice(&bytes);
            }
        }
        Ok(length)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// If it is none, or damaged.
    pub fn read_link(&self, inode: &Inode) -> Result<Vec<u8>> {
        let (place, size) = (Place::Inode(inode.ino), inode.core.size.get());
        let bad = |text: String| shape("symbolic link", place, text);
        if inode.kind() != kind::SYMLINK {
            return Err(bad("it is none".into()));
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size == 0 || size > MAX_LENGTH {
            return Err(bad(format!("a target of {size} bytes")));
        }
        if inode.form(Which::Data) == format::LOCAL {
            let fork = inode.fork(Which::Data);
            let target = fork.get(..size);
            return target
                .map(<[u8]>::to_vec)
                .ok_or_else(|| bad("it is cut off".into()));
        }
        let map = ForkMap::load(self, inode, Which::Data)?;
        let mut target = Vec::new();
        for extent in map.extents() {
            target.extend(self.link_part(&map, extent, target.len())?);
        }
        if target.len() != size {
            return Err(bad(format!("blocks hold {} of {size} bytes", target.len())));
        }
        Ok(target)
    }

    /// The part of a target in `extent`, which has one header for all its blocks
    /// (`xfs_symlink_remote_read`); the part begins at byte `at` of the target.
    fn link_part(&self, map: &ForkMap, extent: &Extent, at: usize) -> Result<Vec<u8>> {
        const NAME: &str = "symbolic link block";
        let place = map.place(extent.offset);
        if extent.count > self.geometry.blocks_of(2 * MAX_LENGTH as u64) {
            return Err(shape(NAME, place, format!("{} blocks", extent.count)));
        }
        let (bytes, daddr) = map.read(self, extent.offset, extent.count)?;
        let header: SymlinkHeader = take(NAME, place, &bytes, 0)?;
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
            magic: &[MAGIC],
            crc_at: CRC_AT,
            daddr,
            owner: map.ino,
        };
        self.verify(&bytes, &label, &wanted)?;
        let (begin, length) = (header.offset.get() as usize, header.bytes.get() as usize);
        let body = size_of::<SymlinkHeader>();
        let part = bytes.get(body..).and_then(|body| body.get(..length));
        match part {
            Some(part) if begin == at && length > 0 => Ok(part.to_vec()),
            _ => Err(shape(
                NAME,
                place,
                format!("bytes {begin} and {length} more"),
            )),
        }
    }
}
