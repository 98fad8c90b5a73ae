//! The image of the older snapshot, over which an increment is laid.

use std::path::{Path, PathBuf, absolute};

use imagegen::qcow2::open;
use imagegen::qcow2::provenance::{Fit, Provenance};
use imagegen::qcow2::read::Image;
use ublk_target::control::protocol::Failure;
use ublk_target::device::Identity;

use crate::Done;
use crate::cli::{FormatName, SnapshotExportArgs};
use crate::run::usage;
use crate::session::Session;

/// Where it is, as the new image will find it.
fn place(args: &SnapshotExportArgs) -> Option<PathBuf> {
    let target = args.image.target();
    let backing = args.backing.as_ref()?;
    Some(target.parent().unwrap_or(Path::new("")).join(backing))
}

/// Refuses an image that would lie over itself.
pub(super) fn must_be_another(args: &SnapshotExportArgs) -> Done {
    match place(args) {
        Some(base) if is_same(&args.image.target(), &base) => {
            let error = usage(format!("--backing: {} is the image itself", base.display()));
            Err(other(error))
        }
        _ => Ok(()),
    }
}

/// Refuses a base that is there and was made of something else than what `increment`
/// needs. What is not there, or does not tell, is believed by its name.
pub(super) fn must_fit(
    session: &Session,
    args: &SnapshotExportArgs,
    increment: &Provenance,
) -> Done {
    let Some(base) = place(args).filter(|base| base.exists()) else {
        return Ok(());
    };
    if args.backing_format != FormatName::Qcow2 {
        return Ok(());
    }
    let shown = base.display();
    let unreadable = |why: String| other(usage(format!("--backing: {why}")));
    let file = open::file(&base).map_err(|error| unreadable(error.to_string()))?;
    let image = Image::open(file).map_err(|error| unreadable(format!("{shown}: {error}")))?;
    let Some(below) = image.extensions().provenance else {
        return Ok(());
    };
    match increment.over(&below) {
        Ok(Fit::Exact) => Ok(()),
        Ok(Fit::IfCommitted) => {
            session.say(&format!(
                "csnapctl: {shown} was made of an older snapshot than --from: that is right \
                 only if what changed until then was committed into it"
            ));
            Ok(())
        }
        Err(why) => Err(unreadable(format!(
            "{shown} is not the image of the snapshot --from: {why}"
        ))),
    }
}

fn other(error: Failure) -> Failure {
    error.next("name the image of the older snapshot")
}

/// Whether two paths lead to the same file, there or still to be made.
fn is_same(one: &Path, other: &Path) -> bool {
    let there = |path| Identity::of(path).ok();
    match (there(one), there(other)) {
        (Some(one), Some(other)) => one == other,
        _ => absolute(one).ok() == absolute(other).ok(),
    }
}
