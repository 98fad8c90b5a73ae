//! A client's request on its way: origin I/O through the fast path or a grant,
//! snapshot reads piece by piece.

use snapstore::engine::Source;
use snapstore::ids::{GrantId, Owner};
use snapstore::{Event, Tag, VolumeId};

use super::io::Use;
use super::{Answer, Dev, Failure, Outcome, Runtime, Task, Violation};
use crate::sim::defect::Defect;
use crate::sim::value::{Data, PER_BLOCK};

/// What a client may ask of a volume, in sectors within its size.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Overwrite.
    Write {
        /// First sector.
        first: u64,
        /// One entry per sector.
        data: Vec<Data>,
        /// Durable when answered.
        fua: bool,
    },
    /// Give back what can be given back.
    Trim {
        /// First sector.
        first: u64,
        /// Sectors.
        count: u64,
    },
    /// Make everything answered so far durable.
    Flush,
    /// Read the origin.
    Read {
        /// First sector.
        first: u64,
        /// Sectors.
        count: u64,
    },
    /// Read a snapshot.
    ReadSnapshot {
        /// Which.
        tag: Tag,
        /// First sector.
        first: u64,
        /// Sectors.
        count: u64,
    },
}

/// Where part of a snapshot read comes from.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) source: Source,
    pub(super) crcs: Vec<u32>,
}

/// A request and how far it got.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) lane: usize,
    pub(super) volume: VolumeId,
    pub(super) ask: Ask,
    pub(super) born: u64,
    /// Asked the engine and not yet answered.
    pub(super) asked: bool,
    /// Operations not completed, or pieces not read.
    pub(super) parts: usize,
    pub(super) grant: Option<GrantId>,
    pub(super) pieces: Vec<Piece>,
    pub(super) last: bool,
    pub(super) got: Vec<Data>,
    pub(super) failure: Option<Failure>,
}

impl Request {
    pub(super) fn new(lane: usize, volume: VolumeId, ask: Ask, born: u64) -> Self {
        let count = match &ask {
            Ask::Read { count, .. } | Ask::ReadSnapshot { count, .. } => *count,
            _ => 0,
        };
        Self {
            lane,
            volume,
            ask,
            born,
            asked: false,
            parts: 0,
            grant: None,
            pieces: Vec::new(),
            last: false,
            got: vec![Data::zero(); count as usize],
            failure: None,
        }
    }

    /// First sector and number of sectors.
    pub(super) fn range(&self) -> (u64, u64) {
        match &self.ask {
            Ask::Write { first, data, .. } => (*first, data.len() as u64),
            Ask::Trim { first, count }
            | Ask::Read { first, count }
            | Ask::ReadSnapshot { first, count, .. } => (*first, *count),
            Ask::Flush => (0, 0),
        }
    }

    /// First chunk and number of chunks.
    pub(super) fn chunks(&self, chunk: u64) -> (u64, u64) {
        let (first, count) = self.range();
        let end = (first + count.max(1)).div_ceil(chunk);
        (first / chunk, end - first / chunk)
    }
}

impl Runtime {
    /// Starts a request, or starts it again after a refusal or a pause.
    pub(super) fn begin(&mut self, owner: u64) -> Outcome {
        let Some(request) = self.requests.get(&owner) else {
            return Ok(());
        };
        let volume = request.volume;
        let Some(attached) = self.volumes.get(&volume) else {
            let refused = snapstore::engine::RequestError::NoVolume(volume);
            return self.end(owner, Err(Failure::Refused(refused)));
        };
        let dev = Dev::Origin(attached.origin);
        match request.ask.clone() {
            Ask::Write { .. } => self.begin_write(owner),
            Ask::Trim { first, count } => self.begin_trim(owner, first, count),
            Ask::Flush => {
                let defect = self.is(Defect::SkipOriginFlush);
                if defect {
                    self.end(owner, Ok(()))
                } else {
                    self.start(dev, owner, Use::Flush)
                }
            }
            Ask::Read { .. } => self.start(dev, owner, Use::Read),
            Ask::ReadSnapshot { tag, .. } => {
                let (first, count) = request.chunks(self.chunk);
                let owner = Owner(owner);
                self.asked(owner, true)?;
                self.post(Event::Read {
                    owner,
                    volume,
                    tag,
                    first,
                    count: count as u32,
                });
                Ok(())
            }
        }
    }

