//! The pause handshake: every lane stops issuing to the volumes named, and
//! acknowledges once its own origin writes to them have completed.

use std::collections::BTreeMap;

use snapstore::ids::IoId;
use snapstore::{Event, VolumeId};

use super::{Outcome, Runtime, Task, Violation};
use crate::sim::defect::Defect;

/// A queue: what it has in flight, what it holds back.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Pauses this lane knows of, and whether it acknowledged.
    pub(super) pauses: BTreeMap<IoId, bool>,
    /// Origin writes and discards issued and not completed.
    pub(super) in_flight: BTreeMap<VolumeId, u32>,
    /// Requests that wait for the end of a pause.
    pub(super) parked: Vec<u64>,
}

/// A pause the engine asked for.
#[derive(Debug)]
pub(super) struct Pause {
    volumes: Vec<VolumeId>,
    /// Lanes that have not acknowledged.
    missing: usize,
    /// `Paused` was sent.
    told: bool,
    /// Lanes that have not resumed.
    held: usize,
}

impl Runtime {
    pub(super) fn lane_paused(&self, lane: usize, volume: VolumeId) -> bool {
        if self.is(Defect::IgnorePause) {
            return false;
        }
        self.lanes[lane]
            .pauses
            .keys()
            .any(|io| self.concerns(*io, volume))
    }

    fn concerns(&self, io: IoId, volume: VolumeId) -> bool {
        self.pauses
            .get(&io)
            .is_some_and(|p| p.volumes.contains(&volume))
    }

    /// The engine asks for a pause: each lane hears of it in its own time.
    pub(super) fn pause(&mut self, io: IoId, volumes: Vec<VolumeId>) -> Outcome {
        let lanes = self.lanes.len();
        let pause = Pause {
            volumes,
            missing: lanes,
            told: false,
            held: lanes,
        };
        if self.pauses.insert(io, pause).is_some() {
            return Err(Violation(format!("pause {io:?} was asked for twice")));
        }
        (0..lanes).for_each(|lane| self.later(Task::PauseLane(io, lane)));
        Ok(())
    }

    pub(super) fn pause_lane(&mut self, io: IoId, lane: usize) {
        self.lanes[lane].pauses.insert(io, false);
        if self
            .dice
            .chance(self.habits.give_up, 1000 * self.lanes.len() as u64)
        {
            self.give_up(io);
        }
        self.acknowledge(lane);
    }

    /// Draining takes too long: say so, and go on.
    fn give_up(&mut self, io: IoId) {
        let Some(pause) = self.pauses.get_mut(&io) else {
            return;
        };
        if !std::mem::replace(&mut pause.told, true) {
            self.post(Event::Paused { io, drained: false });
            (0..self.lanes.len()).for_each(|lane| self.later(Task::ResumeLane(io, lane)));
        }
    }

    /// Acknowledges every pause whose writes have drained on this lane.
    pub(super) fn acknowledge(&mut self, lane: usize) {
        let early = self.is(Defect::EarlyPause);
        let open: Vec<IoId> = self.lanes[lane]
            .pauses
            .iter()
            .filter(|(_, done)| !**done)
            .map(|(io, _)| *io)
            .collect();
        for io in open {
            let Some(pause) = self.pauses.get_mut(&io) else {
                continue;
            };
            let in_flight = &self.lanes[lane].in_flight;
            let busy = |v: &VolumeId| in_flight.get(v).is_some_and(|n| *n > 0);
            if pause.volumes.iter().any(busy) && !early {
                continue;
            }
            self.lanes[lane].pauses.insert(io, true);
            pause.missing -= 1;
            if pause.missing == 0 && !std::mem::replace(&mut pause.told, true) {
                self.post(Event::Paused { io, drained: true });
            }
        }
    }

    /// The engine ends a pause that was reached.
    pub(super) fn resume(&mut self, io: IoId) -> Outcome {
        match self.pauses.get(&io) {
            Some(pause) if pause.told && pause.missing == 0 => {
                (0..self.lanes.len()).for_each(|lane| self.later(Task::ResumeLane(io, lane)));
                Ok(())
            }
            other => Err(Violation(format!(
                "resume of pause {io:?}, which is {other:?}"
            ))),
        }
    }

    pub(super) fn resume_lane(&mut self, io: IoId, lane: usize) {
        // A given-up pause may not have reached this lane yet.
        if self.lanes[lane].pauses.remove(&io).is_none() {
            self.later(Task::ResumeLane(io, lane));
            return;
        }
        if let Some(pause) = self.pauses.get_mut(&io) {
            pause.held -= 1;
            if pause.held == 0 {
                self.pauses.remove(&io);
            }
        }
        let parked = std::mem::take(&mut self.lanes[lane].parked);
        parked
            .into_iter()
            .for_each(|owner| self.later(Task::Begin(owner)));
    }
}
