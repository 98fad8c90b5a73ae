//! Checkpoints: writing the changed trees out so that the journal before them can
//! be reused, without stopping anything.
//!
//! A checkpoint is exactly the effects of the records up to one point, all
//! published (hazard 16). It begins between two commits: the recent exceptions are
//! frozen and a new table takes over, so lookups go on through recent, frozen and
//! the old trees. In bounded steps the frozen changes are collected and merged
//! into new trees; then the bitmap's image, one flush, the superblock with FUA.
//! Only then the new roots are used, blocks freed by the merge may be reused, and
//! the journal's tail moves. One that makes the store larger: `extend.rs`.

use std::sync::Arc;

use super::lookup::{Known, Roots, TREES, TreeId};
use super::{CommandError, Effect, Effects, Engine, Io, Notice, Reply, Task};
use crate::BLOCK_SIZE;
use crate::alloc::Allocator;
use crate::device::IoError;
use crate::format::superblock::MAX_BLOCKS;
use crate::ids::CommandId;
use crate::state::memtable::BlockChange;
use crate::state::{MemTable, TableChanges, TableShapes};
use crate::tree::{Changes, Key, Merge, Node, Progress, Ptr, Root, Space};

/// Exceptions collected in one step. Whoever needs the engine meanwhile waits for a
/// step to end, several times on the way of one first overwrite.
const COLLECT: usize = 128;
/// Nodes merged in one step.
const BUDGET: usize = 4;
/// Node writes under way at most.
const MAX_WRITES: usize = 128;

/// The checkpoint under way, and what the next one waits for.
#[derive(Debug)]
pub(super) struct Checkpoint {
    /// Generation of the last durable checkpoint.
    pub(super) generation: u64,
    /// A checkpoint should begin as soon as it can.
    pub(super) wanted: bool,
    /// Exceptions being merged: below the recent ones, above the trees.
    pub(super) frozen: Option<MemTable>,
    /// What the last one merged, dropped bit by bit.
    spent: MemTable,
    /// Blocks that the checkpoint under way may still allocate.
    pub(super) reserved: u64,
    pub(super) pinned: Vec<Arc<Node>>,
    /// Nodes that the new trees no longer have.
    replaced: Vec<u64>,
    /// When the last one began, for the periodic ones.
    pub(super) began_ms: u64,
    waiters: Vec<CommandId>,
    /// Waiters of the one under way.
    served: Vec<CommandId>,
    stage: Stage,
    pub(super) next: Next,
    writes: usize,
}

/// What the superblock will say.
#[derive(Debug, Default)]
pub(super) struct Next {
    pub(super) generation: u64,
    /// Blocks of the store: more than now in a checkpoint that extends it.
    pub(super) blocks: u64,
    pub(super) roots: Roots,
    pub(super) bitmap: Ptr,
    pub(super) tail: u64,
    pub(super) chain: u32,
    pub(super) tag: u64,
    pub(super) volume: u32,
    pub(super) clean: bool,
    tables: Option<TableChanges>,
}

#[derive(Debug)]
enum Stage {
    Idle,
    Exceptions {
        from: Key,
        changes: Changes,
    },
    Eras {
        from: Key,
        changes: Changes,
        exceptions: Changes,
    },
    Merging {
        tree: TreeId,
        merge: Box<Merge>,
        eras: Changes,
    },
    Writing,
    Flushing,
    Superblock,
}

/// The allocator as a merge sees it.
struct Nodespace<'a> {
    alloc: &'a mut Allocator,
    reserved: &'a mut u64,
    replaced: &'a mut Vec<u64>,
}

impl Space for Nodespace<'_> {
    fn alloc(&mut self) -> Option<u64> {
        let block = self.alloc.alloc_block()?;
        *self.reserved = self.reserved.saturating_sub(1);
        self.alloc.claim(block, 1);
        Some(block)
    }

    fn free(&mut self, block: u64) {
        // A loose node has none.
        if block < MAX_BLOCKS {
            self.alloc.release(block, 1);
        }
        self.replaced.push(block);
    }
}

impl Checkpoint {
    pub(super) fn new(generation: u64) -> Self {
        Self {
            generation,
            wanted: false,
            frozen: None,
            spent: MemTable::default(),
            reserved: 0,
            pinned: Vec::new(),
            replaced: Vec::new(),
            began_ms: 0,
            waiters: Vec::new(),
            served: Vec::new(),
            stage: Stage::Idle,
            next: Next::default(),
            writes: 0,
        }
    }

