//! The engine: a state machine that turns events into effects.
//!
//! One owner enters it with [`Engine::step`]; it holds no lock and does no I/O.
//! Requests and background work are *tasks* that run until they lack something (a
//! tree node, a copyout, a reader to leave, space) and are run again, from the
//! top, when it is there. Nothing changes before a request has all it needs.
//!
//! | file | what it does |
//! |---|---|
//! | `api` | events, effects, commands: the seam |
//! | `writes`, `copyout`, `chunks` | origin writes, keeping old contents, read-locks |
//! | `reads` | snapshot reads |
//! | `changes`, `compare` | which chunks differ between two snapshots |
//! | `sweep` | going through exceptions a leaf at a time |
//! | `lookup` | recent table, frozen table, tree; cache misses |
//! | `heal` | tree nodes that cannot be read |
//! | `commit` | group commit and publish |
//! | `checkpoint` | writing the trees out |
//! | `superblock` | with which a checkpoint becomes valid |
//! | `extend` | the store becomes larger |
//! | `take`, `purge`, `commands` | snapshots come and go |
//! | `space` | reserves, victims, a failed store |
//! | `info` | what `csnapctl` shows |

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use rustc_hash::FxBuildHasher;
use slab::Slab;

pub mod api;
mod changes;
mod checkpoint;
mod chunks;
mod commands;
mod commit;
mod compare;
mod copyout;
mod damage;
mod extend;
mod heal;
mod info;
mod lookup;
mod patience;
mod purge;
mod reads;
mod space;
mod superblock;
mod sweep;
mod take;
#[cfg(test)]
mod tests;
mod writes;

pub use api::*;

pub(crate) use info::{snapshots, volumes};
pub(crate) use lookup::{Roots, TREES, TreeId};
pub(crate) use reads::drop_code;
pub use reads::drop_reason;
pub(crate) use superblock::root_of;

use crate::alloc::Allocator;
use crate::checksum::Checksum;
use crate::ids::{CommandId, GrantId, IoId, Tag, VolumeId};
use crate::state::State;
use crate::tree::{Cache, Node};
use crate::unique::UniqueMap;

/// A map whose order is the same in every run: the engine knows no randomness. Its
/// keys are numbers the engine gave out, or of chunks in work at the same time: few,
/// so a hash that is quick is better than one that withstands an attack.
type Map<K, V> = HashMap<K, V, FxBuildHasher>;

/// Steps of background work done in one step of the engine.
const BACKGROUND: usize = 4;
/// Effects at which tasks of readers and writers leave the rest to the next step.
const MOST_EFFECTS: usize = 16 << 10;
/// Fewest tree nodes the cache may be limited to.
const MIN_CACHE: usize = 8;

/// What never changes while a store is open; but `blocks` may grow (`extend`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) uuid: [u8; 16],
    /// What every header carries.
    pub(crate) store: u64,
    pub(crate) blocks: u64,
    pub(crate) chunk_blocks: u32,
    /// What covers copied-out data.
    pub(crate) checksum: Checksum,
    pub(crate) created_ms: u64,
    pub(crate) journal_first: u64,
    pub(crate) journal_blocks: u64,
}

impl Geometry {
    /// Whether a chunk at `block` would lie inside the store.
    pub(crate) fn holds_chunk(&self, block: u64) -> bool {
        block
            .checked_add(self.chunk_blocks.into())
            .is_some_and(|end| end <= self.blocks)
    }
}

/// A request or background work that waits for a tree node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Write(usize),
    Read(usize),
    Query(usize),
    Compare(usize),
    Purge,
    Merge,
    Heal,
}

/// What an I/O was for.
#[derive(Clone, Debug)]
enum Io {
    Fetch(lookup::Wanting),
    Copy {
        copy: usize,
    },
    CopyWrite {
        copy: usize,
    },
    Journal,
    CommitFlush,
    Node,
    CheckpointFlush,
    Superblock,
    /// The write of a block that is to be the last one.
    Probe,
    TakeFlush {
        volume: VolumeId,
    },
    Pause,
    Invalid {
        volumes: Vec<VolumeId>,
    },
}

