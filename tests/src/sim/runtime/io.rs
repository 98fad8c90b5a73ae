//! Operations in flight: starting them, and what their completion means.

use std::sync::Arc;

use snapstore::ids::IoId;
use snapstore::{Event, IoError, VolumeId};

use super::{Ask, Dev, Failure, Mail, Outcome, Runtime, Violation};
use crate::sim::defect::Defect;
use crate::sim::dice::Dice;
use crate::sim::disk::sync::block_of;
use crate::sim::disk::{Done, OpId, SimDisk};
use crate::sim::value::{Data, PER_BLOCK, SECTOR, checksums_of};

/// What an operation in flight is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Use {
    BlockRead(IoId),
    BlockWritten(IoId),
    Flushed(IoId),
    CopyRead {
        copy: IoId,
        sectors: u64,
        block: u64,
    },
    CopyWritten(IoId),
    /// Its end was reported already (a planted defect).
    Forgotten,
    Write(u64),
    Read(u64),
    Flush(u64),
    Piece {
        owner: u64,
        index: usize,
    },
}

impl Runtime {
    /// A disk and the dice, borrowed together.
    pub(super) fn disk(&mut self, dev: Dev) -> (&mut SimDisk, &mut Dice) {
        let disk = match dev {
            Dev::Store => &mut self.machine.store,
            Dev::Origin(index) => &mut self.machine.origins[index],
        };
        (disk, &mut self.dice)
    }

    /// The disk a volume's origin is, if in service.
    pub(super) fn origin_of(&self, volume: VolumeId) -> Option<Dev> {
        self.volumes.get(&volume).map(|a| Dev::Origin(a.origin))
    }

    /// Starts the one operation of an origin request.
    pub(super) fn start(&mut self, dev: Dev, owner: u64, to: fn(u64) -> Use) -> Outcome {
        let Some(request) = self.requests.get_mut(&owner) else {
            return Ok(());
        };
        request.parts = 1;
        let ask = request.ask.clone();
        let (disk, dice) = self.disk(dev);
        let op = match ask {
            Ask::Write { first, data, fua } => disk.write(first, &data, fua),
            Ask::Read { first, count } => disk.read(first, count, dice),
            Ask::Flush => disk.flush(),
            Ask::Trim { .. } | Ask::ReadSnapshot { .. } => return Ok(()),
        };
        self.io.insert((dev, op), to(owner));
        Ok(())
    }

    /// Completes an operation, or lets a write become partly visible.
    pub(super) fn move_io(&mut self) -> Outcome {
        let index = self.dice.index(self.io.len());
        let Some((&(dev, op), &to)) = self.io.iter().nth(index) else {
            return Ok(());
        };
        // Operations are laggards from birth: their numbers decide.
        if op % 16 < self.habits.laggards && !self.dice.chance(1, super::LAG) {
            return Ok(());
        }
        let partly = self.dice.chance(1, 4);
        let (disk, dice) = self.disk(dev);
        if partly {
            disk.progress(op, dice);
            return Ok(());
        }
        let done = disk.complete(op, dice);
        self.io.remove(&(dev, op));
        match done {
            Some(Done::Read(result)) => self.read_done(to, result),
            Some(Done::Plain(result)) => self.plain_done(to, result),
            None => Err(Violation(format!("operation {op} on {dev:?} vanished"))),
        }
    }

    fn read_done(&mut self, to: Use, result: Result<Vec<Data>, IoError>) -> Outcome {
        match to {
            Use::BlockRead(io) => {
                let result = result.map(|sectors| Arc::new(block_of(&sectors)));
                self.post(Event::BlockRead { io, result });
                Ok(())
            }
            Use::CopyRead {
                copy,
                sectors,
                block,
            } => self.copy_read(copy, sectors, block, result),
            Use::Piece { owner, index } => self.piece_read(owner, index, result),
            Use::Read(owner) => {
                let Some(request) = self.requests.get_mut(&owner) else {
                    return Ok(());
                };
                match result {
                    Ok(sectors) => request.got = sectors,
                    Err(error) => request.failure = Some(Failure::Device(error)),
                }
                self.part_done(owner)
            }
            _ => Err(Violation(format!("a read completed for {to:?}"))),
        }
    }

    fn plain_done(&mut self, to: Use, result: Result<(), IoError>) -> Outcome {
        match to {
            Use::BlockWritten(io) => self.post(Event::BlockWritten { io, result }),
            Use::Flushed(io) => self.post(Event::Flushed { io, result }),
            Use::CopyWritten(copy) => self.copy_written(copy, result),
            Use::Forgotten => {}
            Use::Write(owner) => return self.origin_written(owner, result),
            Use::Flush(owner) => {
                self.fail(owner, result);
                return self.part_done(owner);
            }
            _ => return Err(Violation(format!("a write completed for {to:?}"))),
        }
        Ok(())
    }

