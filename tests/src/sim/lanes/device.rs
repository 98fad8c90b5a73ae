//! Operations of lanes on the simulated disks: submitted, cut short, interrupted,
//! not known to the device, completed.

use std::sync::Arc;

use snapstore::{BLOCK_SIZE, IoError};
use ublk_target::lane::{Action, Completion, DeviceSlot, Op, Token};

use super::memory::Owned;
use super::{Outcome, Threads, Violation};
use crate::sim::defect::Defect;
use crate::sim::dice::Dice;
use crate::sim::disk::sync::{block_of, sectors_of_block};
use crate::sim::disk::{Done, OpId, SimDisk};
use crate::sim::runtime::Dev;
use crate::sim::value::{Data, SECTOR, bytes_of, sectors_of};

/// What a disk fails with. Unlike any error lanes make themselves, so that whose
/// it was can be told.
pub(super) const BROKEN: i32 = 121;
const EINTR: i32 = 4;
const EAGAIN: i32 = 11;
const EOPNOTSUPP: i32 = 95;

/// What an origin can do besides reading and writing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Talents {
    trims: bool,
    punches: bool,
    zeroes: bool,
}

impl Talents {
    pub(super) fn roll(dice: &mut Dice) -> Self {
        Self {
            trims: dice.chance(3, 4),
            punches: dice.chance(1, 2),
            zeroes: dice.chance(1, 2),
        }
    }
}

/// An operation in flight.
#[derive(Debug)]
pub(super) struct Flight {
    lane: usize,
    token: Token,
    dev: Dev,
    /// `None`: the device will only say that it does not know such a thing.
    op: Option<OpId>,
    owned: Option<Owned>,
    /// Bytes to be reported.
    moves: u32,
    block: bool,
    slow: bool,
}

/// Where a device is in the lanes' tables.
pub(super) fn place_of(dev: Dev) -> DeviceSlot {
    match dev {
        Dev::Store => DeviceSlot(0),
        Dev::Origin(index) => DeviceSlot(index as u32 + 1),
    }
}

fn device_at(place: DeviceSlot) -> Dev {
    match place.0.checked_sub(1) {
        None => Dev::Store,
        Some(index) => Dev::Origin(index as usize),
    }
}

impl Threads {
    /// A disk and the dice, borrowed together.
    fn disk(&mut self, dev: Dev) -> (&mut SimDisk, &mut Dice) {
        let disk = match dev {
            Dev::Store => &mut self.machine.store,
            Dev::Origin(index) => &mut self.machine.origins[index],
        };
        (disk, &mut self.dice)
    }

    /// A lane's operation goes to its disk.
    pub(super) fn fly(&mut self, lane: usize, op: Op) -> Outcome {
        let Op {
            token,
            device,
            action,
        } = op;
        let dev = device_at(device);
        let mut flight = Flight {
            lane,
            token,
            dev,
            op: None,
            owned: None,
            moves: 0,
            block: matches!(action, Action::ReadBlock { .. }),
            slow: self.dice.chance(self.habits.laggards, 16),
        };
        match action {
            Action::Read {
                buffer,
                at,
                offset,
                len,
            } => {
                let len = self.cut(len);
                self.within(dev, offset, u64::from(len), false)?;
                flight.lend(self, (buffer, at, len), true);
                let (disk, dice) = self.disk(dev);
                flight.op = Some(disk.read(offset / 512, u64::from(len) / 512, dice));
            }
            Action::Write {
                buffer,
                at,
                offset,
                len,
                fua,
            } => {
                let len = self.cut(len);
                self.within(dev, offset, u64::from(len), true)?;
                flight.lend(self, (buffer, at, len), false);
                let data = self.payload(lane, dev, (buffer, at, len));
                flight.op = Some(self.disk(dev).0.write(offset / 512, &data, fua));
            }
            other => self.fly_plain(&mut flight, other)?,
        }
        self.flights.push(flight);
        Ok(())
    }

