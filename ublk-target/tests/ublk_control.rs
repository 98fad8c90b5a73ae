//! Control commands against a real driver: what hangs is given up, what is left
//! behind by it or by an earlier csnapd harms nobody, a stop is not held up.
//!
//! They need `/dev/ublk-control`, so they run in the guest: `scripts/guest-tests`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)] // a test

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use snapstore::create::{CreateOptions, create};
use ublk_target::control::protocol::{Answer, Request, SnapshotName, TakeTarget};
use ublk_target::control::server::Backend;
use ublk_target::control::views::{PolicyName, VolumeState};
use ublk_target::daemon::devices::DeviceOptions;
use ublk_target::daemon::front::Wish;
use ublk_target::daemon::safety::Safety;
use ublk_target::daemon::state::{ListedDevice, StateFile};
use ublk_target::daemon::{Daemon, Settings};
use ublk_target::device::StoreDevice;
use ublk_target::runtime::{Runtime, RuntimeConfig, Spread};
use ublk_target::ublk::uapi::{DevInfo, feature, param, state};
use ublk_target::ublk::{
    CharDevice, Control, Descriptors, Features, NewDevice, UblkError, ZeroCopy, features,
};

const NEEDS: &str = "the ublk driver";
/// Much more than a command takes, much less than a time-out.
const PROMPT: Duration = Duration::from_secs(8);

fn new(control: &Control, identity: u64) -> DevInfo {
    let want = NewDevice {
        id: None,
        queues: 1,
        depth: 32,
        max_io_bytes: 256 << 10,
        flags: features::wanted(control.features(), ZeroCopy::Auto, true),
        identity,
    };
    control.add(&want).unwrap()
}

fn parameters(agreed: &DevInfo) -> ublk_target::ublk::uapi::Params {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(8 << 20).unwrap();
    let device = ublk_target::device::OriginDevice::open(file.path(), false).unwrap();
    let limits = ublk_target::ublk::Limits::of(&device).unwrap();
    ublk_target::ublk::params::params(&limits, 8 << 20, false, agreed)
}

