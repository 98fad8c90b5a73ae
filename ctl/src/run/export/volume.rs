//! `csnapctl volume export`: the volume as it is now, and its snapshots if they are asked
//! for, in one image.
//!
//! Each version is a chain: what changed until the next one is read from itself, all else
//! is what the next one has. So what two of them have in common is in the same place, read
//! once and written once.

use std::time::{Duration, Instant};

use imagegen::qcow2::open::Format;
use imagegen::qcow2::read::{Disk, Layer, ReadError};
use imagegen::qcow2::write::{Contents, Options, Version};
use ublk_target::control::protocol::{ErrorCode, Failure, SnapshotName};
use ublk_target::control::views::{SnapshotStateName, SnapshotView};

use super::changes::{changes, whole_clusters};
use super::output::Output;
use super::{Exported, may_be_written, must_be_qcow2, options, provenance};
use crate::Done;
use crate::cli::VolumeExportArgs;
use crate::run::reading::{Moment, Reader, Remote, is_moment};
use crate::run::snapshot;
use crate::session::Session;

/// Each is read over a connection of its own, and csnapd has room for 256 in each of its
/// threads.
const MOST_SNAPSHOTS: usize = 200;

/// Exports.
pub(in crate::run) fn export(session: &mut Session, args: &VolumeExportArgs) -> Done {
    let begin = Instant::now();
    must_be_qcow2(&args.image, &[(args.with_snapshots, "--with-snapshots")])?;
    may_be_written(session, &args.image)?;
    let exported = Moment::with(session, &args.volume, |session, now| {
        write(session, args, now, begin)
    })?;
    match args.image.is_piped() {
        true => Ok(()),
        false => session.print(&[exported]),
    }
}

fn write(
    session: &mut Session,
    args: &VolumeExportArgs,
    now: &SnapshotName,
    begin: Instant,
) -> Done<Exported> {
    let older = match args.with_snapshots {
        true => older(session, now)?,
        false => Vec::new(),
    };
    let rate = args.image.rate.map(|rate| rate.0);
    let reader = Reader::new(session, older.len() + 1, rate)?;
    let (older, mut remotes) = opened(session, &reader, older)?;
    remotes.push(reader.open(session, now)?);
    // The oldest first.
    let names = older.iter().map(SnapshotView::exactly);
    let names: Vec<SnapshotName> = names.chain([now.clone()]).collect();
    let Some(newest) = remotes.last() else {
        return Err(failed(args, &"nothing of it can be read"));
    };
    let mut options = options(&args.image, newest, args.with_snapshots)?;
    // What holds snapshots may be made to show an older one.
    if !args.with_snapshots {
        options.provenance = Some(provenance(session, now, None)?);
    }
    let mut disks = chains(session, args, &names, &remotes, &options)?;
    let Some(disk) = disks.pop() else {
        return Err(failed(args, &"nothing of it can be read"));
    };
    // QEMU looks for ids before names: none may be taken for a name.
    let ids = (1_u64..).map(|id| id.to_string());
    let ids = ids.filter(|id| older.iter().all(|view| view.name != *id));
    let versions: Vec<_> = ids.zip(older.iter().zip(disks)).map(version).collect();
    let contents = Contents {
        versions: &versions,
        ..Contents::of(&disk)
    };
    let target = args.image.target();
    let output = Output::new(&args.volume, &target, &args.image);
    let length = output.write(&contents, &options)?;
    Ok(Exported {
        source: args.volume.clone(),
        from: None,
        image: target.display().to_string(),
        format: Format::from(args.image.format).name(),
        size: disk.size(),
        changed: disk.size(),
        snapshots: versions.len() as u64,
        length,
        seconds: begin.elapsed().as_secs_f64(),
    })
}

/// The snapshots of a volume that can be read, the oldest first, but for `now`.
fn older(session: &mut Session, now: &SnapshotName) -> Done<Vec<SnapshotView>> {
    let mut all = snapshot::all(session, Some(&now.volume))?;
    for gone in all
        .iter()
        .filter(|view| view.state != SnapshotStateName::Live)
    {
        left_out(session, gone, "dropped");
    }
    all.retain(|view| {
        let is_readable = view.state == SnapshotStateName::Live;
        is_readable && Some(view.tag) < now.tag && !is_moment(view)
    });
    all.sort_by_key(|view| view.tag);
    if all.len() > MOST_SNAPSHOTS {
        let (volume, count) = (&now.volume, all.len());
        let message = format!(
            "{volume} has {count} snapshots; {MOST_SNAPSHOTS} at most can be read at a time"
        );
        return Err(Failure::new(ErrorCode::Usage, message)
            .next("export some of them alone: csnapctl snapshot export"));
    }
    Ok(all)
}

/// Those that are still there, open: while one is read it is not deleted.
fn opened(
    session: &mut Session,
    reader: &Reader,
    all: Vec<SnapshotView>,
) -> Done<(Vec<SnapshotView>, Vec<Remote>)> {
    let (mut there, mut remotes) = (Vec::new(), Vec::new());
    for view in all {
        match reader.open(session, &view.exactly()) {
            Ok(remote) => {
                there.push(view);
                remotes.push(remote);
            }
            Err(failure) if failure.code == ErrorCode::NotFound => {
                left_out(session, &view, "deleted or dropped");
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok((there, remotes))
}

fn left_out(session: &Session, view: &SnapshotView, why: &str) {
    let name = view.exactly();
    session.say(&format!("csnapctl: {name} is left out: it was {why}"));
}

/// Each version, in the order of their names, the newest last: over the next one, what
/// changed until that.
fn chains<'a>(
    session: &mut Session,
    args: &VolumeExportArgs,
    names: &[SnapshotName],
    remotes: &'a [Remote],
    options: &Options,
) -> Done<Vec<Disk<&'a Remote>>> {
    let lost = |error: ReadError| failed(args, &error);
    let mut disks: Vec<Disk<&Remote>> = Vec::new();
    let mut newer = None;
    for (name, remote) in names.iter().zip(remotes).rev() {
        let disk = match (newer, disks.last()) {
            (Some(newer), Some(next)) => {
                let changed = changes(session, name, newer)?;
                let cluster = 1 << options.cluster_bits;
                let parts = whole_clusters(&changed, cluster, remote.bytes());
                next.with_over(Layer::Parts(remote, parts), None)
            }
            _ => Disk::new(vec![Layer::Raw(remote)]),
        };
        disks.push(disk.map_err(lost)?);
        newer = Some(name);
    }
    disks.reverse();
    Ok(disks)
}

fn version<'a>(
    (id, (view, disk)): (String, (&SnapshotView, Disk<&'a Remote>)),
) -> Version<&'a Remote> {
    Version {
        id,
        name: view.name.clone(),
        taken: Duration::from_millis(view.created_ms),
        vm_clock: Duration::ZERO,
        disk,
    }
}

fn failed(args: &VolumeExportArgs, why: &dyn std::fmt::Display) -> Failure {
    let message = format!("cannot export {}: {why}", args.volume);
    Failure::new(ErrorCode::Error, message)
}
