//! Reading snapshots, mapped or not, from csnapd's NBD socket.
//!
//! As long as one is read, it is not deleted. Chunks are read as csnapd reads them for any
//! client: from the origin or from the store, under its read-locks, verified.
//!
//! - `remote`: a snapshot as what bytes are read from
//! - `moment`: a volume as it is now, in a snapshot of its own
//! - `interrupt`: what signals do where something must be tidied up
//! - `rate`: not more than so many bytes in a second

pub(super) mod interrupt;
mod moment;
mod rate;
mod remote;

use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ublk_target::control::protocol::{ErrorCode, Failure, Request, SnapshotName};
use ublk_target::control::views::SnapshotStateName;

use super::{code_of, snapshot, status};
use crate::Done;
use crate::session::Session;
use rate::Rate;

pub(super) use moment::{Moment, is_moment};
pub(super) use remote::Remote;

/// Connections that all snapshots together are read over, if each needs only one.
const CONNECTIONS: usize = 64;
/// Most of them for one.
const MOST_OF_ONE: usize = 16;

/// Who reads snapshots.
pub(super) struct Reader {
    socket: PathBuf,
    /// For each.
    connections: usize,
    rate: Option<Arc<Rate>>,
}

impl Reader {
    /// Of so many; at `rate` bytes in a second, all together, or at any.
    pub(super) fn new(session: &mut Session, snapshots: usize, rate: Option<u64>) -> Done<Self> {
        many_files();
        Ok(Self {
            connections: (CONNECTIONS / snapshots.max(1)).clamp(1, MOST_OF_ONE),
            socket: status::of(session)?.nbd_socket.into(),
            rate: rate.map(|rate| Arc::new(Rate::new(rate))),
        })
    }

    /// Opens a snapshot that is named exactly, which keeps it from being deleted.
    pub(super) fn open(&self, session: &mut Session, name: &SnapshotName) -> Done<Remote> {
        let rate = self.rate.clone();
        let opened = Remote::connect(
            self.socket.clone(),
            name.to_string(),
            self.connections,
            rate,
        );
        // That name may have become another's; and csnapd's word is better than NBD's.
        let snapshot = name.clone();
        let view = snapshot::one(session, Request::SnapshotShow { snapshot })?;
        if view.state != SnapshotStateName::Live {
            let message = format!("{name} was dropped");
            return Err(
                Failure::new(ErrorCode::NotFound, message).next("csnapctl snapshot show tells why")
            );
        }
        opened.map_err(|error| {
            let message = format!("cannot read {name}: {error}");
            Failure::new(code_of(&error), message)
                .next("csnapctl status shows how csnapd is; csnapctl snapshot show the snapshot")
        })
    }
}

/// Lets this process have as many connections as it may: some for every snapshot.
fn many_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // With fewer it fails only if there are many.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}
