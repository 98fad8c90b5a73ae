//! The daemon over real files and real I/O threads, spoken to as the control
//! socket does: what is attached, refused, dropped and remembered.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod apart;
mod extend;
mod let_go;
mod loops;
mod moved;
mod resize;
mod scrub;
mod status;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snapstore::create::{CreateOptions, create};
use snapstore::engine::Config;
use ublk_target::control::protocol::{
    Answer, ErrorCode, Failure, Request, SnapshotName, TakeTarget,
};
use ublk_target::control::server::Backend;
use ublk_target::control::views::{
    EventView, PolicyName, SnapshotStateName, SnapshotView, StatusView, StoreState, VolumeState,
    VolumeView,
};
use ublk_target::daemon::devices::DeviceOptions;
use ublk_target::daemon::front::Wish;
use ublk_target::daemon::state::StateFile;
use ublk_target::daemon::{Daemon, Settings};
use ublk_target::device::StoreDevice;
use ublk_target::runtime::{Runtime, RuntimeConfig};
use ublk_target::ublk::ZeroCopy;
use uuid::Uuid;

const MIB: u64 = 1 << 20;

/// A directory with a daemon's state, stores and origins. There is one at a time: a child that
/// another test starts keeps all open files and their locks until it is the program it shall be.
struct World {
    daemon: Option<Daemon>,
    dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl World {
    fn new() -> Self {
        let mut world = Self::without_daemon();
        world.start();
        world
    }

    fn without_daemon() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        Self {
            daemon: None,
            dir,
            _turn: turn,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn state(&self) -> StateFile {
        StateFile::open(&self.path("state")).unwrap()
    }

    fn start(&mut self) {
        let config = RuntimeConfig {
            lanes: 1,
            ..RuntimeConfig::default()
        };
        let runtime = Arc::new(Runtime::start(config).unwrap());
        let settings = Settings {
            nbd_socket: self.path("nbd"),
            engine: Config::default(),
            frontend: Wish::Nbd,
            devices: DeviceOptions {
                zero_copy: ZeroCopy::Auto,
                queue_depth: 16,
                spread: ublk_target::runtime::Spread::Auto,
                link_dir: self.path("links"),
                run_dir: self.path("run"),
            },
            safety: status::SAFETY,
        };
        let daemon = Daemon::new(settings, runtime, Arc::new(self.state())).unwrap();
        daemon.attach_listed();
        self.daemon = Some(daemon);
    }

    fn stop(&mut self) {
        self.daemon.take().unwrap().stop();
    }

    /// As if it was killed: nothing is put in order.
    fn kill(&mut self) {
        drop(self.daemon.take().unwrap());
    }

    fn restart(&mut self) {
        self.stop();
        self.start();
    }

    fn file(&self, name: &str, size: u64) -> String {
        std::fs::File::create(self.path(name))
            .unwrap()
            .set_len(size)
            .unwrap();
        self.text(name)
    }

    fn store(&self, name: &str) -> String {
        let path = self.file(name, 16 * MIB);
        self.format(&path);
        path
    }

    /// Makes an empty store of what is at `path`.
    fn format(&self, path: &str) {
        let options = CreateOptions {
            uuid: *Uuid::new_v4().as_bytes(),
            chunk_size: 16384,
            checksum: snapstore::Checksum::default(),
            created_ms: 0,
            journal_blocks: None,
        };
        create(&mut StoreDevice::open(path, false).unwrap(), &options).unwrap();
    }

    /// A store that is attached, with a volume on a new origin of 4 MiB.
    fn with_volume(&self, store: &str, volume: &str) -> String {
        let path = self.store(store);
        self.attach(&path, &[]).unwrap();
        let origin = self.file(&format!("{volume}.img"), 4 * MIB);
        self.create(volume, &origin, &path).unwrap();
        path
    }

    fn ask(&self, request: Request) -> Result<Answer, Failure> {
        self.daemon.as_ref().unwrap().handle(request)
    }

    fn attach(&self, path: &str, accept: &[&str]) -> Result<Answer, Failure> {
        let accept_changed_origin = accept.iter().map(|&name| name.to_owned()).collect();
        self.ask(Request::StoreAttach {
            path: path.to_owned(),
            accept_changed_origin,
            same_origin: Vec::new(),
        })
    }

    fn detach(&self, store: &str) -> Result<Answer, Failure> {
        self.ask(Request::StoreDetach {
            store: store.to_owned(),
            force: false,
        })
    }

    fn create(&self, name: &str, origin: &str, store: &str) -> Result<Answer, Failure> {
        self.ask(Request::VolumeCreate {
            name: name.to_owned(),
            origin: origin.to_owned(),
            store: Some(store.to_owned()),
            policy: PolicyName::OriginFirst,
        })
    }

    fn resize(&self, name: &str, size: Option<u64>) -> Result<Answer, Failure> {
        let name = name.to_owned();
        self.ask(Request::VolumeResize { name, size })
    }

    fn take(&self, targets: &[(&str, Option<&str>)]) -> Result<Vec<String>, Failure> {
        let target = |&(volume, name): &(&str, Option<&str>)| TakeTarget {
            volume: volume.to_owned(),
            name: name.map(str::to_owned),
        };
        let targets = targets.iter().map(target).collect();
        match self.ask(Request::SnapshotTake {
            targets,
            priority: 0,
        })? {
            Answer::Taken(taken) => Ok(taken.snapshots),
            other => panic!("{other:?}"),
        }
    }

    fn volume(&self, name: &str) -> VolumeView {
        match self
            .ask(Request::VolumeShow {
                name: name.to_owned(),
            })
            .unwrap()
        {
            Answer::Volume(volume) => volume,
            other => panic!("{other:?}"),
        }
    }

    fn snapshots(&self, volume: &str) -> Vec<SnapshotView> {
        let volume = Some(volume.to_owned());
        match self
            .ask(Request::SnapshotList {
                volume,
                after: None,
            })
            .unwrap()
        {
            Answer::Snapshots { items, next: None } => items,
            other => panic!("{other:?}"),
        }
    }

    fn status(&self) -> StatusView {
        match self.ask(Request::Status {}).unwrap() {
            Answer::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    fn events(&self, kind: &str) -> Vec<EventView> {
        match self
            .ask(Request::Events {
                since: 0,
                limit: 1000,
                wait_ms: 0,
            })
            .unwrap()
        {
            Answer::Events { items, .. } => items
                .into_iter()
                .filter(|event| event.kind == kind)
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn set_len(&self, name: &str, size: u64) {
        let file = std::fs::File::options().write(true).open(self.path(name));
        file.unwrap().set_len(size).unwrap();
    }

    fn scribble(&self, name: &str, at: u64) {
        let file = std::fs::File::options()
            .write(true)
            .open(self.path(name))
            .unwrap();
        file.write_all_at(b"changed", at).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }
}

fn name(text: &str) -> SnapshotName {
    let (volume, name) = text.split_once('@').unwrap();
    SnapshotName {
        volume: volume.to_owned(),
        name: name.to_owned(),
        tag: None,
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, Failure>) -> ErrorCode {
    result.unwrap_err().code
}

#[test]
fn a_snapshot_lives_its_life_over_restarts() {
    let mut world = World::new();
    let store = world.with_volume("store", "web");
    assert_eq!(world.take(&[("web", Some("a"))]).unwrap(), ["web@a"]);
    let made_up = world.take(&[("web", None)]).unwrap().remove(0);
    assert_eq!(
        code(world.take(&[("web", Some("a"))])),
        ErrorCode::Busy,
        "the name is taken"
    );
    assert_eq!(code(world.take(&[("web", Some("-"))])), ErrorCode::Usage);
    let map = world.ask(Request::SnapshotMap {
        snapshot: name("web@a"),
    });
    assert!(matches!(map, Ok(Answer::Snapshot(s)) if s.export.as_deref() == Some("web@a")));

    world.restart();
    assert_eq!(world.volume("web").state, VolumeState::Served);
    assert_eq!(world.status().mapped, 1, "mapped again after a restart");
    let delete = |text: &str, tag| {
        let snapshots = vec![SnapshotName { tag, ..name(text) }];
        let force = false;
        world.ask(Request::SnapshotDelete { snapshots, force })
    };
    assert_eq!(code(delete("web@a", None)), ErrorCode::Busy);
    let rename = Request::SnapshotRename {
        snapshot: name("web@a"),
        to: "b".into(),
    };
    assert_eq!(code(world.ask(rename.clone())), ErrorCode::Busy);
    world
        .ask(Request::SnapshotUnmap {
            snapshot: name("web@a"),
            force: false,
        })
        .unwrap();
    world.ask(rename).unwrap();
    assert_eq!(code(delete("web@a", None)), ErrorCode::NotFound);
    assert_eq!(
        code(delete("web@b", Some(999))),
        ErrorCode::NotFound,
        "another tag"
    );
    delete("web@b", None).unwrap();
    let left = world.snapshots("web");
    assert_eq!(
        left.iter()
            .map(|s| format!("web@{}", s.name))
            .collect::<Vec<_>>(),
        [made_up]
    );

    world
        .ask(Request::VolumeDelete {
            name: "web".into(),
            uuid: None,
            force: false,
        })
        .unwrap();
    assert_eq!(world.status().volumes_served, 0);
    world.detach(&store).unwrap();
    assert!(world.state().get().stores.is_empty());
    StoreDevice::open(&store, false).expect("a detached store is free");
    StoreDevice::open(world.text("web.img"), false).expect("and so is the origin");
}

#[test]
fn what_is_missing_is_reported_and_the_rest_is_served() {
    let mut world = World::new();
    let store = world.with_volume("store", "web");
    let origin = world.file("db.img", 4 * MIB);
    world.create("db", &origin, &store).unwrap();
    let gone = world.store("gone");
    world.attach(&gone, &[]).unwrap();
    world.stop();
    std::fs::rename(world.path("web.img"), world.path("away.img")).unwrap();
    std::fs::rename(&gone, world.path("away")).unwrap();
    world.start();
    assert_eq!(world.volume("web").state, VolumeState::OriginMissing);
    assert_eq!(world.volume("db").state, VolumeState::Served);
    let status = world.status();
    assert_eq!((status.volumes_served, status.volumes_not_served), (1, 1));
    let missing: Vec<_> = status
        .stores
        .iter()
        .filter(|s| s.state == StoreState::Missing)
        .collect();
    assert_eq!(missing.iter().map(|s| &s.path).collect::<Vec<_>>(), [&gone]);
    assert_eq!(world.events("store-missing").len(), 1);
    assert_eq!(world.events("volume-not-served").len(), 1);

    std::fs::rename(world.path("away.img"), world.path("web.img")).unwrap();
    world.attach(&store, &[]).unwrap();
    assert_eq!(world.volume("web").state, VolumeState::Served);
    world
        .detach(&gone)
        .expect("a missing store can be taken off the list");
    assert_eq!(world.state().get().stores.len(), 1);
}

#[test]
fn snapshots_recorded_as_invalid_are_dropped_before_anything_is_served() {
    let mut world = World::new();
    let path = world.with_volume("store", "web");
    world.take(&[("web", Some("a"))]).unwrap();
    world.stop();
    let state = world.state();
    let uuid = state.get().stores[0].uuid;
    // As the handler does when the store cannot be written any more.
    state.update(|state| state.invalidate(uuid, [1])).unwrap();
    drop(state);
    world.start();
    assert_eq!(world.snapshots("web")[0].state, SnapshotStateName::Dropped);
    assert!(
        world.snapshots("web")[0]
            .dropped
            .as_ref()
            .unwrap()
            .contains("store failed")
    );
    assert!(
        world.state().get().invalid.is_empty(),
        "the record has done its work"
    );
    world.take(&[("web", Some("b"))]).unwrap();
    world.restart();
    assert_eq!(world.snapshots("web")[1].state, SnapshotStateName::Live);
    drop(path);
}

#[test]
fn files_under_a_loop_device_are_not_used() {
    let world = World::new();
    let store = world.store("store");
    world.attach(&store, &[]).unwrap();
    let origin = world.file("web.img", 4 * MIB);
    let Some(device) = loops::Loop::new(&origin) else {
        return loops::skip("no loop device can be made here");
    };
    let refused = world.create("web", &origin, &store);
    drop(device);
    assert_eq!(code(refused), ErrorCode::Busy, "it could be written twice");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while world.create("web", &origin, &store).is_err() {
        assert!(std::time::Instant::now() < until, "still refused");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn devices_are_never_shared() {
    let world = World::new();
    let store = world.with_volume("store", "web");
    let web = world.text("web.img");
    assert_eq!(
        code(world.create("twin", &web, &store)),
        ErrorCode::Busy,
        "one origin, two volumes"
    );
    assert_eq!(
        code(world.create("self", &store, &store)),
        ErrorCode::Busy,
        "a store on itself"
    );
    assert_eq!(
        code(world.create("web", &web, &store)),
        ErrorCode::Busy,
        "the name is taken"
    );
    assert_eq!(
        code(world.create("a b", &world.file("x", MIB), &store)),
        ErrorCode::Usage
    );
    assert_eq!(
        code(world.create("x", "/nonexistent", &store)),
        ErrorCode::NotFound
    );
    assert_eq!(
        code(world.create("x", "/dev/null", &store)),
        ErrorCode::Usage
    );
    std::fs::copy(&store, world.path("copy")).unwrap();
    let copy = world.attach(&world.text("copy"), &[]);
    assert_eq!(code(copy), ErrorCode::Busy, "a copy of an attached store");
    assert_eq!(
        code(world.attach(&world.file("empty", MIB), &[])),
        ErrorCode::Usage
    );
    assert_eq!(code(world.attach("/nonexistent", &[])), ErrorCode::NotFound);
    assert_eq!(world.status().volumes_served, 1, "all that changed nothing");
}

#[test]
fn takes_are_of_one_store_and_atomic() {
    let world = World::new();
    let store = world.with_volume("store", "web");
    world
        .create("db", &world.file("db.img", 4 * MIB), &store)
        .unwrap();
    world.with_volume("other", "mail");
    let names = world.take(&[("web", None), ("db", Some("x"))]).unwrap();
    assert_eq!(names[1], "db@x");
    assert_eq!(world.snapshots("web")[0].tag, world.snapshots("db")[0].tag);
    assert_eq!(
        code(world.take(&[("web", None), ("mail", None)])),
        ErrorCode::Usage
    );
    assert_eq!(
        code(world.take(&[("web", Some("p")), ("web", Some("q"))])),
        ErrorCode::Usage
    );
    assert_eq!(code(world.take(&[])), ErrorCode::Usage);
    assert_eq!(code(world.take(&[("nope", None)])), ErrorCode::NotFound);
    assert_eq!(
        code(world.take(&[("web", Some("n")), ("db", Some("x"))])),
        ErrorCode::Busy
    );
    assert_eq!(
        world.snapshots("web").len(),
        1,
        "a group that fails leaves nothing"
    );
}
