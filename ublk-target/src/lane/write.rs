//! Changes of an origin: writes, zeroes and trims.
//!
//! A change advances in *segments*: as much as the unique map allows at once,
//! else up to [`SEGMENT`] bytes that the engine is asked about. A segment counts
//! as in flight from its first operation to its last; between segments the
//! volume may be paused.

use snapstore::Event;

use super::request::{Active, State};
use super::transfer::Then;
use super::{Action, Lane, Request, Verb, VolumeSlot};

/// Most bytes the engine is asked to make unique at once; more for a larger chunk.
const SEGMENT: u64 = 1 << 20;
/// Most bytes of one zeroing or trimming operation.
const RANGE: u64 = 256 << 20;
/// Most bytes of shared chunks that a trim passes over.
const TRIM: u64 = 4 << 30;
/// Chunks probed at once when looking for what may be trimmed.
const PROBE: u64 = 32;

/// How far a change is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    /// Everything before this byte is done.
    cursor: u64,
    /// The current segment ends here.
    segment_end: u64,
    phase: Phase,
    /// How the piece in flight is carried out.
    way: Way,
}

/// What a piece asks of the device. Remembered with the piece: when the device
/// turns out not to know it, several pieces may be in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Trim,
    Punch,
    Zero,
    Write,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between segments: parked, or the engine was asked.
    Waiting,
    /// A segment is being carried out.
    Issued,
    /// All is written; a flush makes it durable.
    Flushing,
}

impl Change {
    pub(super) fn at(offset: u64) -> Self {
        Self {
            cursor: offset,
            segment_end: offset,
            phase: Phase::Waiting,
            way: Way::Write,
        }
    }
}

impl Lane {
    /// Goes on with a change that has nothing in flight.
    pub(super) fn advance_change(&mut self, key: usize) {
        let Some((request, change)) = self.change(key) else {
            return;
        };
        let Some(volume) = self.volume(request.volume) else {
            return;
        };
        if change.cursor == request.end() {
            return self.change_done(key, request);
        }
        if volume.is_paused() {
            volume.parked.push_back(key);
            return;
        }
        if request.verb == Verb::Trim {
            return self.advance_trim(key, request, change);
        }
        let whole = request.end().min(change.cursor + RANGE);
        if volume.all_unique(change.cursor, whole) {
            return self.issue_segment(key, change.cursor, whole);
        }
        let chunk = volume.chunk_size();
        let reach = (change.cursor + SEGMENT.max(chunk)) / chunk * chunk;
        let end = whole.min(reach);
        if end < whole && volume.all_unique(change.cursor, end) {
            return self.issue_segment(key, change.cursor, end);
        }
        self.ask_write(key, request, change.cursor, end);
    }

    fn ask_write(&mut self, key: usize, request: Request, start: u64, end: u64) {
        self.set_change(
            key,
            Change {
                cursor: start,
                segment_end: end,
                phase: Phase::Waiting,
                way: Way::Write,
            },
        );
        let owner = self.owner(key);
        let Some(volume) = self.volume(request.volume) else {
            return;
        };
        let (first, count) = volume.chunks(start, end);
        let (store, volume) = (volume.store, volume.id);
        self.tell(
            store,
            Event::Write {
                owner,
                volume,
                first,
                count: count as u32,
            },
        );
    }

    /// The engine granted the segment under `epoch`.
    pub(super) fn write_granted(&mut self, key: usize, epoch: u32) {
        let Some((request, change)) = self.change(key) else {
            return;
        };
        let Some(volume) = self.volume(request.volume) else {
            return;
        };
        if volume.is_paused() {
            volume.parked.push_back(key);
        } else if volume.unique.epoch() == epoch {
            self.issue_segment(key, change.cursor, change.segment_end);
        } else {
            self.ask_write(key, request, change.cursor, change.segment_end);
        }
    }

    /// Trims the next run of unique chunks; what is shared is left alone.
    fn advance_trim(&mut self, key: usize, request: Request, change: Change) {
        let Some(volume) = self.volume(request.volume) else {
            return;
        };
        // What lies beyond a long stretch of shared chunks is not looked for.
        let end = request.end().min(change.cursor.saturating_add(TRIM));
        let chunk = volume.chunk_size();
        let next = |at: u64, chunks: u64| (at / chunk * chunk + chunks * chunk).min(end);
        let start = volume.next_unique(change.cursor, end);
        let mut stop = start;
        while stop < end && stop - start < RANGE {
            let (many, one) = (next(stop, PROBE), next(stop, 1));
            stop = if volume.all_unique(stop, many) {
                many
            } else if volume.all_unique(stop, one) {
                one
            } else {
                break;
            };
        }
        if !volume.trims || start == stop {
            return self.change_done(key, request);
        }
        self.issue_segment(key, start, stop);
    }

