//! Bytes written to the store per chunk copied, flushes per thousand writes, and
//! what a tree larger than the cache costs. All on the disk.

use std::time::{Duration, Instant};

use snapstore::Checksum;

use super::fio::{End, Job};
use super::plan::Plan;
use super::report::{Key, Samples};
use super::server::{Csnap, Shape};
use crate::e2e::Outcome;
use crate::ensure;

const GIB: u64 = 1 << 30;
/// csnapd writes a checkpoint at least every 30 s.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(60);

struct Case {
    name: &'static str,
    origin: u64,
    chunk: u64,
    depth: u32,
    chunks: u64,
}

/// Runs every case.
///
/// # Errors
/// If a server or fio fails.
pub fn measure(plan: &Plan, samples: &mut Samples) -> Outcome {
    let (many, few) = (plan.copied, plan.copied_alone);
    let (k16, k4) = (16 << 10, 4 << 10);
    let case = |name, origin, chunk, depth, chunks| Case {
        name,
        origin,
        chunk,
        depth,
        chunks,
    };
    let cases = [
        case("8g-qd32", 8 * GIB, k16, 32, many),
        case("8g-qd1", 8 * GIB, k16, 1, few),
        case("8g-4k", 8 * GIB, k4, 32, many),
        case("1t-sparse", 1024 * GIB, k16, 32, many / 2),
    ];
    // Each waits half a minute for a checkpoint.
    for case in cases.iter().take(if plan.quick { 1 } else { cases.len() }) {
        copied(plan, case, samples)?;
    }
    beyond_the_cache(plan, samples)
}

fn serve(plan: &Plan, case: &Case, options: Vec<String>) -> Outcome<Csnap> {
    Csnap::start(Shape {
        dir: plan.disk.join("amplification"),
        origin: case.origin,
        filled: false,
        store: 12 * GIB,
        chunk: case.chunk,
        checksum: Checksum::default(),
        options,
    })
}

#[allow(clippy::print_stderr)] // progress for the person who waits
fn copied(plan: &Plan, case: &Case, samples: &mut Samples) -> Outcome {
    eprintln!("bench: amplification, {}", case.name);
    let mut csnap = serve(plan, case, Vec::new())?;
    csnap.take()?;
    let before = Counted::of(&csnap)?;
    let end = End::Requests(case.chunks);
    let job = Job {
        depth: case.depth,
        ..Job::random(&csnap.uri(), "randwrite", case.chunk, end)
    };
    let speed = job.run()?;
    wait_for_checkpoint(&csnap)?;
    let after = Counted::of(&csnap)?;
    csnap.end()?;
    let chunks = after.chunks - before.chunks;
    ensure!(chunks > 0, "no chunk was copied in {}", case.name);
    let bytes = (after.bytes - before.bytes) as f64;
    let commits = (after.commits - before.commits) as f64;
    let mut add = |what: &str, value: f64, unit: &'static str| {
        let case_name = format!("{what}-{}", case.name);
        samples.add(key(&case_name, case.chunk >> 10, unit), value);
    };
    add(
        "amplification",
        bytes / (chunks * case.chunk) as f64,
        "chunks written/chunk copied",
    );
    add(
        "flushes",
        commits * 1000.0 / case.chunks as f64,
        "store flushes/1000 writes",
    );
    add("first-overwrite", speed.iops, "requests/s");
    Ok(())
}

/// The tree of an 8 GiB origin with 4 KiB chunks does not fit into 1 MiB.
fn beyond_the_cache(plan: &Plan, samples: &mut Samples) -> Outcome {
    let case = Case {
        name: "cold-tree",
        origin: 8 * GIB,
        chunk: 4 << 10,
        depth: 32,
        chunks: plan.copied,
    };
    let mut csnap = serve(plan, &case, Vec::new())?;
    let old = csnap.take()?;
    let uri = csnap.uri();
    Job::random(&uri, "randwrite", case.chunk, End::Requests(case.chunks)).run()?;
    csnap.restart(&["--cache".into(), "1M".into()])?;
    let mut note = |name: &str, iops| samples.add(key(name, case.chunk >> 10, "requests/s"), iops);
    let timed =
        |uri: &str, kind| Job::random(uri, kind, 4096, End::Seconds(plan.seconds * 2)).run();
    let reads = csnap.counter("block_reads")?;
    note(
        "snapshot-read-cold-tree",
        timed(&csnap.map(&old)?, "randread")?.iops,
    );
    let missed = csnap.counter("block_reads")? > reads;
    csnap.take()?;
    note("first-overwrite-cold-tree", timed(&uri, "randwrite")?.iops);
    csnap.end()?;
    ensure!(
        missed,
        "the tree fits into the cache: the cold-tree cases measure nothing"
    );
    Ok(())
}

fn key(case: &str, chunk_kib: u64, unit: &'static str) -> Key {
    Key {
        case: case.into(),
        target: "csnap".into(),
        snapshots: 1,
        chunk_kib,
        unit,
    }
}

struct Counted {
    chunks: u64,
    bytes: u64,
    commits: u64,
}

impl Counted {
    fn of(csnap: &Csnap) -> Outcome<Self> {
        let data = csnap.counter("data_bytes")?;
        let metadata = csnap.counter("journal_bytes")? + csnap.counter("checkpoint_bytes")?;
        Ok(Self {
            chunks: csnap.counter("chunks_copied")?,
            bytes: data + metadata,
            commits: csnap.counter("commits")?,
        })
    }
}

/// What is still only in the journal must be counted as tree, too.
fn wait_for_checkpoint(csnap: &Csnap) -> Outcome {
    let deadline = Instant::now() + CHECKPOINT_WITHIN;
    let done = csnap.counter("checkpoints")?;
    while csnap.counter("checkpoints")? == done {
        ensure!(
            Instant::now() < deadline,
            "no checkpoint within {CHECKPOINT_WITHIN:?}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
