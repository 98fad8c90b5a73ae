//! The images that are restored, as one disk.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use imagegen::qcow2::open::{self, OpenError};
use imagegen::qcow2::provenance::Fit;
use imagegen::qcow2::read::{Disk, Image, Layer};
use ublk_target::control::protocol::{ErrorCode, Failure};

use crate::Done;
use crate::cli::FormatName;
use crate::run::{read_code_of, usage};
use crate::session::Session;

/// Opens one image with all that it names, or those that are given, the oldest first.
pub(super) fn open(session: &Session, paths: &[PathBuf], format: FormatName) -> Done<Disk<File>> {
    let [first, over @ ..] = paths else {
        return Err(usage("no image is named").next("name one: --from"));
    };
    let bottom = open::open(first, Some(format.into()), None);
    let bottom = bottom.map_err(unreadable)?;
    if over.is_empty() {
        must_belong_together(session, &bottom.disk, &bottom.paths)?;
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
    let newest_first: Vec<PathBuf> = paths.iter().rev().cloned().collect();
    must_belong_together(session, &disk, &newest_first)?;
    Ok(disk)
}

/// Refuses images that tell of what they were made, and were not made for each other.
/// `paths` are those of the layers.
fn must_belong_together(session: &Session, disk: &Disk<File>, paths: &[PathBuf]) -> Done {
    let made_of = disk.layers().map(|layer| match layer {
        Layer::Qcow2(image) => image.extensions().provenance,
        Layer::Raw(_) | Layer::Parts(..) => None,
    });
    let told: Vec<_> = made_of.zip(paths).collect();
    for pair in told.windows(2) {
        let [(Some(over), above), (Some(below), under)] = pair else {
            continue;
        };
        let (above, under) = (above.display(), under.display());
        match over.over(below) {
            Ok(Fit::Exact) => {}
            Ok(Fit::IfCommitted) => session.say(&format!(
                "csnapctl: {under} was made of an older snapshot than {above} needs: that is \
                 right only if what changed until then was committed into it"
            )),
            Err(why) => {
                return Err(
                    usage(format!("{above} was not made to lie over {under}: {why}")).next(
                        "name the images in their order; imagegen qcow2 convert makes one of them \
                         if they do belong together",
                    ),
                );
            }
        }
    }
    Ok(())
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
        OpenError::Read { cause, .. } | OpenError::Disk(cause) => match read_code_of(cause) {
            ErrorCode::Corruption => ErrorCode::Corruption,
            _ => ErrorCode::Usage,
        },
        _ => ErrorCode::Usage,
    };
    Failure::new(code, error.to_string()).next(HELP)
}
