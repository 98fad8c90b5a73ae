//! The engine driven step by step, to hold single answers back where the order
//! of two of them matters.

use super::commit::Done;
use super::*;
use crate::block::{BLOCK_SIZE, Block};
use crate::check::{CheckOptions, check};
use crate::checksum::Checksum;
use crate::create::{CreateOptions, create};
use crate::device::{BlockDevice, IoError, NoOrigins};
use crate::format::journal::Record;
use crate::ids::Owner;
use crate::recover::{OpenError, load};

mod changes;
mod copyouts;
mod damage;
mod deletes;
mod extend;
mod grow;
mod heals;
mod high;
mod holds;
mod journal;
mod latch;
mod lists;
mod memory;
mod patience;
mod pressure;
mod rot;
mod takes;
mod victims;

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

/// An engine whose effects can be held back or made to fail.
struct Rig {
    disk: Disk,
    engine: Engine,
    batch: EventBatch,
    hold_reads: bool,
    hold_flushes: bool,
    /// What else is held back: not begun, so nothing of a write is on the disk.
    hold: fn(&Effect) -> bool,
    held: Vec<Effect>,
    /// Copyouts are read but not yet written.
    hold_data: bool,
    late: Vec<Event>,
    /// What fails; a pause that fails is one that did not drain.
    fail: Box<dyn FnMut(&Effect) -> bool>,
    /// Whether a write that fails reached the disk all the same.
    lands: bool,
    /// The chunk that cannot be read from the origin.
    bad: Option<u64>,
    /// Everything carried out, in order.
    seen: Vec<Effect>,
    commands: u64,
    granted: Vec<Owner>,
    failed: Vec<(Owner, RequestError)>,
    replies: Vec<(CommandId, Result<Reply, CommandError>)>,
    /// First chunk and bytes of every copyout.
    copies: Vec<(u64, u32)>,
    /// What reading the origin gives, if not its contents.
    origin_fails: Option<IoError>,
    /// Chunks that were LOST.
    lost: Vec<u64>,
}

fn is_superblock(effect: &Effect) -> bool {
    matches!(effect, Effect::WriteBlock { fua: true, .. })
}

fn is_origin_flush(effect: &Effect) -> bool {
    matches!(effect, Effect::FlushOrigin { .. })
}

/// Whether it changes the store.
fn is_change(effect: &Effect) -> bool {
    let flush = matches!(effect, Effect::FlushStore { .. });
    flush || matches!(effect, Effect::WriteBlock { .. } | Effect::Copy { .. })
}

impl Rig {
    /// A store of chunks of one block, with one volume and one snapshot of it.
    fn new(blocks: usize, policy: Policy) -> Self {
        Self::with(blocks, 16, policy, Config::default())
    }

    fn with(blocks: usize, journal: u64, policy: Policy, config: Config) -> Self {
        let mut disk = Disk(vec![Block::zeroed(); blocks], None);
        let options = CreateOptions {
            uuid: [9; 16],
            chunk_size: BLOCK_SIZE as u32,
            checksum: Checksum::default(),
            created_ms: 1,
            journal_blocks: Some(journal),
        };
        create(&mut disk, &options).unwrap();
        let mut rig = Self::open_with(disk, config);
        rig.volume("v", policy);
        rig.take("s");
        assert!(rig.replies.iter().all(|(_, result)| result.is_ok()));
        rig
    }

    fn open(disk: Disk) -> Self {
        Self::open_with(disk, Config::default())
    }

    fn open_with(mut disk: Disk, config: Config) -> Self {
        let loaded = load(&mut disk).unwrap();
        let (engine, _) = loaded.recover(&mut disk, &mut NoOrigins, config).unwrap();
        Self {
            disk,
            engine,
            batch: EventBatch::default(),
            hold_reads: false,
            hold_flushes: false,
            hold: |_| false,
            held: Vec::new(),
            hold_data: false,
            late: Vec::new(),
            fail: Box::new(|_| false),
            lands: true,
            bad: None,
            seen: Vec::new(),
            commands: 0,
            granted: Vec::new(),
            failed: Vec::new(),
            replies: Vec::new(),
            copies: Vec::new(),
            origin_fails: None,
            lost: Vec::new(),
        }
    }

