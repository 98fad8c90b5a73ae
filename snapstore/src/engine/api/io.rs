//! Events and effects. The rules for the runtime are at the top of the folder.

use std::sync::Arc;

use super::{Command, CommandError, Notice, Reply, RequestError};
use crate::block::Block;
use crate::device::IoError;
use crate::ids::{CommandId, GrantId, IoId, Owner, Tag, VolumeId};

/// A range in the `crcs` arena (checksums of the store's algorithm) of an [`EventBatch`] or of [`Effects`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrcRange {
    /// Index of the first checksum.
    pub start: u32,
    /// Number of checksums.
    pub len: u32,
}

impl CrcRange {
    /// The checksums this range names in `arena`; empty if out of bounds.
    #[must_use]
    pub fn of(self, arena: &[u32]) -> &[u32] {
        let start = self.start as usize;
        arena.get(start..start + self.len as usize).unwrap_or(&[])
    }
}

/// What [`Event::Compare`] asks.
#[derive(Clone, Copy, Debug)]
pub struct Compare {
    /// Who asks.
    pub owner: Owner,
    /// The volume.
    pub volume: VolumeId,
    /// The older snapshot.
    pub from: Tag,
    /// The newer one; `None`: the volume as it is.
    pub to: Option<Tag>,
    /// First chunk.
    pub first: u64,
    /// Number of chunks, at least 1.
    pub count: u64,
}

/// What the engine is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// An origin write (or write-zeroes) that the fast path refused: make chunks
    /// `first .. first + count` unique. Answered by [`Effect::WriteGranted`] or
    /// [`Effect::WriteFailed`] with the same owner.
    Write {
        /// Who asks.
        owner: Owner,
        /// The origin volume.
        volume: VolumeId,
        /// First chunk.
        first: u64,
        /// Number of chunks, at least 1.
        count: u32,
    },
    /// A read of snapshot `tag`. Answered by one or more [`Effect::ReadFrom`], or
    /// by one [`Effect::ReadFailed`].
    Read {
        /// Who asks.
        owner: Owner,
        /// The volume.
        volume: VolumeId,
        /// The snapshot.
        tag: Tag,
        /// First chunk.
        first: u64,
        /// Number of chunks, at least 1.
        count: u32,
    },
    /// Which chunks of a range differ between a snapshot and a newer one, or the volume as
    /// it is. Answered by one or more [`Effect::Compared`], or by one
    /// [`Effect::ReadFailed`]. As with [`Command::Changes`], a chunk whose write waited for
    /// its copy while the newer snapshot was taken may be named although the two are the
    /// same.
    Compare(Compare),
    /// Every piece of a granted read has completed (well or not).
    ReadDone {
        /// The grant of the [`Effect::ReadFrom`]s.
        grant: GrantId,
    },
    /// A block of a copied-out chunk does not match its checksum, and did not when it was
    /// read once more. Told before the grant it was read under is given back.
    DataDamaged {
        /// Whose chunk.
        volume: VolumeId,
        /// The snapshot that was read.
        tag: Tag,
        /// The chunk.
        chunk: u64,
        /// The block in the store.
        block: u64,
    },
    /// First answer to [`Effect::Copy`]: the origin was read. On success the
    /// checksums (one per 4 KiB, all chunks of the run) are in the batch's arena
    /// and the store write **has been submitted already**; [`Event::CopyWritten`]
    /// will follow. On failure nothing was written and no `CopyWritten` follows.
    CopyRead {
        /// The copy.
        copy: IoId,
        /// The store's checksum of every 4 KiB read, or why the origin could not be read.
        result: Result<CrcRange, IoError>,
    },
    /// Second answer to [`Effect::Copy`]: the write to the store completed.
    CopyWritten {
        /// The copy.
        copy: IoId,
        /// How it went.
        result: Result<(), IoError>,
    },
    /// Answer to [`Effect::ReadBlock`].
    BlockRead {
        /// The I/O.
        io: IoId,
        /// The block as it is on the device; the engine verifies it.
        result: Result<Arc<Block>, IoError>,
    },
    /// Answer to [`Effect::WriteBlock`].
    BlockWritten {
        /// The I/O.
        io: IoId,
        /// How it went.
        result: Result<(), IoError>,
    },
    /// Answer to [`Effect::FlushStore`], [`Effect::FlushOrigin`] and
    /// [`Effect::RecordInvalid`].
    Flushed {
        /// The I/O.
        io: IoId,
        /// How it went.
        result: Result<(), IoError>,
    },
    /// Answer to [`Effect::Pause`].
    Paused {
        /// The pause.
        io: IoId,
        /// `false`: draining took too long and was given up; the runtime has
        /// resumed by itself and no [`Effect::Resume`] follows.
        drained: bool,
    },
    /// A person's command. Answered by [`Effect::Reply`].
    Command {
        /// Handed back in the reply.
        id: CommandId,
        /// What to do.
        command: Command,
    },
    /// Time passes. Expected about every 100 ms; drives periodic checkpoints.
    Tick {
        /// Milliseconds since the Unix epoch.
        now_ms: u64,
    },
}

/// Events handed to one `step`, with the checksums they refer to.
#[derive(Clone, Debug, Default)]
pub struct EventBatch {
    /// The events, in order.
    pub events: Vec<Event>,
    /// Checksums of [`Event::CopyRead`]s.
    pub crcs: Vec<u32>,
}

impl EventBatch {
    /// Adds a successful [`Event::CopyRead`].
    pub fn copy_read(&mut self, copy: IoId, crcs: &[u32]) {
        let range = CrcRange {
            start: self.crcs.len() as u32,
            len: crcs.len() as u32,
        };
        self.crcs.extend_from_slice(crcs);
        self.events.push(Event::CopyRead {
            copy,
            result: Ok(range),
        });
    }

