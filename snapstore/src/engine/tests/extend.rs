//! A store grows with its device: what that needs, and what a crash at any write leaves.

use super::*;
use crate::alloc::grow::PIECE;
use crate::format::superblock::{MAX_BLOCKS, Superblock};

const OLD: u64 = 1024;
const NEW: u64 = 1700;

/// A write of the store, with FUA or not, or a flush of it.
enum Step {
    Write(u64, Arc<Block>, bool),
    Flush,
}

/// What was done to the store, of everything carried out.
fn steps(seen: &[Effect]) -> Vec<Step> {
    let step = |effect: &Effect| match effect {
        Effect::WriteBlock {
            block, data, fua, ..
        } => Some(Step::Write(*block, Arc::clone(data), *fua)),
        Effect::FlushStore { .. } => Some(Step::Flush),
        _ => None,
    };
    seen.iter().filter_map(step).collect()
}

impl Rig {
    /// From now on nothing can be written to a block.
    fn refuse(&mut self, bad: u64) {
        self.lands = false;
        let refused = move |effect: &Effect| matches!(effect, Effect::WriteBlock { block, .. } if *block == bad);
        self.fail = Box::new(refused);
    }

    fn extend(&mut self, blocks: u64) -> Option<Result<Reply, CommandError>> {
        if blocks > self.disk.blocks() {
            self.disk.0.resize(blocks as usize, Block::zeroed());
        }
        let id = self.command(Command::ExtendStore { blocks });
        self.result(id)
    }

    fn blocks(&self) -> u64 {
        self.engine.store_info().size / BLOCK_SIZE as u64
    }

    fn close(mut self) -> Disk {
        let id = self.command(Command::Close);
        assert_eq!(self.result(id), Some(Ok(Reply::Done)));
        self.disk
    }
}

fn must_be_sound(disk: &mut Disk, when: &str) {
    let report = check(disk, CheckOptions::default(), &mut |_, _| {}).unwrap();
    assert_eq!(report.problems, Vec::<String>::new(), "{when}");
}

#[test]
fn a_store_grows_again_and_again_and_fills_what_it_got() {
    let mut rig = Rig::new(OLD as usize, Policy::SnapshotFirst);
    let mut next = 0;
    // The last size has a second page of the bitmap.
    for blocks in [NEW, NEW + 256, 4000, 33_000] {
        while rig.failed.is_empty() {
            rig.write(next, next % 4096, 16);
            next += 16;
            if next > 4096 {
                break;
            }
        }
        let granted = rig.granted.len();
        assert_eq!(rig.extend(blocks), Some(Ok(Reply::Done)));
        assert_eq!(rig.blocks(), blocks);
        if let Some((owner, _)) = rig.failed.pop() {
            rig.write(owner.0, owner.0, 16);
            assert_eq!((rig.granted.len(), rig.failed.len()), (granted + 1, 0));
        }
        rig.command(Command::Checkpoint);
        must_be_sound(&mut rig.disk, "extended");
    }
    let free = rig.engine.alloc.free_blocks();
    assert!(free > 28_000, "{free}");
    let mut disk = rig.close();
    must_be_sound(&mut disk, "closed");
    let rig = Rig::open(disk);
    assert_eq!(rig.blocks(), 33_000);
    assert_eq!(rig.engine.alloc.free_blocks(), free, "nothing leaked");
}

#[test]
fn what_cannot_be_extended_is_refused_and_changes_nothing() {
    let mut rig = Rig::new(OLD as usize, Policy::OriginFirst);
    let bytes = |blocks: u64| blocks * BLOCK_SIZE as u64;
    let (store, step) = (bytes(OLD), bytes(256));
    for blocks in [OLD, OLD + 1, OLD + 255] {
        let device = bytes(blocks);
        let nothing = CommandError::NothingToExtend {
            store,
            device,
            step,
        };
        assert_eq!(rig.extend(blocks), Some(Err(nothing)));
    }
    let shrunk = |blocks| CommandError::StoreCutOff {
        store,
        device: bytes(blocks),
    };
    for blocks in [0, OLD - 1] {
        assert_eq!(rig.extend(blocks), Some(Err(shrunk(blocks))));
    }
    for blocks in [MAX_BLOCKS + 1, u64::MAX] {
        let id = rig.command(Command::ExtendStore { blocks });
        let refused = rig.result(id);
        let large = matches!(refused, Some(Err(CommandError::StoreTooLarge { .. })));
        assert!(large, "{refused:?}");
    }
    let id = rig.command(Command::ExtendStore { blocks: MAX_BLOCKS });
    let refused = rig.result(id);
    let memory = matches!(refused, Some(Err(CommandError::NoMemory { .. })));
    assert!(memory, "{refused:?}");
    rig.refuse(NEW - 1);
    let refused = CommandError::NewEnd(IoError::Errno(5));
    assert_eq!(rig.extend(NEW), Some(Err(refused)));
    assert_eq!((rig.blocks(), &rig.engine.failed), (OLD, &None));
    rig.fail = Box::new(|_| false);
    assert_eq!(rig.extend(NEW), Some(Ok(Reply::Done)));
    must_be_sound(&mut rig.close(), "after all of that");
}