    /// What a daemon finds that is started after a crash at this moment, if all that
    /// was written persists.
    fn crashed(&self) -> Self {
        let mut rig = Self::open(Disk(self.disk.0.clone(), None));
        rig.pump();
        rig
    }

    fn command(&mut self, command: Command) -> CommandId {
        let id = CommandId(self.commands);
        self.commands += 1;
        self.batch.events.push(Event::Command { id, command });
        self.pump();
        id
    }

    fn result(&self, id: CommandId) -> Option<Result<Reply, CommandError>> {
        let mut found = self.replies.iter().filter(|(known, _)| *known == id);
        found.next().map(|(_, result)| result.clone())
    }

    fn volume(&mut self, name: &str, policy: Policy) -> CommandId {
        self.command(Command::CreateVolume {
            name: name.to_owned(),
            uuid: [1; 16],
            size: 4096 * BLOCK_SIZE as u64,
            origin: format!("/dev/{name}"),
            policy,
            created_ms: 1,
        })
    }

    fn take(&mut self, name: &str) -> CommandId {
        self.command(Command::Take {
            targets: vec![(VOLUME, name.to_owned())],
            priority: 0,
            created_ms: 1,
        })
    }

    fn delete(&mut self, tag: Tag) -> CommandId {
        let targets = vec![(VOLUME, tag)];
        self.command(Command::DeleteSnapshots { targets })
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

    /// Reads a snapshot: the grant and where its first piece is, if it is granted.
    fn read(&mut self, tag: Tag, first: u64, count: u32) -> Option<(GrantId, Source)> {
        self.batch.events.push(Event::Read {
            owner: Owner(0),
            volume: VOLUME,
            tag,
            first,
            count,
        });
        let before = self.seen.len();
        self.pump();
        self.seen[before..].iter().find_map(|effect| match effect {
            Effect::ReadFrom { grant, source, .. } => Some((*grant, *source)),
            _ => None,
        })
    }

    fn read_done(&mut self, grant: GrantId) {
        self.batch.events.push(Event::ReadDone { grant });
        self.pump();
    }

    fn live(&self) -> Vec<Tag> {
        self.engine.state.volumes[&VOLUME].live().collect()
    }

    /// Chunks kept for the volume.
    fn kept(&self) -> u64 {
        self.engine.state.volumes[&VOLUME].record.held.get()
    }

    /// Nothing is wrong with what is on the disk.
    fn is_sound(&mut self) {
        let options = CheckOptions { data: false };
        let report = check(&mut self.disk, options, &mut |_, _| ()).unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
    }

    /// Ends one thing held back; what it leads to may be held back again.
    fn answer(&mut self, effect: Effect) {
        self.carry_out(effect);
        self.pump();
    }

    fn answer_next(&mut self) {
        let effect = self.held.remove(0);
        self.answer(effect);
    }

    fn release(&mut self) {
        (self.hold_reads, self.hold_flushes, self.hold_data) = (false, false, false);
        self.hold = |_| false;
        self.batch.events.append(&mut self.late);
        for effect in std::mem::take(&mut self.held) {
            self.carry_out(effect);
        }
        self.pump();
    }

    fn holds(&self, effect: &Effect) -> bool {
        match effect {
            Effect::ReadBlock { .. } if self.hold_reads => true,
            Effect::FlushStore { .. } if self.hold_flushes => true,
            effect => (self.hold)(effect),
        }
    }

    /// Runs until everything but what is held back has been answered.
    fn pump(&mut self) {
        let mut effects = Effects::default();
        for _ in 0..1_000_000 {
            effects.clear();
            self.engine.step(&mut self.batch, &mut effects);
            if effects.list.is_empty() {
                return;
            }
            for effect in effects.list.drain(..) {
                if self.holds(&effect) {
                    self.held.push(effect);
                } else {
                    self.carry_out(effect);
                }
            }
        }
        panic!("the engine never rests");
    }

    fn carry_out(&mut self, effect: Effect) {
        self.seen.push(effect.clone());
        let fails = (self.fail)(&effect);
        let result = if fails {
            Err(IoError::Errno(5))
        } else {
            Ok(())
        };
        let events = &mut self.batch.events;
        match effect {
            Effect::ReadBlock { io, block } => {
                let broken = self.disk.1 == Some(block);
                let result = if broken {
                    Err(IoError::Errno(5))
                } else {
                    result
                };
                let data = || Arc::new(self.disk.0[block as usize].clone());
                let result = result.map(|()| data());
                events.push(Event::BlockRead { io, result });
            }
            Effect::WriteBlock {
                io, block, data, ..
            } => {
                if !fails || self.lands {
                    self.disk.0[block as usize] = (*data).clone();
                }
                events.push(Event::BlockWritten { io, result });
            }
            Effect::FlushStore { io }
            | Effect::FlushOrigin { io, .. }
            | Effect::RecordInvalid { io, .. } => {
                events.push(Event::Flushed { io, result });
            }
            Effect::Pause { io, .. } => {
                let drained = !fails;
                events.push(Event::Paused { io, drained });
            }
            Effect::Copy {
                copy,
                first,
                count,
                bytes,
                ..
            } => self.copy(copy, first, count, bytes, result),
            Effect::WriteGranted { owner, .. } => self.granted.push(owner),
            Effect::WriteFailed { owner, error } => self.failed.push((owner, error)),
            Effect::Reply { id, result } => self.replies.push((id, result)),
            Effect::Notice(Notice::ChunkLost { chunk, .. }) => self.lost.push(chunk),
            _ => {}
        }
    }

    fn copy(
        &mut self,
        copy: IoId,
        first: u64,
        count: u32,
        bytes: u32,
        result: Result<(), IoError>,
    ) {
        self.copies.push((first, bytes));
        let chunks = first..first + u64::from(count);
        if self.bad.is_some_and(|bad| chunks.contains(&bad)) {
            let result = Err(IoError::Errno(5));
            return self.batch.events.push(Event::CopyRead { copy, result });
        }
        if let Some(error) = self.origin_fails {
            let result = Err(error);
            return self.batch.events.push(Event::CopyRead { copy, result });
        }
        self.batch.copy_read(copy, &vec![0; count as usize]);
        let written = Event::CopyWritten { copy, result };
        if self.hold_data {
            self.late.push(written);
        } else {
            self.batch.events.push(written);
        }
    }
}

#[test]
fn damage_found_after_the_last_snapshot_went_fails_no_origin_write() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    rig.write(1, 0, 32);
    rig.command(Command::Close);
    // In both trees: one alone would be made anew from the other.
    let roots = rig.engine.roots;
    for root in [roots.exceptions, roots.eras] {
        rig.disk.0[root.ptr.block as usize].0[100] ^= 1;
    }
    let mut rig = Rig::open(rig.disk);
    // The first write meets the damage: the snapshot's end is on its way to the disk.
    rig.hold_flushes = true;
    rig.write(2, 40, 1);
    assert_eq!((rig.granted.len(), rig.held.len()), (0, 1));
    // The second asks for the same block; the answer comes after the snapshot's end.
    let flush = rig.held.pop().unwrap();
    (rig.hold_flushes, rig.hold_reads) = (false, true);
    rig.write(3, 41, 1);
    assert_eq!(rig.held.len(), 1, "the block is being read");
    rig.answer(flush);
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

/// A bad sector costs the snapshots its chunk; a disk that was pulled costs them
/// nothing, and the writes of that time their success.
#[test]
fn an_origin_that_is_gone_loses_no_chunk() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    let free = rig.engine.alloc.free_blocks();
    rig.origin_fails = Some(IoError::Absent);
    rig.write(1, 8, 3);
    rig.write(2, 10, 1);
    rig.write(3, 9, 1);
    let gone = RequestError::OriginGone(VOLUME);
    let failed = [1, 2, 3].map(|owner| (Owner(owner), gone.clone()));
    assert_eq!(rig.failed, failed);
    assert_eq!((&rig.granted[..], &rig.lost[..]), (&[][..], &[][..]));
    assert_eq!(
        rig.engine.alloc.free_blocks(),
        free,
        "its room was not given back"
    );
    assert!(rig.engine.chunks.is_empty() && rig.engine.writes.is_empty());

    // It is back: the chunks are copied as if nothing had been.
    rig.origin_fails = None;
    rig.write(4, 8, 3);
    assert_eq!(rig.granted, [Owner(4)]);
    assert!(rig.lost.is_empty());
    rig.origin_fails = Some(IoError::Errno(5));
    rig.write(5, 20, 2);
    assert_eq!(rig.granted, [Owner(4), Owner(5)]);
    assert_eq!(rig.lost, [20, 21]);
}
