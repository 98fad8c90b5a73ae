//! Group commit: journal blocks, one flush, publish.
//!
//! Records wait in `open`. When no commit is in flight, everything waiting is
//! sealed into journal blocks; those writes run beside the data writes of the
//! copyouts they name. When all of them have completed, one flush of the store
//! makes them durable, and only then the records take effect, in order. At most
//! one commit is in flight, so a record is never published before an earlier one
//! and a flush never covers a write it did not follow (hazard 6).
//!
//! Any store write or flush that fails latches the store: what has reached the
//! disk is then unknown, and nothing may be built on it (hazards 8, 9).

use std::sync::Arc;

use super::{CommandError, Effect, Effects, Engine, Io, Notice, Reply};
use crate::device::IoError;
use crate::format::journal::{JOURNAL_ROOM, JournalBlock, Record};
use crate::ids::{CommandId, Tag, VolumeId};

/// Most journal blocks in one commit.
const MAX_BLOCKS: u64 = 64;

/// What happens when a record is durable, besides taking effect.
#[derive(Clone, Debug)]
pub(super) enum Done {
    Nothing,
    /// One chunk of this copy is safe.
    Copied {
        copy: usize,
    },
    Reply(CommandId, Result<Reply, CommandError>),
    /// A batch of purged exceptions.
    PurgeBatch,
    /// The purge of this pass is complete.
    PurgeEnd,
    /// The take under way has its snapshots.
    TakeEnd(Result<Tag, CommandError>),
    /// A victim was dropped to make room.
    VictimDropped(VolumeId, Tag),
}

#[derive(Debug)]
pub(super) struct Queued {
    record: Record,
    done: Done,
}

/// The journal ring and the commits going into it.
#[derive(Debug)]
pub(super) struct Journal {
    /// First block of the ring.
    pub(super) first: u64,
    /// Blocks in the ring.
    pub(super) blocks: u64,
    /// Sequence of the next block to be sealed.
    pub(super) next: u64,
    /// First sequence that the last durable checkpoint does not hold.
    pub(super) tail: u64,
    /// CRC of the last sealed block.
    pub(super) chain: u32,
    /// Every block below this sequence is known flushed.
    pub(super) flushed: u64,
    open: Vec<Queued>,
    flight: Option<Flight>,
}

#[derive(Debug)]
struct Flight {
    records: Vec<Queued>,
    /// Journal blocks not yet written.
    blocks: usize,
    /// Copies named here whose data is not yet written.
    data: Vec<usize>,
    flushing: bool,
}

impl Journal {
    pub(super) fn new(first: u64, blocks: u64, next: u64, chain: u32) -> Self {
        Self {
            first,
            blocks,
            next,
            tail: next,
            chain,
            flushed: next,
            open: Vec::new(),
            flight: None,
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.next - self.tail
    }

    pub(super) fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    pub(super) fn idle(&self) -> bool {
        self.flight.is_none() && self.open.is_empty()
    }

    /// Records that will take effect once durable.
    pub(super) fn waiting(&self) -> usize {
        self.open.len() + self.flight.as_ref().map_or(0, |f| f.records.len())
    }
}

impl Engine {
    /// Adds a record to the next commit.
    pub(super) fn append(&mut self, record: Record, done: Done) {
        self.journal.open.push(Queued { record, done });
    }

    /// Begins a commit of everything waiting, if none is in flight.
    pub(super) fn seal(&mut self, out: &mut Effects) {
        let journal = &mut self.journal;
        if journal.flight.is_some() || journal.open.is_empty() || self.failed.is_some() {
            return;
        }
        let room = (journal.blocks - journal.used()).min(MAX_BLOCKS);
        if room == 0 {
            self.checkpoint.wanted = true;
            return;
        }
        let (blocks, taken) = pack(&journal.open, room as usize);
        let records: Vec<Queued> = journal.open.drain(..taken).collect();
        let count = blocks.len();
        for (count, records) in blocks {
            self.write_journal_block(count, records, out);
        }
        let mut data: Vec<usize> = records
            .iter()
            .filter_map(|q| match q.done {
                Done::Copied { copy } => Some(copy),
                _ => None,
            })
            .filter(|copy| self.copies.get(*copy).is_some_and(|c| !c.written))
            .collect();
        data.dedup();
        self.journal.flight = Some(Flight {
            records,
            blocks: count,
            data,
            flushing: false,
        });
        self.counters.commits += 1;
    }

    fn write_journal_block(&mut self, count: u16, records: Vec<u8>, out: &mut Effects) {
        let journal = &mut self.journal;
        let at = journal.first + journal.next % journal.blocks;
        let block = JournalBlock {
            seq: journal.next,
            flushed: journal.flushed,
            chain: journal.chain,
            generation: self.checkpoint.generation,
            count,
            records,
        };
        let (data, crc) = block.encode(at, self.geometry.store);
        journal.chain = crc;
        journal.next += 1;
        self.counters.journal_bytes += crate::BLOCK_SIZE as u64;
        let io = self.new_io(Io::Journal);
        out.list.push(Effect::WriteBlock {
            io,
            block: at,
            data: Arc::new(data),
            fua: false,
        });
    }

