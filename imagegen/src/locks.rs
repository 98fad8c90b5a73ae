//! What others have locked in a file (`fcntl`), as QEMU does with every image that it has
//! open: a byte for each thing that it may do, and one for each that others may not.

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::File;

/// The byte that QEMU locks where it may write (`block/file-posix.c`: `RAW_LOCK_PERM_BASE`,
/// and the number of `BLK_PERM_WRITE`).
const WRITE: i64 = 100 + 1;

/// Whether somebody has locked any byte of `file`.
pub(crate) fn is_locked(file: &File) -> bool {
    locked(file, 0, 0)
}

/// Whether a machine has `file` open to write to it.
#[must_use]
pub fn is_written(file: &File) -> bool {
    locked(file, WRITE, 1)
}

/// Whether somebody has locked one of `length` bytes; 0 is all from `start` on. Where there
/// are no locks nobody has one.
fn locked(file: &File, start: i64, length: i64) -> bool {
    let mut bytes = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    };
    let asked = fcntl(file, FcntlArg::F_OFD_GETLK(&mut bytes));
    asked.is_ok() && i32::from(bytes.l_type) != libc::F_UNLCK
}
