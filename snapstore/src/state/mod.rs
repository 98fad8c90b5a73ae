//! The store's logical state: volumes, snapshots, sharing counters and recent
//! exceptions, changed by journal records only.
//!
//! [`State::apply`] is the one place where a record takes effect. The running
//! engine calls it when a record is published (durable), recovery calls it when
//! it replays the journal, so both reach the same state from the same records.
//! A checkpoint is this state at one point of the record sequence.

pub mod memtable;
pub mod sharing;
pub mod volume;

use std::collections::{BTreeMap, BTreeSet};

use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

use crate::format::Damage;
use crate::format::exception::{LOST, Place};
use crate::format::journal::Record;
use crate::format::tables::{
    HELD, MAPPED, PURGED, SnapshotPhase, SnapshotRecord, VOLUME_DELETING, VolumeRecord,
};
use crate::ids::{Tag, VolumeId};
use crate::tree::{BadChange, Changes, Key, Shape};

pub use memtable::{Entry, MemTable};
use sharing::Sharing;
pub use volume::Volume;

/// Flags of a snapshot that a person sets; the others follow from what happens.
const SETTABLE: u32 = MAPPED | HELD;

/// Everything the records so far amount to, but for exceptions already in the tree.
#[derive(Debug, Default)]
pub struct State {
    /// By number, deleted ones until they are gone.
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// Exceptions newer than the last checkpoint that was begun.
    pub recent: MemTable,
    /// Next tag to be given out.
    pub next_tag: u64,
    /// Next volume number to be given out.
    pub next_volume: u32,
    /// What the tables must be told at the next checkpoint.
    pub dirty: Dirty,
    chunk_size: u64,
}

/// Table entries changed since the last checkpoint was begun.
#[derive(Debug, Default)]
pub struct Dirty {
    volumes: BTreeSet<VolumeId>,
    snapshots: BTreeSet<(VolumeId, Tag)>,
    sharing: BTreeSet<(VolumeId, Tag, Tag)>,
    /// Anything at all, exceptions included.
    pub any: bool,
}

/// The shapes of the three small trees.
#[derive(Clone, Copy, Debug)]
pub struct TableShapes {
    /// Of the volume table.
    pub volumes: Shape,
    /// Of the snapshot table.
    pub snapshots: Shape,
    /// Of the sharing counters.
    pub sharing: Shape,
}

/// Changes for the three small trees.
#[derive(Debug)]
pub struct TableChanges {
    /// For the volume table.
    pub volumes: Changes,
    /// For the snapshot table.
    pub snapshots: Changes,
    /// For the sharing counters.
    pub sharing: Changes,
}

fn no_volume() -> Damage {
    Damage::Field("a record names a volume that does not exist")
}

fn no_snapshot() -> Damage {
    Damage::Field("a record names a snapshot that does not exist")
}

impl State {
    /// An empty store's state.
    #[must_use]
    pub fn new(chunk_size: u64) -> Self {
        Self {
            next_tag: 1,
            next_volume: 1,
            chunk_size,
            ..Self::default()
        }
    }

    /// Adds a volume read from the table.
    ///
    /// # Errors
    /// When its fields make no sense.
    pub fn load_volume(&mut self, id: VolumeId, record: VolumeRecord) -> Result<(), Damage> {
        let volume = Volume::new(id, record, self.chunk_size)?;
        self.volumes.insert(id, volume);
        Ok(())
    }

    /// Adds a snapshot read from the table.
    ///
    /// # Errors
    /// When its fields make no sense or its volume is missing.
    pub fn load_snapshot(
        &mut self,
        id: VolumeId,
        tag: Tag,
        record: SnapshotRecord,
    ) -> Result<(), Damage> {
        self.volume_mut(id)?.insert_snapshot(tag, record)
    }

    /// Adds a sharing counter read from its tree.
    ///
    /// # Errors
    /// When its volume is missing.
    pub fn load_sharing(
        &mut self,
        id: VolumeId,
        last: Tag,
        first: Tag,
        count: u64,
    ) -> Result<(), Damage> {
        self.volume_mut(id)?.sharing.load(first, last, count);
        Ok(())
    }

