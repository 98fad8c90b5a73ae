//! The bytes of a file: where data lies in it, and reading them.

pub(super) mod digests;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::buffer::spare_capacity;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::{Time, TreeError};

/// Files up to this size come with their bytes.
pub(super) const SMALL: u64 = 256 << 10;

/// When `file` was last written to.
pub(crate) fn written(file: &File) -> io::Result<Time> {
    let seen = file.metadata()?;
    Ok(Time {
        seconds: seen.mtime(),
        nanoseconds: seen.mtime_nsec() as u32, // less than a second's
    })
}

/// The ranges of a file that is data from its beginning to `size`.
pub(super) fn whole(size: u64) -> Vec<Range<u64>> {
    match size {
        0 => Vec::new(),
        // The contract is a list of ranges, and this one has one.
        #[allow(clippy::single_range_in_vec_init)]
        size => vec![0..size],
    }
}

/// Where data lies in the first `size` bytes of `file`, by `SEEK_DATA` and `SEEK_HOLE`.
pub(super) fn ranges(file: &File, size: u64) -> io::Result<Vec<Range<u64>>> {
    let mut found: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => return Ok(whole(size)), // the file system knows no holes
            Err(cause) => return Err(cause.into()),
        };
        let end = match seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            Err(Errno::NXIO) => size, // it shrank: whoever reads it will find out
            Err(cause) => return Err(cause.into()),
        };
        match found.last_mut() {
            _ if start >= end => break,
            Some(last) if last.end == start => last.end = end,
            _ => found.push(start..end),
        }
        at = end;
    }
    Ok(found)
}

/// All bytes of `data` of a file of `size` bytes, one range after the other.
pub(super) fn read(
    file: &File,
    data: &[Range<u64>],
    size: u64,
    path: &[u8],
) -> Result<Vec<u8>, TreeError> {
    if let [only] = data
        && *only == (0..size)
    {
        return read_whole(file, size, path);
    }
    let offsets: Vec<u64> = data.iter().map(|range| range.start).collect();
    read_at(file, data, &offsets, path)
}

/// The same of a file whose ranges lie at `offsets` of `file`.
pub(super) fn read_at(
    file: &File,
    data: &[Range<u64>],
    offsets: &[u64],
    path: &[u8],
) -> Result<Vec<u8>, TreeError> {
    let total: u64 = data.iter().map(|range| range.end - range.start).sum();
    let total = usize::try_from(total).map_err(|_| TreeError::invalid(path, "too large"))?;
    let mut bytes = vec![0; total];
    let mut rest = &mut bytes[..];
    for (range, &offset) in data.iter().zip(offsets) {
        let (now, later) = rest.split_at_mut((range.end - range.start) as usize);
        exact_at(file, now, offset, path)?;
        rest = later;
    }
    Ok(bytes)
}

/// Fills `buffer` from `at` on.
pub(super) fn exact_at(
    file: &File,
    buffer: &mut [u8],
    at: u64,
    path: &[u8],
) -> Result<(), TreeError> {
    let read = file.read_exact_at(buffer, at);
    read.map_err(|cause| match cause.kind() {
        ErrorKind::UnexpectedEof => TreeError::changed(path, "it shrank"),
        _ => TreeError::io(path, "read", cause),
    })
}

/// Reads a file that is at its beginning, and finds it if there is more than `size`.
fn read_whole(file: &File, size: u64, path: &[u8]) -> Result<Vec<u8>, TreeError> {
    let size = usize::try_from(size).map_err(|_| TreeError::invalid(path, "too large"))?;
    let mut bytes = Vec::with_capacity(size.saturating_add(1));
    while bytes.len() < size {
        match rustix::io::read(file, spare_capacity(&mut bytes)) {
            Ok(0) => return Err(TreeError::changed(path, "it shrank")),
            Ok(_) | Err(Errno::INTR) => {}
            Err(cause) => return Err(TreeError::io(path, "read", cause)),
        }
    }
    match bytes.len() {
        read if read == size => Ok(bytes),
        _ => Err(TreeError::changed(path, "it grew")),
    }
}
