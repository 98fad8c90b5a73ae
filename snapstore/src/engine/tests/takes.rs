//! Takes: the order of their steps, what a failed one leaves (nothing but a used tag),
//! and what goes on meanwhile.

use super::*;

const OTHER: VolumeId = VolumeId(2);

/// Two volumes; the first has a snapshot.
fn pair() -> Rig {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    let made = rig.volume("w", Policy::OriginFirst);
    assert_eq!(rig.result(made), Some(Ok(Reply::Volume(OTHER))));
    rig
}

impl Rig {
    fn take_both(&mut self, name: &str) -> CommandId {
        self.command(Command::Take {
            targets: vec![(VOLUME, name.to_owned()), (OTHER, name.to_owned())],
            priority: 0,
            created_ms: 1,
        })
    }

    /// How many snapshots each of the two volumes lists.
    fn listed(&self) -> [usize; 2] {
        [VOLUME, OTHER].map(|volume| self.engine.snapshots(volume).len())
    }
}

#[test]
fn a_snapshot_is_found_by_its_name() {
    let mut rig = pair();
    for name in ["one", "two", "three", &"o".repeat(MAX_NAME)] {
        let taken = rig.take_both(name);
        assert!(matches!(rig.result(taken), Some(Ok(Reply::Taken(_)))));
    }
    let check = |rig: &Rig, gone: &str| {
        for volume in [VOLUME, OTHER] {
            for listed in rig.engine.snapshots(volume) {
                let found = rig.engine.snapshot_named(volume, &listed.name);
                assert_eq!(found, Some(listed));
            }
            assert_eq!(rig.engine.snapshot_named(volume, gone), None);
        }
    };
    let long = "o".repeat(300);
    for gone in ["tw", "two\0", "", "\0", &long] {
        check(&rig, gone);
    }
    let two = rig
        .engine
        .snapshot_named(VOLUME, "two")
        .map(|info| info.tag);
    let two = two.unwrap();
    for (tag, name) in [(two, "four"), (two, "two"), (two, "five")] {
        let volume = VOLUME;
        let name = name.to_owned();
        let renamed = rig.command(Command::RenameSnapshot { volume, tag, name });
        assert!(matches!(rig.result(renamed), Some(Ok(_))));
    }
    check(&rig, "four");
    assert_eq!(rig.engine.snapshot_named(VOLUME, "two"), None);
    let targets = vec![(VOLUME, two), (OTHER, two)];
    let deleted = rig.command(Command::DeleteSnapshots { targets });
    assert!(matches!(rig.result(deleted), Some(Ok(_))));
    check(&rig, "five");
}

#[test]
fn what_is_said_of_an_origin_is_kept_over_a_crash() {
    let mut rig = pair();
    let seal = |rig: &Rig| rig.engine.volumes().first().map(|info| info.seal);
    assert_eq!(seal(&rig), Some(Seal::Use([0; 32])), "a new volume");
    for said in [
        Seal::Use([3; 32]),
        Seal::Fingerprint([3; 32]),
        Seal::Use([4; 32]),
    ] {
        let command = Command::Seal {
            volume: VOLUME,
            seal: said,
        };
        let done = rig.command(command);
        assert_eq!(rig.result(done), Some(Ok(Reply::Done)));
        assert_eq!(seal(&rig), Some(said));
        assert_eq!(seal(&rig.crashed()), Some(said));
    }
}

/// Makes one of the origin flushes of the second volume fail.
fn flush_of_other(n: usize) -> Box<dyn FnMut(&Effect) -> bool> {
    let mut count = 0;
    Box::new(move |effect: &Effect| {
        let own = matches!(effect, Effect::FlushOrigin { volume: OTHER, .. });
        count += usize::from(own);
        own && count == n + 1
    })
}

#[test]
fn a_group_is_taken_as_a_whole_or_not_at_all() {
    // The flush before the pause, and the one after.
    for n in 0..2 {
        let mut rig = pair();
        rig.fail = flush_of_other(n);
        let failed = rig.take_both("g");
        let error = CommandError::OriginFlush(OTHER, IoError::Errno(5));
        assert_eq!(rig.result(failed), Some(Err(error)));
        assert_eq!(rig.listed(), [1, 0], "flush {n}");
        assert_eq!(rig.crashed().listed(), [1, 0], "flush {n}");
        // The one name is free again, and so is everything that was kept for it.
        let again = rig.take_both("g");
        assert_eq!(rig.result(again), Some(Ok(Reply::Taken(Tag(3)))));
        assert_eq!(rig.listed(), [2, 1]);
        assert_eq!(rig.crashed().listed(), [2, 1]);
        rig.is_sound();
    }
}

#[test]
fn a_group_is_paused_as_a_whole() {
    let mut rig = pair();
    rig.hold = |effect| matches!(effect, Effect::Pause { .. });
    let take = rig.take_both("g");
    let [Effect::Pause { volumes, .. }] = &rig.held[..] else {
        panic!("{:?}", rig.held);
    };
    assert_eq!(volumes[..], [VOLUME, OTHER]);
    rig.release();
    assert_eq!(rig.result(take), Some(Ok(Reply::Taken(Tag(2)))));
}

