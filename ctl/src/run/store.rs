//! `csnapctl store ...`: what the daemon does. Verbs on the device itself are in
//! [`super::offline`].

use std::path::{Path, PathBuf};

use ublk_target::control::protocol::{Answer, ErrorCode, Failure, Request, ScrubAction};
use ublk_target::control::views::{StoreView, VolumeView};

use super::{counted, dump, offline, repair, scrub, status, unexpected, usage, volume};
use crate::Done;
use crate::cli::{Consent, StoreVerb};
use crate::output::human;
use crate::session::Session;

/// Carries out a store verb.
pub(super) fn command(session: &mut Session, verb: StoreVerb) -> Done {
    match verb {
        StoreVerb::Create {
            device,
            chunk_size,
            checksum,
            size,
            force,
            consent,
        } => {
            let size = size.map(|size| size.0);
            let wanted = offline::Wanted {
                chunk_size: chunk_size.0,
                checksum,
                size,
                force,
                consent,
            };
            offline::create(session, &device, &wanted)
        }
        StoreVerb::Attach {
            device,
            accept_changed_origin,
            same_origin,
            consent,
        } => attach(
            session,
            &device,
            (accept_changed_origin, same_origin),
            consent,
        ),
        StoreVerb::Detach { store, force } => {
            let store = named(store)?;
            match session.call(Request::StoreDetach { store, force })? {
                Answer::Done => Ok(()),
                other => Err(unexpected(&other)),
            }
        }
        StoreVerb::Status { store } => status(session, store),
        StoreVerb::Extend { store, size } => extend(session, store, size.map(|size| size.0)),
        StoreVerb::Scrub {
            store,
            rate,
            background,
            status,
            stop,
        } => {
            let action = match (status, stop) {
                (true, _) => ScrubAction::Status,
                (_, true) => ScrubAction::Stop,
                _ => ScrubAction::Start,
            };
            let wanted = scrub::Wanted {
                rate: rate.0,
                action,
                background,
            };
            scrub::scrub(session, &named(store)?, wanted)
        }
        StoreVerb::Check { device, data } => offline::check(session, &device, data),
        StoreVerb::Repair {
            device,
            data,
            consent,
        } => repair::repair(session, &device, data, consent),
        StoreVerb::Dump { device, only } => dump::dump(session, &device, &only),
    }
}

fn attach(
    session: &mut Session,
    device: &Path,
    (accept_changed_origin, same_origin): (Vec<String>, Vec<String>),
    consent: Consent,
) -> Done {
    session.check_fields::<VolumeView>()?;
    if !accept_changed_origin.is_empty() {
        let what = format!(
            "This drops all snapshots of {} ({}) if the origin was changed without csnap; \
             users of a device that waits get I/O errors.",
            counted(accept_changed_origin.len() as u64, "volume"),
            accept_changed_origin.join(", ")
        );
        if !session.confirm(consent, &what)? {
            return Ok(());
        }
    }
    let path = absolute(device)?;
    let store = match session.call(Request::StoreAttach {
        path,
        accept_changed_origin,
        same_origin,
    })? {
        Answer::Store(store) => store,
        other => return Err(unexpected(&other)),
    };
    let volumes = volume::all(session, Some(store.uuid.clone()))?;
    session.say(&format!(
        "{} is attached with {}",
        store.path,
        counted(store.volumes, "volume")
    ));
    let mut bad = 0;
    for (volume, problem) in volumes
        .iter()
        .filter_map(|volume| Some((volume, volume.problem.as_ref()?)))
    {
        bad += 1;
        let line = format!(
            "{}: {}\n  next: {}",
            volume.name, problem.message, problem.next
        );
        session.say(&line);
    }
    session.print(&volumes)?;
    match bad {
        0 => Ok(()),
        bad => {
            let message = format!("{} of the store cannot be served", counted(bad, "volume"));
            Err(Failure::new(ErrorCode::Error, message))
        }
    }
}

fn status(session: &mut Session, store: Option<String>) -> Done {
    if let Some(store) = store {
        let store = named(store)?;
        return match session.call(Request::StoreStatus { store })? {
            Answer::Store(store) => {
                let used = human::percent(store.used, store.size);
                session.show(&[store])?;
                if session.style.terminal {
                    session.say(&format!("{used} of the store is used"));
                }
                Ok(())
            }
            other => Err(unexpected(&other)),
        };
    }
    let stores = status::of(session)?.stores;
    session.print(&stores)
}

fn extend(session: &mut Session, store: String, size: Option<u64>) -> Done {
    session.check_fields::<StoreView>()?;
    let store = named(store)?;
    match session.call(Request::StoreExtend { store, size })? {
        Answer::Store(store) => session.show(&[store]),
        other => Err(unexpected(&other)),
    }
}

/// A store's name as the daemon knows it: a UUID as it is, a path made absolute,
/// because the daemon has another working directory.
fn named(store: String) -> Done<String> {
    if uuid::Uuid::try_parse(&store).is_ok() {
        Ok(store)
    } else {
        absolute(store.as_ref())
    }
}

/// An absolute path as text; what a link points to, if it exists.
pub(super) fn absolute(path: &Path) -> Done<String> {
    let absolute = path
        .canonicalize()
        .or_else(|_| std::path::absolute(path))
        .map_err(usage)?;
    text(absolute)
}

/// An absolute path as text. A link stays one: what is behind it may have another name
/// after the next boot.
pub(super) fn as_called(path: &Path) -> Done<String> {
    text(std::path::absolute(path).map_err(usage)?)
}

fn text(path: PathBuf) -> Done<String> {
    path.into_os_string().into_string().map_err(|path| {
        Failure::new(ErrorCode::Usage, format!("{path:?} is not UTF-8"))
            .next("use a name without special characters, such as a link")
    })
}
