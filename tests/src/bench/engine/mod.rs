//! The engine alone: what it costs and what it writes, without a device.
//!
//! | row | what |
//! |---|---|
//! | `engine-insert-*` | chunks a second through a whole write: probe, copyout, commit, publish, and the checkpoints they cause |
//! | `engine-lookup-*` | single chunks of a snapshot found in the store, a second |
//! | `engine-write-amplification-*` | chunks written to the store (data, journal, checkpoints, the last one included) per chunk copied |
//! | `engine-journal-*`, `engine-checkpoint-*` | the parts of it that are not data |
//! | `engine-flushes-per-1000-*` | commits per thousand writes |
//!
//! A case's name says the size of the origin, the depth, and what is unusual:
//! `4k` chunks, a `sparse` origin, `staggered` completions.
//!
//! Every chunk is overwritten once in random order, always the same. One processor
//! does everything. No time passes: checkpoints come when the memory table or the
//! journal asks for them; a store so slow that 30 s hold less writes more.
//!
//! - [`driver`]: answers the engine at once

pub mod driver;

use std::time::Instant;

use snapstore::engine::Counters;
use snapstore::{Tag, VolumeId};

use self::driver::Driver;
use super::plan::Plan;
use super::report::{Key, Samples};
use crate::e2e::Outcome;
use crate::ensure;
use crate::sim::dice::Dice;

const GIB: u64 = 1 << 30;
/// Of the order in which chunks are overwritten and looked up.
const SEED: u64 = 2004;
/// Everything in flight completes together.
const AT_ONCE: usize = usize::MAX;
/// A quarter of 32 requests at a time: commits gather what is ready, not all.
const STAGGERED: usize = 16;

/// A load on a new store.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    /// Bytes of the origin.
    origin: u64,
    /// Bytes of a chunk.
    chunk: u64,
    depth: u64,
    /// Most answers a step.
    pace: usize,
    /// Chunks overwritten; at most all.
    chunks: u64,
    /// How many snapshots are taken before.
    snapshots: u32,
    /// Report speeds, too.
    timed: bool,
}

/// Runs every case; those that time the engine in every round.
///
/// # Errors
/// If the engine refuses or fails what it is asked.
pub fn measure(plan: &Plan, samples: &mut Samples) -> Outcome {
    let main = Case {
        name: "8g-qd32",
        origin: 8 * GIB,
        chunk: 16 << 10,
        depth: 32,
        pace: AT_ONCE,
        chunks: plan.inserted,
        snapshots: 1,
        timed: true,
    };
    for _ in 0..plan.rounds {
        timed(main).iter().try_for_each(|case| run(case, samples))?;
    }
    counted(main).iter().try_for_each(|case| run(case, samples))
}

/// With 2 and with 64 snapshots the tree holds twice the chunks before it starts.
fn timed(main: Case) -> [Case; 4] {
    let two = Case {
        snapshots: 2,
        ..main
    };
    let many = Case {
        snapshots: 64,
        ..main
    };
    let sparse = Case {
        name: "1t-sparse-qd32",
        origin: 1024 * GIB,
        ..main
    };
    [main, two, many, sparse]
}

/// Nothing but counting: the same in every round.
fn counted(main: Case) -> [Case; 5] {
    let main = Case {
        timed: false,
        ..main
    };
    let small = Case {
        chunk: 4 << 10,
        ..main
    };
    let staggered = Case {
        name: "8g-qd32-staggered",
        pace: STAGGERED,
        ..main
    };
    let alone = Case {
        name: "8g-qd1",
        depth: 1,
        ..main
    };
    let small_chunks = Case {
        name: "8g-4k-qd32",
        chunks: 4 * main.chunks,
        ..small
    };
    let small_alone = Case {
        name: "8g-4k-qd1",
        depth: 1,
        ..small
    };
    let sparse_alone = Case {
        name: "1t-sparse-qd1",
        origin: 1024 * GIB,
        ..alone
    };
    [staggered, alone, small_chunks, small_alone, sparse_alone]
}

/// An engine with the snapshots of a case taken.
struct Prepared {
    driver: Driver,
    volume: VolumeId,
    newest: Tag,
}

impl Case {
    /// The chunks to overwrite, in order.
    fn order(&self) -> Vec<u64> {
        let mut dice = Dice::new(SEED);
        let all = self.origin / self.chunk;
        if self.chunks >= all {
            let mut chunks: Vec<u64> = (0..all).collect();
            (1..chunks.len()).for_each(|i| chunks.swap(i, dice.index(i + 1)));
            return chunks;
        }
        let mut seen = std::collections::HashSet::new();
        let fresh = std::iter::repeat_with(|| dice.below(all)).filter(|c| seen.insert(*c));
        fresh.take(self.chunks as usize).collect()
    }

    /// Takes the snapshots; between the first and the last all of `chunks` are
    /// overwritten, an equal part between each two.
    fn prepare(&self, chunks: &[u64]) -> Outcome<Prepared> {
        let held = 2 * chunks.len() as u64 * self.chunk;
        let blocks = (held + held / 4 + 4 * GIB) / snapstore::BLOCK_SIZE as u64;
        let mut driver = Driver::new(blocks, self.chunk, self.pace)?;
        let volume = driver.create_volume(self.origin)?;
        let gaps = self.snapshots.saturating_sub(1).max(1);
        let part = chunks.len().div_ceil(gaps as usize);
        let mut newest = driver.take(volume, "snapshot-0".into())?;
        for (number, part) in (1..self.snapshots).zip(chunks.chunks(part)) {
            driver.write(volume, part, self.depth)?;
            newest = driver.take(volume, format!("snapshot-{number}"))?;
        }
        Ok(Prepared {
            driver,
            volume,
            newest,
        })
    }
}