#[test]
fn until_its_abort_is_durable_a_failed_take_counts_as_happened() {
    let mut rig = pair();
    rig.fail = flush_of_other(1);
    rig.hold = |effect| matches!(effect, Effect::FlushOrigin { volume: OTHER, .. });
    let take = rig.take_both("g");
    rig.answer_next();
    assert_eq!(rig.held.len(), 1, "the flush after the pause");
    rig.hold_flushes = true;
    rig.answer_next();
    assert_eq!(rig.result(take), None, "the abort is not durable");
    assert_eq!(rig.engine.newest(VOLUME), Tag(2));
    rig.write(1, 0, 1);
    assert_eq!((rig.copies.len(), rig.granted.len()), (1, 0));
    rig.release();
    assert!(matches!(
        rig.result(take),
        Some(Err(CommandError::OriginFlush(..)))
    ));
    assert_eq!(rig.granted, [Owner(1)]);
    assert_eq!(rig.listed(), [1, 0]);
    rig.is_sound();
}

#[test]
fn the_commit_follows_the_flush_of_every_origin() {
    let mut rig = pair();
    rig.hold = is_origin_flush;
    let take = rig.take_both("g");
    let pauses = |rig: &Rig| {
        let pause = |effect: &&Effect| matches!(effect, Effect::Pause { .. });
        rig.seen.iter().filter(pause).count()
    };
    let before = pauses(&rig);
    for half in 0..2 {
        assert_eq!((rig.held.len(), pauses(&rig)), (2, before + half));
        rig.answer_next();
        assert_eq!((rig.held.len(), pauses(&rig)), (1, before + half));
        // Nothing that has been written makes it happen.
        assert_eq!((rig.result(take), rig.crashed().listed()), (None, [1, 0]));
        rig.answer_next();
    }
    assert_eq!(rig.result(take), Some(Ok(Reply::Taken(Tag(2)))));
    assert_eq!(rig.crashed().listed(), [2, 1]);
}

#[test]
fn tags_and_volume_numbers_are_never_given_out_again() {
    let mut rig = pair();
    let taken = |rig: &mut Rig| {
        let id = rig.take("t");
        match rig.result(id) {
            Some(Ok(Reply::Taken(tag))) => tag,
            other => panic!("{other:?}"),
        }
    };
    let mut last = Tag(1);
    let failures: [fn(&Effect) -> bool; 2] = [
        |effect| matches!(effect, Effect::FlushOrigin { .. }),
        |effect| matches!(effect, Effect::Pause { .. }),
    ];
    for failure in failures {
        rig.fail = Box::new(failure);
        let failed = rig.take("t");
        assert!(matches!(rig.result(failed), Some(Err(_))));
        rig.fail = Box::new(|_| false);
        let tag = taken(&mut rig);
        assert_eq!(tag, Tag(last.0 + 2), "the failed take used one up");
        rig.delete(tag);
        last = tag;
    }
    // The newest is gone without a trace, and so is the volume with the highest number.
    rig.delete(Tag(1));
    rig.command(Command::DeleteVolume { volume: OTHER });
    rig.command(Command::Checkpoint);
    for orderly in [true, false] {
        if orderly {
            rig.command(Command::Close);
        }
        rig = rig.crashed();
        assert!(rig.engine.state.volumes[&VOLUME].snapshots.is_empty());
        assert!(!rig.engine.state.volumes.contains_key(&OTHER));
        let tag = taken(&mut rig);
        assert!(tag > last, "{tag} after {last}");
        rig.delete(tag);
        rig.command(Command::Checkpoint);
        last = tag;
    }
    let made = rig.volume("x", Policy::OriginFirst);
    assert_eq!(rig.result(made), Some(Ok(Reply::Volume(VolumeId(3)))));
}

#[test]
fn deletes_and_an_orderly_stop_go_on_during_a_take() {
    let holds: [fn(&Effect) -> bool; 2] = [is_origin_flush, |effect| {
        matches!(effect, Effect::Pause { .. })
    }];
    for hold in holds {
        let mut rig = pair();
        rig.hold = hold;
        let take = rig.take_both("g");
        assert_eq!(rig.result(take), None);
        let delete = rig.delete(Tag(1));
        assert_eq!(rig.result(delete), Some(Ok(Reply::Done)));
        let queued = rig.take("later");
        let close = rig.command(Command::Close);
        assert_eq!(rig.result(queued), Some(Err(CommandError::Closing)));
        rig.write(1, 0, 1);
        assert!(matches!(
            rig.failed[..],
            [(Owner(1), RequestError::Closing)]
        ));
        rig.release();
        assert!(matches!(rig.result(take), Some(Ok(Reply::Taken(_)))));
        assert_eq!(rig.result(close), Some(Ok(Reply::Done)));
        assert_eq!(rig.crashed().listed(), [1, 1]);
    }
}