    /// Operations without buffers of the lane.
    fn fly_plain(&mut self, flight: &mut Flight, action: Action) -> Outcome {
        let dev = flight.dev;
        let talents = match dev {
            Dev::Origin(index) => self.talents[index],
            Dev::Store => self.talents[0],
        };
        match action {
            Action::ReadBlock { offset } => {
                self.within(dev, offset, BLOCK_SIZE as u64, false)?;
                let (disk, dice) = self.disk(dev);
                flight.op = Some(disk.read(offset / 512, (BLOCK_SIZE / SECTOR) as u64, dice));
            }
            Action::WriteBlock { offset, data, fua } => {
                self.within(dev, offset, BLOCK_SIZE as u64, true)?;
                flight.moves = BLOCK_SIZE as u32;
                let fua = fua && !self.is(Defect::ForgetFua);
                let sectors: Vec<Data> = sectors_of_block(&data).collect();
                flight.op = Some(self.disk(dev).0.write(offset / 512, &sectors, fua));
            }
            Action::Flush { .. } => flight.op = self.flush(dev),
            Action::Trim { offset, len } if talents.trims => {
                self.within(dev, offset, len, true)?;
                let (disk, dice) = self.disk(dev);
                flight.op = Some(disk.discard(offset / 512, len / 512, dice));
            }
            Action::Punch { offset, len } if talents.punches => {
                flight.op = Some(self.zero(dev, offset, len)?);
            }
            Action::Zero { offset, len } if talents.zeroes => {
                flight.op = Some(self.zero(dev, offset, len)?);
            }
            Action::Trim { .. } | Action::Punch { .. } | Action::Zero { .. } => {}
            other => return Err(Violation(format!("nobody asked for {other:?}"))),
        }
        Ok(())
    }

    fn zero(&mut self, dev: Dev, offset: u64, len: u64) -> Outcome<OpId> {
        self.within(dev, offset, len, true)?;
        let data = vec![Data::zero(); (len / 512) as usize];
        Ok(self.disk(dev).0.write(offset / 512, &data, false))
    }

    fn flush(&mut self, dev: Dev) -> Option<OpId> {
        let skipped = match dev {
            Dev::Store => Defect::SkipStoreFlush,
            Dev::Origin(_) => Defect::SkipOriginFlush,
        };
        if self.is(skipped) {
            // A write of nothing: it completes, and that is all.
            return Some(self.disk(dev).0.write(0, &[], false));
        }
        Some(self.disk(dev).0.flush())
    }

    /// Devices may do less than they are asked.
    fn cut(&mut self, len: u32) -> u32 {
        let sectors = len / 512;
        if sectors < 2 || !self.dice.chance(1, 16) {
            return len;
        }
        self.tally.broken += 1;
        self.dice.between(1, u64::from(sectors) - 1) as u32 * 512
    }

    fn payload(
        &mut self,
        lane: usize,
        dev: Dev,
        (buffer, at, len): (ublk_target::lane::BufferId, u32, u32),
    ) -> Vec<Data> {
        let thread = &mut self.threads[lane];
        let copies = thread.copies_with(buffer) && dev == Dev::Store;
        let mut data = sectors_of(thread.memory.bytes(buffer, at, len));
        if copies && self.is(Defect::FlipBit) && self.dice.chance(1, 4) {
            let index = self.dice.index(data.len());
            let mut bytes = *data[index].bytes();
            bytes[0] ^= 1;
            data[index] = Data::of(&bytes);
        }
        data
    }

    /// Whole sectors inside the disk; in the store, where no other write is in flight.
    fn within(&self, dev: Dev, offset: u64, len: u64, writes: bool) -> Outcome {
        let disk = match dev {
            Dev::Store => &self.machine.store,
            Dev::Origin(index) => &self.machine.origins[index],
        };
        let sectors = SECTOR as u64;
        let (first, count) = (offset / sectors, len / sectors);
        let odd = !(offset | len).is_multiple_of(sectors) || len == 0;
        if odd || first + count > disk.sectors() {
            return Err(Violation(format!(
                "an operation on {offset}+{len} of {dev:?}"
            )));
        }
        match disk.writing(first, count) {
            Some(other) if writes && dev == Dev::Store => Err(Violation(format!(
                "a write to sector {first} of the store while {other} is in flight there"
            ))),
            _ => Ok(()),
        }
    }

