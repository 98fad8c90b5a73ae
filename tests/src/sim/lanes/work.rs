//! What a lane does between its visits to the engine, one thing at a time.

use snapstore::Effect;
use snapstore::engine::{CrcRange, Event};
use snapstore::ids::IoId;
use ublk_target::core::{Entry, Mail};
use ublk_target::ring::Order;

use super::client::note_refusal;
use super::thread::{Brought, STORE, Work};
use super::{LAG, Outcome, Threads, Violation};
use crate::sim::daemon::Daemon;
use crate::sim::defect::Defect;

/// An effect on its way, with its part of the checksums.
pub(super) fn brought(mut effect: Effect, arena: &[u32], late: bool) -> Brought {
    let mut own = Vec::new();
    if let Effect::ReadFrom { crcs, .. } = &mut effect {
        own.extend_from_slice(crcs.of(arena));
        *crcs = CrcRange {
            start: 0,
            len: own.len() as u32,
        };
    }
    Brought {
        effect,
        crcs: own,
        late,
    }
}

impl Threads {
    /// Some lane does one of the things it can do.
    pub(super) fn work(&mut self) -> Outcome {
        let busy: Vec<usize> = (0..self.threads.len())
            .filter(|lane| !self.threads[*lane].work().is_empty())
            .collect();
        let lane = self.dice.pick(&busy);
        let away = self.threads[lane].away;
        if away && !self.dice.chance(1, LAG) {
            return Ok(());
        }
        self.threads[lane].away = self.dice.chance(self.habits.laggards, 64);
        let work = self.threads[lane].work();
        match self.dice.pick(&work) {
            Work::Begin => {
                let index = self.dice.index(self.threads[lane].arrived.len());
                let owner = self.threads[lane].arrived.swap_remove(index);
                self.begin(owner)
            }
            Work::Letter => self.read_letter(lane),
            Work::Effect => {
                let index = self.dice.index(self.threads[lane].brought.len());
                if !self.threads[lane].brought[index].late || self.dice.chance(1, LAG) {
                    let one = self.threads[lane].brought.swap_remove(index);
                    self.carry_out(lane, one.effect, &one.crcs);
                }
                Ok(())
            }
            Work::Acknowledge => {
                while let Some((_, io)) = self.threads[lane].lane.out.paused.pop() {
                    self.acknowledge(lane, io);
                }
                Ok(())
            }
            Work::Submit => {
                let index = self.dice.index(self.threads[lane].lane.out.ops.len());
                let op = self.threads[lane].lane.out.ops.swap_remove(index);
                self.fly(lane, op)
            }
            Work::Deliver => self.hand_out(lane),
        }
    }

    fn read_letter(&mut self, lane: usize) -> Outcome {
        let Some(letter) = self.threads[lane].mail.pop_front() else {
            return Ok(());
        };
        match letter {
            Mail::Effects { effects, .. } => {
                self.tally.letters += 1;
                if self.is(Defect::LostLetter) && self.dice.chance(1, 16) {
                    return Ok(());
                }
                for effect in effects.list {
                    self.carry_out(lane, effect, &effects.crcs);
                }
            }
            Mail::Step(_) => self.threads[lane].due = true,
            Mail::Pause { store, io, volumes } => {
                let planted = self.is(Defect::EarlyPause) || self.is(Defect::IgnorePause);
                let thread = &mut self.threads[lane];
                if self.habits.defect != Some(Defect::IgnorePause) {
                    thread.lane.pause(store, io, volumes);
                }
                self.tally.drained += u64::from(!thread.lane.out.paused.contains(&(store, io)));
                if planted {
                    thread.lane.out.paused.retain(|(_, other)| *other != io);
                    self.acknowledge(lane, io);
                    self.threads[lane].acknowledged.insert(io);
                }
            }
            Mail::Resume { store, io } => self.threads[lane].lane.resume(store, io),
            Mail::Order(Order::ResizeVolume { slot, size, done }) => {
                self.threads[lane].lane.resize_volume(slot, size);
                // The world that asked may be gone.
                let _ = done.send(());
                self.hear_replies();
            }
            Mail::Order(_) => return Err(Violation::new("an order nobody gave")),
        }
        Ok(())
    }

    /// A lane has drained; the last one tells the engine.
    fn acknowledge(&mut self, lane: usize, io: IoId) {
        if self.threads[lane].acknowledged.remove(&io) {
            return;
        }
        if let Some(event) = self.core.acknowledge(io) {
            self.threads[lane].tell(event);
        }
    }

    /// An effect reaches the lane it is for.
    fn carry_out(&mut self, lane: usize, mut effect: Effect, crcs: &[u32]) {
        if let Effect::WriteGranted { owner, epoch } = &mut effect
            && self.is(Defect::IgnoreEpoch)
        {
            let volume = self.threads[lane].volume_of(*owner);
            let now = self.look(|engine| Some(engine.unique_map(volume?)?.epoch()));
            *epoch = now.unwrap_or(*epoch);
        }
        let thread = &mut self.threads[lane];
        let asking = matches!(effect, Effect::WriteGranted { .. });
        let before = thread.lane.events(STORE).map_or(0, |e| e.events.len());
        let refusal = match &effect {
            Effect::WriteFailed { error, .. } | Effect::ReadFailed { error, .. } => {
                Some(error.clone())
            }
            _ => None,
        };
        let early = match &effect {
            Effect::ReadFrom { grant, last, .. } if *last => Some(*grant),
            _ => None,
        };
        thread.lane.effect(STORE, effect, crcs);
        let after = thread.lane.events(STORE).map_or(0, |e| e.events.len());
        self.tally.stale += u64::from(asking && after > before);
        if let Some(error) = refusal {
            note_refusal(&mut self.clients, thread.lane.out.done.last(), error);
        }
        if let Some(grant) = early
            && self.habits.defect == Some(Defect::EarlyReadDone)
        {
            thread.returned.insert(grant, false);
            thread.tell(Event::ReadDone { grant });
        }
    }

    /// Clients get their answers.
    fn hand_out(&mut self, lane: usize) -> Outcome {
        let out = &mut self.threads[lane].lane.out;
        out.origin_errors.clear();
        out.detached.clear();
        let done = std::mem::take(&mut out.done);
        done.iter().try_for_each(|done| self.deliver(lane, done))
    }
}
