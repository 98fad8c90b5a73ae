//! Reads of snapshots under a grant, piece by piece, each verified.
//!
//! Every piece lands in the request's own buffer at its place among the whole
//! blocks around the range, so checksums are computed over memory that nobody
//! else can change.

use snapstore::engine::{CrcRange, Source};
use snapstore::ids::GrantId;
use snapstore::{BLOCK_SIZE, Checksum, Event, Tag};

use super::request::{Active, State};
use super::transfer::Then;
use super::types::blocks_around;
use super::{Action, DeviceSlot, Extent, Lane, Memory, Request, Target, Verb};

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Most chunks one block status holds read-locks of; the answer may be short.
const STATUS_CHUNKS: u64 = 1024;

/// How far a read of a snapshot is.
#[derive(Debug, Default)]
pub(super) struct SnapshotRead {
    grant: Option<GrantId>,
    /// Chunks asked for.
    asked: u64,
    /// Chunks that pieces have arrived for.
    covered: u64,
    /// Operations in flight.
    outstanding: u32,
    error: Option<i32>,
    /// The store's checksum of every block of the buffer that comes from it.
    expected: Vec<u32>,
    /// For block status: `(first byte, bytes, data)`, in any order.
    extents: Vec<(u64, u64, bool)>,
}

/// One piece of a granted read, as the engine describes it.
pub(super) struct Piece {
    pub(super) grant: GrantId,
    pub(super) first: u64,
    pub(super) count: u32,
    pub(super) source: Source,
    pub(super) crcs: CrcRange,
}

impl Lane {
    pub(super) fn ask_snapshot(&mut self, key: usize, tag: Tag) {
        let owner = self.owner(key);
        let Some((request, _)) = self.snapshot(key) else {
            return;
        };
        let Some(volume) = self.volume(request.volume) else {
            return;
        };
        let (first, mut count) = volume.chunks(request.offset, request.end());
        if request.verb == Verb::Extents {
            count = count.min(STATUS_CHUNKS);
        }
        let (store, volume) = (volume.store, volume.id);
        if let Some((request, read)) = self.snapshot(key) {
            read.asked = count;
            if request.verb == Verb::Read {
                let (start, end) = blocks_around(request.offset, request.len);
                read.expected.resize(((end - start) / BLOCK) as usize, 0);
            }
        }
        self.tell(
            store,
            Event::Read {
                owner,
                volume,
                tag,
                first,
                count: count as u32,
            },
        );
    }

    /// A piece of the grant arrived.
    pub(super) fn read_from(&mut self, key: usize, piece: &Piece, arena: &[u32]) {
        let Some((request, read)) = self.snapshot(key) else {
            return;
        };
        read.grant = Some(piece.grant);
        read.covered += u64::from(piece.count);
        if let Err(errno) = self.start_piece(key, request, piece, arena)
            && let Some((_, read)) = self.snapshot(key)
        {
            read.error.get_or_insert(errno);
        }
        self.settle_read(key);
    }

    fn start_piece(
        &mut self,
        key: usize,
        request: Request,
        piece: &Piece,
        arena: &[u32],
    ) -> Result<(), i32> {
        let volume = self.volume(request.volume).ok_or(libc::EIO)?;
        let (from, to) = volume.bytes(piece.first, piece.count).ok_or(libc::EIO)?;
        let (origin, store) = (volume.device, volume.store);
        let Target::Snapshot { size, .. } = request.target else {
            return Err(libc::EIO);
        };
        let (start, end) = blocks_around(request.offset, request.len);
        let (begin, end) = (from.max(start), to.min(end));
        if begin >= end {
            return Err(libc::EIO);
        }
        if request.verb == Verb::Extents {
            return self.start_status(key, request, piece.source, begin, end);
        }
        let at = (begin - start) as u32;
        let (device, offset, end, then) = match piece.source {
            // Beyond the end of the snapshot there is nothing to read or to want.
            Source::Origin => (origin, begin, end.min(size), Then::Request(key)),
            Source::Store { block } => {
                let device = self.store(store).ok_or(libc::EIO)?.device;
                self.expect(key, at, begin - from, end - begin, piece.crcs.of(arena))?;
                let offset = block
                    .checked_mul(BLOCK)
                    .and_then(|b| b.checked_add(begin - from));
                (device, offset.ok_or(libc::EIO)?, end, Then::Verify(key))
            }
        };
        let len = end
            .checked_sub(begin)
            .filter(|len| *len > 0)
            .ok_or(libc::EIO)? as u32;
        self.issue_for(key);
        self.issue(
            device,
            Action::Read {
                buffer: request.buffer,
                at,
                offset,
                len,
            },
            then,
        );
        Ok(())
    }

    /// Notes the checksums of a piece from the store: `skip` bytes into the
    /// piece, `len` bytes from `at` in the buffer.
    fn expect(
        &mut self,
        key: usize,
        at: u32,
        skip: u64,
        len: u64,
        crcs: &[u32],
    ) -> Result<(), i32> {
        let (_, read) = self.snapshot(key).ok_or(libc::EIO)?;
        let (skip, count) = ((skip / BLOCK) as usize, (len / BLOCK) as usize);
        let first = at as usize / BLOCK_SIZE;
        let from = crcs.get(skip..skip + count).ok_or(libc::EIO)?;
        read.expected
            .get_mut(first..first + count)
            .ok_or(libc::EIO)?
            .copy_from_slice(from);
        Ok(())
    }

