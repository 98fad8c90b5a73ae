//! The image of the older snapshot, over which an increment is laid.

use std::path::{Path, PathBuf, absolute};

use imagegen::qcow2::open::{self, Chain};
use imagegen::qcow2::provenance::{Misfit, Provenance};
use ublk_target::control::protocol::Failure;

use crate::Done;
use crate::cli::SnapshotExportArgs;
use crate::run::apart::share;
use crate::run::usage;

/// Refuses a base that cannot be that of `increment`: always one that the new image would
/// take the place of, and unless `--trust`, one that cannot be read or was made of something
/// else. What is not there, or does not tell, is believed by its name, as is everything
/// where it is not known from where that counts.
pub(super) fn must_fit(args: &SnapshotExportArgs, increment: &Provenance) -> Done {
    let target = args.image.target();
    let Some(backing) = args.backing.as_ref().filter(|_| !args.image.is_piped()) else {
        return Ok(());
    };
    let refused = |why: String| other(usage(format!("--backing: {why}")));
    let base = match open::beside(&target, backing) {
        Ok(base) => base,
        // On another machine.
        Err(_) if args.trust && !backing.starts_with("file:") => return Ok(()),
        Err(error) => return Err(refused(error.to_string())),
    };
    if place(&base) == place(&target) || share(&base, &target) {
        let why = format!("{} is the image itself", base.display());
        return Err(refused(why));
    }
    if !base.exists() {
        return Ok(());
    }
    let chain = match open::open(&base, Some(args.backing_format.into()), None) {
        Ok(chain) => chain,
        Err(_) if args.trust => return Ok(()),
        Err(error) => return Err(refused(error.to_string())),
    };
    must_not_be_in(&chain, &target)?;
    match fit(&chain, increment) {
        Err(why) if !args.trust => Err(refused(format!(
            "{} is not known to be the image of the snapshot --from: {why}",
            base.display()
        ))),
        _ => Ok(()),
    }
}

/// Whether the topmost image of the chain, as far as it tells, is what `increment` needs.
fn fit(chain: &Chain, increment: &Provenance) -> Result<(), Misfit> {
    let image = chain.disk.image();
    let Some(below) = image.and_then(|image| image.extensions().provenance) else {
        return Ok(());
    };
    if chain.paths.len() == 1 {
        below.over(None)?;
    }
    increment.over(Some(&below))
}

/// Whoever writes over an image of the chain loses what is needed of it.
fn must_not_be_in(chain: &Chain, target: &Path) -> Done {
    match chain.files().find(|file| share(file, target)) {
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
