//! Origins written while csnapd did not serve them: what the fingerprint tells and, of
//! block devices, the kernel's count.

use super::loops::{Loop, skip};
use super::*;

/// Where no fingerprint looks.
const MIDDLE: u64 = 2 * MIB;

/// A world whose volume `web` is a block device with a snapshot.
struct Rig {
    world: World,
    store: String,
    device: Loop,
    _memory: tempfile::TempDir,
}

impl Rig {
    fn new() -> Option<Self> {
        let world = World::new();
        // csnapd counts its writes in memory only.
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        std::os::unix::fs::symlink(memory.path(), world.path("run")).unwrap();
        let store = world.store("store");
        world.attach(&store, &[]).unwrap();
        let Some(device) = Loop::new(&world.file("web.img", 8 * MIB)) else {
            skip("no loop device can be made here");
            return None;
        };
        world.create("web", &device.0, &store).unwrap();
        world.take(&[("web", Some("a"))]).unwrap();
        Some(Self {
            world,
            store,
            device,
            _memory: memory,
        })
    }

    /// Writes to the device as anybody could.
    fn write(&self, at: u64) {
        let file = std::fs::File::options().write(true).open(&self.device.0);
        let file = file.unwrap();
        file.write_all_at(&[7; 4096], at).unwrap();
        file.sync_all().unwrap();
    }

    fn refused(&self) {
        let volume = self.world.volume("web");
        assert_eq!(volume.state, VolumeState::Refused);
        let problem = volume.problem.unwrap();
        let said = problem.message.contains("at least 4096 bytes were written");
        assert!(said, "{}", problem.message);
        assert!(problem.next.contains("--accept-changed-origin web"));
        let snapshots = self.world.snapshots("web");
        assert_eq!(snapshots[0].state, SnapshotStateName::Live, "not yet lost");
    }

    fn accept(&mut self) {
        self.world.attach(&self.store, &["web"]).unwrap();
        self.served();
        let snapshots = self.world.snapshots("web");
        assert_eq!(snapshots[0].state, SnapshotStateName::Dropped);
        self.world.take(&[("web", Some("b"))]).unwrap();
        self.world.restart();
        self.served();
    }

    /// The next csnapd has another state directory; the other one's is kept for the
    /// one after it.
    fn change_hands(&self) {
        let [state, other, between] =
            ["state", "state-b", "state-c"].map(|name| self.world.path(name));
        std::fs::rename(&state, &between).unwrap();
        if !other.exists() {
            std::fs::create_dir(&other).unwrap();
        }
        std::fs::rename(&other, &state).unwrap();
        std::fs::rename(&between, &other).unwrap();
    }

    fn attach(&self) {
        self.world.attach(&self.store, &[]).unwrap();
        self.served();
    }

    fn served(&self) {
        let volume = self.world.volume("web");
        assert_eq!(volume.state, VolumeState::Served, "{volume:?}");
    }
}

#[test]
fn a_write_after_an_orderly_stop_is_noticed_wherever_it_is() {
    let Some(mut rig) = Rig::new() else { return };
    rig.world.restart();
    rig.served();
    rig.world.stop();
    rig.write(MIDDLE);
    rig.world.start();
    rig.refused();
    rig.accept();
}

#[test]
fn a_write_after_a_kill_is_noticed_and_stays_noticed() {
    let Some(mut rig) = Rig::new() else { return };
    rig.world.kill();
    rig.world.start();
    rig.served();
    rig.world.kill();
    rig.write(MIDDLE);
    for _ in 0..2 {
        rig.world.start();
        rig.refused();
        rig.world.attach(&rig.store, &[]).unwrap();
        rig.refused();
        rig.world.stop();
    }
    // Nor does a new boot forget it, which counts anew.
    rig.of_another_boot();
    rig.world.start();
    rig.refused();
    rig.accept();
}

impl Rig {
    fn of_another_boot(&self) {
        let state = self.world.state();
        let boot = |state: &mut ublk_target::daemon::state::State| {
            state.origins[0].boot = "another".into();
        };
        state.update(boot).unwrap();
    }
}

#[test]
fn a_csnapd_with_a_state_directory_of_its_own_is_no_stranger() {
    let Some(mut rig) = Rig::new() else { return };
    rig.world.restart();
    rig.served();
    // Each writes where no fingerprint looks, as its clients may.
    rig.world.stop();
    rig.change_hands();
    rig.world.start();
    rig.attach();
    rig.write(MIDDLE);
    rig.world.stop();
    rig.change_hands();
    rig.world.start();
    rig.served();
    // Killed, one after the other, in one boot.
    rig.world.kill();
    rig.change_hands();
    rig.world.start();
    rig.served();
    rig.write(MIDDLE);
    rig.world.kill();
    rig.change_hands();
    rig.world.start();
    rig.served();
    // And still each of them notices who is one.
    rig.world.kill();
    rig.write(MIDDLE);
    rig.world.start();
    rig.refused();
}

