//! `csnapctl store repair`: what is wrong, what that costs, consent, then the repair.

use std::path::Path;

use serde::Serialize;
use snapstore::repair::{self, Loss, Named, Repair, RepairError, RepairOptions};
use ublk_target::control::protocol::{ErrorCode, Failure};
use ublk_target::daemon::failures::opening;
use ublk_target::device::StoreDevice;

use super::counted;
use super::offline::held;
use crate::Done;
use crate::cli::Consent;
use crate::output::SCHEMA;
use crate::progress::Bar;
use crate::session::Session;

/// A repair, for programs.
#[derive(Serialize)]
struct Repaired {
    schema: u32,
    /// The store is sound now.
    sound: bool,
    dry_run: bool,
    problems: Vec<String>,
    lost: Vec<Lost>,
    rebuilt: Vec<&'static str>,
    older_checkpoint: Option<u64>,
    remaining: Vec<String>,
}

/// A loss, for programs.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Lost {
    Chunks {
        volume: String,
        volume_number: u32,
        first_chunk: u64,
        chunks: u64,
        offset: u64,
        bytes: u64,
        from: Snapshot,
        to: Snapshot,
    },
    Snapshot {
        volume: String,
        volume_number: u32,
        snapshot: Snapshot,
    },
    Volume {
        volume_number: u32,
    },
    Table {
        table: &'static str,
        first_volume_number: u64,
        last_volume_number: u64,
    },
    Journal {
        reason: String,
    },
}

#[derive(Serialize)]
struct Snapshot {
    tag: u64,
    name: Option<String>,
}

impl From<&Named> for Snapshot {
    fn from(named: &Named) -> Self {
        Self {
            tag: named.tag.0,
            name: named.name.clone(),
        }
    }
}

impl Lost {
    fn new(loss: &Loss, chunk_size: u64) -> Self {
        match loss {
            Loss::Chunks {
                volume,
                name,
                first,
                count,
                from,
                to,
            } => Self::Chunks {
                volume: name.clone(),
                volume_number: volume.0,
                first_chunk: *first,
                chunks: *count,
                offset: first.saturating_mul(chunk_size),
                bytes: count.saturating_mul(chunk_size),
                from: from.into(),
                to: to.into(),
            },
            Loss::Snapshot {
                volume,
                name,
                snapshot,
            } => Self::Snapshot {
                volume: name.clone(),
                volume_number: volume.0,
                snapshot: snapshot.into(),
            },
            Loss::Volume { volume } => Self::Volume {
                volume_number: volume.0,
            },
            Loss::Table { table, volumes } => Self::Table {
                table,
                first_volume_number: *volumes.start(),
                last_volume_number: *volumes.end(),
            },
            Loss::Journal { reason } => Self::Journal {
                reason: reason.clone(),
            },
        }
    }
}

/// Repairs a store that is not attached.
pub(super) fn repair(session: &mut Session, path: &Path, data: bool, consent: Consent) -> Done {
    let mut device = StoreDevice::open(path, consent.dry_run).map_err(held)?;
    let dry = RepairOptions {
        data,
        dry_run: true,
    };
    if !consent.yes {
        let planned = run(&mut device, path, dry)?;
        let sound = planned.problems.is_empty();
        if consent.dry_run || sound {
            report(session, path, &planned, consent.dry_run)?;
            return if sound {
                Ok(())
            } else {
                Err(damaged(path, planned.problems.len()))
            };
        }
        session.say(&text(path, &planned, true));
        session.confirm(consent, "A repair gives up what is lost for good.")?;
    }
    let done = run(
        &mut device,
        path,
        RepairOptions {
            dry_run: false,
            ..dry
        },
    )?;
    report(session, path, &done, false)?;
    match done.remaining.len() {
        0 => Ok(()),
        left => Err(damaged(path, left)),
    }
}

fn run(device: &mut StoreDevice, path: &Path, options: RepairOptions) -> Done<Repair> {
    let mut bar = Bar::new("Checking");
    let result = repair::repair(device, options, &mut |done, of| bar.set(done, of));
    drop(bar);
    result.map_err(|error| match error {
        RepairError::Open(error) => opening(path, &error),
        error => {
            let message = format!("{} cannot be repaired: {error}", path.display());
            Failure::new(ErrorCode::Corruption, message).next(
                "restore the store from a copy, or make a new one; the origins are not affected",
            )
        }
    })
}

fn damaged(path: &Path, problems: usize) -> Failure {
    let message = format!(
        "{} has {}",
        path.display(),
        counted(problems as u64, "problem")
    );
    Failure::new(ErrorCode::Corruption, message).next("csnapctl store repair it")
}

fn report(session: &mut Session, path: &Path, repair: &Repair, dry_run: bool) -> Done {
    if !session.style.json {
        return session.write(&text(path, repair, dry_run));
    }
    let chunk_size = repair.chunk_size.into();
    let lost = repair.losses.iter();
    let repaired = Repaired {
        schema: SCHEMA,
        sound: repair.problems.is_empty() || (!dry_run && repair.remaining.is_empty()),
        dry_run,
        problems: repair.problems.clone(),
        lost: lost.map(|loss| Lost::new(loss, chunk_size)).collect(),
        rebuilt: repair.rebuilt.clone(),
        older_checkpoint: repair.older_checkpoint,
        remaining: repair.remaining.clone(),
    };
    let json = serde_json::to_string_pretty(&repaired);
    let json = json.map_err(|error| Failure::new(ErrorCode::Error, error.to_string()))?;
    session.write(&(json + "\n"))
}

fn text(path: &Path, repair: &Repair, dry_run: bool) -> String {
    let path = path.display();
    if repair.problems.is_empty() {
        return format!("{path} is sound: nothing to repair\n");
    }
    let (would, is) = if dry_run {
        ("would be ", "would be")
    } else {
        ("", "is")
    };
    let mut lines: Vec<String> = repair.problems.clone();
    if let Some(checkpoint) = repair.older_checkpoint {
        lines.push(format!(
            "checkpoint {checkpoint} and the journal tell all that the newest one did"
        ));
    }
    lines.push(format!("{would}rebuilt: {}", repair.rebuilt.join(", ")));
    lines.extend(
        repair
            .losses
            .iter()
            .map(|loss| format!("{would}lost: {loss}")),
    );
    if repair.losses.is_empty() {
        lines.push(format!("nothing {is} lost"));
    }
    let left = repair.remaining.iter();
    lines.extend(left.map(|problem| format!("still wrong: {problem}")));
    if !dry_run && repair.remaining.is_empty() {
        lines.push(format!("{path} is sound now"));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}
