//! The allocator against a naive oracle: one flag per block and map, through
//! images, completions and crashes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::block::Block;
use crate::device::{BlockDevice, IoError};
use crate::format::Ptr;
use crate::format::bitmap::PAGE_BITS;

pub(super) const STORE: u64 = 0x1234_5678_9abc_def0;

/// A device that only remembers.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) blocks: HashMap<u64, Arc<Block>>,
    pub(super) fail_at: Option<u64>,
}

impl BlockDevice for Disk {
    fn blocks(&self) -> u64 {
        u64::MAX
    }

    fn read(&mut self, first: u64, out: &mut [Block]) -> Result<(), IoError> {
        if self.fail_at == Some(first) {
            return Err(IoError::Errno(5));
        }
        for (at, out) in (first..).zip(out) {
            match self.blocks.get(&at) {
                Some(block) => out.clone_from(block),
                None => *out = Block::zeroed(),
            }
        }
        Ok(())
    }

    fn write(&mut self, _: u64, _: &[Block]) -> Result<(), IoError> {
        Err(IoError::Errno(30))
    }

    fn flush(&mut self) -> Result<(), IoError> {
        Ok(())
    }
}

/// One step of a random history. Numbers select among what is there.
#[derive(Clone, Debug)]
enum Op {
    AllocBlock,
    AllocChunks(u32),
    MarkUsed(u64, u64),
    GiveBack(usize),
    Claim(usize),
    Release(usize, u64),
    Image,
    Complete,
    Crash,
    Grow(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::AllocBlock),
        6 => (1u32..40).prop_map(Op::AllocChunks),
        2 => (any::<u64>(), 1u64..300).prop_map(|(at, count)| Op::MarkUsed(at, count)),
        3 => any::<usize>().prop_map(Op::GiveBack),
        8 => any::<usize>().prop_map(Op::Claim),
        6 => (any::<usize>(), any::<u64>()).prop_map(|(run, part)| Op::Release(run, part)),
        2 => Just(Op::Image),
        2 => Just(Op::Complete),
        1 => Just(Op::Crash),
        1 => prop_oneof![1u64..600, 30_000u64..34_000].prop_map(Op::Grow),
    ]
}

/// What survives a crash: an image known complete and what was claimed in it.
#[derive(Clone)]
pub(super) struct Complete {
    pub(super) directory: Ptr,
    blocks: u64,
    claimed: Vec<Run>,
}

/// The allocator, and what it should be.
pub(super) struct World {
    pub(super) own: Allocator,
    pub(super) disk: Disk,
    chunk: u64,
    generation: u64,
    /// Allocated, not claimed.
    held: Vec<Run>,
    claimed: Vec<Run>,
    /// Blocks of the last image, and what awaits completion.
    pub(super) image: BTreeSet<u64>,
    released: BTreeSet<u64>,
    sealed: BTreeSet<u64>,
    /// New blocks that nobody but an image may take yet.
    fresh: Range<u64>,
    pub(super) complete: Option<Complete>,
    pending: Option<Complete>,
}

impl World {
    pub(super) fn new(blocks: u64, chunk: u32) -> Self {
        let mut own = Allocator::new(blocks, chunk);
        for block in [0, blocks - 1] {
            own.mark_used(block, 1).unwrap();
            own.claim(block, 1);
        }
        Self {
            own,
            disk: Disk::default(),
            chunk: u64::from(chunk),
            generation: 0,
            held: Vec::new(),
            claimed: Vec::new(),
            image: BTreeSet::new(),
            released: BTreeSet::new(),
            sealed: BTreeSet::new(),
            fresh: 0..0,
            complete: None,
            pending: None,
        }
    }

    fn durable(&self) -> Vec<bool> {
        let mut bits = vec![false; self.own.blocks() as usize];
        let superblocks = [0, self.own.blocks() - 1].into_iter();
        let claimed = self
            .claimed
            .iter()
            .flat_map(|run| run.block..run.block + run.count);
        for block in superblocks.chain(claimed).chain(self.image.iter().copied()) {
            assert!(!bits[block as usize], "block {block} has two owners");
            bits[block as usize] = true;
        }
        bits
    }

