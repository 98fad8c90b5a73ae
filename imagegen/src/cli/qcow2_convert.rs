//! Calls the library to write one image from another.

use super::places::{Destination, apart};
use super::qcow2::{Convert, FormatName};
use super::qcow2_places::Places;
use super::qcow2_verbs::chain;
use super::{Failure, progress};
use imagegen::qcow2::format::BitmapFlag;
use imagegen::qcow2::open::{Chain, OpenError, beside, open, shown, versions};
use imagegen::qcow2::read::{BITS, ReadError, Snapshot};
use imagegen::qcow2::write::{Bits, Contents, Options, Written};
use imagegen::qcow2::write::{needed, stream, stream_raw, whole_sectors, write, write_raw};
use serde::Serialize;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::Path;
use std::time::Instant;

/// What was made, as `--json` describes it. Sizes are in bytes.
#[derive(Serialize)]
struct Summary<'a> {
    image: &'a str,
    format: &'static str,
    size: u64,
    length: u64,
    data_clusters: u64,
    compressed_clusters: u64,
    seconds: f64,
}

/// Converts.
pub(super) fn run(arguments: &Convert) -> Result<(), Failure> {
    let begin = Instant::now();
    let chain = chain(&arguments.from)?;
    let image = arguments.target.to_string_lossy();
    let mut summary = Summary {
        image: &image,
        format: "raw",
        size: chain.disk.size(),
        length: chain.disk.size(),
        data_clusters: 0,
        compressed_clusters: 0,
        seconds: 0.0,
    };
    let is_piped = arguments.target.as_os_str() == "-";
    if is_piped {
        may_be_piped(arguments)?;
    }
    apart(&written(arguments))?;
    unread(arguments, &chain, "what is read")?;
    match to(arguments, &chain) {
        FormatName::Raw => {
            if let Some(name) = arguments.only_qcow2() {
                let what = "a raw image has no such thing; --to qcow2 makes one that has";
                return Err(Failure::usage(format!("{name}: {what}")));
            }
            raw(arguments, &chain, is_piped)?;
        }
        FormatName::Qcow2 => {
            let written = qcow2(arguments, &chain, is_piped)?;
            summary.format = "qcow2";
            summary.size = whole_sectors(summary.size);
            summary.length = written.length;
            summary.data_clusters = written.data_clusters;
            summary.compressed_clusters = written.compressed_clusters;
        }
    }
    summary.seconds = begin.elapsed().as_secs_f64();
    said(arguments, &summary)
}

/// Nobody wants an image on a terminal, or a summary in it.
fn may_be_piped(arguments: &Convert) -> Result<(), Failure> {
    if arguments.run.json {
        return Err(Failure::usage("--json: the image goes to standard output"));
    }
    if stdout().is_terminal() {
        return Err(Failure::usage(
            "standard output is a terminal: give a file, or a pipe",
        ));
    }
    Ok(())
}

/// What is written, each with what it is for.
fn written(arguments: &Convert) -> Vec<(&str, &Path)> {
    let target = arguments.target.as_path();
    let data = arguments.parts.data_file.as_deref();
    let image = (target.as_os_str() != "-").then_some(("the image", target));
    let data = data.map(|path| ("--data-file", path));
    image.into_iter().chain(data).collect()
}

/// Refuses to write over any file of a chain.
fn unread(arguments: &Convert, chain: &Chain, what: &str) -> Result<(), Failure> {
    for place in written(arguments) {
        for file in chain.files() {
            apart(&[(what, file), place])?;
        }
    }
    Ok(())
}

/// So many bytes to deal with.
const fn work(data: u64) -> progress::Work {
    progress::Work { data, objects: 0 }
}

fn raw(arguments: &Convert, chain: &Chain, is_piped: bool) -> Result<(), Failure> {
    let (run, size) = (&arguments.run, chain.disk.size());
    if is_piped {
        progress::shown(&work(size), run.is_silent(), |seen| {
            stream_raw(&chain.disk, stdout(), run.threads, seen)
        })?;
        return Ok(());
    }
    let place = Destination::open(&arguments.target, run.overwrite())?;
    let is_file = !place.is_device();
    let target = place.begin(size, size, run.overwrite())?;
    progress::shown(&work(size), run.is_silent(), |seen| {
        write_raw(&chain.disk, &target, is_file, run.threads, seen)
    })?;
    Ok(target.finish_at(size, !run.no_sync)?)
}