    fn begin_write(&mut self, owner: u64) -> Outcome {
        let Some(request) = self.requests.get(&owner) else {
            return Ok(());
        };
        let (lane, volume) = (request.lane, request.volume);
        if self.lane_paused(lane, volume) {
            self.lanes[lane].parked.push(owner);
            return Ok(());
        }
        let (first, count) = request.chunks(self.chunk);
        let looked_at = if self.is(Defect::FirstChunkOnly) {
            1
        } else {
            count
        };
        let Some(attached) = self.volumes.get(&volume) else {
            return Ok(());
        };
        if attached.map.all_unique(first, looked_at) {
            return self.issue(owner);
        }
        self.ask_write(owner)
    }

    pub(super) fn ask_write(&mut self, owner: u64) -> Outcome {
        let Some(request) = self.requests.get(&owner) else {
            return Ok(());
        };
        let (first, count) = request.chunks(self.chunk);
        let volume = request.volume;
        self.asked(Owner(owner), true)?;
        self.post(Event::Write {
            owner: Owner(owner),
            volume,
            first,
            count: count as u32,
        });
        Ok(())
    }

    /// A grant arrived: valid only under the epoch it was given for.
    pub(super) fn granted(&mut self, owner: Owner, epoch: u32) -> Outcome {
        self.asked(owner, false)?;
        let Some(request) = self.requests.get(&owner.0) else {
            return Ok(());
        };
        let (lane, volume) = (request.lane, request.volume);
        let Some(attached) = self.volumes.get(&volume) else {
            return self.begin(owner.0);
        };
        let current = attached.map.epoch() == epoch || self.is(Defect::IgnoreEpoch);
        let paused = self.lane_paused(lane, volume);
        if paused && self.dice.chance(1, 2) {
            self.lanes[lane].parked.push(owner.0);
            return Ok(());
        }
        if current && !paused {
            self.issue(owner.0)
        } else {
            self.ask_write(owner.0)
        }
    }

    /// The write goes to the origin.
    fn issue(&mut self, owner: u64) -> Outcome {
        let Some(request) = self.requests.get(&owner) else {
            return Ok(());
        };
        let Some(attached) = self.volumes.get(&request.volume) else {
            return Ok(());
        };
        *self.lanes[request.lane]
            .in_flight
            .entry(request.volume)
            .or_default() += 1;
        self.start(Dev::Origin(attached.origin), owner, Use::Write)
    }

    /// Discards go only to runs of unique chunks; the rest is ignored.
    fn begin_trim(&mut self, owner: u64, first: u64, count: u64) -> Outcome {
        let Some(request) = self.requests.get(&owner) else {
            return Ok(());
        };
        let (lane, volume) = (request.lane, request.volume);
        if self.lane_paused(lane, volume) {
            self.lanes[lane].parked.push(owner);
            return Ok(());
        }
        let Some(Attachment { origin, runs }) = self.unique_runs(volume, first, count) else {
            return Ok(());
        };
        if runs.is_empty() {
            return self.end(owner, Ok(()));
        }
        *self.lanes[lane].in_flight.entry(volume).or_default() += runs.len() as u32;
        for (first, count) in &runs {
            let op = self.machine.origins[origin].discard(*first, *count, &mut self.dice);
            self.io.insert((Dev::Origin(origin), op), Use::Write(owner));
        }
        if let Some(request) = self.requests.get_mut(&owner) {
            request.parts = runs.len();
        }
        Ok(())
    }

    fn unique_runs(&self, volume: VolumeId, first: u64, count: u64) -> Option<Attachment> {
        let attached = self.volumes.get(&volume)?;
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut at = first;
        while at < first + count {
            let chunk = at / self.chunk;
            let end = ((chunk + 1) * self.chunk).min(first + count);
            if attached.map.all_unique(chunk, 1) {
                match runs.last_mut() {
                    Some((start, len)) if *start + *len == at => *len += end - at,
                    _ => runs.push((at, end - at)),
                }
            }
            at = end;
        }
        Some(Attachment {
            origin: attached.origin,
            runs,
        })
    }