/// The snapshot engine of one store. Made by [`crate::recover::Loaded::recover`].
#[derive(Debug)]
pub struct Engine {
    geometry: Geometry,
    config: Config,
    now_ms: u64,
    // What is durable or recent.
    state: State,
    roots: Roots,
    /// Changes with the roots: a walk begun under another version may meet reused blocks.
    version: u64,
    cache: Cache,
    alloc: Allocator,
    // What is under way.
    ios: Map<IoId, Io>,
    next_io: u64,
    fetches: Map<lookup::Wanting, lookup::Fetch>,
    heals: heal::Heals,
    rotten: damage::Rotten,
    ready: VecDeque<Task>,
    writes: Slab<writes::Write>,
    reads: Slab<reads::Read>,
    queries: Slab<changes::Query>,
    comparisons: Slab<compare::Comparison>,
    grants: Map<GrantId, reads::Grant>,
    next_grant: u64,
    chunks: Map<(VolumeId, u64), chunks::Busy>,
    wanted: Vec<copyout::Wanted>,
    copies: Slab<copyout::Copy>,
    journal: commit::Journal,
    checkpoint: checkpoint::Checkpoint,
    extension: Option<extend::Extension>,
    /// A flush of the store is in flight. Never two: one that fails may lose what
    /// the other, reported first, seems to have made durable.
    flushing: bool,
    takes: take::Takes,
    commands: VecDeque<(CommandId, Command)>,
    /// A command's record is not yet durable.
    command_busy: bool,
    purge: Option<purge::Purge>,
    purge_wanted: bool,
    /// Passes given up since the last one that ended.
    purges_postponed: u32,
    // Trouble and the end.
    /// Recovery's checkpoint is not durable yet: nothing is committed before it.
    recovering: bool,
    /// Copyouts wait for space.
    starved: bool,
    patience: patience::Patience,
    victim: Option<(VolumeId, Tag)>,
    /// Writes that wait for snapshots to be dropped.
    stalled: Vec<usize>,
    invalidating: BTreeSet<VolumeId>,
    failed: Option<String>,
    closing: Option<CommandId>,
    closed: bool,
    warned_low: bool,
    warned_full: bool,
    counters: Counters,
}

/// What recovery hands over.
pub(crate) struct Parts {
    pub(crate) geometry: Geometry,
    pub(crate) state: State,
    pub(crate) roots: Roots,
    pub(crate) alloc: Allocator,
    pub(crate) generation: u64,
    /// Sequence of the first journal block to be written, and the chain before it.
    pub(crate) journal: (u64, u32),
    /// Nodes of the exceptions' trees that stay in memory.
    pub(crate) high: Vec<Node>,
    /// Damage got over: block and reason.
    pub(crate) damage: Vec<(u64, String)>,
}

impl Engine {
    pub(crate) fn new(parts: Parts, config: Config) -> Self {
        let Parts {
            geometry,
            state,
            roots,
            alloc,
            generation,
            journal: (next, chain),
            high,
            damage,
        } = parts;
        let mut cache = Cache::new(config.cache_blocks.max(MIN_CACHE));
        high.into_iter()
            .for_each(|node| cache.insert(Arc::new(node)));
        let journal =
            commit::Journal::new(geometry.journal_first, geometry.journal_blocks, next, chain);
        let mut engine = Self {
            geometry,
            config,
            now_ms: 0,
            state,
            roots,
            version: 0,
            cache,
            alloc,
            ios: Map::default(),
            next_io: 0,
            fetches: Map::default(),
            heals: heal::Heals::new(damage),
            rotten: damage::Rotten::default(),
            ready: VecDeque::new(),
            writes: Slab::new(),
            reads: Slab::new(),
            queries: Slab::new(),
            comparisons: Slab::new(),
            grants: Map::default(),
            next_grant: 0,
            chunks: Map::default(),
            wanted: Vec::new(),
            copies: Slab::new(),
            journal,
            checkpoint: checkpoint::Checkpoint::new(generation),
            extension: None,
            flushing: false,
            takes: take::Takes::default(),
            commands: VecDeque::new(),
            command_busy: false,
            purge: None,
            purge_wanted: true,
            purges_postponed: 0,
            recovering: true,
            starved: false,
            patience: patience::Patience::default(),
            victim: None,
            stalled: Vec::new(),
            invalidating: BTreeSet::new(),
            failed: None,
            closing: None,
            closed: false,
            warned_low: false,
            warned_full: false,
            counters: Counters::default(),
        };
        engine.wake_up();
        engine
    }

