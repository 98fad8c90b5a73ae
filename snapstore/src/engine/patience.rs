//! Writes of volumes that put their snapshots first, while the store is full.
//!
//! Each volume says how long its writes wait for room before they fail (0: not at
//! all). Invariant: a volume is listed here from when everything that gives space
//! back was tried for it in vain until a copyout finds room or could. Once its time
//! is over, its writes fail at once: a client that writes one after another would
//! wait the whole time for each.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::copyout::Wanted;
use super::{Effect, Effects, Engine, Notice, Policy, RequestError};
use crate::ids::VolumeId;

/// Since when volumes wait for room, Unix time in ms.
#[derive(Debug, Default)]
pub(super) struct Patience(BTreeMap<VolumeId, u64>);

impl Patience {
    /// A copyout of the volume found room.
    pub(super) fn found_room(&mut self, volume: VolumeId) {
        self.0.remove(&volume);
    }

    /// Whether any volume waits, or waited in vain.
    pub(super) fn is_running(&self) -> bool {
        !self.0.is_empty()
    }

    /// There is room again, whoever it is for.
    pub(super) fn is_over(&mut self) {
        self.0.clear();
    }
}

impl Engine {
    /// Fails the writes that have waited long enough.
    pub(super) fn refuse_wanted(&mut self, out: &mut Effects) {
        let wanted = std::mem::take(&mut self.wanted);
        for one in wanted {
            if self.may_wait(one.volume, out) {
                self.wanted.push(one);
            } else {
                self.refuse(one, out);
            }
        }
        self.starved = !self.wanted.is_empty();
    }

    fn may_wait(&mut self, volume: VolumeId, out: &mut Effects) -> bool {
        if self.policy(volume) == Policy::OriginFirst {
            return true; // for a victim
        }
        let seconds = self
            .state
            .volumes
            .get(&volume)
            .map_or(0, |v| v.record.full_wait_s.get());
        if seconds == 0 {
            return false;
        }
        if self.now_ms == 0 {
            return true; // the time is not known yet
        }
        let since = match self.patience.0.entry(volume) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let notice = Notice::WaitsForRoom { volume, seconds };
                out.list.push(Effect::Notice(notice));
                *new.insert(self.now_ms)
            }
        };
        self.now_ms.saturating_sub(since) < u64::from(seconds) * 1000
    }

    fn refuse(&mut self, Wanted { volume, chunk, .. }: Wanted, out: &mut Effects) {
        let busy = self.chunks.get_mut(&(volume, chunk));
        let waiters = busy.map(|busy| std::mem::take(&mut busy.waiters));
        for id in waiters.unwrap_or_default() {
            self.fail_write(id, RequestError::NoSpace(volume), out);
        }
        self.copying_ended(volume, chunk);
    }
}
