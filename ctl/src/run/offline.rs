//! Verbs that work on the store's device itself, without the daemon: create
//! and check. The device is held exclusively meanwhile, so the daemon and
//! these never meet on one.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use snapstore::check::{self, CheckOptions, Report};
use snapstore::create::{self, CreateOptions};
use snapstore::{BLOCK_SIZE, Checksum, IoError};
use ublk_target::control::protocol::{ErrorCode, Failure};
use ublk_target::control::utc;
use ublk_target::daemon::failures::opening;
use ublk_target::daemon::{in_use, signature};
use ublk_target::device::{DeviceError, StoreDevice};

use super::counted;
use crate::Done;
use crate::cli::Consent;
use crate::output::table::{Column, Kind, Row};
use crate::output::{SCHEMA, human};
use crate::progress::{Bar, Spinner};
use crate::session::Session;

/// What `store create` was asked for.
pub(super) struct Wanted {
    pub(super) chunk_size: u64,
    pub(super) checksum: Checksum,
    pub(super) size: Option<u64>,
    pub(super) force: bool,
    pub(super) consent: Consent,
}

#[derive(Serialize)]
struct Created {
    path: String,
    uuid: String,
    size: u64,
    chunk_size: u64,
    checksum: String,
}

impl Row for Created {
    const NAME: &'static str = "created";
    const COLUMNS: &'static [Column] = &[
        Column {
            field: "path",
            heading: "STORE",
            kind: Kind::Text,
            listed: true,
        },
        Column {
            field: "uuid",
            heading: "UUID",
            kind: Kind::Text,
            listed: true,
        },
        Column {
            field: "size",
            heading: "SIZE",
            kind: Kind::Bytes,
            listed: true,
        },
        Column {
            field: "chunk_size",
            heading: "CHUNK",
            kind: Kind::Bytes,
            listed: true,
        },
        Column {
            field: "checksum",
            heading: "CHECKSUM",
            kind: Kind::Text,
            listed: true,
        },
    ];
}

/// Makes an empty store.
pub(super) fn create(session: &mut Session, path: &Path, wanted: &Wanted) -> Done {
    session.check_fields::<Created>()?;
    let chunk_size = u32::try_from(wanted.chunk_size)
        .ok()
        .filter(|size| size.is_power_of_two() && (4096..=1 << 20).contains(size))
        .ok_or_else(|| {
            let message = format!("{} is not a chunk size", human::size(wanted.chunk_size));
            Failure::new(ErrorCode::Usage, message).next("use a power of two from 4K to 1M")
        })?;
    if let Some(size) = wanted.size
        && !wanted.consent.dry_run
    {
        new_file(path, size)?;
    }
    let device = unused(path)?;
    let found = signature::find(device.size(), signature::reader(&device))
        .map_err(|error| unreadable(path, error))?;
    if !found.is_empty() {
        agree(session, path, &found, wanted)?;
    } else if wanted.consent.dry_run {
        session.say(&format!("{} would become an empty store.", path.display()));
    }
    if wanted.consent.dry_run {
        return Ok(());
    }
    let uuid = *uuid::Uuid::new_v4().as_bytes();
    let created = write(
        device,
        path,
        CreateOptions {
            uuid,
            chunk_size,
            checksum: wanted.checksum,
            created_ms: utc::now_ms(),
            journal_blocks: None,
        },
    )?;
    session.print(&[created])
}

fn write(mut device: StoreDevice, path: &Path, options: CreateOptions) -> Done<Created> {
    let spinner = Spinner::new(format!("Making a store on {}", path.display()));
    let result = create::create(&mut device, &options);
    drop(spinner);
    result.map_err(|error| opening(path, &error))?;
    Ok(Created {
        path: device.path().display().to_string(),
        uuid: uuid::Uuid::from_bytes(options.uuid).to_string(),
        size: device.size(),
        chunk_size: u64::from(options.chunk_size),
        checksum: options.checksum.to_string(),
    })
}

/// Makes a sparse file; an existing one is never resized.
fn new_file(path: &Path, size: u64) -> Done {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        // It will hold old contents of origins that others may not read.
        .mode(0o600)
        .open(path)
        .map_err(|error| {
            let failure = Failure::new(
                ErrorCode::Error,
                format!("cannot make {}: {error}", path.display()),
            );
            match error.kind() {
                std::io::ErrorKind::AlreadyExists => {
                    failure.next("leave out --size to use it as it is")
                }
                _ => failure,
            }
        })?;
    file.set_len(size).map_err(|error| {
        let _ = std::fs::remove_file(path);
        let message = format!("cannot make {} {size} bytes long: {error}", path.display());
        Failure::new(ErrorCode::NoSpace, message)
    })
}

