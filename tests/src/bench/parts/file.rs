//! A file for direct I/O, and memory aligned for it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use crate::e2e::Outcome;
use crate::e2e::fault::Trying;

/// Bytes aligned as direct I/O wants them (see `snapstore::Block`).
#[derive(Clone, Debug)]
#[repr(C, align(2048))]
pub struct Aligned<const BYTES: usize>(pub [u8; BYTES]);

impl<const BYTES: usize> Aligned<BYTES> {
    /// Bytes that no file system takes for a hole.
    #[must_use]
    pub fn filled() -> Box<Self> {
        Box::new(Self([0xa5; BYTES]))
    }
}

/// Makes `path`, `size` bytes of real data, and opens it for direct I/O.
///
/// # Errors
/// If the system refuses.
pub fn filled(path: &Path, size: u64) -> Outcome<File> {
    const PIECE: usize = 1 << 20;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(OFlag::O_DIRECT.bits())
        .open(path)
        .trying(|| format!("open {} for direct I/O", path.display()))?;
    let piece = Aligned::<PIECE>::filled();
    let write = |at| file.write_all_at(&piece.0, at);
    (0..size)
        .step_by(PIECE)
        .try_for_each(write)
        .and_then(|()| file.sync_all())
        .trying(|| format!("fill {}", path.display()))?;
    Ok(file)
}
