//! One inode, from what is known of it to its bytes.

use super::super::format::inode::{
    CRC_AT, FORKS_AT, Inode, MAGIC, big_time, flags, flags2, format, kind, small_time,
};
use super::super::format::{NULL_AG_INODE, U64, checksum};
use super::super::geometry::{CHUNK_INODES, Geometry};
use crate::medium::Medium;
use crate::tree::{Meta, Time};
use std::io;
use zerocopy::{FromBytes, IntoBytes};

/// A fork as the inode holds it.
#[derive(Debug, Clone)]
pub(crate) struct Fork {
    /// One of `format::inode::format`.
    pub(crate) format: u8,
    /// What lies in the inode.
    pub(crate) bytes: Vec<u8>,
    /// Extents, in the inode or below its root.
    pub(crate) extents: u64,
}

/// Everything an inode says.
pub(crate) struct Parts<'a> {
    pub(crate) ino: u64,
    /// Kind, as `S_IFMT`.
    pub(crate) kind: u16,
    pub(crate) meta: &'a Meta,
    pub(crate) links: u32,
    pub(crate) size: u64,
    pub(crate) blocks: u64,
    pub(crate) data: Fork,
    pub(crate) attributes: Option<Fork>,
    /// Bytes of the inode for the data fork, a multiple of 8; after it comes the other.
    pub(crate) data_space: usize,
}

/// The inode's bytes.
pub(crate) fn encode(geometry: &Geometry, parts: &Parts<'_>) -> Vec<u8> {
    let meta = parts.meta;
    let time = |time: Time| stamp(geometry, time);
    let mut inode = Inode {
        mode: (parts.kind | meta.mode).into(),
        format: parts.data.format,
        uid: meta.uid.into(),
        gid: meta.gid.into(),
        nlink: parts.links.into(),
        project_low: (meta.project as u16).into(),
        project_high: ((meta.project >> 16) as u16).into(),
        atime: time(meta.mtime),
        mtime: time(meta.mtime),
        ctime: time(meta.ctime),
        crtime: time(meta.ctime),
        size: parts.size.into(),
        nblocks: parts.blocks.into(),
        flags: flags_of(parts).into(),
        generation: generation(geometry, parts.ino).into(),
        change_count: 1.into(),
        ..blank(geometry, parts.ino)
    };
    let attr_extents = parts.attributes.as_ref().map_or(0, |fork| fork.extents);
    if let Some(fork) = &parts.attributes {
        inode.fork_offset = (parts.data_space / 8) as u8;
        inode.attr_format = fork.format;
    }
    if geometry.features.nrext64 {
        inode.big_nextents = parts.data.extents.into();
        inode.nextents = (attr_extents as u32).into();
    } else {
        inode.nextents = (parts.data.extents as u32).into();
        inode.small_anextents = (attr_extents as u16).into();
    }
    let mut bytes = vec![0; geometry.inode_size()];
    bytes[..FORKS_AT].copy_from_slice(inode.as_bytes());
    bytes[FORKS_AT..][..parts.data.bytes.len()].copy_from_slice(&parts.data.bytes);
    if let Some(fork) = &parts.attributes {
        bytes[FORKS_AT + parts.data_space..][..fork.bytes.len()].copy_from_slice(&fork.bytes);
    }
    checksum::seal(&mut bytes, CRC_AT);
    bytes
}

/// What is made in a directory of a project belongs to it too, as `xfs_quota` sets it up.
fn flags_of(parts: &Parts<'_>) -> u16 {
    if parts.kind == kind::DIRECTORY && parts.meta.project != 0 {
        flags::PROJECT_INHERIT
    } else {
        0
    }
}

/// A free inode (`xfs_ialloc_inode_init`).
pub(crate) fn free(geometry: &Geometry, ino: u64) -> Vec<u8> {
    let inode = Inode {
        flags2: 0.into(),
        attr_format: 0,
        ..blank(geometry, ino)
    };
    let mut bytes = vec![0; geometry.inode_size()];
    bytes[..FORKS_AT].copy_from_slice(inode.as_bytes());
    checksum::seal(&mut bytes, CRC_AT);
    bytes
}