    /// Moves everything from `other` to the end of `self`, leaving `other` empty
    /// with its capacity.
    pub fn append(&mut self, other: &mut Self) {
        let base = self.crcs.len() as u32;
        self.crcs.append(&mut other.crcs);
        self.events.extend(other.events.drain(..).map(|mut event| {
            if let Event::CopyRead {
                result: Ok(range), ..
            } = &mut event
            {
                range.start += base;
            }
            event
        }));
    }

    /// Forgets everything, keeping capacity.
    pub fn clear(&mut self) {
        self.events.clear();
        self.crcs.clear();
    }

    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// Where the bytes of a piece of a snapshot read are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the origin, at the same offset. The engine holds the chunks' read-locks
    /// until [`Event::ReadDone`].
    Origin,
    /// In the store, as a run of chunks beginning at this 4 KiB block. Verified
    /// against the checksums of the piece.
    Store {
        /// First block of the run.
        block: u64,
    },
}

/// What the engine asks for.
#[derive(Clone, Debug)]
pub enum Effect {
    /// The chunks are unique: issue the write now, if the volume's epoch is still
    /// `epoch` and it is not paused; otherwise send [`Event::Write`] again.
    WriteGranted {
        /// Who asked.
        owner: Owner,
        /// The epoch the grant was given under.
        epoch: u32,
    },
    /// The write cannot be allowed.
    WriteFailed {
        /// Who asked.
        owner: Owner,
        /// Why.
        error: RequestError,
    },
    /// A piece of a snapshot read: chunks `first .. first + count` are at
    /// `source`. Pieces come in ascending order; `last` marks the final one.
    ReadFrom {
        /// Who asked.
        owner: Owner,
        /// To be returned with [`Event::ReadDone`], once for all pieces.
        grant: GrantId,
        /// First chunk of the piece.
        first: u64,
        /// Chunks in the piece.
        count: u32,
        /// Where the bytes are.
        source: Source,
        /// For [`Source::Store`]: the store's checksum per 4 KiB, in [`Effects::crcs`].
        crcs: CrcRange,
        /// No more pieces follow.
        last: bool,
    },
    /// The read cannot be served. Nothing is held; no `ReadDone` is expected.
    ReadFailed {
        /// Who asked.
        owner: Owner,
        /// Why.
        error: RequestError,
    },
    /// A part of the answer to [`Event::Compare`]: whether chunks `first .. first + count`
    /// differ. Parts come in ascending order from the first chunk asked for, without
    /// gaps; they may end before the last one asked for.
    Compared {
        /// Who asked.
        owner: Owner,
        /// First chunk of the part.
        first: u64,
        /// Chunks in the part, at least 1.
        count: u64,
        /// They differ, each of them.
        differs: bool,
        /// No more parts follow.
        last: bool,
    },
    /// Copy out: read chunks `first .. first + count` of `volume`'s origin
    /// (zero-padded beyond its end), checksum every 4 KiB, submit the write of the
    /// whole chunks to the store at `block`, report [`Event::CopyRead`], and when
    /// the write completes [`Event::CopyWritten`].
    Copy {
        /// Identifies the copy.
        copy: IoId,
        /// Whose origin.
        volume: VolumeId,
        /// First chunk.
        first: u64,
        /// Number of neighbouring chunks.
        count: u32,
        /// Bytes the volume has of them; what is missing to whole chunks is zeroes,
        /// whatever the origin holds there.
        bytes: u32,
        /// Store block the run begins at.
        block: u64,
    },
    /// Read one metadata block of the store.
    ReadBlock {
        /// Identifies the I/O.
        io: IoId,
        /// Which block.
        block: u64,
    },
    /// Write one metadata block of the store.
    WriteBlock {
        /// Identifies the I/O.
        io: IoId,
        /// Which block.
        block: u64,
        /// What to write.
        data: Arc<Block>,
        /// Durable when it completes.
        fua: bool,
    },
    /// Flush the store. Always submitted, whatever the device claims of its cache.
    FlushStore {
        /// Identifies the I/O.
        io: IoId,
    },
    /// Flush a volume's origin.
    FlushOrigin {
        /// Identifies the I/O.
        io: IoId,
        /// Whose origin.
        volume: VolumeId,
    },
    /// Stop issuing origin writes of these volumes and drain those in flight.
    Pause {
        /// Identifies the pause.
        io: IoId,
        /// The volumes.
        volumes: Vec<VolumeId>,
    },
    /// End of the pause `io`.
    Resume {
        /// The pause.
        io: IoId,
    },
    /// The store can no longer be written. Record durably, outside the store and
    /// outside the origins it serves, that all snapshots of `volumes` are invalid;
    /// until that is answered their shared chunks are not overwritten.
    RecordInvalid {
        /// Identifies the I/O.
        io: IoId,
        /// The volumes.
        volumes: Vec<VolumeId>,
    },
    /// The answer to a command.
    Reply {
        /// Of the command.
        id: CommandId,
        /// How it went.
        result: Result<Reply, CommandError>,
    },
    /// Something a person should know.
    Notice(Notice),
    /// More background work is ready: step again soon, with or without events.
    Again,
}

/// Effects of one `step`, with the checksums they refer to.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// The effects.
    pub list: Vec<Effect>,
    /// Checksums of [`Effect::ReadFrom`]s.
    pub crcs: Vec<u32>,
}

impl Effects {
    /// Forgets everything, keeping capacity.
    pub fn clear(&mut self) {
        self.list.clear();
        self.crcs.clear();
    }
}