    pub(super) fn busy(&self) -> bool {
        !matches!(self.stage, Stage::Idle)
    }

    /// A command that is answered when a checkpoint begun from now on is durable.
    pub(super) fn request(&mut self, id: CommandId) {
        self.wanted = true;
        self.waiters.push(id);
    }
}

impl Engine {
    /// Whether memory or journal ask for a checkpoint.
    pub(super) fn checkpoint_due(&self) -> bool {
        let journal = &self.journal;
        self.checkpoint.wanted
            || self.state.recent.len() >= self.config.memtable_records
            || journal.used() * 2 >= journal.blocks
    }

    /// Does a bounded piece of work; true if more could be done at once.
    pub(super) fn step_checkpoint(&mut self, out: &mut Effects) -> bool {
        if self.failed.is_some() {
            return false;
        }
        match std::mem::replace(&mut self.checkpoint.stage, Stage::Idle) {
            Stage::Idle if self.checkpoint.spent.drop_some(COLLECT) => true,
            Stage::Idle => {
                let begin = self.checkpoint_due() && !self.journal.in_flight();
                if begin {
                    self.begin_checkpoint(out);
                }
                begin
            }
            Stage::Exceptions { from, changes } => self.collect_exceptions(from, changes, out),
            Stage::Eras {
                from,
                changes,
                exceptions,
            } => self.collect_eras(from, changes, exceptions, out),
            Stage::Merging { tree, merge, eras } => self.merge(tree, merge, eras, out),
            stage => {
                self.checkpoint.stage = stage;
                false
            }
        }
    }

    fn begin_checkpoint(&mut self, out: &mut Effects) {
        let reserved = self.reserve_for_checkpoint();
        let (frozen, tables) = match self.state.freeze(&self.table_shapes()) {
            Ok(parts) => parts,
            Err(error) => {
                return self.fail_store(&format!("a checkpoint failed: {error}"), out);
            }
        };
        let shape = self.geometry.shape(TreeId::Exceptions);
        let clean = self.closing.is_some() && self.quiet();
        let (generation, blocks) = self.next_checkpoint();
        let checkpoint = &mut self.checkpoint;
        checkpoint.reserved = reserved;
        checkpoint.wanted = false;
        checkpoint.began_ms = self.now_ms;
        checkpoint.frozen = Some(frozen);
        checkpoint.served = std::mem::take(&mut checkpoint.waiters);
        checkpoint.next = Next {
            generation,
            blocks,
            roots: self.roots,
            bitmap: Ptr::NULL,
            tail: self.journal.next,
            chain: self.journal.chain,
            tag: self.state.next_tag,
            volume: self.state.next_volume,
            clean,
            tables: Some(tables),
        };
        checkpoint.stage = Stage::Exceptions {
            from: Key::MIN,
            changes: Changes::new(&shape),
        };
    }

    fn table_shapes(&self) -> TableShapes {
        TableShapes {
            volumes: self.geometry.shape(TreeId::Volumes),
            snapshots: self.geometry.shape(TreeId::Snapshots),
            sharing: self.geometry.shape(TreeId::Sharing),
        }
    }

    fn collect_exceptions(&mut self, from: Key, mut changes: Changes, out: &mut Effects) -> bool {
        let blocks = u64::from(self.geometry.chunk_blocks);
        let (alloc, rotten) = (&mut self.alloc, &mut self.rotten);
        let Some(frozen) = &self.checkpoint.frozen else {
            return false;
        };
        let mut release = |alloc: &mut Allocator, block| {
            alloc.release(block, blocks);
            rotten.freed(block);
        };
        let next = frozen.collect_exceptions(from, COLLECT, &mut changes, |change| match change {
            BlockChange::Claim(block) => alloc.claim(block, blocks),
            BlockChange::Release(block) => release(alloc, block),
            BlockChange::Pass(block) => {
                alloc.claim(block, blocks);
                release(alloc, block);
            }
        });
        match next {
            Err(error) => self.fail_store(&format!("a checkpoint failed: {error}"), out),
            Ok(Some(from)) => self.checkpoint.stage = Stage::Exceptions { from, changes },
            Ok(None) => {
                let eras = Changes::new(&self.geometry.shape(TreeId::Eras));
                let exceptions = changes;
                self.checkpoint.stage = Stage::Eras {
                    from: Key::MIN,
                    changes: eras,
                    exceptions,
                };
            }
        }
        true
    }

