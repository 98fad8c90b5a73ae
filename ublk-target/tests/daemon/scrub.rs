//! A scrub of a store that is served. What it finds is `snapstore`'s and the end-to-end
//! tests' to say; here, how it begins and ends.

use super::*;
use ublk_target::control::protocol::ScrubAction;
use ublk_target::control::views::ScrubView;

impl World {
    fn scrub(&self, store: &str, action: ScrubAction) -> Result<ScrubView, Failure> {
        let store = store.to_owned();
        let rate = 1 << 20;
        let answer = self.ask(Request::StoreScrub {
            store,
            action,
            rate,
        })?;
        match answer {
            Answer::Scrub(view) => Ok(view),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_scrub_runs_to_its_end_and_is_remembered_until_the_store_goes() {
    let mut world = World::new();
    let store = world.with_volume("store", "web");
    let status = |world: &World| world.scrub(&store, ScrubAction::Status).unwrap();
    assert_eq!(status(&world), ScrubView::default());
    assert_eq!(
        code(world.scrub("nothing", ScrubAction::Start)),
        ErrorCode::NotFound
    );
    world.scrub(&store, ScrubAction::Start).unwrap();
    let mut view = status(&world);
    while view.running {
        std::thread::sleep(std::time::Duration::from_millis(5));
        view = status(&world);
    }
    assert!(view.complete && view.ended_ms.is_some(), "{view:?}");
    assert_eq!((view.damaged, view.problem.as_deref()), (0, None));
    assert_eq!((view.rate, &*view.store), (1 << 20, &*store));
    let events = world.events("scrub");
    assert!(events[0].message.contains("found no damage"), "{events:?}");
    // Stopping what has ended changes nothing; it can be begun again, and the store let go.
    assert_eq!(world.scrub(&store, ScrubAction::Stop).unwrap(), view);
    world.scrub(&store, ScrubAction::Start).unwrap();
    world.restart();
    assert_eq!(status(&world), ScrubView::default());
    world.stop();
}