    /// No sharing counter is known: [`Self::recount`] every exception.
    pub(crate) fn forget_sharing(&mut self) {
        for volume in self.volumes.values_mut() {
            volume.sharing = Sharing::default();
        }
    }

    /// Counts an exception that was counted before.
    ///
    /// # Errors
    /// When its volume is missing.
    pub(crate) fn recount(&mut self, id: VolumeId, tag: Tag, place: Place) -> Result<(), Damage> {
        let volume = self.volume_mut(id)?;
        if let Some((first, last)) = volume.live_in(place.pred, tag) {
            let count = volume.sharing.get(first, last);
            volume.sharing.load(first, last, count.saturating_add(1));
        }
        Ok(())
    }

    /// Lets `record` take effect.
    ///
    /// # Errors
    /// When it refers to something that does not exist: a damaged journal.
    pub fn apply(&mut self, record: &Record) -> Result<(), Damage> {
        self.dirty.any = true;
        match record {
            Record::Exception {
                volume,
                chunk,
                tag,
                pred,
                block,
                crcs,
            } => {
                let place = Place {
                    pred: *pred,
                    block: *block,
                };
                self.recent.put(*volume, *chunk, *tag, place, crcs.clone());
                self.count_exception(*volume, *tag, place)
            }
            Record::Purged {
                volume,
                chunk,
                tag,
                block,
            } => {
                self.recent.remove(*volume, *chunk, *tag, *block);
                if *block == LOST {
                    Ok(())
                } else {
                    self.uncount_block(*volume)
                }
            }
            Record::TakePrepared {
                volume,
                tag,
                snapshot,
            } => {
                self.next_tag = self.next_tag.max(tag.0.saturating_add(1));
                self.dirty.snapshots.insert((*volume, *tag));
                self.volume_mut(*volume)?.insert_snapshot(*tag, **snapshot)
            }
            Record::TakeCommitted { tag } => {
                self.each_prepared(*tag, |volume| volume.set_phase(*tag, SnapshotPhase::Live))
            }
            Record::TakeAborted { tag } => {
                self.each_prepared(*tag, |volume| volume.bury(*tag, SnapshotPhase::Deleting, 0))
            }
            Record::SnapshotDeleted { volume, tag } => {
                self.bury(*volume, *tag, SnapshotPhase::Deleting, 0)
            }
            Record::SnapshotDropped {
                volume,
                tag,
                reason,
            } => self.bury(*volume, *tag, SnapshotPhase::Dropped, *reason),
            Record::SnapshotPurged { volume, tag } => {
                self.dirty.snapshots.insert((*volume, *tag));
                self.volume_mut(*volume)?.purged(*tag)
            }
            Record::SnapshotChanged {
                volume,
                tag,
                flags,
                priority,
                name,
            } => {
                self.dirty.snapshots.insert((*volume, *tag));
                self.volume_mut(*volume)?.change_snapshot(*tag, |snapshot| {
                    let kept = snapshot.flags.get() & !SETTABLE;
                    snapshot.flags = (kept | flags & SETTABLE).into();
                    snapshot.priority = (*priority).into();
                    snapshot.name = **name;
                })
            }
            Record::VolumeChanged { volume, record } => self.change_volume(*volume, record),
            Record::VolumeDeleted { volume } => self.delete_volume(*volume),
            Record::VolumeGone { volume } => {
                self.dirty.volumes.insert(*volume);
                self.volumes
                    .remove(volume)
                    .map(|_| ())
                    .ok_or_else(no_volume)
            }
        }
    }

    /// Recovery only: an exception whose origin write was never issued never was.
    ///
    /// # Errors
    /// When its volume does not exist.
    pub fn forget(&mut self, id: VolumeId, chunk: u64, tag: Tag) -> Result<(), Damage> {
        let Some(place) = self.recent.forget(id, chunk, tag) else {
            return Ok(());
        };
        self.uncount_block(id)?;
        let volume = self.volume_mut(id)?;
        if let Some((first, last)) = volume.live_in(place.pred, tag) {
            volume.sharing.sub(first, last);
        }
        self.collect_sharing(id)
    }