/// The device, held exclusively, if nobody uses it.
fn unused(path: &Path) -> Done<StoreDevice> {
    let uses = in_use::uses(path);
    if !uses.is_empty() {
        let message = format!("{} is in use: {}", path.display(), uses.join(", "));
        return Err(Failure::new(ErrorCode::Busy, message)
            .next("unmount or release it first; --force does not override this"));
    }
    StoreDevice::open(path, false).map_err(held)
}

/// Something is on the device: that needs --force, and then consent.
fn agree(session: &Session, path: &Path, found: &[signature::Found], wanted: &Wanted) -> Done {
    let what: Vec<String> = found.iter().map(ToString::to_string).collect();
    let what = what.join(", ");
    if !wanted.force {
        let message = format!("{} seems to hold {what}", path.display());
        return Err(Failure::new(ErrorCode::Busy, message)
            .next("if that is really to be lost, repeat with --force"));
    }
    let warning = format!(
        "This writes over {}, which seems to hold {what}.",
        path.display()
    );
    session.confirm(wanted.consent, &warning).map(drop)
}

/// A report of the checker, for printing.
#[derive(Serialize)]
struct Checked {
    schema: u32,
    sound: bool,
    problems: Vec<String>,
    volumes: u64,
    snapshots: u64,
    exceptions: u64,
    blocks: u64,
    journal_records: u64,
    chunks_verified: u64,
    /// Of the device, behind the end of the store.
    unused_bytes: u64,
}

/// Checks a store.
pub(super) fn check(session: &mut Session, path: &Path, data: bool) -> Done {
    let mut device = StoreDevice::open(path, true).map_err(held)?;
    let mut bar = Bar::new("Checking");
    let report = check::check(&mut device, CheckOptions { data }, &mut |done, of| {
        bar.set(done, of)
    })
    .map_err(|error| opening(path, &error))?;
    drop(bar);
    report_on(session, path, report)
}

fn report_on(session: &mut Session, path: &Path, report: Report) -> Done {
    let problems = report.problems.len() as u64;
    let unused_bytes = report.unused.saturating_mul(BLOCK_SIZE as u64);
    let text = if session.style.json {
        let checked = Checked {
            schema: SCHEMA,
            sound: problems == 0,
            problems: report.problems,
            volumes: report.volumes,
            snapshots: report.snapshots,
            exceptions: report.exceptions,
            blocks: report.blocks,
            journal_records: report.journal_records,
            chunks_verified: report.chunks_verified,
            unused_bytes,
        };
        let text = serde_json::to_string_pretty(&checked);
        text.map_err(|error| Failure::new(ErrorCode::Error, error.to_string()))? + "\n"
    } else {
        let mut text: String = report
            .problems
            .iter()
            .map(|line| format!("{line}\n"))
            .collect();
        text += &format!(
            "{}: {}, {}, {}, {}, {}, {} verified\n",
            path.display(),
            counted(report.volumes, "volume"),
            counted(report.snapshots, "snapshot"),
            counted(report.exceptions, "exception"),
            counted(report.blocks, "metadata block"),
            counted(report.journal_records, "journal record"),
            counted(report.chunks_verified, "chunk"),
        );
        if unused_bytes >= 1 << 20 {
            text += &format!(
                "the device has {} behind the end of the store: attached, csnapctl store extend uses them\n",
                human::size(unused_bytes)
            );
        }
        text
    };
    session.write(&text)?;
    if problems == 0 {
        return Ok(());
    }
    let message = format!("{} has {}", path.display(), counted(problems, "problem"));
    Err(Failure::new(ErrorCode::Corruption, message).next(
        "csnapctl store repair says what that costs (--dry-run); the origins are not affected",
    ))
}

/// Why an offline command cannot have its device.
pub(super) fn held(error: DeviceError) -> Failure {
    let busy = error.is_busy();
    let failure = Failure::from(error);
    if busy {
        failure.next("if csnapd serves it: csnapctl store detach")
    } else {
        failure
    }
}

fn unreadable(path: &Path, error: IoError) -> Failure {
    let message = format!("{} cannot be read: {error}", path.display());
    Failure::new(ErrorCode::Error, message)
}