#[test]
fn what_is_set_is_read_back() {
    let control = Control::open().expect(NEEDS);
    let agreed = new(&control, 0xc5a9_0001);
    let id = agreed.dev_id;
    features::check(&agreed).unwrap();
    assert_eq!(agreed.flags & feature::UNPRIVILEGED_DEV, 0);
    let asked = parameters(&agreed);
    control.set_params(id, &asked).unwrap();
    let got = control.params(id).unwrap();
    assert_eq!(ublk_target::ublk::params::ignored(&asked, &got), 0);
    let heeded = ublk_target::ublk::params::heeded(id, &asked, &got).unwrap();
    assert_eq!(heeded, [""; 0]);
    assert_eq!(got.basic, asked.basic);
    assert_eq!(got.discard, asked.discard);
    if asked.types & param::DMA_ALIGN != 0 {
        assert_eq!(got.dma_alignment, asked.dma_alignment);
        assert_eq!(got.max_segments, asked.max_segments);
    }
    let info = control.info(id).unwrap();
    assert_eq!((info.state, info.ublksrv_flags), (state::DEAD, 0xc5a9_0001));
    assert!(control.devices().unwrap().iter().any(|d| d.dev_id == id));
    println!("agreed: {}", Features(agreed.flags));
    control.delete(id).unwrap();
    // The number may have gone to another test's device since.
    match control.info(id) {
        Err(UblkError::NoDevice(gone)) => assert_eq!(gone, id),
        Ok(other) => assert_ne!(other.ublksrv_flags, 0xc5a9_0001),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_hung_start_is_given_up_and_holds_nobody_up() {
    let control = Control::open().expect(NEEDS);
    let agreed = new(&control, 1);
    let hung = agreed.dev_id;
    control.set_params(hung, &parameters(&agreed)).unwrap();
    std::thread::scope(|scope| {
        let start = scope.spawn(|| control.start(hung));
        for round in 0..20 {
            let began = Instant::now();
            let other = new(&control, 2).dev_id;
            control.set_params(other, &parameters(&agreed)).unwrap();
            assert_eq!(control.info(hung).unwrap().state, state::DEAD);
            control.delete(other).unwrap();
            assert!(began.elapsed() < PROMPT, "round {round}");
        }
        let began = Instant::now();
        let answer = start.join().unwrap().unwrap_err();
        assert!(
            matches!(answer, UblkError::TimedOut { command: "start", id: Some(n), .. } if n == hung),
            "{answer}"
        );
        println!("start: {answer} (waited {:?} more)", began.elapsed());
    });
    // Giving up interrupted it, so nothing refers to the device.
    let began = Instant::now();
    control.delete(hung).unwrap();
    assert!(began.elapsed() < PROMPT);
}

#[test]
fn a_delete_waits_for_the_server_and_no_longer_than_it_may() {
    let control = Control::open().expect(NEEDS);
    let agreed = new(&control, 3);
    let id = agreed.dev_id;
    let device = CharDevice::open(id, PROMPT).unwrap();
    let descriptors = Descriptors::map(&device, 0, agreed.queue_depth).unwrap();
    assert!(descriptors.get(agreed.queue_depth - 1).is_some());
    assert!(descriptors.get(agreed.queue_depth).is_none());
    let busy = CharDevice::open(id, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(busy, UblkError::Node { .. }), "{busy}");
    let answer = control.delete(id).unwrap_err();
    assert!(matches!(answer, UblkError::TimedOut { .. }), "{answer}");
    println!("delete: {answer}");
    drop(descriptors);
    drop(device);
    let began = Instant::now();
    while control.info(id).is_ok() {
        assert!(began.elapsed() < PROMPT, "it never went away");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn refusals_name_the_device() {
    let control = Control::open().expect(NEEDS);
    let gone = 60_000;
    assert!(matches!(control.stop(gone), Err(UblkError::NoDevice(n)) if n == gone));
    let id = new(&control, 4).dev_id;
    let taken = control.add(&NewDevice {
        id: Some(id),
        queues: 1,
        depth: 1,
        max_io_bytes: 4096,
        flags: 0,
        identity: 0,
    });
    let error = taken.unwrap_err().to_string();
    assert!(error.contains(&format!("device {id}")), "{error}");
    // Never served: there is nothing to recover.
    let error = control.start_recovery(id).unwrap_err();
    assert!(matches!(error, UblkError::Command { .. }), "{error}");
    println!("recover: {error}");
    match control.update_size(id, 16) {
        Err(error) => println!("resize: {error}"),
        Ok(()) => panic!("a device without a disk was resized"),
    }
    control.delete_async(id).unwrap();
}

/// A kernel's worker that exits with the last ring of its thread may take a command
/// of the next ring with it: see `ublk::command`. Without what is done there about
/// one in 30,000 of these was lost on 7.2, so this watches and proves nothing; to
/// see it, raise `COMMANDS` to 100,000.
#[test]
fn every_one_of_many_commands_is_answered() {
    const COMMANDS: u64 = 2000;
    let control = Control::open().expect(NEEDS);
    let agreed = new(&control, 4);
    let asked = parameters(&agreed);
    let began = Instant::now();
    for round in 0..COMMANDS {
        let once = Instant::now();
        control.set_params(agreed.dev_id, &asked).unwrap();
        assert!(once.elapsed() < PROMPT, "round {round}");
        // At every distance from the moment the last ring is gone.
        std::thread::sleep(Duration::from_micros(round * 7 % 3000));
    }
    println!("{COMMANDS} commands in {:?}", began.elapsed());
    control.delete(agreed.dev_id).unwrap();
}

fn daemon(dir: &Path) -> Daemon {
    let settings = Settings {
        nbd_socket: dir.join("nbd"),
        engine: snapstore::engine::Config::default(),
        frontend: Wish::Ublk,
        devices: DeviceOptions {
            zero_copy: ZeroCopy::Auto,
            queue_depth: 16,
            spread: Spread::Auto,
            link_dir: dir.join("links"),
            run_dir: dir.join("run"),
        },
        safety: Safety::default(),
    };
    let runtime = Arc::new(Runtime::start(RuntimeConfig::default()).unwrap());
    let state = Arc::new(StateFile::open(&dir.join("state")).unwrap());
    let daemon = Daemon::new(settings, runtime, state).expect(NEEDS);
    daemon.attach_listed();
    daemon
}

/// A store and a volume on it, `web`.
fn with_volume(dir: &Path) -> Daemon {
    for sub in ["state", "run"] {
        std::fs::create_dir(dir.join(sub)).unwrap();
    }
    let file = |name: &str| {
        let path = dir.join(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(16 << 20).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (store, origin) = (file("store"), file("web.img"));
    let options = CreateOptions {
        uuid: *uuid::Uuid::new_v4().as_bytes(),
        chunk_size: 16384,
        checksum: snapstore::Checksum::default(),
        created_ms: 0,
        journal_blocks: None,
    };
    create(&mut StoreDevice::open(&store, false).unwrap(), &options).unwrap();
    let daemon = daemon(dir);
    let attach = Request::StoreAttach {
        path: store,
        accept_changed_origin: Vec::new(),
        same_origin: Vec::new(),
    };
    daemon.handle(attach).unwrap();
    let volume = Request::VolumeCreate {
        name: "web".into(),
        origin,
        store: None,
        policy: PolicyName::OriginFirst,
    };
    daemon.handle(volume).unwrap();
    daemon
}

fn map_a_snapshot(daemon: &Daemon) {
    let target = TakeTarget {
        volume: "web".into(),
        name: Some("a".into()),
    };
    let take = Request::SnapshotTake {
        targets: vec![target],
        priority: 0,
    };
    daemon.handle(take).unwrap();
    let snapshot = SnapshotName {
        volume: "web".into(),
        name: "a".into(),
        tag: None,
    };
    daemon.handle(Request::SnapshotMap { snapshot }).unwrap();
}

/// Stops when nobody has a device open: one that udev looks into would be handed over.
fn stop_alone(daemon: Daemon, dir: &Path) {
    let settled = std::process::Command::new("udevadm").arg("settle").status();
    assert!(settled.unwrap().success());
    daemon.stop();
    drop(daemon);
    let left = StateFile::open(&dir.join("state")).unwrap().get().devices;
    assert!(left.is_empty(), "it left {left:?}");
}

/// The driver has finished an ADD after csnapd gave it up, or was killed.
#[test]
fn a_device_whose_making_was_given_up_is_removed_and_no_other() {
    let control = Control::open().expect(NEEDS);
    let dir = tempfile::tempdir().unwrap();
    let state_of = || StateFile::open(&dir.path().join("state")).unwrap();
    let first = with_volume(dir.path());
    let key = state_of().get().devices[0].key();
    // What csnapd makes gets the free number, and is started.
    let is_there = |device: &DevInfo| match control.info(device.dev_id) {
        Ok(now) => (now.state, now.ublksrv_flags) == (state::DEAD, device.ublksrv_flags),
        Err(UblkError::NoDevice(_)) => false,
        Err(other) => panic!("{other}"),
    };
    // As those of another csnapd, which serves a copy of the store: just made, and
    // about to be started.
    let (made, served) = (new(&control, key.identity()), new(&control, key.identity()));
    let foreign = new(&control, 5);
    let server = CharDevice::open(served.dev_id, PROMPT).unwrap();
    map_a_snapshot(&first);
    stop_alone(first, dir.path());
    let others = || is_there(&made) && is_there(&served) && is_there(&foreign);
    assert!(others());

    let second = daemon(dir.path());
    stop_alone(second, dir.path());
    assert!(others(), "nothing is listed");

    control.delete(made.dev_id).unwrap();
    let given_up = || state_of().update(|s| s.list_device(ListedDevice::new(key, "web", None)));
    given_up().unwrap();
    let third = daemon(dir.path());
    stop_alone(third, dir.path());
    assert!(is_there(&served), "somebody has its server's end");

    drop(server);
    given_up().unwrap();
    let fourth = daemon(dir.path());
    // Its number is free once nothing refers to it, which may be after the removal.
    let began = Instant::now();
    while is_there(&served) {
        assert!(began.elapsed() < PROMPT, "it was not removed");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(is_there(&foreign));
    stop_alone(fourth, dir.path());
    control.delete(foreign.dev_id).unwrap();
}

/// What waits in a device was meant for an origin that is no more what it was.
#[test]
fn what_waits_is_never_written_over_an_origin_that_was_changed() {
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    let dir = tempfile::tempdir().unwrap();
    let first = with_volume(dir.path());
    let volume = |daemon: &Daemon| match daemon.handle(Request::VolumeShow { name: "web".into() }) {
        Ok(Answer::Volume(volume)) => volume,
        other => panic!("{other:?}"),
    };
    let attach = |daemon: &Daemon, accept: &[&str]| {
        let request = Request::StoreAttach {
            path: dir.path().join("store").to_str().unwrap().into(),
            accept_changed_origin: accept.iter().map(|&name| name.into()).collect(),
            same_origin: Vec::new(),
        };
        daemon.handle(request).unwrap();
    };
    let old = volume(&first).device.unwrap();
    let user = std::fs::File::options()
        .write(true)
        .custom_flags(libc::O_SYNC)
        .open(&old)
        .unwrap();
    first.stop();
    drop(first);
    let waits = std::thread::spawn(move || user.write_at(&[7; 4096], 8 << 20));
    std::thread::sleep(Duration::from_millis(300));
    let origin = std::fs::File::options()
        .read(true)
        .write(true)
        .open(dir.path().join("web.img"))
        .unwrap();
    origin.write_all_at(&[9; 4096], 0).unwrap();

    let second = daemon(dir.path());
    for _ in 0..2 {
        let problem = volume(&second).problem.unwrap();
        assert!(problem.message.contains("waits"), "{problem:?}");
        assert!(problem.next.contains("--accept-changed-origin web"));
        assert!(!waits.is_finished());
        attach(&second, &[]);
    }
    attach(&second, &["web"]);
    let error = waits.join().unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    let served = volume(&second);
    assert_eq!(served.state, VolumeState::Served);
    let mut seen = [1; 4096];
    let device = std::fs::File::open(served.device.unwrap()).unwrap();
    for (at, expected) in [(0, 9), (8 << 20, 0)] {
        device.read_exact_at(&mut seen, at).unwrap();
        assert_eq!(seen, [expected; 4096]);
        origin.read_exact_at(&mut seen, at).unwrap();
        assert_eq!(seen, [expected; 4096]);
    }
    drop(device);
    second.stop();
}

/// Writes for which a full store has no room fail, so that they hold no stop up.
#[test]
fn a_full_store_where_snapshots_come_first_holds_no_stop_up() {
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    for orderly in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let daemon = with_volume(dir.path());
        let policy = Request::VolumeSet {
            name: "web".into(),
            policy: Some(PolicyName::SnapshotFirst),
            full_wait_s: None,
        };
        daemon.handle(policy).unwrap();
        map_a_snapshot(&daemon);
        let device = match daemon.handle(Request::VolumeShow { name: "web".into() }) {
            Ok(Answer::Volume(volume)) => volume.device.unwrap(),
            other => panic!("{other:?}"),
        };
        let (over, refused) = (AtomicBool::new(false), AtomicU64::new(0));
        let write = |lane: u64| {
            let mut options = std::fs::File::options();
            let options = options.write(true).custom_flags(libc::O_SYNC);
            let Ok(file) = options.open(&device) else {
                return;
            };
            while !over.load(Ordering::Relaxed) {
                for piece in (lane..256).step_by(8) {
                    let written = file.write_at(&[1; 65536], piece << 16);
                    refused.fetch_add(u64::from(written.is_err()), Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            let writers = [0, 1, 2, 3, 4, 5, 6, 7].map(|lane| scope.spawn(move || write(lane)));
            let began = Instant::now();
            while refused.load(Ordering::Relaxed) < 100 {
                assert!(began.elapsed() < Duration::from_secs(60), "it never filled");
                std::thread::sleep(Duration::from_millis(10));
            }
            let began = Instant::now();
            if orderly {
                daemon.stop();
            } else {
                let store = dir.path().join("store").to_str().unwrap().to_owned();
                let force = true;
                let detach = Request::StoreDetach { store, force };
                daemon.handle(detach).unwrap();
            }
            let took = began.elapsed();
            over.store(true, Ordering::Relaxed);
            println!("orderly {orderly}: {took:?}");
            drop(daemon);
            // What the writers asked for meanwhile waits for the next.
            let next = orderly.then(|| self::daemon(dir.path()));
            for writer in writers {
                writer.join().unwrap();
            }
            if let Some(next) = next {
                next.stop();
            }
            assert!(took < PROMPT, "{took:?}");
        });
    }
}
