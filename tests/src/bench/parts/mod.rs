//! The parts a copyout is made of, each alone: what no engine can be faster than.
//!
//! | row | what |
//! |---|---|
//! | `part-crc32c-4k-*` | the checksum of 4 KiB, by the processor's instruction and by a table |
//! | `part-copy-loop-qd*` | read a chunk, write it elsewhere, overwrite it: nothing recorded, nothing flushed |
//! | `part-commit` | one journal block and `fdatasync` |
//!
//! The last two with direct I/O, in memory (tmpfs) and, marked `-disk`, on the disk.
//!
//! - [`checksum`], [`copy_loop`], [`commit`]: one each
//! - [`mod@file`]: a file for direct I/O

pub mod checksum;
pub mod commit;
pub mod copy_loop;
pub mod file;

use std::path::Path;
use std::time::Duration;

use super::plan::Plan;
use super::report::{Key, Samples};
use crate::e2e::Outcome;
use crate::e2e::fault::Trying;

/// Measures every part, round after round.
///
/// # Errors
/// If a file fails.
pub fn measure(plan: &Plan, samples: &mut Samples) -> Outcome {
    for _ in 0..plan.rounds {
        for (name, nanoseconds) in checksum::measure() {
            add(samples, format!("part-crc32c-4k-{name}"), "ns", nanoseconds);
        }
        on_files(plan, &plan.ram, "", samples)?;
        on_files(plan, &plan.disk, "-disk", samples)?;
    }
    Ok(())
}

fn on_files(plan: &Plan, below: &Path, medium: &str, samples: &mut Samples) -> Outcome {
    let dir = below.join("parts");
    std::fs::create_dir_all(&dir).trying(|| format!("make {}", dir.display()))?;
    let time = Duration::from_secs(plan.seconds.into());
    for threads in [1, 32] {
        let rate = copy_loop::measure(&dir, threads, time)?;
        let name = format!("part-copy-loop-qd{threads}{medium}");
        add(samples, name, "chunks/s", rate);
    }
    let rate = commit::measure(&dir, time)?;
    add(samples, format!("part-commit{medium}"), "commits/s", rate);
    std::fs::remove_dir_all(&dir).trying(|| format!("remove {}", dir.display()))
}

fn add(samples: &mut Samples, case: String, unit: &'static str, value: f64) {
    let chunk_kib = if case.contains("copy-loop") {
        copy_loop::CHUNK as u64 >> 10
    } else {
        0
    };
    let target = "parts".into();
    let key = Key {
        case,
        target,
        snapshots: 0,
        chunk_kib,
        unit,
    };
    samples.add(key, value);
}
