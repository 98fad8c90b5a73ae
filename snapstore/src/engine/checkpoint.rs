//! Checkpoints: writing the changed trees out so that the journal before them can
//! be reused, without stopping anything.
//!
//! A checkpoint is exactly the effects of the records up to one point, all
//! published (hazard 16). It begins between two commits: the recent exceptions are
//! frozen and a new table takes over, so lookups go on through recent, frozen and
//! the old trees. In bounded steps the frozen changes are collected and merged
//! into new trees; then the bitmap's image, one flush, the superblock with FUA.
//! Only then the new roots are used, blocks freed by the merge may be reused, and
//! the journal's tail moves.

use std::sync::Arc;

use super::lookup::{Known, Roots, TREES, TreeId};
use super::{CommandError, Effect, Effects, Engine, Io, Notice, Reply, Task};
use crate::BLOCK_SIZE;
use crate::alloc::Allocator;
use crate::device::IoError;
use crate::format::superblock::{DiskRoot, FLAG_CLEAN, Superblock, VERSION};
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
    next: Next,
    writes: usize,
}

/// What the superblock will say.
#[derive(Debug, Default)]
struct Next {
    roots: Roots,
    bitmap: Ptr,
    tail: u64,
    chain: u32,
    tag: u64,
    volume: u32,
    clean: bool,
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
        self.alloc.release(block, 1);
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
        let shapes = TableShapes {
            volumes: self.geometry.shape(TreeId::Volumes),
            snapshots: self.geometry.shape(TreeId::Snapshots),
            sharing: self.geometry.shape(TreeId::Sharing),
        };
        let (frozen, tables) = match self.state.freeze(&shapes) {
            Ok(parts) => parts,
            Err(error) => {
                return self.fail_store(&format!("a checkpoint failed: {error}"), out);
            }
        };
        let shape = self.geometry.shape(TreeId::Exceptions);
        let clean = self.closing.is_some() && self.quiet();
        let checkpoint = &mut self.checkpoint;
        checkpoint.reserved = reserved;
        checkpoint.wanted = false;
        checkpoint.began_ms = self.now_ms;
        checkpoint.frozen = Some(frozen);
        checkpoint.served = std::mem::take(&mut checkpoint.waiters);
        checkpoint.next = Next {
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

    fn collect_exceptions(&mut self, from: Key, mut changes: Changes, out: &mut Effects) -> bool {
        let blocks = u64::from(self.geometry.chunk_blocks);
        let alloc = &mut self.alloc;
        let Some(frozen) = &self.checkpoint.frozen else {
            return false;
        };
        let next = frozen.collect_exceptions(from, COLLECT, &mut changes, |change| match change {
            BlockChange::Claim(block) => alloc.claim(block, blocks),
            BlockChange::Release(block) => alloc.release(block, blocks),
            BlockChange::Pass(block) => {
                alloc.claim(block, blocks);
                alloc.release(block, blocks);
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
        let generation = self.checkpoint.generation + 1;
        let root = *self.roots.get(tree);
        let merge = Box::new(Merge::new(
            self.geometry.shape(tree),
            root,
            changes,
            generation,
        ));
        self.checkpoint.stage = Stage::Merging { tree, merge, eras };
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
        self.write_checkpoint_block(node.ptr().block, node.block().clone(), out);
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
        let tables = &mut self.checkpoint.next.tables;
        let none = || Changes::new(&self.geometry.shape(TreeId::Eras));
        let next = TREES.iter().skip_while(|t| **t != tree).nth(1);
        let changes = match (next, tables.as_mut()) {
            (Some(TreeId::Eras), _) => {
                let none = none();
                return self.begin_merge(TreeId::Eras, eras, none);
            }
            (Some(TreeId::Volumes), Some(t)) => std::mem::take(&mut t.volumes),
            (Some(TreeId::Snapshots), Some(t)) => std::mem::take(&mut t.snapshots),
            (Some(TreeId::Sharing), Some(t)) => std::mem::take(&mut t.sharing),
            _ => return self.write_image(out),
        };
        let none = none();
        if let Some(next) = next {
            self.begin_merge(*next, changes, none);
        }
    }

    fn write_image(&mut self, out: &mut Effects) {
        match self
            .alloc
            .image(self.geometry.store, self.checkpoint.generation + 1)
        {
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
        let generation = self.checkpoint.generation + 1;
        let superblock = self.next_superblock();
        let at = superblock.address(generation);
        let data = Arc::new(superblock.encode(at, generation));
        self.counters.checkpoint_bytes += BLOCK_SIZE as u64;
        self.checkpoint.stage = Stage::Superblock;
        let io = self.new_io(Io::Superblock);
        out.list.push(Effect::WriteBlock {
            io,
            block: at,
            data,
            fua: true,
        });
    }

    fn next_superblock(&self) -> Superblock {
        let (geometry, next) = (&self.geometry, &self.checkpoint.next);
        Superblock {
            version: VERSION.into(),
            chunk_size: (geometry.chunk_blocks * BLOCK_SIZE as u32).into(),
            compat: 0.into(),
            ro_compat: 0.into(),
            incompat: 0.into(),
            uuid: geometry.uuid,
            blocks: geometry.blocks.into(),
            created_ms: geometry.created_ms.into(),
            journal_first: self.journal.first.into(),
            journal_blocks: self.journal.blocks.into(),
            journal_tail: next.tail.into(),
            journal_chain: next.chain.into(),
            checksum: geometry.checksum.id().into(),
            next_tag: next.tag.into(),
            next_volume: next.volume.into(),
            flags: if next.clean { FLAG_CLEAN } else { 0 }.into(),
            bitmap: next.bitmap.into(),
            exceptions: disk_root(&next.roots.exceptions),
            eras: disk_root(&next.roots.eras),
            volumes: disk_root(&next.roots.volumes),
            snapshots: disk_root(&next.roots.snapshots),
            sharing: disk_root(&next.roots.sharing),
        }
    }

    pub(super) fn superblock_written(&mut self, result: Result<(), IoError>, out: &mut Effects) {
        if let Err(error) = result {
            return self.fail_store(&format!("a superblock write failed: {error}"), out);
        }
        if self.failed.is_some() {
            return;
        }
        let checkpoint = &mut self.checkpoint;
        checkpoint.generation += 1;
        checkpoint.stage = Stage::Idle;
        checkpoint.spent = checkpoint.frozen.take().unwrap_or_default();
        checkpoint.reserved = 0;
        checkpoint.pinned.clear();
        // Nobody asks for these again: leave the cache to the living.
        for block in checkpoint.replaced.drain(..) {
            self.cache.remove(block);
        }
        self.roots = checkpoint.next.roots;
        self.version += 1;
        self.journal.tail = checkpoint.next.tail;
        self.alloc.complete();
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

/// A root as it stands on disk.
pub(crate) fn disk_root(root: &Root) -> DiskRoot {
    DiskRoot {
        ptr: root.ptr.into(),
        height: root.height.into(),
        reserved: [0; 6],
        nodes: root.nodes.into(),
        leaves: root.leaves.into(),
        records: root.records.into(),
    }
}

/// A root read from disk.
pub(crate) fn root_of(disk: &DiskRoot) -> Root {
    Root {
        ptr: disk.ptr.into(),
        height: disk.height.get(),
        nodes: disk.nodes.get(),
        leaves: disk.leaves.get(),
        records: disk.records.get(),
    }
}
