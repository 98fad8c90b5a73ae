//! The snapshots of a store, before and after it was written to.

use ublk_target::control::views::{SnapshotStateName, SnapshotView};

use crate::Done;
use crate::run::{snapshot, volume};
use crate::session::Session;

/// Those that can be read.
pub(super) struct Live(Vec<SnapshotView>);

impl Live {
    /// Those of all volumes of the store.
    pub(super) fn now(session: &mut Session, store: &str) -> Done<Self> {
        let mut all = Vec::new();
        for view in volume::all(session, Some(store.to_owned()))? {
            all.extend(snapshot::all(session, Some(&view.name))?);
        }
        all.retain(|view| view.state == SnapshotStateName::Live);
        Ok(Self(all))
    }

    /// Says which of them were dropped since, and returns their names. That this is not known
    /// is no reason to say that what was done went wrong.
    pub(super) fn dropped_since(self, session: &mut Session) -> Vec<String> {
        let now = match snapshot::all(session, None) {
            Ok(now) => now,
            Err(failure) => {
                session.say("csnapctl: whether snapshots were dropped meanwhile is not known");
                session.complain(&failure);
                return Vec::new();
            }
        };
        let gone = now.iter().filter(|view| {
            let is_same = |old: &SnapshotView| (&old.volume, old.tag) == (&view.volume, view.tag);
            view.state == SnapshotStateName::Dropped && self.0.iter().any(is_same)
        });
        let gone: Vec<String> = gone.map(|view| view.exactly().to_string()).collect();
        for name in &gone {
            session.say(&format!("csnapctl: {name} was dropped meanwhile"));
        }
        gone
    }
}