    fn issue_segment(&mut self, key: usize, start: u64, end: u64) {
        let Some((request, _)) = self.change(key) else {
            return;
        };
        self.set_change(
            key,
            Change {
                cursor: start,
                segment_end: end,
                phase: Phase::Issued,
                way: Way::Write,
            },
        );
        if let Some(volume) = self.volume(request.volume) {
            volume.in_flight += 1;
        }
        self.issue_piece(key);
    }

    /// Issues what is left of the segment, or as much as one operation takes.
    fn issue_piece(&mut self, key: usize) {
        let Some((request, change)) = self.change(key) else {
            return;
        };
        let (zeroes, zeroes_len) = self.zeroes;
        let Some(volume) = self.volume(request.volume) else {
            return;
        };
        let (offset, len) = (change.cursor, change.segment_end - change.cursor);
        let way = match request.verb {
            Verb::Trim => Way::Trim,
            Verb::WriteZeroes { punch: true } if volume.punches => Way::Punch,
            Verb::WriteZeroes { .. } if volume.zeroes => Way::Zero,
            _ => Way::Write,
        };
        let action = match (way, request.verb) {
            (Way::Trim, _) => Action::Trim { offset, len },
            (Way::Punch, _) => Action::Punch { offset, len },
            (Way::Zero, _) => Action::Zero { offset, len },
            (Way::Write, Verb::WriteZeroes { .. }) => Action::Write {
                buffer: zeroes,
                at: 0,
                offset,
                len: len.min(u64::from(zeroes_len)) as u32,
                fua: false,
            },
            (Way::Write, _) => Action::Write {
                buffer: request.buffer,
                at: (offset - request.offset) as u32,
                offset,
                len: len as u32,
                fua: request.fua,
            },
        };
        let device = volume.device;
        self.set_change(key, Change { way, ..change });
        self.issue(device, action, Then::Request(key));
    }

    /// An operation of a change completed.
    pub(super) fn change_moved(&mut self, key: usize, result: Result<u32, i32>) {
        let Some((request, change)) = self.change(key) else {
            return;
        };
        if change.phase == Phase::Flushing {
            return self.finish(key, result.map(drop));
        }
        let moved = match result {
            Ok(moved) => moved,
            Err(errno) if self.degrade(request.volume, change.way, errno) => {
                if request.verb != Verb::Trim {
                    return self.issue_piece(key);
                }
                0
            }
            Err(errno) => {
                self.change_landed(request.volume);
                return self.finish(key, Err(errno));
            }
        };
        // Fallocate moves no bytes: it does the whole piece.
        let cursor = match moved {
            0 => change.segment_end,
            moved => change.cursor + u64::from(moved),
        };
        self.set_change(key, Change { cursor, ..change });
        // A pause does not wait for the rest of a long segment: it is probed anew.
        let paused = self
            .volume(request.volume)
            .is_some_and(|volume| volume.is_paused());
        if cursor < change.segment_end && !paused {
            return self.issue_piece(key);
        }
        self.set_change(
            key,
            Change {
                cursor,
                phase: Phase::Waiting,
                ..change
            },
        );
        self.change_landed(request.volume);
        self.advance_change(key);
    }

    /// Whether a failed operation has a lesser way that may work; remembers it.
    fn degrade(&mut self, slot: VolumeSlot, way: Way, errno: i32) -> bool {
        if !matches!(errno, libc::EOPNOTSUPP | libc::ENOSYS) {
            return false;
        }
        let Some(volume) = self.volume(slot) else {
            return false;
        };
        match way {
            Way::Trim => volume.trims = false,
            Way::Punch => volume.punches = false,
            Way::Zero => volume.zeroes = false,
            Way::Write => return false,
        }
        true
    }

    fn change_done(&mut self, key: usize, request: Request) {
        let device = self.volume(request.volume).map(|volume| volume.device);
        match device {
            // Zeroing and trimming have no FUA of their own.
            Some(device) if request.fua && request.verb != Verb::Write => {
                let end = request.end();
                let change = Change {
                    cursor: end,
                    segment_end: end,
                    phase: Phase::Flushing,
                    way: Way::Write,
                };
                self.set_change(key, change);
                // Nor does it speak of other writes.
                let flush = Action::Flush { asked: false };
                self.issue(device, flush, Then::Request(key));
            }
            _ => self.finish(key, Ok(())),
        }
    }

    fn change(&self, key: usize) -> Option<(Request, Change)> {
        match self.requests.get(key) {
            Some(Active {
                request,
                state: State::Change(change),
            }) => Some((*request, *change)),
            _ => None,
        }
    }

    fn set_change(&mut self, key: usize, change: Change) {
        if let Some(Active { state, .. }) = self.requests.get_mut(key) {
            *state = State::Change(change);
        }
    }

    /// Parked changes of a volume; for tests and status.
    #[must_use]
    pub fn parked(&self, slot: VolumeSlot) -> usize {
        self.volumes
            .get(slot.0 as usize)
            .and_then(Option::as_ref)
            .map_or(0, |v| v.parked.len())
    }
}
