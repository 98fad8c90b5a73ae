//! `csnapctl volume ...`

use ublk_target::control::protocol::{Answer, Request};
use ublk_target::control::views::{PolicyName, VolumeView};

use super::{counted, format, unexpected};
use crate::Done;
use crate::cli::{Consent, VolumeVerb};
use crate::names::check_name;
use crate::output::human;
use crate::session::Session;

/// Carries out a volume verb.
pub(super) fn command(session: &mut Session, verb: VolumeVerb) -> Done {
    match verb {
        VolumeVerb::Create {
            name,
            origin,
            store,
            policy,
            format,
        } => {
            check_name(&name).map_err(super::usage)?;
            session.check_fields::<VolumeView>()?;
            let new = New {
                name,
                origin: super::store::as_called(origin.as_ref())?,
                store,
                policy: policy.into(),
            };
            match format.kind {
                Some(kind) => format::create(session, new, kind, &format),
                None => new
                    .create(session)
                    .and_then(|volume| session.show(&[volume])),
            }
        }
        VolumeVerb::List { store } => {
            let volumes = all(session, store)?;
            session.print(&volumes)
        }
        VolumeVerb::Show { names } => {
            let volumes: Done<Vec<_>> = names
                .into_iter()
                .map(|name| one(session, Request::VolumeShow { name }))
                .collect();
            session.show(&volumes?)
        }
        VolumeVerb::Restore(args) => super::restore::restore(session, &args),
        VolumeVerb::Export(args) => super::export::export_volume(session, &args),
        VolumeVerb::Delete {
            name,
            force,
            consent,
        } => delete(session, name, force, consent),
        VolumeVerb::Set {
            name,
            policy,
            full_wait,
        } => {
            session.check_fields::<VolumeView>()?;
            let set = Request::VolumeSet {
                name,
                policy: policy.map(Into::into),
                full_wait_s: full_wait,
            };
            one(session, set).and_then(|volume| session.show(&[volume]))
        }
        VolumeVerb::Resize { name, size } => {
            session.check_fields::<VolumeView>()?;
            let size = size.bytes();
            one(session, Request::VolumeResize { name, size })
                .and_then(|volume| session.show(&[volume]))
        }
    }
}

/// A volume that is to be.
#[derive(Clone)]
pub(super) struct New {
    pub(super) name: String,
    /// Absolute path, as a person calls it.
    pub(super) origin: String,
    pub(super) store: Option<String>,
    pub(super) policy: PolicyName,
}

impl New {
    pub(super) fn create(self, session: &mut Session) -> Done<VolumeView> {
        let request = Request::VolumeCreate {
            name: self.name,
            origin: self.origin,
            store: self.store,
            policy: self.policy,
        };
        one(session, request)
    }
}

/// Every volume, of one store or of all.
pub(super) fn all(session: &mut Session, store: Option<String>) -> Done<Vec<VolumeView>> {
    let request = |after| Request::VolumeList {
        store: store.clone(),
        after,
    };
    session.pages(request, |answer| match answer {
        Answer::Volumes { items, next } => Ok((items, next)),
        other => Err(unexpected(&other)),
    })
}

pub(super) fn one(session: &mut Session, request: Request) -> Done<VolumeView> {
    match session.call(request)? {
        Answer::Volume(volume) => Ok(volume),
        other => Err(unexpected(&other)),
    }
}

fn delete(session: &mut Session, name: String, force: bool, consent: Consent) -> Done {
    let volume = one(session, Request::VolumeShow { name: name.clone() })?;
    let what = format!(
        "This forgets volume {name} and deletes {} ({} of old data). The origin {} is not touched.",
        counted(volume.snapshots, "snapshot"),
        human::size(volume.held_bytes),
        volume.origin
    );
    if !session.confirm(consent, &what)? {
        return Ok(());
    }
    match session.call(Request::VolumeDelete {
        name,
        uuid: Some(volume.uuid),
        force,
    })? {
        Answer::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}
