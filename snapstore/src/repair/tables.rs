//! Volumes and snapshots: the tables as far as they can be read, then the journal,
//! then only what makes sense.
//!
//! Who is missing in a damaged table is known from who speaks of it. A missing volume
//! becomes one that is being deleted: the engine gives back what is kept for it.

use std::collections::{BTreeMap, BTreeSet};

use super::report::{Loss, Named};
use super::scan::{Survey, survey};
use crate::device::BlockDevice;
use crate::engine::{DropReason, Geometry, Roots, TreeId, drop_code};
use crate::format::journal::Record;
use crate::format::superblock::{COUNT_LIMIT, Superblock};
use crate::format::tables::{
    HAS_FINGERPRINT, HELD, KIND_ORIGIN, MAPPED, MAX_FULL_WAIT_S, Name, PURGED, SnapshotPhase,
    SnapshotRecord, VOLUME_DELETING, VolumeRecord, padded, text,
};
use crate::ids::{Tag, VolumeId};
use crate::recover::load_record;
use crate::replay::Salvage;
use crate::state::{State, Volume};

/// The greatest next tag and next volume that a superblock may tell.
const NEXT_TAG_MAX: u64 = COUNT_LIMIT - 1;
const NEXT_VOLUME_MAX: u32 = u32::MAX - 1;

/// What was read.
pub(super) struct Tables {
    pub(super) state: State,
    /// Blocks of their nodes.
    pub(super) nodes: Vec<u64>,
    volumes: Survey,
    snapshots: Survey,
    /// Volumes that were made up.
    missing: BTreeSet<VolumeId>,
    /// Snapshots whose records make no sense.
    senseless: Vec<(VolumeId, Tag)>,
}

/// Reads the tables and replays the journal over them.
pub(super) fn read(
    dev: &mut impl BlockDevice,
    geometry: &Geometry,
    roots: &Roots,
    superblock: &Superblock,
) -> Tables {
    let mut state = State::new(superblock.chunk_size.get().into());
    state.next_tag = superblock.next_tag.get();
    state.next_volume = superblock.next_volume.get();
    let mut missing = BTreeSet::new();
    let mut senseless = Vec::new();
    let volumes = survey(
        dev,
        geometry,
        TreeId::Volumes,
        roots.volumes,
        &mut |_, node| {
            for index in 0..node.len() {
                // One that makes no sense is missing: its snapshots will say so.
                let _ = load_record(
                    &mut state,
                    TreeId::Volumes,
                    node.key(index),
                    node.value(index),
                );
            }
        },
    );
    let snapshots = survey(
        dev,
        geometry,
        TreeId::Snapshots,
        roots.snapshots,
        &mut |_, node| {
            for index in 0..node.len() {
                let (key, value) = (node.key(index), node.value(index));
                let Ok(id) = u32::try_from(key.a).map(VolumeId) else {
                    continue;
                };
                if make_up(&mut state, id, 1) {
                    missing.insert(id);
                }
                if load_record(&mut state, TreeId::Snapshots, key, value).is_err() {
                    senseless.push((id, Tag(key.b)));
                }
            }
        },
    );
    let sharing = survey(
        dev,
        geometry,
        TreeId::Sharing,
        roots.sharing,
        &mut |_, _| (),
    );
    let nodes = [&volumes.nodes, &snapshots.nodes, &sharing.nodes];
    let nodes = nodes.into_iter().flatten().copied().collect();
    Tables {
        state,
        nodes,
        volumes,
        snapshots,
        missing,
        senseless,
    }
}

/// A volume in place of one that is not known, unless it is; whether it was not.
fn make_up(state: &mut State, id: VolumeId, size: u64) -> bool {
    if volume_number(id.0.into()).is_none() || state.volumes.contains_key(&id) {
        return false;
    }
    state.next_volume = state.next_volume.max(id.0.saturating_add(1));
    let record = VolumeRecord {
        state: VOLUME_DELETING.into(),
        kind: KIND_ORIGIN.into(),
        policy: 0.into(),
        flags: 0.into(),
        size: whole_sectors(size).into(),
        created_ms: 0.into(),
        held: 0.into(),
        parent_volume: 0.into(),
        full_wait_s: 0.into(),
        parent_tag: 0.into(),
        uuid: [0; 16],
        fingerprint: [0; 32],
        name: padded(&format!("lost-{id}")),
        origin: [0; 200],
    };
    state.load_volume(id, record).is_ok()
}

