//! Space: what must stay free, and what happens when it runs out.
//!
//! Before a copyout starts, the blocks that the next checkpoint may need at worst
//! are set aside, as is what a batch of purges needs, so that giving space back
//! never itself lacks space (hazard 17). When a copyout finds no room and nothing
//! is on its way back, the victim (lowest priority, then oldest) is dropped, one
//! at a time and durably before any write passes. Where the volume's policy puts
//! snapshots first, or every snapshot left is held, writes wait instead (`patience`).

use super::commit::Done;
use super::lookup::TREES;
use super::reads::{drop_code, drop_reason};
use super::{DropReason, Effect, Effects, Engine, Notice, Policy, RequestError};
use crate::device::IoError;
use crate::format::journal::Record;
use crate::format::tables::text;
use crate::ids::{Tag, VolumeId};
use crate::tree::worst_case_nodes;

/// Blocks that a checkpoint may need for nodes made anew: a change of one may rewrite
/// all beside it.
pub(super) const fn made_reserve(nodes: u64) -> u64 {
    2 * nodes
}

impl Engine {
    /// How many chunks may be copied out now.
    pub(super) fn room_for_copies(&self) -> u64 {
        let pending = self.pending_records();
        let most = 2 * self.config.memtable_records;
        if pending >= most {
            return 0;
        }
        // Assume the largest run, so that the estimate need not be repeated.
        let ahead = (self.config.max_run as usize).min(most - pending);
        let reserve = self.checkpoint_reserve(pending + ahead) + self.purge_reserve();
        let free = self.alloc.free_blocks().saturating_sub(reserve);
        (free / u64::from(self.geometry.chunk_blocks)).min(ahead as u64)
    }

    /// Whether `records` more records and a few table entries can be checkpointed.
    pub(super) fn room_for_records(&self, records: usize) -> bool {
        self.alloc.free_blocks() >= self.checkpoint_reserve(self.pending_records() + records)
    }

    /// Whether copyouts go on if so many nodes are made anew.
    pub(super) fn room_for_made(&self, nodes: u64) -> bool {
        let run = self.config.max_run as usize;
        let reserve = self.checkpoint_reserve(self.pending_records() + run) + self.purge_reserve();
        let copies = run as u64 * u64::from(self.geometry.chunk_blocks);
        self.alloc.free_blocks() >= reserve + made_reserve(nodes) + copies
    }

    /// Records that the next checkpoint will have to merge.
    fn pending_records(&self) -> usize {
        let copying: usize = self
            .copies
            .iter()
            .map(|(_, copy)| copy.unpublished as usize)
            .sum();
        self.state.recent.len() + self.journal.waiting() + copying
    }

    /// Blocks that checkpoints may allocate at worst: what the one under way may
    /// still need, and all of one with `records` changed exceptions.
    fn checkpoint_reserve(&self, records: usize) -> u64 {
        // While one is under way the trees it makes are not known yet.
        let records = records + self.checkpoint.frozen.as_ref().map_or(0, |f| f.len());
        let (volumes, snapshots, sharing) = self.state.dirty_entries();
        // In the order of `TREES`.
        let changes = [
            records,
            records,
            volumes + 8,
            snapshots + 8,
            sharing + records.min(64),
        ];
        let trees = TREES.iter().zip(changes);
        // Volumes gone since the last checkpoint are among the dirty ones.
        let distinct = self.state.volumes.len() + volumes + 8;
        let nodes: u64 = trees
            .map(|(tree, changes)| {
                let shape = self.geometry.shape(*tree);
                worst_case_nodes(self.roots.get(*tree), changes, distinct, &shape)
            })
            .sum();
        let made = made_reserve(self.cache.kept() as u64);
        nodes + made + self.alloc.worst_case_image_blocks() + self.checkpoint.reserved
    }

    /// What the checkpoint about to begin may allocate at worst.
    pub(super) fn reserve_for_checkpoint(&self) -> u64 {
        self.checkpoint_reserve(self.state.recent.len())
    }

