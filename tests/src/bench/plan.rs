//! How large, how long, how often.

use std::path::PathBuf;

use crate::e2e::files::MIB;
use crate::e2e::{Fault, Outcome, tools};

/// What one whole run of the benchmark does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A first look only: fewer cases, smaller devices.
    pub quick: bool,
    /// Rounds over all targets; a row is their median.
    pub rounds: usize,
    /// Bytes of each origin of the main suite.
    pub origin: u64,
    /// Chunk size in bytes.
    pub chunk: u64,
    /// Seconds of each timed case.
    pub seconds: u32,
    /// Snapshot counts of the csnap targets.
    pub snapshots: Vec<u32>,
    /// Chunks copied per amplification case at queue depth 32.
    pub copied: u64,
    /// Chunks copied at queue depth 1, where each waits for its own flush.
    pub copied_alone: u64,
    /// Chunks copied per case of the engine alone.
    pub inserted: u64,
    /// Directory in memory.
    pub ram: PathBuf,
    /// Directory on the disk.
    pub disk: PathBuf,
}

impl Plan {
    /// The full plan, or the quick one if `BENCH_QUICK=1`. `BENCH_ROUNDS`,
    /// `BENCH_RAM` and `BENCH_DISK` (directories) change it.
    ///
    /// # Errors
    /// If a variable makes no sense or the program lies outside a target directory.
    pub fn from_environment() -> Outcome<Self> {
        let quick = std::env::var("BENCH_QUICK").is_ok_and(|value| value == "1");
        let disk = match std::env::var_os("BENCH_DISK") {
            Some(dir) => PathBuf::from(dir),
            None => tools::target_dir()?.join("bench").join("work"),
        };
        let ram = std::env::var_os("BENCH_RAM").unwrap_or_else(|| "/dev/shm/csnap-bench".into());
        let rounds = match std::env::var("BENCH_ROUNDS") {
            Ok(text) => text
                .parse()
                .map_err(|_| Fault::wrong("BENCH_ROUNDS is not a number"))?,
            Err(_) => 5,
        };
        Ok(Self {
            quick,
            rounds: if quick { rounds.min(3) } else { rounds },
            origin: if quick { 96 * MIB } else { 384 * MIB },
            chunk: 16 << 10,
            seconds: if quick { 1 } else { 2 },
            snapshots: vec![0, 1, 8, 64],
            copied: if quick { 32 << 10 } else { 256 << 10 },
            copied_alone: if quick { 500 } else { 4000 },
            inserted: if quick { 64 << 10 } else { 512 << 10 },
            ram: PathBuf::from(ram),
            disk,
        })
    }

    /// Chunks in an origin of the main suite.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.origin / self.chunk
    }

    /// Chunk size in KiB, for the rows.
    #[must_use]
    pub fn chunk_kib(&self) -> u64 {
        self.chunk >> 10
    }
}
