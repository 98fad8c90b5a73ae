//! A symbolic link: its target in the inode if it fits, else in blocks. Not every block
//! has a header, but every extent: where two blocks lie together, the kernel reads both
//! as one piece with one header (`xfs_symlink_remote.c`). That matters with blocks of
//! 1024 bytes only, the others hold any target.

use super::ForkError;
use super::output::{Output, Place, Sink, put};
use crate::xfs::format::symlink::{CRC_AT, MAGIC, MAX_LENGTH, SymlinkHeader};
use crate::xfs::geometry::Geometry;

/// Checks that a link can have this target: 1 to 1023 bytes, as many as the kernel reads
/// back (`xfs_symlink_hdr_ok`).
///
/// # Errors
/// If it cannot.
pub fn check(target: &[u8]) -> Result<(), ForkError> {
    match target.len() {
        1..MAX_LENGTH => Ok(()),
        bytes => Err(ForkError::TargetLength { bytes }),
    }
}

/// Whether `target` lies in an inode that has `space` bytes for it; it is then the fork
/// itself, without anything around it.
pub fn is_inline(target: &[u8], space: usize) -> bool {
    target.len() <= space
}

/// Blocks that hold `target` if it does not lie in the inode; they are one range of the
/// fork from 0.
pub fn blocks_needed(geometry: &Geometry, target: &[u8]) -> u64 {
    target.len().div_ceil(room(geometry)) as u64
}

/// Hands out the blocks of the target of link `ino`. Blocks that follow each other on
/// the device must be one extent of the fork.
pub fn encode(geometry: &Geometry, ino: u64, target: &[u8], place: Place<'_>, sink: Sink<'_>) {
    let places: Vec<u64> = (0..blocks_needed(geometry, target)).map(place).collect();
    let output = &mut Output {
        geometry,
        owner: ino,
        place,
        sink,
    };
    let (mut offset, mut done) = (0, 0);
    for extent in places.chunk_by(|left, right| left + 1 == *right) {
        let mut bytes = vec![0; extent.len() * geometry.block_size()];
        let room = bytes.len() - size_of::<SymlinkHeader>();
        let part = &target[done..target.len().min(done + room)];
        let header = SymlinkHeader {
            magic: MAGIC.into(),
            offset: (done as u32).into(),
            bytes: (part.len() as u32).into(),
            uuid: *geometry.uuid.as_bytes(),
            owner: ino.into(),
            daddr: output.daddr(offset).into(),
            ..SymlinkHeader::default()
        };
        put(&mut bytes, 0, &header);
        put(&mut bytes, size_of::<SymlinkHeader>(), part);
        output.write(offset, &mut bytes, CRC_AT);
        offset += extent.len() as u64;
        done += part.len();
    }
}

/// Bytes of a target that a block of its own holds.
fn room(geometry: &Geometry) -> usize {
    geometry.block_size() - size_of::<SymlinkHeader>()
}
