//! `snapshot.*` but `take`.

use std::collections::BTreeMap;
use std::sync::Arc;

use snapstore::Tag;
use snapstore::engine::{Command, SnapshotInfo};

use crate::control::protocol::{Answer, Cursor, ErrorCode, Failure, MAX_PAGE, SnapshotName};
use crate::control::views::Level;
use crate::daemon::Daemon;
use crate::daemon::events::NewEvent;
use crate::daemon::failures::{busy, held};
use crate::daemon::store::{Store, export_name};
use crate::daemon::visits::must_be_readable;
use crate::daemon::withdraw::Leaving;

impl Daemon {
    pub(in crate::daemon) fn snapshot_list(
        &self,
        volume: Option<&str>,
        after: Option<Cursor>,
    ) -> Result<Answer, Failure> {
        let mut volumes = match volume {
            Some(name) => vec![self.volume(name)?],
            None => self.volumes_by_name(),
        };
        volumes.retain(|(_, info)| after.as_ref().is_none_or(|c| info.name >= c.volume));
        let mut items = Vec::new();
        for (store, info) in volumes {
            let here = after.as_ref().filter(|cursor| cursor.volume == info.name);
            let after = Tag(here.map_or(0, |cursor| cursor.tag));
            // One more than fits says that there are more.
            let limit = MAX_PAGE as usize + 1 - items.len();
            for snapshot in store.snapshots_after(info.id, after, limit) {
                if items.len() == MAX_PAGE as usize {
                    self.count_openers(&mut items);
                    let next = items.last().map(cursor_at);
                    return Ok(Answer::Snapshots { items, next });
                }
                items.push(self.snapshot_view(&info.name, snapshot));
            }
        }
        self.count_openers(&mut items);
        Ok(Answer::Snapshots { items, next: None })
    }

    pub(in crate::daemon) fn volumes_by_name(
        &self,
    ) -> Vec<(Arc<Store>, snapstore::engine::VolumeInfo)> {
        let stores = self.stores();
        let mut all: Vec<_> = stores
            .iter()
            .flat_map(|store| {
                store
                    .volumes()
                    .into_iter()
                    .map(|info| (store.clone(), info))
            })
            .collect();
        all.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        all
    }

    pub(in crate::daemon) fn snapshot_show(
        &self,
        wanted: &SnapshotName,
    ) -> Result<Answer, Failure> {
        let (_, volume, snapshot) = self.snapshot(wanted)?;
        let mut view = self.snapshot_view(&volume.name, snapshot);
        self.count_openers(std::slice::from_mut(&mut view));
        Ok(Answer::Snapshot(view))
    }

    pub(in crate::daemon) fn snapshot_delete(
        &self,
        wanted: &[SnapshotName],
        force: bool,
    ) -> Result<Answer, Failure> {
        let Some(first) = wanted.first() else {
            return Ok(Answer::Done);
        };
        let (store, _) = self.volume(&first.volume)?;
        let _changing = store.changing.lock();
        // One look at each volume, however many of its snapshots are named.
        let mut volumes = BTreeMap::new();
        let mut targets = Vec::new();
        for name in wanted {
            if !volumes.contains_key(&name.volume) {
                let (other, info) = self.volume(&name.volume)?;
                if !Arc::ptr_eq(&store, &other) {
                    let message = format!("{} is in another store", name.volume);
                    return Err(Failure::new(ErrorCode::Usage, message)
                        .next("delete snapshots of one store at a time"));
                }
                volumes.insert(name.volume.clone(), (info.id, by_name(&store, info.id)));
            }
            let Some((id, snapshots)) = volumes.get(&name.volume) else {
                continue;
            };
            let snapshot = super::matching(name, snapshots.get(&name.name).cloned())?;
            if snapshot.mapped {
                let message = format!("snapshot {name} is mapped");
                return Err(busy(message, "unmap it first: csnapctl snapshot unmap"));
            }
            if snapshot.is_kept() && !force {
                return Err(held(
                    &name.volume,
                    &name.name,
                    "; or delete it with --force",
                ));
            }
            targets.push((*id, snapshot.tag));
        }
        let names: Vec<_> = wanted
            .iter()
            .map(|s| export_name(&s.volume, &s.name))
            .collect();
        self.dismiss(&names, Leaving::forced(force))?;
        targets.sort_unstable();
        targets.dedup();
        store.handle.command(Command::DeleteSnapshots { targets })?;
        let message = format!("deleted: {}", names.join(", "));
        let event = NewEvent::new(Level::Info, "snapshot-deleted", message);
        self.events.add(event.store(&store.path));
        Ok(Answer::Done)
    }

