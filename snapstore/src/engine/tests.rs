//! The engine driven step by step, to hold single answers back where the order
//! of two of them matters.

use super::commit::Done;
use super::*;
use crate::block::{BLOCK_SIZE, Block};
use crate::checksum::Checksum;
use crate::create::{CreateOptions, create};
use crate::device::{BlockDevice, IoError, NoOrigins};
use crate::format::journal::Record;
use crate::ids::Owner;
use crate::recover::{OpenError, load};

mod grow;
mod patience;

const VOLUME: VolumeId = VolumeId(1);

/// Blocks, and one that cannot be read.
struct Disk(Vec<Block>, Option<u64>);

impl BlockDevice for Disk {
    fn blocks(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&mut self, first: u64, out: &mut [Block]) -> Result<(), IoError> {
        if self.1 == Some(first) {
            return Err(IoError::Errno(5));
        }
        out.clone_from_slice(&self.0[first as usize..][..out.len()]);
        Ok(())
    }

    fn write(&mut self, first: u64, data: &[Block]) -> Result<(), IoError> {
        self.0[first as usize..][..data.len()].clone_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), IoError> {
        Ok(())
    }
}

/// An engine whose block reads and store flushes can be held back.
struct Rig {
    disk: Disk,
    engine: Engine,
    batch: EventBatch,
    hold_reads: bool,
    hold_flushes: bool,
    held: Vec<Event>,
    granted: Vec<Owner>,
    failed: Vec<(Owner, RequestError)>,
    replies: Vec<(CommandId, Result<Reply, CommandError>)>,
    /// First chunk and bytes of every copyout.
    copies: Vec<(u64, u32)>,
}

impl Rig {
    /// A store of chunks of one block, with one volume and one snapshot of it.
    fn new(blocks: usize, policy: Policy) -> Self {
        let mut disk = Disk(vec![Block::zeroed(); blocks], None);
        let options = CreateOptions {
            uuid: [9; 16],
            chunk_size: BLOCK_SIZE as u32,
            checksum: Checksum::default(),
            created_ms: 1,
            journal_blocks: Some(16),
        };
        create(&mut disk, &options).unwrap();
        let mut rig = Self::open(disk);
        rig.command(Command::CreateVolume {
            name: "v".to_owned(),
            uuid: [1; 16],
            size: 4096 * BLOCK_SIZE as u64,
            origin: "/dev/v".to_owned(),
            policy,
            created_ms: 1,
        });
        rig.command(Command::Take {
            targets: vec![(VOLUME, "s".to_owned())],
            priority: 0,
            created_ms: 1,
        });
        assert!(rig.replies.iter().all(|(_, result)| result.is_ok()));
        rig
    }

    fn open(mut disk: Disk) -> Self {
        let loaded = load(&mut disk).unwrap();
        let config = Config::default();
        let (engine, _) = loaded.recover(&mut disk, &mut NoOrigins, config).unwrap();
        Self {
            disk,
            engine,
            batch: EventBatch::default(),
            hold_reads: false,
            hold_flushes: false,
            held: Vec::new(),
            granted: Vec::new(),
            failed: Vec::new(),
            replies: Vec::new(),
            copies: Vec::new(),
        }
    }

    fn command(&mut self, command: Command) -> CommandId {
        let id = CommandId(self.replies.len() as u64);
        self.batch.events.push(Event::Command { id, command });
        self.pump();
        id
    }

    fn write(&mut self, owner: u64, first: u64, count: u32) {
        self.batch.events.push(Event::Write {
            owner: Owner(owner),
            volume: VOLUME,
            first,
            count,
        });
        self.pump();
    }

    fn release(&mut self) {
        (self.hold_reads, self.hold_flushes) = (false, false);
        self.batch.events.append(&mut self.held);
        self.pump();
    }

