//! The questions only system calls answer.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::sys::stat::fstat;
use nix::unistd::{Whence, lseek};

mod ioctl {
    nix::ioctl_read!(blkgetsize64, 0x12, 114, usize);
    nix::ioctl_read_bad!(blksszget, nix::request_code_none!(0x12, 104), libc::c_int);
}

/// Size of a block device in bytes.
pub(super) fn device_size(file: &File) -> io::Result<u64> {
    // The kernel writes 64 bits whatever the type in the request's number says.
    let mut size = 0u64;
    // SAFETY: BLKGETSIZE64 writes one u64 through a pointer valid for the call.
    unsafe { ioctl::blkgetsize64(file.as_raw_fd(), (&raw mut size).cast()) }?;
    Ok(size)
}

/// Logical block size of a block device in bytes.
pub(super) fn logical_block_size(file: &File) -> io::Result<u32> {
    let mut size: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int through a pointer valid for the call.
    unsafe { ioctl::blksszget(file.as_raw_fd(), &raw mut size) }?;
    u32::try_from(size).map_err(io::Error::other)
}

/// Alignment that direct I/O on a regular file asks of offsets, in bytes; 4096
/// where the file system does not say.
pub(super) fn direct_alignment(file: &File) -> io::Result<u32> {
    let stat = direct_io(file.as_fd())?;
    Ok(stat.map_or(4096, |stat| stat.stx_dio_offset_align))
}

/// Alignment that direct I/O on a regular file asks of memory, in bytes; `None`
/// where the file system does not say.
pub(crate) fn direct_memory_alignment(file: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    Ok(direct_io(file)?.map(|stat| stat.stx_dio_mem_align))
}

/// What the file system says of direct I/O, if anything.
fn direct_io(file: BorrowedFd<'_>) -> io::Result<Option<libc::statx>> {
    // SAFETY: all-zero bytes are a valid `statx` (integers only).
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is an empty C string (the descriptor itself is meant),
    // `stat` is valid for writing during the call.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &raw mut stat,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let known = stat.stx_mask & libc::STATX_DIOALIGN != 0 && stat.stx_dio_offset_align != 0;
    Ok(known.then_some(stat))
}

/// Whether the kernel says that a block device has no volatile cache: its flushes
/// do nothing then. Only a hint: an administrator can change it.
pub(crate) fn is_write_through(fd: BorrowedFd<'_>) -> bool {
    let Ok(stat) = fstat(fd) else {
        return false;
    };
    let (major, minor) = (libc::major(stat.st_rdev), libc::minor(stat.st_rdev));
    let mode = queue(Path::new(&format!("/sys/dev/block/{major}:{minor}"))).join("write_cache");
    std::fs::read_to_string(mode).is_ok_and(|mode| mode.trim() == "write through")
}

/// Whether a block device has been taken away under its open file.
pub(crate) fn is_gone(fd: BorrowedFd<'_>) -> bool {
    let Ok(stat) = fstat(fd) else {
        return false;
    };
    if stat.st_mode & libc::S_IFMT != libc::S_IFBLK {
        return false;
    }
    let (major, minor) = (libc::major(stat.st_rdev), libc::minor(stat.st_rdev));
    let mut size = 0u64;
    // SAFETY: BLKGETSIZE64 writes one u64 through a pointer valid for the call.
    let asked = unsafe { ioctl::blkgetsize64(fd.as_raw_fd(), (&raw mut size).cast()) };
    // A partition keeps its size when the disk goes.
    asked.is_err() || size == 0 || !Path::new(&format!("/sys/dev/block/{major}:{minor}")).exists()
}

/// The queue of the device whose directory in `/sys` is `dir`, or of the disk a
/// partition is on.
pub(crate) fn queue(dir: &Path) -> PathBuf {
    let own = dir.join("queue");
    if own.is_dir() {
        return own;
    }
    // `dir` is a link to the partition's directory, inside its disk's.
    dir.join("../queue")
}

/// Which parts of `offset .. offset + len` hold data: `(length, is data)` in
/// order, neighbours differing, covering the range. What cannot be told is data.
pub(crate) fn extents(fd: BorrowedFd<'_>, offset: u64, len: u64, limit: usize) -> Vec<(u64, bool)> {
    let end = offset + len;
    let mut found = Vec::new();
    let mut at = offset;
    while at < end && found.len() < limit {
        let (next, data) = extent(fd, at, end);
        found.push((next - at, data));
        at = next;
    }
    found
}

/// The end of the extent at `at`, no further than `end`, and whether it is data.
fn extent(fd: BorrowedFd<'_>, at: u64, end: u64) -> (u64, bool) {
    let Ok(position) = i64::try_from(at) else {
        return (end, true);
    };
    let clip = |found: i64| (found.max(position) as u64).min(end);
    match lseek(fd, position, Whence::SeekData) {
        Ok(data) if data > position => (clip(data), false),
        Ok(_) => match lseek(fd, position, Whence::SeekHole) {
            Ok(hole) if hole > position => (clip(hole), true),
            _ => (end, true),
        },
        // No data from here to the end of the file.
        Err(nix::errno::Errno::ENXIO) => (end, false),
        Err(_) => (end, true),
    }
}