    pub(in crate::daemon) fn snapshot_rename(
        &self,
        mut wanted: SnapshotName,
        to: String,
    ) -> Result<Answer, Failure> {
        let (store, _) = self.volume(&wanted.volume)?;
        let _changing = store.changing.lock();
        let (_, volume, snapshot) = self.snapshot(&wanted)?;
        if snapshot.mapped {
            let message = format!("snapshot {wanted} is mapped");
            return Err(busy(message, "unmap it first: what is served has the name"));
        }
        let name = export_name(&wanted.volume, &wanted.name);
        self.dismiss(&[name], Leaving::Asking)?;
        let rename = Command::RenameSnapshot {
            volume: volume.id,
            tag: snapshot.tag,
            name: to.clone(),
        };
        store.handle.command(rename)?;
        wanted.name = to;
        self.snapshot_show(&wanted)
    }

    pub(in crate::daemon) fn snapshot_map(&self, wanted: &SnapshotName) -> Result<Answer, Failure> {
        let (store, _) = self.volume(&wanted.volume)?;
        let _changing = store.changing.lock();
        let (_, volume, snapshot) = self.snapshot(wanted)?;
        let name = export_name(&volume.name, &snapshot.name);
        if self.exports.get(&name).is_some() {
            return self.snapshot_show(wanted);
        }
        must_be_readable(&store, &volume, &snapshot)?;
        self.set_mapped(&store, &volume, &snapshot, true)?;
        if let Err(failure) = self.serve_snapshot(&store, &volume, &snapshot) {
            // One that was mapped before stays so: its device waits for the next try.
            self.set_mapped(&store, &volume, &snapshot, snapshot.mapped)?;
            return Err(failure);
        }
        self.snapshot_show(wanted)
    }

    pub(in crate::daemon) fn snapshot_unmap(
        &self,
        wanted: &SnapshotName,
        force: bool,
    ) -> Result<Answer, Failure> {
        let (store, _) = self.volume(&wanted.volume)?;
        let _changing = store.changing.lock();
        let (_, volume, snapshot) = self.snapshot(wanted)?;
        let name = export_name(&volume.name, &snapshot.name);
        self.withdraw(&store, &[name], Leaving::forced(force))?;
        if snapshot.mapped {
            self.set_mapped(&store, &volume, &snapshot, false)?;
        }
        self.snapshot_show(wanted)
    }

    fn set_mapped(
        &self,
        store: &Store,
        volume: &snapstore::engine::VolumeInfo,
        snapshot: &SnapshotInfo,
        mapped: bool,
    ) -> Result<(), Failure> {
        let set = Command::SetMapped {
            volume: volume.id,
            tag: snapshot.tag,
            mapped,
        };
        store.handle.command(set)?;
        let what = if mapped { "mapped" } else { "unmapped" };
        let message = format!("{what}: {}@{}", volume.name, snapshot.name);
        let event = NewEvent::new(Level::Info, "snapshot-mapped", message);
        self.events
            .add(event.volume(&volume.name).snapshot(&snapshot.name));
        Ok(())
    }

    pub(in crate::daemon) fn snapshot_set(
        &self,
        wanted: &SnapshotName,
        priority: Option<i32>,
        hold: Option<bool>,
    ) -> Result<Answer, Failure> {
        let (store, _) = self.volume(&wanted.volume)?;
        let _changing = store.changing.lock();
        let (_, volume, snapshot) = self.snapshot(wanted)?;
        let (volume, tag) = (volume.id, snapshot.tag);
        let priority = priority.map(|priority| Command::SetPriority {
            volume,
            tag,
            priority,
        });
        let hold = hold.map(|held| Command::SetHeld { volume, tag, held });
        for set in [priority, hold].into_iter().flatten() {
            store.handle.command(set)?;
        }
        self.snapshot_show(wanted)
    }
}

fn by_name(store: &Store, volume: snapstore::VolumeId) -> BTreeMap<String, SnapshotInfo> {
    let snapshots = store.snapshots(volume).into_iter();
    snapshots
        .map(|snapshot| (snapshot.name.clone(), snapshot))
        .collect()
}

fn cursor_at(last: &crate::control::views::SnapshotView) -> Cursor {
    Cursor {
        volume: last.volume.clone(),
        tag: last.tag,
    }
}
