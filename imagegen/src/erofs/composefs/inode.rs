//! Inodes in an image.

use super::limits::chunk_bits;
use super::place::Place;
use super::tree::{Body, Object};
use super::{BLOCK, Version};
use crate::erofs::format::inode::{Compact, Extended, format, layout};
use crate::erofs::format::{NID_UNIT, xattr};
use rustix::fs::FileType;
use std::io::{self, Write};
use zerocopy::IntoBytes;

/// Format of a chunk in version 2: as large as can be told.
const CHUNK_V2: u32 = 31;

/// Writes the inode of an object; `position` is how many came before it.
pub(super) fn write(
    object: &Object,
    place: &Place,
    position: u32,
    version: Version,
    out: &mut impl Write,
) -> io::Result<()> {
    let (kind, layout, size, data) = contents(object, place, version);
    let layout = layout << format::LAYOUT_SHIFT;
    let units = match place.xattrs as usize {
        0 => 0,
        bytes => (bytes - xattr::HEADER) / xattr::ALIGN + 1,
    };
    let units = units as u16; // checked when it was laid out
    let mode = kind.as_raw_mode() as u16 | object.mode;
    // What the short form has no room for was looked at when it was chosen.
    if place.compact {
        let inode = Compact {
            format: layout.into(),
            xattr_count: units.into(),
            mode: mode.into(),
            nlink_or_high: (object.nlink as u16).into(),
            size: (size as u32).into(),
            data: data.into(),
            ino: position.into(),
            uid: (object.uid as u16).into(),
            gid: (object.gid as u16).into(),
            ..Compact::default()
        };
        return out.write_all(inode.as_bytes());
    }
    let (ino, nanoseconds) = match version {
        Version::V2 => ((place.at / NID_UNIT) as u32, 0),
        _ => (position, object.mtime.nanoseconds),
    };
    let inode = Extended {
        format: (layout | format::EXTENDED).into(),
        xattr_count: units.into(),
        mode: mode.into(),
        size: size.into(),
        data: data.into(),
        ino: ino.into(),
        uid: object.uid.into(),
        gid: object.gid.into(),
        mtime: (object.mtime.seconds as u64).into(),
        mtime_nanoseconds: nanoseconds.into(),
        nlink: object.nlink.into(),
        ..Extended::default()
    };
    out.write_all(inode.as_bytes())
}

/// Kind, layout, size and data word.
fn contents(object: &Object, place: &Place, version: Version) -> (FileType, u16, u64, u32) {
    let flat = match place.tail {
        0 => layout::PLAIN,
        _ => layout::INLINE,
    };
    let first = place.first_block;
    match &object.body {
        Body::Directory(_) => {
            let size = u64::from(place.blocks) * BLOCK + u64::from(place.tail);
            (FileType::Directory, flat, size, first)
        }
        Body::Inline(bytes) => (FileType::RegularFile, flat, bytes.len() as u64, first),
        Body::External(_) => {
            let chunk = match version {
                Version::V2 => CHUNK_V2,
                _ => chunk_bits(object.size) - BLOCK.ilog2(),
            };
            // Chunks that got a block leave its number's upper half.
            let data = first & 0xFFFF_0000 | chunk;
            (FileType::RegularFile, layout::CHUNKS, object.size, data)
        }
        Body::Symlink(target) => (FileType::Symlink, flat, target.len() as u64, first),
        Body::CharDevice(device) => (FileType::CharacterDevice, flat, 0, *device),
        Body::BlockDevice(device) => (FileType::BlockDevice, flat, 0, *device),
        Body::Fifo => (FileType::Fifo, flat, 0, 0),
        Body::Socket => (FileType::Socket, flat, 0, 0),
    }
}
