//! A store that failed: it takes no more changes, what it was told last may have
//! happened, and the origins go on once that is recorded elsewhere.

use super::*;

fn is_invalidation(effect: &Effect) -> bool {
    matches!(effect, Effect::RecordInvalid { .. })
}

/// Makes the effect number `n` of a kind fail, and no other.
fn nth(n: usize, kind: fn(&Effect) -> bool) -> Box<dyn FnMut(&Effect) -> bool> {
    let mut count = 0;
    Box::new(move |effect: &Effect| {
        count += usize::from(kind(effect));
        kind(effect) && count == n + 1
    })
}

/// Everything a store does, in a few steps.
fn life(rig: &mut Rig) {
    rig.write(1, 0, 20);
    rig.take("b");
    rig.write(2, 10, 20);
    rig.command(Command::Checkpoint);
    rig.delete(Tag(1));
    rig.write(3, 40, 2);
    rig.command(Command::Checkpoint);
    rig.write(4, 60, 1);
}

/// Whichever change of the store fails, and whether it reached the disk or not.
fn one_change_fails(n: usize, lands: bool) -> bool {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    let commands = rig.commands;
    rig.fail = nth(n, is_change);
    rig.lands = lands;
    life(&mut rig);
    let given_up = |effect: &Effect| matches!(effect, Effect::Notice(Notice::StoreFailed { .. }));
    let Some(dead) = rig.seen.iter().position(given_up) else {
        return false;
    };
    let story = format!("change {n}, on the disk: {lands}");
    let after = &rig.seen[dead..];
    assert!(!after.iter().any(is_change), "{story}: {after:?}");
    // The origin went on, and not before its snapshots were known to be invalid.
    assert_eq!(rig.failed, [], "{story}");
    assert_eq!(rig.granted, [1, 2, 3, 4].map(Owner), "{story}");
    let mut late = after
        .iter()
        .filter(|effect| is_invalidation(effect) || matches!(effect, Effect::WriteGranted { .. }));
    assert!(
        late.next().is_some_and(is_invalidation),
        "{story}: {after:?}"
    );
    assert_eq!(rig.live(), [], "{story}");
    assert_eq!(
        (rig.commands, commands + 4),
        (rig.replies.len() as u64, rig.commands),
        "{story}"
    );
    // What is on the disk opens: the older checkpoint and its journal are whole.
    let mut rig = rig.crashed();
    rig.is_sound();
    rig.write(1, 100, 1);
    assert_eq!(rig.granted, [Owner(1)], "{story}");
    true
}

#[test]
fn a_store_that_failed_once_is_never_changed_again() {
    for lands in [false, true] {
        let fails = |n: &usize| one_change_fails(*n, lands);
        let changes = (0..).take_while(fails).count();
        assert!(changes > 30, "only {changes} changes were tried");
    }
}

#[test]
fn a_take_whose_flush_failed_counts_as_happened() {
    for flush in 0..2 {
        let mut rig = Rig::new(2048, Policy::OriginFirst);
        rig.delete(Tag(1));
        assert_eq!(rig.live(), []);
        rig.hold = is_invalidation;
        rig.fail = nth(flush, |effect| matches!(effect, Effect::FlushStore { .. }));
        let take = rig.take("t");
        let result = rig.result(take);
        assert!(
            matches!(result, Some(Err(CommandError::StoreFailed(_)))),
            "{result:?}"
        );
        // The commit record may be durable: nothing it needs is overwritten yet.
        assert_eq!(rig.crashed().live().len(), flush);
        rig.write(1, 7, 1);
        assert_eq!((rig.granted.len(), rig.failed.len()), (0, 0));
        let invalid = matches!(
            &rig.held[..],
            [Effect::RecordInvalid { volumes, .. }] if volumes[..] == [VOLUME]
        );
        assert!(invalid, "{:?}", rig.held);
        rig.release();
        assert_eq!(rig.granted, [Owner(1)]);
    }
}

#[test]
fn what_cannot_be_recorded_elsewhere_fails_the_write() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    rig.fail = Box::new(|effect: &Effect| {
        is_invalidation(effect) || matches!(effect, Effect::FlushStore { .. })
    });
    rig.write(1, 0, 1);
    rig.write(2, 9, 1);
    assert!(rig.granted.is_empty(), "{:?}", rig.granted);
    let of_the_store =
        |(_, error): &(Owner, RequestError)| matches!(error, RequestError::StoreFailed(_));
    assert!(
        rig.failed.len() == 2 && rig.failed.iter().all(of_the_store),
        "{:?}",
        rig.failed
    );
    assert_eq!(rig.live(), [Tag(1)], "it is as it was");
}

#[test]
fn a_read_under_way_keeps_its_chunk_when_the_store_fails() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    let (grant, source) = rig.read(Tag(1), 3, 1).unwrap();
    assert_eq!(source, Source::Origin);
    rig.fail = nth(0, |effect| matches!(effect, Effect::FlushStore { .. }));
    rig.write(1, 3, 1);
    assert_eq!(rig.live(), [], "it is invalid");
    assert!(rig.granted.is_empty(), "the read would return the new data");
    assert_eq!(rig.read(Tag(1), 4, 1), None, "nothing more is read of it");
    rig.read_done(grant);
    assert_eq!(rig.granted, [Owner(1)]);
}

#[test]
fn where_snapshots_come_first_a_failed_store_fails_the_write() {
    let mut rig = Rig::new(2048, Policy::SnapshotFirst);
    rig.fail = nth(0, |effect| matches!(effect, Effect::Copy { .. }));
    rig.write(1, 0, 1);
    rig.write(2, 5, 1);
    assert!(
        rig.granted.is_empty() && rig.failed.len() == 2,
        "{:?}",
        rig.granted
    );
    assert!(!rig.seen.iter().any(is_invalidation));
    assert_eq!(rig.live(), [Tag(1)]);
}
