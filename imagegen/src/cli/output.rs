//! What is said of an image that was made: a line for a person, or JSON.

use super::Failure;
use super::inputs::Run;
use super::make::Make;
use super::verity::Sealed;
use imagegen::erofs;
use imagegen::erofs::write::DataIn;
use imagegen::xfs::make::Plan;
use imagegen::xfs::write::Made;
use indicatif::{BinaryBytes, HumanCount, HumanDuration};
use serde::Serialize;
use std::io::{Write, stderr, stdout};
use std::path::Path;
use std::time::Duration;

/// An image, as `--json` describes it. Sizes are in bytes.
#[derive(Serialize)]
struct Summary<'a> {
    image: &'a str,
    format: &'static str,
    uuid: String,
    size: u64,
    block_size: u64,
    groups: u32,
    log: u64,
    objects: u64,
    directories: u64,
    files: u64,
    data: u64,
    shared: u64,
    free: u64,
    inodes: u64,
    free_inodes: u64,
    seconds: f64,
}

/// Says what was made, on standard output as JSON or on standard error as text.
pub(crate) fn made(
    arguments: &Make,
    image: &Path,
    plan: &Plan,
    made: &Made,
    took: Duration,
) -> Result<(), Failure> {
    let log = plan.geometry.block_log;
    let summary = Summary {
        image: &image.to_string_lossy(),
        format: "xfs",
        uuid: plan.geometry.uuid.to_string(),
        size: plan.bytes(),
        block_size: 1 << log,
        groups: plan.geometry.ag_count,
        log: u64::from(plan.geometry.log_blocks) << log,
        objects: made.counts.inodes,
        directories: made.counts.directories,
        files: made.counts.files,
        data: made.counts.data,
        shared: made.counts.shared_blocks << log,
        free: made.free_blocks << log,
        inodes: made.inodes,
        free_inodes: made.free_inodes,
        seconds: took.as_secs_f64(),
    };
    let shared = told_shared(summary.shared);
    say(&arguments.run, &summary, || {
        format!(
            "{}: XFS, {}; {} objects, {} of data{shared}; {} free; {}\nuuid {}",
            summary.image,
            BinaryBytes(summary.size),
            HumanCount(summary.objects),
            BinaryBytes(summary.data),
            BinaryBytes(summary.free),
            told_time(took),
            summary.uuid,
        )
    })
}

/// An EROFS image, as `--json` describes it. Sizes are in bytes.
#[derive(Serialize)]
struct ErofsSummary<'a> {
    image: &'a str,
    format: &'static str,
    uuid: String,
    size: u64,
    block_size: u32,
    objects: u64,
    directories: u64,
    files: u64,
    data: u64,
    shared: u64,
    /// Of the file beside it that holds the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    blob_size: Option<u64>,
    #[serde(flatten)]
    sealed: &'a Sealed,
    seconds: f64,
}

/// The same of an EROFS image.
pub(crate) fn erofs_made(
    run: &Run,
    image: &Path,
    request: &erofs::make::Request,
    plan: &erofs::make::Plan,
    made: &erofs::write::Made,
    sealed: &Sealed,
    took: Duration,
) -> Result<(), Failure> {
    let block_size = request.options.block_size;
    let is_beside = matches!(request.options.data, DataIn::Blob { .. });
    let summary = ErofsSummary {
        image: &image.to_string_lossy(),
        format: "erofs",
        uuid: plan.uuid.to_string(),
        size: sealed.bytes,
        block_size,
        objects: made.counts.inodes,
        directories: made.counts.directories,
        files: made.counts.files,
        data: made.counts.data,
        shared: made.counts.shared_blocks * u64::from(block_size),
        blob_size: is_beside.then_some(made.device_bytes),
        sealed,
        seconds: took.as_secs_f64(),
    };
    let shared = told_shared(summary.shared);
    say(run, &summary, || {
        format!(
            "{}: EROFS, {}; {} objects, {} of data{shared}; {}\nuuid {}",
            summary.image,
            BinaryBytes(summary.size),
            HumanCount(summary.objects),
            BinaryBytes(summary.data),
            told_time(took),
            summary.uuid,
        )
    })
}

/// An image of composefs, as `--json` describes it. Sizes are in bytes.
pub(crate) struct Composefs<'a> {
    pub(crate) image: &'a Path,
    pub(crate) version: u32,
    pub(crate) size: u64,
    pub(crate) objects: u64,
    /// Files that the object store got.
    pub(crate) new_in_store: u64,
    pub(crate) digest: &'a str,
}

#[derive(Serialize)]
struct ComposefsSummary<'a> {
    image: &'a str,
    format: &'static str,
    version: u32,
    size: u64,
    objects: u64,
    new_in_store: u64,
    digest: &'a str,
    seconds: f64,
}

/// The same of an image of composefs.
pub(crate) fn composefs_made(
    run: &Run,
    made: &Composefs<'_>,
    took: Duration,
) -> Result<(), Failure> {
    let summary = ComposefsSummary {
        image: &made.image.to_string_lossy(),
        format: "composefs",
        version: made.version,
        size: made.size,
        objects: made.objects,
        new_in_store: made.new_in_store,
        digest: made.digest,
        seconds: took.as_secs_f64(),
    };
    say(run, &summary, || {
        format!(
            "{}: composefs v{}, {}; {} objects, {} new in the object store; {}\ndigest {}",
            summary.image,
            summary.version,
            BinaryBytes(summary.size),
            HumanCount(summary.objects),
            HumanCount(summary.new_in_store),
            told_time(took),
            summary.digest,
        )
    })
}

/// Says it in the way that was asked for.
fn say(run: &Run, summary: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
    if run.json {
        let mut out = stdout().lock();
        serde_json::to_writer_pretty(&mut out, summary).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else if !run.quiet {
        writeln!(stderr(), "{}", text())?;
    }
    Ok(())
}

fn told_shared(bytes: u64) -> String {
    match bytes {
        0 => String::new(),
        bytes => format!(", {} of it shared", BinaryBytes(bytes)),
    }
}

fn told_time(took: Duration) -> String {
    match took.as_secs() {
        0 => format!("{} ms", took.as_millis()),
        _ => HumanDuration(took).to_string(),
    }
}
