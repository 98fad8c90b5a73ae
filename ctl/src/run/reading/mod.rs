//! Reading snapshots, mapped or not, from csnapd's NBD socket.
//!
//! As long as one is read, it is not deleted. Chunks are read as csnapd reads them for any
//! client: from the origin or from the store, under its read-locks, verified.
//!
//! - `remote`: a snapshot as what bytes are read from
//! - `moment`: a volume as it is now, in a snapshot of its own
//! - `interrupt`: what signals do where something must be tidied up
//! - `rate`: not more than so many bytes in a second

mod interrupt;
mod moment;
mod rate;
mod remote;

use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ublk_target::control::protocol::{Answer, ErrorCode, Failure, Request};

use super::unexpected;
use crate::Done;
use crate::session::Session;
use rate::Rate;

pub(super) use moment::{Moment, is_moment};
pub(super) use remote::Remote;

/// Snapshots, to be read at one rate together, in bytes in a second.
pub(super) fn connect(
    session: &mut Session,
    names: &[String],
    rate: Option<u64>,
) -> Done<Vec<Remote>> {
    let status = match session.call(Request::Status {})? {
        Answer::Status(status) => status,
        other => return Err(unexpected(&other)),
    };
    many_files();
    let rate = rate.map(|rate| Arc::new(Rate::new(rate)));
    let remote = |name: &String| {
        let socket = status.nbd_socket.clone().into();
        Remote::connect(socket, name.clone(), rate.clone()).map_err(|error| {
            let message = format!("cannot read {name}: {error}");
            Failure::new(ErrorCode::Error, message)
                .next("csnapctl status shows how csnapd is; csnapctl snapshot show the snapshot")
        })
    };
    names.iter().map(remote).collect()
}

/// Lets this process have as many connections as it may: some for every snapshot.
fn many_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // With fewer it fails only if there are many.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}