impl Tables {
    /// Replays the journal as far as it makes sense; behind damage only what volumes
    /// are, since a missing record can have changed everything else.
    pub(super) fn replay(&mut self, journal: &Salvage, losses: &mut Vec<Loss>) {
        for record in &journal.replay.records {
            // What it speaks of is lost, or will be found missing.
            let _ = self.state.apply(record);
        }
        let Some(reason) = &journal.broken else {
            return;
        };
        losses.push(Loss::Journal {
            reason: reason.clone(),
        });
        let mut newest = Tag(0);
        for record in &journal.later {
            match record {
                Record::VolumeChanged { .. }
                | Record::VolumeDeleted { .. }
                | Record::VolumeGone { .. } => {
                    let _ = self.state.apply(record);
                }
                Record::TakePrepared {
                    volume,
                    tag,
                    snapshot,
                } => {
                    newest = newest.max(*tag);
                    losses.push(self.lost_snapshot(*volume, *tag, Some(text(&snapshot.name))));
                }
                _ => {}
            }
        }
        // Numbers that missing records may have given out.
        let tags = self.state.next_tag.max(newest.0.saturating_add(1));
        self.state.next_tag = tags.saturating_add(journal.missing).min(NEXT_TAG_MAX);
        let missing = u32::try_from(journal.missing).unwrap_or(u32::MAX);
        let volumes = self.state.next_volume.saturating_add(missing);
        self.state.next_volume = volumes.min(NEXT_VOLUME_MAX);
        let volumes: Vec<VolumeId> = self.state.volumes.keys().copied().collect();
        for volume in volumes {
            self.drop_up_to(volume, Tag(u64::MAX), losses);
        }
    }

    /// Drops the live snapshots of a volume up to and including `tag`: what they need
    /// may be lost without a trace.
    pub(super) fn drop_up_to(&mut self, id: VolumeId, tag: Tag, losses: &mut Vec<Loss>) {
        let Some(volume) = self.state.volumes.get(&id) else {
            return;
        };
        let live: Vec<Tag> = volume.live().take_while(|live| *live <= tag).collect();
        for tag in live {
            let name = self.snapshot_name(id, tag);
            losses.push(self.lost_snapshot(id, tag, name));
            let reason = drop_code(DropReason::Damage);
            let _ = self.state.apply(&Record::SnapshotDropped {
                volume: id,
                tag,
                reason,
            });
        }
    }

    /// Makes up the volumes that exceptions belong to, if they are missing: `chunks`
    /// says how far they reach.
    pub(super) fn find_missing(&mut self, chunks: &BTreeMap<VolumeId, u64>, chunk_size: u64) {
        for (id, chunks) in chunks {
            let size = chunks.saturating_mul(chunk_size);
            if self.missing.contains(id) && self.is_lost(*id) {
                self.state.volumes.remove(id);
            }
            if make_up(&mut self.state, *id, size) {
                self.missing.insert(*id);
            }
        }
    }

    /// Whether the volume is still the one made up: the journal may have told of it.
    fn is_lost(&self, id: VolumeId) -> bool {
        let volume = self.state.volumes.get(&id);
        self.missing.contains(&id)
            && volume.is_some_and(|v| v.deleting() && v.record.uuid == [0; 16])
    }

    /// Rebuilds the state from its records, so that nothing in it was derived from
    /// what is no longer there, and says who is lost.
    pub(super) fn settle(&mut self, chunk_size: u64, losses: &mut Vec<Loss>) {
        for id in &self.missing {
            if self.is_lost(*id) {
                losses.push(Loss::Volume { volume: *id });
            }
        }
        self.tell_holes(losses);
        for (id, tag) in std::mem::take(&mut self.senseless) {
            losses.push(self.lost_snapshot(id, tag, None));
        }
        let old = std::mem::take(&mut self.state);
        let mut state = State::new(chunk_size);
        state.next_tag = old.next_tag.min(NEXT_TAG_MAX);
        state.next_volume = old.next_volume.min(NEXT_VOLUME_MAX);
        state.recent = old.recent;
        let mut names = BTreeSet::new();
        for (id, volume) in old.volumes {
            if volume_number(id.0.into()).is_none() {
                losses.push(Loss::Volume { volume: id });
                continue;
            }
            state.next_volume = state.next_volume.max(id.0.saturating_add(1));
            let deleting = volume.deleting();
            let record = mended_volume(volume.record, id, &mut names);
            // It made sense before.
            let _ = state.load_volume(id, record);
            let mut names = BTreeSet::new();
            for (tag, record) in volume.snapshots {
                if !is_tag(tag) {
                    continue;
                }
                state.next_tag = state.next_tag.max(tag.0 + 1);
                let record = mended_snapshot(
                    record,
                    tag,
                    deleting,
                    record_size(&volume.record),
                    &mut names,
                );
                let _ = state.load_snapshot(id, tag, record);
            }
        }
        self.state = state;
    }

    fn tell_holes(&self, losses: &mut Vec<Loss>) {
        let newest = u64::from(self.state.next_volume).saturating_sub(1);
        let volumes = self
            .volumes
            .holes
            .iter()
            .map(|hole| (hole.low.b, hole.last().b));
        let snapshots = self
            .snapshots
            .holes
            .iter()
            .map(|hole| (hole.low.a, hole.last().a));
        let volumes = volumes.map(|range| (TreeId::Volumes.name(), range));
        let snapshots = snapshots.map(|range| (TreeId::Snapshots.name(), range));
        for (table, (first, last)) in volumes.chain(snapshots) {
            let volumes = first.max(1)..=last.min(newest);
            losses.push(Loss::Table { table, volumes });
        }
    }