    fn collect_eras(
        &mut self,
        from: Key,
        mut changes: Changes,
        exceptions: Changes,
        out: &mut Effects,
    ) -> bool {
        let Some(frozen) = &self.checkpoint.frozen else {
            return false;
        };
        match frozen.collect_eras(from, COLLECT, &mut changes) {
            Err(error) => self.fail_store(&format!("a checkpoint failed: {error}"), out),
            Ok(Some(from)) => {
                self.checkpoint.stage = Stage::Eras {
                    from,
                    changes,
                    exceptions,
                }
            }
            Ok(None) => self.begin_merge(TreeId::Exceptions, exceptions, changes),
        }
        true
    }

    fn begin_merge(&mut self, tree: TreeId, changes: Changes, eras: Changes) {
        self.begin_merge_into(*self.roots.get(tree), tree, changes, eras);
    }

    fn begin_merge_into(&mut self, root: Root, tree: TreeId, changes: Changes, eras: Changes) {
        let generation = self.checkpoint.next.generation;
        let merge = Box::new(Merge::new(
            self.geometry.shape(tree),
            root,
            changes,
            generation,
        ));
        self.checkpoint.stage = Stage::Merging { tree, merge, eras };
    }

    /// A table that cannot be read is written anew: it is all in memory. The nodes of
    /// the old one stay in use until a repair. False if it is none, or the frozen state
    /// is not known any more.
    pub(super) fn rewrite_table(&mut self, tree: TreeId) -> bool {
        if !matches!(&self.checkpoint.stage, Stage::Merging { tree: at, .. } if *at == tree) {
            return false;
        }
        let frozen = self.checkpoint.next.tables.as_ref();
        let whole = frozen.map(|frozen| self.state.whole_tables(frozen, &self.table_shapes()));
        let Some(Ok(Some(whole))) = whole else {
            return false;
        };
        let changes = match tree {
            TreeId::Volumes => whole.volumes,
            TreeId::Snapshots => whole.snapshots,
            TreeId::Sharing => whole.sharing,
            TreeId::Exceptions | TreeId::Eras => return false,
        };
        let none = Changes::new(&self.geometry.shape(TreeId::Eras));
        self.begin_merge_into(Root::EMPTY, tree, changes, none);
        true
    }

    fn merge(
        &mut self,
        tree: TreeId,
        mut merge: Box<Merge>,
        eras: Changes,
        out: &mut Effects,
    ) -> bool {
        if self.checkpoint.writes >= MAX_WRITES || self.waiting_for_node(Task::Merge) {
            self.checkpoint.stage = Stage::Merging { tree, merge, eras };
            return false;
        }
        let pinned = std::mem::take(&mut self.checkpoint.pinned);
        let mut nodes = Known {
            cache: &mut self.cache,
            pinned: &pinned,
        };
        let mut space = Nodespace {
            alloc: &mut self.alloc,
            reserved: &mut self.checkpoint.reserved,
            replaced: &mut self.checkpoint.replaced,
        };
        let mut written = Vec::new();
        let progress = merge.advance(&mut nodes, &mut space, &mut written, BUDGET);
        for node in written {
            self.write_node(&node, out);
        }
        match progress {
            Ok(Progress::Done(root)) => {
                self.merged(tree, root, eras, out);
                true
            }
            Ok(Progress::More) => {
                self.checkpoint.stage = Stage::Merging { tree, merge, eras };
                true
            }
            Ok(Progress::Need(missing)) => {
                self.checkpoint.pinned = pinned;
                self.checkpoint.stage = Stage::Merging { tree, merge, eras };
                for missing in missing {
                    self.fetch(tree, missing, Task::Merge, out);
                }
                false
            }
            Err(error) => {
                self.fail_store(&format!("a checkpoint failed: {error}"), out);
                false
            }
        }
    }

    fn write_node(&mut self, node: &Arc<Node>, out: &mut Effects) {
        self.cache.insert(node.clone());
        self.write_checkpoint_block(node.ptr().block, node.to_block(), out);
    }

    fn write_checkpoint_block(&mut self, block: u64, data: Arc<crate::Block>, out: &mut Effects) {
        self.counters.checkpoint_bytes += BLOCK_SIZE as u64;
        self.checkpoint.writes += 1;
        let io = self.new_io(Io::Node);
        out.list.push(Effect::WriteBlock {
            io,
            block,
            data,
            fua: false,
        });
    }

