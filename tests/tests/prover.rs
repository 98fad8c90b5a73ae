//! Proving the prover: with each planted defect some world must break.
#![allow(clippy::print_stdout)] // how many seeds each took is worth knowing

use csnap_tests::sim::defect::{ALL, Defect};
use csnap_tests::sim::judge::live;
use csnap_tests::sim::world::Config;

/// Seeds within which a defect must show.
const SEEDS: u64 = 500;

fn seeds_until_seen(defect: Defect) -> Option<(u64, String)> {
    (1..=SEEDS).find_map(|seed| {
        let failure = live(Config::with_defect(seed, defect), false).err()?;
        // What also breaks without the defect says nothing about it.
        let innocent = live(Config::peaceful(seed), false).is_ok();
        innocent.then(|| (seed, failure.violation.to_string()))
    })
}

#[test]
fn every_planted_defect_is_seen() {
    let mut missed = Vec::new();
    for defect in ALL {
        match seeds_until_seen(defect) {
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
        "not seen within {SEEDS} seeds: {missed:?}"
    );
}
