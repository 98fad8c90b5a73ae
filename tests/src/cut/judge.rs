//! One state of the disk, recovered by the engine itself and compared with its diary.
//!
//! csnapd's recovery is the engine's: what is left out here is opening the devices. So
//! thousands of states can be judged in memory, and a sample of them by csnapd in the
//! guest ([`crate::guest_bed::cut`]).

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;

use snapstore::check::{CheckOptions, check};
use snapstore::engine::{Command, SnapshotState};
use snapstore::recover::load;
use snapstore::{Tag, VolumeId};

use super::diary::{Numbers, Promises, events, same};
use super::disk::{Disk, ORIGIN};
use crate::e2e::{Fault, Outcome};
use crate::ensure;
use crate::golden::rig::{MemoryOrigins, Rig};

/// What the states had, together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// States.
    pub states: u64,
    /// Those after an orderly stop.
    pub clean: u64,
    /// Records of the journal that were replayed.
    pub replayed: u64,
    /// Exceptions at a journal's tail that were not needed.
    pub dropped: u64,
    /// Snapshots read from end to end.
    pub snapshots: u64,
    /// Those of them whose take the state's own diary does not know yet.
    pub unanswered: u64,
}

/// Judges the states of one log.
#[derive(Debug)]
pub struct Judge {
    /// What the diary of the log's end tells: a snapshot holds the same in all states.
    end: Promises,
    views: Mutex<BTreeMap<u32, Numbers>>,
    figures: Mutex<Figures>,
}

impl Judge {
    /// For a log that leaves this behind.
    #[must_use]
    pub fn new(end: &Disk) -> Self {
        Self {
            end: Promises::of(events(end.diary())),
            views: Mutex::default(),
            figures: Mutex::default(),
        }
    }

    /// What was judged so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Recovers a state; all its diary promises must hold, every snapshot must show what
    /// it shows in all other states, and the store be sound. Hands back the snapshots.
    ///
    /// # Errors
    /// Says what is not so.
    pub fn judge(&self, disk: &Disk) -> Outcome<Vec<u32>> {
        let promises = Promises::of(events(disk.diary()));
        ensure!(promises.records > 0, "there is no diary yet");
        let mut origin = disk.origin().to_bytes();
        origin.truncate(ORIGIN as usize);
        promises.check_origin(&origin)?;
        let mut store = disk.store().clone();
        let loaded = load(&mut store).map_err(|error| Fault::wrong(error.to_string()))?;
        let volumes = loaded.volumes();
        let [volume] = &volumes[..] else {
            return Err(Fault::wrong(format!("one volume became {volumes:?}")));
        };
        let volume = volume.id;
        let clean = loaded.clean();
        let origins = MemoryOrigins(BTreeMap::from([(volume, origin)]));
        let (mut rig, recovered) = Rig::open(loaded, store, origins).map_err(wrong)?;
        ensure!(recovered.lost == 0, "recovery lost chunks: {recovered:?}");
        let (live, unanswered) = self.snapshots(&mut rig, volume, &promises)?;
        rig.command(Command::Close).map_err(wrong)?;
        let report = check(&mut rig.store, CheckOptions { data: true }, &mut |_, _| {});
        let problems = report
            .map_err(|error| Fault::wrong(error.to_string()))?
            .problems;
        ensure!(problems.is_empty(), "the check finds {problems:?}");
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.states += 1;
        figures.clean += u64::from(clean);
        figures.replayed += recovered.replayed;
        figures.dropped += recovered.dropped;
        figures.snapshots += live.len() as u64;
        figures.unanswered += unanswered;
        Ok(live)
    }

    /// Which there are, and how many of them the state's own diary does not know.
    fn snapshots(
        &self,
        rig: &mut Rig,
        volume: VolumeId,
        promises: &Promises,
    ) -> Outcome<(Vec<u32>, u64)> {
        let mut live: Vec<(u32, Tag)> = Vec::new();
        for info in rig.engine().snapshots(volume) {
            ensure!(
                info.state == SnapshotState::Live && info.size == ORIGIN,
                "{info:?}"
            );
            live.push((number_of(&info.name)?, info.tag));
        }
        let numbers: Vec<u32> = live.iter().map(|(number, _)| *number).collect();
        promises.check_list(&numbers)?;
        let mut unanswered = 0;
        for (number, tag) in &live {
            let bytes = rig.view(volume, *tag, ORIGIN).map_err(wrong)?;
            let seen = self.end.check_snapshot(*number, &bytes)?;
            let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
            same(
                *number,
                views.entry(*number).or_insert_with(|| seen.clone()),
                &seen,
            )?;
            let own = promises.snapshots.get(number);
            unanswered += u64::from(own.is_none_or(|kept| kept.taken.is_none()));
        }
        Ok((numbers, unanswered))
    }
}

fn wrong(error: impl std::fmt::Display) -> Fault {
    Fault::wrong(error.to_string())
}

/// The name of a snapshot.
#[must_use]
pub fn name_of(number: u32) -> String {
    format!("s{number}")
}

/// The snapshot of this name.
///
/// # Errors
/// If nobody gave such a name.
pub fn number_of(name: &str) -> Outcome<u32> {
    let number = name
        .strip_prefix('s')
        .and_then(|number| number.parse().ok());
    number.ok_or_else(|| Fault::wrong(format!("nobody called a snapshot {name:?}")))
}