    /// Set aside so that purges can always be recorded and checkpointed.
    fn purge_reserve(&self) -> u64 {
        let batch = self.purge_batch();
        let shape = |tree| self.geometry.shape(tree);
        let nodes: u64 = [
            super::lookup::TreeId::Exceptions,
            super::lookup::TreeId::Eras,
        ]
        .into_iter()
        .map(|tree| worst_case_nodes(self.roots.get(tree), batch, 1, &shape(tree)))
        .sum();
        nodes + 8
    }

    /// Exceptions purged in one record batch.
    pub(super) fn purge_batch(&self) -> usize {
        (self.geometry.blocks / 256).clamp(8, 512) as usize
    }

    /// Nothing could be allocated: get space back, or drop a victim.
    pub(super) fn relieve(&mut self, out: &mut Effects) {
        if !self.starved || self.failed.is_some() {
            return;
        }
        self.refuse_ended(out);
        if !self.starved || self.victim.is_some() {
            return;
        }
        let freeing = self.alloc.is_opening() || self.purge.is_some() || self.purge_pending();
        if freeing || !self.journal.idle() {
            return; // space is on its way
        }
        if !self.copies.is_empty() || self.checkpoint.busy() {
            return;
        }
        // Freed chunks and replaced nodes come back with a checkpoint: one before
        // every victim.
        if self.state.dirty.any || self.checkpoint_due() {
            self.checkpoint.wanted = true;
            return;
        }
        self.starve_notice(out);
        let first = |w: &super::copyout::Wanted| self.policy(w.volume) == Policy::OriginFirst;
        let victim = self.wanted.iter().any(first).then(|| self.choose_victim());
        let victim = victim.flatten();
        self.refuse_wanted(victim.is_some(), out);
        if let Some((volume, tag)) = victim {
            self.victim = Some((volume, tag));
            self.drop_snapshot(volume, tag, DropReason::StoreFull);
        }
    }

    fn starve_notice(&mut self, out: &mut Effects) {
        if !self.warned_full {
            self.warned_full = true;
            out.list.push(Effect::Notice(Notice::SpaceLow {
                used_percent: self.used_percent(),
            }));
        }
    }

    /// Lowest priority, then oldest, of the volumes whose origin comes first. Never
    /// one that is held.
    pub(super) fn choose_victim(&self) -> Option<(VolumeId, Tag)> {
        let volumes = self.state.volumes.values();
        let volumes = volumes.filter(|v| self.policy(v.id) == Policy::OriginFirst);
        let first = volumes
            .filter_map(|v| Some((v.first_to_drop()?, v.id)))
            .min();
        first.map(|((_, tag), volume)| (volume, tag))
    }

    pub(super) fn drop_snapshot(&mut self, volume: VolumeId, tag: Tag, reason: DropReason) {
        let record = Record::SnapshotDropped {
            volume,
            tag,
            reason: drop_code(reason),
        };
        self.append(record, Done::VictimDropped(volume, tag));
    }

    /// A dropped snapshot is durably gone: whoever waited looks again.
    pub(super) fn victim_dropped(&mut self, volume: VolumeId, tag: Tag, out: &mut Effects) {
        if let Some(record) = self
            .state
            .volumes
            .get(&volume)
            .and_then(|v| v.snapshots.get(&tag))
        {
            out.list.push(Effect::Notice(Notice::SnapshotDropped {
                volume,
                name: text(&record.name),
                tag,
                reason: drop_reason(record.reason.get()),
            }));
        }
        if self.victim == Some((volume, tag)) {
            self.victim = None;
        }
        self.cancel_wanted();
        self.wake_stalled();
    }

    /// A live snapshot is no longer live.
    pub(super) fn snapshot_buried(&mut self, volume: VolumeId) {
        // Copyouts not begun may be for a tag that is dead now.
        self.cancel_wanted();
        self.refresh_shared(volume);
        self.purge_wanted = true;
    }

    pub(super) fn used_percent(&self) -> u8 {
        let blocks = self.geometry.blocks.max(1);
        ((blocks - self.alloc.free_blocks().min(blocks)) * 100 / blocks) as u8
    }

