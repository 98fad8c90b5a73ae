//! `csnapctl snapshot export`.

use std::path::{Path, absolute};
use std::time::Instant;

use imagegen::qcow2::open::Format;
use imagegen::qcow2::read::{Disk, Layer};
use imagegen::qcow2::write::Contents;
use ublk_target::control::protocol::{ErrorCode, Failure, Request};

use super::changes::{bytes_of, changes, whole_clusters};
use super::output::Output;
use super::{Exported, may_be_written, must_be_qcow2, options, usage};
use crate::Done;
use crate::cli::SnapshotExportArgs;
use crate::run::reading::connect;
use crate::run::snapshot;
use crate::session::Session;

/// Exports.
pub(in crate::run) fn export(session: &mut Session, args: &SnapshotExportArgs) -> Done {
    let begin = Instant::now();
    must_fit_together(args)?;
    may_be_written(session, &args.image)?;
    // What csnapd has to say of a snapshot that is not there is better than what NBD has.
    snapshot::one(
        session,
        Request::SnapshotShow {
            snapshot: args.snapshot.0.clone(),
        },
    )?;
    let name = args.snapshot.to_string();
    let remotes = connect(
        session,
        std::slice::from_ref(&name),
        args.image.rate.map(|rate| rate.0),
    )?;
    let Some(remote) = remotes.first() else {
        return Ok(());
    };
    let size = remote.bytes();
    let mut options = options(&args.image, remote, args.from.is_some())?;
    options.backing = args
        .backing
        .clone()
        .map(|name| (name, Format::from(args.backing_format)));
    let (layer, changed) = match &args.from {
        None => (Layer::Raw(remote), size),
        Some(older) => {
            let parts = changes(session, &older.0, &args.snapshot.0)?;
            let parts = whole_clusters(&parts, 1 << options.cluster_bits, size);
            let changed = bytes_of(&parts);
            (Layer::Parts(remote, parts), changed)
        }
    };
    let disk = Disk::new(vec![layer]).map_err(|error| {
        Failure::new(ErrorCode::Error, format!("cannot export {name}: {error}"))
    })?;
    let target = args.image.target();
    let output = Output::new(&name, &target, &args.image);
    let length = output.write(&Contents::of(&disk), &options)?;
    if output.is_piped() {
        return Ok(());
    }
    session.print(&[Exported {
        from: args.from.as_ref().map(ToString::to_string),
        image: target.display().to_string(),
        format: Format::from(args.image.format).name(),
        size,
        changed,
        snapshots: 0,
        length,
        seconds: begin.elapsed().as_secs_f64(),
        source: name,
    }])
}

fn must_fit_together(args: &SnapshotExportArgs) -> Done {
    must_be_qcow2(&args.image, &[(args.from.is_some(), "--from")])?;
    let target = args.image.target();
    if let Some(backing) = &args.backing {
        let backing = target.parent().unwrap_or(Path::new("")).join(backing);
        if super::is_same(&target, &backing) || absolute(&target).ok() == absolute(&backing).ok() {
            let message = format!("--backing: {} is the image itself", backing.display());
            return Err(usage(&message, "name the image of the older snapshot"));
        }
    }
    match &args.from {
        Some(from) if from.0.volume != args.snapshot.0.volume => Err(usage(
            "--from names a snapshot of another volume",
            "name an older snapshot of the same volume",
        )),
        _ => Ok(()),
    }
}