/// What all inodes have in common.
fn blank(geometry: &Geometry, ino: u64) -> Inode {
    let features = &geometry.features;
    let mut flags = 0;
    if features.bigtime {
        flags |= flags2::BIGTIME;
    }
    if features.nrext64 {
        flags |= flags2::NREXT64;
    }
    Inode {
        magic: MAGIC.into(),
        version: 3,
        attr_format: format::EXTENTS,
        next_unlinked: NULL_AG_INODE.into(),
        flags2: flags.into(),
        ino: ino.into(),
        uuid: *geometry.uuid.as_bytes(),
        ..Inode::default()
    }
}

fn stamp(geometry: &Geometry, time: Time) -> U64 {
    if geometry.features.bigtime {
        big_time(time.seconds, time.nanoseconds)
    } else {
        small_time(time.seconds, time.nanoseconds)
    }
}

/// The generation of an inode, which network file systems tell old inodes from new ones
/// by: not to be guessed from outside, but the same for the same image. The root has 0
/// as mkfs.xfs makes it.
pub(crate) fn generation(geometry: &Geometry, ino: u64) -> u32 {
    if ino == geometry.root_inode() {
        return 0;
    }
    crc32c::crc32c_append(crc32c::crc32c(geometry.uuid.as_bytes()), &ino.to_be_bytes())
}

/// One of the two inodes of a realtime device that is not there (`xfs_rtfree_extent` and
/// `mkfs/proto.c`: the bitmap's is marked as new).
pub(crate) fn realtime(geometry: &Geometry, ino: u64, bitmap: bool) -> Vec<u8> {
    let epoch = stamp(geometry, Time::default());
    let inode = Inode {
        mode: kind::REGULAR.into(),
        format: format::EXTENTS,
        nlink: 1.into(),
        atime: epoch,
        mtime: epoch,
        ctime: epoch,
        crtime: epoch,
        flags: if bitmap { flags::NEW_RT_BITMAP } else { 0 }.into(),
        generation: generation(geometry, ino).into(),
        change_count: 1.into(),
        ..blank(geometry, ino)
    };
    let mut bytes = vec![0; geometry.inode_size()];
    bytes[..FORKS_AT].copy_from_slice(inode.as_bytes());
    checksum::seal(&mut bytes, CRC_AT);
    bytes
}

/// Marks inodes that were written as having blocks with other owners. `inodes` are sorted.
///
/// # Errors
/// If they cannot be read or written again.
pub(crate) fn mark_shared(
    geometry: &Geometry,
    inodes: &[u64],
    medium: &dyn Medium,
) -> io::Result<()> {
    let chunk = |ino: u64| ino / u64::from(CHUNK_INODES);
    inodes
        .chunk_by(|&a, &b| chunk(a) == chunk(b))
        .try_for_each(|inodes| mark_in_chunk(geometry, inodes, medium))
}

/// Marks inodes of one chunk: what lies between them is read and written as well.
fn mark_in_chunk(geometry: &Geometry, inodes: &[u64], medium: &dyn Medium) -> io::Result<()> {
    let (Some(&first), Some(&last)) = (inodes.first(), inodes.last()) else {
        return Ok(());
    };
    let begin = geometry.inode_byte(first);
    let size = geometry.inode_size();
    let mut bytes = vec![0; (geometry.inode_byte(last) - begin) as usize + size];
    medium.read(begin, &mut bytes)?;
    for &ino in inodes {
        let at = (geometry.inode_byte(ino) - begin) as usize;
        let inode = &mut bytes[at..at + size];
        let (core, _) = Inode::mut_from_prefix(inode).map_err(|_| io::ErrorKind::InvalidData)?;
        core.flags2 = (core.flags2.get() | flags2::REFLINK).into();
        checksum::seal(inode, CRC_AT);
    }
    medium.write(begin, &bytes)
}