    /// One tree is done: the next, or the image.
    fn merged(&mut self, tree: TreeId, root: Root, eras: Changes, out: &mut Effects) {
        self.checkpoint.next.roots.set(tree, root);
        let tables = &self.checkpoint.next.tables;
        let none = || Changes::new(&self.geometry.shape(TreeId::Eras));
        let next = TREES.iter().skip_while(|t| **t != tree).nth(1);
        let changes = match (next, tables.as_ref()) {
            (Some(TreeId::Eras), _) => {
                let none = none();
                return self.begin_merge(TreeId::Eras, eras, none);
            }
            (Some(TreeId::Volumes), Some(t)) => t.volumes.clone(),
            (Some(TreeId::Snapshots), Some(t)) => t.snapshots.clone(),
            (Some(TreeId::Sharing), Some(t)) => t.sharing.clone(),
            _ => return self.write_image(out),
        };
        let none = none();
        if let Some(next) = next {
            self.begin_merge(*next, changes, none);
        }
    }

    fn write_image(&mut self, out: &mut Effects) {
        let Next {
            generation, blocks, ..
        } = self.checkpoint.next;
        if blocks > self.geometry.blocks {
            self.alloc.grow(blocks);
        }
        match self.alloc.image(self.geometry.store, generation) {
            Ok(image) => {
                self.checkpoint.next.bitmap = image.directory;
                for (block, data) in image.writes {
                    self.write_checkpoint_block(block, data, out);
                }
                self.checkpoint.stage = Stage::Writing;
                self.flush_checkpoint(out);
            }
            Err(error) => self.fail_store(&format!("a checkpoint failed: {error}"), out),
        }
    }

    pub(super) fn node_written(&mut self, result: Result<(), IoError>, out: &mut Effects) {
        if let Err(error) = result {
            return self.fail_store(&format!("a checkpoint write failed: {error}"), out);
        }
        self.checkpoint.writes = self.checkpoint.writes.saturating_sub(1);
        self.flush_checkpoint(out);
    }

    pub(super) fn flush_checkpoint(&mut self, out: &mut Effects) {
        if self.flushing || self.failed.is_some() {
            return;
        }
        if matches!(self.checkpoint.stage, Stage::Writing) && self.checkpoint.writes == 0 {
            self.checkpoint.stage = Stage::Flushing;
            self.flushing = true;
            let io = self.new_io(Io::CheckpointFlush);
            out.list.push(Effect::FlushStore { io });
        }
    }

    pub(super) fn checkpoint_flushed(&mut self, result: Result<(), IoError>, out: &mut Effects) {
        if let Err(error) = result {
            return self.fail_store(&format!("a flush failed: {error}"), out);
        }
        if self.failed.is_some() {
            return;
        }
        self.checkpoint.stage = Stage::Superblock;
        self.write_superblock(out);
    }

    pub(super) fn superblock_written(&mut self, result: Result<(), IoError>, out: &mut Effects) {
        if let Err(error) = result {
            return self.fail_store(&format!("a superblock write failed: {error}"), out);
        }
        if self.failed.is_some() || self.write_first_superblock(out) {
            return;
        }
        let checkpoint = &mut self.checkpoint;
        checkpoint.generation = checkpoint.next.generation;
        checkpoint.stage = Stage::Idle;
        checkpoint.spent = checkpoint.frozen.take().unwrap_or_default();
        checkpoint.reserved = 0;
        checkpoint.pinned.clear();
        // Nobody asks for these again: leave the cache to the living.
        for block in checkpoint.replaced.drain(..) {
            self.cache.remove(block);
            self.ready.extend(self.heals.replaced(block));
        }
        self.roots = checkpoint.next.roots;
        self.version += 1;
        self.journal.tail = checkpoint.next.tail;
        self.alloc.complete();
        self.purge_wanted |= self.purges_postponed > 0;
        self.extended(out);
        self.counters.checkpoints += 1;
        let generation = self.checkpoint.generation;
        out.list
            .push(Effect::Notice(Notice::Checkpoint { generation }));
        for id in std::mem::take(&mut self.checkpoint.served) {
            out.list.push(Effect::Reply {
                id,
                result: Ok(Reply::Done),
            });
        }
        if self.checkpoint.next.clean {
            self.closed(out);
        }
    }

    /// No checkpoint will ever be durable again.
    pub(super) fn abandon_checkpoint(&mut self, why: &CommandError, out: &mut Effects) {
        let checkpoint = &mut self.checkpoint;
        let served = std::mem::take(&mut checkpoint.served);
        for id in served
            .into_iter()
            .chain(std::mem::take(&mut checkpoint.waiters))
        {
            out.list.push(Effect::Reply {
                id,
                result: Err(why.clone()),
            });
        }
    }
}