    /// Recovery only: the data of an exception did not reach the store.
    ///
    /// # Errors
    /// When its volume does not exist.
    pub fn lose(&mut self, id: VolumeId, chunk: u64, tag: Tag) -> Result<(), Damage> {
        match self.recent.lose(id, chunk, tag) {
            Some(_) => self.uncount_block(id),
            None => Ok(()),
        }
    }

    /// The volume of this number.
    ///
    /// # Errors
    /// When there is none.
    pub fn volume_mut(&mut self, id: VolumeId) -> Result<&mut Volume, Damage> {
        self.volumes.get_mut(&id).ok_or_else(no_volume)
    }

    /// Moves the recent exceptions out, together with the table changes: the
    /// state at this point of the record sequence, for a checkpoint.
    ///
    /// # Errors
    /// When `shapes` are not those of the tables.
    pub fn freeze(&mut self, shapes: &TableShapes) -> Result<(MemTable, TableChanges), BadChange> {
        let dirty = std::mem::take(&mut self.dirty);
        let tables = TableChanges {
            volumes: self.volume_changes(&dirty, shapes)?,
            snapshots: self.snapshot_changes(&dirty, shapes)?,
            sharing: self.sharing_changes(&dirty, shapes)?,
        };
        Ok((std::mem::take(&mut self.recent), tables))
    }

    /// Table entries that a checkpoint begun now would change.
    #[must_use]
    pub fn dirty_entries(&self) -> (usize, usize, usize) {
        (
            self.dirty.volumes.len(),
            self.dirty.snapshots.len(),
            self.dirty.sharing.len(),
        )
    }

    /// What the tables held when `frozen` was made, all of it: for one that cannot be
    /// read. `None`: something that `frozen` does not hold has changed since.
    ///
    /// # Errors
    /// When `shapes` are not those of the tables.
    pub(crate) fn whole_tables(
        &self,
        frozen: &TableChanges,
        shapes: &TableShapes,
    ) -> Result<Option<TableChanges>, BadChange> {
        let (now, since) = (&self.every_entry(), &self.dirty);
        let known = self
            .volume_changes(since, shapes)?
            .is_within(&frozen.volumes)
            && self
                .snapshot_changes(since, shapes)?
                .is_within(&frozen.snapshots)
            && self
                .sharing_changes(since, shapes)?
                .is_within(&frozen.sharing);
        if !known {
            return Ok(None);
        }
        let (volumes, snapshots, sharing) = (
            self.volume_changes(now, shapes)?,
            self.snapshot_changes(now, shapes)?,
            self.sharing_changes(now, shapes)?,
        );
        Ok(Some(TableChanges {
            volumes: frozen.volumes.over(&volumes)?,
            snapshots: frozen.snapshots.over(&snapshots)?,
            sharing: frozen.sharing.over(&sharing)?,
        }))
    }

    /// The next checkpoint writes every table anew.
    pub(crate) fn rewrite_tables(&mut self) {
        let Dirty {
            volumes,
            snapshots,
            sharing,
            ..
        } = self.every_entry();
        self.dirty.any = true;
        self.dirty.volumes.extend(volumes);
        self.dirty.snapshots.extend(snapshots);
        self.dirty.sharing.extend(sharing);
    }

    fn every_entry(&self) -> Dirty {
        let mut dirty = Dirty::default();
        for (id, volume) in &self.volumes {
            let (id, runs) = (*id, volume.sharing.iter());
            dirty.volumes.insert(id);
            let tags = volume.snapshots.keys().map(|tag| (id, *tag));
            dirty.snapshots.extend(tags);
            let runs = runs.map(|((first, last), _)| (id, last, first));
            dirty.sharing.extend(runs);
        }
        dirty
    }

    fn uncount_block(&mut self, id: VolumeId) -> Result<(), Damage> {
        self.dirty.volumes.insert(id);
        let held = &mut self.volume_mut(id)?.record.held;
        *held = U64::new(held.get().saturating_sub(1));
        Ok(())
    }

    /// Notes which sharing counters of a volume have changed.
    fn collect_sharing(&mut self, id: VolumeId) -> Result<(), Damage> {
        let volume = self.volumes.get_mut(&id).ok_or_else(no_volume)?;
        volume.sharing.take_dirty(|first, last| {
            self.dirty.sharing.insert((id, last, first));
        });
        Ok(())
    }

