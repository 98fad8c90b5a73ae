//! What is measured of a store of some scale. Each phase opens the store that the one
//! before left, and runs in a process of its own, whose memory is then that phase's.
#![allow(clippy::print_stderr)] // how far a build of many minutes is

use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use snapstore::check::{CheckOptions, check};
use snapstore::engine::SnapshotInfo;
use snapstore::{BLOCK_SIZE, Tag, VolumeId};

use super::file::{Counted, SparseFile};
use super::{DEPTH, Scale, resident};
use crate::bench::engine::driver::Driver;
use crate::e2e::fault::Trying;
use crate::e2e::{Fault, Outcome};
use crate::ensure;

const MIB: f64 = (1 << 20) as f64;
/// Everything in flight completes together.
const AT_ONCE: usize = usize::MAX;
/// Chunks looked up cold, and the same again warm.
const LOOKUPS: u64 = 50_000;
/// Snapshots deleted.
const DELETES: usize = 64;
/// Most chunks written before the kill: as many cause a checkpoint.
const JOURNAL: u64 = 131_000;
/// Of them at a time: each takes a block of the journal at worst.
const PIECE: usize = 512;

/// A part of the measurement, in the order they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Phase {
    /// Makes the store.
    Build,
    /// Opens it after an orderly stop; lists, looks up.
    Open,
    /// Opens it after a kill with a full journal.
    Recover,
    /// Checks it.
    Check,
    /// Deletes snapshots.
    Delete,
}

/// All of them.
pub const PHASES: [Phase; 5] = [
    Phase::Build,
    Phase::Open,
    Phase::Recover,
    Phase::Check,
    Phase::Delete,
];

/// A figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Of what.
    pub what: String,
    /// How much.
    pub value: f64,
    /// Of which unit.
    pub unit: String,
}

/// Figures of a phase.
#[derive(Debug, Default)]
struct Rows(Vec<Row>);

impl Rows {
    fn add(&mut self, what: &str, value: f64, unit: &str) {
        let (what, unit) = (what.to_owned(), unit.to_owned());
        self.0.push(Row { what, value, unit });
    }

    fn ms(&mut self, what: &str, time: Duration) {
        self.add(what, time.as_secs_f64() * 1000.0, "ms");
    }
}

type Store = Counted<SparseFile>;

/// Runs one phase.
///
/// # Errors
/// If the engine fails, or the check finds something.
pub fn run(phase: Phase, scale: &Scale) -> Outcome<Vec<Row>> {
    let mut rows = Rows::default();
    match phase {
        Phase::Build => build(scale, &mut rows)?,
        Phase::Open => open(scale, &mut rows)?,
        Phase::Recover => recover(scale, &mut rows)?,
        Phase::Check => check_it(scale, &mut rows)?,
        Phase::Delete => delete(scale, &mut rows)?,
    }
    let (_, most) = resident()?;
    rows.add(&format!("{phase:?}: most memory"), most as f64 / MIB, "MiB");
    Ok(rows.0)
}

fn build(scale: &Scale, rows: &mut Rows) -> Outcome {
    let path = || format!("making {}", scale.store.display());
    let file = SparseFile::create(&scale.store, scale.blocks()).trying(path)?;
    let mut driver = Driver::create(Counted::new(file), scale.chunk, AT_ONCE, scale.config())?;
    // What the size of the store costs, whatever is in it.
    let fixed = driver.engine().store_info().metadata as f64;
    let clock = Instant::now();
    scale.build(&mut driver, |number, driver, _| {
        if number > 0 && number.is_multiple_of(4096) {
            let copied = driver.engine().store_info().counters.chunks_copied;
            let time = clock.elapsed();
            eprintln!("{number} snapshots, {copied} exceptions, {time:.0?}");
        }
        Ok(())
    })?;
    let counters = driver.checkpoint()?;
    let time = clock.elapsed().as_secs_f64();
    let copied = counters.chunks_copied as f64;
    rows.add("exceptions", copied, "");
    rows.add(
        "insert, takes and checkpoints included",
        copied / time,
        "/s",
    );
    let info = driver.engine().store_info();
    let written = (counters.journal_bytes + counters.checkpoint_bytes) as f64;
    rows.add("metadata written per exception", written / copied, "bytes");
    let trees = info.metadata as f64 - fixed;
    rows.add("trees per exception", trees / copied, "bytes");
    let what = "journal, superblocks, bitmap with its reserve";
    rows.add(what, fixed / MIB, "MiB");
    let clock = Instant::now();
    let store = driver.close()?;
    rows.ms("orderly stop", clock.elapsed());
    let taken = store
        .store
        .allocated()
        .trying(|| "asking for the file's size".into())?;
    rows.add("the sparse file takes", taken as f64 / MIB, "MiB");
    Ok(())
}

/// An engine that was just opened, its volume and the volume's snapshots.
struct Opened {
    driver: Driver<Store>,
    volume: VolumeId,
    snapshots: Vec<SnapshotInfo>,
}

impl Opened {
    fn tags(&self) -> Vec<Tag> {
        self.snapshots.iter().map(|snapshot| snapshot.tag).collect()
    }
}

