//! The engine over a store and origins in memory: commands, writes and reads of
//! snapshots as plain calls, with the bytes.
//!
//! One thing at a time, and all of it ends: an engine that never comes to rest, or
//! rests without an answer, is an error. The store may hold anything, so nothing
//! here trusts what the engine was told by it.

use std::collections::BTreeMap;

use snapstore::engine::{Command, CommandError, Config, Reply, RequestError, Source};
use snapstore::ids::{CommandId, IoId};
use snapstore::recover::{Loaded, OpenError, Recovered};
use snapstore::{
    BLOCK_SIZE, Block, BlockDevice, Checksum, Effect, Effects, Engine, Event, EventBatch, IoError,
    Origins, Owner, Tag, VolumeId,
};

use crate::memory::MemoryStore;

/// Steps after which an engine that is still busy never comes to rest.
const MOST_STEPS: u32 = 100_000;
const OWNER: Owner = Owner(1);

/// Why something asked of the rig was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RigError {
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The command was refused or failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The read or write was refused or failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A device failed.
    #[error(transparent)]
    Device(#[from] IoError),
    /// What a snapshot read found in the store is not what was copied out.
    #[error("data block {0} of the store does not match its checksum")]
    Data(u64),
    /// The engine works and works.
    #[error("the engine does not come to rest")]
    Restless,
    /// The engine rests, and owes an answer.
    #[error("the engine waits for nothing and answers nothing")]
    Silent,
}

/// The bytes of every origin that is attached.
#[derive(Clone, Debug, Default)]
pub struct MemoryOrigins(pub BTreeMap<VolumeId, Vec<u8>>);

impl MemoryOrigins {
    /// `len` bytes from `start` on, of which `have` are the volume's and the rest zeroes.
    fn read(
        &self,
        volume: VolumeId,
        start: u64,
        have: u64,
        len: usize,
    ) -> Result<Vec<u8>, IoError> {
        let origin = self.0.get(&volume).ok_or(IoError::Absent)?;
        let end = start.checked_add(have).ok_or(IoError::OutOfRange)?;
        let bytes = origin.get(start as usize..end as usize);
        let mut bytes = bytes.ok_or(IoError::OutOfRange)?.to_vec();
        bytes.resize(len, 0);
        Ok(bytes)
    }
}

impl Origins for MemoryOrigins {
    fn chunk_checksums(
        &mut self,
        checksum: Checksum,
        volume: VolumeId,
        chunk: u64,
        size: u64,
        out: &mut [u32],
    ) -> Result<(), IoError> {
        let len = out.len() * BLOCK_SIZE;
        let start = chunk.checked_mul(len as u64).ok_or(IoError::OutOfRange)?;
        let have = size.saturating_sub(start).min(len as u64);
        let bytes = self.read(volume, start, have, len)?;
        for (out, block) in out.iter_mut().zip(bytes.chunks(BLOCK_SIZE)) {
            *out = checksum.of(block);
        }
        Ok(())
    }
}

/// See the module.
#[derive(Debug)]
pub struct Rig {
    /// The store.
    pub store: MemoryStore,
    /// The origins.
    pub origins: MemoryOrigins,
    engine: Engine,
    batch: EventBatch,
    reply: Option<Result<Reply, CommandError>>,
    granted: Option<Result<(), RequestError>>,
    read: Option<Result<(), RigError>>,
    /// The volume of the read under way, and what was found so far.
    reading: VolumeId,
    found: Vec<u8>,
}

impl Rig {
    /// Recovers what was loaded from `store`.
    ///
    /// # Errors
    /// If it cannot be recovered.
    pub fn open(
        loaded: Loaded,
        mut store: MemoryStore,
        mut origins: MemoryOrigins,
    ) -> Result<(Self, Recovered), RigError> {
        let (engine, recovered) = loaded.recover(&mut store, &mut origins, Config::default())?;
        let rig = Self {
            store,
            origins,
            engine,
            batch: EventBatch::default(),
            reply: None,
            granted: None,
            read: None,
            reading: VolumeId(0),
            found: Vec::new(),
        };
        Ok((rig, recovered))
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Carries out a command and all that follows from it.
    ///
    /// # Errors
    /// If the engine refuses or fails it, or does not end.
    pub fn command(&mut self, command: Command) -> Result<Reply, RigError> {
        self.reply = None;
        let id = CommandId(1);
        self.batch.events.push(Event::Command { id, command });
        self.run()?;
        Ok(self.reply.take().ok_or(RigError::Silent)??)
    }

    /// Overwrites a volume from byte `at` on, once the engine has kept what was there.
    ///
    /// # Errors
    /// If the engine refuses or fails it, or the origin has no such bytes.
    pub fn write(&mut self, volume: VolumeId, at: u64, bytes: &[u8]) -> Result<(), RigError> {
        let chunk = u64::from(self.engine.chunk_size());
        let end = at.saturating_add(bytes.len() as u64);
        let first = at / chunk;
        self.granted = None;
        self.batch.events.push(Event::Write {
            owner: OWNER,
            volume,
            first,
            count: (end.div_ceil(chunk) - first) as u32,
        });
        self.run()?;
        self.granted.take().ok_or(RigError::Silent)??;
        let origin = self.origins.0.get_mut(&volume).ok_or(IoError::Absent)?;
        let place = origin.get_mut(at as usize..end as usize);
        place.ok_or(IoError::OutOfRange)?.copy_from_slice(bytes);
        Ok(())
    }

    /// Reads whole chunks of a snapshot.
    ///
    /// # Errors
    /// If the engine refuses or fails it, a device fails, or data is damaged.
    pub fn read(
        &mut self,
        volume: VolumeId,
        tag: Tag,
        first: u64,
        count: u32,
    ) -> Result<Vec<u8>, RigError> {
        self.read = None;
        self.reading = volume;
        self.found.clear();
        self.batch.events.push(Event::Read {
            owner: OWNER,
            volume,
            tag,
            first,
            count,
        });
        self.run()?;
        self.read.take().ok_or(RigError::Silent)??;
        Ok(std::mem::take(&mut self.found))
    }

    /// All bytes of a snapshot.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn view(&mut self, volume: VolumeId, tag: Tag, size: u64) -> Result<Vec<u8>, RigError> {
        let chunks = size.div_ceil(self.engine.chunk_size().into());
        let mut bytes = self.read(volume, tag, 0, chunks as u32)?;
        bytes.truncate(size as usize);
        Ok(bytes)
    }

