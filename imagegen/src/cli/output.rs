//! What is said of an image that was made: a line for a person, or JSON.

use super::Failure;
use super::make::Make;
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
    if arguments.json {
        let mut out = stdout().lock();
        serde_json::to_writer_pretty(&mut out, &summary).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else if !arguments.quiet {
        tell(&summary, took)?;
    }
    Ok(())
}

fn tell(summary: &Summary<'_>, took: Duration) -> Result<(), Failure> {
    let shared = match summary.shared {
        0 => String::new(),
        bytes => format!(", {} of it shared", BinaryBytes(bytes)),
    };
    writeln!(
        stderr(),
        "{}: XFS, {}; {} objects, {} of data{shared}; {} free; {}\nuuid {}",
        summary.image,
        BinaryBytes(summary.size),
        HumanCount(summary.objects),
        BinaryBytes(summary.data),
        BinaryBytes(summary.free),
        if took.as_secs() < 1 {
            format!("{} ms", took.as_millis())
        } else {
            HumanDuration(took).to_string()
        },
        summary.uuid,
    )?;
    Ok(())
}
