//! `csnapctl volume restore`: a full image, or a chain of them, back onto a volume.
//!
//! The volume stays served, so its snapshots keep what they show. Only what differs is
//! written, and at the end all of it is read again and compared.
//!
//! - `chain`: the images
//! - `disk`: the volume, as a block device or over NBD
//! - `dropped`: the snapshots that it cost
//! - `copy`: comparing, writing, and comparing again

mod chain;
mod copy;
mod disk;
mod dropped;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use imagegen::qcow2::format::Incompatible;
use imagegen::qcow2::provenance::Provenance;
use imagegen::qcow2::read::{Disk, Layer};
use serde::Serialize;
use ublk_target::control::protocol::{ErrorCode, Failure, Request, SnapshotName};
use ublk_target::control::views::{PolicyName, VolumeState, VolumeView};

use super::apart::share;
use super::reading::interrupt;
use super::{snapshot, status, volume};
use crate::Done;
use crate::cli::RestoreArgs;
use crate::names::check_name;
use crate::output::columns::{hidden, listed};
use crate::output::human;
use crate::output::table::{Column, Kind, Row};
use crate::session::Session;
use copy::RestoreError;
use disk::VolumeDisk;
use dropped::Live;

/// What was done. Sizes are in bytes.
#[derive(Debug, Serialize)]
struct Restored {
    volume: String,
    /// The oldest first.
    images: Vec<String>,
    /// Of the image; what the volume has beyond it was not touched.
    size: u64,
    /// What was not the same before.
    written: u64,
    /// A snapshot of what was there before.
    kept: Option<String>,
    /// Snapshots of the store that were dropped meanwhile.
    dropped: Vec<String>,
    seconds: f64,
}

impl Row for Restored {
    const NAME: &'static str = "restores";
    const COLUMNS: &'static [Column] = &[
        listed("volume", "VOLUME", Kind::Text),
        listed("size", "SIZE", Kind::Bytes),
        listed("written", "WRITTEN", Kind::Bytes),
        listed("kept", "KEPT", Kind::Text),
        hidden("dropped", "DROPPED", Kind::Text),
        hidden("seconds", "SECONDS", Kind::Number),
    ];
}

/// Restores.
pub(super) fn restore(session: &mut Session, args: &RestoreArgs) -> Done {
    let begin = Instant::now();
    session.check_fields::<Restored>()?;
    if let Some(name) = &args.keep {
        check_name(name).map_err(super::usage)?;
    }
    let name = args.volume.clone();
    let view = volume::one(session, Request::VolumeShow { name })?;
    must_be_idle(&view)?;
    let images = chain::open(&args.images, args.format, args.trust)?;
    must_be_others(&view, &images.files)?;
    let image = images.disk;
    must_hold_something(&image)?;
    must_fit(&view, image.size())?;
    let warning = warning(session, &view, &image, args)?;
    if !session.confirm(args.consent, &warning)? {
        return Ok(());
    }
    interrupt::heed()?;
    let disk = VolumeDisk::open(session, &view)?;
    must_still_be(session, &view)?;
    disk.must_take(&view, image.size())?;
    let before = Live::now(session, &view.store)?;
    let kept = keep(session, args)?;
    let written = copy::restore(&image, &disk, args.threads);
    // What is still to be written is, before the snapshots are looked at.
    drop(disk);
    let dropped = before.dropped_since(session);
    let written = written.map_err(|error| unrestored(&view, &error, kept.as_ref()))?;
    let images = args.images.iter().map(|path| path.display().to_string());
    session.print(&[Restored {
        images: images.collect(),
        size: image.size(),
        written,
        kept: kept.as_ref().map(ToString::to_string),
        dropped,
        seconds: begin.elapsed().as_secs_f64(),
        volume: view.name,
    }])?;
    kept.map_or(Ok(()), |kept| release(session, &kept))
}

fn unrestored(view: &VolumeView, error: &RestoreError, kept: Option<&SnapshotName>) -> Failure {
    let message = format!("cannot restore {}: {error}", view.name);
    Failure::new(error.code(), message).next(match kept {
        Some(kept) => format!("it may hold parts of both; {kept} is held and has what was there"),
        None => "it may hold parts of both: restore it again".to_owned(),
    })
}

fn must_be_idle(view: &VolumeView) -> Done {
    let refused = |message: String, next: &str| {
        let message = format!("{} {message}", view.name);
        Err(Failure::new(ErrorCode::Busy, message).next(next))
    };
    match (view.state, view.uses) {
        (VolumeState::Served, 0) => Ok(()),
        (VolumeState::Served, uses) => refused(
            format!("is in use: {}", super::counted(uses, "user")),
            "unmount it, end the programs that have it open, let NBD clients disconnect",
        ),
        _ => refused(
            "is not served".to_owned(),
            "csnapctl volume show tells why, and what to do",
        ),
    }
}

