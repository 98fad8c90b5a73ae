//! What must not grow with the number of exceptions does not: counted, not timed.
//!
//! The program `scale` does it, each phase in a process of its own, at a size that
//! takes seconds; by hand it goes to where docs/testing.md says.

use std::process::Command;

use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::{Fault, Outcome, tools};
use csnap_tests::ensure;
use csnap_tests::scale::phases::Row;

const SNAPSHOTS: u64 = 512;
/// MiB of `--cache`: the trees of `LARGE` do not fit, by far.
const CACHE: f64 = 4.0;
const SMALL: u64 = 100_000;
const LARGE: u64 = 800_000;
/// Blocks of the journal of stores of these sizes.
const RING: f64 = 16_384.0;

/// The figures of one size.
struct Figures(Vec<Row>);

impl Figures {
    fn of(snapshots: u64, exceptions: u64, cache: &str) -> Outcome<Self> {
        let name = format!("scale-{}-{exceptions}-{cache}.store", std::process::id());
        let store = tools::target_dir()?.join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_scale"));
        command.args(["--json", "--run", "4", "--cache", cache, "--store"]);
        command.arg(&store);
        command.args(["--snapshots", &snapshots.to_string()]);
        command.args(["--exceptions", &exceptions.to_string()]);
        let output = command.output().trying(|| "run scale".into())?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "scale failed: {errors}");
        let lines = String::from_utf8_lossy(&output.stdout);
        let rows = lines.lines().map(serde_json::from_str);
        Ok(Self(rows.collect::<Result<_, _>>()?))
    }

    fn get(&self, what: &str) -> Outcome<f64> {
        let row = self.0.iter().find(|row| row.what == what);
        row.map(|row| row.value)
            .ok_or_else(|| Fault::wrong(format!("scale does not tell {what:?}: {:?}", self.0)))
    }

    /// Blocks that the trees have.
    fn nodes(&self) -> Outcome<f64> {
        Ok(self.get("exceptions")? * self.get("trees per exception")? / 4096.0)
    }
}

#[test]
fn start_recovery_and_memory_do_not_follow_the_number_of_exceptions() -> Outcome {
    let (small, large) = (
        Figures::of(SNAPSHOTS, SMALL, "4M")?,
        Figures::of(SNAPSHOTS, LARGE, "4M")?,
    );
    let more = large.nodes()? - small.nodes()?;
    ensure!(more > 10_000.0, "the trees differ by {more} blocks only");

    // The journal, snapshots, counters; of the kept data one bit for each 4 KiB.
    let what = "blocks read by it after an orderly stop";
    let (least, most) = (small.get(what)?, large.get(what)?);
    ensure!(least < RING + 1000.0, "{least} blocks are read at a start");
    let grown = most - least;
    ensure!(
        grown < more / 50.0,
        "{grown} blocks more are read of {more}"
    );

    // A leaf for each record and tree at worst, and what a start reads anyway.
    for figures in [&small, &large] {
        let read = figures.get("blocks read by it after a kill")?;
        let records = figures.get("journal records replayed")?;
        let bound = most + 2.0 * records;
        ensure!(
            read < bound,
            "recovery of {records} records read {read} blocks"
        );
    }

    let warm = large.get("blocks read for one, warm")?;
    ensure!(
        warm > 0.5,
        "the cache holds more than it may: {warm} reads for one"
    );
    for (phase, rest) in [
        ("Build", 320.0),
        ("Open", 80.0),
        ("Recover", 240.0),
        ("Check", 80.0),
    ] {
        let memory = large.get(&format!("{phase}: most memory"))?;
        let bound = CACHE + rest;
        ensure!(memory < bound, "{phase} took {memory} MiB, not {bound}");
    }
    Ok(())
}

#[test]
fn a_cached_node_takes_what_it_says() -> Outcome {
    // The lookups touch more nodes than fit.
    let figures = Figures::of(64, 600_000, "32M")?;
    let reads = figures.get("blocks read for one, warm")?;
    ensure!(reads > 0.0, "all nodes fit: this says nothing");
    // A part of it is memory that the start used before.
    let added = figures.get("memory that the lookups added")?;
    ensure!(
        (8.0..24.0).contains(&added),
        "a cache of 32 MiB took {added} MiB"
    );
    Ok(())
}