    fn run(&mut self) -> Result<(), RigError> {
        let mut effects = Effects::default();
        for _ in 0..MOST_STEPS {
            effects.clear();
            self.engine.step(&mut self.batch, &mut effects);
            if effects.list.is_empty() {
                return Ok(());
            }
            for effect in std::mem::take(&mut effects.list) {
                self.carry_out(effect, &effects.crcs);
            }
        }
        Err(RigError::Restless)
    }

    fn carry_out(&mut self, effect: Effect, crcs: &[u32]) {
        let event = match effect {
            Effect::ReadBlock { io, block } => {
                let mut data = Box::<Block>::default();
                let read = self.store.read(block, std::slice::from_mut(&mut *data));
                let result = read.map(|()| data.into());
                Event::BlockRead { io, result }
            }
            Effect::WriteBlock {
                io, block, data, ..
            } => {
                let result = self.store.write(block, std::slice::from_ref(&*data));
                Event::BlockWritten { io, result }
            }
            Effect::FlushStore { io }
            | Effect::FlushOrigin { io, .. }
            | Effect::RecordInvalid { io, .. } => Event::Flushed { io, result: Ok(()) },
            Effect::Pause { io, .. } => Event::Paused { io, drained: true },
            Effect::Copy {
                copy,
                volume,
                first,
                count,
                bytes,
                block,
            } => return self.copy(copy, (volume, first, count), bytes.into(), block),
            answer => return self.answered(answer, crcs),
        };
        self.batch.events.push(event);
    }

    fn answered(&mut self, answer: Effect, crcs: &[u32]) {
        match answer {
            Effect::Reply { result, .. } => self.reply = Some(result),
            Effect::WriteGranted { .. } => self.granted = Some(Ok(())),
            Effect::WriteFailed { error, .. } => self.granted = Some(Err(error)),
            Effect::ReadFailed { error, .. } => self.read = Some(Err(error.into())),
            Effect::ReadFrom {
                grant,
                first,
                count,
                source,
                crcs: range,
                last,
                ..
            } => {
                let piece = self.piece(first, count, source, range.of(crcs));
                let before = self.read.take().unwrap_or(Ok(()));
                self.read = Some(before.and(piece));
                if last {
                    self.batch.events.push(Event::ReadDone { grant });
                }
            }
            // What needs no answer.
            _ => {}
        }
    }

    /// Adds a piece of the read under way to what was found.
    fn piece(
        &mut self,
        first: u64,
        count: u32,
        source: Source,
        crcs: &[u32],
    ) -> Result<(), RigError> {
        let chunk = u64::from(self.engine.chunk_size());
        let len = count as usize * chunk as usize;
        let Source::Store { block } = source else {
            let start = first * chunk;
            let has = self.origins.0.get(&self.reading).map_or(0, Vec::len) as u64;
            let have = has.saturating_sub(start).min(len as u64);
            let bytes = self.origins.read(self.reading, start, have, len)?;
            self.found.extend_from_slice(&bytes);
            return Ok(());
        };
        let mut data = vec![Block::zeroed(); len / BLOCK_SIZE];
        self.store.read(block, &mut data)?;
        let checksum = self.engine.checksum();
        let mut pairs = (block..).zip(data.iter().zip(crcs));
        if let Some((at, _)) = pairs.find(|(_, (data, crc))| checksum.of(&data.0) != **crc) {
            return Err(RigError::Data(at));
        }
        for block in &data {
            self.found.extend_from_slice(&block.0);
        }
        Ok(())
    }

    /// Keeps the old contents of a run of chunks.
    fn copy(
        &mut self,
        copy: IoId,
        (volume, first, count): (VolumeId, u64, u32),
        have: u64,
        block: u64,
    ) {
        let chunk = u64::from(self.engine.chunk_size());
        let len = count as usize * chunk as usize;
        let bytes = match self.origins.read(volume, first * chunk, have, len) {
            Ok(bytes) => bytes,
            Err(error) => {
                let result = Err(error);
                return self.batch.events.push(Event::CopyRead { copy, result });
            }
        };
        let data = MemoryStore::of_bytes(&bytes);
        let data: Vec<Block> = (0..data.blocks())
            .map(|at| Block::clone(&data.get(at)))
            .collect();
        let checksum = self.engine.checksum();
        let crcs: Vec<u32> = data.iter().map(|block| checksum.of(&block.0)).collect();
        let result = self.store.write(block, &data);
        self.batch.copy_read(copy, &crcs);
        self.batch.events.push(Event::CopyWritten { copy, result });
    }
}
