//! Bytes that are to be zero.

use rustix::fs::{FallocateFlags, fallocate};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes written at once by hand.
const PIECE: usize = 1 << 20;

/// Makes bytes read as zeroes: as a hole, on a device by its own means, or by hand.
pub(super) fn zero(file: &File, at: u64, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let zeroes = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    let is_file = file.metadata()?.is_file();
    if fallocate(file, if is_file { hole } else { zeroes }, at, length).is_ok() {
        return Ok(());
    }
    write(file, at, length)
}

/// Writes zeroes by hand, also where they take room.
pub(super) fn write(file: &File, at: u64, length: u64) -> io::Result<()> {
    let piece = vec![0; length.min(PIECE as u64) as usize];
    let mut done = 0;
    while done < length {
        let most = (length - done).min(piece.len() as u64) as usize;
        file.write_all_at(piece.get(..most).unwrap_or_default(), at + done)?;
        done += most as u64;
    }
    Ok(())
}
