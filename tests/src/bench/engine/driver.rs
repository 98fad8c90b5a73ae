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
use snapstore::recover::{OpenError, Recovered, load};
use snapstore::{
    BLOCK_SIZE, Checksum, Effect, Effects, Engine, Event, EventBatch, NoOrigins, Owner, Tag,
    VolumeId,
};

use crate::e2e::{Fault, Outcome};
use crate::ensure;
use crate::memory::{Blocks, MemoryStore};

/// What the engine will be told.
#[derive(Debug)]
enum Answer {
    Event(Event),
    /// The origin was read: so many chunks.
    Copied(IoId, u32),
}

/// An engine, its store, and what is in flight.
#[derive(Debug)]
pub struct Driver<S = MemoryStore> {
    engine: Engine,
    store: S,
    pace: usize,
    answers: VecDeque<Answer>,
    batch: EventBatch,
    effects: Effects,
    /// Checksums of the longest run: the store, to which no data is written, holds zeroes.
    crcs: Vec<u32>,
    again: bool,
    /// Requests answered since the load began.
    answered: u64,
    reply: Option<Reply>,
}

fn fault(error: OpenError) -> Fault {
    Fault::wrong(error.to_string())
}

impl Driver {
    /// A new store of `blocks` blocks in memory and its engine.
    ///
    /// # Errors
    /// If the store cannot be made or opened.
    pub fn new(blocks: u64, chunk: u64, pace: usize) -> Outcome<Self> {
        Self::create(MemoryStore::new(blocks), chunk, pace, Config::default())
    }
}

impl<S: Blocks> Driver<S> {
    /// Makes a store on `store`, whatever it held, and opens it.
    ///
    /// # Errors
    /// If the store cannot be made or opened.
    pub fn create(mut store: S, chunk: u64, pace: usize, config: Config) -> Outcome<Self> {
        let options = CreateOptions {
            uuid: [7; 16],
            chunk_size: chunk as u32,
            checksum: Checksum::default(),
            created_ms: 1,
            journal_blocks: None,
        };
        create(&mut store, &options).map_err(fault)?;
        let (driver, _) = Self::open(store, pace, config)?;
        Ok(driver)
    }

    /// Opens a store, recovering it if need be.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(mut store: S, pace: usize, config: Config) -> Outcome<(Self, Recovered)> {
        let loaded = load(&mut store).map_err(fault)?;
        let chunk = loaded.chunk_size() as usize;
        let (engine, recovered) = loaded
            .recover(&mut store, &mut NoOrigins, config)
            .map_err(fault)?;
        let zeroes = Checksum::default().of(&[0; BLOCK_SIZE]);
        let driver = Self {
            engine,
            store,
            pace: pace.max(1),
            answers: VecDeque::new(),
            batch: EventBatch::default(),
            effects: Effects::default(),
            crcs: vec![zeroes; config.max_run as usize * chunk / BLOCK_SIZE],
            again: false,
            answered: 0,
            reply: None,
        };
        Ok((driver, recovered))
    }

    /// What the engine says of itself.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The store as a kill leaves it now.
    #[must_use]
    pub fn killed(self) -> S {
        self.store
    }

    /// Stops in good order.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn close(mut self) -> Outcome<S> {
        self.command(Command::Close)?;
        Ok(self.store)
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

    /// Deletes a snapshot; what it alone kept comes back in [`Self::settle`].
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn delete(&mut self, volume: VolumeId, tag: Tag) -> Outcome {
        let targets = vec![(volume, tag)];
        self.command(Command::DeleteSnapshots { targets }).map(drop)
    }

    /// Lets the engine do what it can without being asked anything.
    ///
    /// # Errors
    /// If it asks for what this benchmark has not.
    pub fn settle(&mut self) -> Outcome {
        while !self.answers.is_empty() || self.again {
            self.step()?;
        }
        Ok(())
    }

    /// Writes out everything that is only in the journal; the counters then say all.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn checkpoint(&mut self) -> Outcome<Counters> {
        self.command(Command::Checkpoint)?;
        self.settle()?;
        Ok(self.engine.store_info().counters)
    }

    /// Overwrites each of `chunks` once, `depth` at a time.
    ///
    /// # Errors
    /// If a write fails.
    pub fn write(&mut self, volume: VolumeId, chunks: &[u64], depth: u64) -> Outcome {
        self.write_runs(volume, chunks.iter().map(|chunk| (*chunk, 1)), depth)
    }

    /// Overwrites runs of chunks, each given by its first and their number, by one
    /// request each, `depth` at a time.
    ///
    /// # Errors
    /// If a write fails.
    pub fn write_runs(
        &mut self,
        volume: VolumeId,
        runs: impl Iterator<Item = (u64, u32)>,
        depth: u64,
    ) -> Outcome {
        let event = |(owner, (first, count))| Event::Write {
            owner: Owner(owner),
            volume,
            first,
            count,
        };
        self.requests((0..).zip(runs).map(event), depth)
    }

    /// Looks each of `chunks` up in a snapshot, `depth` at a time.
    ///
    /// # Errors
    /// If a read fails, or finds a chunk in the origin.
    pub fn read(&mut self, volume: VolumeId, tag: Tag, chunks: &[u64], depth: u64) -> Outcome {
        self.look_up(volume, chunks.iter().map(|chunk| (tag, *chunk)), depth)
    }

    /// Looks chunks up, each in a snapshot of its own, `depth` at a time.
    ///
    /// # Errors
    /// If a read fails, or finds a chunk in the origin.
    pub fn look_up(
        &mut self,
        volume: VolumeId,
        chunks: impl Iterator<Item = (Tag, u64)>,
        depth: u64,
    ) -> Outcome {
        let event = |(owner, (tag, first))| Event::Read {
            owner: Owner(owner),
            volume,
            tag,
            first,
            count: 1,
        };
        self.requests((0..).zip(chunks).map(event), depth)
    }

    fn requests(&mut self, mut events: impl Iterator<Item = Event>, depth: u64) -> Outcome {
        self.answered = 0;
        let (mut asked, mut more) = (0, true);
        while more || self.answered < asked {
            while more && asked - self.answered < depth {
                match events.next() {
                    Some(event) => self.answers.push_back(Answer::Event(event)),
                    None => more = false,
                }
                asked += u64::from(more);
            }
            if self.answered < asked {
                self.step()?;
            }
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
                let result = self.store.block(block);
                Event::BlockRead { io, result }
            }
            Effect::WriteBlock {
                io, block, data, ..
            } => {
                let result = self.store.set_block(block, data);
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
            Effect::Resume { .. }
            | Effect::Notice(Notice::Checkpoint { .. } | Notice::SnapshotPurged { .. }) => {}
            other => {
                return Err(Fault::wrong(format!(
                    "not part of this benchmark: {other:?}"
                )));
            }
        }
        Ok(())
    }
}
