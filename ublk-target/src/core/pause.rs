//! Pauses that lanes are still draining for.

use std::time::{Duration, Instant};

use snapstore::ids::IoId;

/// How long lanes may drain before a pause is given up.
pub(super) const PAUSE_LIMIT: Duration = Duration::from_secs(5);

/// Every pause that some lane has not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Pauses(Vec<Pending>);

#[derive(Debug)]
struct Pending {
    io: IoId,
    lanes: u16,
    since: Instant,
}

impl Pauses {
    /// Before the lanes are told.
    pub(super) fn begin(&mut self, io: IoId, lanes: u16, since: Instant) {
        self.0.push(Pending { io, lanes, since });
    }

    /// One lane has drained. Whether it was the last; an acknowledgement of a
    /// pause that was given up is none.
    pub(super) fn acknowledge(&mut self, io: IoId) -> bool {
        let Some(at) = self.0.iter().position(|pending| pending.io == io) else {
            return false;
        };
        let Some(pending) = self.0.get_mut(at) else {
            return false;
        };
        pending.lanes = pending.lanes.saturating_sub(1);
        let last = pending.lanes == 0;
        if last {
            self.0.swap_remove(at);
        }
        last
    }

    /// Takes out what has taken too long.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<IoId> {
        let late = |p: &Pending| now.saturating_duration_since(p.since) >= PAUSE_LIMIT;
        let found = self.0.iter().filter(|p| late(p)).map(|p| p.io).collect();
        self.0.retain(|p| !late(p));
        found
    }
}