    /// Warns once when the store fills beyond the mark.
    pub(super) fn warn_space(&mut self, out: &mut Effects) {
        if self.alloc.is_opening() {
            return; // how much is in use is not known yet
        }
        let used = self.used_percent();
        if used < self.config.warn_percent.saturating_sub(5) {
            self.warned_low = false;
            self.warned_full = false;
        } else if used >= self.config.warn_percent && !self.warned_low {
            self.warned_low = true;
            out.list
                .push(Effect::Notice(Notice::SpaceLow { used_percent: used }));
        }
    }

    /// The store can no longer be written. Origin first: once it is recorded
    /// elsewhere that the snapshots are invalid, writes go on (hazard 10).
    pub(super) fn fail_store(&mut self, reason: &str, out: &mut Effects) {
        if self.failed.is_some() {
            return;
        }
        self.failed = Some(reason.to_owned());
        out.list.push(Effect::Notice(Notice::StoreFailed {
            reason: reason.to_owned(),
        }));
        let error = super::CommandError::StoreFailed(reason.to_owned());
        self.abandon_commits(&error, out);
        self.abandon_checkpoint(&error, out);
        self.abandon_extension(&error, out);
        let ids: Vec<VolumeId> = self.state.volumes.keys().copied().collect();
        let (first, _): (Vec<_>, Vec<_>) = ids
            .into_iter()
            .partition(|id| self.policy(*id) == Policy::OriginFirst);
        self.fail_writes_except(&first, reason, out);
        let volumes: Vec<VolumeId> = first
            .into_iter()
            .filter(|id| self.newest(*id) > Tag(0))
            .collect();
        if !volumes.is_empty() {
            self.invalidating.extend(&volumes);
            let io = self.new_io(super::Io::Invalid {
                volumes: volumes.clone(),
            });
            out.list.push(Effect::RecordInvalid { io, volumes });
        }
        // Volumes without snapshots go on at once, the others once invalidated.
        self.free_all_copies();
        self.end_heals();
    }

    /// The answer to `RecordInvalid`. If the invalidation is durable outside the
    /// store, the origins go on; else their writes must fail.
    pub(super) fn invalidated(
        &mut self,
        volumes: &[VolumeId],
        result: Result<(), IoError>,
        out: &mut Effects,
    ) {
        self.invalidating.clear();
        if let Err(error) = result {
            let reason = format!("and its snapshots could not be invalidated: {error}");
            return self.fail_writes_except(&[], &reason, out);
        }
        for id in volumes {
            let Some(volume) = self.state.volumes.get_mut(id) else {
                continue;
            };
            volume.taking = Tag(0);
            let live: Vec<Tag> = volume.live().collect();
            for tag in live {
                let reason = drop_code(DropReason::StoreFailed);
                let record = Record::SnapshotDropped {
                    volume: *id,
                    tag,
                    reason,
                };
                // In memory only: the state can only refuse what is not there.
                let _ = self.state.apply(&record);
                self.victim_dropped(*id, tag, out);
            }
            self.refresh_shared(*id);
        }
        self.free_all_copies();
        self.wake_stalled();
    }

    /// No copyout will ever be published: let writes look at their chunks again.
    fn free_all_copies(&mut self) {
        self.cancel_wanted();
        let copying: Vec<(VolumeId, u64)> = self
            .chunks
            .iter()
            .filter(|(_, b)| b.copying)
            .map(|(key, _)| *key)
            .collect();
        for (volume, chunk) in copying {
            self.restart_waiters(volume, chunk);
            self.copying_ended(volume, chunk);
        }
    }

    pub(super) fn fail_writes_except(
        &mut self,
        volumes: &[VolumeId],
        reason: &str,
        out: &mut Effects,
    ) {
        let ids: Vec<usize> = self
            .writes
            .iter()
            .filter(|(_, write)| !volumes.contains(&write.volume))
            .map(|(id, _)| id)
            .collect();
        for id in ids {
            self.fail_write(id, RequestError::StoreFailed(reason.to_owned()), out);
        }
    }
}
