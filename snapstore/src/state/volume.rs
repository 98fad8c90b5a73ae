//! One volume and its snapshots, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use super::sharing::Sharing;
use super::{is_purged, no_snapshot};
use crate::format::Damage;
use crate::format::tables::{
    KIND_ORIGIN, Name, PURGED, SnapshotPhase, SnapshotRecord, VOLUME_DELETING, VOLUME_LIVE,
    VolumeRecord, padded,
};
use crate::ids::{Tag, VolumeId};
use crate::unique::UniqueMap;

/// A volume.
#[derive(Debug)]
pub struct Volume {
    /// Its number.
    pub id: VolumeId,
    /// What the table says of it.
    pub record: VolumeRecord,
    /// Chunks, the last one perhaps partial.
    pub chunks: u64,
    /// Every snapshot in the table, by tag.
    pub snapshots: BTreeMap<Tag, SnapshotRecord>,
    /// Counters of exceptions by who shares them.
    pub sharing: Sharing,
    /// The fast path's bitmap.
    pub unique: Arc<UniqueMap>,
    /// The tag of a take whose gate has been passed and whose record is not
    /// published yet: the newest for copyouts. 0: none. Never on disk.
    pub taking: Tag,
    /// Granted reads by snapshot. Never on disk.
    pub readers: BTreeMap<Tag, u32>,
    live: BTreeSet<Tag>,
    /// No longer live, and not purged yet.
    dead: BTreeSet<Tag>,
}

impl Volume {
    /// A volume with no snapshots yet.
    ///
    /// # Errors
    /// When the record's fields make no sense.
    pub fn new(id: VolumeId, record: VolumeRecord, chunk_size: u64) -> Result<Self, Damage> {
        if record.kind.get() != KIND_ORIGIN {
            return Err(Damage::Field(
                "the volume is a clone: a newer csnap is needed",
            ));
        }
        if ![VOLUME_LIVE, VOLUME_DELETING].contains(&record.state.get()) || id.0 == 0 {
            return Err(Damage::Field("a volume's number or state is unknown"));
        }
        let chunks = record.size.get().div_ceil(chunk_size);
        let unique = UniqueMap::new(chunks).map_err(|_| too_large())?;
        Ok(Self {
            id,
            record,
            chunks,
            snapshots: BTreeMap::new(),
            sharing: Sharing::default(),
            unique: Arc::new(unique),
            taking: Tag(0),
            readers: BTreeMap::new(),
            live: BTreeSet::new(),
            dead: BTreeSet::new(),
        })
    }

    /// Lets a changed record take effect; `held` is the volume's own. A larger
    /// size makes it grow: its new chunks are not unique.
    ///
    /// # Errors
    /// When the record is of a smaller volume.
    pub(super) fn change(&mut self, record: &VolumeRecord, chunk_size: u64) -> Result<(), Damage> {
        if record.size < self.record.size {
            return Err(Damage::Field("a volume became smaller"));
        }
        let chunks = record.size.get().div_ceil(chunk_size);
        self.unique.grow(chunks).map_err(|_| too_large())?;
        self.chunks = chunks;
        let held = self.record.held;
        self.record = *record;
        self.record.held = held;
        Ok(())
    }

    /// Whether `chunk` lies wholly beyond the end of every snapshot, so that none
    /// needs its old contents: volumes only grow, so the newest snapshot is the
    /// largest. `false` while that one's record is not durable yet.
    #[must_use]
    pub fn is_beyond_snapshots(&self, chunk: u64, chunk_size: u64) -> bool {
        let newest = self.snapshots.get(&self.newest());
        newest.is_some_and(|s| chunk >= s.size.get().div_ceil(chunk_size))
    }

    /// The largest size of the snapshots in the table whose tags are in
    /// `(pred, tag]`, in bytes; of the volume if there are none.
    #[must_use]
    pub fn size_in(&self, pred: Tag, tag: Tag) -> u64 {
        if pred >= tag {
            return self.record.size.get();
        }
        let inside = self.snapshots.range((Excluded(pred), Included(tag)));
        let largest = inside.map(|(_, s)| s.size.get()).max();
        largest.unwrap_or(self.record.size.get())
    }

    /// Adds a snapshot from the table or from a take.
    ///
    /// # Errors
    /// When its phase is unknown or the tag exists.
    pub fn insert_snapshot(&mut self, tag: Tag, record: SnapshotRecord) -> Result<(), Damage> {
        match record.phase() {
            None => return Err(Damage::Field("a snapshot's phase is unknown")),
            Some(SnapshotPhase::Prepared | SnapshotPhase::Live) => {
                self.live.insert(tag);
            }
            Some(SnapshotPhase::Deleting | SnapshotPhase::Dropped) => {
                if !is_purged(&record) {
                    self.dead.insert(tag);
                }
            }
        }
        match self.snapshots.insert(tag, record) {
            None => Ok(()),
            Some(_) => Err(Damage::Field("a tag was given twice")),
        }
    }