/// What was opened is the volume that was looked at: time may have passed since, and
/// another may have its device now. Nobody else may have come over NBD.
fn must_still_be(session: &mut Session, view: &VolumeView) -> Done {
    let name = view.name.clone();
    let now = volume::one(session, Request::VolumeShow { name })?;
    let ours = u64::from(view.device.is_none());
    let same = |view: &VolumeView| {
        (
            view.uuid.clone(),
            view.device.clone(),
            view.size,
            view.state,
        )
    };
    if same(&now) == same(view) && now.clients == ours {
        return Ok(());
    }
    let message = format!(
        "{} has changed, or is used, since it was looked at",
        view.name
    );
    Err(Failure::new(ErrorCode::Busy, message).next("look again: csnapctl volume show"))
}

/// The volume cannot be read as it was while it is written.
fn must_be_others(view: &VolumeView, files: &[PathBuf]) -> Done {
    let own = [Some(&view.origin), view.device.as_ref()];
    let is_own = |file: &&PathBuf| {
        let mut own = own.iter().flatten();
        own.any(|own| share(file, Path::new(own)))
    };
    match files.iter().find(is_own) {
        None => Ok(()),
        Some(path) => {
            let (path, name) = (path.display(), &view.name);
            let error = super::usage(format!("{path} is on the storage of {name} itself"));
            Err(error.next("name an image; csnapctl snapshot export makes one of a snapshot"))
        }
    }
}

/// A backup that was cut to nothing, or that QEMU found damaged, is none.
fn must_hold_something(image: &Disk<File>) -> Done {
    if image.size() == 0 {
        let message = "the image is of a disk without bytes";
        return Err(Failure::new(ErrorCode::Usage, message).next("name the image that was meant"));
    }
    let is_corrupt = |layer: &Layer<File>| match layer {
        Layer::Qcow2(image) => image.layout().has(Incompatible::Corrupt),
        Layer::Raw(_) | Layer::Parts(..) => false,
    };
    if image.layers().any(is_corrupt) {
        let message = "an image is marked as corrupt";
        let next = "imagegen qcow2 check tells what is wrong; qemu-img check -r all mends some";
        return Err(Failure::new(ErrorCode::Corruption, message).next(next));
    }
    Ok(())
}

fn must_fit(view: &VolumeView, size: u64) -> Done {
    if size <= view.size {
        return Ok(());
    }
    let message = format!(
        "the image has {size} bytes, and {} only {}",
        view.name, view.size
    );
    Err(Failure::new(ErrorCode::NoSpace, message)
        .next("extend the origin, then csnapctl volume resize"))
}

fn warning(
    session: &mut Session,
    view: &VolumeView,
    image: &Disk<File>,
    args: &RestoreArgs,
) -> Done<String> {
    let size = image.size();
    let mut text = format!(
        "This overwrites {} of volume {} with what the image holds.",
        human::size(size),
        view.name
    );
    let of_other = |made: &Provenance| made.disk.to_string() != view.uuid;
    if image
        .image()
        .and_then(|top| top.extensions().provenance)
        .as_ref()
        .is_some_and(of_other)
    {
        text += " The image was made of another volume.";
    }
    if size < view.size {
        let beyond = human::size(view.size - size);
        text += &format!(" The {beyond} beyond the image's end stay as they are.");
    }
    text += match args.keep {
        Some(_) => " What it holds now stays in a snapshot.",
        None => " What it holds now is lost; --keep takes a snapshot of it first.",
    };
    if view.snapshots > 0 || args.keep.is_some() {
        text += &price(session, view)?;
    }
    Ok(text)
}

/// What becomes of snapshots that need what is overwritten.
fn price(session: &mut Session, view: &VolumeView) -> Done<String> {
    let stores = status::of(session)?.stores;
    let store = stores.iter().find(|store| store.path == view.store);
    let free = store.map_or(0, |store| store.size.saturating_sub(store.used));
    let otherwise = match view.policy {
        PolicyName::OriginFirst => "snapshots are dropped, also of other volumes",
        PolicyName::SnapshotFirst => "the restore fails",
    };
    Ok(format!(
        " What its snapshots show is copied to the store first, which has {} free: if that is \
         too little, {otherwise}.",
        human::size(free)
    ))
}

/// The snapshot that was asked for, held.
fn keep(session: &mut Session, args: &RestoreArgs) -> Done<Option<SnapshotName>> {
    let Some(name) = args.keep.clone() else {
        return Ok(None);
    };
    let kept = snapshot::take_one(session, &args.volume, name, 0)?;
    hold(session, &kept, true)?;
    Ok(Some(kept))
}

/// Whether the snapshot stays whatever room the restore needs.
fn hold(session: &mut Session, snapshot: &SnapshotName, held: bool) -> Done {
    let set = Request::SnapshotSet {
        snapshot: snapshot.clone(),
        priority: None,
        hold: Some(held),
    };
    snapshot::one(session, set).map(drop)
}

/// Ends that.
fn release(session: &mut Session, kept: &SnapshotName) -> Done {
    hold(session, kept, false).map_err(|failure| {
        let (volume, why) = (&kept.volume, failure.message);
        let message = format!("{volume} is restored, but {kept} cannot be let go: {why}");
        Failure::new(failure.code, message).next(format!("csnapctl snapshot set {kept} --no-hold"))
    })
}
