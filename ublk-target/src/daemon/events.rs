//! What happened, for `csnapctl events`: a bounded ring of numbered events.
//!
//! Contract: numbers rise by one without gaps from 1; adding never blocks for
//! long (it is called from I/O threads); every event is logged too.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::control::utc;
use crate::control::views::{EventView, Level};

/// Events remembered.
pub const REMEMBERED: usize = 4096;

/// An event before it has a number.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// How much it matters.
    pub level: Level,
    /// What kind.
    pub kind: &'static str,
    /// Path of the store concerned.
    pub store: Option<String>,
    /// Volume concerned.
    pub volume: Option<String>,
    /// Snapshot concerned.
    pub snapshot: Option<String>,
    /// For people.
    pub message: String,
}

impl NewEvent {
    /// An event that concerns nothing in particular yet.
    #[must_use]
    pub fn new(level: Level, kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            level,
            kind,
            store: None,
            volume: None,
            snapshot: None,
            message,
        }
    }

    /// Says which store is concerned.
    #[must_use]
    pub fn store(mut self, path: &std::path::Path) -> Self {
        self.store = Some(path.display().to_string());
        self
    }

    /// Says which volume is concerned.
    #[must_use]
    pub fn volume(mut self, name: impl Into<String>) -> Self {
        self.volume = Some(name.into());
        self
    }

    /// Says which snapshot is concerned.
    #[must_use]
    pub fn snapshot(mut self, name: impl Into<String>) -> Self {
        self.snapshot = Some(name.into());
        self
    }
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<EventView>,
    newest: u64,
    closed: bool,
}

/// The ring of events.
#[derive(Debug, Default)]
pub struct Events {
    ring: Mutex<Ring>,
    added: Condvar,
}

/// A look at the events.
#[derive(Debug)]
pub struct Page {
    /// By number.
    pub items: Vec<EventView>,
    /// The oldest remembered number (one beyond the newest if there is none).
    pub oldest: u64,
    /// The newest number.
    pub newest: u64,
}

impl Events {
    /// Adds an event and logs it.
    pub fn add(&self, event: NewEvent) {
        let NewEvent {
            level,
            kind,
            store,
            volume,
            snapshot,
            message,
        } = event;
        match level {
            Level::Info => tracing::info!(kind, "{message}"),
            Level::Warning => tracing::warn!(kind, "{message}"),
            Level::Error => tracing::error!(kind, "{message}"),
        }
        let mut ring = self.ring.lock();
        ring.newest += 1;
        let (seq, kind) = (ring.newest, kind.to_owned());
        let time_ms = utc::now_ms();
        if ring.events.len() == REMEMBERED {
            ring.events.pop_front();
        }
        ring.events.push_back(EventView {
            seq,
            time_ms,
            level,
            kind,
            store,
            volume,
            snapshot,
            message,
        });
        self.added.notify_all();
    }

    /// Up to `limit` events with a number above `since`; waits up to `wait` for the
    /// first one.
    #[must_use]
    pub fn since(&self, since: u64, limit: usize, wait: Duration) -> Page {
        let deadline = Instant::now() + wait;
        let mut ring = self.ring.lock();
        while ring.newest <= since && !ring.closed {
            if self.added.wait_until(&mut ring, deadline).timed_out() {
                break;
            }
        }
        let oldest = ring
            .events
            .front()
            .map_or(ring.newest + 1, |event| event.seq);
        // Numbers have no gaps, so the place is known.
        let skip =
            usize::try_from(since.saturating_add(1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        let items = ring.events.iter().skip(skip).take(limit).cloned().collect();
        Page {
            items,
            oldest,
            newest: ring.newest,
        }
    }

    /// The newest number.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.ring.lock().newest
    }

    /// Lets everyone go who waits: the daemon stops.
    pub fn close(&self) {
        self.ring.lock().closed = true;
        self.added.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(message: impl Into<String>) -> NewEvent {
        NewEvent::new(Level::Info, "test", message)
    }

    fn numbers(page: &Page) -> Vec<u64> {
        page.items.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn pages_follow_each_other_and_the_ring_forgets_the_oldest() {
        let events = Events::default();
        let page = events.since(0, 10, Duration::ZERO);
        assert_eq!((numbers(&page), page.oldest, page.newest), (vec![], 1, 0));
        for n in 1..=REMEMBERED + 3 {
            events.add(event(format!("{n}")));
        }
        let page = events.since(0, 2, Duration::ZERO);
        assert_eq!((numbers(&page), page.oldest), (vec![4, 5], 4));
        assert_eq!(page.items[0].message, "4");
        assert_eq!(numbers(&events.since(5, 2, Duration::ZERO)), [6, 7]);
        let newest = events.newest();
        assert_eq!(
            numbers(&events.since(newest - 1, 9, Duration::ZERO)),
            [newest]
        );
        assert!(numbers(&events.since(u64::MAX - 1, 9, Duration::ZERO)).is_empty());
    }

    #[test]
    fn waiting_ends_with_an_event_or_with_the_daemon() {
        let events = Events::default();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| events.since(0, 9, Duration::from_secs(20)));
            std::thread::sleep(Duration::from_millis(20));
            events.add(event("a"));
            assert_eq!(numbers(&waiter.join().unwrap()), [1]);
            let waiter = scope.spawn(|| events.since(1, 9, Duration::from_secs(20)));
            events.close();
            assert!(numbers(&waiter.join().unwrap()).is_empty());
        });
    }
}
