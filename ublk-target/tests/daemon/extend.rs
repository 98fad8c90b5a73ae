//! A store whose device grows while it is served.

use super::*;
use ublk_target::control::views::StoreView;

impl World {
    fn extend(&self, store: &str, size: Option<u64>) -> Result<StoreView, Failure> {
        let store = store.to_owned();
        match self.ask(Request::StoreExtend { store, size })? {
            Answer::Store(store) => Ok(store),
            other => panic!("{other:?}"),
        }
    }

    fn len(&self, name: &str) -> u64 {
        self.path(name).metadata().unwrap().len()
    }
}

#[test]
fn a_store_grows_with_its_file_and_again_by_a_size() {
    let mut world = World::new();
    let store = world.with_volume("store", "web");
    world.take(&[("web", Some("a"))]).unwrap();
    assert_eq!(code(world.extend("nothing", None)), ErrorCode::NotFound);
    let refused = world.extend(&store, None).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Usage);
    assert!(refused.message.contains("nothing to extend"), "{refused}");
    world.set_len("store", 24 * MIB);
    let view = &world.status().stores[0];
    assert_eq!(
        (view.size, view.unused),
        (16 * MIB, 8 * MIB),
        "nobody asked"
    );
    assert_eq!(world.extend(&store, None).unwrap().size, 24 * MIB);
    // By UUID, and the file is made longer on the way.
    let uuid = world.status().stores[0].uuid.clone();
    let refused = world.extend(&uuid, Some(20 * MIB)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Usage);
    assert!(refused.message.contains("not cut"), "{refused}");
    let view = world.extend(&uuid, Some(200 * MIB)).unwrap();
    assert_eq!((view.size, world.len("store")), (200 * MIB, 200 * MIB));
    assert!(view.used < 16 * MIB && view.problem.is_none(), "{view:?}");
    let events = world.events("store-extended");
    assert_eq!(events.len(), 2);
    let said = &events[1].message;
    assert!(said.contains(&(24 * MIB).to_string()) && said.contains(&(200 * MIB).to_string()));

    // Less than a step: the file has it, the store does not, and that is fine.
    world.set_len("store", 200 * MIB + 4096);
    assert_eq!(code(world.extend(&store, None)), ErrorCode::Usage);
    world.restart();
    let view = &world.status().stores[0];
    assert_eq!((view.size, view.unused), (200 * MIB, 4096));
    assert_eq!(view.snapshots, 1);
    world.detach(&store).unwrap();
    let mut device = StoreDevice::open(&store, true).unwrap();
    let options = snapstore::check::CheckOptions { data: true };
    let report = snapstore::check::check(&mut device, options, &mut |_, _| {}).unwrap();
    assert_eq!((report.problems.len(), report.unused), (0, 1));
    world.stop();
}
