//! `csnapctl snapshot export` and `volume export`: an image of a snapshot, of what changed
//! since another, or of a volume with all its snapshots.
//!
//! What is read is read from csnapd (`reading`). The image is written here, so it belongs
//! to whoever runs this, and csnapd writes to no file it was not given.
//!
//! - `snapshot`, `volume`: the verbs
//! - `base`: the image below an increment
//! - `changes`: what changed between two of them, as parts of an image
//! - `output`: the image, in a file, on a device, or in a pipe

mod base;
mod changes;
mod output;
mod snapshot;
mod volume;

use std::io::{IsTerminal, stdout};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;

use imagegen::qcow2::provenance::Provenance;
use imagegen::qcow2::write::Options;
use serde::Serialize;
use ublk_target::control::protocol::{ErrorCode, Failure, Request, SnapshotName};
use uuid::Uuid;

use super::apart::Served;
use super::reading::Remote;
use super::{usage, volume as volumes};
use crate::Done;
use crate::cli::{FormatName, ImageArgs};
use crate::output::columns::{hidden, listed};
use crate::output::table::{Column, Kind, Row};
use crate::session::Session;

pub(super) use snapshot::export as export_snapshot;
pub(super) use volume::export as export_volume;

/// Clusters of an image that has none below it and no snapshots, as QEMU has them.
const USUAL_CLUSTER: u64 = 64 << 10;
/// Sizes of clusters (the QCOW2 specification).
const CLUSTERS: RangeInclusive<u64> = 512..=2 << 20;
/// Most tables of level 2, as QEMU reads them.
const MOST_TABLES: u64 = 4 << 20;

/// What was made. Sizes are in bytes.
#[derive(Debug, Serialize)]
struct Exported {
    /// A snapshot, or a volume.
    source: String,
    from: Option<String>,
    image: String,
    format: &'static str,
    /// Of the source.
    size: u64,
    /// What changed since the older one; all of it without.
    changed: u64,
    /// In the image.
    snapshots: u64,
    /// Of the image.
    length: u64,
    seconds: f64,
}

impl Row for Exported {
    const NAME: &'static str = "exports";
    const COLUMNS: &'static [Column] = &[
        listed("source", "SOURCE", Kind::Text),
        hidden("from", "SINCE", Kind::Text),
        listed("image", "IMAGE", Kind::Text),
        listed("format", "FORMAT", Kind::Text),
        listed("size", "SIZE", Kind::Bytes),
        listed("changed", "CHANGED", Kind::Bytes),
        hidden("snapshots", "SNAPSHOTS", Kind::Number),
        listed("length", "LENGTH", Kind::Bytes),
        hidden("seconds", "SECONDS", Kind::Number),
    ];
}

/// Refuses a target that is not for an image. From here on, what is printed is not what
/// was given as that option.
fn may_be_written(session: &mut Session, image: &ImageArgs) -> Done {
    session.style.fields.clear();
    let target = image.target();
    if target.as_os_str().is_empty() {
        return Err(usage("--output: no name").next("name a file, or - for standard output"));
    }
    if image.rate.is_some_and(|rate| rate.0 == 0) {
        return Err(usage("--rate: nothing could be read").next("leave it out for no limit"));
    }
    match image.is_piped() {
        true => may_be_piped(session),
        false => Served::now(session)?.must_be_apart(&target),
    }
}

/// Refuses options that a raw image has no use for.
fn must_be_qcow2(image: &ImageArgs, others: &[(bool, &str)]) -> Done {
    let own = [
        (image.compress.is_some(), "--compress"),
        (image.cluster_size.is_some(), "--cluster-size"),
    ];
    let only = others.iter().chain(&own).find(|(given, _)| *given);
    match (image.format, only) {
        (FormatName::Raw, Some((_, option))) => {
            let error = usage(format!("{option}: a raw image has no such thing"));
            Err(error.next("leave it out, or --to qcow2"))
        }
        _ => Ok(()),
    }
}

/// Nobody wants an image on a terminal, or a summary in it.
fn may_be_piped(session: &Session) -> Done {
    if session.style.json {
        return Err(
            usage("--json: the image goes to standard output").next("leave one of both out")
        );
    }
    if stdout().is_terminal() {
        return Err(
            usage("standard output is a terminal").next("name a file, or lead it into a pipe")
        );
    }
    Ok(())
}

/// Of what an image is made that shows `version` of `volume`, over one of `since`.
fn provenance(
    session: &mut Session,
    version: &SnapshotName,
    since: Option<&SnapshotName>,
) -> Done<Provenance> {
    let name = version.volume.clone();
    let volume = volumes::one(session, Request::VolumeShow { name })?;
    let disk = Uuid::try_parse(&volume.uuid).map_err(|error| {
        let message = format!("csnapd told a UUID {:?}: {error}", volume.uuid);
        Failure::new(ErrorCode::Error, message)
    })?;
    Ok(Provenance {
        disk,
        version: version.tag.unwrap_or_default(),
        since: since.and_then(|since| NonZeroU64::new(since.tag?)),
    })
}

/// For an image of `newest`; `by_chunks` if it does not hold all of it alone.
fn options(image: &ImageArgs, newest: &Remote, by_chunks: bool) -> Done<Options> {
    let cluster = match image.cluster_size {
        Some(size) => size.0,
        None if by_chunks => newest.chunk().clamp(*CLUSTERS.start(), *CLUSTERS.end()),
        None => USUAL_CLUSTER,
    };
    if !cluster.is_power_of_two() || !CLUSTERS.contains(&cluster) {
        let error = usage("--cluster-size: a cluster has 512 bytes to 2 MiB, a power of two");
        return Err(error.next("leave it out"));
    }
    if cluster < newest.block() {
        let block = newest.block();
        let error = usage(format!(
            "--cluster-size: the origin has blocks of {block} bytes"
        ));
        return Err(error.next("clusters must not be smaller than those"));
    }
    let mut cluster_bits = cluster.trailing_zeros();
    // Small chunks of a large volume would need more tables than are read.
    while image.cluster_size.is_none() && newest.bytes() >> (2 * cluster_bits - 3) >= MOST_TABLES {
        cluster_bits += 1;
    }
    Ok(Options {
        cluster_bits,
        compression: image.compress,
        threads: image.threads.unwrap_or(0).into(),
        ..Options::default()
    })
}
