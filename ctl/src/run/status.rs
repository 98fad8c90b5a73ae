//! `csnapctl status`

use ublk_target::control::protocol::{Answer, ErrorCode, Failure, Request};
use ublk_target::control::views::StoreState;

use super::{unexpected, volume};
use crate::Done;
use crate::session::Session;

/// Shows the daemon, its stores, and what is not served.
pub(super) fn command(session: &mut Session) -> Done {
    let status = match session.call(Request::Status {})? {
        Answer::Status(status) => status,
        other => return Err(unexpected(&other)),
    };
    let volumes = volume::all(session, None)?;
    let bad_stores = status
        .stores
        .iter()
        .filter(|s| s.state != StoreState::Attached)
        .count();
    if session.style.json || !session.style.fields.is_empty() {
        session.show(std::slice::from_ref(&status))?;
    } else {
        let plain = session.style.clone();
        session.style.fields = SUMMARY.iter().map(|&f| f.to_owned()).collect();
        session.show(std::slice::from_ref(&status))?;
        session.style = plain;
        if !status.stores.is_empty() {
            session.write("\n")?;
            session.print(&status.stores)?;
        }
        if !volumes.is_empty() {
            session.write("\n")?;
            session.print(&volumes)?;
        }
    }
    for (what, problem) in status
        .stores
        .iter()
        .map(|store| (&store.path, &store.problem))
        .chain(volumes.iter().map(|volume| (&volume.name, &volume.problem)))
    {
        if let Some(problem) = problem {
            session.say(&format!(
                "{what}: {}\n  next: {}",
                problem.message, problem.next
            ));
        }
    }
    match (bad_stores as u64, status.volumes_not_served) {
        (0, 0) => Ok(()),
        (stores, volumes) => Err(Failure::new(
            ErrorCode::Error,
            format!(
                "not everything is served: {} and {} need attention",
                super::counted(stores, "store"),
                super::counted(volumes, "volume")
            ),
        )),
    }
}

const SUMMARY: [&str; 9] = [
    "version",
    "pid",
    "started_ms",
    "threads",
    "nbd_socket",
    "volumes_served",
    "volumes_not_served",
    "mapped",
    "clients",
];
