//! The lane under scripts, and under chance.

use std::collections::HashMap;
use std::sync::Arc;

use snapstore::engine::{CrcRange, Effect, Event, Source};
use snapstore::ids::{GrantId, IoId};
use snapstore::{Checksum, IoError, Tag, UniqueMap, VolumeId};

use super::*;

const CHUNK: u64 = 16384;
const CHUNKS: u64 = 64;
const STORE: StoreSlot = StoreSlot(0);
const VOLUME: VolumeSlot = VolumeSlot(0);
const ORIGIN: DeviceSlot = DeviceSlot(1);
const DEPOT: DeviceSlot = DeviceSlot(0);
const ZEROES: BufferId = BufferId(900);
const SNAPSHOT: Target = Target::Snapshot {
    tag: Tag(3),
    size: CHUNKS * CHUNK - 1024,
};

/// Buffers that remember bytes.
#[derive(Default)]
struct Bytes(HashMap<BufferId, Vec<u8>>);

impl Memory for Bytes {
    fn checksum(&self, by: Checksum, buffer: BufferId, at: u32, len: u32, out: &mut Vec<u32>) {
        let bytes = &self.0[&buffer][at as usize..][..len as usize];
        out.extend(bytes.chunks(4096).map(|block| by.of(block)));
    }

    fn zero(&mut self, buffer: BufferId, at: u32, len: u32) {
        self.0.get_mut(&buffer).unwrap()[at as usize..][..len as usize].fill(0);
    }
}

struct Rig {
    lane: Lane,
    unique: Arc<UniqueMap>,
    memory: Bytes,
}

impl Rig {
    /// A volume whose last chunk is 1 KiB short, with a snapshot, nothing unique.
    fn shared() -> Self {
        Self::shared_by(Checksum::default())
    }

    /// The same on a store with this checksum.
    fn shared_by(checksum: Checksum) -> Self {
        let rig = Self::alone_by(checksum);
        rig.unique.advance();
        rig
    }

    /// The same without a snapshot.
    fn alone() -> Self {
        Self::alone_by(Checksum::default())
    }

    fn alone_by(checksum: Checksum) -> Self {
        let mut memory = Bytes::default();
        for buffer in [BufferId(1), BufferId(2), BufferId(100), BufferId(101)] {
            memory.0.insert(buffer, vec![0xcc; 1 << 20]);
        }
        let copy_buffers = vec![(1 << 20, vec![BufferId(100), BufferId(101)])];
        let mut lane = Lane::new(LaneConfig {
            lane: 5,
            copy_buffers,
            zeroes: (ZEROES, 65536),
        });
        let unique = Arc::new(UniqueMap::new(CHUNKS).unwrap());
        lane.attach_store(STORE, DEPOT, checksum);
        let config = VolumeConfig {
            store: STORE,
            volume: VolumeId(1),
            device: ORIGIN,
            size: CHUNKS * CHUNK - 1024,
            chunk_size: CHUNK as u32,
            unique: unique.clone(),
        };
        lane.attach_volume(VOLUME, config);
        Self {
            lane,
            unique,
            memory,
        }
    }

    fn submit(&mut self, tag: u64, target: Target, verb: Verb, offset: u64, len: u64) {
        let buffer = BufferId(1);
        let volume = VOLUME;
        self.lane.submit(Request {
            tag,
            volume,
            target,
            verb,
            offset,
            len,
            fua: false,
            buffer,
        });
    }

    fn op(&mut self) -> Op {
        assert_eq!(self.lane.out.ops.len(), 1, "{:?}", self.lane.out.ops);
        self.lane.out.ops.remove(0)
    }

