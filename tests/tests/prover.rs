//! Proving the prover: with each planted defect some world must break.
#![allow(clippy::print_stdout)] // how many seeds each took is worth knowing

use csnap_tests::sim::daemon::Kind;
use csnap_tests::sim::defect::{Defect, LANES, STAND_IN};
use csnap_tests::sim::judge::live;
use csnap_tests::sim::world::Config;

/// Seeds within which a defect must show.
const BOUND: u64 = 500;

/// The worlds in which it is looked for.
fn world(seed: u64, kind: Kind, defect: Defect) -> Config {
    let config = Config::peaceful(seed, kind);
    match defect {
        // Only a power cut that tears the copy of a last chunk shows what its end holds.
        Defect::ForgetZeroes => config.ragged(),
        _ => config,
    }
}

fn seeds_until_seen(kind: Kind, defect: Defect) -> Option<(u64, String)> {
    (1..=BOUND).find_map(|seed| {
        let config = world(seed, kind, defect);
        let failure = live(config.clone().with_defect(defect), false).err()?;
        // What also breaks without the defect says nothing about it.
        let innocent = live(config, false).is_ok();
        innocent.then(|| (seed, failure.violation.to_string()))
    })
}

fn all_are_seen(kind: Kind, defects: &[Defect]) {
    let mut missed = Vec::new();
    for defect in defects {
        match seeds_until_seen(kind, *defect) {
            Some((seeds, violation)) => {
                let line: String = violation.chars().take(110).collect();
                println!(
                    "{defect:?}: seen after {seeds} seeds: {}",
                    line.replace('\n', " ")
                );
            }
            None => missed.push(defect),
        }
    }
    assert!(
        missed.is_empty(),
        "not seen within their seeds by {kind}: {missed:?}"
    );
}

#[test]
fn every_planted_defect_is_seen() {
    all_are_seen(Kind::StandIn, &STAND_IN);
}

#[test]
fn every_defect_planted_around_the_lanes_is_seen() {
    all_are_seen(Kind::Lanes, &LANES);
}