#[test]
fn one_extension_at_a_time_while_all_else_goes_on() {
    let mut rig = Rig::new(OLD as usize, Policy::OriginFirst);
    rig.hold_flushes = true;
    assert_eq!(rig.extend(NEW), None, "answered before it is durable");
    rig.extend(NEW);
    let answer = rig.replies.last().map(|(_, result)| result.clone());
    assert!(matches!(answer, Some(Err(CommandError::Busy(_)))));
    assert_eq!(rig.blocks(), OLD);
    rig.write(1, 0, 8);
    rig.write(2, 4095, 1);
    rig.release();
    let answer = rig.replies.last().map(|(_, result)| result.clone());
    assert_eq!(answer, Some(Ok(Reply::Done)));
    assert_eq!((rig.blocks(), rig.granted.len()), (NEW, 2));
    must_be_sound(&mut rig.close(), "closed");
}

#[test]
fn an_orderly_stop_lets_an_extension_end_first() {
    let mut rig = Rig::new(OLD as usize, Policy::OriginFirst);
    rig.hold_flushes = true;
    assert_eq!(rig.extend(NEW), None);
    rig.command(Command::Close);
    rig.release();
    assert!(rig.engine.closed);
    let done = rig.replies.iter().rev().take(2);
    assert!(done.clone().count() == 2 && done.clone().all(|(_, r)| r.is_ok()));
    must_be_sound(&mut rig.disk, "closed");
    assert_eq!(Rig::open(rig.disk).blocks(), NEW);
}

/// The store, and what an extension with writes of the origin beside it does to it.
fn extension(parity: u32) -> (Disk, Vec<Step>) {
    let mut rig = Rig::new(OLD as usize, Policy::OriginFirst);
    for first in 0..8 {
        rig.write(first, first * 32, 16);
    }
    for _ in 0..parity {
        rig.command(Command::Checkpoint);
    }
    rig.write(90, 1000, 3);
    rig.disk.0.resize(NEW as usize, Block::zeroed());
    rig.seen.clear();
    let before = Disk(rig.disk.0.clone(), None);
    rig.hold_flushes = true;
    assert_eq!(rig.extend(NEW), None);
    rig.write(91, 2000, 5);
    rig.release();
    rig.write(92, 3000, 5);
    assert_eq!(rig.blocks(), NEW);
    rig.command(Command::Checkpoint);
    rig.write(93, 3500, 5);
    (before, steps(&rig.seen))
}

/// The disk after a power cut in step `cut`: what was flushed, and by `seed` some
/// sectors of what was not.
fn cut_off(before: &Disk, log: &[Step], cut: usize, seed: u64) -> Disk {
    let mut disk = Disk(before.0.clone(), None);
    let mut volatile: Vec<(u64, &Block)> = Vec::new();
    for (index, step) in log.iter().take(cut + 1).enumerate() {
        match step {
            Step::Write(at, data, true) if index < cut => disk.0[*at as usize].clone_from(data),
            Step::Write(at, data, _) => volatile.push((*at, &**data)),
            Step::Flush if index < cut => volatile
                .drain(..)
                .for_each(|(at, data)| disk.0[at as usize].clone_from(data)),
            Step::Flush => {}
        }
    }
    let mut random = seed;
    for (at, data) in volatile {
        random = random
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(cut as u64 | 1);
        let kept = match seed {
            0 => 0,
            1 => 0xff,
            _ => random >> 33,
        };
        for sector in (0..8).filter(|sector| kept >> sector & 1 == 1) {
            let range = sector * 512..(sector + 1) * 512;
            disk.0[at as usize].0[range.clone()].copy_from_slice(&data.0[range]);
        }
    }
    disk
}

fn superblock_at(disk: &Disk, at: u64) -> Option<Superblock> {
    let found = Superblock::decode(&disk.0[at as usize], at);
    found.ok().map(|(superblock, _)| superblock)
}

/// Opens what a cut left; the store works, and can be extended again.
fn must_go_on(disk: Disk, when: &str) -> u64 {
    let mut rig = Rig::open(disk);
    let found = rig.blocks();
    assert!(found == OLD || found == NEW, "{when}: {found} blocks");
    must_be_sound(&mut rig.disk, when);
    rig.write(1, 500, 3);
    if found == OLD {
        let left = superblock_at(&rig.disk, NEW - 1);
        assert_eq!(left, None, "{when}: something is left");
        assert_eq!(rig.extend(NEW), Some(Ok(Reply::Done)), "{when}");
    }
    rig.write(2, 600, 40);
    assert_eq!((rig.granted.len(), rig.blocks()), (2, NEW), "{when}");
    must_be_sound(&mut rig.close(), when);
    found
}

