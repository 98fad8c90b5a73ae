//! Worlds by seed: the same few hundred each time, and fresh ones for as long as
//! is asked for.
//!
//! `CSNAP_WORLDS` sets how many fixed worlds, `CSNAP_SEED` where they begin,
//! `CSNAP_FRESH_SECONDS` how long fresh seeds are tried (a minute in CI).
#![allow(clippy::print_stdout)] // the seeds are the point

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use csnap_tests::sim::judge::live;
use csnap_tests::sim::world::{Config, Stats};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn must_live(seed: u64, stats: &mut Stats) {
    let result = live(Config::of_seed(seed), false);
    if let Ok(more) = &result {
        stats.add(more);
    }
    assert!(
        result.is_ok(),
        "{}",
        result.err().map(|f| f.to_string()).unwrap_or_default()
    );
}

#[test]
fn fixed_worlds_keep_every_promise() {
    let (first, count) = (number("CSNAP_SEED", 1), number("CSNAP_WORLDS", 150));
    println!("seeds {first}..{}", first + count);
    let mut stats = Stats::default();
    (first..first + count).for_each(|seed| must_live(seed, &mut stats));
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
    let rare = [
        stats.faults,
        stats.drops,
        stats.lost,
        stats.undone,
        stats.grown,
    ];
    assert!(count < 100 || rare.iter().all(|n| *n > 0), "{stats:?}");
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
        must_live(seed, &mut stats);
        seed += 1;
    }
    println!("{stats:?}");
}

#[test]
fn a_seed_is_a_world() {
    for seed in 1..6 {
        let (once, again) = (
            live(Config::of_seed(seed), false),
            live(Config::of_seed(seed), false),
        );
        match (once, again) {
            (Ok(a), Ok(b)) => assert_eq!((a.steps, a.copied), (b.steps, b.copied), "seed {seed}"),
            (Err(a), Err(b)) => assert_eq!(a.violation, b.violation, "seed {seed}"),
            other => panic!("seed {seed} lives differently the second time: {other:?}"),
        }
    }
}