#[test]
fn a_tally_that_is_not_listed_is_not_made() {
    let Some(rig) = Rig::new() else { return };
    let tallies = || std::fs::read_dir(rig.world.path("run")).unwrap().count();
    assert_eq!(tallies(), 1);
    let Some(second) = Loop::new(&rig.world.file("db.img", 8 * MIB)) else {
        return skip("no second loop device can be made here");
    };
    // The state file cannot be replaced.
    let blocked = rig.world.path("state").join("state.json.new");
    std::fs::create_dir(&blocked).unwrap();
    rig.world.create("db", &second.0, &rig.store).unwrap_err();
    assert_eq!(tallies(), 1);
    std::fs::remove_dir(&blocked).unwrap();
}

#[test]
fn a_disk_that_calls_itself_otherwise_keeps_its_snapshots_if_a_person_says_so() {
    let mut world = World::new();
    let store = world.store("store");
    world.attach(&store, &[]).unwrap();
    let made = loops::partitioned(&world.file("disk.img", 64 * MIB));
    let Some((_disk, partition)) = made else {
        return skip("no partitions of loop devices here");
    };
    world.create("web", &partition, &store).unwrap();
    world.take(&[("web", Some("a"))]).unwrap();
    world.kill();
    let otherwise = |state: &mut ublk_target::daemon::state::State| {
        let plate = serde_json::json!({ "partition": "7" });
        state.origins[0].plate = serde_json::from_value(plate).unwrap();
    };
    world.state().update(otherwise).unwrap();
    world.start();
    let volume = world.volume("web");
    assert_eq!(volume.state, VolumeState::Refused);
    let problem = volume.problem.unwrap();
    assert!(problem.message.contains("another disk"), "{problem:?}");
    assert!(problem.next.contains("--same-origin web"), "{problem:?}");
    let attach = |world: &World, name: &str| {
        world.ask(Request::StoreAttach {
            path: store.clone(),
            accept_changed_origin: Vec::new(),
            same_origin: vec![name.to_owned()],
        })
    };
    attach(&world, "db").unwrap();
    assert_eq!(world.volume("web").state, VolumeState::Refused);
    attach(&world, "web").unwrap();
    assert_eq!(world.volume("web").state, VolumeState::Served);
    assert_eq!(world.snapshots("web")[0].state, SnapshotStateName::Live);
    // And is known by its new name.
    world.kill();
    world.start();
    assert_eq!(world.volume("web").state, VolumeState::Served);
}

#[test]
fn what_cannot_be_known_is_no_reason_to_refuse() {
    let Some(mut rig) = Rig::new() else { return };
    // A loop device may have counted another file in an earlier boot or life.
    rig.world.kill();
    rig.of_another_boot();
    rig.write(MIDDLE);
    rig.world.start();
    rig.served();
    // The memory is gone, as after a new boot.
    rig.world.kill();
    for entry in std::fs::read_dir(rig.world.path("run")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    rig.write(MIDDLE);
    rig.world.start();
    rig.served();
}

#[test]
fn one_tally_is_kept_for_an_origin_and_none_for_one_that_is_gone() {
    let Some(mut rig) = Rig::new() else { return };
    let tallies = |world: &World| std::fs::read_dir(world.path("run")).unwrap().count();
    assert_eq!(tallies(&rig.world), 1);
    rig.world.kill();
    rig.world.start();
    assert_eq!(tallies(&rig.world), 1);
    rig.world.stop();
    assert_eq!(tallies(&rig.world), 0);
    rig.world.start();
    assert_eq!(rig.world.state().get().origins.len(), 1);
    rig.world
        .ask(Request::VolumeDelete {
            name: "web".into(),
            uuid: None,
            force: false,
        })
        .unwrap();
    assert_eq!(tallies(&rig.world), 0);
    assert!(rig.world.state().get().origins.is_empty());
}

#[test]
fn an_origin_changed_behind_our_back_is_refused_until_accepted() {
    let mut world = World::new();
    let store = world.with_volume("store", "web");
    world.with_volume("other", "db");
    world.take(&[("web", Some("a"))]).unwrap();
    world.stop();
    world.scribble("web.img", 4096);
    world.scribble("db.img", 4096);
    world.start();
    let volume = world.volume("web");
    assert_eq!(volume.state, VolumeState::Refused);
    assert!(
        volume
            .problem
            .unwrap()
            .next
            .contains("--accept-changed-origin web")
    );
    assert_eq!(
        world.volume("db").state,
        VolumeState::Served,
        "no snapshot depends on it"
    );
    assert_eq!(code(world.take(&[("web", None)])), ErrorCode::Busy);

    world.restart();
    assert_eq!(
        world.volume("web").state,
        VolumeState::Refused,
        "a restart changes nothing"
    );
    world.attach(&store, &[]).unwrap();
    assert_eq!(
        world.volume("web").state,
        VolumeState::Refused,
        "nor does trying again"
    );
    world.attach(&store, &["web"]).unwrap();
    assert_eq!(world.volume("web").state, VolumeState::Served);
    assert_eq!(world.snapshots("web")[0].state, SnapshotStateName::Dropped);
    let map = world.ask(Request::SnapshotMap {
        snapshot: name("web@a"),
    });
    assert_eq!(
        code(map),
        ErrorCode::Error,
        "a dropped snapshot cannot be read"
    );
    world.restart();
    assert_eq!(world.volume("web").state, VolumeState::Served);
}
