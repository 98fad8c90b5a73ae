//! Deletion in the background: giving back what only dead snapshots needed.
//!
//! A pass covers the eras from a dead snapshot to the next live one, which is
//! all that its death can have freed. It begins only after the deaths in that
//! range are durable, no copyout for one of their tags is under way and no read
//! of them is left, so nothing can appear behind its cursor (hazard 23). What it
//! removes is logged exactly, key and block; after a crash the pass starts again.
//! Where a tree is damaged for good the pass goes around it: a removal that no
//! checkpoint could write out would only fail the store.

use super::commit::Done;
use super::lookup::TreeId;
use super::sweep::{Order, Sweep};
use super::{Effects, Engine, Task};
use crate::format::journal::Record;
use crate::ids::{Tag, VolumeId};
use crate::tree::{Key, Missing, Span};

/// How often a pass that could not read a node is put off until after a checkpoint.
const MOST_POSTPONED: u32 = 3;

/// A pass.
#[derive(Debug)]
pub(super) struct Purge {
    volume: VolumeId,
    /// The dead snapshots this pass settles.
    dead: Vec<Tag>,
    /// Records of this pass are in a commit.
    committing: bool,
    pub(super) sweep: Sweep,
}

impl Engine {
    /// Whether some dead snapshot's space has still to come back.
    pub(super) fn purge_pending(&self) -> bool {
        let mut volumes = self.state.volumes.values();
        volumes.any(|v| v.unpurged().next().is_some())
    }

    /// Does a bounded piece of work; true if more could be done at once.
    pub(super) fn step_purge(&mut self, out: &mut Effects) -> bool {
        if self.failed.is_some() || self.closing.is_some() {
            return false;
        }
        if self.purge.is_none() {
            self.begin_pass();
        }
        let Some(purge) = &self.purge else {
            return false;
        };
        if purge.committing || self.waiting_for_node(Task::Purge) {
            return false;
        }
        if purge.sweep.is_over() {
            self.end_pass();
            return false;
        }
        let mut batch = self.purge_batch();
        let full = self.state.recent.len() >= self.config.memtable_records;
        if full || !self.room_for_records(batch) {
            // What a checkpoint under way has set aside comes back when it ends.
            if self.checkpoint.busy() {
                return false;
            }
            if self.state.dirty.any {
                self.checkpoint.wanted = true;
                return false;
            }
            // Nothing else can give space back: one at a time, from the reserve.
            batch = 1;
        }
        match self.scan_window(batch) {
            Ok(more) => more,
            Err(missing) => {
                self.fetch(TreeId::Eras, missing, Task::Purge, out);
                false
            }
        }
    }

    fn begin_pass(&mut self) {
        if !self.purge_wanted {
            return;
        }
        let mut pending = false;
        let mut found = None;
        for volume in self.state.volumes.values() {
            let Some(first) = volume.unpurged().next() else {
                continue;
            };
            pending = true;
            let next = volume.next_live(first).unwrap_or(Tag(u64::MAX));
            let end = if volume.taking > first {
                next.min(volume.taking)
            } else {
                next
            };
            let dead: Vec<Tag> = volume.unpurged().take_while(|tag| *tag < end).collect();
            let read = dead.iter().any(|tag| volume.readers.contains_key(tag));
            if !read && !self.copies_in(volume.id, first, end) {
                found = Some((volume.id, first, end, dead));
                break;
            }
        }
        self.purge_wanted = pending;
        if let Some((volume, first, end, dead)) = found {
            let key = |tag: Tag| Key {
                a: volume.0.into(),
                b: tag.0,
                c: 0,
            };
            self.purge = Some(Purge {
                volume,
                dead,
                committing: false,
                sweep: Sweep::new(Order::Eras, key(first), key(end)),
            });
        }
    }

    /// Purges at most `batch` exceptions of the next window.
    fn scan_window(&mut self, batch: usize) -> Result<bool, Missing> {
        let eras = self.next_window(|engine| Some(&mut engine.purge.as_mut()?.sweep))?;
        let Some(purge) = &mut self.purge else {
            return Ok(false);
        };
        let id = purge.volume;
        let Some(volume) = self.state.volumes.get(&id) else {
            return Ok(false);
        };
        let mut records = Vec::new();
        for (key, place) in eras {
            if records.len() == batch {
                purge.sweep.cursor = key;
                break;
            }
            let (tag, chunk) = (Tag(key.b), key.c);
            let exception = Key::new(key.a, chunk, tag.0);
            if !volume.needs(place.pred, tag) && !self.heals.in_hole(exception) {
                records.push(Record::Purged {
                    volume: id,
                    chunk,
                    tag,
                    block: place.block,
                });
            }
        }
        purge.committing = !records.is_empty();
        let more = records.is_empty();
        let last = records.len().saturating_sub(1);
        for (index, record) in records.into_iter().enumerate() {
            self.append(
                record,
                if index == last {
                    Done::PurgeBatch
                } else {
                    Done::Nothing
                },
            );
        }
        Ok(more)
    }

    pub(super) fn purge_batch_done(&mut self) {
        if let Some(purge) = &mut self.purge {
            purge.committing = false;
        }
    }

    fn end_pass(&mut self) {
        let Some(purge) = &mut self.purge else { return };
        purge.committing = true;
        let volume = purge.volume;
        let dead = std::mem::take(&mut purge.dead);
        let last = dead.len().saturating_sub(1);
        for (index, tag) in dead.into_iter().enumerate() {
            let done = if index == last {
                Done::PurgeEnd
            } else {
                Done::Nothing
            };
            self.append(Record::SnapshotPurged { volume, tag }, done);
        }
    }

    pub(super) fn purge_ended(&mut self) {
        let Some(purge) = self.purge.take() else {
            return;
        };
        self.purge_wanted = true;
        self.purges_postponed = 0;
        self.bury_volume(purge.volume);
        // Freed chunks come back with a checkpoint: do not let a person wait for it.
        self.checkpoint.wanted |= !self.purge_pending();
    }

    /// A deleted volume goes when its last snapshot has.
    pub(super) fn bury_volume(&mut self, id: VolumeId) {
        let volume = self.state.volumes.get(&id);
        if volume.is_some_and(|v| v.deleting() && v.snapshots.is_empty()) {
            self.append(Record::VolumeGone { volume: id }, Done::Nothing);
        }
    }

    /// Gives a pass up until the next checkpoint, a few times.
    pub(super) fn postpone_purge(&mut self) -> bool {
        if self.purges_postponed >= MOST_POSTPONED {
            return false;
        }
        self.purges_postponed += 1;
        self.purge = None;
        self.purge_wanted = false;
        self.checkpoint.wanted = true;
        true
    }

    /// Purging goes on behind what cannot be read: the room of what may be there comes
    /// back with a repair.
    pub(super) fn purge_hit_damage(&mut self, span: &Span) {
        if let Some(Purge { sweep, .. }) = &mut self.purge
            && !sweep.is_over()
            && span.covers(sweep.cursor)
        {
            sweep.cursor = span.up.unwrap_or(sweep.end);
        }
    }
}
