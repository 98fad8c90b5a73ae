//! A disk with a volatile cache.
//!
//! - Operations are submitted, then completed in whatever order the world
//!   chooses. A write in flight may be partly visible; a read samples each of its
//!   sectors somewhere between its submission and its completion.
//! - A completed write is visible but volatile. A flush makes durable exactly the
//!   writes that completed before it was submitted; FUA makes its own write
//!   durable at completion.
//! - A failed flush loses its grip on everything before it: those writes stay
//!   visible, and no later flush covers them.
//! - What a power cut or a kill leaves is in [`crash`], everything it may leave in
//!   [`pieces`]; synchronous access for recovery and checking is in [`sync`].
//!
//! A sector of 512 bytes is atomic; everything larger tears.

use std::collections::{BTreeMap, BTreeSet};

use snapstore::IoError;

use super::dice::Dice;
use super::value::Data;

pub mod crash;
pub mod faults;
pub mod pieces;
pub mod sync;

use faults::Faults;

/// `EIO`.
pub const EIO: IoError = IoError::Errno(5);

/// One operation in flight.
pub type OpId = u64;

/// What a completed operation answers.
#[derive(Clone, Debug)]
pub enum Done {
    /// A read: the sectors.
    Read(Result<Vec<Data>, IoError>),
    /// A write or a flush.
    Plain(Result<(), IoError>),
}

#[derive(Clone, Debug)]
enum Op {
    Read {
        first: u64,
        early: Vec<Option<Data>>,
    },
    Write {
        first: u64,
        data: Vec<Option<Data>>,
        applied: Vec<bool>,
        fua: bool,
    },
    Flush {
        covers: u64,
        /// Another flush lost what this one should cover: it cannot succeed.
        doomed: bool,
    },
}

/// One content of a sector that a power cut may leave.
#[derive(Clone, Debug)]
struct Version {
    op: OpId,
    /// When its write completed; `None` while in flight or after a failed flush.
    completed: Option<u64>,
    data: Data,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    durable: Data,
    /// Volatile versions, oldest first; the last one is visible.
    versions: Vec<Version>,
}

impl Slot {
    fn visible(&self) -> &Data {
        self.versions.last().map_or(&self.durable, |v| &v.data)
    }

    /// Versions up to and including `index` are on the medium.
    fn settle(&mut self, index: usize) {
        if let Some(last) = self.versions.drain(..=index).next_back() {
            self.durable = last.data;
        }
    }
}

/// A simulated disk. See the module for what it promises and what not.
#[derive(Clone, Debug)]
pub struct SimDisk {
    slots: Vec<Slot>,
    /// Sectors with volatile versions.
    dirty: BTreeSet<u64>,
    ops: BTreeMap<OpId, Op>,
    next: OpId,
    /// Counts completions, so that flushes know what they cover.
    clock: u64,
    /// What goes wrong.
    pub faults: Faults,
}

impl SimDisk {
    /// A disk of `sectors` sectors of zeroes.
    #[must_use]
    pub fn new(sectors: u64) -> Self {
        Self {
            slots: vec![Slot::default(); sectors as usize],
            dirty: BTreeSet::new(),
            ops: BTreeMap::new(),
            next: 1,
            clock: 0,
            faults: Faults::default(),
        }
    }

    /// Its owner made it `more` sectors larger.
    pub fn extend(&mut self, more: u64) {
        self.slots
            .resize_with(self.slots.len() + more as usize, Slot::default);
    }

