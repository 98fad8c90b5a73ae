//! The combining lock, the mailboxes and the pauses, with an engine that counts.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use snapstore::ids::GrantId;
use snapstore::{Checksum, Effect};

use super::*;

/// Answers commands, and remembers every grant given back.
#[derive(Default)]
struct Counting {
    seen: Vec<u64>,
    paused: Vec<(IoId, bool)>,
    inside: Arc<AtomicUsize>,
}

impl Stepper for Counting {
    fn step(&mut self, batch: &mut EventBatch, effects: &mut Effects) {
        assert_eq!(
            self.inside.fetch_add(1, Ordering::SeqCst),
            0,
            "two threads in one engine"
        );
        for event in batch.events.drain(..) {
            match event {
                Event::ReadDone { grant } => self.seen.push(grant.0),
                Event::Paused { io, drained } => self.paused.push((io, drained)),
                Event::Command { id, .. } => {
                    effects.list.push(Effect::Reply {
                        id,
                        result: Ok(Reply::Done),
                    });
                }
                Event::Tick { now_ms: 7 } => {
                    let volumes = vec![VolumeId(1)];
                    effects.list.push(Effect::Pause {
                        io: IoId(70),
                        volumes,
                    });
                }
                Event::Tick { now_ms: 11 } => effects.list.extend((0..20).map(copy)),
                Event::Tick { now_ms: 13 } => panic!("as planned"),
                _ => {}
            }
        }
        std::hint::spin_loop();
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    fn chunk_size(&self) -> u32 {
        16384
    }

    fn checksum(&self) -> Checksum {
        Checksum::default()
    }

    fn unique_map(&self, _: VolumeId) -> Option<Arc<UniqueMap>> {
        None
    }

    fn volume_size(&self, _: VolumeId) -> Option<u64> {
        None
    }

    fn snapshot_size(&self, _: VolumeId, _: Tag) -> Option<u64> {
        None
    }

    fn store_info(&self) -> StoreInfo {
        StoreInfo::default()
    }
}

struct Quiet;

impl StoreHandlers for Quiet {
    fn origin_failed(&self, _: VolumeId, _: i32) {}

    fn notice(&self, _: Notice) {}
    fn record_invalid(&self, _: &[VolumeId]) -> Result<(), IoError> {
        Ok(())
    }
}

fn core(lanes: u16) -> (Arc<Core<Counting>>, Arc<Lanes>) {
    let lanes = Arc::new(Lanes::new(lanes).unwrap());
    let core = Core::new(
        StoreSlot(0),
        Counting::default(),
        lanes.clone(),
        Arc::new(Quiet),
    );
    (core, lanes)
}

#[test]
fn no_event_is_lost_or_seen_twice_however_threads_meet() {
    const EACH: u64 = 2;
    const ROUNDS: u64 = 5000;
    let (core, _) = core(2);
    let meet = std::sync::Barrier::new(2);
    let visit = |lane: u16| {
        let mut visit = Visit::new(lane);
        for round in 0..ROUNDS {
            meet.wait();
            for n in 0..EACH {
                let grant = GrantId((round * 2 + u64::from(lane)) * EACH + n);
                visit.events.events.push(Event::ReadDone { grant });
                core.enter(&mut visit);
                // As the I/O thread does when told to come again.
                while std::mem::take(&mut visit.again) {
                    core.enter(&mut visit);
                }
            }
            // Often, because the next visit would hide what this one left.
            meet.wait();
            assert!(
                core.inbox.lock().is_empty(),
                "events were left lying in round {round}"
            );
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| visit(0));
        visit(1);
    });
    let mut seen = core.query(|engine| engine.seen.clone());
    for lane in 0..2 {
        let of_lane = |grant: &&u64| *grant / EACH % 2 == lane;
        assert!(
            seen.iter().filter(of_lane).is_sorted(),
            "events of lane {lane} were seen out of order"
        );
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..2 * ROUNDS * EACH).collect::<Vec<_>>());
}

/// A copy's "written" that overtook its "read" stopped every write to the chunk.
#[test]
fn what_a_lane_left_comes_before_what_it_brings() {
    let (core, _) = core(2);
    let event = |grant| Event::ReadDone {
        grant: GrantId(grant),
    };
    core.inbox.lock().events.push(event(1));
    let mut visit = Visit::new(0);
    visit.events.events.push(event(2));
    core.enter(&mut visit);
    assert_eq!(core.query(|engine| engine.seen.clone()), [1, 2]);
}

fn copy(io: u64) -> Effect {
    Effect::Copy {
        copy: IoId(io),
        volume: VolumeId(1),
        first: io,
        count: 1,
        bytes: 16384,
        block: io * 4,
    }
}

#[test]
fn many_copies_are_shared_out_and_few_are_not() {
    let copies = |effects: &Effects| -> Vec<u64> {
        let number = |effect: &Effect| match effect {
            Effect::Copy { copy, .. } => Some(copy.0),
            _ => None,
        };
        effects.list.iter().filter_map(number).collect()
    };
    let (core, lanes) = core(2);
    let mut visit = Visit::new(1);
    visit.events.events.push(Event::Tick { now_ms: 11 });
    core.enter(&mut visit);
    let own: Vec<u64> = (0..8).chain(16..20).collect();
    assert_eq!(copies(&visit.local), own);
    let mut mail = Vec::new();
    lanes.port(0).unwrap().take(&mut mail);
    let [Mail::Effects { effects, .. }] = &mail[..] else {
        panic!("{mail:?}");
    };
    assert_eq!(copies(effects), (8..16).collect::<Vec<_>>());
}