    fn moved(&mut self, op: &Op, result: Result<u32, i32>) {
        self.lane
            .complete(op.token, Completion::Moved(result), &mut self.memory);
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.lane.events(STORE).unwrap().events)
    }

    /// The owner and chunks of the one write the engine was asked about.
    fn asked(&mut self) -> (Owner, u64, u32) {
        match self.events().as_slice() {
            [
                Event::Write {
                    owner,
                    first,
                    count,
                    ..
                },
            ] => (*owner, *first, *count),
            other => panic!("{other:?}"),
        }
    }

    fn grant(&mut self, owner: Owner, epoch: u32) {
        self.lane
            .effect(STORE, Effect::WriteGranted { owner, epoch }, &[]);
    }

    fn done(&mut self) -> Vec<(u64, Result<(), i32>)> {
        self.lane
            .out
            .done
            .drain(..)
            .map(|done| (done.tag, done.result))
            .collect()
    }

    fn is_silent(&mut self) -> bool {
        self.lane.out.ops.is_empty() && self.lane.out.done.is_empty() && self.events().is_empty()
    }
}

#[test]
fn a_volume_without_snapshots_is_written_straight() {
    let mut rig = Rig::alone();
    rig.submit(7, Target::Origin, Verb::Write, 512, 4096);
    let op = rig.op();
    assert!(matches!(
        op.action,
        Action::Write {
            offset: 512,
            len: 4096,
            fua: false,
            ..
        }
    ));
    assert_eq!(op.device, ORIGIN);
    assert!(rig.events().is_empty());
    rig.moved(&op, Ok(4096));
    assert_eq!(rig.done(), [(7, Ok(()))]);
}

#[test]
fn a_shared_chunk_is_written_only_under_a_grant_of_its_epoch() {
    let mut rig = Rig::shared();
    rig.submit(1, Target::Origin, Verb::Write, 3 * CHUNK - 512, 1024);
    let (owner, first, count) = rig.asked();
    assert_eq!((lane_of(owner), first, count), (5, 2, 2));
    assert!(rig.lane.out.ops.is_empty(), "issued before the grant");
    rig.grant(owner, rig.unique.epoch() - 1);
    assert_eq!(rig.asked(), (owner, 2, 2), "a stale grant asks again");
    rig.grant(owner, rig.unique.epoch());
    let op = rig.op();
    rig.moved(&op, Err(libc::EIO));
    assert_eq!(rig.done(), [(1, Err(libc::EIO))]);
    rig.unique.set(2);
    rig.unique.set(3);
    rig.submit(2, Target::Origin, Verb::Write, 3 * CHUNK - 512, 1024);
    rig.op();
    assert!(rig.events().is_empty(), "unique chunks need no engine");
}

#[test]
fn a_pause_waits_for_what_was_issued_and_parks_the_rest() {
    let mut rig = Rig::shared();
    rig.unique.set(0);
    rig.submit(1, Target::Origin, Verb::Write, 0, 512);
    let issued = rig.op();
    rig.submit(2, Target::Origin, Verb::Write, CHUNK, 512);
    let (asked, ..) = rig.asked();
    rig.lane.pause(STORE, IoId(9), vec![VolumeId(1)]);
    assert!(
        rig.lane.out.paused.is_empty(),
        "acknowledged with a write in flight"
    );
    rig.submit(3, Target::Origin, Verb::Write, 0, 512);
    rig.grant(asked, rig.unique.epoch());
    assert!(rig.is_silent(), "a write was issued during the pause");
    assert_eq!(rig.lane.parked(VOLUME), 2);
    rig.submit(4, Target::Origin, Verb::Read, 0, 512);
    let read = rig.op();
    rig.moved(&read, Ok(512));
    rig.moved(&issued, Ok(512));
    assert_eq!(rig.done(), [(4, Ok(())), (1, Ok(()))]);
    assert_eq!(std::mem::take(&mut rig.lane.out.paused), [(STORE, IoId(9))]);
    rig.unique.advance();
    rig.lane.resume(STORE, IoId(9));
    assert_eq!(
        rig.events().len(),
        2,
        "both are probed anew, and both are shared now"
    );
    assert!(rig.lane.out.ops.is_empty());
}