fn run(case: &Case, samples: &mut Samples) -> Outcome {
    let chunks = case.order();
    let mut prepared = case.prepare(&chunks)?;
    let Prepared { driver, volume, .. } = &mut prepared;
    let before = driver.checkpoint()?;
    let clock = Instant::now();
    driver.write(*volume, &chunks, case.depth)?;
    let after = driver.checkpoint()?;
    let inserts = chunks.len() as f64 / clock.elapsed().as_secs_f64();

    let mut add = |what: &str, unit, value| samples.add(case.key(what, unit), value);
    if case.timed {
        add("insert", "inserts/s", inserts);
        let lookups = prepared.lookups(chunks, case.depth)?;
        add("lookup", "lookups/s", lookups);
    }
    let cost = Cost::between(&before, &after, case)?;
    let written = "chunks written/chunk copied";
    let all = cost.data + cost.journal + cost.checkpoint;
    add("write-amplification", written, all);
    add("journal", written, cost.journal);
    add("checkpoint", written, cost.checkpoint);
    let unit = "store flushes/1000 writes";
    add("flushes-per-1000", unit, cost.flushes);
    Ok(())
}

impl Prepared {
    /// Looks every chunk up in the newest snapshot; how many a second.
    fn lookups(&mut self, mut chunks: Vec<u64>, depth: u64) -> Outcome<f64> {
        // In another order than they were written in, or the cache would suit it.
        chunks.reverse();
        let clock = Instant::now();
        self.driver.read(self.volume, self.newest, &chunks, depth)?;
        Ok(chunks.len() as f64 / clock.elapsed().as_secs_f64())
    }
}

impl Case {
    fn key(&self, what: &str, unit: &'static str) -> Key {
        Key {
            case: format!("engine-{what}-{}", self.name),
            target: "engine".into(),
            snapshots: self.snapshots,
            chunk_kib: self.chunk >> 10,
            unit,
        }
    }
}

/// Bytes written per byte copied, and flushes per thousand writes.
#[derive(Clone, Copy, Debug)]
struct Cost {
    data: f64,
    journal: f64,
    checkpoint: f64,
    flushes: f64,
}

impl Cost {
    fn between(before: &Counters, after: &Counters, case: &Case) -> Outcome<Self> {
        let copied = after.chunks_copied - before.chunks_copied;
        ensure!(copied > 0, "no chunk was copied in {}", case.name);
        let bytes = (copied * case.chunk) as f64;
        let per_byte = |before: u64, after: u64| (after - before) as f64 / bytes;
        Ok(Self {
            data: per_byte(before.data_bytes, after.data_bytes),
            journal: per_byte(before.journal_bytes, after.journal_bytes),
            checkpoint: per_byte(before.checkpoint_bytes, after.checkpoint_bytes),
            flushes: (after.commits - before.commits) as f64 * 1000.0 / copied as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(depth: u64, pace: usize) -> Vec<(String, f64)> {
        let case = Case {
            name: "small",
            origin: 64 << 20,
            chunk: 16 << 10,
            depth,
            pace,
            chunks: u64::MAX,
            snapshots: 1,
            timed: true,
        };
        let mut samples = Samples::default();
        run(&case, &mut samples).unwrap();
        let rows = samples.rows().into_iter();
        rows.map(|row| (row.case, row.value)).collect()
    }

    fn value(rows: &[(String, f64)], what: &str) -> f64 {
        let name = format!("engine-{what}-small");
        rows.iter().find(|row| row.0 == name).unwrap().1
    }

    #[test]
    fn one_flush_serves_all_writes_that_wait_together() {
        let alone = value(&measured(1, AT_ONCE), "flushes-per-1000");
        assert!((999.0..1003.0).contains(&alone), "{alone} flushes alone");
        let together = value(&measured(32, AT_ONCE), "flushes-per-1000");
        assert!((31.0..33.0).contains(&together), "{together} flushes of 32");
        let spread = value(&measured(32, STAGGERED), "flushes-per-1000");
        assert!(
            spread > together && spread < alone,
            "{spread} flushes spread"
        );
    }

    #[test]
    fn the_parts_of_the_amplification_add_up() {
        let rows = measured(32, AT_ONCE);
        let rest = value(&rows, "journal") + value(&rows, "checkpoint");
        let all = value(&rows, "write-amplification");
        assert!(
            (all - 1.0 - rest).abs() < 1e-9,
            "data is written once: {rows:?}"
        );
        assert!(rest > 0.0, "records and trees are written, too");
    }

    #[test]
    fn chunks_are_overwritten_once() {
        let case = Case {
            name: "order",
            origin: 1 << 30,
            chunk: 4096,
            depth: 1,
            pace: 1,
            chunks: 1000,
            snapshots: 1,
            timed: true,
        };
        for chunks in [1000, u64::MAX] {
            let mut order = Case { chunks, ..case }.order();
            let count = order.len() as u64;
            assert_eq!(count, chunks.min(case.origin / case.chunk));
            order.sort_unstable();
            order.dedup();
            assert_eq!(order.len() as u64, count, "a chunk comes twice");
        }
    }
}