    fn used(&self) -> Vec<bool> {
        let mut bits = self.durable();
        let held = self
            .held
            .iter()
            .flat_map(|run| run.block..run.block + run.count);
        for block in held.chain(self.released.iter().chain(&self.sealed).copied()) {
            assert!(!bits[block as usize], "block {block} has two owners");
            bits[block as usize] = true;
        }
        self.fresh
            .clone()
            .for_each(|block| bits[block as usize] = true);
        bits
    }

    fn compare(&self) {
        let (durable, used) = (self.durable(), self.used());
        for block in 0..self.own.blocks() {
            assert_eq!(
                self.own.is_durable(block),
                durable[block as usize],
                "durable {block}"
            );
            assert_eq!(
                self.own.is_used(block),
                used[block as usize],
                "used {block}"
            );
        }
        let free = used.iter().filter(|&&used| !used).count() as u64;
        let slots = used.chunks_exact(self.chunk as usize);
        let free_chunks = slots.filter(|slot| slot.iter().all(|&used| !used)).count() as u64;
        assert_eq!(self.own.free_blocks(), free);
        assert_eq!(self.own.free_chunks(), free_chunks);
        assert_eq!(
            self.own.releasing_blocks(),
            (self.released.len() + self.sealed.len()) as u64
        );
        assert_eq!(self.own.fault(), None);
        self.own.used.check_counts();
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::AllocBlock => self.alloc_block(),
            Op::AllocChunks(want) => self.alloc_chunks(want),
            Op::MarkUsed(at, count) => self.mark_used(at % self.own.blocks(), count),
            Op::GiveBack(index) => {
                if let Some(run) = pick(&mut self.held, index) {
                    self.own.give_back(run.block, run.count);
                }
            }
            Op::Claim(index) => {
                if let Some(run) = pick(&mut self.held, index) {
                    self.own.claim(run.block, run.count);
                    self.claimed.push(run);
                }
            }
            Op::Release(index, part) => self.release(index, part),
            Op::Image => self.make_image(),
            Op::Complete => self.finish(),
            Op::Crash => self.crash(),
            Op::Grow(by) => self.grow(by),
        }
    }

    /// The image follows at once; allocations until it is complete are tried.
    fn grow(&mut self, by: u64) {
        self.finish();
        let old = self.own.blocks();
        if old > 80_000 || !self.fresh.is_empty() {
            return;
        }
        // A small one stays small, and so full.
        let blocks = old + if old < 200 { by % 20 + 1 } else { by };
        self.own.reserve(blocks).unwrap();
        self.own.grow(blocks);
        self.released.insert(old - 1);
        self.fresh = old..blocks - 1;
        self.make_image();
    }

    fn alloc_block(&mut self) {
        let used = self.used();
        let slots: Vec<_> = used.chunks_exact(self.chunk as usize).collect();
        let partial = used.iter().enumerate().position(|(block, &used)| {
            !used
                && slots
                    .get(block / self.chunk as usize)
                    .is_none_or(|slot| slot.contains(&true))
        });
        let expected = partial.or_else(|| used.iter().position(|&used| !used));
        let got = self.own.alloc_block();
        assert_eq!(got, expected.map(|block| block as u64));
        self.held.extend(got.map(|block| Run { block, count: 1 }));
    }

    fn alloc_chunks(&mut self, want: u32) {
        let (used, any) = (self.used(), self.own.free_chunks() > 0);
        let got = self.own.alloc_chunks(want);
        assert_eq!(got.is_some(), any, "a free chunk is always found");
        let Some((block, chunks)) = got else { return };
        assert!((1..=want).contains(&chunks));
        assert_eq!(block % self.chunk, 0);
        let count = u64::from(chunks) * self.chunk;
        assert!(
            used[block as usize..(block + count) as usize]
                .iter()
                .all(|&used| !used)
        );
        self.held.push(Run { block, count });
    }

    fn mark_used(&mut self, block: u64, count: u64) {
        let used = self.used();
        let end = (block + count) as usize;
        let free = used
            .get(block as usize..end)
            .is_some_and(|run| run.iter().all(|&used| !used));
        let result = self.own.mark_used(block, count);
        assert_eq!(
            result,
            if free {
                Ok(())
            } else {
                Err(AlreadyUsed { block, count })
            }
        );
        self.held.extend(free.then_some(Run { block, count }));
    }

    /// Releases a claimed run, or only its tail.
    fn release(&mut self, index: usize, part: u64) {
        let Some(mut run) = pick(&mut self.claimed, index) else {
            return;
        };
        let keep = part % run.count;
        if keep > 0 {
            self.claimed.push(Run {
                block: run.block,
                count: keep,
            });
            run = Run {
                block: run.block + keep,
                count: run.count - keep,
            };
        }
        self.own.release(run.block, run.count);
        self.released.extend(run.block..run.block + run.count);
    }

    pub(super) fn make_image(&mut self) {
        self.generation += 1;
        let (used, fits) = (
            self.used(),
            self.own.free_blocks() + self.own.fresh_blocks() >= self.own.worst_case_image_blocks(),
        );
        let result = self.own.image(STORE, self.generation);
        assert_eq!(result.is_ok(), fits);
        let Ok(image) = result else { return };
        for (at, _) in &image.writes {
            let free = !used[*at as usize] || self.fresh.contains(at);
            assert!(free, "the image overwrites block {at}");
        }
        assert!(image.writes.len() as u64 <= self.own.worst_case_image_blocks());
        self.disk.blocks.extend(image.writes.iter().cloned());
        let blocks: BTreeSet<u64> = self.own.image_blocks().collect();
        self.released.extend(self.image.difference(&blocks));
        self.image = blocks;
        self.sealed.append(&mut self.released);
        self.pending = Some(Complete {
            directory: image.directory,
            blocks: self.own.blocks(),
            claimed: self.claimed.clone(),
        });
        self.check_image(image.directory);
    }

    /// What the disk says is what is durable, bit by bit.
    fn check_image(&mut self, directory: Ptr) {
        let blocks = self.own.blocks();
        let read = load(&mut self.disk, STORE, directory, blocks, self.chunk as u32).unwrap();
        let durable = self.durable();
        for block in 0..blocks {
            assert_eq!(
                read.is_durable(block),
                durable[block as usize],
                "on disk: {block}"
            );
            assert_eq!(
                read.is_used(block),
                durable[block as usize],
                "loaded: {block}"
            );
        }
        assert_eq!(read.image_blocks().collect::<BTreeSet<_>>(), self.image);
    }

    pub(super) fn finish(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.own.complete();
            while self.own.open_some() {}
            self.sealed.clear();
            self.fresh = 0..0;
            self.complete = Some(pending);
        }
    }

    fn crash(&mut self) {
        let Some(complete) = self.complete.clone() else {
            return;
        };
        self.own = load(
            &mut self.disk,
            STORE,
            complete.directory,
            complete.blocks,
            self.chunk as u32,
        )
        .unwrap();
        self.claimed = complete.claimed;
        self.image = self.own.image_blocks().collect();
        self.held.clear();
        self.released.clear();
        self.sealed.clear();
        self.fresh = 0..0;
        self.pending = None;
    }
}

fn pick(runs: &mut Vec<Run>, index: usize) -> Option<Run> {
    if runs.is_empty() {
        None
    } else {
        Some(runs.swap_remove(index % runs.len()))
    }
}

proptest! {
    /// Several pages, an odd end, every slot size.
    #[test]
    fn agrees_with_the_oracle(
        blocks in prop_oneof![200u64..6_000, PAGE_BITS - 2..PAGE_BITS + 3, 66_000u64..70_000],
        shift in 0u32..=8,
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut world = World::new(blocks, 1 << shift);
        world.compare();
        for op in &ops {
            world.apply(op);
            world.compare();
        }
    }

    /// A small store that is full most of the time.
    #[test]
    fn a_full_store_stays_consistent(
        blocks in 20u64..90,
        shift in 0u32..=4,
        ops in prop::collection::vec(op(), 1..300),
    ) {
        let mut world = World::new(blocks, 1 << shift);
        for op in &ops {
            world.apply(op);
            world.compare();
        }
    }
}
