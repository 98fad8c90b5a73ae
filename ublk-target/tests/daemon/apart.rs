//! Stores and origins that share storage: each would write into the other.

use ublk_target::daemon::origin::{self, Surroundings};
use ublk_target::device::{Identity, OriginDevice};

use super::loops::{Loop, Mounted, partitioned, skip};
use super::*;

/// A loop device over one of the world's files.
fn loop_over(world: &World, file: &str) -> Option<Loop> {
    let made = Loop::new(&world.text(file));
    if made.is_none() {
        skip("no loop device can be made here");
    }
    made
}

/// It is refused as in use or shared, and says with what.
fn refused<T: std::fmt::Debug>(result: Result<T, Failure>, with: &str) {
    let failure = result.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Busy, "{failure}");
    assert!(failure.message.contains(with), "{failure}");
}

#[test]
fn a_store_is_no_origin_of_its_own() {
    let world = World::new();
    let store = world.store("store");
    world.attach(&store, &[]).unwrap();
    refused(world.create("web", &store, &store), "in use");
    let Some(device) = loop_over(&world, "store") else {
        return;
    };
    refused(world.create("web", &device.0, &store), "share storage");
    let origin = world.file("web.img", 4 * MIB);
    world.create("web", &origin, &store).unwrap();
    assert_eq!(world.volume("web").state, VolumeState::Served);
}

#[test]
fn what_is_an_origin_already_is_neither_a_store_nor_another_origin() {
    let world = World::new();
    let store = world.store("store");
    world.attach(&store, &[]).unwrap();
    let origin = world.store("other");
    world.create("web", &origin, &store).unwrap();
    let Some(device) = loop_over(&world, "other") else {
        return;
    };
    refused(world.attach(&device.0, &[]), "the origin of volume web");
    let same = world.create("twin", &device.0, &store);
    refused(same, "the origin of volume web");
    assert_eq!(world.status().stores.len(), 1);
    assert!(world.state().get().stores.len() == 1, "it is not listed");
}

#[test]
fn a_store_on_a_partition_of_its_origin_is_refused() {
    let world = World::new();
    let Some((disk, partition)) = partitioned(&world.file("disk.img", 64 * MIB)) else {
        skip("no loop device with partitions can be made here");
        return;
    };
    world.format(&partition);
    world.attach(&partition, &[]).unwrap();
    refused(world.create("web", &disk.0, &partition), &disk.0);
    world.detach(&partition).unwrap();

    // And the other way round: the disk is an origin of another store already.
    let store = world.store("store");
    world.attach(&store, &[]).unwrap();
    world.create("web", &disk.0, &store).unwrap();
    refused(world.attach(&partition, &[]), &partition);
}

#[test]
fn an_origin_that_became_its_store_is_not_served() {
    let world = World::new();
    let store = world.store("store");
    world.attach(&store, &[]).unwrap();
    let link = world.path("link");
    std::os::unix::fs::symlink(world.file("web.img", 4 * MIB), &link).unwrap();
    world.create("web", &world.text("link"), &store).unwrap();
    assert_eq!(
        world.volume("web").origin,
        world.text("link"),
        "a link stays one"
    );
    world.take(&[("web", Some("a"))]).unwrap();
    world.detach(&store).unwrap();
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&store, &link).unwrap();
    world.attach(&store, &[]).unwrap();
    assert_eq!(world.volume("web").state, VolumeState::OriginMissing);
    let snapshots = world.snapshots("web");
    assert_eq!(snapshots[0].state, SnapshotStateName::Live);
}

/// Where it is noted that snapshots are invalid must stay writable when nothing may be
/// written to their origin yet.
#[test]
fn an_origin_below_the_daemons_own_state_is_refused() {
    let mut world = World::without_daemon();
    let origin = world.file("web.img", 16 * MIB);
    let Some(device) = loop_over(&world, "web.img") else {
        return;
    };
    let Some(mounted) = Mounted::new(&device.0, &world.text("state")) else {
        return skip("no file system can be mounted here");
    };
    world.start();
    let store = world.store("store");
    world.attach(&store, &[]).unwrap();
    for path in [&device.0, &origin] {
        let refused = world.create("web", path, &store);
        assert_eq!(code(refused), ErrorCode::Busy, "{path}");
    }
    assert_eq!(world.status().volumes_served, 0);

    // Those were refused as in use. Where that is not seen, this is.
    let file = OriginDevice::open(&origin, false).unwrap();
    let apart = |state_dir: &Path| {
        let around = Surroundings {
            store: Path::new(&store),
            store_identity: Identity::of(Path::new(&store)).unwrap(),
            state_dir,
            until: std::time::Instant::now(),
        };
        origin::apart(&file, &around)
    };
    let refused = apart(&world.path("state")).unwrap_err();
    let said = &refused.problem.message;
    assert!(
        said.contains("state directory") && said.contains(&origin),
        "{said}"
    );
    assert!(apart(world.dir.path()).is_ok(), "it lies elsewhere");
    world.stop();
    drop(mounted);
}
