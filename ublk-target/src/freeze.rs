//! Holding a file system still: everything it has in memory is on its device, and
//! writers wait until it is thawed.
//!
//! Invariant: a [`Frozen`] thaws when it is dropped; nothing it needs for that has
//! to be opened or read while the file system stands still.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// `FIFREEZE` of `include/uapi/linux/fs.h`.
const FIFREEZE: libc::Ioctl = nix::request_code_readwrite!(b'X', 119, 4);
/// `FITHAW` of `include/uapi/linux/fs.h`.
const FITHAW: libc::Ioctl = nix::request_code_readwrite!(b'X', 120, 4);

/// A file system this process has frozen.
#[derive(Debug)]
pub struct Frozen(Option<File>);

/// Freezes the file system that `dir` is on. Returns when all of it is on its
/// device. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// `EBUSY` if it is frozen already, `EOPNOTSUPP` if it cannot be.
pub fn freeze(dir: &Path) -> io::Result<Frozen> {
    let file = File::open(dir)?;
    ask(&file, FIFREEZE)?;
    Ok(Frozen(Some(file)))
}

/// Thaws the file system that `dir` is on, whoever froze it.
///
/// # Errors
/// `EINVAL` if it is not frozen.
pub fn thaw(dir: &Path) -> io::Result<()> {
    ask(&File::open(dir)?, FITHAW)
}

impl Frozen {
    /// Lets writers go on.
    ///
    /// # Errors
    /// `EINVAL` if somebody else has thawed it meanwhile.
    pub fn thaw(mut self) -> io::Result<()> {
        self.0.take().map_or(Ok(()), |file| ask(&file, FITHAW))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Some(file) = self.0.take() {
            let _ = ask(&file, FITHAW);
        }
    }
}

fn ask(file: &File, request: libc::Ioctl) -> io::Result<()> {
    let unused: libc::c_int = 0;
    // SAFETY: both requests ignore their argument; the descriptor is open.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, &raw const unused) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_have_the_kernels_numbers() {
        assert_eq!((FIFREEZE, FITHAW), (0xc004_5877, 0xc004_5878));
    }

    #[test]
    fn what_is_not_frozen_cannot_be_thawed() {
        // Without privilege EPERM, with it EINVAL; /proc cannot be frozen at all.
        assert!(thaw(Path::new("/proc")).is_err());
        assert!(freeze(Path::new("/proc")).is_err());
        assert!(freeze(Path::new("/no/such/place")).is_err());
    }
}
