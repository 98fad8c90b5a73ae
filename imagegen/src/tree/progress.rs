//! How far a walk is, for whoever shows it.

use super::{Event, Kind, TreeError};
use std::sync::atomic::{AtomicU64, Ordering};

/// How far the writing of a tree is; read by whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Objects dealt with.
    pub objects: AtomicU64,
    /// Bytes of data dealt with.
    pub data: AtomicU64,
}

impl Progress {
    /// From the beginning again.
    pub(crate) fn begin(&self) {
        self.objects.store(0, Ordering::Relaxed);
        self.data.store(0, Ordering::Relaxed);
    }

    /// One event more.
    pub(crate) fn add(&self, event: &Result<Event, TreeError>) {
        if let Ok(Event::Node(node) | Event::Enter(node)) = event {
            self.objects.fetch_add(1, Ordering::Relaxed);
            if let Kind::File(content) = &node.kind {
                let data = content
                    .data
                    .iter()
                    .map(|range| range.end - range.start)
                    .sum();
                self.data.fetch_add(data, Ordering::Relaxed);
            }
        }
    }
}