#[test]
fn a_volume_that_arrives_during_a_pause_is_paused_and_leaves_when_idle() {
    let mut rig = Rig::alone();
    rig.lane.detach_volume(VOLUME);
    assert_eq!(std::mem::take(&mut rig.lane.out.detached), [VOLUME]);
    rig.submit(1, Target::Origin, Verb::Read, 0, 512);
    assert_eq!(rig.done(), [(1, Err(libc::ENODEV))]);
    rig.lane.pause(STORE, IoId(1), vec![VolumeId(1)]);
    let config = VolumeConfig {
        store: STORE,
        volume: VolumeId(1),
        device: ORIGIN,
        size: CHUNK,
        chunk_size: CHUNK as u32,
        unique: rig.unique.clone(),
    };
    rig.lane.attach_volume(VOLUME, config);
    rig.submit(2, Target::Origin, Verb::Write, 0, 512);
    assert!(rig.is_silent());
    rig.lane.resume(STORE, IoId(1));
    let op = rig.op();
    rig.lane.detach_volume(VOLUME);
    assert!(rig.lane.out.detached.is_empty(), "a write is in flight");
    rig.moved(&op, Ok(512));
    assert_eq!(rig.lane.out.detached, [VOLUME]);
}

#[test]
fn short_transfers_go_on_where_they_stopped_and_a_short_device_is_an_error() {
    let mut rig = Rig::alone();
    rig.submit(1, Target::Origin, Verb::Read, 8192, 8192);
    let op = rig.op();
    rig.moved(&op, Ok(512));
    let op = rig.op();
    assert!(matches!(
        op.action,
        Action::Read {
            at: 512,
            offset: 8704,
            len: 7680,
            ..
        }
    ));
    rig.moved(&op, Err(libc::EINTR));
    let op = rig.op();
    assert!(matches!(
        op.action,
        Action::Read {
            at: 512,
            offset: 8704,
            len: 7680,
            ..
        }
    ));
    rig.moved(&op, Ok(0));
    assert_eq!(rig.done(), [(1, Err(libc::EIO))]);
}

#[test]
fn bad_requests_are_refused() {
    let mut rig = Rig::alone();
    let size = CHUNKS * CHUNK - 1024;
    let cases = [
        (Target::Origin, Verb::Read, 100, 512, libc::EINVAL),
        (Target::Origin, Verb::Read, 0, 0, libc::EINVAL),
        (Target::Origin, Verb::Read, size, 512, libc::EINVAL),
        (Target::Origin, Verb::Write, size, 512, libc::ENOSPC),
        (
            Target::Origin,
            Verb::Write,
            u64::MAX - 511,
            512,
            libc::EINVAL,
        ),
        (Target::Origin, Verb::Read, 0, 33 << 20, libc::EINVAL),
        (SNAPSHOT, Verb::Write, 0, 512, libc::EPERM),
        (SNAPSHOT, Verb::Trim, 0, 512, libc::EPERM),
    ];
    for (target, verb, offset, len, errno) in cases {
        rig.submit(1, target, verb, offset, len);
        assert_eq!(
            rig.done(),
            [(1, Err(errno))],
            "{target:?} {verb:?} {offset}+{len}"
        );
    }
    assert!(rig.is_silent());
}

#[test]
fn a_volume_that_grew_admits_what_is_behind_its_old_end() {
    let mut rig = Rig::alone();
    let size = CHUNKS * CHUNK - 1024;
    rig.submit(1, Target::Origin, Verb::Write, size - 512, 1024);
    assert_eq!(rig.done(), [(1, Err(libc::ENOSPC))]);
    rig.lane.resize_volume(VOLUME, size + 512);
    rig.submit(2, Target::Origin, Verb::Write, size - 512, 1024);
    let write = rig.op();
    rig.moved(&write, Ok(1024));
    assert_eq!(rig.done(), [(2, Ok(()))]);
    rig.submit(3, SNAPSHOT, Verb::Read, size - 512, 1024);
    assert_eq!(
        rig.done(),
        [(3, Err(libc::EINVAL))],
        "snapshots keep their size"
    );
    rig.submit(4, Target::Origin, Verb::Write, size, 1024);
    assert_eq!(rig.done(), [(4, Err(libc::ENOSPC))]);
}

