//! Writes that no snapshot may be dropped for, while the store is full: their volume
//! puts its snapshots first, or all that are left are held.
//!
//! Each volume says how long its writes wait for room before they fail (0: not at
//! all); one that is taken from its users waits no more. Invariant: a volume is listed
//! here from when everything that gives space back was tried for it in vain until a
//! copyout finds room or could. Once its time is over, its writes fail at once: a client
//! that writes one after another would wait the whole time for each.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::copyout::Wanted;
use super::{Effect, Effects, Engine, Notice, Policy, RequestError};
use crate::format::tables::SnapshotPhase;
use crate::ids::{Tag, VolumeId};

/// Since when volumes wait for room, Unix time in ms.
#[derive(Debug, Default)]
pub(super) struct Patience {
    since: BTreeMap<VolumeId, u64>,
    /// Whose writes do not wait.
    ended: BTreeSet<VolumeId>,
}

impl Patience {
    /// Whether writes to the volume may wait.
    pub(super) fn allow(&mut self, volume: VolumeId, allowed: bool) {
        match allowed {
            true => self.ended.remove(&volume),
            false => self.ended.insert(volume),
        };
    }

    /// A copyout of the volume found room.
    pub(super) fn found_room(&mut self, volume: VolumeId) {
        self.since.remove(&volume);
    }

    /// Whether any volume waits, or waited in vain.
    pub(super) fn is_running(&self) -> bool {
        !self.since.is_empty()
    }

    /// There is room again, whoever it is for.
    pub(super) fn is_over(&mut self) {
        self.since.clear();
    }
}

impl Engine {
    /// Fails the writes that have waited long enough. Those that there is, or will be,
    /// a victim for wait for that.
    pub(super) fn refuse_wanted(&mut self, victim: bool, out: &mut Effects) {
        let wanted = std::mem::take(&mut self.wanted);
        for one in wanted {
            if self.is_dropped_for(&one, victim) || self.may_wait(one.volume, out) {
                self.wanted.push(one);
            } else {
                self.refuse(one, out);
            }
        }
        self.starved = !self.wanted.is_empty();
    }

    /// Fails the writes that wait for room and may not any more, whatever else is under
    /// way: who stops a volume does not wait either. Those that a snapshot is dropped
    /// for are not kept long.
    pub(super) fn refuse_ended(&mut self, out: &mut Effects) {
        let ended = |one: &Wanted| self.patience.ended.contains(&one.volume);
        if !self.wanted.iter().any(ended) {
            return;
        }
        let victim = self.victim.is_some() || self.choose_victim().is_some();
        let wanted = std::mem::take(&mut self.wanted);
        let (ended, others): (Vec<Wanted>, Vec<Wanted>) = wanted.into_iter().partition(|one| {
            self.patience.ended.contains(&one.volume) && !self.is_dropped_for(one, victim)
        });
        self.wanted = others;
        for one in ended {
            self.refuse(one, out);
        }
        self.starved = !self.wanted.is_empty();
    }

    /// Whether a snapshot is, or will be, dropped to make room for it: there is a victim,
    /// or one that is being taken can be it soon.
    fn is_dropped_for(&self, one: &Wanted, victim: bool) -> bool {
        let first = self.policy(one.volume) == Policy::OriginFirst;
        first && (victim || !self.is_live(one.volume, one.tag))
    }

    fn is_live(&self, volume: VolumeId, tag: Tag) -> bool {
        let volume = self.state.volumes.get(&volume);
        volume.and_then(|v| v.phase(tag)) == Some(SnapshotPhase::Live)
    }

    fn may_wait(&mut self, volume: VolumeId, out: &mut Effects) -> bool {
        if self.patience.ended.contains(&volume) {
            return false;
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
        let since = match self.patience.since.entry(volume) {
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
