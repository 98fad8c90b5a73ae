//! `csnapctl snapshot export`: an image of a snapshot, or of what changed since another.
//!
//! csnapd serves the snapshot over its NBD socket, mapped or not; as long as this reads
//! it, it is not deleted. Chunks are read as csnapd reads them for any client: from the
//! origin or from the store, under its read-locks, verified. The image is written here, so
//! it belongs to whoever runs this, and csnapd writes to no file it was not given.
//!
//! - `remote`: the snapshot as what an image is made of
//! - `rate`: not more than so many bytes in a second
//! - `output`: the image, in a file, on a device, or in a pipe

mod output;
mod rate;
mod remote;

use std::io::{IsTerminal, stdout};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

use imagegen::qcow2::read::{Disk, Layer};
use imagegen::qcow2::write::{Contents, Options};
use serde::Serialize;
use ublk_target::control::protocol::{Answer, ErrorCode, Failure, Request, TakeTarget};

use super::{diff, unexpected, volume};
use crate::Done;
use crate::cli::{ExportArgs, FormatName};
use crate::output::columns::{hidden, listed};
use crate::output::table::{Column, Kind, Row};
use crate::session::Session;
use output::Output;
use rate::Rate;
use remote::Remote;

/// Clusters of an image that has no older one below it, as QEMU has them.
const USUAL_CLUSTER: u64 = 64 << 10;
/// Sizes of clusters (the QCOW2 specification).
const CLUSTERS: Range<u64> = 512..(2 << 20) + 1;
/// Most tables of level 2, as QEMU reads them.
const MOST_TABLES: u64 = 4 << 20;

/// What was made. Sizes are in bytes.
#[derive(Debug, Serialize)]
struct Exported {
    snapshot: String,
    from: Option<String>,
    image: String,
    format: &'static str,
    /// Of the snapshot.
    size: u64,
    /// What changed since the older one; all of it without.
    changed: u64,
    /// Of the image.
    length: u64,
    seconds: f64,
}

impl Row for Exported {
    const NAME: &'static str = "exports";
    const COLUMNS: &'static [Column] = &[
        listed("snapshot", "SNAPSHOT", Kind::Text),
        hidden("from", "SINCE", Kind::Text),
        listed("image", "IMAGE", Kind::Text),
        listed("format", "FORMAT", Kind::Text),
        listed("size", "SIZE", Kind::Bytes),
        listed("changed", "CHANGED", Kind::Bytes),
        listed("length", "LENGTH", Kind::Bytes),
        hidden("seconds", "SECONDS", Kind::Number),
    ];
}

/// Exports.
pub(super) fn export(session: &mut Session, args: &ExportArgs) -> Done {
    let begin = Instant::now();
    // Not what is to be printed, but where the image goes.
    session.style.fields.clear();
    let target = args.target();
    must_fit_together(args)?;
    if target.as_os_str() == "-" {
        may_be_piped(session)?;
    } else {
        must_be_nobodys(session, &target)?;
    }
    let name = format!("{}@{}", args.snapshot.0.volume, args.snapshot.0.name);
    let remote = connect(session, args, &name)?;
    let size = remote.bytes();
    let options = options(args, &remote)?;
    let cluster = 1 << options.cluster_bits;
    let parts = parts(session, args)?;
    let parts = parts.map(|parts| whole_clusters(parts, cluster, size));
    let changed = parts.as_ref().map_or(size, |parts| bytes_of(parts));
    let layer = match parts {
        Some(parts) => Layer::Parts(remote, parts),
        None => Layer::Raw(remote),
    };
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(ErrorCode::Error, format!("cannot export {name}: {error}"))
    };
    let disk = Disk::new(vec![layer]).map_err(|error| failed(&error))?;
    let output = Output {
        name: &name,
        target: &target,
        format: args.format,
        force: args.force,
    };
    let length = output.write(&Contents::of(&disk), &options)?;
    if target.as_os_str() == "-" {
        return Ok(());
    }
    session.print(&[Exported {
        from: args
            .from
            .as_ref()
            .map(|older| format!("{}@{}", older.0.volume, older.0.name)),
        snapshot: name,
        image: target.display().to_string(),
        format: imagegen::qcow2::open::Format::from(args.format).name(),
        size,
        changed,
        length,
        seconds: begin.elapsed().as_secs_f64(),
    }])
}

fn usage(message: &str, next: &str) -> Failure {
    Failure::new(ErrorCode::Usage, message).next(next)
}

fn must_fit_together(args: &ExportArgs) -> Done {
    let qcow2 = [
        (args.from.is_some(), "--from"),
        (args.compress.is_some(), "--compress"),
        (args.cluster_size.is_some(), "--cluster-size"),
    ];
    let only = qcow2.iter().find(|(given, _)| *given);
    if let (FormatName::Raw, Some((_, option))) = (args.format, only) {
        let message = format!("{option}: a raw image has no such thing");
        return Err(usage(&message, "leave it out, or --to raw"));
    }
    match &args.from {
        Some(from) if from.0.volume != args.snapshot.0.volume => Err(usage(
            "--from names a snapshot of another volume",
            "name an older snapshot of the same volume",
        )),
        _ => Ok(()),
    }
}

