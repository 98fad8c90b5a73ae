//! The way of effects: answers to the lane that asked, I/O to the lane that
//! entered, pauses to all lanes, replies and notices to the daemon.

use std::time::Instant;

use snapstore::engine::{CommandError, CrcRange, Reply};
use snapstore::ids::{CommandId, IoId};
use snapstore::{Effect, Effects, Event, Owner, VolumeId};

use super::{Core, Mail, Stepper, Visit};
use crate::lane::lane_of;

/// Copies a lane makes before another one is asked to help: about as much work
/// as waking it is worth.
const COPIES_TOGETHER: usize = 8;

impl<E: Stepper> Core<E> {
    /// Sends every effect in `visit.scratch` on its way.
    pub(super) fn route(&self, visit: &mut Visit) {
        let mut effects = std::mem::take(&mut visit.scratch);
        let base = visit.local.crcs.len() as u32;
        visit.local.crcs.extend_from_slice(&effects.crcs);
        for effect in effects.list.drain(..) {
            self.route_one(visit, effect, base, &effects.crcs);
        }
        visit.scratch = effects;
        self.share_copies(visit);
    }

    fn route_one(&self, visit: &mut Visit, effect: Effect, base: u32, arena: &[u32]) {
        match effect {
            Effect::WriteGranted { owner, .. }
            | Effect::WriteFailed { owner, .. }
            | Effect::ReadFrom { owner, .. }
            | Effect::Compared { owner, .. }
            | Effect::ReadFailed { owner, .. } => self.answer(visit, owner, effect, base, arena),
            Effect::Pause { io, volumes } => self.pause_all(io, &volumes, visit),
            Effect::Resume { io } => self.resume_all(io, Some(visit)),
            Effect::RecordInvalid { io, volumes } => self.record_invalid(io, volumes),
            Effect::Reply { id, result } => self.reply(id, result),
            Effect::Notice(notice) => self.handlers.notice(notice),
            Effect::Again => visit.again = true,
            copy @ Effect::Copy { .. } => visit.copies.push(copy),
            io => visit.local.list.push(io),
        }
    }

    /// Copies are the heavy part, and any lane can make them: of many at once this
    /// lane makes the first few and others the next.
    fn share_copies(&self, visit: &mut Visit) {
        let lanes = usize::from(self.lanes.count());
        let mut copies = std::mem::take(&mut visit.copies);
        let mut turn = usize::from(visit.lane);
        let mut left = copies.drain(..).peekable();
        while left.peek().is_some() {
            let group = left.by_ref().take(COPIES_TOGETHER);
            let lane = (turn % lanes) as u16;
            if lane == visit.lane {
                visit.local.list.extend(group);
            } else {
                let effects = Effects {
                    list: group.collect(),
                    crcs: Vec::new(),
                };
                let store = self.slot;
                let mail = Mail::Effects { store, effects };
                self.lanes.post_from(lane, mail, &mut visit.wakes);
            }
            turn += 1;
        }
        drop(left);
        visit.copies = copies;
    }

    fn answer(&self, visit: &mut Visit, owner: Owner, effect: Effect, base: u32, arena: &[u32]) {
        let lane = lane_of(owner);
        if lane == visit.lane {
            visit
                .local
                .list
                .push(with_crcs(effect, |range| range.start += base));
            return;
        }
        let mut crcs = Vec::new();
        let effect = with_crcs(effect, |range| {
            crcs.extend_from_slice(range.of(arena));
            range.start = 0;
        });
        let store = self.slot;
        let effects = Effects {
            list: vec![effect],
            crcs,
        };
        self.lanes
            .post_from(lane, Mail::Effects { store, effects }, &mut visit.wakes);
    }

    fn pause_all(&self, io: IoId, volumes: &[VolumeId], visit: &mut Visit) {
        // Held until every lane is told, or giving up could resume one before it
        // was paused: it would stay paused for ever.
        let mut pauses = self.pauses.lock();
        pauses.begin(io, self.lanes.count(), Instant::now());
        for lane in 0..self.lanes.count() {
            let mail = Mail::Pause {
                store: self.slot,
                io,
                volumes: volumes.to_vec(),
            };
            self.lanes.post_from(lane, mail, &mut visit.wakes);
        }
    }

    pub(super) fn resume_all(&self, io: IoId, mut visit: Option<&mut Visit>) {
        for lane in 0..self.lanes.count() {
            let mail = Mail::Resume {
                store: self.slot,
                io,
            };
            match &mut visit {
                Some(visit) => self.lanes.post_from(lane, mail, &mut visit.wakes),
                None => self.lanes.post(lane, mail),
            }
        }
    }

    /// Runs the handler on a thread of its own: it waits for a disk.
    fn record_invalid(&self, io: IoId, volumes: Vec<VolumeId>) {
        let Some(core) = self.itself.upgrade() else {
            return;
        };
        let work = move || {
            let result = core.handlers.record_invalid(&volumes);
            core.tell(Event::Flushed { io, result });
        };
        if let Err(error) = std::thread::Builder::new()
            .name("record".into())
            .spawn(work)
        {
            tracing::error!(%error, "cannot start a thread to record dropped snapshots");
            let result = Err(snapstore::IoError::Errno(
                error.raw_os_error().unwrap_or(libc::EAGAIN),
            ));
            self.tell(Event::Flushed { io, result });
        }
    }

    fn reply(&self, id: CommandId, result: Result<Reply, CommandError>) {
        let waiting = self
            .commands
            .lock()
            .as_mut()
            .and_then(|commands| commands.remove(&id));
        if let Some(waiting) = waiting {
            // A caller that went away no longer wants to know.
            let _ = waiting.send(result);
        }
    }
}

fn with_crcs(mut effect: Effect, change: impl FnOnce(&mut CrcRange)) -> Effect {
    if let Effect::ReadFrom { crcs, .. } = &mut effect {
        change(crcs);
    }
    effect
}