    fn start_status(
        &mut self,
        key: usize,
        request: Request,
        source: Source,
        begin: u64,
        end: u64,
    ) -> Result<(), i32> {
        let (begin, end) = (begin.max(request.offset), end.min(request.end()));
        if source == Source::Origin {
            let device = self.volume(request.volume).ok_or(libc::EIO)?.device;
            self.issue_for(key);
            let action = Action::Extents {
                offset: begin,
                len: end - begin,
            };
            self.issue(device, action, Then::Request(key));
        } else if let Some((_, read)) = self.snapshot(key) {
            read.extents.push((begin, end - begin, true));
        }
        Ok(())
    }

    fn issue_for(&mut self, key: usize) {
        if let Some((_, read)) = self.snapshot(key) {
            read.outstanding += 1;
        }
    }

    /// A piece was read from the store. What does not match its checksums is read once
    /// more: a fault on the way is not damage.
    pub(super) fn piece_read(
        &mut self,
        key: usize,
        store: DeviceSlot,
        action: Action,
        again: bool,
        memory: &impl Memory,
    ) {
        let result = match self.mismatch(key, &action, memory) {
            Ok(None) => Ok(()),
            Ok(Some(_)) if !again => {
                return self.issue(store, action, Then::VerifyAgain(key));
            }
            Ok(Some(block)) => {
                self.tell_damage(key, &action, block);
                Err(libc::EIO)
            }
            Err(errno) => Err(errno),
        };
        self.piece_moved(key, result);
    }

    /// Compares what was read from the store with its checksums: the first block of it
    /// that does not match.
    fn mismatch(
        &mut self,
        key: usize,
        action: &Action,
        memory: &impl Memory,
    ) -> Result<Option<u64>, i32> {
        let Action::Read {
            buffer, at, len, ..
        } = *action
        else {
            return Ok(None);
        };
        let checksum = self.checksum_of(key).ok_or(libc::EIO)?;
        let mut found = std::mem::take(&mut self.scratch);
        found.clear();
        memory.checksum(checksum, buffer, at, len, &mut found);
        let first = at as usize / BLOCK_SIZE;
        let Some((_, read)) = self.snapshot(key) else {
            return Err(libc::EIO);
        };
        let expected = read.expected.get(first..first + found.len());
        let bad = expected.map(|expected| {
            let mut pairs = found.iter().zip(expected);
            pairs.position(|(found, expected)| found != expected)
        });
        self.scratch = found;
        Ok(bad.ok_or(libc::EIO)?.map(|block| block as u64))
    }

    /// Tells the engine of a damaged block: the one so many blocks into what was read.
    fn tell_damage(&mut self, key: usize, action: &Action, block: u64) {
        let (&Action::Read { at, offset, .. }, Some((request, _))) = (action, self.snapshot(key))
        else {
            return;
        };
        let (Some(volume), Target::Snapshot { tag, .. }) =
            (self.volume(request.volume), request.target)
        else {
            return;
        };
        let (start, _) = blocks_around(request.offset, request.len);
        let place = start + u64::from(at) + block * BLOCK;
        let damaged = Event::DataDamaged {
            volume: volume.id,
            tag,
            chunk: volume.chunks(place, place + 1).0,
            block: offset / BLOCK + block,
        };
        let store = volume.store;
        self.tell(store, damaged);
    }

    /// An operation of the read completed.
    pub(super) fn piece_moved(&mut self, key: usize, result: Result<(), i32>) {
        let Some((_, read)) = self.snapshot(key) else {
            return;
        };
        read.outstanding = read.outstanding.saturating_sub(1);
        if let Err(errno) = result {
            read.error.get_or_insert(errno);
        }
        self.settle_read(key);
    }

    /// The origin told its extents from byte `from` on.
    pub(super) fn piece_extents(&mut self, key: usize, from: u64, extents: &[Extent]) {
        if let Some((_, read)) = self.snapshot(key) {
            let mut at = from;
            for extent in extents {
                read.extents.push((at, extent.len, extent.data));
                at += extent.len;
            }
        }
        self.piece_moved(key, Ok(()));
    }

    /// Answers the read and gives the grant back when nothing is left to wait for.
    fn settle_read(&mut self, key: usize) {
        let Some((request, read)) = self.snapshot(key) else {
            return;
        };
        if read.outstanding > 0 || read.covered < read.asked {
            return;
        }
        let (grant, error) = (read.grant, read.error);
        let extents = merged(request.offset, &mut read.extents);
        let store = self.volume(request.volume).map(|volume| volume.store);
        if let (Some(grant), Some(store)) = (grant, store) {
            self.tell(store, Event::ReadDone { grant });
        }
        self.finish_with(key, error.map_or(Ok(()), Err), extents);
    }

    /// What covers the data of the store that a request reads.
    fn checksum_of(&mut self, key: usize) -> Option<Checksum> {
        let (request, _) = self.snapshot(key)?;
        let store = self.volume(request.volume)?.store;
        Some(self.store(store)?.checksum)
    }

    fn snapshot(&mut self, key: usize) -> Option<(Request, &mut SnapshotRead)> {
        match self.requests.get_mut(key) {
            Some(Active {
                request,
                state: State::Snapshot(read),
            }) => Some((*request, read)),
            _ => None,
        }
    }
}

/// Sorts pieces and joins neighbours of a kind, up to the first gap.
fn merged(offset: u64, pieces: &mut [(u64, u64, bool)]) -> Vec<Extent> {
    pieces.sort_unstable();
    let mut extents: Vec<Extent> = Vec::new();
    let mut at = offset;
    for &mut (from, len, data) in pieces {
        if from != at {
            break;
        }
        at += len;
        match extents.last_mut() {
            Some(last) if last.data == data => last.len += len,
            _ => extents.push(Extent { len, data }),
        }
    }
    extents
}
