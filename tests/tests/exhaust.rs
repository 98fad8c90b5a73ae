//! Tiny worlds, exhausted (`docs/testing.md`, "Exhausted geometries"): every crash point
//! of every scenario, with every subset of what was not durable.
//!
//! `CSNAP_EXHAUST` sets up to how many pieces of writes every subset is tried.
#![allow(clippy::print_stdout)] // the figures are the point

use csnap_tests::sim::defect::Defect;
use csnap_tests::sim::dice::Order;
use csnap_tests::sim::exhaust::scenario::{self, Scenario};
use csnap_tests::sim::exhaust::{Bound, Figures, explore};

fn bound() -> Bound {
    let set = std::env::var("CSNAP_EXHAUST").ok();
    let pieces = set.and_then(|text| text.parse().ok());
    pieces.map_or_else(Bound::default, Bound::of)
}

fn must_hold(scenario: &Scenario, order: Order) -> Figures {
    let result = explore(scenario, order, bound(), None);
    assert!(
        result.is_ok(),
        "{}",
        result.err().map(|v| v.to_string()).unwrap_or_default()
    );
    result.unwrap_or_default()
}

/// Exhausts all scenarios in one order.
fn exhaust(order: Order) {
    let mut all = Figures::default();
    println!("{order}, {:?}\n{}", bound(), Figures::HEAD);
    for scenario in scenario::all() {
        let figures = must_hold(&scenario, order);
        println!("| {:<16} {figures}", scenario.name);
        // A scenario in which nothing happens, or nothing can be lost, proves nothing.
        let name = scenario.name;
        assert!(figures.points >= 4, "{name}: {figures:?}");
        assert!(figures.recovered >= 40, "{name}: {figures:?}");
        assert!(figures.cut_off >= 5, "{name}: {figures:?}");
        assert_eq!(figures.drops > 0, name == "full", "{name}: {figures:?}");
        all.add(&figures);
    }
    println!("| {:<16} {all}", "all");
    assert!(all.recovered > 9_000 && all.judged > 5_000, "{all:?}");
    assert!(all.copied > 20 && all.checkpoints > 5, "{all:?}");
    assert!(all.undone > 0, "no copyout was ever torn: {all:?}");
}

#[test]
fn every_crash_of_a_tiny_world_keeps_every_promise() {
    exhaust(Order::Forward);
}

#[test]
fn every_crash_of_a_tiny_world_keeps_every_promise_in_reverse() {
    exhaust(Order::Reverse);
}

/// Scenarios that break with this defect, and the first violation.
fn seen(defect: Defect) -> Option<(&'static str, String)> {
    scenario::all().iter().find_map(|scenario| {
        let violation = explore(scenario, Order::Forward, bound(), Some(defect)).err()?;
        let text = violation.to_string();
        assert!(!text.contains("too many"), "{text}");
        Some((scenario.name, text))
    })
}

#[test]
fn what_breaks_the_rules_of_durability_is_seen() {
    for defect in [
        Defect::SkipStoreFlush,
        Defect::SkipOriginFlush,
        Defect::ForgetFua,
        Defect::EarlyWritten,
    ] {
        let seen = seen(defect);
        let line = seen.as_ref().map(|(_, text)| text.replace('\n', " "));
        let line: Option<String> = line.map(|text| text.chars().take(240).collect());
        println!("{defect:?}: {line:?}");
        assert!(seen.is_some(), "{defect:?} was not seen by any scenario");
    }
}
