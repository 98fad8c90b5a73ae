//! Flushes: each goes down to the device it is for, whatever was or was not written.

use super::*;

/// The one operation there is: a flush of `device`, `asked` for by a user or not.
fn flush_of(rig: &mut Rig, device: DeviceSlot, asked: bool) -> Op {
    let op = rig.op();
    assert_eq!(op.device, device);
    assert!(
        matches!(op.action, Action::Flush { asked: by } if by == asked),
        "{op:?}"
    );
    op
}

#[test]
fn every_flush_goes_down() {
    let mut rig = Rig::shared();
    for io in (1..4).map(IoId) {
        rig.lane.effect(STORE, Effect::FlushStore { io }, &[]);
        let op = flush_of(&mut rig, DEPOT, false);
        rig.moved(&op, Ok(0));
        assert!(
            matches!(rig.events()[..], [Event::Flushed { io: done, result: Ok(()) }] if done == io)
        );
        let volume = VolumeId(1);
        rig.lane
            .effect(STORE, Effect::FlushOrigin { io, volume }, &[]);
        let op = flush_of(&mut rig, ORIGIN, false);
        rig.moved(&op, Err(libc::EIO));
        let failed = Err(IoError::Errno(libc::EIO));
        assert!(
            matches!(&rig.events()[..], [Event::Flushed { io: done, result }] if *done == io && *result == failed)
        );
    }
}

/// The store's exceptions were durable before the write they were made for was issued:
/// a user's flush is one of the origin and of nothing else.
#[test]
fn a_users_flush_needs_the_origin_alone() {
    for mut rig in [Rig::shared(), Rig::alone()] {
        for (tag, answer) in [(1, Ok(())), (2, Ok(())), (3, Err(libc::EIO))] {
            rig.submit(tag, Target::Origin, Verb::Flush, 0, 0);
            let op = flush_of(&mut rig, ORIGIN, true);
            assert!(rig.done().is_empty(), "answered before the device did");
            rig.moved(&op, answer.map(|()| 0));
            assert_eq!(rig.done(), [(tag, answer)]);
            assert!(rig.events().is_empty());
        }
    }
}

/// Zeroing has no forced writes: a flush follows it.
#[test]
fn forced_zeroes_are_flushed() {
    let mut rig = Rig::alone();
    rig.lane.submit(Request {
        tag: 1,
        volume: VOLUME,
        target: Target::Origin,
        verb: Verb::WriteZeroes { punch: false },
        offset: 0,
        len: CHUNK,
        fua: true,
        buffer: BufferId(1),
    });
    let op = rig.op();
    assert!(matches!(op.action, Action::Zero { .. }), "{op:?}");
    rig.moved(&op, Ok(0));
    let op = flush_of(&mut rig, ORIGIN, false);
    assert!(rig.done().is_empty());
    rig.moved(&op, Ok(0));
    assert_eq!(rig.done(), [(1, Ok(()))]);
}
