//! `csnapctl snapshot export`.

use std::time::Instant;

use imagegen::qcow2::open::Format;
use imagegen::qcow2::read::{Disk, Layer};
use imagegen::qcow2::write::Contents;
use ublk_target::control::protocol::{ErrorCode, Failure, Request, SnapshotName};

use super::base::{self, Increment};
use super::changes::{bytes_of, changes, whole_clusters};
use super::output::Output;
use super::{Exported, may_be_written, must_be_qcow2, options, provenance};
use crate::Done;
use crate::cli::SnapshotExportArgs;
use crate::run::reading::Reader;
use crate::run::{snapshot, usage};
use crate::session::Session;

/// Exports.
pub(in crate::run) fn export(session: &mut Session, args: &SnapshotExportArgs) -> Done {
    let begin = Instant::now();
    must_fit_together(args)?;
    may_be_written(session, &args.image)?;
    let wanted = snapshot::exactly(session, args.snapshot.0.clone())?;
    let name = wanted.to_string();
    let reader = Reader::new(session, 1, args.image.rate.map(|rate| rate.0))?;
    let remote = &reader.open(session, &wanted)?;
    let size = remote.bytes();
    let mut options = options(&args.image, remote, args.from.is_some())?;
    options.backing = args
        .backing
        .clone()
        .map(|name| (name, Format::from(args.backing_format)));
    let older = args.from.as_ref().map(|older| older.0.clone());
    let older = older.map(|older| snapshot::exactly(session, older));
    let older = older.transpose()?;
    let made_of = provenance(session, &wanted, older.as_ref())?;
    if let Some(older) = &older {
        let older = size_of(session, older)?;
        base::must_fit(session, args, &Increment { made_of, older })?;
    }
    options.provenance = Some(made_of);
    let (layer, changed) = match &older {
        None => (Layer::Raw(remote), size),
        Some(older) => {
            let parts = changes(session, older, &wanted)?;
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
    if args.image.is_piped() {
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

/// Bytes of a snapshot.
fn size_of(session: &mut Session, name: &SnapshotName) -> Done<u64> {
    let snapshot = name.clone();
    snapshot::one(session, Request::SnapshotShow { snapshot }).map(|view| view.size)
}

fn must_fit_together(args: &SnapshotExportArgs) -> Done {
    must_be_qcow2(&args.image, &[(args.from.is_some(), "--from")])?;
    match &args.from {
        Some(from) if from.0.volume != args.snapshot.0.volume => {
            Err(usage("--from names a snapshot of another volume")
                .next("name an older snapshot of the same volume"))
        }
        _ => Ok(()),
    }
}