    fn count_exception(&mut self, id: VolumeId, tag: Tag, place: Place) -> Result<(), Damage> {
        self.dirty.volumes.insert(id);
        let volume = self.volumes.get_mut(&id).ok_or_else(no_volume)?;
        if place.block != LOST {
            let held = volume.record.held.get().saturating_add(1);
            volume.record.held = held.into();
        }
        if let Some((first, last)) = volume.live_in(place.pred, tag) {
            volume.sharing.add(first, last, 1);
        }
        self.collect_sharing(id)
    }

    fn bury(
        &mut self,
        id: VolumeId,
        tag: Tag,
        phase: SnapshotPhase,
        reason: u32,
    ) -> Result<(), Damage> {
        self.volume_mut(id)?.bury(tag, phase, reason)?;
        self.dirty.snapshots.insert((id, tag));
        self.collect_sharing(id)
    }

    fn each_prepared(
        &mut self,
        tag: Tag,
        mut change: impl FnMut(&mut Volume) -> Result<(), Damage>,
    ) -> Result<(), Damage> {
        for (id, volume) in &mut self.volumes {
            if volume.phase(tag) != Some(SnapshotPhase::Prepared) {
                continue;
            }
            change(volume)?;
            self.dirty.snapshots.insert((*id, tag));
            volume.sharing.take_dirty(|first, last| {
                self.dirty.sharing.insert((*id, last, first));
            });
        }
        Ok(())
    }

    fn change_volume(&mut self, id: VolumeId, record: &VolumeRecord) -> Result<(), Damage> {
        self.next_volume = self.next_volume.max(id.0.saturating_add(1));
        self.dirty.volumes.insert(id);
        match self.volumes.get_mut(&id) {
            Some(known) => known.change(record, self.chunk_size),
            None => self.load_volume(id, *record),
        }
    }

    fn delete_volume(&mut self, id: VolumeId) -> Result<(), Damage> {
        let volume = self.volume_mut(id)?;
        volume.record.state = VOLUME_DELETING.into();
        // Together, since moving counters from snapshot to snapshot takes the square.
        volume.sharing.clear();
        let all: Vec<Tag> = volume.snapshots.keys().copied().collect();
        for tag in all {
            self.bury(id, tag, SnapshotPhase::Deleting, 0)?;
        }
        self.dirty.volumes.insert(id);
        Ok(())
    }

    fn volume_changes(&self, dirty: &Dirty, shapes: &TableShapes) -> Result<Changes, BadChange> {
        let mut changes = Changes::new(&shapes.volumes);
        for id in &dirty.volumes {
            let value = self.volumes.get(id).map(|v| v.record.as_bytes());
            changes.push(
                Key {
                    a: 0,
                    b: id.0.into(),
                    c: 0,
                },
                value,
            )?;
        }
        Ok(changes)
    }

    fn snapshot_changes(&self, dirty: &Dirty, shapes: &TableShapes) -> Result<Changes, BadChange> {
        let mut changes = Changes::new(&shapes.snapshots);
        for (id, tag) in &dirty.snapshots {
            let value = self.volumes.get(id).and_then(|v| v.snapshots.get(tag));
            let key = Key {
                a: id.0.into(),
                b: tag.0,
                c: 0,
            };
            changes.push(key, value.map(IntoBytes::as_bytes))?;
        }
        Ok(changes)
    }

    fn sharing_changes(&self, dirty: &Dirty, shapes: &TableShapes) -> Result<Changes, BadChange> {
        let mut changes = Changes::new(&shapes.sharing);
        for (id, last, first) in &dirty.sharing {
            let count = self
                .volumes
                .get(id)
                .map_or(0, |v| v.sharing.get(*first, *last));
            let key = Key {
                a: id.0.into(),
                b: last.0,
                c: first.0,
            };
            let bytes = count.to_le_bytes();
            changes.push(key, (count != 0).then_some(bytes.as_slice()))?;
        }
        Ok(changes)
    }
}

/// Whether nothing of this snapshot is left to purge.
#[must_use]
pub fn is_purged(record: &SnapshotRecord) -> bool {
    record.flags.get() & PURGED != 0
}