/// Opens the store; `how` names it in the rows.
fn opened(store: Store, how: &str, scale: &Scale, rows: &mut Rows) -> Outcome<Opened> {
    let (before, read) = (Instant::now(), store.read);
    let (driver, recovered) = Driver::open(store, AT_ONCE, scale.config())?;
    rows.ms(&format!("start after {how}"), before.elapsed());
    let read = driver.store().read - read;
    rows.add(&format!("blocks read by it after {how}"), read as f64, "");
    if !recovered.clean {
        rows.add("journal records replayed", recovered.replayed as f64, "");
    }
    ensure!(
        recovered.lost == 0,
        "recovery lost {} chunks",
        recovered.lost
    );
    let volumes = driver.engine().volumes();
    let volume = volumes
        .first()
        .ok_or_else(|| Fault::wrong("the volume is gone"))?
        .id;
    let clock = Instant::now();
    let snapshots = driver.engine().snapshots(volume);
    rows.ms(
        &format!("all snapshots listed after {how}"),
        clock.elapsed(),
    );
    Ok(Opened {
        driver,
        volume,
        snapshots,
    })
}

fn stored(scale: &Scale) -> Outcome<Store> {
    let file = SparseFile::open(&scale.store);
    let file = file.trying(|| format!("opening {}", scale.store.display()))?;
    Ok(Counted::new(file))
}

fn open(scale: &Scale, rows: &mut Rows) -> Outcome {
    let mut this = opened(stored(scale)?, "an orderly stop", scale, rows)?;
    let count = this.snapshots.len() as u64;
    ensure!(count == scale.snapshots, "{count} snapshots are there");
    let (before, _) = resident()?;
    rows.add("memory after the start", before as f64 / MIB, "MiB");
    let chunks = scale.lookups(LOOKUPS, &this.tags());
    for how in ["cold", "warm"] {
        let read = this.driver.store().read;
        let clock = Instant::now();
        this.driver
            .look_up(this.volume, chunks.iter().copied(), DEPTH)?;
        let time = clock.elapsed().as_secs_f64();
        rows.add(&format!("lookups, {how}"), LOOKUPS as f64 / time, "/s");
        let read = (this.driver.store().read - read) as f64 / LOOKUPS as f64;
        rows.add(&format!("blocks read for one, {how}"), read, "");
    }
    let added = resident()?.0.saturating_sub(before);
    rows.add("memory that the lookups added", added as f64 / MIB, "MiB");
    let clock = Instant::now();
    let takes = 100;
    for number in 0..takes {
        this.driver.take(this.volume, format!("more-{number}"))?;
    }
    rows.ms("a take", clock.elapsed() / takes);
    this.driver.close().map(drop)
}

fn recover(scale: &Scale, rows: &mut Rows) -> Outcome {
    let (mut driver, _) = Driver::open(stored(scale)?, AT_ONCE, scale.config())?;
    let volume = driver.engine().volumes().first().map(|v| v.id);
    let volume = volume.ok_or_else(|| Fault::wrong("the volume is gone"))?;
    driver.take(volume, "before-the-kill".into())?;
    let checkpoints = driver.checkpoint()?.checkpoints;
    // Single chunks all over the volume: the most leaves that so many records can touch.
    let places = Scale {
        run: 1,
        exceptions: JOURNAL,
        snapshots: 1,
        ..scale.clone()
    };
    let places: Vec<_> = places.runs(u64::from(u32::MAX)).collect();
    for piece in places.chunks(PIECE) {
        // Writes that wait for nodes come in smaller commits, each with its block.
        let info = driver.engine().store_info();
        if (info.journal_used + PIECE as u64) * 2 >= info.journal_blocks {
            break;
        }
        driver.write_runs(volume, piece.iter().copied(), DEPTH)?;
    }
    let after = driver.engine().store_info().counters.checkpoints;
    ensure!(after == checkpoints, "a checkpoint emptied the journal");
    let this = opened(driver.killed(), "a kill", scale, rows)?;
    this.driver.close().map(drop)
}

fn check_it(scale: &Scale, rows: &mut Rows) -> Outcome {
    let mut store = stored(scale)?;
    let clock = Instant::now();
    let report = check(&mut store, CheckOptions::default(), &mut |_, _| {});
    let report = report.map_err(|error| Fault::wrong(error.to_string()))?;
    let time = clock.elapsed().as_secs_f64();
    ensure!(report.problems.is_empty(), "{}", report.problems.join("\n"));
    rows.add("check", time, "s");
    rows.add("check", report.exceptions as f64 / time, "exceptions/s");
    let bytes = store.read as f64 * BLOCK_SIZE as f64;
    rows.add("check", bytes / MIB / time, "MiB/s of metadata");
    Ok(())
}

fn delete(scale: &Scale, rows: &mut Rows) -> Outcome {
    let mut this = opened(
        stored(scale)?,
        "the last phase",
        scale,
        &mut Rows::default(),
    )?;
    let tags = this.tags();
    let step = (tags.len() / DELETES).max(1);
    let (mut replied, mut purged) = (Duration::ZERO, Duration::ZERO);
    let mut count = 0;
    for tag in tags.into_iter().skip(step / 2).step_by(step) {
        let clock = Instant::now();
        this.driver.delete(this.volume, tag)?;
        replied = replied.max(clock.elapsed());
        this.driver.settle()?;
        purged += clock.elapsed();
        count += 1;
    }
    rows.ms("a delete until it is durable, at most", replied);
    rows.ms("a delete until its space is back", purged / count.max(1));
    let waiting = this.driver.engine().store_info().purging;
    ensure!(waiting == 0, "{waiting} snapshots are not purged");
    this.driver.close().map(drop)
}
