//! Trims and zeroes: changes that are as long as one likes.

use super::*;

#[test]
fn a_trim_touches_only_runs_of_unique_chunks() {
    let mut rig = Rig::shared();
    for chunk in [2, 3, 4, 9, 63] {
        rig.unique.set(chunk);
    }
    let size = CHUNKS * CHUNK - 1024;
    rig.submit(
        1,
        Target::Origin,
        Verb::Trim,
        2 * CHUNK + 512,
        size - 2 * CHUNK - 512,
    );
    for (start, end) in [
        (2 * CHUNK + 512, 5 * CHUNK),
        (9 * CHUNK, 10 * CHUNK),
        (63 * CHUNK, size),
    ] {
        let op = rig.op();
        let Action::Trim { offset, len } = op.action else {
            panic!("{op:?}")
        };
        assert_eq!((offset, offset + len), (start, end));
        rig.moved(&op, Ok(0));
    }
    assert_eq!(rig.done(), [(1, Ok(()))]);
    assert!(rig.events().is_empty(), "a trim never asks for a copyout");
}

/// A trim that ended within a shared chunk gave that chunk away with the unique
/// ones before it.
#[test]
fn a_trim_leaves_a_last_chunk_that_is_shared() {
    for (end, unique) in [(4 * CHUNK, 3), (3 * CHUNK + 512, 3), (40 * CHUNK, 39)] {
        let mut rig = Rig::shared();
        (0..unique).for_each(|chunk| rig.unique.set(chunk));
        rig.submit(1, Target::Origin, Verb::Trim, 512, end - 512);
        let op = rig.op();
        assert!(
            matches!(op.action, Action::Trim { offset: 512, len } if len == unique * CHUNK - 512),
            "{op:?}"
        );
        rig.moved(&op, Ok(0));
        assert_eq!(rig.done(), [(1, Ok(()))]);
    }
}

#[test]
fn zeroes_fall_back_to_writing_and_yield_to_a_pause_between_pieces() {
    let mut rig = Rig::alone();
    rig.submit(
        1,
        Target::Origin,
        Verb::WriteZeroes { punch: true },
        0,
        160 << 10,
    );
    let op = rig.op();
    assert!(matches!(op.action, Action::Punch { .. }));
    rig.moved(&op, Err(libc::EOPNOTSUPP));
    let op = rig.op();
    assert!(matches!(op.action, Action::Zero { .. }));
    rig.moved(&op, Err(libc::EOPNOTSUPP));
    let op = rig.op();
    assert!(matches!(
        op.action,
        Action::Write {
            buffer: ZEROES,
            offset: 0,
            len: 65536,
            ..
        }
    ));
    rig.lane.pause(STORE, IoId(1), vec![VolumeId(1)]);
    rig.moved(&op, Ok(65536));
    assert!(rig.is_silent());
    assert_eq!(std::mem::take(&mut rig.lane.out.paused), [(STORE, IoId(1))]);
    rig.lane.resume(STORE, IoId(1));
    for offset in [65536, 131_072] {
        let op = rig.op();
        let Action::Write {
            offset: at, len, ..
        } = op.action
        else {
            panic!("{op:?}")
        };
        assert_eq!(at, offset);
        rig.moved(&op, Ok(len));
    }
    assert_eq!(rig.done(), [(1, Ok(()))]);
}

#[test]
fn every_zeroing_in_flight_falls_back_when_the_device_cannot_do_it() {
    let mut rig = Rig::alone();
    for tag in 1..=3 {
        let verb = Verb::WriteZeroes { punch: true };
        rig.submit(tag, Target::Origin, verb, tag * CHUNK, CHUNK);
    }
    // All three were issued before the first answer told what the device lacks.
    for _ in 0..2 {
        for op in std::mem::take(&mut rig.lane.out.ops) {
            rig.moved(&op, Err(libc::EOPNOTSUPP));
            assert_eq!(rig.done(), [], "failed instead of falling back");
        }
    }
    for op in std::mem::take(&mut rig.lane.out.ops) {
        assert!(
            matches!(op.action, Action::Write { buffer: ZEROES, .. }),
            "{op:?}"
        );
        rig.moved(&op, Ok(CHUNK as u32));
    }
    assert_eq!(rig.done(), [(1, Ok(())), (2, Ok(())), (3, Ok(()))]);
}

#[test]
fn another_device_is_asked_again_for_what_the_last_one_did_not_know() {
    let mut rig = Rig::alone();
    let zeroes = Verb::WriteZeroes { punch: true };
    rig.submit(1, Target::Origin, zeroes, 0, CHUNK);
    for _ in 0..2 {
        let op = rig.op();
        rig.moved(&op, Err(libc::EOPNOTSUPP));
    }
    let op = rig.op();
    rig.moved(&op, Ok(CHUNK as u32));
    rig.submit(2, Target::Origin, Verb::Trim, 0, CHUNK);
    let op = rig.op();
    rig.moved(&op, Err(libc::EOPNOTSUPP));
    assert_eq!(rig.done(), [(1, Ok(())), (2, Ok(()))]);
    rig.lane.device_replaced(DEPOT);
    rig.submit(3, Target::Origin, zeroes, 0, CHUNK);
    let op = rig.op();
    assert!(matches!(op.action, Action::Write { .. }), "{op:?}");
    rig.moved(&op, Ok(CHUNK as u32));
    rig.lane.device_replaced(ORIGIN);
    rig.submit(4, Target::Origin, zeroes, 0, CHUNK);
    let op = rig.op();
    assert!(matches!(op.action, Action::Punch { .. }), "{op:?}");
    rig.moved(&op, Err(libc::EOPNOTSUPP));
    let op = rig.op();
    assert!(matches!(op.action, Action::Zero { .. }), "{op:?}");
    rig.moved(&op, Ok(0));
    rig.submit(5, Target::Origin, Verb::Trim, 0, CHUNK);
    let op = rig.op();
    assert!(matches!(op.action, Action::Trim { .. }), "{op:?}");
}
