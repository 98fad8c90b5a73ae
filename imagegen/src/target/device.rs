//! How large a block device is.

use super::{TargetError, failed};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Bytes of a block device; none if `path` is none.
///
/// # Errors
/// If it cannot be opened.
pub fn capacity(path: &Path) -> Result<Option<u64>, TargetError> {
    match std::fs::metadata(path) {
        Ok(there) if there.file_type().is_block_device() => {}
        _ => return Ok(None),
    }
    let size = File::open(path).and_then(|mut file| file.seek(SeekFrom::End(0)));
    let size = size.map_err(|error| failed(path, "find its size", error))?;
    Ok(Some(size))
}
