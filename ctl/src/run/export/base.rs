//! The image of the older snapshot, over which an increment is laid.

use std::path::{Path, PathBuf, absolute};

use imagegen::qcow2::open::{self, Chain};
use imagegen::qcow2::provenance::Provenance;
use ublk_target::control::protocol::Failure;
use ublk_target::device::Identity;

use crate::Done;
use crate::cli::SnapshotExportArgs;
use crate::run::usage;

/// Refuses a base that is there and cannot be that of `increment`: one that the new image
/// takes the place of, one that cannot be read, and unless `--trust`, one that was made of
/// something else. What is not there, or does not tell, is believed by its name, as is
/// everything where it is not known from where that counts.
pub(super) fn must_fit(args: &SnapshotExportArgs, increment: &Provenance) -> Done {
    let target = args.image.target();
    let Some(backing) = args.backing.as_ref().filter(|_| !args.image.is_piped()) else {
        return Ok(());
    };
    let base = target.parent().unwrap_or(Path::new("")).join(backing);
    let refused = |why: String| other(usage(format!("--backing: {why}")));
    if place(&base) == place(&target) {
        return Err(refused(format!("{} is the image itself", base.display())));
    }
    if !base.exists() {
        return Ok(());
    }
    let chain = open::open(&base, Some(args.backing_format.into()), None);
    let chain = chain.map_err(|error| refused(error.to_string()))?;
    must_not_be_in(&chain, &target)?;
    let Some(made) = chain
        .disk
        .image()
        .map(|image| image.extensions().provenance)
    else {
        return Ok(());
    };
    let told = made.map(|below| match chain.paths.len() {
        1 => below.over(None).and(increment.over(Some(&below))),
        _ => increment.over(Some(&below)),
    });
    match told {
        Some(Err(why)) if !args.trust => Err(refused(format!(
            "{} is not known to be the image of the snapshot --from: {why}",
            base.display()
        ))),
        _ => Ok(()),
    }
}

/// Whoever writes over an image of the chain loses what is needed of it.
fn must_not_be_in(chain: &Chain, target: &Path) -> Done {
    let identity = |path: &Path| Identity::of(path).ok();
    let Some(own) = identity(target) else {
        return Ok(());
    };
    match chain.files().find(|file| identity(file) == Some(own)) {
        None => Ok(()),
        Some(file) => {
            let file = file.display();
            let error = usage(format!(
                "--output: {file} lies below the image that --backing names"
            ));
            Err(error.next("name another place for the image"))
        }
    }
}

fn other(error: Failure) -> Failure {
    error.next("name the image of the older snapshot; --trust if it is")
}

/// Where a file is, or would be.
fn place(path: &Path) -> PathBuf {
    let named = || {
        let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new(".")).canonicalize().ok()?;
        Some(directory.join(path.file_name()?))
    };
    let there = path.canonicalize().ok().or_else(named);
    there.unwrap_or_else(|| absolute(path).unwrap_or_else(|_| path.to_owned()))
}
