//! Origins that csnapd lets go of again because they cannot be served: the next
//! attach must see what was done to them meanwhile.

use super::loops::{Loop, skip};
use super::*;

/// Most devices that csnapd can have attached.
const DEVICES: usize = 256;

fn delete(world: &World, name: &str) {
    let request = Request::VolumeDelete {
        name: name.into(),
        uuid: None,
        force: false,
    };
    world.ask(request).unwrap();
}

/// `web` is refused, and for this reason.
fn refused(world: &World, why: &str) {
    let volume = world.volume("web");
    assert_eq!(volume.state, VolumeState::Refused);
    let message = volume.problem.unwrap().message;
    assert!(message.contains(why), "{message}");
}

#[test]
fn an_origin_that_finds_no_place_is_still_watched() {
    let world = World::new();
    let store = world.with_volume("store", "web");
    world.take(&[("web", Some("a"))]).unwrap();
    world.detach(&store).unwrap();
    let other = world.store("other");
    world.attach(&other, &[]).unwrap();
    // Both stores have a place, and so has every volume but `web`.
    for n in 2..DEVICES {
        let name = format!("v{n}");
        let origin = world.file(&format!("{name}.img"), 4096);
        world.create(&name, &origin, &other).unwrap();
    }
    world.attach(&store, &[]).unwrap();
    refused(&world, "no more can be");
    world.scribble("web.img", 4096);
    delete(&world, "v2");
    world.attach(&store, &[]).unwrap();
    refused(&world, "was changed without csnap");
}

#[test]
fn an_origin_that_cannot_be_exported_is_still_watched() {
    let world = World::new();
    let store = world.store("store");
    world.attach(&store, &[]).unwrap();
    let Some(device) = Loop::new(&world.file("web.img", 4 * MIB + 512)) else {
        skip("no loop device can be made here");
        return;
    };
    world.create("web", &device.0, &store).unwrap();
    world.take(&[("web", Some("a"))]).unwrap();
    world.detach(&store).unwrap();

    // Blocks so large that the volume does not end with one.
    world.set_len("web.img", 4 * MIB + 4096);
    device.set(&["--set-capacity"]).unwrap();
    device.set(&["--sector-size", "4096"]).unwrap();
    world.attach(&store, &[]).unwrap();
    refused(&world, "4194816");
    device.set(&["--sector-size", "512"]).unwrap();
    world.attach(&store, &[]).unwrap();
    let state = world.volume("web").state;
    assert_eq!(state, VolumeState::Served, "nobody changed it");
    world.detach(&store).unwrap();

    device.set(&["--sector-size", "4096"]).unwrap();
    world.attach(&store, &[]).unwrap();
    refused(&world, "4194816");
    world.scribble("web.img", 4096);
    device.set(&["--sector-size", "512"]).unwrap();
    world.attach(&store, &[]).unwrap();
    refused(&world, "was changed without csnap");
}
