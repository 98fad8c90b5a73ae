//! `csnapctl snapshot ...`

use ublk_target::control::protocol::{Answer, Request, SnapshotName};
use ublk_target::control::utc;
use ublk_target::control::views::{SnapshotView, TakenView};

use super::{counted, unexpected};
use crate::Done;
use crate::cli::{Consent, SnapshotVerb};
use crate::names::{SnapshotArg, TargetArg, check_name};
use crate::output::{SCHEMA, human};
use crate::session::Session;

/// Carries out a snapshot verb.
pub(super) fn command(session: &mut Session, verb: SnapshotVerb) -> Done {
    match verb {
        SnapshotVerb::Take { targets, priority } => take(session, targets, priority),
        SnapshotVerb::List { volume } => {
            let snapshots = all(session, volume.as_deref())?;
            session.print(&snapshots)
        }
        SnapshotVerb::Show { snapshots } => {
            let shown = each(session, snapshots, |snapshot| Request::SnapshotShow {
                snapshot,
            })?;
            session.show(&shown)
        }
        SnapshotVerb::Delete { snapshots, consent } => delete(session, snapshots, consent),
        SnapshotVerb::Rename { snapshot, new } => {
            check_name(&new).map_err(super::store::usage)?;
            one(
                session,
                Request::SnapshotRename {
                    snapshot: snapshot.0,
                    to: new,
                },
            )
            .map(drop)
        }
        SnapshotVerb::Map { snapshots } => {
            session.check_fields::<SnapshotView>()?;
            let mapped = each(session, snapshots, |snapshot| Request::SnapshotMap {
                snapshot,
            })?;
            print_mapped(session, &mapped)
        }
        SnapshotVerb::Unmap { snapshots, force } => each(session, snapshots, |snapshot| {
            Request::SnapshotUnmap { snapshot, force }
        })
        .map(drop),
        SnapshotVerb::Mount(args) => super::mount::mount(session, &args),
        SnapshotVerb::Umount(args) => super::mount::umount(session, &args),
        SnapshotVerb::Set { snapshot, priority } => one(
            session,
            Request::SnapshotSet {
                snapshot: snapshot.0,
                priority,
            },
        )
        .map(drop),
    }
}

/// Where the snapshots can be read: the paths of their devices, one a line, for a
/// script to use. A table where there is no device, or one was asked for.
fn print_mapped(session: &mut Session, mapped: &[SnapshotView]) -> Done {
    let devices: Option<Vec<&str>> = mapped.iter().map(|s| s.device.as_deref()).collect();
    match devices {
        Some(devices) if !session.style.json && session.style.fields.is_empty() => {
            session.write(&(devices.join("\n") + "\n"))
        }
        _ => session.print(mapped),
    }
}

fn take(session: &mut Session, targets: Vec<TargetArg>, priority: i32) -> Done {
    let targets = targets.into_iter().map(|target| target.0).collect();
    match session.call(Request::SnapshotTake { targets, priority })? {
        Answer::Taken(taken) if session.style.json => {
            let document = serde_json::json!({ "schema": SCHEMA, "taken": taken });
            session.write(&format!("{document:#}\n"))
        }
        Answer::Taken(TakenView { snapshots, .. }) => session.write(&(snapshots.join("\n") + "\n")),
        other => Err(unexpected(&other)),
    }
}

/// Every snapshot, page by page.
fn all(session: &mut Session, volume: Option<&str>) -> Done<Vec<SnapshotView>> {
    let mut snapshots = Vec::new();
    let mut after = None;
    loop {
        let request = Request::SnapshotList {
            volume: volume.map(str::to_owned),
            after,
        };
        match session.call(request)? {
            Answer::Snapshots { items, next } => {
                snapshots.extend(items);
                match next {
                    Some(next) => after = Some(next),
                    None => return Ok(snapshots),
                }
            }
            other => return Err(unexpected(&other)),
        }
    }
}

/// A request whose answer is one snapshot.
pub(super) fn one(session: &mut Session, request: Request) -> Done<SnapshotView> {
    match session.call(request)? {
        Answer::Snapshot(snapshot) => Ok(snapshot),
        other => Err(unexpected(&other)),
    }
}

fn each(
    session: &mut Session,
    snapshots: Vec<SnapshotArg>,
    request: impl Fn(SnapshotName) -> Request,
) -> Done<Vec<SnapshotView>> {
    snapshots
        .into_iter()
        .map(|snapshot| one(session, request(snapshot.0)))
        .collect()
}

fn delete(session: &mut Session, snapshots: Vec<SnapshotArg>, consent: Consent) -> Done {
    let shown = each(session, snapshots, |snapshot| Request::SnapshotShow {
        snapshot,
    })?;
    let mut what = format!("This deletes {}:", counted(shown.len() as u64, "snapshot"));
    for snapshot in &shown {
        what += &format!(
            "\n  {}@{}, taken {} UTC, {} held by it alone",
            snapshot.volume,
            snapshot.name,
            utc::readable(snapshot.created_ms),
            human::size(snapshot.exclusive_bytes)
        );
    }
    if !session.confirm(consent, &what)? {
        return Ok(());
    }
    // The tag makes sure that what was confirmed is what goes.
    let snapshots = shown
        .into_iter()
        .map(|s| SnapshotName {
            volume: s.volume,
            name: s.name,
            tag: Some(s.tag),
        })
        .collect();
    match session.call(Request::SnapshotDelete { snapshots })? {
        Answer::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}