    /// Dead snapshots that explain exceptions nobody else does: the engine purges them.
    pub(super) fn explain(
        &mut self,
        unexplained: &BTreeSet<(VolumeId, Tag)>,
        losses: &mut Vec<Loss>,
    ) {
        for (id, tag) in unexplained {
            let lost = self
                .snapshots
                .in_hole(crate::tree::Key::new(id.0.into(), tag.0, 0));
            let Some(volume) = self.state.volumes.get_mut(id) else {
                continue;
            };
            let lost = lost && !volume.deleting();
            let (phase, reason) = if lost {
                (SnapshotPhase::Dropped, drop_code(DropReason::Damage))
            } else {
                (SnapshotPhase::Deleting, 0)
            };
            if volume.unpurge(*tag) {
                continue;
            }
            let record = SnapshotRecord {
                phase: (phase as u32).into(),
                flags: 0.into(),
                reason: reason.into(),
                priority: 0.into(),
                created_ms: 0.into(),
                size: volume.record.size,
                name: padded(&free_name(volume, *tag)),
            };
            let _ = volume.insert_snapshot(*tag, record);
            if lost {
                losses.push(self.lost_snapshot(*id, *tag, None));
            }
        }
    }

    pub(super) fn volume_name(&self, id: VolumeId) -> String {
        let volume = self.state.volumes.get(&id);
        volume.map_or_else(|| format!("lost-{id}"), |v| text(&v.record.name))
    }

    pub(super) fn snapshot_name(&self, id: VolumeId, tag: Tag) -> Option<String> {
        let record = self.state.volumes.get(&id)?.snapshots.get(&tag)?;
        Some(text(&record.name))
    }

    fn lost_snapshot(&self, volume: VolumeId, tag: Tag, name: Option<String>) -> Loss {
        Loss::Snapshot {
            volume,
            name: self.volume_name(volume),
            snapshot: Named { tag, name },
        }
    }
}

/// A name for a snapshot whose own is lost.
fn free_name(volume: &Volume, tag: Tag) -> String {
    let mut name = format!("lost-{tag}");
    while volume.has_name(&name) {
        name.push('x');
    }
    name
}

/// A size that a volume can have.
fn whole_sectors(size: u64) -> u64 {
    size.clamp(512, u64::MAX - 511).next_multiple_of(512)
}

fn record_size(record: &VolumeRecord) -> u64 {
    record.size.get()
}

/// A name nobody else of its kind has; `name` itself if it is good.
fn own_name(name: Name, number: u64, names: &mut BTreeSet<Name>) -> Name {
    let clean = text(&name);
    let good: Name = padded(clean.get(..clean.len().min(63)).unwrap_or("unnamed"));
    let mut own = if clean.is_empty() || clean.len() > 63 || good != name {
        padded(&format!("unnamed-{number}"))
    } else {
        good
    };
    if names.contains(&own) {
        let start: String = clean.chars().take(8).collect();
        own = padded(&format!("{start}-{number}"));
    }
    names.insert(own);
    own
}

fn mended_volume(
    mut record: VolumeRecord,
    id: VolumeId,
    names: &mut BTreeSet<Name>,
) -> VolumeRecord {
    let own = &mut BTreeSet::new();
    let names = if record.state.get() == VOLUME_DELETING {
        own
    } else {
        names
    };
    record.name = own_name(record.name, id.0.into(), names);
    record.policy = record.policy.get().min(1).into();
    record.full_wait_s = record.full_wait_s.get().min(MAX_FULL_WAIT_S).into();
    record.flags = (record.flags.get() & HAS_FINGERPRINT).into();
    record.size = whole_sectors(record.size.get()).into();
    record.parent_volume = 0.into();
    record.parent_tag = 0.into();
    record
}

fn mended_snapshot(
    mut record: SnapshotRecord,
    tag: Tag,
    deleting: bool,
    volume_size: u64,
    names: &mut BTreeSet<Name>,
) -> SnapshotRecord {
    if deleting {
        record.phase = (SnapshotPhase::Deleting as u32).into();
    }
    if record.size.get() == 0 {
        record.size = volume_size.into();
    }
    let phase = record.phase();
    let own = &mut BTreeSet::new();
    let names = if phase == Some(SnapshotPhase::Deleting) {
        own
    } else {
        names
    };
    record.name = own_name(record.name, tag.0, names);
    let (flags, reason) = (record.flags.get(), record.reason.get());
    if phase == Some(SnapshotPhase::Dropped) {
        record.flags = (flags & (MAPPED | PURGED | HELD)).into();
        if !(1..=5).contains(&reason) {
            record.reason = drop_code(DropReason::Damage).into();
        }
    } else {
        record.flags = (flags & (MAPPED | HELD)).into();
        record.reason = 0.into();
    }
    record
}

/// The number of a volume, if a volume can have it: a superblock must be able to tell
/// the next one.
pub(super) fn volume_number(number: u64) -> Option<VolumeId> {
    let id = u32::try_from(number).ok()?;
    (1..NEXT_VOLUME_MAX).contains(&id).then_some(VolumeId(id))
}

/// Whether a snapshot can have this tag, and another one come after it.
pub(super) fn is_tag(tag: Tag) -> bool {
    (1..NEXT_TAG_MAX).contains(&tag.0)
}
