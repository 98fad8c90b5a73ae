//! Runs an engine whose every I/O succeeds and costs nothing.
//!
//! What the engine asks for is answered in the order it was asked, at most `pace`
//! answers a step: all at once is a device on which everything in flight completes
//! together; a few at a time spreads the completions, and with them the commits.
//! A load keeps `depth` requests in flight until all are answered.

use std::collections::VecDeque;

use snapstore::create::{CreateOptions, create};
use snapstore::engine::{Command, Config, Counters, Notice, Policy, Reply, Source};
use snapstore::ids::{CommandId, IoId};
use snapstore::recover::{OpenError, load};
use snapstore::{
    BLOCK_SIZE, Checksum, Effect, Effects, Engine, Event, EventBatch, NoOrigins, Owner, Tag,
    VolumeId,
};

use crate::e2e::{Fault, Outcome};
use crate::ensure;
use crate::memory::MemoryStore;

/// What the engine will be told.
#[derive(Debug)]
enum Answer {
    Event(Event),
    /// The origin was read: so many chunks.
    Copied(IoId, u32),
}

/// An engine, its store, and what is in flight.
#[derive(Debug)]
pub struct Driver {
    engine: Engine,
    store: MemoryStore,
    pace: usize,
    answers: VecDeque<Answer>,
    batch: EventBatch,
    effects: Effects,
    /// Checksums of the longest run: their values do not matter.
    crcs: Vec<u32>,
    again: bool,
    /// Requests answered since the load began.
    answered: u64,
    reply: Option<Reply>,
}

impl Driver {
    /// A new store of `blocks` blocks and its engine.
    ///
    /// # Errors
    /// If the store cannot be made or opened.
    pub fn new(blocks: u64, chunk: u64, pace: usize) -> Outcome<Self> {
        let mut store = MemoryStore::new(blocks);
        let options = CreateOptions {
            uuid: [7; 16],
            chunk_size: chunk as u32,
            checksum: Checksum::default(),
            created_ms: 1,
            journal_blocks: None,
        };
        let config = Config::default();
        let fault = |error: OpenError| Fault::wrong(error.to_string());
        create(&mut store, &options).map_err(fault)?;
        let loaded = load(&mut store).map_err(fault)?;
        let (engine, _) = loaded
            .recover(&mut store, &mut NoOrigins, config)
            .map_err(fault)?;
        Ok(Self {
            engine,
            store,
            pace: pace.max(1),
            answers: VecDeque::new(),
            batch: EventBatch::default(),
            effects: Effects::default(),
            crcs: vec![0x5eed; (config.max_run as u64 * chunk) as usize / BLOCK_SIZE],
            again: false,
            answered: 0,
            reply: None,
        })
    }

    /// Adds a volume of `size` bytes.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn create_volume(&mut self, size: u64) -> Outcome<VolumeId> {
        let reply = self.command(Command::CreateVolume {
            name: "bench".into(),
            uuid: [8; 16],
            size,
            origin: "/dev/null".into(),
            policy: Policy::OriginFirst,
            created_ms: 1,
        })?;
        match reply {
            Reply::Volume(volume) => Ok(volume),
            other => Err(Fault::wrong(format!("a new volume was replied {other:?}"))),
        }
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn take(&mut self, volume: VolumeId, name: String) -> Outcome<Tag> {
        let reply = self.command(Command::Take {
            targets: vec![(volume, name)],
            priority: 0,
            created_ms: 1,
        })?;
        match reply {
            Reply::Taken(tag) => Ok(tag),
            other => Err(Fault::wrong(format!("a take was replied {other:?}"))),
        }
    }

