//! The allocator against a naive oracle: one flag per block and map, through
//! images, completions and crashes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::block::Block;
use crate::device::{BlockDevice, IoError};
use crate::format::bitmap::PAGE_BITS;
use crate::format::{Damage, Kind, Ptr, seal};

const STORE: u64 = 0x1234_5678_9abc_def0;

/// A device that only remembers.
struct Disk {
    blocks: Vec<Block>,
    fail_at: Option<u64>,
}

impl Disk {
    fn new(blocks: u64) -> Self {
        Self {
            blocks: vec![Block::zeroed(); blocks as usize],
            fail_at: None,
        }
    }

    fn write_image(&mut self, image: &Image) {
        for (at, block) in &image.writes {
            self.blocks[*at as usize] = (**block).clone();
        }
    }
}

impl BlockDevice for Disk {
    fn blocks(&self) -> u64 {
        self.blocks.len() as u64
    }

    fn read(&mut self, first: u64, out: &mut [Block]) -> Result<(), IoError> {
        if self.fail_at == Some(first) {
            return Err(IoError::Errno(5));
        }
        let first = first as usize;
        let from = self
            .blocks
            .get(first..first + out.len())
            .ok_or(IoError::OutOfRange)?;
        out.clone_from_slice(from);
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
    ]
}

/// What survives a crash: an image known complete and what was claimed in it.
#[derive(Clone)]
struct Complete {
    directory: Ptr,
    claimed: Vec<Run>,
}

/// The allocator, and what it should be.
struct World {
    own: Allocator,
    disk: Disk,
    chunk: u64,
    generation: u64,
    /// Allocated, not claimed.
    held: Vec<Run>,
    claimed: Vec<Run>,
    /// Blocks of the last image, and what awaits completion.
    image: BTreeSet<u64>,
    released: BTreeSet<u64>,
    sealed: BTreeSet<u64>,
    complete: Option<Complete>,
    pending: Option<Complete>,
}

