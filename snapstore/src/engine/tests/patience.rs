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
        Self::at(1_000_000)
    }

    fn at(now_ms: u64) -> Self {
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
        if now_ms > 0 {
            full.tick(now_ms);
        }
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
fn a_store_that_had_room_again_begins_anew() {
    let mut full = Full::new();
    let late = 1_000_000 + u64::from(WAIT_S) * 1000;
    full.tick(late);
    assert_eq!(full.failed(), 1);
    full.delete_snapshot();
    full.tick(late + 1);
    full.rig.command(Command::Take {
        targets: vec![(VOLUME, "again".to_owned())],
        priority: 0,
        created_ms: 1,
    });
    let before = full.rig.granted.len();
    full.next = 0;
    while full.rig.granted.len() - before == full.next as usize {
        full.write();
    }
    assert_eq!(full.failed(), 1, "the last one waits");
    full.tick(late + u64::from(WAIT_S) * 1000);
    assert_eq!(full.failed(), 1, "its time began when it came");
}

#[test]
fn nothing_fails_before_the_time_is_known() {
    let mut full = Full::at(0);
    full.write();
    assert_eq!(full.failed(), 0);
    full.tick(1_000_000);
    assert_eq!(full.failed(), 0, "its time begins now");
}

#[test]
fn room_made_in_time_lets_the_write_pass() {
    let mut full = Full::new();
    full.delete_snapshot();
    assert_eq!(full.failed(), 0);
    assert_eq!(full.rig.granted.len() as u64, full.next, "it passed");
}

#[test]
fn a_store_that_grows_in_time_lets_the_write_pass() {
    let mut full = Full::new();
    let blocks = 4096;
    full.rig.disk.0.resize(blocks as usize, Block::zeroed());
    let id = full.rig.command(Command::ExtendStore { blocks });
    assert_eq!(full.rig.result(id), Some(Ok(Reply::Done)));
    assert_eq!(full.failed(), 0);
    assert_eq!(full.rig.granted.len() as u64, full.next, "it passed");
    full.tick(1_000_001);
    full.write();
    assert_eq!(full.rig.granted.len() as u64, full.next, "so does the next");
}

#[test]
fn an_orderly_stop_does_not_wait_for_room() {
    let mut full = Full::new();
    let id = full.rig.command(Command::Close);
    assert_eq!(full.rig.result(id), Some(Ok(Reply::Done)));
    assert!(matches!(full.rig.failed[..], [(_, RequestError::Closing)]));
}

#[test]
fn waiting_ends_before_the_stop_itself() {
    let mut full = Full::new();
    let may_wait = |allowed| Command::WaitForRoom {
        volume: VOLUME,
        allowed,
    };
    let id = full.rig.command(may_wait(false));
    assert_eq!(full.rig.result(id), Some(Ok(Reply::Done)));
    assert_eq!(full.failed(), 1, "what waited fails");
    full.write();
    assert_eq!(full.failed(), 2, "what comes does not wait");
    let live = full.rig.engine.state.volumes[&VOLUME].live().count();
    assert_eq!(live, 1, "the snapshot stays");
    full.rig.command(may_wait(true));
    full.write();
    assert_eq!(full.failed(), 2, "the stop was called off: it waits again");
}

/// What gives room back waits for a reader; who stops the volume does not.
#[test]
fn waiting_ends_though_room_may_come_back() {
    let mut full = Full::new();
    let (grant, _) = full.rig.read(Tag(1), 0, 1).unwrap();
    full.delete_snapshot();
    full.rig.take("late");
    full.write();
    let waiting = full.rig.engine.writes.len();
    assert!(full.rig.engine.purge_pending() && waiting > 0);
    assert_eq!(full.failed(), 0, "room is on its way");
    let allowed = false;
    full.rig.command(Command::WaitForRoom {
        volume: VOLUME,
        allowed,
    });
    assert_eq!(full.failed(), waiting, "at once");
    full.rig.read_done(grant);
    assert_eq!(full.rig.engine.state.volumes[&VOLUME].live().count(), 1);
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
