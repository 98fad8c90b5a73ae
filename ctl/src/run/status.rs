//! `csnapctl status`

use ublk_target::control::protocol::{Answer, ErrorCode, Failure, Request};
use ublk_target::control::views::{Problem, StatusView, StoreState};

use super::{unexpected, volume};
use crate::Done;
use crate::session::Session;

/// What the daemon says of itself.
pub(super) fn of(session: &mut Session) -> Done<StatusView> {
    match session.call(Request::Status {})? {
        Answer::Status(status) => Ok(status),
        other => Err(unexpected(&other)),
    }
}

/// Shows the daemon, its stores, and what is not served.
pub(super) fn command(session: &mut Session) -> Done {
    let status = of(session)?;
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
        if !status.waiting.is_empty() {
            session.write("\n")?;
            session.print(&status.waiting)?;
        }
    }
    let stores = status.stores.iter();
    let stores = stores.filter_map(|store| Some((&store.path, store.problem.as_ref()?)));
    let of_volumes = volumes.iter();
    let of_volumes = of_volumes.filter_map(|volume| Some((&volume.name, volume.problem.as_ref()?)));
    let waiting = status.waiting.iter();
    let waiting = waiting.map(|device| (&device.name, &device.problem));
    for (what, Problem { message, next }) in stores.chain(of_volumes).chain(waiting) {
        session.say(&format!("{what}: {message}\n  next: {next}"));
    }
    let waiting = status.waiting.len() as u64;
    match (bad_stores as u64, status.volumes_not_served, waiting) {
        (0, 0, 0) => Ok(()),
        (stores, volumes, waiting) => Err(Failure::new(
            ErrorCode::Error,
            format!(
                "not everything is served: {}, {} and {} need attention",
                super::counted(stores, "store"),
                super::counted(volumes, "volume"),
                super::counted(waiting, "waiting device")
            ),
        )),
    }
}

const SUMMARY: [&str; 14] = [
    "version",
    "pid",
    "started_ms",
    "threads",
    "protections",
    "frontend",
    "frontend_why",
    "ublk_features",
    "nbd_socket",
    "volumes_served",
    "volumes_not_served",
    "mapped",
    "devices",
    "clients",
];