    /// Whether the volume is being deleted.
    #[must_use]
    pub fn deleting(&self) -> bool {
        self.record.state.get() == VOLUME_DELETING
    }

    /// The newest snapshot that must be kept from now on, 0 if none.
    #[must_use]
    pub fn newest(&self) -> Tag {
        self.taking
            .max(self.live.last().copied().unwrap_or_default())
    }

    /// Where a snapshot is in its life.
    #[must_use]
    pub fn phase(&self, tag: Tag) -> Option<SnapshotPhase> {
        self.snapshots.get(&tag).and_then(SnapshotRecord::phase)
    }

    /// Snapshots that keep data, by ascending tag.
    pub fn live(&self) -> impl DoubleEndedIterator<Item = Tag> + '_ {
        self.live.iter().copied()
    }

    /// First and last live snapshot `s` with `pred < s <= tag`.
    #[must_use]
    pub fn live_in(&self, pred: Tag, tag: Tag) -> Option<(Tag, Tag)> {
        if pred >= tag {
            return None;
        }
        let mut inside = self.live.range((Excluded(pred), Included(tag)));
        let first = *inside.next()?;
        Some((first, inside.next_back().copied().unwrap_or(first)))
    }

    /// Whether an exception with this interval must stay: a live snapshot is in
    /// it, or a read of a deleted one is still under way.
    #[must_use]
    pub fn needs(&self, pred: Tag, tag: Tag) -> bool {
        let interval = (Excluded(pred), Included(tag));
        pred < tag
            && (self.live.range(interval).next().is_some()
                || self.readers.range(interval).next().is_some())
    }

    /// The live snapshot after `tag`.
    #[must_use]
    pub fn next_live(&self, tag: Tag) -> Option<Tag> {
        self.live.range((Excluded(tag), Unbounded)).next().copied()
    }

    /// Snapshots no longer live whose exceptions have not been purged yet.
    pub fn unpurged(&self) -> impl Iterator<Item = Tag> + '_ {
        self.dead.iter().copied()
    }

    /// Whether one of them is a snapshot `s` with `pred < s <= tag`.
    #[must_use]
    pub(crate) fn unpurged_in(&self, pred: Tag, tag: Tag) -> bool {
        let interval = (Excluded(pred), Included(tag));
        pred < tag && self.dead.range(interval).next().is_some()
    }

    /// Whether a name is used by a snapshot a person can see.
    #[must_use]
    pub fn has_name(&self, name: &str) -> bool {
        let name: Name = padded(name);
        let visible = |r: &&SnapshotRecord| r.phase() != Some(SnapshotPhase::Deleting);
        self.snapshots
            .values()
            .filter(visible)
            .any(|record| record.name == name)
    }

    pub(super) fn set_phase(&mut self, tag: Tag, phase: SnapshotPhase) -> Result<(), Damage> {
        let record = self.snapshots.get_mut(&tag).ok_or_else(no_snapshot)?;
        record.phase = (phase as u32).into();
        Ok(())
    }

    /// Ends a snapshot's life: from here on it keeps nothing. One that is gone
    /// already stays so.
    pub(super) fn bury(
        &mut self,
        tag: Tag,
        phase: SnapshotPhase,
        reason: u32,
    ) -> Result<(), Damage> {
        let was = self.phase(tag);
        if was.is_none() || was == Some(SnapshotPhase::Deleting) {
            return Ok(());
        }
        self.set_phase(tag, phase)?;
        let record = self.snapshots.get_mut(&tag).ok_or_else(no_snapshot)?;
        if is_purged(record) {
            // A dropped snapshot that gave its space back long ago.
            self.snapshots.remove(&tag);
            return Ok(());
        }
        record.reason = reason.into();
        self.dead.insert(tag);
        if self.live.remove(&tag) {
            let before = self.live.range(..tag).next_back().copied();
            self.sharing.remove(tag, before, self.next_live(tag));
        }
        Ok(())
    }

    /// Nothing is left to purge: a deleted snapshot goes, a dropped one stays listed.
    pub(super) fn purged(&mut self, tag: Tag) -> Result<(), Damage> {
        self.dead.remove(&tag);
        let record = self.snapshots.get_mut(&tag).ok_or_else(no_snapshot)?;
        if record.phase() == Some(SnapshotPhase::Dropped) {
            record.flags = (record.flags.get() | PURGED).into();
        } else {
            self.snapshots.remove(&tag);
        }
        Ok(())
    }
}

fn too_large() -> Damage {
    Damage::Field("a volume is too large for this machine's memory")
}
