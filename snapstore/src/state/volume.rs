//! One volume and its snapshots, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use super::sharing::Sharing;
use super::{is_purged, no_snapshot};
use crate::format::Damage;
use crate::format::tables::{
    HELD, KIND_ORIGIN, Name, PURGED, SnapshotPhase, SnapshotRecord, VOLUME_DELETING, VOLUME_LIVE,
    VolumeRecord, padded, text,
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
    /// By name those of the snapshots that a person can see: one each, but in a damaged
    /// store.
    names: BTreeSet<(Name, Tag)>,
    /// Those that may be dropped to make room, by priority, then age.
    droppable: BTreeSet<(i32, Tag)>,
    /// How many there are to list: live or dropped.
    listed: u64,
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
            names: BTreeSet::new(),
            droppable: BTreeSet::new(),
            listed: 0,
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
        self.count(tag, &record);
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
        self.named(name).next().is_some()
    }

    /// Those that have this name.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = Tag> + '_ {
        let field: Name = padded(name);
        // What a field cannot hold is nobody's name, though its beginning may be.
        let exact = text(&field) == name;
        let named = self.names.range((field, Tag(0))..=(field, Tag(u64::MAX)));
        named.filter(move |_| exact).map(|(_, tag)| *tag)
    }

    /// Which is dropped first to make room, after its priority: the least important, then
    /// the oldest. None that is held.
    #[must_use]
    pub fn first_to_drop(&self) -> Option<(i32, Tag)> {
        self.droppable.first().copied()
    }

    /// Lets `change` have its way with a snapshot's record.
    pub(super) fn change_snapshot(
        &mut self,
        tag: Tag,
        change: impl FnOnce(&mut SnapshotRecord),
    ) -> Result<(), Damage> {
        let record = self.snapshots.get_mut(&tag).ok_or_else(no_snapshot)?;
        let before = *record;
        change(record);
        let after = *record;
        if before != after {
            self.uncount(tag, &before);
            self.count(tag, &after);
        }
        Ok(())
    }

    /// Snapshots that a person is shown.
    #[must_use]
    pub fn listed(&self) -> u64 {
        self.listed
    }

    fn count(&mut self, tag: Tag, record: &SnapshotRecord) {
        self.listed += u64::from(is_listed(record));
        if record.phase() != Some(SnapshotPhase::Deleting) {
            self.names.insert((record.name, tag));
        }
        self.droppable.extend(drop_rank(tag, record));
    }

    fn uncount(&mut self, tag: Tag, record: &SnapshotRecord) {
        self.listed -= u64::from(is_listed(record));
        self.names.remove(&(record.name, tag));
        if let Some(rank) = drop_rank(tag, record) {
            self.droppable.remove(&rank);
        }
    }

    pub(super) fn set_phase(&mut self, tag: Tag, phase: SnapshotPhase) -> Result<(), Damage> {
        self.change_snapshot(tag, |record| record.phase = (phase as u32).into())
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
            self.remove_snapshot(tag);
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
            self.remove_snapshot(tag);
        }
        Ok(())
    }

    /// Repair only: there is something to purge after all. `false`: no such snapshot.
    pub(crate) fn unpurge(&mut self, tag: Tag) -> bool {
        let change = |record: &mut SnapshotRecord| {
            record.flags = (record.flags.get() & !PURGED).into();
        };
        let known = self.change_snapshot(tag, change).is_ok();
        if known && !self.live.contains(&tag) {
            self.dead.insert(tag);
        }
        known
    }

    fn remove_snapshot(&mut self, tag: Tag) {
        if let Some(record) = self.snapshots.remove(&tag) {
            self.uncount(tag, &record);
        }
    }
}

fn is_listed(record: &SnapshotRecord) -> bool {
    matches!(
        record.phase(),
        Some(SnapshotPhase::Live | SnapshotPhase::Dropped)
    )
}

