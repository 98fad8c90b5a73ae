//! Snapshots that a person holds: no victims, whatever it costs.

use super::*;
use crate::format::tables::SnapshotPhase;

/// A volume whose origin comes first, with two snapshots; the first is held.
fn held() -> Rig {
    let mut rig = Rig::new(1024, Policy::OriginFirst);
    rig.command(Command::Take {
        targets: vec![(VOLUME, "b".to_owned())],
        priority: 10,
        created_ms: 1,
    });
    set_held(&mut rig, true);
    rig
}

fn set_held(rig: &mut Rig, held: bool) {
    let (volume, tag) = (VOLUME, Tag(1));
    let id = rig.command(Command::SetHeld { volume, tag, held });
    assert_eq!(rig.result(id), Some(Ok(Reply::Done)));
}

fn phase(rig: &Rig, tag: u64) -> Option<SnapshotPhase> {
    rig.engine.state.volumes[&VOLUME].phase(Tag(tag))
}

/// Writes until one is not granted; how many were.
fn fill(rig: &mut Rig) -> u64 {
    for next in 0..256 {
        let before = rig.granted.len();
        rig.write(next, next * 16, 16);
        if rig.granted.len() == before {
            return next;
        }
    }
    256
}

#[test]
fn others_go_first_and_then_writes_fail() {
    let mut rig = held();
    let granted = fill(&mut rig);
    assert!((1..256).contains(&granted), "{granted} writes passed");
    assert_eq!(
        phase(&rig, 2),
        Some(SnapshotPhase::Dropped),
        "of priority 10"
    );
    assert_eq!(phase(&rig, 1), Some(SnapshotPhase::Live), "held");
    assert!(matches!(
        rig.failed[..],
        [(_, RequestError::NoSpace(VOLUME))]
    ));
    // Held no longer, it gives way.
    set_held(&mut rig, false);
    rig.write(999, granted * 16, 16);
    assert_eq!(rig.granted.last(), Some(&Owner(999)));
    assert_eq!(phase(&rig, 1), Some(SnapshotPhase::Dropped));
}

#[test]
fn writes_wait_as_long_as_the_volume_says_where_all_are_held() {
    let mut rig = held();
    rig.command(Command::SetPolicy {
        volume: VOLUME,
        policy: None,
        full_wait_s: Some(10),
    });
    rig.batch.events.push(Event::Tick { now_ms: 1_000_000 });
    rig.pump();
    let granted = fill(&mut rig) as usize;
    assert_eq!((rig.granted.len(), rig.failed.len()), (granted, 0));
    set_held(&mut rig, false);
    assert_eq!((rig.granted.len(), rig.failed.len()), (granted + 1, 0));
}

#[test]
fn without_a_hold_every_snapshot_gives_way() {
    let mut rig = Rig::new(1024, Policy::OriginFirst);
    let granted = fill(&mut rig);
    assert_eq!(granted, 256, "snapshots make way");
    assert!(rig.failed.is_empty(), "{:?}", rig.failed);
}

impl Rig {
    fn take_with(&mut self, name: &str, priority: i32) {
        let id = self.command(Command::Take {
            targets: vec![(VOLUME, name.to_owned())],
            priority,
            created_ms: 1,
        });
        assert!(matches!(self.result(id), Some(Ok(Reply::Taken(_)))));
    }

    /// Snapshots dropped for want of room, in order.
    fn victims(&self) -> Vec<u64> {
        let victim = |effect: &Effect| match effect {
            Effect::Notice(Notice::SnapshotDropped { tag, .. }) => Some(tag.0),
            _ => None,
        };
        self.seen.iter().filter_map(victim).collect()
    }
}

/// What each of three snapshots alone keeps is more than a write needs.
#[test]
fn one_victim_at_a_time_by_priority_then_age() {
    let mut rig = Rig::new(1024, Policy::OriginFirst);
    rig.write(0, 0, 100);
    for (tag, name) in [(2, "b"), (3, "c")] {
        rig.take_with(name, -1);
        rig.write(tag, 0, 100);
    }
    let mut next = 100;
    while rig.victims().is_empty() && next < 4096 {
        rig.write(next, next, 16);
        assert_eq!(rig.granted.last(), Some(&Owner(next)));
        next += 16;
    }
    assert_eq!(rig.victims(), [2], "the older of the lowest priority");
    (next..4096 - 16)
        .step_by(16)
        .for_each(|first| rig.write(first, first, 16));
    assert_eq!((rig.victims(), rig.failed.len()), (vec![2, 3, 1], 0));
}

#[test]
fn a_victim_keeps_what_a_read_of_it_needs() {
    let mut rig = Rig::new(1024, Policy::OriginFirst);
    let (volume, tag, mapped) = (VOLUME, Tag(1), true);
    rig.command(Command::SetMapped {
        volume,
        tag,
        mapped,
    });
    rig.write(0, 0, 16);
    rig.take_with("b", 10);
    let (grant, source) = rig.read(tag, 0, 16).unwrap();
    let Source::Store { block } = source else {
        panic!("{source:?}");
    };
    let granted = fill(&mut rig);
    assert!(granted < 256, "its room was given back while it was read");
    assert_eq!(rig.victims(), [1]);
    assert!((block..block + 16).all(|block| rig.engine.alloc.is_used(block)));
    let before = rig.granted.len();
    rig.read_done(grant);
    assert_eq!(rig.granted.len(), before + 1, "the write that waited");
    rig.command(Command::Checkpoint);
    rig.is_sound();
}

#[test]
fn a_hold_outlives_changes_crashes_and_checkpoints() {
    let mut rig = held();
    let (volume, tag) = (VOLUME, Tag(1));
    rig.command(Command::SetPriority {
        volume,
        tag,
        priority: 7,
    });
    for mapped in [true, false] {
        rig.command(Command::SetMapped {
            volume,
            tag,
            mapped,
        });
    }
    let held = |rig: &Rig| {
        rig.engine
            .snapshots(VOLUME)
            .iter()
            .map(|s| s.held)
            .collect()
    };
    let expected = vec![true, false];
    let found: Vec<bool> = held(&rig);
    assert_eq!(found, expected);
    // From the journal, then from the table.
    let mut rig = Rig::open(rig.disk);
    assert_eq!(held(&rig), expected);
    rig.command(Command::Checkpoint);
    let rig = Rig::open(rig.disk);
    assert_eq!(held(&rig), expected);
    assert_eq!(rig.engine.snapshots(VOLUME)[0].priority, 7);
}