    /// Runs until everything but what is held back has been answered.
    fn pump(&mut self) {
        let mut effects = Effects::default();
        loop {
            effects.clear();
            self.engine.step(&mut self.batch, &mut effects);
            if effects.list.is_empty() {
                return;
            }
            for effect in effects.list.drain(..) {
                self.carry_out(effect);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let events = &mut self.batch.events;
        let result = Ok(());
        match effect {
            Effect::ReadBlock { io, block } => {
                let result = Ok(Arc::new(self.disk.0[block as usize].clone()));
                let held = if self.hold_reads {
                    &mut self.held
                } else {
                    events
                };
                held.push(Event::BlockRead { io, result });
            }
            Effect::WriteBlock {
                io, block, data, ..
            } => {
                self.disk.0[block as usize] = (*data).clone();
                events.push(Event::BlockWritten { io, result });
            }
            Effect::FlushStore { io } => {
                let held = if self.hold_flushes {
                    &mut self.held
                } else {
                    events
                };
                held.push(Event::Flushed { io, result });
            }
            Effect::FlushOrigin { io, .. } | Effect::RecordInvalid { io, .. } => {
                events.push(Event::Flushed { io, result });
            }
            Effect::Pause { io, .. } => events.push(Event::Paused { io, drained: true }),
            Effect::Copy {
                copy,
                first,
                count,
                bytes,
                ..
            } => {
                self.copies.push((first, bytes));
                self.batch.copy_read(copy, &vec![0; count as usize]);
                self.batch.events.push(Event::CopyWritten { copy, result });
            }
            Effect::WriteGranted { owner, .. } => self.granted.push(owner),
            Effect::WriteFailed { owner, error } => self.failed.push((owner, error)),
            Effect::Reply { id, result } => self.replies.push((id, result)),
            _ => {}
        }
    }
}

#[test]
fn damage_found_after_the_last_snapshot_went_fails_no_origin_write() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    rig.write(1, 0, 32);
    rig.command(Command::Close);
    let root = rig.engine.roots.exceptions.ptr.block;
    rig.disk.0[root as usize].0[100] ^= 1;
    let mut rig = Rig::open(rig.disk);
    // The first write meets the damage: the snapshot's end is on its way to the disk.
    rig.hold_flushes = true;
    rig.write(2, 40, 1);
    assert_eq!((rig.granted.len(), rig.held.len()), (0, 1));
    // The second asks for the same block; the answer comes after the snapshot's end.
    let flush = rig.held.pop();
    (rig.hold_flushes, rig.hold_reads) = (false, true);
    rig.write(3, 41, 1);
    assert_eq!(rig.held.len(), 1, "the block is being read");
    rig.batch.events.extend(flush);
    rig.pump();
    assert_eq!(rig.granted, [Owner(2)]);
    rig.release();
    assert_eq!(
        (&rig.failed[..], &rig.granted[..]),
        (&[][..], &[Owner(2), Owner(3)][..])
    );
}

#[test]
fn a_record_that_cannot_be_applied_leaves_no_command_unanswered() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    let (volume, tag) = (VolumeId(77), Tag(1));
    rig.engine
        .append(Record::SnapshotPurged { volume, tag }, Done::Nothing);
    let volume = VOLUME;
    for _ in 0..2 {
        let id = rig.command(Command::SetPolicy {
            volume,
            policy: Some(Policy::SnapshotFirst),
            full_wait_s: None,
        });
        let answer = rig.replies.iter().find(|(answered, _)| *answered == id);
        let answer = answer.map(|(_, result)| result);
        assert!(
            matches!(answer, Some(Err(CommandError::StoreFailed(_)))),
            "{answer:?}"
        );
    }
}

#[test]
fn a_refused_write_leaves_nothing_starved() {
    let mut rig = Rig::new(1024, Policy::SnapshotFirst);
    for first in (0..4096).step_by(16) {
        rig.write(first, first, 16);
        if !rig.failed.is_empty() {
            break;
        }
    }
    assert!(matches!(
        rig.failed[..],
        [(_, RequestError::NoSpace(VOLUME))]
    ));
    rig.pump();
    assert!(rig.engine.wanted.is_empty() && !rig.engine.starved);
}

#[test]
fn the_older_superblock_may_be_unreadable_and_the_newer_is_missed() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    rig.write(1, 0, 32);
    // Checkpoint 2 is in the first block; the journal goes on from it.
    rig.disk.1 = Some(0);
    let refused = load(&mut rig.disk).unwrap_err();
    assert!(
        matches!(
            refused,
            OpenError::Damaged {
                what: "journal",
                ..
            }
        ),
        "{refused}"
    );
    rig.disk.1 = Some(2047);
    let mut rig = Rig::open(rig.disk);
    let known = &rig.engine.state.volumes[&VOLUME];
    assert_eq!((known.live().count(), known.record.held.get()), (1, 32));
    rig.write(2, 32, 1);
    assert_eq!(rig.granted, [Owner(2)]);
}

#[test]
fn a_store_full_of_many_snapshots_never_lacks_room_for_its_checkpoints() {
    for (seed, blocks) in [(1, 700), (2, 1000), (3, 1500), (4, 4000)] {
        let mut rig = Rig::new(blocks, Policy::OriginFirst);
        let mut random = seed;
        let mut dice = |below: u64| {
            random = u64::wrapping_mul(random, 0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (random >> 33) % below
        };
        for round in 0..400u64 {
            let name = format!("s{round}");
            rig.command(Command::Take {
                targets: vec![(VOLUME, name)],
                priority: dice(3) as i32,
                created_ms: round,
            });
            for owner in 0..dice(12) {
                let count = 1 + dice(30);
                rig.write(owner, dice(4096 - count), count as u32);
            }
        }
        let live: Vec<Tag> = rig.engine.state.volumes[&VOLUME].live().collect();
        let targets = live.iter().map(|tag| (VOLUME, *tag)).collect();
        rig.command(Command::DeleteSnapshots { targets });
        rig.write(99, 0, 64);
        let waiting = rig.engine.writes.len();
        let failed = rig.engine.failed.clone();
        assert_eq!(
            (failed, &rig.failed[..], waiting),
            (None, &[][..], 0),
            "{seed} {blocks}"
        );
    }
}
