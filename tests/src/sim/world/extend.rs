//! The store's device becomes larger, and the store with it: at any time it has the
//! size that was acknowledged last, or the one that was being made when it stopped.

use snapstore::engine::{Command, CommandError, Reply};
use snapstore::ids::CommandId;

use super::{Outcome, Violation, World};
use crate::sim::daemon::Daemon;
use crate::sim::value::{Data, PER_BLOCK};

/// Fewest blocks a store grows by.
const STEP: u64 = 256;
/// A store that is so large grows no more, so that worlds stay small.
const LARGE: u64 = 16_384;

/// What is known of the store's size, in blocks.
#[derive(Debug)]
pub(super) struct StoreSize {
    known: u64,
    /// An extension that was not answered, or failed with the store.
    maybe: Option<(CommandId, u64)>,
}

impl StoreSize {
    pub(super) fn new(known: u64) -> Self {
        Self { known, maybe: None }
    }
}

impl<D: Daemon> World<D> {
    /// The device grows, unless it is larger already; then mostly the store does. One
    /// such command at a time.
    pub(super) fn extend(&mut self, by: u32) -> Option<Command> {
        if self.store.maybe.is_some() || self.store.known >= LARGE {
            return None;
        }
        let disk = &mut self.runtime.machine_mut().store;
        let mut blocks = disk.sectors() / PER_BLOCK;
        if blocks < self.store.known + STEP || by.is_multiple_of(3) {
            let more = STEP + u64::from(by >> 4) % 700;
            disk.extend(more * PER_BLOCK);
            blocks += more;
            // Whatever was on the device there before.
            for sector in (blocks - more) * PER_BLOCK..blocks * PER_BLOCK {
                self.stamp += 1;
                if by & 8 == 0 {
                    disk.plant(sector, Data::pattern(self.stamp));
                }
            }
        }
        (!by.is_multiple_of(5)).then_some(Command::ExtendStore { blocks })
    }

    pub(super) fn extension_asked(&mut self, id: CommandId, command: &Command) {
        if let Command::ExtendStore { blocks } = command {
            self.store.maybe = Some((id, *blocks));
        }
    }

    /// An answer to an extension: the store has the size, or the old one, or nobody knows.
    pub(super) fn extension_answered(
        &mut self,
        id: CommandId,
        result: &Result<Reply, CommandError>,
    ) -> Outcome {
        let Some((_, blocks)) = self.store.maybe.filter(|(asked, _)| *asked == id) else {
            return Ok(());
        };
        match result {
            Ok(_) => {
                self.store = StoreSize::new(blocks);
                self.stats.extended += 1;
            }
            Err(CommandError::StoreFailed(_)) => return Ok(()),
            Err(_) => self.store.maybe = None,
        }
        self.store_is_as_large()
    }

    /// What the engine says of its size, at rest or after a stop.
    pub(super) fn store_is_as_large(&mut self) -> Outcome {
        let found = self.runtime.look(|engine| engine.store_info()).size / 4096;
        let maybe = self.store.maybe.map(|(_, blocks)| blocks);
        if found != self.store.known && Some(found) != maybe {
            let known = self.store.known;
            return Err(Violation(format!(
                "the store has {found} blocks, not {known} or {maybe:?}"
            )));
        }
        self.store = StoreSize::new(found);
        Ok(())
    }
}