    /// Sectors the disk holds.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.slots.len() as u64
    }

    /// What a read of `sector` would see now.
    #[must_use]
    pub fn visible(&self, sector: u64) -> Data {
        self.slots
            .get(sector as usize)
            .map(|s| s.visible().clone())
            .unwrap_or_default()
    }

    /// Sets a sector for good, behind everybody's back: initial contents, damage.
    pub fn plant(&mut self, sector: u64, data: Data) {
        if let Some(slot) = self.slots.get_mut(sector as usize) {
            *slot = Slot {
                durable: data,
                versions: Vec::new(),
            };
            self.dirty.remove(&sector);
        }
    }

    /// Submits a read of `count` sectors.
    pub fn read(&mut self, first: u64, count: u64, dice: &mut Dice) -> OpId {
        let early = (first..first + count)
            .map(|s| dice.chance(1, 2).then(|| self.visible(s)))
            .collect();
        self.submit(Op::Read { first, early })
    }

    /// Submits a write.
    pub fn write(&mut self, first: u64, data: &[Data], fua: bool) -> OpId {
        let data = data.iter().cloned().map(Some).collect::<Vec<_>>();
        let applied = vec![false; data.len()];
        self.submit(Op::Write {
            first,
            data,
            applied,
            fua,
        })
    }

    /// Submits a discard: each sector will read as zeroes or as before.
    pub fn discard(&mut self, first: u64, count: u64, dice: &mut Dice) -> OpId {
        let all = dice.chance(1, 2);
        let data: Vec<_> = (0..count)
            .map(|_| (all || dice.chance(1, 2)).then(Data::zero))
            .collect();
        let applied = vec![false; data.len()];
        self.submit(Op::Write {
            first,
            data,
            applied,
            fua: false,
        })
    }

    /// Submits a flush.
    pub fn flush(&mut self) -> OpId {
        self.submit(Op::Flush {
            covers: self.clock,
            doomed: false,
        })
    }

    /// Lets part of a write in flight become visible.
    pub fn progress(&mut self, op: OpId, dice: &mut Dice) {
        let Some(Op::Write {
            first,
            data,
            applied,
            ..
        }) = self.ops.get_mut(&op)
        else {
            return;
        };
        let mut now = Vec::new();
        for (index, done) in applied.iter_mut().enumerate() {
            if !*done && dice.chance(1, 3) {
                *done = true;
                now.push((*first + index as u64, data[index].clone()));
            }
        }
        for (sector, data) in now {
            self.apply(op, sector, data);
        }
    }

    /// Completes an operation; `None` if it is not in flight.
    pub fn complete(&mut self, op: OpId, dice: &mut Dice) -> Option<Done> {
        Some(match self.ops.remove(&op)? {
            Op::Read { first, early } => Done::Read(self.finish_read(first, early, dice)),
            Op::Write {
                first,
                data,
                applied,
                fua,
            } => Done::Plain(self.finish_write(op, first, data, &applied, fua, dice)),
            Op::Flush { covers, doomed } => Done::Plain(self.finish_flush(covers, doomed, dice)),
        })
    }

    fn submit(&mut self, op: Op) -> OpId {
        let id = self.next;
        self.next += 1;
        self.ops.insert(id, op);
        id
    }

    fn in_range(&self, first: u64, count: usize) -> Result<(), IoError> {
        match first.checked_add(count as u64) {
            Some(end) if end <= self.sectors() => Ok(()),
            _ => Err(IoError::OutOfRange),
        }
    }

    fn finish_read(
        &mut self,
        first: u64,
        early: Vec<Option<Data>>,
        dice: &mut Dice,
    ) -> Result<Vec<Data>, IoError> {
        self.in_range(first, early.len())?;
        self.faults.read(first, early.len() as u64, dice)?;
        let late = early.into_iter().enumerate();
        Ok(late
            .map(|(i, data)| data.unwrap_or_else(|| self.visible(first + i as u64)))
            .collect())
    }

    fn finish_write(
        &mut self,
        op: OpId,
        first: u64,
        data: Vec<Option<Data>>,
        applied: &[bool],
        fua: bool,
        dice: &mut Dice,
    ) -> Result<(), IoError> {
        self.in_range(first, data.len())?;
        let failed = self.faults.write(dice);
        let count = data.len() as u64;
        for (index, data) in data.into_iter().enumerate() {
            // A failed write leaves any part of itself behind.
            if !applied[index] && (failed.is_ok() || dice.chance(1, 2)) {
                self.apply(op, first + index as u64, data);
            }
        }
        self.clock += 1;
        for sector in first..first + count {
            // What a failed write left is in the cache: a later flush covers it.
            self.completed(op, sector, fua && failed.is_ok());
        }
        if failed.is_ok() {
            self.faults.healed(first, count);
        }
        failed
    }

    fn completed(&mut self, op: OpId, sector: u64, fua: bool) {
        let Some(slot) = self.slots.get_mut(sector as usize) else {
            return;
        };
        let Some(index) = slot.versions.iter().rposition(|v| v.op == op) else {
            return;
        };
        slot.versions[index].completed = Some(self.clock);
        if fua {
            slot.settle(index);
        }
        if slot.versions.is_empty() {
            self.dirty.remove(&sector);
        }
    }

    fn finish_flush(&mut self, covers: u64, doomed: bool, dice: &mut Dice) -> Result<(), IoError> {
        let failed = if doomed {
            Err(EIO)
        } else {
            self.faults.flush(dice)
        };
        if failed.is_err() && self.faults.flush_loses {
            for op in self.ops.values_mut() {
                if let Op::Flush { doomed, .. } = op {
                    *doomed = true;
                }
            }
        }
        for sector in self.dirty.clone() {
            let Some(slot) = self.slots.get_mut(sector as usize) else {
                continue;
            };
            if failed.is_err() {
                if self.faults.flush_loses {
                    slot.versions.iter_mut().for_each(|v| v.completed = None);
                }
            } else if let Some(index) = slot
                .versions
                .iter()
                .rposition(|v| v.completed.is_some_and(|at| at <= covers))
            {
                slot.settle(index);
            }
            if slot.versions.is_empty() {
                self.dirty.remove(&sector);
            }
        }
        failed
    }

    fn apply(&mut self, op: OpId, sector: u64, data: Option<Data>) {
        let (Some(data), Some(slot)) = (data, self.slots.get_mut(sector as usize)) else {
            return;
        };
        slot.versions.push(Version {
            op,
            completed: None,
            data,
        });
        self.dirty.insert(sector);
    }
}

impl SimDisk {
    /// Whether a range holds only what is durable, and nothing is on its way there.
    #[must_use]
    pub fn at_rest(&self, first: u64, count: u64) -> bool {
        let volatile = self.dirty.range(first..first + count).next();
        volatile.is_none() && self.writing(first, count).is_none()
    }

    /// A write in flight that overlaps the range.
    #[must_use]
    pub fn writing(&self, first: u64, count: u64) -> Option<OpId> {
        self.ops.iter().find_map(|(id, op)| match op {
            Op::Write {
                first: at, data, ..
            } => (*at < first + count && first < *at + data.len() as u64).then_some(*id),
            _ => None,
        })
    }
}
