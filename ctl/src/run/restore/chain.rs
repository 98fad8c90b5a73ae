//! The images that are restored, as one disk.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use imagegen::qcow2::open::{self, OpenError};
use imagegen::qcow2::read::{Disk, Image, ReadError};
use ublk_target::control::protocol::{ErrorCode, Failure};

use crate::Done;
use crate::cli::FormatName;
use crate::run::usage;

/// Opens one image with all that it names, or those that are given, the oldest first.
pub(super) fn open(paths: &[PathBuf], format: FormatName) -> Done<Disk<File>> {
    let [first, over @ ..] = paths else {
        return Err(usage("no image is named").next("name one: --from"));
    };
    let bottom = open::open(first, Some(format.into()), None);
    let bottom = bottom.map_err(unreadable)?;
    if over.is_empty() {
        return Ok(bottom.disk);
    }
    if bottom.paths.len() > 1 {
        let message = format!(
            "{} is no full image: it has a backing file",
            first.display()
        );
        return Err(usage(message).next("name the full image first, or the newest alone"));
    }
    let (mut disk, mut below) = (bottom.disk, first);
    for path in over {
        disk = increment(path, &disk, below)?;
        below = path;
    }
    Ok(disk)
}

const HELP: &str = "imagegen qcow2 check looks into an image; -f raw says that the first is raw";

/// The image at `path` over `disk`, the newest image of which is `below`.
fn increment(path: &Path, disk: &Disk<File>, below: &Path) -> Done<Disk<File>> {
    let disk = open::over(path, disk).map_err(unreadable)?;
    let backing = disk.image().and_then(Image::backing).unwrap_or_default();
    // Moved they may be, but not taken for each other.
    let (over, under) = (path.display(), below.display());
    match Path::new(backing).file_name() {
        None => Err(
            usage(format!("{over} is a full image: nothing lies below it"))
                .next("leave out the images named before it"),
        ),
        name if name == below.file_name() => Ok(disk),
        _ => Err(
            usage(format!("{over} is laid over {backing:?}, not over {under}"))
                .next("name the images in their order, all of them, under the names they had"),
        ),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "what map_err gives")]
fn unreadable(error: OpenError) -> Failure {
    let code = match &error {
        OpenError::Open { cause, .. } if cause.kind() == ErrorKind::NotFound => ErrorCode::NotFound,
        OpenError::Read { cause, .. } | OpenError::Disk(cause) => match code_of(cause) {
            ErrorCode::Corruption => ErrorCode::Corruption,
            _ => ErrorCode::Usage,
        },
        _ => ErrorCode::Usage,
    };
    Failure::new(code, error.to_string()).next(HELP)
}

/// The kind of failure that an image which cannot be read is.
pub(super) fn code_of(error: &ReadError) -> ErrorCode {
    match error.root() {
        ReadError::Damaged { .. } => ErrorCode::Corruption,
        _ => ErrorCode::Error,
    }
}