#[test]
fn events_left_just_after_the_holder_looked_are_not_forgotten() {
    let (core, _) = core(2);
    let engine = core.engine.lock();
    let inbox = core.inbox.lock();
    std::thread::scope(|scope| {
        let leaver = scope.spawn(|| {
            let mut visit = Visit::new(0);
            visit
                .events
                .events
                .push(Event::ReadDone { grant: GrantId(4) });
            core.enter(&mut visit);
        });
        // It has found the engine held and waits to leave its event. Too short a
        // wait could only let a broken lock pass, never fail a sound one.
        std::thread::sleep(Duration::from_millis(100));
        drop(engine);
        drop(inbox);
        leaver.join().unwrap();
    });
    assert!(core.inbox.lock().is_empty(), "the event was left lying");
    assert_eq!(core.query(|engine| engine.seen.clone()), [4]);
}

#[test]
fn a_sleeping_lane_never_misses_its_mail() {
    const LETTERS: usize = 20_000;
    let lanes = Lanes::new(1).unwrap();
    let received = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let port = lanes.port(0).unwrap();
            let mut event = std::fs::File::from(port.event().try_clone_to_owned().unwrap());
            let mut mail = Vec::new();
            while received.load(Ordering::Relaxed) < LETTERS {
                if port.park() {
                    // A lost wake-up would hang here, and the test with it.
                    event.read_exact(&mut [0; 8]).unwrap();
                    port.unpark();
                }
                port.take(&mut mail);
                received.fetch_add(mail.drain(..).len(), Ordering::Relaxed);
            }
        });
        for sender in 0..2 {
            let lanes = &lanes;
            scope.spawn(move || {
                for n in 0..LETTERS / 2 {
                    lanes.post(0, Mail::Step(StoreSlot(sender)));
                    if n % 64 == 0 {
                        std::thread::sleep(Duration::from_micros(10));
                    }
                }
            });
        }
    });
    assert_eq!(received.load(Ordering::Relaxed), LETTERS);
}

/// Lets the engine ask for pause 70 and reads what the lanes are told.
fn paused_core() -> (Arc<Core<Counting>>, Arc<Lanes>) {
    let (core, lanes) = core(2);
    let mut visit = Visit::new(0);
    visit.events.events.push(Event::Tick { now_ms: 7 });
    core.enter(&mut visit);
    for lane in 0..2 {
        let mut mail = Vec::new();
        lanes.port(lane).unwrap().take(&mut mail);
        assert!(
            matches!(&mail[..], [Mail::Pause { io: IoId(70), volumes, .. }] if volumes[..] == [VolumeId(1)]),
            "{mail:?}"
        );
    }
    (core, lanes)
}

#[test]
fn the_last_lane_to_drain_tells_the_engine() {
    let (core, _) = paused_core();
    assert!(core.acknowledge(IoId(70)).is_none());
    let told = core.acknowledge(IoId(70));
    assert!(matches!(
        told,
        Some(Event::Paused {
            io: IoId(70),
            drained: true
        })
    ));
    assert!(core.acknowledge(IoId(70)).is_none(), "told twice");
}

#[test]
fn a_pause_that_does_not_drain_is_given_up_and_resumed() {
    let (core, lanes) = paused_core();
    assert!(core.acknowledge(IoId(70)).is_none());
    core.tick(8, Instant::now() + pause::PAUSE_LIMIT / 2);
    assert!(core.query(|engine| engine.paused.is_empty()));
    core.tick(9, Instant::now() + pause::PAUSE_LIMIT);
    for lane in 0..2 {
        let mut mail = Vec::new();
        lanes.port(lane).unwrap().take(&mut mail);
        let resumes = mail
            .iter()
            .filter(|m| matches!(m, Mail::Resume { io: IoId(70), .. }));
        assert_eq!(resumes.count(), 1, "{mail:?}");
    }
    assert!(core.acknowledge(IoId(70)).is_none(), "too late");
    core.enter(&mut Visit::new(0));
    assert_eq!(
        core.query(|engine| engine.paused.clone()),
        [(IoId(70), false)]
    );
}

#[test]
fn commands_are_answered_and_refused_after_the_end() {
    let (core, lanes) = core(1);
    let caller = {
        let core = core.clone();
        std::thread::spawn(move || core.command(Command::Checkpoint))
    };
    let mut mail = Vec::new();
    while mail.is_empty() {
        std::thread::yield_now();
        lanes.port(0).unwrap().take(&mut mail);
    }
    core.enter(&mut Visit::new(0));
    assert_eq!(caller.join().unwrap(), Ok(Reply::Done));
    core.close();
    assert_eq!(
        core.command(Command::Checkpoint),
        Err(CommandError::Closing)
    );
}

#[test]
fn a_step_that_panics_ends_the_process() {
    use std::os::unix::process::ExitStatusExt;
    const CHILD: &str = "CSNAP_TEST_OF_A_PANICKING_STEP";
    if std::env::var_os(CHILD).is_some() {
        let (core, _) = core(1);
        let mut visit = Visit::new(0);
        visit.events.events.push(Event::Tick { now_ms: 13 });
        core.enter(&mut visit);
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args([
        "--exact",
        "core::tests::a_step_that_panics_ends_the_process",
    ]);
    let output = child.env(CHILD, "1").output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
}