/// Nobody wants an image on a terminal, or a summary in it.
fn may_be_piped(session: &Session) -> Done {
    if session.style.json {
        let message = "--json: the image goes to standard output";
        return Err(usage(message, "leave one of both out"));
    }
    if stdout().is_terminal() {
        let message = "standard output is a terminal";
        return Err(usage(message, "name a file, or lead it into a pipe"));
    }
    Ok(())
}

/// Refuses to write over an origin or a store, whatever else was said.
fn must_be_nobodys(session: &mut Session, target: &Path) -> Done {
    let Answer::Status(status) = session.call(Request::Status {})? else {
        return Ok(());
    };
    let stores = status.stores.into_iter().map(|store| store.path);
    let volumes = volume::all(session, None)?;
    let origins = volumes.into_iter().map(|volume| volume.origin);
    let mut all = stores.chain(origins);
    match all.find(|path| is_same(target, Path::new(path))) {
        None => Ok(()),
        Some(path) => {
            let message = format!("{} is {path}, which csnap serves", target.display());
            Err(Failure::new(ErrorCode::Busy, message).next("name another place for the image"))
        }
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let (Ok(one), Ok(other)) = (one.metadata(), other.metadata()) else {
        return false;
    };
    match (
        one.file_type().is_block_device(),
        other.file_type().is_block_device(),
    ) {
        (true, true) => one.rdev() == other.rdev(),
        _ => (one.dev(), one.ino()) == (other.dev(), other.ino()),
    }
}

fn connect(session: &mut Session, args: &ExportArgs, name: &str) -> Done<Remote> {
    let status = match session.call(Request::Status {})? {
        Answer::Status(status) => status,
        other => return Err(unexpected(&other)),
    };
    // What csnapd has to say of a snapshot that is not there is better than what NBD has.
    session.call(Request::SnapshotShow {
        snapshot: args.snapshot.0.clone(),
    })?;
    let rate = args.rate.map(|rate| Rate::new(rate.0));
    Remote::connect(status.nbd_socket.into(), name.to_owned(), rate).map_err(|error| {
        let message = format!("cannot read {name}: {error}");
        Failure::new(ErrorCode::Error, message)
            .next("csnapctl status shows how csnapd is; csnapctl snapshot show the snapshot")
    })
}

fn options(args: &ExportArgs, remote: &Remote) -> Done<Options> {
    let cluster = match (args.cluster_size, &args.from) {
        (Some(size), _) => size.0,
        (None, None) => USUAL_CLUSTER,
        (None, Some(_)) => remote.chunk().clamp(CLUSTERS.start, CLUSTERS.end - 1),
    };
    if !cluster.is_power_of_two() || !CLUSTERS.contains(&cluster) {
        let message = "--cluster-size: a cluster has 512 bytes to 2 MiB, a power of two";
        return Err(usage(message, "leave it out"));
    }
    let mut cluster_bits = cluster.trailing_zeros();
    // Small chunks of a large volume would need more tables than are read.
    while args.cluster_size.is_none() && remote.bytes() >> (2 * cluster_bits - 3) >= MOST_TABLES {
        cluster_bits += 1;
    }
    let backing = args.backing.clone();
    Ok(Options {
        cluster_bits,
        compression: args.compress,
        backing: backing.map(|name| (name, args.backing_format.into())),
        threads: args.threads.unwrap_or(0),
        ..Options::default()
    })
}

/// What changed since the older snapshot, if one was named.
fn parts(session: &mut Session, args: &ExportArgs) -> Done<Option<Vec<Range<u64>>>> {
    let Some(older) = &args.from else {
        return Ok(None);
    };
    let newer = TakeTarget {
        volume: args.snapshot.0.volume.clone(),
        name: Some(args.snapshot.0.name.clone()),
    };
    let ranges = diff::ranges(session, &older.0, &newer)?;
    let bytes = |range: &ublk_target::control::views::RangeView| {
        range.start..range.start.saturating_add(range.length)
    };
    Ok(Some(ranges.iter().map(bytes).collect()))
}

/// The clusters that ranges in order are in: what is not in the image itself is read from
/// the one below by whole clusters.
fn whole_clusters(ranges: Vec<Range<u64>>, cluster: u64, size: u64) -> Vec<Range<u64>> {
    let mut whole: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        let begin = range.start - range.start % cluster;
        let end = range.end.next_multiple_of(cluster).min(size);
        match whole.last_mut() {
            Some(last) if last.end >= begin => last.end = end.max(last.end),
            _ => whole.push(begin..end),
        }
    }
    whole
}

fn bytes_of(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_the_clusters_they_are_in() {
        let whole = |ranges: &[Range<u64>]| whole_clusters(ranges.to_vec(), 10, 45);
        assert_eq!(whole(&[]), []);
        assert_eq!(whole(&[3..4, 12..15, 31..32]), [0..20, 30..40]);
        assert_eq!(whole(&[9..11, 19..20, 44..45]), [0..20, 40..45]);
    }
}