    pub(super) fn journal_written(&mut self, result: Result<(), IoError>, out: &mut Effects) {
        if let Err(error) = result {
            return self.fail_store(&format!("a journal write failed: {error}"), out);
        }
        if let Some(flight) = &mut self.journal.flight {
            flight.blocks -= 1;
        }
        self.flush_commit(out);
    }

    /// The data of a copy has been written.
    pub(super) fn data_written(&mut self, copy: usize, out: &mut Effects) {
        if let Some(flight) = &mut self.journal.flight {
            flight.data.retain(|c| *c != copy);
        }
        self.flush_commit(out);
    }

    pub(super) fn flush_commit(&mut self, out: &mut Effects) {
        if self.flushing || self.failed.is_some() {
            return;
        }
        let Some(flight) = &mut self.journal.flight else {
            return;
        };
        if flight.flushing || flight.blocks > 0 || !flight.data.is_empty() {
            return;
        }
        flight.flushing = true;
        self.flushing = true;
        let io = self.new_io(Io::CommitFlush);
        out.list.push(Effect::FlushStore { io });
    }

    pub(super) fn commit_flushed(&mut self, result: Result<(), IoError>, out: &mut Effects) {
        if let Err(error) = result {
            return self.fail_store(&format!("a flush failed: {error}"), out);
        }
        let Some(flight) = self.journal.flight.take() else {
            return;
        };
        self.journal.flushed = self.journal.next;
        let mut records = flight.records.into_iter();
        while let Some(queued) = records.next() {
            if let Err(damage) = self.state.apply(&queued.record) {
                // Back in the queue, so that whoever waits for them is told.
                let rest = std::iter::once(queued).chain(records);
                self.journal.open.splice(0..0, rest);
                return self.fail_store(&format!("a record could not be applied: {damage}"), out);
            }
            self.publish(queued, out);
        }
    }

    fn publish(&mut self, queued: Queued, out: &mut Effects) {
        self.published(&queued.record, out);
        match queued.done {
            Done::Nothing => {}
            Done::Copied { copy } => self.chunk_copied(copy, &queued.record),
            Done::Reply(id, result) => {
                self.command_busy = false;
                out.list.push(Effect::Reply { id, result });
            }
            Done::PurgeBatch => self.purge_batch_done(),
            Done::PurgeEnd => self.purge_ended(),
            Done::TakeEnd(result) => self.take_ended(result, out),
            Done::VictimDropped(volume, tag) => self.victim_dropped(volume, tag, out),
        }
    }

    /// What a durable record changes in memory beside the state.
    fn published(&mut self, record: &Record, out: &mut Effects) {
        match record {
            Record::TakePrepared { volume, tag, .. } => {
                if let Some(volume) = self.state.volumes.get_mut(volume)
                    && volume.taking == *tag
                {
                    volume.taking = Tag(0);
                    self.wake_stalled();
                }
            }
            Record::TakeAborted { .. } => {
                let all: Vec<VolumeId> = self.state.volumes.keys().copied().collect();
                all.into_iter().for_each(|id| self.snapshot_buried(id));
            }
            Record::SnapshotDeleted { volume, .. } | Record::SnapshotDropped { volume, .. } => {
                self.snapshot_buried(*volume);
            }
            Record::VolumeDeleted { volume } => {
                self.snapshot_buried(*volume);
                self.bury_volume(*volume);
            }
            Record::SnapshotPurged { volume, tag } => {
                out.list.push(Effect::Notice(Notice::SnapshotPurged {
                    volume: *volume,
                    tag: *tag,
                }));
            }
            Record::Purged { .. } => self.counters.chunks_freed += 1,
            _ => {}
        }
    }

    /// Answers every command whose record will never be durable.
    pub(super) fn abandon_commits(&mut self, why: &CommandError, out: &mut Effects) {
        let flight = self
            .journal
            .flight
            .take()
            .map(|f| f.records)
            .unwrap_or_default();
        for queued in flight
            .into_iter()
            .chain(std::mem::take(&mut self.journal.open))
        {
            match queued.done {
                Done::Reply(id, _) => {
                    self.command_busy = false;
                    out.list.push(Effect::Reply {
                        id,
                        result: Err(why.clone()),
                    });
                }
                Done::TakeEnd(_) => self.take_ended(Err(why.clone()), out),
                _ => {}
            }
        }
    }
}

/// Packs records into at most `room` journal blocks; returns the blocks as
/// (record count, bytes) and how many records they hold.
fn pack(open: &[Queued], room: usize) -> (Vec<(u16, Vec<u8>)>, usize) {
    let mut blocks: Vec<(u16, Vec<u8>)> = Vec::new();
    let mut bytes = Vec::with_capacity(256);
    for (index, queued) in open.iter().enumerate() {
        bytes.clear();
        queued.record.encode(&mut bytes);
        let full = blocks.len() == room;
        match blocks
            .last_mut()
            .filter(|(_, b)| b.len() + bytes.len() <= JOURNAL_ROOM)
        {
            Some((count, block)) => {
                *count += 1;
                block.extend_from_slice(&bytes);
            }
            None if full => return (blocks, index),
            None => blocks.push((1, bytes.clone())),
        }
    }
    (blocks, open.len())
}