    /// Writes out everything that is only in the journal; the counters then say all.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn checkpoint(&mut self) -> Outcome<Counters> {
        self.command(Command::Checkpoint)?;
        while !self.answers.is_empty() || self.again {
            self.step()?;
        }
        Ok(self.engine.store_info().counters)
    }

    /// Overwrites each of `chunks` once, `depth` at a time.
    ///
    /// # Errors
    /// If a write fails.
    pub fn write(&mut self, volume: VolumeId, chunks: &[u64], depth: u64) -> Outcome {
        self.requests(chunks, depth, |owner, first| Event::Write {
            owner,
            volume,
            first,
            count: 1,
        })
    }

    /// Looks each of `chunks` up in a snapshot, `depth` at a time.
    ///
    /// # Errors
    /// If a read fails, or finds a chunk in the origin.
    pub fn read(&mut self, volume: VolumeId, tag: Tag, chunks: &[u64], depth: u64) -> Outcome {
        self.requests(chunks, depth, |owner, first| Event::Read {
            owner,
            volume,
            tag,
            first,
            count: 1,
        })
    }

    fn requests(
        &mut self,
        chunks: &[u64],
        depth: u64,
        event: impl Fn(Owner, u64) -> Event,
    ) -> Outcome {
        self.answered = 0;
        let (mut asked, all) = (0, chunks.len() as u64);
        let mut chunks = chunks.iter();
        while self.answered < all {
            while asked - self.answered < depth
                && let Some(chunk) = chunks.next()
            {
                let event = event(Owner(asked), *chunk);
                self.answers.push_back(Answer::Event(event));
                asked += 1;
            }
            self.step()?;
        }
        Ok(())
    }

    fn command(&mut self, command: Command) -> Outcome<Reply> {
        let id = CommandId(1); // one at a time
        self.answers
            .push_back(Answer::Event(Event::Command { id, command }));
        loop {
            self.step()?;
            if let Some(reply) = self.reply.take() {
                return Ok(reply);
            }
        }
    }

    fn step(&mut self) -> Outcome {
        let count = self.answers.len().min(self.pace);
        ensure!(
            count > 0 || self.again,
            "the engine waits for nothing and answers nothing"
        );
        for answer in self.answers.drain(..count) {
            match answer {
                Answer::Event(event) => self.batch.events.push(event),
                Answer::Copied(io, chunks) => {
                    let blocks = chunks as usize * self.engine.chunk_size() as usize / BLOCK_SIZE;
                    let crcs = self.crcs.get(..blocks).unwrap_or(&self.crcs);
                    self.batch.copy_read(io, crcs);
                }
            }
        }
        self.again = false;
        let mut effects = std::mem::take(&mut self.effects);
        effects.clear();
        self.engine.step(&mut self.batch, &mut effects);
        let done = effects
            .list
            .drain(..)
            .try_for_each(|effect| self.carry_out(effect));
        self.effects = effects;
        done
    }

    fn carry_out(&mut self, effect: Effect) -> Outcome {
        let event = match effect {
            Effect::WriteGranted { .. } => {
                self.answered += 1;
                return Ok(());
            }
            Effect::Copy { copy, count, .. } => {
                self.answers.push_back(Answer::Copied(copy, count));
                let result = Ok(());
                Event::CopyWritten { copy, result }
            }
            Effect::ReadFrom { grant, source, .. } => {
                ensure!(
                    matches!(source, Source::Store { .. }),
                    "a chunk that was copied out is read from the origin"
                );
                self.answered += 1;
                Event::ReadDone { grant }
            }
            Effect::ReadBlock { io, block } => {
                let result = Ok(self.store.get(block));
                Event::BlockRead { io, result }
            }
            Effect::WriteBlock {
                io, block, data, ..
            } => {
                self.store.put(block, data);
                let result = Ok(());
                Event::BlockWritten { io, result }
            }
            Effect::FlushStore { io } | Effect::FlushOrigin { io, .. } => {
                let result = Ok(());
                Event::Flushed { io, result }
            }
            Effect::Pause { io, .. } => Event::Paused { io, drained: true },
            other => return self.note(other),
        };
        self.answers.push_back(Answer::Event(event));
        Ok(())
    }

    /// What needs no answer, and what must not happen.
    fn note(&mut self, effect: Effect) -> Outcome {
        match effect {
            Effect::Again => self.again = true,
            Effect::Reply { result, .. } => {
                let refused = |error| Fault::wrong(format!("a command was refused: {error}"));
                self.reply = Some(result.map_err(refused)?);
            }
            Effect::Resume { .. } | Effect::Notice(Notice::Checkpoint { .. }) => {}
            other => {
                return Err(Fault::wrong(format!(
                    "not part of this benchmark: {other:?}"
                )));
            }
        }
        Ok(())
    }
}