/// Where it stands among those that may be dropped to make room; none: it may not be.
fn drop_rank(tag: Tag, record: &SnapshotRecord) -> Option<(i32, Tag)> {
    let held = record.flags.get() & HELD != 0;
    let may_be = record.phase() == Some(SnapshotPhase::Live) && !held;
    may_be.then_some((record.priority.get(), tag))
}

fn too_large() -> Damage {
    Damage::Field("a volume is too large for this machine's memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    const NAMES: [&str; 3] = ["a", "b", "c"];

    #[derive(Clone, Debug)]
    enum Change {
        Insert(usize, SnapshotPhase),
        Rename(u64, usize),
        Rank(u64, i32, bool),
        Bury(u64, SnapshotPhase),
        Purged(u64),
    }

    fn change() -> impl Strategy<Value = Change> {
        let phase = prop::sample::select(vec![SnapshotPhase::Live, SnapshotPhase::Dropped]);
        let end = prop::sample::select(vec![SnapshotPhase::Deleting, SnapshotPhase::Dropped]);
        prop_oneof![
            (0..NAMES.len(), phase).prop_map(|(name, phase)| Change::Insert(name, phase)),
            (1u64..9, 0..NAMES.len()).prop_map(|(tag, name)| Change::Rename(tag, name)),
            (1u64..9, -2i32..3, any::<bool>())
                .prop_map(|(tag, priority, held)| Change::Rank(tag, priority, held)),
            (1u64..9, end).prop_map(|(tag, phase)| Change::Bury(tag, phase)),
            (1u64..9).prop_map(Change::Purged),
        ]
    }

    fn apply(volume: &mut Volume, next: &mut u64, change: &Change) {
        let _ = match change {
            Change::Insert(name, phase) => {
                let mut record = SnapshotRecord::new_zeroed();
                record.name = padded(NAMES[*name]);
                record.phase = (*phase as u32).into();
                *next += 1;
                volume.insert_snapshot(Tag(*next), record)
            }
            Change::Rename(tag, name) => {
                volume.change_snapshot(Tag(*tag), |record| record.name = padded(NAMES[*name]))
            }
            Change::Rank(tag, priority, held) => volume.change_snapshot(Tag(*tag), |record| {
                record.priority = (*priority).into();
                let held = if *held { HELD } else { 0 };
                record.flags = (record.flags.get() & !HELD | held).into();
            }),
            Change::Bury(tag, phase) => volume.bury(Tag(*tag), *phase, 0),
            Change::Purged(tag) => volume.purged(Tag(*tag)),
        };
    }

    proptest! {
        #[test]
        fn names_their_number_and_the_first_to_go_are_those_of_the_snapshots_one_can_see(
            changes in prop::collection::vec(change(), 0..40),
        ) {
            let mut record = VolumeRecord::new_zeroed();
            record.kind = KIND_ORIGIN.into();
            record.state = VOLUME_LIVE.into();
            let mut volume = Volume::new(VolumeId(1), record, 4096).unwrap();
            let mut next = 0;
            for change in changes {
                apply(&mut volume, &mut next, &change);
                let listed = volume.snapshots.values().filter(|r| is_listed(r)).count();
                prop_assert_eq!(volume.listed(), listed as u64);
                let may_go = volume.snapshots.iter().filter(|(_, r)| {
                    r.phase() == Some(SnapshotPhase::Live) && r.flags.get() & HELD == 0
                });
                let first = may_go.map(|(tag, r)| (r.priority.get(), *tag)).min();
                prop_assert_eq!(volume.first_to_drop(), first, "after {:?}", &change);
                for name in NAMES {
                    let visible = |r: &&SnapshotRecord| r.phase() != Some(SnapshotPhase::Deleting);
                    let mut seen = volume.snapshots.values().filter(visible);
                    let naive = seen.any(|r| r.name == padded(name));
                    prop_assert_eq!(volume.has_name(name), naive, "{} after {:?}", name, &change);
                }
            }
        }
    }
}
