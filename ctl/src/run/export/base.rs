//! The image of the older snapshot, over which an increment is laid.

use std::io::ErrorKind;
use std::path::{Path, PathBuf, absolute};

use imagegen::qcow2::open::{self, Chain, Format};
use imagegen::qcow2::provenance::Provenance;
use ublk_target::control::protocol::Failure;

use crate::Done;
use crate::cli::{FormatName, SnapshotExportArgs};
use crate::run::apart::share;
use crate::run::images::{SECTOR, belong_together, is_qcow2, must_be_still};
use crate::run::usage;
use crate::session::Session;

/// What is known of an increment before it is made.
pub(super) struct Increment {
    pub(super) made_of: Provenance,
    /// Bytes of the older snapshot.
    pub(super) older: u64,
}

/// Refuses a base that cannot be that of `increment`: always one that the new image would
/// take the place of, and unless `--trust`, one that cannot be read or was made of something
/// else. What is not there, or does not tell, is believed by its name, as is everything
/// where it is not known from where that counts.
pub(super) fn must_fit(
    session: &Session,
    args: &SnapshotExportArgs,
    increment: &Increment,
) -> Done {
    let Some(backing) = args.backing.as_ref().filter(|_| !args.image.is_piped()) else {
        return Ok(());
    };
    // What a symbolic link leads to is replaced, not the link.
    let target = place(&args.image.target());
    let Some(base) = base_of(args, &target, backing)? else {
        return Ok(());
    };
    if place(&base) == target || share(&base, &target) {
        return Err(refused(format!("{} is the image itself", base.display())));
    }
    let shown = base.display();
    match (base.symlink_metadata(), base.try_exists()) {
        (Err(error), _) if error.kind() == ErrorKind::NotFound => {
            session.say(&format!(
                "csnapctl: {shown} is not there: that it is the image of the snapshot --from is \
                 believed"
            ));
            Ok(())
        }
        // That may become the image itself.
        (Ok(_), Ok(false)) => Err(
            usage(format!("--backing: {shown} leads to what is not there"))
                .next("name the image of the older snapshot itself"),
        ),
        _ => must_be_that_of(args, increment, &base, &target),
    }
}

/// What `backing` means in the image; `None`: no file of this machine.
fn base_of(args: &SnapshotExportArgs, target: &Path, backing: &str) -> Done<Option<PathBuf>> {
    let base = match open::beside(target, backing) {
        Ok(base) => base,
        Err(_) if args.trust && !backing.starts_with("file:") => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    // QEMU looks beside the name by which it is told to open the image.
    let named = open::beside(&args.image.target(), backing).map_err(refused)?;
    if place(&named) == place(&base) {
        return Ok(Some(base));
    }
    let (named, base) = (named.display(), base.display());
    Err(usage(format!("--backing: {named} is not the file {base}"))
        .next("--output is a symbolic link: name what it leads to, or the base by its whole path"))
}

/// The same of a base that is there.
fn must_be_that_of(
    args: &SnapshotExportArgs,
    increment: &Increment,
    base: &Path,
    target: &Path,
) -> Done {
    if args.backing_format == FormatName::Raw && is_qcow2(base) {
        if !args.trust {
            let base = base.display();
            let error = usage(format!("--backing-format: {base} is QCOW2, not raw"));
            return Err(error.next("-F qcow2; --trust if it is a disk that begins as QCOW2 does"));
        }
        if let Ok(chain) = open::open(base, Some(Format::Qcow2), None) {
            must_not_be_in(&chain, target)?;
        }
    }
    let chain = match open::open(base, Some(args.backing_format.into()), None) {
        Ok(chain) => chain,
        Err(_) if args.trust => return Ok(()),
        Err(error) => return Err(refused(error)),
    };
    must_not_be_in(&chain, target)?;
    if args.trust {
        return Ok(());
    }
    fit(&chain, increment).map_err(|why| {
        refused(format!(
            "{} is not known to be the image of the snapshot --from: {why}",
            base.display()
        ))
    })?;
    must_be_still(chain.files())
}

/// Whether the chain, as far as it tells, is whole and what `increment` needs.
fn fit(chain: &Chain, increment: &Increment) -> Result<(), String> {
    belong_together(&chain.disk, &chain.paths)?;
    let image = chain.disk.image();
    if let Some(below) = image.and_then(|image| image.extensions().provenance) {
        let over = increment.made_of.over(Some(&below));
        over.map_err(|why| why.to_string())?;
    }
    let (size, older) = (chain.disk.size(), increment.older);
    // A disk may be larger than the image that was written to it.
    let may_be_larger = image.is_none() && !chain.files().all(Path::is_file);
    match size.next_multiple_of(SECTOR) == older.next_multiple_of(SECTOR) {
        false if size < older || !may_be_larger => {
            Err(format!("it has {size} bytes, and the snapshot has {older}"))
        }
        _ => Ok(()),
    }
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

fn refused(why: impl std::fmt::Display) -> Failure {
    usage(format!("--backing: {why}"))
        .next("name the image of the older snapshot; --trust if it is")
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
