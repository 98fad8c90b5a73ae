//! Writes that wait for room where snapshots come first.

use super::*;

const WAIT_S: u32 = 10;

/// A full store: one write waits.
struct Full {
    rig: Rig,
    next: u64,
}

impl Full {
    fn new() -> Self {
        let mut full = Self {
            rig: Rig::new(1024, Policy::SnapshotFirst),
            next: 0,
        };
        let id = full.rig.command(Command::SetPolicy {
            volume: VOLUME,
            policy: None,
            full_wait_s: Some(WAIT_S),
        });
        assert_eq!(full.rig.result(id), Some(Ok(Reply::Done)));
        full.tick(1_000_000);
        while full.rig.granted.len() as u64 == full.next {
            full.write();
        }
        assert!(full.rig.failed.is_empty(), "{:?}", full.rig.failed);
        full
    }

    fn write(&mut self) {
        self.rig.write(self.next, self.next * 16, 16);
        self.next += 1;
    }

    fn tick(&mut self, now_ms: u64) {
        self.rig.batch.events.push(Event::Tick { now_ms });
        self.rig.pump();
    }

    fn delete_snapshot(&mut self) {
        self.rig.command(Command::DeleteSnapshots {
            targets: vec![(VOLUME, Tag(1))],
        });
        self.tick(1_000_001);
    }

    fn failed(&self) -> usize {
        let full = |(_, error): &&(Owner, RequestError)| *error == RequestError::NoSpace(VOLUME);
        self.rig.failed.iter().filter(full).count()
    }
}

#[test]
fn a_write_waits_as_long_as_its_volume_says() {
    let mut full = Full::new();
    full.tick(1_000_000 + u64::from(WAIT_S) * 1000 - 1);
    assert_eq!(full.failed(), 0, "too early");
    full.write();
    assert_eq!(full.failed(), 0, "it waits too");
    full.tick(1_000_000 + u64::from(WAIT_S) * 1000);
    assert_eq!(full.failed(), 2, "both have waited enough");
    full.write();
    assert_eq!(full.failed(), 3, "the next does not wait again");
    let live = full.rig.engine.state.volumes[&VOLUME].live().count();
    assert_eq!(live, 1, "the snapshot stays");
}

#[test]
fn room_made_in_time_lets_the_write_pass() {
    let mut full = Full::new();
    full.delete_snapshot();
    assert_eq!(full.failed(), 0);
    assert_eq!(full.rig.granted.len() as u64, full.next, "it passed");
}

#[test]
fn an_orderly_stop_does_not_wait_for_room() {
    let mut full = Full::new();
    let id = full.rig.command(Command::Close);
    assert_eq!(full.rig.result(id), Some(Ok(Reply::Done)));
    assert!(matches!(full.rig.failed[..], [(_, RequestError::Closing)]));
}

#[test]
fn nobody_waits_for_ever() {
    let mut full = Full::new();
    let id = full.rig.command(Command::SetPolicy {
        volume: VOLUME,
        policy: None,
        full_wait_s: Some(MAX_FULL_WAIT_S + 1),
    });
    let refused = full.rig.result(id);
    assert!(matches!(refused, Some(Err(CommandError::Invalid(_)))));
}