fn copy(io: u64, first: u64, count: u32, volume: u32) -> Effect {
    Effect::Copy {
        copy: IoId(io),
        volume: VolumeId(volume),
        first,
        count,
        bytes: (u64::from(count) * CHUNK).min(CHUNKS * CHUNK - 1024 - first * CHUNK) as u32,
        block: 1000,
    }
}

#[test]
fn the_last_chunk_is_copied_whole_with_zeroes_behind_the_end() {
    Checksum::ALL.into_iter().for_each(last_chunk_is_copied);
}

fn last_chunk_is_copied(by: Checksum) {
    let mut rig = Rig::shared_by(by);
    rig.lane.effect(STORE, copy(1, CHUNKS - 2, 2, 1), &[]);
    let read = rig.op();
    let have = 2 * CHUNK as u32 - 1024;
    let Action::Read { buffer, len, .. } = read.action else {
        panic!("{read:?}")
    };
    assert_eq!((read.device, len), (ORIGIN, have));
    rig.moved(&read, Ok(have));
    let mut whole = vec![0xcc; 2 * CHUNK as usize];
    whole[have as usize..].fill(0);
    let crcs: Vec<u32> = whole.chunks(4096).map(|block| by.of(block)).collect();
    let batch = std::mem::take(rig.lane.events(STORE).unwrap());
    assert_eq!(batch.crcs, crcs);
    assert!(matches!(
        batch.events[..],
        [Event::CopyRead {
            copy: IoId(1),
            result: Ok(_)
        }]
    ));
    let write = rig.op();
    assert_eq!(write.device, DEPOT);
    assert!(
        matches!(write.action, Action::Write { buffer: b, offset: 4_096_000, len: 32768, .. } if b == buffer)
    );
    rig.moved(&write, Ok(32768));
    assert!(matches!(
        rig.events()[..],
        [Event::CopyWritten {
            copy: IoId(1),
            result: Ok(())
        }]
    ));
    // Free for the next copyout, however long readers keep the chunk.
    assert_eq!(rig.lane.berths[0].free.len(), 2);
}

#[test]
fn copies_wait_for_their_buffers_and_failures_give_them_back() {
    let mut rig = Rig::shared();
    for io in 0..4 {
        rig.lane.effect(STORE, copy(io, io, 1, 1), &[]);
    }
    rig.lane.effect(STORE, copy(4, 0, 1, 77), &[]);
    let absent = rig.events();
    assert!(
        matches!(
            &absent[..],
            [Event::CopyRead {
                copy: IoId(4),
                result: Err(IoError::Absent)
            }]
        ),
        "{absent:?}"
    );
    let first = std::mem::take(&mut rig.lane.out.ops);
    assert_eq!(first.len(), 2, "two buffers, two copies");
    rig.moved(&first[0], Err(libc::EIO));
    let events = rig.events();
    let failed = Err(IoError::Errno(libc::EIO));
    assert!(
        matches!(&events[..], [Event::CopyRead { copy: IoId(0), result }] if *result == failed)
    );
    let next = rig.op();
    rig.moved(&next, Err(libc::EIO));
    rig.moved(&first[1], Err(libc::EIO));
    let last = rig.op();
    rig.moved(&last, Err(libc::EIO));
    let others = rig.events();
    assert_eq!(others.len(), 3, "each copy failed once: {others:?}");
    assert_eq!(rig.lane.berths[0].free.len(), 2);
}

#[test]
fn an_origin_that_cannot_be_reached_has_lost_nothing() {
    for errno in [libc::ENOLINK, libc::ETIMEDOUT, libc::ENODEV, GONE] {
        let mut rig = Rig::shared();
        rig.lane.effect(STORE, copy(0, 0, 1, 1), &[]);
        let read = rig.op();
        rig.moved(&read, Err(errno));
        let events = rig.events();
        let absent = Err(IoError::Absent);
        assert!(
            matches!(&events[..], [Event::CopyRead { result, .. }] if *result == absent),
            "{errno}: {events:?}"
        );
    }
}

mod chance;
mod flushes;
mod ranges;
mod snapshots;