    /// A piece of a snapshot read arrives; pieces of one read come in order.
    pub(super) fn add_piece(
        &mut self,
        owner: Owner,
        grant: GrantId,
        piece: Piece,
        last: bool,
    ) -> Outcome {
        let chunk = self.chunk;
        let Some(request) = self.requests.get_mut(&owner.0) else {
            return Err(Violation(format!(
                "a piece for request {} that is not there",
                owner.0
            )));
        };
        let (first, count) = request.chunks(chunk);
        let next = request.pieces.last().map_or(first, |p| p.first + p.count);
        let end = piece.first + piece.count;
        let fits = piece.first == next && piece.count > 0 && end <= first + count;
        let grant_fits = request.grant.is_none_or(|g| g == grant) && !request.last;
        if !fits || !grant_fits || last != (end == first + count) {
            return Err(Violation(format!(
                "piece {piece:?} last {last} does not fit {request:?}"
            )));
        }
        request.grant = Some(grant);
        request.last = last;
        request.parts += 1;
        request.asked = !last;
        request.pieces.push(piece);
        self.later(Task::Piece(
            owner.0,
            self.requests[&owner.0].pieces.len() - 1,
        ));
        if last && self.is(Defect::EarlyReadDone) {
            self.post(Event::ReadDone { grant });
        }
        Ok(())
    }

    /// Reads a piece: the wanted sectors, in whole blocks if from the store.
    pub(super) fn read_piece(&mut self, owner: u64, index: usize) -> Outcome {
        let Some(request) = self.requests.get(&owner) else {
            return Ok(());
        };
        let Some(piece) = request.pieces.get(index) else {
            return Ok(());
        };
        let (first, count) = request.range();
        let start = (piece.first * self.chunk).max(first);
        let end = ((piece.first + piece.count) * self.chunk).min(first + count);
        let (dev, from, len) = match piece.source {
            Source::Origin => {
                let Some(attached) = self.volumes.get(&request.volume) else {
                    return Ok(());
                };
                (Dev::Origin(attached.origin), start, end - start)
            }
            Source::Store { block } => {
                let skip = (start - piece.first * self.chunk) / PER_BLOCK;
                let until = (end - piece.first * self.chunk).div_ceil(PER_BLOCK);
                (
                    Dev::Store,
                    (block + skip) * PER_BLOCK,
                    (until - skip) * PER_BLOCK,
                )
            }
        };
        let disk = self.disk(dev);
        let op = disk.0.read(from, len, disk.1);
        self.io.insert((dev, op), Use::Piece { owner, index });
        Ok(())
    }

    /// One operation or piece of the request is done.
    pub(super) fn part_done(&mut self, owner: u64) -> Outcome {
        let early = self.is(Defect::EarlyReadDone);
        let Some(request) = self.requests.get_mut(&owner) else {
            return Ok(());
        };
        request.parts -= 1;
        let snapshot = matches!(request.ask, Ask::ReadSnapshot { .. });
        if request.parts > 0 || (snapshot && !request.last) {
            return Ok(());
        }
        let result = request.failure.take().map_or(Ok(()), Err);
        if let Some(grant) = request.grant.take().filter(|_| !early) {
            self.post(Event::ReadDone { grant });
        }
        self.end(owner, result)
    }

    /// Answers the client.
    pub(super) fn end(&mut self, owner: u64, result: Result<(), Failure>) -> Outcome {
        let Some(request) = self.requests.remove(&owner) else {
            return Ok(());
        };
        self.answers.push(Answer::Ended {
            owner,
            result: result.map(|()| request.got),
        });
        Ok(())
    }

    /// Marks the request as waiting for the engine, or as answered by it.
    pub(super) fn asked(&mut self, owner: Owner, now: bool) -> Outcome {
        match self.requests.get_mut(&owner.0) {
            Some(request) if request.asked != now => request.asked = now,
            Some(request) => {
                return Err(Violation(format!(
                    "answered, but it did not ask: {request:?}"
                )));
            }
            None => {
                return Err(Violation(format!(
                    "answer to request {}: not there",
                    owner.0
                )));
            }
        }
        Ok(())
    }
}

/// The origin a trim goes to, and which parts of it.
struct Attachment {
    origin: usize,
    runs: Vec<(u64, u64)>,
}