    /// Completes an operation, or lets a write become partly visible.
    pub(super) fn land(&mut self) -> Outcome {
        let index = self.dice.index(self.flights.len());
        let Some(flight) = self.flights.get(index) else {
            return Ok(());
        };
        let (dev, op, slow) = (flight.dev, flight.op, flight.slow);
        if slow && !self.dice.chance(1, super::LAG) {
            return Ok(());
        }
        if let Some(op) = op
            && self.dice.chance(1, 4)
        {
            let (disk, dice) = self.disk(dev);
            disk.progress(op, dice);
            return Ok(());
        }
        let flight = self.flights.swap_remove(index);
        let Some(op) = op else {
            self.tally.unknown += 1;
            self.complete(&flight, Completion::Moved(Err(EOPNOTSUPP)));
            return Ok(());
        };
        let (disk, dice) = self.disk(dev);
        match disk.complete(op, dice) {
            Some(Done::Read(result)) if flight.block => {
                let block = result.map(|sectors| Arc::new(block_of(&sectors)));
                self.complete(&flight, Completion::Block(block.map_err(errno)));
            }
            Some(Done::Read(result)) => self.read_landed(flight, result),
            Some(Done::Plain(result)) => {
                let result = result.map(|()| flight.moves).map_err(errno);
                let result = self.interrupted(&flight, result);
                self.complete(&flight, Completion::Moved(result));
            }
            None => return Err(Violation(format!("operation {op} on {dev:?} vanished"))),
        }
        Ok(())
    }

    fn read_landed(&mut self, flight: Flight, result: Result<Vec<Data>, IoError>) {
        let (Some(owned), Ok(sectors)) = (flight.owned, &result) else {
            let failed = result.map(|_| 0).map_err(errno);
            return self.complete(&flight, Completion::Moved(failed));
        };
        let bytes = bytes_of(sectors);
        let early = self.is(Defect::EarlyChecksum)
            && self.threads[flight.lane].copies_with(owned.buffer)
            && self.dice.chance(1, 2);
        let now = if early { bytes.len() / 2 } else { bytes.len() };
        let thread = &mut self.threads[flight.lane];
        let place = thread.memory.bytes(owned.buffer, owned.at, owned.len);
        place[..now].copy_from_slice(&bytes[..now]);
        let result = self.interrupted(&flight, Ok(owned.len));
        self.complete(&flight, Completion::Moved(result));
        let thread = &mut self.threads[flight.lane];
        if early {
            let place = thread.memory.bytes(owned.buffer, owned.at, owned.len);
            place[now..].copy_from_slice(&bytes[now..]);
        }
    }

    /// Now and then a transfer is to be made again.
    fn interrupted(&mut self, flight: &Flight, result: Result<u32, i32>) -> Result<u32, i32> {
        if flight.owned.is_none() || !self.dice.chance(1, 64) {
            return result;
        }
        self.tally.broken += 1;
        Err(self.dice.pick(&[EINTR, EAGAIN]))
    }

    fn complete(&mut self, flight: &Flight, completion: Completion) {
        let thread = &mut self.threads[flight.lane];
        if let Some(owned) = &flight.owned {
            thread.memory.take_back(owned);
        }
        thread
            .lane
            .complete(flight.token, completion, &mut thread.memory);
    }
}

impl Flight {
    fn lend(
        &mut self,
        threads: &mut Threads,
        (buffer, at, len): (ublk_target::lane::BufferId, u32, u32),
        filled: bool,
    ) {
        let owned = Owned {
            buffer,
            at,
            len,
            filled,
        };
        threads.threads[self.lane].memory.lend(owned);
        (self.owned, self.moves) = (Some(owned), len);
    }
}

fn errno(_: IoError) -> i32 {
    BROKEN
}
