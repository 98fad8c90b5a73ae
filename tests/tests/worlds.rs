//! Worlds by seed: the same few hundred each time, and fresh ones for as long as
//! is asked for; with the stand-in for the I/O threads, and with the real lanes.
//!
//! `CSNAP_WORLDS` sets how many fixed worlds, `CSNAP_SEED` where they begin,
//! `CSNAP_FRESH_SECONDS` how long fresh seeds are tried (a minute in CI).
#![allow(clippy::print_stdout)] // the seeds are the point

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use csnap_tests::sim::daemon::Kind;
use csnap_tests::sim::judge::live;
use csnap_tests::sim::world::{Config, Stats};

const KINDS: [Kind; 2] = [Kind::StandIn, Kind::Lanes];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn must_live(seed: u64, kind: Kind, stats: &mut Stats) {
    let result = live(Config::of_kind(seed, kind), false);
    if let Ok(more) = &result {
        stats.add(more);
    }
    assert!(
        result.is_ok(),
        "{}",
        result.err().map(|f| f.to_string()).unwrap_or_default()
    );
}

/// Lives the fixed worlds of a kind.
fn fixed(kind: Kind) -> Stats {
    let (first, count) = (number("CSNAP_SEED", 1), number("CSNAP_WORLDS", 150));
    println!("{kind}: seeds {first}..{}", first + count);
    let mut stats = Stats::default();
    (first..first + count).for_each(|seed| must_live(seed, kind, &mut stats));
    println!("{stats:?}");
    // A world in which nothing happens proves nothing.
    let enough = [
        stats.crashes,
        stats.takes,
        stats.copied,
        stats.checkpoints,
        stats.checks,
    ];
    assert!(enough.iter().all(|n| *n > count), "{stats:?}");
    stats
}

#[test]
fn fixed_worlds_keep_every_promise() {
    let stats = fixed(Kind::StandIn);
    let rare = [
        stats.faults,
        stats.drops,
        stats.lost,
        stats.undone,
        stats.grown,
    ];
    assert!(
        stats.worlds < 100 || rare.iter().all(|n| *n > 0),
        "{stats:?}"
    );
}

#[test]
fn fixed_worlds_of_real_lanes_keep_every_promise() {
    let stats = fixed(Kind::Lanes);
    // Lanes that never got into each other's way prove nothing either.
    let seen = stats.lanes.all();
    assert!(
        stats.worlds < 100 || seen.iter().all(|n| *n > 10),
        "{stats:?}"
    );
}

/// A trim that ended in a shared chunk gave the chunk away (`Lane::advance_trim`).
#[test]
fn worlds_in_which_a_trim_ended_in_a_shared_chunk() {
    let mut stats = Stats::default();
    for seed in [58, 96, 98, 210, 249, 314, 329, 365] {
        must_live(seed, Kind::Lanes, &mut stats);
    }
}

#[test]
fn fresh_worlds_keep_every_promise() {
    let first = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_micros() as u64;
    println!("first seed {first}");
    let end = Instant::now() + Duration::from_secs(number("CSNAP_FRESH_SECONDS", 5));
    let mut stats = Stats::default();
    let mut seed = first;
    while Instant::now() < end {
        KINDS
            .iter()
            .for_each(|kind| must_live(seed, *kind, &mut stats));
        seed += 1;
    }
    println!("{stats:?}");
}

#[test]
fn a_seed_is_a_world() {
    for (seed, kind) in (1..6).flat_map(|seed| KINDS.map(|kind| (seed, kind))) {
        let once = live(Config::of_kind(seed, kind), false);
        let again = live(Config::of_kind(seed, kind), false);
        match (once, again) {
            (Ok(a), Ok(b)) => assert_eq!(
                (a.steps, a.copied, a.lanes),
                (b.steps, b.copied, b.lanes),
                "{kind} seed {seed}"
            ),
            (Err(a), Err(b)) => assert_eq!(a.violation, b.violation, "{kind} seed {seed}"),
            other => panic!("{kind} seed {seed} lives differently the second time: {other:?}"),
        }
    }
}
