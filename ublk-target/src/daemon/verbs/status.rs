//! `status`, `features` and `events`.

use std::time::Duration;

use crate::control::protocol::{Answer, MAX_PAGE, MAX_WAIT_MS};
use crate::control::views::{CountersView, StatusView, StoreState, StoreView};
use crate::daemon::Daemon;
use crate::daemon::exports::Served;
use crate::daemon::front;

impl Daemon {
    pub(in crate::daemon) fn status(&self) -> Answer {
        let attached = self.stores();
        let mut stores: Vec<StoreView> = attached.iter().map(|store| store.view()).collect();
        let volumes: u64 = stores.iter().map(|store| store.volumes).sum();
        let not_served: u64 = attached
            .iter()
            .map(|store| store.not_served.lock().len() as u64 + store.handlers.origin_errors.gone())
            .sum();
        stores.extend(self.missing_stores());
        stores.sort_by(|a, b| a.path.cmp(&b.path));
        let exports = self.exports.all();
        Answer::Status(StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_ms: self.started_ms,
            threads: u32::try_from(self.runtime.lanes()).unwrap_or(u32::MAX),
            protections: Some(self.settings.safety.into()),
            frontend: self.choice.name,
            frontend_why: self.choice.why.clone(),
            ublk_features: self.ublk.as_ref().map_or(Vec::new(), |f| front::names(*f)),
            nbd_socket: self.settings.nbd_socket.display().to_string(),
            stores,
            volumes_served: volumes.saturating_sub(not_served),
            volumes_not_served: not_served,
            mapped: exports.iter().filter(|served| served.is_snapshot()).count() as u64,
            devices: exports
                .iter()
                .filter(|served| served.device.is_some())
                .count() as u64,
            waiting: self.waiting(),
            clients: exports.iter().map(Served::clients).sum::<u64>() + self.visits.all_clients(),
            newest_event: self.events.newest(),
        })
    }

    pub(in crate::daemon) fn features(&self) -> Answer {
        Answer::Features(front::features_view(
            "csnapd",
            self.choice.clone(),
            self.settings.devices.zero_copy,
            self.ublk.as_ref().ok().copied(),
            self.ublk.as_ref().err(),
        ))
    }

    pub(super) fn missing_stores(&self) -> Vec<StoreView> {
        let missing = self.missing.lock();
        let view = |(path, (uuid, problem)): (&std::path::PathBuf, &(uuid::Uuid, _))| StoreView {
            path: path.display().to_string(),
            uuid: uuid.to_string(),
            state: StoreState::Missing,
            chunk_size: 0,
            checksum: String::new(),
            size: 0,
            used: 0,
            metadata: 0,
            full_in_s: None,
            unused: 0,
            volumes: 0,
            snapshots: 0,
            purging: 0,
            purging_bytes: 0,
            generation: 0,
            journal_used: 0,
            journal_blocks: 0,
            counters: CountersView::default(),
            problem: Some(Clone::clone(problem)),
        };
        missing.iter().map(view).collect()
    }

    pub(in crate::daemon) fn events_since(&self, since: u64, limit: u32, wait_ms: u32) -> Answer {
        let limit = limit.clamp(1, MAX_PAGE) as usize;
        let wait = Duration::from_millis(u64::from(wait_ms.min(MAX_WAIT_MS)));
        let page = self.events.since(since, limit, wait);
        Answer::Events {
            items: page.items,
            oldest: page.oldest,
            newest: page.newest,
        }
    }
}
