//! One I/O thread: its lane, and what waits to be done by it. What `ring::thread`
//! does in one loop is done here piece by piece, so that the other threads may run
//! between any two of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use snapstore::ids::{GrantId, IoId};
use snapstore::{Effect, Event, Owner, VolumeId};
use ublk_target::core::{Mail, Visit};
use ublk_target::lane::{BufferId, Lane, LaneConfig, StoreSlot};

use super::memory::Memory;
use crate::sim::defect::Defect;
use crate::sim::dice::Dice;

/// The largest copy.
const COPY: usize = 1 << 20;
/// The only store.
pub(super) const STORE: StoreSlot = StoreSlot(0);

/// What a thread can do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Begin,
    Letter,
    Effect,
    Acknowledge,
    Submit,
    Deliver,
}

/// An effect on its way, with its own checksums.
#[derive(Debug)]
pub(super) struct Brought {
    pub(super) effect: Effect,
    pub(super) crcs: Vec<u32>,
    /// It takes its time.
    pub(super) late: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) lane: Lane,
    pub(super) memory: Memory,
    pub(super) visit: Visit,
    /// It is to enter the engine even without events.
    pub(super) due: bool,
    /// It was sent away by the scheduler, for long.
    pub(super) away: bool,
    /// Requests that came from clients.
    pub(super) arrived: Vec<u64>,
    /// Mail, in order.
    pub(super) mail: VecDeque<Mail>,
    /// What it took from the engine for itself.
    pub(super) brought: Vec<Brought>,
    copies: BTreeSet<u32>,
    /// Whose writes the engine was asked about.
    asked: BTreeMap<Owner, VolumeId>,
    /// Planted: pauses acknowledged too early.
    pub(super) acknowledged: BTreeSet<IoId>,
    /// Planted: grants given back too early, and whether the engine was told.
    pub(super) returned: BTreeMap<GrantId, bool>,
}

impl Thread {
    /// Few and small buffers, so that copies wait and zeroes take several writes.
    pub(super) fn new(number: u16, defect: Option<Defect>, dice: &mut Dice) -> Self {
        let mut memory = Memory::default();
        memory.forgets_zeroes = defect == Some(Defect::ForgetZeroes);
        memory.careless = defect == Some(Defect::SharedBuffer);
        let zeroes = memory.make(8192);
        memory.bytes(zeroes, 0, 8192).fill(0);
        let mut some = |len: usize, most| -> (u32, Vec<BufferId>) {
            let count = dice.between(1, most);
            let mut buffers: Vec<_> = (0..count).map(|_| memory.make(len)).collect();
            if defect == Some(Defect::SharedBuffer) {
                buffers.extend_from_within(..);
            }
            (len as u32, buffers)
        };
        let copy_buffers = vec![some(16 << 10, 3), some(COPY, 2)];
        let copies = copy_buffers.iter().flat_map(|(_, buffers)| buffers);
        let copies = copies.map(|buffer| buffer.0).collect();
        let lane = Lane::new(LaneConfig {
            lane: number,
            copy_buffers,
            zeroes: (zeroes, 8192),
        });
        Self {
            lane,
            memory,
            visit: Visit::new(number),
            due: true,
            away: false,
            arrived: Vec::new(),
            mail: VecDeque::new(),
            brought: Vec::new(),
            copies,
            asked: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            returned: BTreeMap::new(),
        }
    }

    /// Whether the buffer is one of copies.
    pub(super) fn copies_with(&self, buffer: BufferId) -> bool {
        self.copies.contains(&buffer.0)
    }

    /// What it can do now, in no order.
    pub(super) fn work(&self) -> Vec<Work> {
        let out = &self.lane.out;
        let told = out.origin_errors.len() + out.detached.len();
        let waiting = [
            (Work::Begin, self.arrived.is_empty()),
            (Work::Letter, self.mail.is_empty()),
            (Work::Effect, self.brought.is_empty()),
            (Work::Acknowledge, out.paused.is_empty()),
            (Work::Submit, out.ops.is_empty()),
            (Work::Deliver, out.done.is_empty() && told == 0),
        ];
        let some = waiting.into_iter().filter(|(_, empty)| !empty);
        some.map(|(work, _)| work).collect()
    }

    /// Whether it has something for the engine.
    pub(super) fn calls(&mut self) -> bool {
        self.due || self.lane.events(STORE).is_some_and(|e| !e.is_empty())
    }

    /// Moves its events into a visit.
    pub(super) fn bring(&mut self, visit: &mut Visit) {
        let returned = &mut self.returned;
        let Some(events) = self.lane.events(STORE) else {
            return;
        };
        events.events.retain(|event| match event {
            Event::ReadDone { grant } => match returned.get_mut(grant) {
                Some(told) => !std::mem::replace(told, true),
                None => true,
            },
            _ => true,
        });
        for event in &events.events {
            if let Event::Write { owner, volume, .. } = event {
                self.asked.insert(*owner, *volume);
            }
        }
        visit.events.append(events);
    }

    /// The volume whose write the engine was asked about.
    pub(super) fn volume_of(&self, owner: Owner) -> Option<VolumeId> {
        self.asked.get(&owner).copied()
    }

    /// Leaves something for the engine.
    pub(super) fn tell(&mut self, event: Event) {
        if let Some(events) = self.lane.events(STORE) {
            events.events.push(event);
        }
    }
}
