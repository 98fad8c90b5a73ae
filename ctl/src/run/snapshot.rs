//! `csnapctl snapshot ...`

use ublk_target::control::protocol::{
    Answer, ErrorCode, Failure, Request, SnapshotName, TakeTarget,
};
use ublk_target::control::utc;
use ublk_target::control::views::{SnapshotView, TakenView};

use super::hold::{End, Hold};
use super::{counted, unexpected};
use crate::Done;
use crate::cli::{Consent, HoldArgs, SnapshotVerb};
use crate::names::{SnapshotArg, TargetArg, check_name};
use crate::output::{SCHEMA, human};
use crate::session::Session;

/// Carries out a snapshot verb.
pub(super) fn command(session: &mut Session, verb: SnapshotVerb) -> Done {
    match verb {
        SnapshotVerb::Take {
            targets,
            priority,
            hold,
        } => take(session, targets, priority, &hold),
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
        SnapshotVerb::Diff { from, to, how } => super::diff::diff(session, from.0, to.0, how),
        SnapshotVerb::Export(args) => super::export::export_snapshot(session, &args),
        SnapshotVerb::Delete {
            snapshots,
            force,
            consent,
        } => delete(session, snapshots, force, consent),
        SnapshotVerb::Rename { snapshot, new } => {
            check_name(&new).map_err(super::usage)?;
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
        SnapshotVerb::Set { snapshot, change } => {
            let request = Request::SnapshotSet {
                snapshot: snapshot.0,
                priority: change.priority,
                hold: change.held(),
            };
            one(session, request).map(drop)
        }
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

/// `a b@x c`: a name counts for those before it that have none.
fn share_names(mut targets: Vec<TargetArg>) -> Vec<TargetArg> {
    let mut shared = None;
    for TargetArg(TakeTarget { name, .. }) in targets.iter_mut().rev() {
        match name {
            Some(name) => shared = Some(name.clone()),
            None => name.clone_from(&shared),
        }
    }
    targets
}

fn take(session: &mut Session, targets: Vec<TargetArg>, priority: i32, hold: &HoldArgs) -> Done {
    let targets = share_names(targets);
    let names: Vec<String> = targets.iter().map(TargetArg::to_string).collect();
    let targets = targets.into_iter().map(|target| target.0).collect();
    let request = Request::SnapshotTake { targets, priority };
    if hold.is_empty() {
        let taken = taken(session, request)?;
        return print_taken(session, &taken);
    }
    // Nothing held still waits for a daemon that is not there.
    session.connect()?;
    let hold = Hold::begin(hold, &names.join(" "))?;
    let taken = taken(session, request);
    let end = hold.end();
    let taken = taken?;
    match end {
        End::Done => print_taken(session, &taken),
        End::Late => Err(take_back(session, &taken)),
        End::Failed(why) => {
            print_taken(session, &taken)?;
            Err(Failure::new(ErrorCode::Error, why)
                .next("the snapshot is taken and good; look after what was to follow"))
        }
    }
}

/// What was taken when nothing was held still any more is not what was asked for.
fn take_back(session: &mut Session, taken: &TakenView) -> Failure {
    let mut message = "not everything stood still until the snapshot was taken (the time was \
                       over, or somebody else thawed it or ended what held it); it was \
                       deleted again"
        .to_owned();
    let exactly = |text: &String| -> Option<SnapshotName> {
        let SnapshotArg(name) = text.parse().ok()?;
        let tag = Some(taken.tag);
        Some(SnapshotName { tag, ..name })
    };
    let snapshots = taken.snapshots.iter().filter_map(exactly).collect();
    let force = false;
    if let Err(failure) = session.call(Request::SnapshotDelete { snapshots, force }) {
        message = format!("{message}, which failed: {}", failure.message);
    }
    Failure::new(ErrorCode::Error, message).next("give it more time: --hold-timeout")
}

fn taken(session: &mut Session, request: Request) -> Done<TakenView> {
    match session.call(request)? {
        Answer::Taken(taken) => Ok(taken),
        other => Err(unexpected(&other)),
    }
}

/// Takes one, and names it exactly.
pub(super) fn take_one(
    session: &mut Session,
    volume: &str,
    name: String,
    priority: i32,
) -> Done<SnapshotName> {
    let volume = volume.to_owned();
    let target = TakeTarget {
        volume: volume.clone(),
        name: Some(name.clone()),
    };
    let targets = vec![target];
    let taken = taken(session, Request::SnapshotTake { targets, priority })?;
    let tag = Some(taken.tag);
    Ok(SnapshotName { volume, name, tag })
}

fn print_taken(session: &mut Session, taken: &TakenView) -> Done {
    if session.style.json {
        let document = serde_json::json!({ "schema": SCHEMA, "taken": taken });
        return session.write(&format!("{document:#}\n"));
    }
    session.write(&(taken.snapshots.join("\n") + "\n"))
}

/// Every snapshot, of one volume or of all.
pub(super) fn all(session: &mut Session, volume: Option<&str>) -> Done<Vec<SnapshotView>> {
    let request = |after| Request::SnapshotList {
        volume: volume.map(str::to_owned),
        after,
    };
    session.pages(request, |answer| match answer {
        Answer::Snapshots { items, next } => Ok((items, next)),
        other => Err(unexpected(&other)),
    })
}

/// What names this snapshot and no other, whatever becomes of its name.
pub(super) fn exactly(session: &mut Session, snapshot: SnapshotName) -> Done<SnapshotName> {
    match snapshot.tag {
        Some(_) => Ok(snapshot),
        None => one(session, Request::SnapshotShow { snapshot }).map(|view| view.exactly()),
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

fn delete(
    session: &mut Session,
    snapshots: Vec<SnapshotArg>,
    force: bool,
    consent: Consent,
) -> Done {
    let shown = each(session, snapshots, |snapshot| Request::SnapshotShow {
        snapshot,
    })?;
    let mut what = format!("This deletes {}:", counted(shown.len() as u64, "snapshot"));
    for snapshot in &shown {
        what += &format!(
            "\n  {}, taken {} UTC, {} held by it alone{}",
            snapshot.exactly(),
            utc::readable(snapshot.created_ms),
            human::size(snapshot.exclusive_bytes),
            if snapshot.held { ", on hold" } else { "" }
        );
    }
    if !session.confirm(consent, &what)? {
        return Ok(());
    }
    // The tag makes sure that what was confirmed is what goes.
    let snapshots = shown.iter().map(SnapshotView::exactly).collect();
    match session.call(Request::SnapshotDelete { snapshots, force })? {
        Answer::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}