    fn origin_written(&mut self, owner: u64, result: Result<(), IoError>) -> Outcome {
        let Some(request) = self.requests.get(&owner) else {
            return Ok(());
        };
        let (lane, volume) = (request.lane, request.volume);
        if let Some(count) = self.lanes[lane].in_flight.get_mut(&volume) {
            *count -= 1;
        }
        self.fail(owner, result);
        self.part_done(owner)?;
        self.acknowledge(lane);
        Ok(())
    }

    fn fail(&mut self, owner: u64, result: Result<(), IoError>) {
        if let (Err(error), Some(request)) = (result, self.requests.get_mut(&owner)) {
            request.failure = Some(Failure::Device(error));
        }
    }

    /// The origin was read for a copyout: checksum, submit the write, report.
    fn copy_read(
        &mut self,
        copy: IoId,
        sectors: u64,
        block: u64,
        result: Result<Vec<Data>, IoError>,
    ) -> Outcome {
        let mut data = match result {
            Ok(data) => data,
            Err(error) => {
                self.post(Event::CopyRead {
                    copy,
                    result: Err(error),
                });
                return Ok(());
            }
        };
        data.resize(sectors as usize, Data::zero());
        let mut crcs = checksums_of(self.engine.checksum(), &data);
        if self.is(Defect::WrongCrc) && self.dice.chance(1, 4) {
            let index = self.dice.index(crcs.len());
            crcs[index] ^= 1 << self.dice.below(32);
        }
        if self.is(Defect::FlipBit) && self.dice.chance(1, 4) {
            let index = self.dice.index(data.len());
            data[index] = self.flipped(&data[index].clone());
        }
        let mut batch = snapstore::EventBatch::default();
        batch.copy_read(copy, &crcs);
        let op = self.machine.store.write(block * PER_BLOCK, &data, false);
        if self.is(Defect::EarlyWritten) {
            batch.events.push(Event::CopyWritten {
                copy,
                result: Ok(()),
            });
            self.io.insert((Dev::Store, op), Use::Forgotten);
        } else {
            self.io.insert((Dev::Store, op), Use::CopyWritten(copy));
        }
        self.mail_out(Mail {
            events: batch.events,
            crcs: batch.crcs,
        });
        Ok(())
    }

    /// A copy's write completed; never told before its read was.
    fn copy_written(&mut self, copy: IoId, result: Result<(), IoError>) {
        let told = Event::CopyWritten { copy, result };
        let waiting = self
            .mail
            .iter_mut()
            .map(|mail| &mut mail.what)
            .find(|mail| {
                let reads = |e: &Event| matches!(e, Event::CopyRead { copy: c, .. } if *c == copy);
                mail.events.iter().any(reads)
            });
        match waiting {
            Some(mail) => mail.events.push(told),
            None => self.post(told),
        }
    }

    /// Part of a snapshot arrived: verify what is from the store, keep what is wanted.
    fn piece_read(
        &mut self,
        owner: u64,
        index: usize,
        result: Result<Vec<Data>, IoError>,
    ) -> Outcome {
        let chunk = self.chunk;
        let unverified = self.is(Defect::Unverified) && self.dice.chance(1, 4);
        let Some(request) = self.requests.get_mut(&owner) else {
            return Ok(());
        };
        let Some(piece) = request.pieces.get(index).cloned() else {
            return Ok(());
        };
        let (first, count) = request.range();
        let start = (piece.first * chunk).max(first);
        let end = ((piece.first + piece.count) * chunk).min(first + count);
        let mut sectors = match result {
            Ok(sectors) => sectors,
            Err(error) => {
                request.failure = Some(Failure::Device(error));
                return self.part_done(owner);
            }
        };
        let mut skip = 0;
        if let snapstore::engine::Source::Store { block } = piece.source {
            let inside = start - piece.first * chunk;
            skip = (inside % PER_BLOCK) as usize;
            let wanted = checksums_of(self.engine.checksum(), &sectors);
            let from = (inside / PER_BLOCK) as usize;
            let known = piece.crcs.get(from..from + wanted.len()).unwrap_or(&[]);
            let bad = (0..wanted.len()).find(|i| known.get(*i) != Some(&wanted[*i]));
            if let Some(bad) = bad {
                request.failure = Some(Failure::Mismatch(block + (from + bad) as u64));
            }
            if unverified {
                sectors.reverse();
            }
        }
        let wanted = sectors.into_iter().skip(skip).take((end - start) as usize);
        for (slot, sector) in request.got[(start - first) as usize..]
            .iter_mut()
            .zip(wanted)
        {
            *slot = sector;
        }
        self.part_done(owner)
    }

    /// The same sector with one bit flipped.
    fn flipped(&mut self, data: &Data) -> Data {
        let mut bytes = *data.bytes();
        let bit = self.dice.below(SECTOR as u64 * 8) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
        Data::of(&bytes)
    }

    /// Whether a write of the engine to `first .. first + count` of the store
    /// overlaps one that is still in flight: their order would be undefined.
    pub(super) fn overlaps(&self, first: u64, count: u64) -> Option<OpId> {
        self.machine.store.writing(first, count)
    }
}
