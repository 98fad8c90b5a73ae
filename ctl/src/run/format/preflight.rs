//! What csnapd would refuse, found before the origin is written: csnapd is asked what
//! there is, and the origin is looked at as csnapd will.

use std::path::Path;

use imagegen::tree::Spec;
use ublk_target::control::protocol::{Answer, ErrorCode, Failure, Request};
use ublk_target::control::views::{StoreState, StoreView};
use ublk_target::daemon::in_use;
use ublk_target::device::OriginDevice;

use crate::Done;
use crate::run::apart::Served;
use crate::run::unexpected;
use crate::run::volume::New;
use crate::session::Session;

/// An origin that can be one.
pub(super) struct Origin {
    /// Bytes.
    pub(super) size: u64,
    /// Bytes of its smallest unit.
    pub(super) sector: u32,
}

/// Whether the volume can be created once the origin is formatted with the tree `from`.
pub(super) fn origin(session: &mut Session, new: &New, from: Option<&Spec>) -> Done<Origin> {
    let served = Served::now(session)?;
    if served.volumes.iter().any(|volume| volume.name == new.name) {
        let message = format!("there is a volume {:?} already", new.name);
        return Err(Failure::new(ErrorCode::Busy, message).next("choose another name"));
    }
    chosen(session, new, &served.stores)?;
    let path = Path::new(&new.origin);
    served.must_be_apart(path)?;
    must_lie_outside(path, from)?;
    looked_at(path)
}

/// The store that is named, or the only one, can take a volume.
fn chosen(session: &mut Session, new: &New, stores: &[StoreView]) -> Done {
    let store = match &new.store {
        Some(store) => match session.call(Request::StoreStatus {
            store: store.clone(),
        })? {
            Answer::Store(store) => store,
            other => return Err(unexpected(&other)),
        },
        None => only(stores)?.clone(),
    };
    if store.state == StoreState::Attached {
        return Ok(());
    }
    let message = format!("the store {} takes no volume now", store.path);
    Err(Failure::new(ErrorCode::Error, message).next("csnapctl store status says why"))
}

fn only(stores: &[StoreView]) -> Done<&StoreView> {
    let mut there = stores
        .iter()
        .filter(|store| store.state != StoreState::Missing);
    match (there.next(), there.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => {
            let message = "an attached store does not exist";
            Err(Failure::new(ErrorCode::NotFound, message)
                .next("attach one: csnapctl store attach"))
        }
        (Some(_), Some(_)) => Err(Failure::new(ErrorCode::Usage, "there are several stores")
            .next("name one with --store")),
    }
}

/// Opened as csnapd opens an origin, and let go again.
fn looked_at(path: &Path) -> Done<Origin> {
    let uses = in_use::uses(path);
    if !uses.is_empty() {
        let message = format!("{} is in use: {}", path.display(), uses.join(", "));
        return Err(Failure::new(ErrorCode::Busy, message)
            .next("unmount or release it first; --force does not override this"));
    }
    let device = OriginDevice::open(path, false)?;
    Ok(Origin {
        size: device.size(),
        sector: device.logical_block(),
    })
}

/// A tree that holds the file it is written to would change while it is read.
fn must_lie_outside(path: &Path, from: Option<&Spec>) -> Done {
    let Some(Spec::Path(tree)) = from else {
        return Ok(());
    };
    let (Ok(path), Ok(tree)) = (path.canonicalize(), tree.canonicalize()) else {
        return Ok(());
    };
    // Device files are recreated, never read.
    if !path.is_file() || !path.starts_with(&tree) {
        return Ok(());
    }
    let message = format!("{} is part of the tree {}", path.display(), tree.display());
    Err(Failure::new(ErrorCode::Usage, message).next("choose an origin outside of it"))
}