fn qcow2(arguments: &Convert, chain: &Chain, is_piped: bool) -> Result<Written, Failure> {
    let (run, parts) = (&arguments.run, &arguments.parts);
    let mut options = arguments.shape.options(run.threads)?;
    let below = below(arguments, &mut options)?;
    options.data_file = parts.data_file.as_deref().map(absolute).transpose()?;
    let versions = match parts.snapshots {
        true => {
            warn_of_state(chain)?;
            versions(chain)?
        }
        false => Vec::new(),
    };
    let contents = Contents {
        disk: &chain.disk,
        versions: &versions,
        below: below.as_ref().map(|chain| &chain.disk),
        bitmaps: &bitmaps(arguments, chain)?,
    };
    options.verify(&contents)?;
    let sizes = versions.iter().map(|version| version.disk.size());
    let all = sizes.fold(chain.disk.size(), u64::saturating_add);
    if is_piped {
        let twice = work(all.saturating_mul(2));
        return Ok(progress::shown(&twice, run.is_silent(), |seen| {
            stream(&contents, stdout(), &options, seen)
        })?);
    }
    let places = Places::open(arguments)?;
    // What does not fit is known before anything is wiped.
    let length = places.room().map_or(Ok(0), |room| {
        progress::shown(&work(all), run.is_silent(), |seen| {
            needed(&contents, &options, room, seen)
        })
    })?;
    let outputs = places.begin(length, whole_sectors(chain.disk.size()))?;
    let written = progress::shown(&work(all), run.is_silent(), |seen| {
        write(&contents, outputs.targets(), &options, seen)
    })?;
    outputs.finish(written.length)?;
    Ok(written)
}

/// The backing file, which is read as the format that the image will state.
fn below(arguments: &Convert, options: &mut Options) -> Result<Option<Chain>, Failure> {
    let parts = &arguments.parts;
    let (Some(name), Some(format)) = (&parts.backing, parts.backing_format) else {
        return Ok(None);
    };
    // Of a pipe, from where this runs.
    let path = beside(&arguments.target, name);
    let path = path.map_err(|error| Failure::usage(error.to_string()))?;
    apart(&[
        ("the backing file", &path),
        ("the image", &arguments.target),
    ])?;
    options.backing = Some((name.clone(), format.into()));
    let below = open(&path, Some(format.into()), None)?;
    unread(arguments, &below, "read as the backing file")?;
    Ok(Some(below))
}

/// Says which snapshots of a machine become those of its disk alone.
fn warn_of_state(chain: &Chain) -> Result<(), Failure> {
    let Some(image) = chain.disk.image() else {
        return Ok(());
    };
    let path = chain.paths.first().cloned().unwrap_or_default();
    let snapshots = image.snapshots();
    let snapshots = snapshots.map_err(|cause| OpenError::Read { path, cause })?;
    for snapshot in snapshots.iter().filter(|snapshot| snapshot.vm_state > 0) {
        let Snapshot { name, vm_state, .. } = snapshot;
        writeln!(
            stderr(),
            "warning: snapshot {name:?}: the state of the machine, {vm_state} bytes, is left out"
        )?;
    }
    Ok(())
}

fn bitmaps(arguments: &Convert, chain: &Chain) -> Result<Vec<Bits>, Failure> {
    let Some(image) = chain.disk.image() else {
        return Ok(Vec::new());
    };
    if !arguments.parts.bitmaps {
        return Ok(Vec::new());
    }
    let damaged = |cause| OpenError::Read {
        path: arguments.from.image.clone(),
        cause,
    };
    // Their bits may be those of another time, and lie where something else does by now.
    if image.has_stale_bitmaps() && image.extensions().bitmaps.is_some() {
        return Err(Failure::usage(format!(
            "{}: its bitmaps are stale, because a program that knows none wrote to it: leave \
             --bitmaps out",
            shown(&arguments.from.image)
        )));
    }
    let mut all = Vec::new();
    let mut bytes = 0;
    for bitmap in image.bitmaps().map_err(damaged)? {
        // What was not stored whole says nothing.
        if bitmap.has(BitmapFlag::InUse) {
            return Err(Failure::usage(format!(
                "bitmap {:?} was not stored whole: remove it (qemu-img bitmap --remove), or leave --bitmaps out",
                bitmap.name
            )));
        }
        bytes += image.bits_length(&bitmap);
        if bytes > BITS {
            let (what, most) = ("its bitmaps", BITS);
            return Err(damaged(ReadError::TooLarge { what, bytes, most }).into());
        }
        all.push(Bits {
            bits: image.bits(&bitmap).map_err(damaged)?,
            name: bitmap.name,
            granularity_bits: bitmap.granularity_bits,
            flags: bitmap.flags,
        });
    }
    Ok(all)
}

/// A path as it stands in an image: whoever opens that does it from anywhere.
fn absolute(path: &Path) -> Result<String, Failure> {
    let whole = std::path::absolute(path).map_err(|cause| Failure::Open {
        path: path.to_owned(),
        cause,
    })?;
    let text = whole.into_os_string().into_string();
    text.map_err(|_| Failure::usage("--data-file: its path must be UTF-8"))
}

/// What was asked for, or the other one.
fn to(arguments: &Convert, chain: &Chain) -> FormatName {
    arguments.to.unwrap_or(match chain.disk.image() {
        None => FormatName::Qcow2,
        Some(_) => FormatName::Raw,
    })
}

fn said(arguments: &Convert, summary: &Summary<'_>) -> Result<(), Failure> {
    if arguments.run.json {
        let mut out = stdout().lock();
        serde_json::to_writer(&mut out, summary).map_err(std::io::Error::from)?;
        return Ok(writeln!(out)?);
    }
    if arguments.run.quiet {
        return Ok(());
    }
    let Summary {
        image,
        format,
        size,
        length,
        seconds,
        ..
    } = summary;
    let text = format!("{image}: {format}, a disk of {size} bytes in {length}, {seconds:.1} s");
    Ok(writeln!(stderr(), "{text}")?)
}
