//! The images that are restored, as one disk.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use imagegen::qcow2::open::{self, Format, OpenError};
use imagegen::qcow2::read::{Disk, Image, ReadError};
use ublk_target::control::protocol::{ErrorCode, Failure};

use crate::Done;
use crate::cli::FormatName;
use crate::run::images::{belong_together, is_qcow2, must_be_still};
use crate::run::usage;

/// Images that are restored.
pub(super) struct Images {
    /// What they hold together.
    pub(super) disk: Disk<File>,
    /// Every file that is read.
    pub(super) files: Vec<PathBuf>,
}

/// Opens one image with all that it names, or those that are given, the oldest first.
/// Unless `trust`, they must belong together as far as they tell.
pub(super) fn open(paths: &[PathBuf], format: FormatName, trust: bool) -> Done<Images> {
    let [first, over @ ..] = paths else {
        return Err(usage("no image is named").next("name one: --from"));
    };
    if format == FormatName::Raw && !trust && is_qcow2(first) {
        let error = usage(format!("{} is QCOW2, not raw", first.display()));
        return Err(error.next("-f qcow2; --trust if it is a disk that begins as QCOW2 does"));
    }
    let bottom = open::open(first, Some(format.into()), None).map_err(unreadable)?;
    if !over.is_empty() && bottom.paths.len() > 1 {
        let message = format!(
            "{} is no full image: it has a backing file",
            first.display()
        );
        return Err(usage(message).next("name the full image first, or the newest alone"));
    }
    let mut files: Vec<PathBuf> = over.iter().rev().cloned().collect();
    files.extend(bottom.paths);
    let layers = files.len();
    files.extend(bottom.data);
    let (mut disk, mut below) = (bottom.disk, (first.as_path(), format.into()));
    for path in over {
        let data;
        (disk, data) = increment(path, &disk, below, trust)?;
        files.extend(data);
        below = (path.as_path(), Format::Qcow2);
    }
    if !trust {
        must_be_sound(&disk, layers, &files)?;
    }
    Ok(Images { disk, files })
}

/// Refuses images that do not belong together, as far as they tell, or that a machine is
/// writing to. The first of `files` are those of the layers, so many.
fn must_be_sound(disk: &Disk<File>, layers: usize, files: &[PathBuf]) -> Done {
    let of_layers = files.get(..layers).unwrap_or_default();
    belong_together(disk, of_layers).map_err(|why| {
        usage(why)
            .next("name the images in their order, all of them; --trust if they do belong together")
    })?;
    must_be_still(files.iter().map(PathBuf::as_path))
}

const HELP: &str = "imagegen qcow2 check looks into an image; -f raw says that the first is raw";

/// The image at `path` over `disk`, the newest image of which is `below`; and its data file.
fn increment(
    path: &Path,
    disk: &Disk<File>,
    (below, format): (&Path, Format),
    trust: bool,
) -> Done<(Disk<File>, Option<PathBuf>)> {
    let (disk, data) = open::over(path, disk).map_err(unreadable)?;
    let image = disk.image();
    let backing = image.and_then(Image::backing).unwrap_or_default();
    let stated = image.and_then(|image| image.extensions().backing_format.as_deref());
    // Moved they may be, but not taken for each other.
    let (over, under) = (path.display(), below.display());
    let name = Path::new(backing).file_name();
    if name.is_none() {
        return Err(
            usage(format!("{over} is a full image: nothing lies below it"))
                .next("leave out the images named before it"),
        );
    }
    if !trust && name != below.file_name() {
        return Err(
            usage(format!("{over} is laid over {backing:?}, not over {under}"))
                .next("name the images in their order, all of them, under the names they had"),
        );
    }
    match stated.filter(|stated| !trust && *stated != format.name()) {
        None => Ok((disk, data)),
        Some(stated) => {
            let format = format.name();
            let message =
                format!("{over} is laid over {stated:?}, and {under} is read as {format}");
            Err(usage(message).next("say what the first image is: -f; --trust if that is right"))
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "what map_err gives")]
fn unreadable(error: OpenError) -> Failure {
    let code = match &error {
        OpenError::Open { cause, .. } if cause.kind() == ErrorKind::NotFound => ErrorCode::NotFound,
        OpenError::Read { cause, .. } | OpenError::Disk(cause) => match cause.root() {
            ReadError::Damaged { .. } => ErrorCode::Corruption,
            ReadError::Io { cause, .. } if cause.kind() == ErrorKind::UnexpectedEof => {
                ErrorCode::Corruption
            }
            _ => ErrorCode::Usage,
        },
        _ => ErrorCode::Usage,
    };
    Failure::new(code, error.to_string()).next(HELP)
}
