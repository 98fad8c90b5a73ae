//! `snapshot.take`: one instant over several volumes.

use std::sync::Arc;

use snapstore::engine::{Command, CommandError, MAX_GROUP, Reply, VolumeInfo};
use snapstore::{Tag, VolumeId};

use crate::control::protocol::{Answer, ErrorCode, Failure, TakeTarget};
use crate::control::utc;
use crate::control::views::{Level, TakenView};
use crate::daemon::Daemon;
use crate::daemon::events::NewEvent;
use crate::daemon::store::{Store, export_name};

/// Names made from the time that may be taken before we give up.
const ATTEMPTS: u64 = 10;

impl Daemon {
    pub(in crate::daemon) fn snapshot_take(
        &self,
        targets: &[TakeTarget],
        priority: i32,
    ) -> Result<Answer, Failure> {
        let (store, volumes) = self.one_store(targets)?;
        let _changing = store.changing.lock();
        let mut attempt = 0;
        loop {
            let created_ms = utc::now_ms() + attempt;
            let named = name_all(targets, &volumes, created_ms);
            attempt += 1;
            match take(&store, named.clone(), priority, created_ms) {
                // A name made from the time may be there: someone used it, or the
                // clock went back.
                Err(CommandError::NameTaken(name)) if made_up(targets, &name, attempt) => {}
                Err(error) => return Err(error.into()),
                Ok(tag) => {
                    let names = volumes.iter().zip(&named);
                    let snapshots = names
                        .map(|(volume, (_, name))| export_name(&volume.name, name))
                        .collect();
                    let taken = TakenView {
                        tag: tag.0,
                        created_ms,
                        snapshots,
                    };
                    self.events.add(event(&store, &taken));
                    return Ok(Answer::Taken(taken));
                }
            }
        }
    }

    /// The volumes of a take, which must be of one store, served, and each named
    /// once.
    fn one_store(&self, targets: &[TakeTarget]) -> Result<(Arc<Store>, Vec<VolumeInfo>), Failure> {
        let usage = |message: String| Failure::new(ErrorCode::Usage, message);
        if targets.is_empty() || targets.len() > MAX_GROUP {
            let message = format!("{} volumes: a take needs 1 to {MAX_GROUP}", targets.len());
            return Err(usage(message));
        }
        let mut chosen: Option<Arc<Store>> = None;
        let mut volumes: Vec<VolumeInfo> = Vec::new();
        for TakeTarget { volume, .. } in targets {
            let (store, info) = self.volume(volume)?;
            let first = chosen.get_or_insert_with(|| store.clone());
            if !Arc::ptr_eq(first, &store) {
                let message = format!("{volume} is in another store than the volumes before it");
                return Err(usage(message).next("volumes taken at one instant share a store"));
            }
            if volumes.iter().any(|other| other.id == info.id) {
                return Err(usage(format!("{volume} is named twice")));
            }
            if let Some(why) = store.not_served.lock().get(&info.id) {
                let message = format!("{volume} is not served: {}", why.problem.message);
                return Err(Failure::new(ErrorCode::Busy, message).next(&why.problem.next));
            }
            volumes.push(info);
        }
        let store = chosen.ok_or_else(|| usage("no volume was named".to_owned()))?;
        Ok((store, volumes))
    }
}

/// Gives every volume its snapshot's name; those without one share one.
fn name_all(
    targets: &[TakeTarget],
    volumes: &[VolumeInfo],
    created_ms: u64,
) -> Vec<(VolumeId, String)> {
    let default = utc::snapshot_name(created_ms);
    targets
        .iter()
        .zip(volumes)
        .map(|(target, volume)| {
            (
                volume.id,
                target.name.clone().unwrap_or_else(|| default.clone()),
            )
        })
        .collect()
}

/// Whether another name made from the time may help.
fn made_up(targets: &[TakeTarget], taken: &str, attempt: u64) -> bool {
    let given = targets
        .iter()
        .any(|target| target.name.as_deref() == Some(taken));
    !given && attempt < ATTEMPTS
}

fn take(
    store: &Store,
    targets: Vec<(VolumeId, String)>,
    priority: i32,
    created_ms: u64,
) -> Result<Tag, CommandError> {
    match store.handle.command(Command::Take {
        targets,
        priority,
        created_ms,
    })? {
        Reply::Taken(tag) => Ok(tag),
        other => Err(CommandError::Invalid(format!("unexpected reply {other:?}"))),
    }
}

fn event(store: &Store, taken: &TakenView) -> NewEvent {
    let message = format!("taken: {}", taken.snapshots.join(", "));
    NewEvent::new(Level::Info, "snapshot-taken", message).store(&store.path)
}
