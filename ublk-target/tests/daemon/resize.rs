//! Origins that change their size, and volumes that follow.

use super::*;

#[test]
fn a_volume_grows_as_far_as_its_origin_and_never_shrinks() {
    let mut world = World::new();
    world.with_volume("store", "web");
    assert_eq!(code(world.resize("nobody", None)), ErrorCode::NotFound);
    world.resize("web", None).unwrap();
    world.set_len("web.img", 9 * MIB);
    assert_eq!(world.volume("web").size, 4 * MIB, "nobody asked");
    for (size, why) in [
        (10 * MIB, "extend it first"),
        (MIB, "never shrinks"),
        (5 * MIB + 1, "multiple"),
    ] {
        let refused = world.resize("web", Some(size)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Usage, "{refused}");
        assert!(refused.message.contains(why), "{refused}");
    }
    assert_eq!(world.volume("web").size, 4 * MIB);
    world.resize("web", Some(6 * MIB)).unwrap();
    assert_eq!(world.volume("web").size, 6 * MIB);
    world.resize("web", None).unwrap();
    world.resize("web", None).unwrap();
    assert_eq!(world.volume("web").size, 9 * MIB);
    assert_eq!(world.events("volume-resized").len(), 2);
    world.stop();
}

#[test]
fn an_origin_that_shrank_is_refused_and_one_that_grew_is_not() {
    let mut world = World::new();
    world.with_volume("store", "web");
    world.take(&[("web", Some("a"))]).unwrap();
    world.stop();
    world.set_len("web.img", 2 * MIB);
    world.start();
    let volume = world.volume("web");
    assert_eq!(volume.state, VolumeState::Refused);
    let problem = volume.problem.unwrap();
    let size = (2 * MIB).to_string();
    assert!(problem.message.contains(&size), "{problem:?}");
    assert_eq!(code(world.resize("web", None)), ErrorCode::Busy);
    world.stop();
    world.set_len("web.img", 8 * MIB);
    world.start();
    let volume = world.volume("web");
    assert_eq!((volume.state, volume.size), (VolumeState::Served, 4 * MIB));
    world.resize("web", None).unwrap();
    assert_eq!(world.volume("web").size, 8 * MIB);
    world.stop();
    // The fingerprint of the orderly stop is of the whole grown volume.
    world.start();
    let volume = world.volume("web");
    assert_eq!((volume.state, volume.size), (VolumeState::Served, 8 * MIB));
    assert_eq!(world.snapshots("web")[0].size, 4 * MIB);
    assert_eq!(
        Path::new(&world.text("store")).metadata().unwrap().len(),
        16 * MIB
    );
}
