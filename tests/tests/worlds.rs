//! Worlds by seed: the same few hundred each time, and fresh ones for as long as
//! is asked for; with the stand-in for the I/O threads, and with the real lanes.
//!
//! `CSNAP_WORLDS` sets how many fixed worlds, `CSNAP_SEED` where they begin,
//! `CSNAP_FRESH_SECONDS` how long fresh seeds are tried (a minute in CI).
#![allow(clippy::print_stdout)] // the seeds are the point

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use csnap_tests::sim::Violation;
use csnap_tests::sim::daemon::Kind;
use csnap_tests::sim::defect::Defect;
use csnap_tests::sim::judge::{Failure, live, play};
use csnap_tests::sim::world::action::Fill;
use csnap_tests::sim::world::{Action, Config, Stats, Trouble};

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
    // Worlds in which nothing happens prove nothing. Each ends with two orderly stops, with
    // a checkpoint before and a check after each: that alone does not count.
    let starts = stats.crashes + stats.stops;
    let more = [
        (stats.crashes, 0),
        (stats.stops, 2 * count),
        (stats.takes, 0),
        (stats.copied, 0),
        (stats.checkpoints, starts),
        (stats.checks, stats.stops),
    ];
    assert!(
        stats.worlds < 100 || more.iter().all(|(seen, due)| *seen > due + count),
        "{stats:?}"
    );
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
        stats.extended,
        stats.held,
        stats.rotten,
        stats.named,
        stats.unreadable,
        stats.disturbed,
        stats.refused,
        stats.doubted - stats.refused,
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

/// Where the store fills and people hold snapshots: those are never the victims, and
/// writes fail only where there is one.
#[test]
fn full_worlds_that_hold_snapshots() {
    let mut stats = Stats::default();
    let full = (1..).filter(|seed| Config::of_kind(*seed, Kind::StandIn).trouble == Trouble::Full);
    for seed in full.take(25) {
        for kind in KINDS {
            let result = live(Config::of_kind(seed, kind).with_holds(), false);
            match result {
                Ok(more) => stats.add(&more),
                Err(failure) => panic!("{failure}"),
            }
        }
    }
    println!("{stats:?}");
    assert!(stats.drops > 0 && stats.crashes > 0, "{stats:?}");
}

