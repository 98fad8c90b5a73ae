//! The images that are restored, as one disk.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use imagegen::qcow2::open::{self, OpenError};
use imagegen::qcow2::read::{Disk, Image, Layer, ReadError};
use ublk_target::control::protocol::{ErrorCode, Failure};

use crate::Done;
use crate::cli::FormatName;
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
    let (mut disk, mut below) = (bottom.disk, first);
    for path in over {
        disk = increment(path, &disk, below, trust)?;
        below = path;
    }
    if !trust {
        must_belong_together(&disk, &files)?;
    }
    files.extend(bottom.data);
    Ok(Images { disk, files })
}

/// Refuses images that tell of what they were made, and do not lie where they were made to.
/// `paths` are those of the layers.
fn must_belong_together(disk: &Disk<File>, paths: &[PathBuf]) -> Done {
    let made_of = disk.layers().map(|layer| match layer {
        Layer::Qcow2(image) => image.extensions().provenance,
        Layer::Raw(_) | Layer::Parts(..) => None,
    });
    let told: Vec<_> = made_of.zip(paths).collect();
    for (place, (over, path)) in told.iter().enumerate() {
        let below = told.get(place + 1);
        let under = match below {
            // What does not tell is believed.
            Some((None, _)) => continue,
            Some((Some(below), _)) => Some(below),
            None => None,
        };
        let Some(Err(why)) = over.map(|over| over.over(under)) else {
            continue;
        };
        let image = path.display();
        let below = below.map(|(_, path)| format!(" over {}", path.display()));
        let message = format!("{image}{}: {why}", below.unwrap_or_default());
        return Err(usage(message).next(
            "name the images in their order, all of them; --trust if they do belong together",
        ));
    }
    Ok(())
}

const HELP: &str = "imagegen qcow2 check looks into an image; -f raw says that the first is raw";

/// The image at `path` over `disk`, the newest image of which is `below`.
fn increment(path: &Path, disk: &Disk<File>, below: &Path, trust: bool) -> Done<Disk<File>> {
    let disk = open::over(path, disk).map_err(unreadable)?;
    let backing = disk.image().and_then(Image::backing).unwrap_or_default();
    // Moved they may be, but not taken for each other.
    let (over, under) = (path.display(), below.display());
    match Path::new(backing).file_name() {
        None => Err(
            usage(format!("{over} is a full image: nothing lies below it"))
                .next("leave out the images named before it"),
        ),
        name if trust || name == below.file_name() => Ok(disk),
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