    /// After recovery: bits start cold, interrupted takes are undone, volumes
    /// whose deletion was interrupted go on going.
    fn wake_up(&mut self) {
        let ids: Vec<VolumeId> = self.state.volumes.keys().copied().collect();
        for id in ids {
            if let Some(volume) = self.state.volumes.get(&id) {
                volume.unique.set_shared(volume.newest() > Tag(0));
            }
            self.bury_volume(id);
        }
    }

    /// Recovery's checkpoint is durable: commits may begin.
    pub(crate) fn recovered(&mut self) {
        self.recovering = false;
    }

    /// Takes a batch of events (left empty) and appends what is to be done.
    pub fn step(&mut self, batch: &mut EventBatch, effects: &mut Effects) {
        for event in batch.events.drain(..) {
            self.on_event(event, &batch.crcs, effects);
        }
        batch.clear();
        self.run_commands(effects);
        if self.closed {
            return;
        }
        let mut more = false;
        for _ in 0..BACKGROUND {
            more = self.step_heal(effects);
            self.run_ready(effects);
            // Before copyouts look for room, and may find that there is none.
            more |= self.step_extension();
            self.start_copies(effects);
            // Before the next commit is sealed: a checkpoint begins between commits.
            more |= self.step_checkpoint(effects);
            if !self.recovering {
                self.tell_waiting(effects);
                more |= self.step_purge(effects);
                self.relieve(effects);
                self.step_close(effects);
                self.seal(effects);
            }
            more |= !self.ready.is_empty();
            more |= self.checkpoint_due() && !self.checkpoint.busy() && !self.journal.in_flight();
            if !more || self.failed.is_some() {
                break;
            }
        }
        // Also of a failed store everybody hears that it failed.
        if more && (self.failed.is_none() || !self.ready.is_empty()) {
            effects.list.push(Effect::Again);
        }
    }

    /// What waited for nodes goes on. What it asks for in one step is bounded: the rest
    /// goes on in the next.
    fn run_ready(&mut self, out: &mut Effects) {
        let most = out.list.len() + MOST_EFFECTS;
        while out.list.len() < most
            && let Some(task) = self.ready.pop_front()
        {
            match task {
                Task::Write(id) => self.run_write(id, out),
                Task::Read(id) => self.run_read(id, out),
                Task::Query(id) => self.run_query(id, out),
                Task::Compare(id) => self.run_compare(id, out),
                // Background work looks by itself whether its nodes are there.
                Task::Purge | Task::Merge | Task::Heal => {}
            }
        }
    }

    fn on_event(&mut self, event: Event, arena: &[u32], out: &mut Effects) {
        match event {
            Event::Write {
                owner,
                volume,
                first,
                count,
            } => {
                self.on_write(owner, volume, first, count, out);
            }
            Event::Read {
                owner,
                volume,
                tag,
                first,
                count,
            } => {
                self.on_read(owner, volume, tag, first, count, out);
            }
            Event::Compare(asked) => self.on_compare(asked, out),
            Event::ReadDone { grant } => self.on_read_done(grant),
            Event::DataDamaged {
                volume,
                tag,
                chunk,
                block,
            } => self.data_damaged(volume, tag, chunk, block, out),
            Event::CopyRead { copy: io, result } => {
                if let Some(Io::Copy { copy }) = self.ios.remove(&io) {
                    self.copy_read(io, copy, result, arena, out);
                }
            }
            Event::CopyWritten { copy: io, result } => {
                if let Some(Io::CopyWrite { copy }) = self.ios.remove(&io) {
                    self.copy_written(copy, result, out);
                }
            }
            Event::BlockRead { io, result } => {
                if let Some(Io::Fetch(wanting)) = self.ios.remove(&io) {
                    self.fetched(wanting, result, out);
                }
            }
            Event::BlockWritten { io, result } => match self.ios.remove(&io) {
                Some(Io::Journal) => self.journal_written(result, out),
                Some(Io::Node) => self.node_written(result, out),
                Some(Io::Superblock) => self.superblock_written(result, out),
                Some(Io::Probe) => self.probed(result, out),
                _ => {}
            },
            Event::Flushed { io, result } => match self.ios.remove(&io) {
                Some(Io::CommitFlush) => {
                    self.flushing = false;
                    self.commit_flushed(result, out);
                    self.flush_checkpoint(out);
                }
                Some(Io::CheckpointFlush) => {
                    self.flushing = false;
                    self.checkpoint_flushed(result, out);
                    self.flush_commit(out);
                }
                Some(Io::TakeFlush { volume }) => self.take_flushed(volume, result, out),
                Some(Io::Invalid { volumes }) => self.invalidated(&volumes, result, out),
                _ => {}
            },
            Event::Paused { io, drained } => {
                if let Some(Io::Pause) = self.ios.remove(&io) {
                    self.take_paused(io, drained, out);
                }
            }
            Event::Command { id, command } => self.on_command(id, command, out),
            Event::Tick { now_ms } => self.on_tick(now_ms, out),
        }
    }

