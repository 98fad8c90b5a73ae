//! Requests from arrival to answer; those that need no engine.

use snapstore::engine::RequestError;

use super::compare::Comparison;
use super::snapshot::SnapshotRead;
use super::transfer::Then;
use super::write::Change;
use super::{Action, Done, Extent, Lane, Request, Target, Verb};

/// A request that is not done yet.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) request: Request,
    pub(super) state: State,
}

/// How far a request is.
#[derive(Debug)]
pub(super) enum State {
    /// One operation answers it.
    Plain,
    /// It changes the origin.
    Change(Change),
    /// It reads a snapshot.
    Snapshot(Box<SnapshotRead>),
    /// It asks what changed.
    Compare(Comparison),
}

impl Lane {
    /// Takes a request. Its answer comes in [`super::Outbox::done`], perhaps at once.
    pub fn submit(&mut self, request: Request) {
        if let Err(errno) = self.admit(&request) {
            self.answer(request.tag, Err(errno), Vec::new());
            return;
        }
        let state = match (request.target, request.verb) {
            (_, Verb::Changed { .. }) => State::Compare(Comparison::default()),
            (Target::Snapshot { .. }, _) => State::Snapshot(Box::default()),
            (_, Verb::Write | Verb::WriteZeroes { .. } | Verb::Trim) => {
                State::Change(Change::at(request.offset))
            }
            _ => State::Plain,
        };
        let key = self.requests.insert(Active { request, state });
        match (request.target, request.verb) {
            (_, Verb::Changed { since, .. }) => self.ask_changed(key, since),
            (_, Verb::Flush) | (Target::Origin, Verb::Read | Verb::Extents) => self.plain(key),
            (Target::Origin, _) => self.advance_change(key),
            (Target::Snapshot { tag, .. }, _) => self.ask_snapshot(key, tag),
        }
    }

    /// Whether the request makes sense; counts it as a user of its volume.
    fn admit(&mut self, request: &Request) -> Result<(), i32> {
        let volume = self
            .volume(request.volume)
            .filter(|v| !v.detaching)
            .ok_or(libc::ENODEV)?;
        let size = match request.target {
            Target::Origin => volume.size,
            Target::Snapshot { size, .. } => size,
        };
        let end = request
            .offset
            .checked_add(request.len)
            .ok_or(libc::EINVAL)?;
        let moves = matches!(request.verb, Verb::Read | Verb::Write);
        if !(request.offset | request.len).is_multiple_of(512)
            || (moves && request.len > Request::MAX_BYTES)
            || (request.len == 0 && request.verb != Verb::Flush)
        {
            return Err(libc::EINVAL);
        }
        let changes = matches!(
            request.verb,
            Verb::Write | Verb::WriteZeroes { .. } | Verb::Trim
        );
        if changes && request.target != Target::Origin {
            return Err(libc::EPERM);
        }
        if end > size {
            return Err(if changes { libc::ENOSPC } else { libc::EINVAL });
        }
        volume.users += 1;
        Ok(())
    }

    fn plain(&mut self, key: usize) {
        let Some(active) = self.requests.get(key) else {
            return;
        };
        let request = active.request;
        if request.target != Target::Origin {
            // A snapshot was durable before it could be read.
            return self.finish(key, Ok(()));
        }
        let Some(device) = self.volume(request.volume).map(|v| v.device) else {
            return;
        };
        let action = match request.verb {
            Verb::Read => Action::Read {
                buffer: request.buffer,
                at: 0,
                offset: request.offset,
                len: request.len as u32,
            },
            Verb::Extents => Action::Extents {
                offset: request.offset,
                len: request.len,
            },
            _ => Action::Flush { asked: true },
        };
        self.issue(device, action, Then::Request(key));
    }

    /// The operation of a request completed (extents aside).
    pub(super) fn request_moved(&mut self, key: usize, result: Result<u32, i32>) {
        match self.requests.get(key).map(|active| &active.state) {
            Some(State::Plain) => self.finish(key, result.map(drop)),
            Some(State::Change(_)) => self.change_moved(key, result),
            Some(State::Snapshot(_)) => self.piece_moved(key, result.map(drop)),
            Some(State::Compare(_)) | None => {}
        }
    }

    /// Extents of the origin arrived for a request.
    pub(super) fn request_extents(&mut self, key: usize, from: u64, extents: Vec<Extent>) {
        match self.requests.get(key).map(|active| &active.state) {
            Some(State::Snapshot(_)) => self.piece_extents(key, from, &extents),
            Some(_) => self.finish_with(key, Ok(()), extents),
            None => {}
        }
    }

    /// The engine refused.
    pub(super) fn refused(&mut self, key: usize, error: &RequestError) {
        let errno = match error {
            // What was there when it was asked for may be deleted by now.
            RequestError::NoSnapshot(..) | RequestError::NotNewer(..) => {
                tracing::debug!(%error, "request refused");
                return self.finish(key, Err(libc::ESTALE));
            }
            RequestError::NoSpace(_) => libc::ENOSPC,
            RequestError::Closing => libc::ESHUTDOWN,
            _ => libc::EIO,
        };
        tracing::error!(%error, "request refused");
        self.finish(key, Err(errno));
    }

    pub(super) fn finish(&mut self, key: usize, result: Result<(), i32>) {
        self.finish_with(key, result, Vec::new());
    }

    pub(super) fn finish_with(&mut self, key: usize, result: Result<(), i32>, ext: Vec<Extent>) {
        let Some(active) = self.requests.try_remove(key) else {
            return;
        };
        self.answer(active.request.tag, result, ext);
        self.release_volume(active.request.volume, 1);
    }

    fn answer(&mut self, tag: u64, result: Result<(), i32>, extents: Vec<Extent>) {
        self.out.done.push(Done {
            tag,
            result,
            extents,
        });
    }
}