/// Two volumes are taken together amid writes to all chunks of the second, whose snapshot
/// is read at once and again later: a write that the take did not wait for would show in
/// one of the two.
#[test]
fn worlds_that_take_two_volumes_amid_writes() {
    let mut stats = Stats::default();
    for (seed, kind) in (1..=20).flat_map(|seed| KINDS.map(|kind| (seed, kind))) {
        let config = Config::peaceful(seed, kind).paired();
        let chunk = config.chunk_size / 512;
        let rounds = (0..8).flat_map(|round| take_amid_writes(chunk, 10 + 15 * round));
        match play(config, &rounds.collect::<Vec<_>>()) {
            Ok(more) => stats.add(&more),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{stats:?}");
    assert_eq!(stats.takes, 40 * 8, "{stats:?}");
}

/// Writes to every chunk of the second volume, so many steps, a take of both, reads of
/// the second one's snapshot, and all snapshots go.
fn take_amid_writes(chunk: u32, steps: u32) -> Vec<Action> {
    let write = |number: u32| Action::Write {
        volume: 1,
        at: 4 * chunk * number,
        len: 8,
        fua: false,
        fill: Fill::Fresh,
    };
    let read = Action::ReadSnapshot {
        snapshot: 1,
        at: 0,
        len: u32::MAX,
    };
    let (mask, priority) = (3, 0);
    let (snapshot, count) = (0, 2);
    let pump = |steps| Action::Pump { steps };
    let rest = [
        pump(steps),
        Action::Take { mask, priority },
        pump(100 + 3 * steps),
        read,
        pump(100),
        read,
        Action::Compare,
        Action::Delete { snapshot, count },
        Action::Compare,
    ];
    (0..16).map(write).chain(rest).collect()
}

/// Where blocks of the store are damaged, views fail or show what they should.
#[test]
fn worlds_whose_store_lies() {
    let mut stats = Stats::default();
    let lies = (1000..).filter(|seed| Config::of_kind(*seed, KINDS[0]).trouble == Trouble::Rot);
    for seed in lies.take(15) {
        KINDS
            .iter()
            .for_each(|kind| must_live(seed, *kind, &mut stats));
    }
    println!("{stats:?}");
    let seen = [stats.rotten, stats.named, stats.unreadable, stats.crashes];
    assert!(seen.iter().all(|n| *n > 10), "{stats:?}");
}

/// A trim that ended in a shared chunk gave the chunk away (`Lane::advance_trim`).
#[test]
fn worlds_in_which_a_trim_ended_in_a_shared_chunk() {
    let mut stats = Stats::default();
    for seed in [58, 96, 98, 210, 249, 314, 329, 365] {
        must_live(seed, Kind::Lanes, &mut stats);
    }
}

/// A copy in the journal's tail that never landed, and could not be read once while the
/// store was recovered, was kept as if it had landed (`recover::read_copy`).
#[test]
fn worlds_whose_tail_was_read_at_the_second_try() {
    let mut stats = Stats::default();
    for (seed, kind) in [
        (51_770, Kind::Lanes),
        (1_795_333_845_420_404, Kind::Lanes),
        (1_795_333_845_420_936, Kind::Lanes),
        (1_795_333_845_420_474, Kind::StandIn),
        (1_795_333_845_421_033, Kind::StandIn),
    ] {
        must_live(seed, kind, &mut stats);
    }
    println!("{stats:?}");
    assert!(stats.disturbed > 0, "{stats:?}");
}

/// What an extension that was cut off left at the device's end is no superblock of the
/// store, and what only that leads to may be damaged (`world/atlas.rs`).
#[test]
fn a_world_whose_extension_was_cut_off() {
    must_live(1_795_333_362_662_759, Kind::Lanes, &mut Stats::default());
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

/// The command that a failure names must live that very world: `soak` knows holds only
/// where the seed says so, no peace, no scripts and no planted defects.
#[test]
fn a_failure_offers_no_other_world_than_its_own() {
    let again = |config, scripted| {
        let failure = Failure {
            config,
            violation: Violation("of no account".to_owned()),
            history: Vec::new(),
            scripted,
        };
        assert_eq!(
            failure.to_string().contains("again"),
            failure.again().is_some()
        );
        failure.again()
    };
    for (seed, kind) in (1..50).flat_map(|seed| KINDS.map(|kind| (seed, kind))) {
        let config = Config::of_kind(seed, kind);
        let command = again(config.clone(), false).unwrap_or_default();
        assert!(
            command.contains(&format!("--kind {kind} --seed {seed} --worlds 1 ")),
            "{command:?}"
        );
        let peaceful = Config::peaceful(seed, kind);
        let same = peaceful == config;
        assert_eq!(again(peaceful, false).is_some(), same, "{kind} seed {seed}");
        assert_eq!(again(config.clone(), true), None);
        let holds = config.clone().with_holds();
        let same = holds == config;
        assert_eq!(again(holds, false).is_some(), same, "{kind} seed {seed}");
        assert_eq!(again(config.with_defect(Defect::EarlyPause), false), None);
    }
    // No world can be made of it.
    let mut nothing = Config::of_kind(1, Kind::StandIn);
    nothing.store_blocks = 1;
    let [lived, played] = [live(nothing.clone(), false), play(nothing, &[])];
    let scripted = |result: Result<Stats, Box<Failure>>| result.err().map(|f| f.scripted);
    assert_eq!(
        (scripted(lived), scripted(played)),
        (Some(false), Some(true))
    );
}
