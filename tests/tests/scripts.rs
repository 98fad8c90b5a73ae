//! Scripts of actions against the oracle, shrunk when they fail: a few actions
//! say more than a seed.

use csnap_tests::sim::daemon::Kind;
use csnap_tests::sim::judge::play;
use csnap_tests::sim::world::{Action, Config};
use proptest::prelude::*;

fn action() -> impl Strategy<Value = Action> {
    // Pumps and writes are most of life.
    let kind = prop_oneof![6 => 0u32..2, 2 => 2u32..8, 1 => 0u32..Action::kinds()];
    (kind, any::<[u32; 3]>()).prop_map(|(kind, raw)| Action::decode(kind, raw))
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::StandIn), Just(Kind::Lanes)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_script_keeps_every_promise(
        seed in 0u64..1000,
        kind in kind(),
        actions in prop::collection::vec(action(), 1..80),
    ) {
        if let Err(failure) = play(Config::peaceful(seed, kind), &actions) {
            return Err(TestCaseError::fail(failure.to_string()));
        }
    }

    #[test]
    fn any_script_keeps_every_promise_in_trouble(
        seed in 0u64..1000,
        kind in kind(),
        actions in prop::collection::vec(action(), 1..80),
    ) {
        if let Err(failure) = play(Config::of_kind(seed, kind), &actions) {
            return Err(TestCaseError::fail(failure.to_string()));
        }
    }
}
