//! The front ends: clients' requests on their way into a lane, and out of it.

use std::collections::BTreeMap;

use snapstore::engine::RequestError;
use snapstore::{IoError, VolumeId};
use ublk_target::lane::{BufferId, Done, Request, Target, Verb};

use super::device::BROKEN;
use super::{Outcome, Stepper, Threads, Violation};
use crate::sim::runtime::{Answer, Ask, Failure};
use crate::sim::value::{Data, ZERO, bytes_of, sectors_of};

const SECTOR: u64 = crate::sim::value::SECTOR as u64;
const EIO: i32 = 5;
const ENODEV: i32 = 19;

/// A client's request.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) lane: usize,
    volume: VolumeId,
    ask: Ask,
    pub(super) born: u64,
    /// Once the lane has it.
    request: Option<Request>,
    /// Why the engine refused it.
    pub(super) refusal: Option<RequestError>,
}

impl Client {
    pub(super) fn new(lane: usize, volume: VolumeId, ask: Ask, born: u64) -> Self {
        Self {
            lane,
            volume,
            ask,
            born,
            request: None,
            refusal: None,
        }
    }
}

/// Why the lane's last answer was a refusal, if it was one.
pub(super) fn note_refusal(
    clients: &mut BTreeMap<u64, Client>,
    done: Option<&Done>,
    error: RequestError,
) {
    if let Some(client) = done.and_then(|done| clients.get_mut(&done.tag)) {
        client.refusal = Some(error);
    }
}

impl Threads {
    /// A request reaches its lane.
    pub(super) fn begin(&mut self, owner: u64) -> Outcome {
        let Some((volume, ask)) = self.clients.get(&owner).map(|c| (c.volume, c.ask.clone()))
        else {
            return Ok(());
        };
        let Some(slot) = self.volumes.get(&volume).copied() else {
            self.clients.remove(&owner);
            let result = Err(Failure::Refused(RequestError::NoVolume(volume)));
            self.answers.push(Answer::Ended { owner, result });
            return Ok(());
        };
        let (target, verb, (first, count), fua) = self.translate(volume, &ask);
        let (offset, len) = (first * SECTOR, count * SECTOR);
        let Some(client) = self.clients.get_mut(&owner) else {
            return Ok(());
        };
        let thread = &mut self.threads[client.lane];
        let room = Request::buffer_len(target, verb, offset, len);
        let buffer = thread.memory.take(room as usize);
        if let (Ask::Write { data, .. }, Verb::Write) = (&ask, verb) {
            let bytes = bytes_of(data);
            thread
                .memory
                .bytes(buffer, 0, len as u32)
                .copy_from_slice(&bytes);
        }
        let request = Request {
            tag: owner,
            volume: slot,
            target,
            verb,
            offset,
            len,
            fua,
            buffer,
        };
        client.request = Some(request);
        let before = thread.lane.out.ops.len();
        thread.lane.submit(request);
        let issued = thread.lane.out.ops.len() > before;
        let changes = !matches!(verb, Verb::Read | Verb::Flush);
        self.tally.straight += u64::from(issued && changes);
        Ok(())
    }

    /// What a lane is asked for an [`Ask`].
    fn translate(&mut self, volume: VolumeId, ask: &Ask) -> (Target, Verb, (u64, u64), bool) {
        match ask {
            Ask::Write { first, data, fua } => {
                let zeroes = data.iter().all(|sector| sector.value() == ZERO);
                let verb = if zeroes && self.dice.chance(3, 4) {
                    let punch = self.dice.chance(1, 2);
                    Verb::WriteZeroes { punch }
                } else {
                    Verb::Write
                };
                (Target::Origin, verb, (*first, data.len() as u64), *fua)
            }
            Ask::Trim { first, count } => (Target::Origin, Verb::Trim, (*first, *count), false),
            Ask::Flush => (Target::Origin, Verb::Flush, (0, 0), false),
            Ask::Read { first, count } => (Target::Origin, Verb::Read, (*first, *count), false),
            Ask::ReadSnapshot { tag, first, count } => {
                // One that is gone by now is left to the engine to refuse.
                let size = self
                    .core
                    .query(|engine| engine.snapshot_size(volume, *tag))
                    .unwrap_or((first + count) * SECTOR);
                let target = Target::Snapshot { tag: *tag, size };
                (target, Verb::Read, (*first, *count), false)
            }
        }
    }

    /// An answer reaches its client.
    pub(super) fn deliver(&mut self, lane: usize, done: &Done) -> Outcome {
        let owner = done.tag;
        let Some(client) = self.clients.remove(&owner) else {
            return Err(Violation(format!("request {owner} was answered twice")));
        };
        let Some(request) = client.request else {
            return Err(Violation(format!("request {owner} was never asked")));
        };
        let result = match done.result {
            Ok(()) => Ok(self.received(lane, &request)),
            Err(errno) => Err(failure(&client, &request, errno)?),
        };
        self.threads[lane].memory.give(request.buffer);
        self.answers.push(Answer::Ended { owner, result });
        Ok(())
    }

    fn received(&mut self, lane: usize, request: &Request) -> Vec<Data> {
        if request.verb != Verb::Read {
            return Vec::new();
        }
        let at = Request::data_at(request.target, request.offset);
        let buffer: BufferId = request.buffer;
        let memory = &mut self.threads[lane].memory;
        sectors_of(memory.bytes(buffer, at, request.len as u32))
    }
}

/// What an `errno` of a lane means.
fn failure(client: &Client, request: &Request, errno: i32) -> Outcome<Failure> {
    let zeroes = matches!(request.verb, Verb::WriteZeroes { .. });
    Ok(match (&client.refusal, errno) {
        (Some(error), _) if zeroes => Failure::Broken(error.clone()),
        (Some(error), _) => Failure::Refused(error.clone()),
        (None, BROKEN) => Failure::Device(IoError::Errno(BROKEN)),
        // The disks never say so: it is the lane's own.
        (None, EIO) => Failure::Mismatch(0),
        (None, ENODEV) => Failure::Refused(RequestError::NoVolume(client.volume)),
        (None, _) => {
            let what = format!("{request:?} ended with errno {errno}, which nobody gave");
            return Err(Violation(what));
        }
    })
}