    fn on_tick(&mut self, now_ms: u64, out: &mut Effects) {
        self.now_ms = now_ms;
        if self.patience.is_running() && self.wanted.is_empty() && self.room_for_copies() > 0 {
            self.patience.is_over();
        }
        if self.checkpoint.began_ms == 0 {
            self.checkpoint.began_ms = now_ms;
        }
        let age = now_ms.saturating_sub(self.checkpoint.began_ms);
        if self.state.dirty.any && age >= self.config.checkpoint_ms {
            self.checkpoint.wanted = true;
        }
        self.warn_space(out);
    }

    /// Begins an orderly stop: nothing new is taken on, waiting writes fail.
    fn on_close(&mut self, id: CommandId, out: &mut Effects) {
        if self.closing.is_some() {
            return out.list.push(Effect::Reply {
                id,
                result: Err(CommandError::Closing),
            });
        }
        self.closing = Some(id);
        self.refuse_takes(&CommandError::Closing, out);
        self.refuse_commands(&CommandError::Closing, out);
        let writes: Vec<usize> = self.writes.iter().map(|(id, _)| id).collect();
        for write in writes {
            self.fail_write(write, RequestError::Closing, out);
        }
        self.cancel_wanted();
    }

    /// Asks for the last checkpoint once nothing is in flight.
    fn step_close(&mut self, out: &mut Effects) {
        if self.closing.is_none() || self.closed {
            return;
        }
        if self.failed.is_some() {
            let held = !self.reads.is_empty() || !self.grants.is_empty();
            let held = held || !self.queries.is_empty() || !self.comparisons.is_empty();
            if !held && self.invalidating.is_empty() {
                self.closed(out);
            }
            return;
        }
        if self.quiet() {
            self.checkpoint.wanted = true;
        }
    }

    /// Whether nothing is under way that could add a record.
    fn quiet(&self) -> bool {
        self.takes.idle()
            && self.journal.idle()
            && self.copies.is_empty()
            && self.reads.is_empty()
            && self.queries.is_empty()
            && self.comparisons.is_empty()
            && self.grants.is_empty()
            && !self.checkpoint.busy()
            && !self.probing()
    }

    fn closed(&mut self, out: &mut Effects) {
        self.closed = true;
        if let Some(id) = self.closing {
            out.list.push(Effect::Reply {
                id,
                result: Ok(Reply::Done),
            });
        }
    }

    fn new_io(&mut self, io: Io) -> IoId {
        self.next_io += 1;
        let id = IoId(self.next_io);
        self.ios.insert(id, io);
        id
    }

    /// Whether background work waits for a tree node.
    fn waiting_for_node(&self, task: Task) -> bool {
        self.fetches.values().any(|fetch| fetch.awaited_by(task)) || self.heals.awaited_by(task)
    }

    /// The fast-path bitmap of a volume, shared with the threads that write it.
    #[must_use]
    pub fn unique_map(&self, volume: VolumeId) -> Option<Arc<UniqueMap>> {
        self.state.volumes.get(&volume).map(|v| v.unique.clone())
    }
}