impl World {
    fn new(blocks: u64, chunk: u32) -> Self {
        let mut own = Allocator::new(blocks, chunk);
        for block in [0, blocks - 1] {
            own.mark_used(block, 1).unwrap();
            own.claim(block, 1);
        }
        Self {
            own,
            disk: Disk::new(blocks),
            chunk: u64::from(chunk),
            generation: 0,
            held: Vec::new(),
            claimed: Vec::new(),
            image: BTreeSet::new(),
            released: BTreeSet::new(),
            sealed: BTreeSet::new(),
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
        }
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

    fn make_image(&mut self) {
        self.generation += 1;
        let (used, fits) = (
            self.used(),
            self.own.free_blocks() >= self.own.worst_case_image_blocks(),
        );
        let result = self.own.image(STORE, self.generation);
        assert_eq!(result.is_ok(), fits);
        let Ok(image) = result else { return };
        for (at, _) in &image.writes {
            assert!(!used[*at as usize], "the image overwrites block {at}");
        }
        assert!(image.writes.len() as u64 <= self.own.worst_case_image_blocks());
        self.disk.write_image(&image);
        let blocks: BTreeSet<u64> = self.own.image_blocks().collect();
        self.released.extend(self.image.difference(&blocks));
        self.image = blocks;
        self.sealed.append(&mut self.released);
        self.pending = Some(Complete {
            directory: image.directory,
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

    fn finish(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.own.complete();
            self.sealed.clear();
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
            self.own.blocks(),
            self.chunk as u32,
        )
        .unwrap();
        self.claimed = complete.claimed;
        self.image = self.own.image_blocks().collect();
        self.held.clear();
        self.released.clear();
        self.sealed.clear();
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
    #![proptest_config(ProptestConfig::with_cases(96))]

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

/// A store of three pages with an image: for the hostile tests.
fn with_image() -> (World, Ptr) {
    let mut world = World::new(3 * PAGE_BITS - 7, 4);
    world.own.alloc_chunks(9).unwrap();
    world.make_image();
    world.finish();
    let directory = world.complete.clone().unwrap().directory;
    (world, directory)
}

fn try_load(world: &mut World, directory: Ptr) -> Result<Allocator, LoadError> {
    load(&mut world.disk, STORE, directory, world.own.blocks(), 4)
}

#[test]
fn every_damaged_byte_of_an_image_is_refused() {
    let (mut world, directory) = with_image();
    for at in world.image.clone() {
        for byte in (0..4096).step_by(13) {
            world.disk.blocks[at as usize].0[byte] ^= 0x40;
            let error = try_load(&mut world, directory).unwrap_err();
            assert_eq!(
                error,
                LoadError::Damaged {
                    block: at,
                    damage: Damage::Checksum
                }
            );
            world.disk.blocks[at as usize].0[byte] ^= 0x40;
        }
    }
    try_load(&mut world, directory).unwrap();
}

#[test]
fn other_generations_stores_and_addresses_are_refused() {
    let (mut world, directory) = with_image();
    let wrong = Ptr {
        generation: 2,
        ..directory
    };
    let damage = |result: Result<Allocator, LoadError>| match result.unwrap_err() {
        LoadError::Damaged { damage, .. } => damage,
        LoadError::Read { error, .. } => panic!("unexpected {error}"),
    };
    assert_eq!(damage(try_load(&mut world, wrong)), Damage::Generation);
    for block in [0, world.own.blocks(), u64::MAX] {
        let outside = Ptr {
            block,
            generation: 1,
        };
        assert!(matches!(
            damage(try_load(&mut world, outside)),
            Damage::Field(_)
        ));
    }
    let other = load(&mut world.disk, STORE + 1, directory, world.own.blocks(), 4);
    assert_eq!(damage(other), Damage::Store);
    world.disk.fail_at = Some(directory.block);
    let failed = LoadError::Read {
        block: directory.block,
        error: IoError::Errno(5),
    };
    assert_eq!(try_load(&mut world, directory).unwrap_err(), failed);
}

/// Sealed again after every change, so that only the meaning is wrong.
#[test]
fn well_sealed_nonsense_is_refused() {
    let (mut world, directory) = with_image();
    let page = world.own.durable.copies().next().unwrap();
    let cases: [(u64, usize, &[u8]); 8] = [
        (directory.block, 32, &[9]),       // a chain longer than the store needs
        (directory.block, 48, &[1]),       // out of order
        (directory.block, 52, &[2]),       // fewer entries
        (directory.block, 64, &[0xff; 8]), // a page outside the store
        (directory.block, 72, &[7]),       // a page of another generation
        (page, 32, &[1]),                  // a page of another part
        (page, 64, &[0; 4032]),            // the image's own blocks are free
        (directory.block, 64, &world_page(&world)), // an entry of another page
    ];
    for (at, offset, bytes) in cases {
        let saved = world.disk.blocks[at as usize].clone();
        let kind = if at == page {
            Kind::BitmapPage
        } else {
            Kind::BitmapDirectory
        };
        let block = &mut world.disk.blocks[at as usize];
        block.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        seal(block, kind, at, STORE, directory.generation);
        let result = try_load(&mut world, directory);
        assert!(result.is_err(), "block {at} offset {offset} was believed");
        world.disk.blocks[at as usize] = saved;
    }
    try_load(&mut world, directory).unwrap();
}

/// The address of the last page, in little-endian bytes.
fn world_page(world: &World) -> [u8; 8] {
    world.own.durable.copies().last().unwrap().to_le_bytes()
}

#[test]
fn bits_beyond_the_end_are_refused() {
    let (mut world, directory) = with_image();
    let last = world.own.durable.copies().last().unwrap();
    let block = &mut world.disk.blocks[last as usize];
    block.0[4095] |= 0x80;
    seal(block, Kind::BitmapPage, last, STORE, directory.generation);
    let damage = Damage::Field("bits beyond the end of the store");
    let error = LoadError::Damaged {
        block: last,
        damage,
    };
    assert_eq!(try_load(&mut world, directory).unwrap_err(), error);
}

#[test]
fn contradictions_latch_and_change_nothing() {
    type Call = fn(&mut Allocator);
    let calls: [(Call, &str); 7] = [
        (|own| own.release(50, 1), "release"),
        (|own| own.claim(50, 1), "claim"),
        (|own| own.claim(0, 1), "claim"),
        (|own| own.give_back(50, 1), "give back"),
        (|own| own.give_back(0, 1), "give back"),
        (|own| own.release(u64::MAX, 2), "release"),
        (|own| own.claim(999, 2), "claim"),
    ];
    for (call, operation) in calls {
        let mut own = World::new(1000, 4).own;
        let free = own.free_blocks();
        call(&mut own);
        let fault = own.fault().unwrap();
        assert_eq!(fault.operation, operation);
        assert_eq!(own.free_blocks(), free);
        assert_eq!(own.image(STORE, 1).unwrap_err(), ImageError::Fault(fault));
    }
}

#[test]
fn an_unchanged_bitmap_writes_little() {
    // 40 pages; the image's own moves stay in the lowest.
    let mut own = Allocator::new(40 * PAGE_BITS, 4);
    own.mark_used(0, 1).unwrap();
    own.claim(0, 1);
    for generation in 1..50 {
        let image = own.image(STORE, generation).unwrap();
        assert_eq!((image.pages, image.writes.len()), (1, 2));
        own.complete();
    }
}

#[test]
fn a_tib_is_filled_in_runs_and_has_a_chained_directory() {
    let blocks = 1u64 << 28;
    let mut own = Allocator::new(blocks, 4);
    own.mark_used(0, 1).unwrap();
    own.claim(0, 1);
    assert_eq!(own.worst_case_image_blocks(), 8323 + 34);
    let image = own.image(STORE, 1).unwrap();
    assert_eq!((image.pages, image.writes.len()), (1, 35));
    own.complete();
    let mut got = 0;
    while let Some((_, chunks)) = own.alloc_chunks(1 << 20) {
        got += u64::from(chunks);
    }
    // One block in a chunk is taken by block 0, 35 by the image.
    assert_eq!(got, blocks / 4 - 9);
    assert_eq!((own.free_chunks(), own.free_blocks()), (0, 0));
}