#[test]
fn a_crash_at_any_write_leaves_the_old_size_or_the_new_one() {
    for parity in [0, 1] {
        let (before, log) = extension(parity);
        let mut found = Vec::new();
        let mut lost = 0;
        for (cut, seed) in (0..=log.len()).flat_map(|cut| (0..4).map(move |seed| (cut, seed))) {
            let when = format!(
                "parity {parity}, cut at {cut} of {}, seed {seed}",
                log.len()
            );
            let disk = cut_off(&before, &log, cut, seed);
            // The other way round: a first superblock that the cut destroyed.
            if matches!(log.get(cut), Some(Step::Write(0, ..))) {
                let other = superblock_at(&disk, NEW - 1).is_some();
                assert!(other, "{when}: no superblock is left if the first is lost");
                let mut disk = Disk(disk.0.clone(), None);
                disk.0[0].0.fill(0x5a);
                assert_eq!(must_go_on(disk, &when), NEW, "{when}, first lost");
                lost += 1;
            }
            let size = must_go_on(disk, &when);
            // The others may keep the write that the cut fell into.
            if seed == 0 {
                found.push(size);
            }
        }
        assert!(found.is_sorted(), "it became smaller again");
        assert!(found.contains(&OLD) && found.contains(&NEW) && lost > 0);
    }
}

#[test]
fn a_store_that_fails_in_the_middle_is_as_it_was() {
    for bad in [0, NEW - 1] {
        let mut rig = Rig::new(OLD as usize, Policy::OriginFirst);
        rig.hold_flushes = true;
        assert_eq!(rig.extend(NEW), None);
        rig.refuse(bad);
        rig.release();
        let answer = rig.replies.last().map(|(_, result)| result.clone());
        assert!(matches!(answer, Some(Err(CommandError::StoreFailed(_)))));
        assert_eq!(must_go_on(rig.disk, "failed"), OLD);
    }
}

#[test]
fn what_lies_at_the_end_of_a_larger_device_is_not_believed() {
    let rig = Rig::new(OLD as usize, Policy::OriginFirst);
    let mut disk = rig.close();
    disk.0.resize(NEW as usize, Block::zeroed());
    let mut left = superblock_at(&disk, 0).unwrap();
    left.blocks = NEW.into();
    for foreign in [false, true] {
        left.uuid[0] ^= u8::from(foreign);
        disk.0[NEW as usize - 1] = left.encode(NEW - 1, 999);
        let report = check(&mut disk, CheckOptions::default(), &mut |_, _| {}).unwrap();
        assert_eq!((report.problems.len(), report.unused), (0, NEW - OLD));
        let rig = Rig::open(disk);
        assert_eq!(rig.blocks(), OLD);
        disk = rig.close();
        // Another store's is nobody's business before the part is used.
        let stays = superblock_at(&disk, NEW - 1).is_some();
        assert_eq!(stays, foreign);
    }
    let mut rig = Rig::open(disk);
    assert_eq!(rig.extend(NEW), Some(Ok(Reply::Done)));
    must_be_sound(&mut rig.close(), "extended over it");
}

/// Blocks of a store whose extension is a matter of many pieces.
const LARGE: u64 = 8 * PIECE;

/// Such an extension of a store that ends `below` blocks before a piece does, the first
/// superblock that completes it held back.
fn almost_extended(below: u64, fill: impl FnOnce(&mut Rig)) -> (Rig, Effect) {
    let mut rig = Rig::new((PIECE - below) as usize, Policy::OriginFirst);
    rig.command(Command::Checkpoint);
    fill(&mut rig);
    rig.hold = |effect| matches!(effect, Effect::WriteBlock { block: 0, .. });
    assert_eq!(rig.extend(LARGE), None);
    assert_eq!(rig.engine.checkpoint.next.blocks, LARGE);
    let last = rig.held.pop().expect("the first superblock is written");
    (rig, last)
}

fn told_of_space(rig: &Rig) -> bool {
    let told = |effect: &Effect| matches!(effect, Effect::Notice(Notice::SpaceLow { .. }));
    rig.seen.iter().any(told)
}

#[test]
fn no_snapshot_is_dropped_while_new_blocks_are_being_freed() {
    // The image takes a few of the new blocks: for one of these a single one is left.
    for below in 1..8 {
        let (mut rig, last) = almost_extended(below, |rig| {
            while rig.engine.room_for_copies() > 0 || rig.engine.alloc.free_blocks() > 64 {
                let block = rig.engine.alloc.alloc_block().unwrap();
                rig.engine.alloc.claim(block, 1);
            }
        });
        rig.write(7, 0, 64);
        assert_eq!((rig.granted.len(), rig.copies.len()), (0, 0), "it waits");
        rig.answer(last);
        assert_eq!((rig.blocks(), rig.live()), (LARGE, vec![Tag(1)]), "{below}");
        assert_eq!(rig.granted, [Owner(7)]);
        assert!(!told_of_space(&rig), "{below}: there is much space");
    }
}

#[test]
fn a_store_being_extended_is_not_said_to_be_full() {
    for below in 1..8 {
        let (mut rig, last) = almost_extended(below, |_| ());
        rig.carry_out(last);
        rig.batch.events.push(Event::Tick { now_ms: 5 });
        rig.pump();
        assert_eq!(rig.blocks(), LARGE);
        assert!(rig.engine.used_percent() < 10);
        assert!(!told_of_space(&rig), "{below}: there is much space");
    }
}
